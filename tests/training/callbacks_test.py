"""What is saved is whole and finite, and the budget is kept over interruptions."""

import pathlib
import time

import mido
import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.loading import build, configure
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi
from neural_midi_synth.training.callbacks import Budget, Checkpoints, Progress, read_examples

TINY_GIN = pathlib.Path(__file__).parents[1] / "tiny_instrument.gin"


@pytest.fixture
def instrument():
    configure([TINY_GIN])
    instrument = build()
    instrument.compile(optimizer=tf.keras.optimizers.Adam(1e-3))
    instrument.optimizer.build(instrument.trainable_variables)
    return instrument


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_budget_of_minutes_goes_on_where_it_was(instrument):
    budget = Budget(instrument.optimizer, steps=10, max_minutes=2.0)
    budget.seconds.assign(60.0)
    budget.start()
    time.sleep(0.01)
    assert 0.5 < budget.progress < 0.6
    budget.seconds.assign(1e6)
    budget.start()
    assert budget.progress == 1.0


def test_a_budget_of_steps_counts_those_of_the_optimizer(instrument):
    budget = Budget(instrument.optimizer, steps=10, max_minutes=None)
    for step, progress in ((0, 0.0), (7, 0.7), (10, 1.0), (12, 1.0)):
        instrument.optimizer.iterations.assign(step)
        assert (budget.step, budget.progress) == (step, progress)


def test_training_tells_whether_more_of_it_or_more_takes_would_be_heard(instrument, tmp_path):
    progress = Progress(Budget(instrument.optimizer, 10_000, None), 1e-3, lambda step, done: 1.0, tmp_path)
    progress.on_epoch_end(0, {"loss": 2.0})
    assert progress.outlook() is None  # Nothing is held out.
    progress.on_epoch_end(1, {"loss": 2.0, "val_loss": 2.2})
    assert progress.outlook().startswith("More training would be heard")
    progress.on_epoch_end(2, {"loss": 2.0, "val_loss": 4.0})
    assert progress.outlook().startswith("More takes would be heard rather than more training")
    progress.on_epoch_end(3, {"loss": 2.0, "val_loss": 2.2})
    instrument.optimizer.iterations.assign(9_000)
    assert progress.outlook() == "More training or takes would hardly be heard."


@pytest.mark.parametrize("of", ["weights", "optimizer"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_with_a_number_that_is_none_is_not_saved(instrument, tmp_path, of, value):
    checkpoints = Checkpoints(instrument, Budget(instrument.optimizer, 10, None), tmp_path, writes=True)
    checkpoints.on_epoch_end(0, {"loss": 2.0, "val_loss": 3.0})
    before = contents(tmp_path)
    assert float(checkpoints.best) == 3.0
    variables = instrument.trainable_variables if of == "weights" else instrument.optimizer.variables[2:]
    variable = max(variables, key=lambda each: tf.size(each))
    spoilt = variable.numpy()
    spoilt.flat[spoilt.size // 2] = value
    variable.assign(spoilt)
    instrument.optimizer.iterations.assign(5)
    checkpoints.on_epoch_end(1, {"loss": 1.0, "val_loss": 1.0})  # As finite as before.
    assert not checkpoints.save()  # As Ctrl-C does.
    assert contents(tmp_path) == before
    assert float(checkpoints.best) == 3.0


def test_a_better_state_takes_the_place_of_the_best(instrument, tmp_path):
    checkpoints = Checkpoints(instrument, Budget(instrument.optimizer, 10, None), tmp_path, writes=True)
    best = []
    for step, loss in enumerate((5.0, 4.0, 4.5, float("nan"), 3.0), start=1):
        instrument.optimizer.iterations.assign(step)
        checkpoints.on_epoch_end(step, {"loss": 1.0, "val_loss": loss})
        best.append([tf.train.latest_checkpoint(str(tmp_path / name))[-1] for name in ("best", "last")])
    assert best == [["1", "1"], ["2", "2"], ["2", "3"], ["2", "3"], ["5", "5"]]
    assert sorted(path.name for path in (tmp_path / "best").glob("*.index")) == ["ckpt-5.index"]


@pytest.mark.parametrize(("spoilt", "what"), [("loss", "the loss"), ("gradient_norm", "the gradient")])
def test_training_stops_where_a_number_is_none_any_more(instrument, tmp_path, spoilt, what):
    progress = Progress(Budget(instrument.optimizer, 10, None), 1e-3, lambda step, progress: 1.0, tmp_path)
    progress.set_model(instrument)
    progress.on_train_begin()
    try:
        logs = {"loss": 1.0, "gradient_norm": 1.0}
        progress.on_train_batch_end(0, logs)
        with pytest.raises(DataError, match=f"^{tmp_path}: {what} is not a number any more at step 0. "):
            progress.on_train_batch_end(1, {**logs, spoilt: float("nan")})
    finally:
        progress.close()


def test_examples_are_the_midi_files_of_a_folder(tmp_path):
    write_midi(Voice(np.array([[0.0, 1.0, 60, 99]])), tmp_path / "one.mid")
    write_midi(Voice(np.array([[0.0, 2.0, 61, 99]])), tmp_path / "two.MID")
    (tmp_path / "one.wav").write_bytes(b"")
    band = mido.MidiFile(type=1, ticks_per_beat=960)  # At 120 beats a minute.
    for program, channel, notes in ((27, 0, (60, 62, 64)), (33, 1, (36,)), (0, 9, (35, 35, 35, 35, 35))):
        track = mido.MidiTrack([mido.Message("program_change", program=program, channel=channel)])
        for note in notes:
            track.append(mido.Message("note_on", note=note, channel=channel))
            track.append(mido.Message("note_off", note=note, channel=channel, time=1920))
        band.tracks.append(track)
    band.save(tmp_path / "band.mid")
    pieces = read_examples(tmp_path)
    # Of the band what has most notes, but not the drums.
    assert {name: piece.duration for name, piece in pieces.items()} == {"one": 1.0, "two": 2.0, "band": 3.0}
    with pytest.raises(DataError, match="no such folder"):
        read_examples(tmp_path / "none")
