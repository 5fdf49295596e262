"""make demo: the whole road once, from the demo guitar's takes to a report and sounds to listen to."""

from __future__ import annotations

import pathlib
import shutil
from typing import TYPE_CHECKING

from absl import flags

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line

if TYPE_CHECKING:
    from neural_midi_synth.evaluation.comparing import Example
    from neural_midi_synth.instrument.instrument import Instrument

USAGE = """Trains the default instrument on the demo guitar, evaluates it and plays the examples.

python -m neural_midi_synth.demo --minutes 10 --output out/demo"""

OPEN_AND_CLOSED = "test_midi_extra_long_open_closed"

_MINUTES = flags.DEFINE_float("minutes", 10.0, "How long to train.", lower_bound=0.1, allow_override=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True, allow_override=True)


def main() -> None:
    """Walks the road."""
    environment.import_tensorflow_quietly()

    from neural_midi_synth import evaluate, training
    from neural_midi_synth.data_prep import midi_audio
    from neural_midi_synth.instrument.loading import configure, load
    from neural_midi_synth.train import DEFAULT_CONFIG

    output = pathlib.Path(_OUTPUT.value)
    folder = output / "instrument"
    report = output / evaluate.REPORT_PAGE
    if report.exists():  # An earlier demo came to its end; one that was stopped goes on.
        shutil.rmtree(folder, ignore_errors=True)
        report.unlink()

    print("1. The data set: twelve minutes of guitar and their MIDI annotations.")
    configure([configs.find(DEFAULT_CONFIG)])
    builder = midi_audio.build(data_dir=output.parent / "data")
    print(f"2. Training for {_MINUTES.value:g} minutes.")
    examples = midi_audio.DEMO_GUITAR / "examples"
    training.train(builder, folder, examples, max_minutes=_MINUTES.value)
    print("3. Playing the examples, which were never trained on, and comparing them with their recordings.")
    instrument = load(folder)
    references = evaluate.examples_in(examples, instrument.sample_rate)
    evaluate.evaluate(instrument, references, output, title="Demo guitar")
    _print_openness(next(each for each in references if each.name == OPEN_AND_CLOSED), instrument)
    print(f"""
Open {report} in a browser: pictures and players, recording beside instrument.
The sounds are in {output / "sounds"}, the pictures in {output / "pictures"}, the instrument in {folder}.

Next:
  nms_render --instrument {folder} --midi your.mid --output your.wav
  nms_render --instrument {folder} --midi your.mid --output open.wav --style openness=127
  nms_train --source_dir your_takes/ --save_dir runs/your_guitar
(in the environment .venv: source .venv/bin/activate)""")


def _print_openness(example: Example, instrument: Instrument) -> None:
    """Says how long a closed and an open note ring, recorded and played."""
    from neural_midi_synth.evaluation import metrics

    rendering = instrument.render(example.voice)
    print("\nIs openness heard? Energy 0.5 to 1.5 s after the onset against the first 0.1 s:")
    for style, onset in zip(("closed", "open"), example.voice.notes[:, 0]):
        recorded, played = (
            metrics.openness_decay(samples, onset, instrument.sample_rate) for samples in (example.reference, rendering)
        )
        print(f"  {style:6} recorded {recorded:6.1f} dB, played {played:6.1f} dB")


def run() -> None:
    """What `python -m neural_midi_synth.demo` runs."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
