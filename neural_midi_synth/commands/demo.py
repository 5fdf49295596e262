"""make demo: the whole road once, from the demo guitar's takes to a report and sounds to listen to."""

from __future__ import annotations

import pathlib
import shutil
from typing import TYPE_CHECKING

from absl import flags

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import check_writable

if TYPE_CHECKING:
    from neural_midi_synth.evaluation.examples import Example
    from neural_midi_synth.instrument.instrument import Instrument

USAGE = """Trains the default instrument on the demo guitar, evaluates it and plays the examples.

python -m neural_midi_synth.commands.demo --minutes 10 --output out/demo"""

OPEN_AND_CLOSED = "test_midi_extra_long_open_closed"
# A file in the folder of the demo's instrument: that it is the demo's, and how far that came.
MARK, BEGUN, DONE = ".demo", "begun\n", "done\n"

_MINUTES = flags.DEFINE_float("minutes", 10.0, "How long to train.", lower_bound=0.1, allow_override=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True, allow_override=True)


def main() -> None:
    """Walks the road."""
    environment.import_tensorflow_quietly()

    from neural_midi_synth.commands.train import DEFAULT_CONFIG
    from neural_midi_synth.data_prep import midi_audio
    from neural_midi_synth.evaluation.comparing import REPORT_PAGE, evaluate
    from neural_midi_synth.evaluation.examples import examples_in
    from neural_midi_synth.instrument.loading import configure, keep_verdict, load
    from neural_midi_synth.training.loop import train

    output = pathlib.Path(_OUTPUT.value)
    folder = output / "instrument"
    prepare(folder)

    print("1. The data set: twelve minutes of guitar and their MIDI annotations.")
    configure([configs.find(DEFAULT_CONFIG)])
    builder = midi_audio.build(data_dir=output.parent / "data")
    print(f"2. Training for {_MINUTES.value:g} minutes.")
    examples = midi_audio.DEMO_GUITAR / "examples"
    train(builder, folder, examples, max_minutes=_MINUTES.value)
    print("3. Playing the examples, which were never trained on, and comparing them with their recordings.")
    instrument = load(folder)
    references = examples_in(examples, instrument.sample_rate)
    summary = evaluate(instrument, references, output, title="Demo guitar", takes=builder.data_dir)
    keep_verdict(folder, summary["verdict"])
    _print_openness(next(each for each in references if each.name == OPEN_AND_CLOSED), instrument)
    (folder / MARK).write_text(DONE, encoding="utf-8")
    print(f"""
Open {output / REPORT_PAGE} in a browser: pictures and players, recording beside instrument.
The sounds are in {output / "sounds"}, the pictures in {output / "pictures"}, the instrument in {folder}.

Next:
  nms_render --instrument {folder} --midi your.mid --output your.wav
  nms_render --instrument {folder} --midi your.mid --output open.wav --style openness=127
  nms_train --source_dir your_takes/ --save_dir runs/your_guitar
(in the environment .venv: source .venv/bin/activate)""")


def prepare(folder: pathlib.Path) -> None:
    """Makes the folder of the demo's instrument ready for training.

    A demo that was stopped goes on with what is there. What one that came to its end has trained is deleted, and
    nothing else is.

    Args:
        folder: Of the demo's instrument.

    Raises:
        DataError: There is a folder that no demo has made.
    """
    from neural_midi_synth.instrument.loading import CONFIG_NAME, DATA_SET_NAME, VERDICT_NAME

    mark = folder / MARK
    check_writable(mark)
    if folder.exists() and not mark.exists():
        raise DataError(f"{folder}: is not of an earlier demo. Move it away, or choose another --output.")
    if mark.exists() and mark.read_text(encoding="utf-8") == DONE:
        for name in ("last", "best", "logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (CONFIG_NAME, DATA_SET_NAME, VERDICT_NAME):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(BEGUN, encoding="utf-8")


def _print_openness(example: Example, instrument: Instrument) -> None:
    """Says how long a closed and an open note ring, recorded and played."""
    from neural_midi_synth.evaluation import metrics

    rendering = instrument.render(example.piece)
    print("\nIs openness heard? Energy 0.5 to 1.5 s after the onset against the first 0.1 s:")
    for style, onset in zip(("closed", "open"), example.piece.notes[:, 0]):
        recorded, played = (
            metrics.openness_decay(samples, onset, instrument.sample_rate) for samples in (example.reference, rendering)
        )
        print(f"  {style:6} recorded {recorded:6.1f} dB, played {played:6.1f} dB")


def run() -> None:
    """What `python -m neural_midi_synth.commands.demo` runs."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
