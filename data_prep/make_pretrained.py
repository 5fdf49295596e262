"""Trains the instrument that comes with the package: the demo guitar, playable live.

python data_prep/make_pretrained.py

About half an hour on two processor cores. Stopped, it goes on where it was; what it trains is kept in out/pretrained/.
"""

from __future__ import annotations

import json
import pathlib
import shutil

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.files.outputs import write_aside

CONFIG = "models/guitar_live.gin"
WORK = pathlib.Path(__file__).resolve().parent.parent / "out"


def main() -> None:
    """Trains, evaluates, and puts weights, config and figures into the package."""
    environment.import_tensorflow_quietly()
    from neural_midi_synth.data_prep import midi_audio
    from neural_midi_synth.evaluation.comparing import REPORT_NUMBERS, evaluate
    from neural_midi_synth.evaluation.examples import examples_in
    from neural_midi_synth.exporting.portable import save_weights
    from neural_midi_synth.instrument.loading import (
        CONFIG_NAME,
        DATA_SET_NAME,
        PRETRAINED,
        configure,
        keep_verdict,
        load,
    )
    from neural_midi_synth.training.loop import train

    folder = WORK / "pretrained" / "instrument"
    configure([configs.find(CONFIG)])
    examples = midi_audio.DEMO_GUITAR / "examples"
    builder = midi_audio.build(data_dir=WORK / "data")
    train(builder, folder, examples)
    instrument = load(folder)
    references = examples_in(examples, instrument.sample_rate)
    summary = evaluate(instrument, references, WORK / "pretrained", title="Demo guitar", takes=builder.data_dir)
    with write_aside(PRETRAINED) as aside:
        save_weights(instrument, folder, aside / "best")
        keep_verdict(aside, summary["verdict"])
        shutil.copy(folder / CONFIG_NAME, aside)
        shutil.copy(WORK / "pretrained" / REPORT_NUMBERS, aside)
        facts = json.loads((folder / DATA_SET_NAME).read_text(encoding="utf-8"))
        del facts["folder"]  # It is on the machine that trained.
        (aside / DATA_SET_NAME).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    print(f"The instrument is in {PRETRAINED}.")


if __name__ == "__main__":
    command_line.run(main, __doc__)
