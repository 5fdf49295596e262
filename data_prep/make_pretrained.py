"""Trains the instrument that comes with the package: the demo guitar, playable live.

python data_prep/make_pretrained.py

About 20 minutes on two processor cores. Stopped, it goes on where it was; what it trains is kept in out/pretrained/.
"""

from __future__ import annotations

import json
import pathlib
import shutil

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.files.outputs import write_aside

CONFIG = "models/guitar_live.gin"
VALUE = ".ATTRIBUTES/VARIABLE_VALUE"  # where TensorFlow keeps the value of a variable
WORK = pathlib.Path(__file__).resolve().parent.parent / "out"


def main() -> None:
    """Trains, evaluates, and puts weights, config and figures into the package."""
    environment.import_tensorflow_quietly()
    import tensorflow as tf

    from neural_midi_synth.data_prep import midi_audio
    from neural_midi_synth.evaluation.comparing import REPORT_NUMBERS, evaluate
    from neural_midi_synth.evaluation.examples import examples_in
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
        # Weights and figures alone: what training needs to go on is twice as much again.
        best = tf.train.latest_checkpoint(str(folder / "best"))
        reader = tf.train.load_checkpoint(best)
        figures = {name: tf.Variable(reader.get_tensor(f"{name}/{VALUE}")) for name in ("seconds", "best")}
        checkpoint = tf.train.Checkpoint(instrument=instrument, **figures)
        steps = int(best.rpartition("-")[2])
        tf.train.CheckpointManager(checkpoint, str(aside / "best"), 1).save(checkpoint_number=steps)
        keep_verdict(aside, summary["verdict"])
        shutil.copy(folder / CONFIG_NAME, aside)
        shutil.copy(WORK / "pretrained" / REPORT_NUMBERS, aside)
        facts = json.loads((folder / DATA_SET_NAME).read_text(encoding="utf-8"))
        del facts["folder"]  # It is on the machine that trained.
        (aside / DATA_SET_NAME).write_text(json.dumps(facts, indent=2), encoding="utf-8")
    print(f"The instrument is in {PRETRAINED}.")


if __name__ == "__main__":
    command_line.run(main, __doc__)
