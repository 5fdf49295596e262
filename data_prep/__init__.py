"""From recordings and their MIDI annotations to data sets: takes, the TFDS builder `midi_audio`, the demo guitar.

`inspection` says what is wrong with takes, `corrections` mends what can be mended, `transcription` writes a first
annotation. Installed as `neural_midi_synth.data_prep`. May import `evaluation` (for pictures and pages), `midi`,
`files`, `errors`, `environment` and `configs`. The scripts `make_demo_guitar.py` (with `guitar_session.py`) and
`make_pretrained.py` are run from a checkout.
"""
