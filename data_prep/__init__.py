"""From recordings and their MIDI annotations to data sets: takes, the TFDS builder `midi_audio`, the demo guitar.

Installed as `neural_midi_synth.data_prep`. May import `midi`, `files`, `errors`, `environment` and `configs`. The
scripts `make_demo_guitar.py` (with `guitar_session.py`) and `make_pretrained.py` are run from a checkout.
"""
