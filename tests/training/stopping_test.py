"""A run that was stopped ends where one left alone ends, whatever stopped it, and keeps what was good."""

import shutil
import signal
import warnings

import ddsp
import gin
import pytest
import tensorflow as tf
from made_runs import STEPS, assert_same_state, configure_tiny, contents, step

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.locks import only_writer
from neural_midi_synth.training.loop import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    from neural_midi_synth.data_prep import midi_audio


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_left_alone(trained, start_command, tmp_path):
    folder = tmp_path / "instrument"
    killed = start_command("train", *trained.arguments, "--save_dir", folder)
    killed.wait_for(folder / "last" / "checkpoint")
    killed.send(signal.SIGKILL)
    assert killed.answer().status == -signal.SIGKILL
    reached = step(folder)
    assert 0 < reached < step(trained.folder) == STEPS
    again = start_command("train", *trained.arguments, "--save_dir", folder).answer()
    assert again.status == 0, again.error
    assert f"Going on from step {reached}, " in again.output
    for name in ("last", "best"):
        assert_same_state(folder, trained.folder, name)


@pytest.mark.slow
def test_ctrl_c_saves_what_the_same_command_goes_on_from(trained, start_command, tmp_path):
    folder = tmp_path / "instrument"
    stopped = start_command("train", *trained.arguments, "--save_dir", folder)
    stopped.wait_for(folder / "last" / "checkpoint")
    stopped.send(signal.SIGINT)
    answer = stopped.answer()
    assert answer.status == 130, answer.error
    assert 0 < step(folder) < STEPS
    assert f"Stopped at step {step(folder)}; the same command goes on from there." in answer.output
    assert answer.error.splitlines()[-1].endswith(": stopped")
    assert "Traceback" not in answer.error


class StopAt(tf.keras.callbacks.Callback):
    """Is Ctrl-C after a given step."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def on_train_batch_end(self, batch, logs=None):
        """Stops."""
        if int(self.model.optimizer.iterations) == self._step:
            raise KeyboardInterrupt


class KeepLast(tf.keras.callbacks.Callback):
    """Copies `last/` as it is after a given step."""

    def __init__(self, step, folder, copy):
        super().__init__()
        self._step, self._folder, self._copy = step, folder, copy

    def on_epoch_end(self, epoch, logs=None):
        """Copies."""
        if int(self.model.optimizer.iterations) == self._step:
            shutil.copytree(self._folder / "last", self._copy)


@pytest.mark.slow
def test_going_on_leaves_the_best_to_what_a_run_left_alone_would_choose(trained, tmp_path):
    folder = tmp_path / "instrument"
    builder = configure_tiny(trained)
    # Stopped in the middle of an epoch:
    with pytest.raises(KeyboardInterrupt):
        train(builder, folder, callbacks=[StopAt(13)])
    assert step(folder) == 13
    train(builder, folder, callbacks=[KeepLast(24, folder, tmp_path / "last")])
    for name in ("last", "best"):
        assert_same_state(folder, trained.folder, name)
    assert step(folder, "best") > 24
    best = contents(folder / "best")
    # Killed when it had saved the best and not yet the last:
    shutil.rmtree(folder / "last")
    shutil.copytree(tmp_path / "last", folder / "last")
    train(builder, folder)
    assert step(folder) == STEPS
    assert contents(folder / "best") == best
    # With nothing left to do:
    train(builder, folder)
    assert contents(folder / "best") == best


def copy_of(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "instrument")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(trained, run_command, tmp_path):
    folder = copy_of(trained, tmp_path)
    more = ("--steps", "60", "--gin_param", "nms.train.learning_rate = 1e30")
    answer = run_command("train", *trained.arguments, "--save_dir", folder, *more)
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith(f"nms_train: {folder}: the loss is not a number any more at step ")
    assert "Traceback" not in answer.error
    assert_same_state(folder, trained.folder)


@gin.configurable(module="tests")
class WithoutGradient(ddsp.losses.Loss):
    """A loss of 1 whose gradient is not a number: 0 times infinity."""

    def call(self, target_audio, audio):
        """Returns 1."""
        return 1.0 + tf.reduce_mean(tf.sqrt(0.0 * audio * target_audio))


@pytest.mark.slow
def test_a_gradient_that_is_no_number_stops_the_run_before_anything_is_saved(trained, tmp_path):
    nothing = {"validation_fraction": 0.0, "test_fraction": 0.0}
    configure_tiny(trained, "Instrument.spectral_loss = @tests.WithoutGradient()", "nms.train.steps_per_epoch = 1")
    builder = midi_audio.build(trained.takes, tmp_path / "data", **nothing)
    folder = tmp_path / "instrument"
    with pytest.raises(DataError, match=f"^{folder}: the gradient is not a number any more at step 1. "):
        train(builder, folder)
    assert tf.train.latest_checkpoint(str(folder / "last")) is None
    assert tf.train.latest_checkpoint(str(folder / "best")) is None


def test_two_trainings_do_not_write_one_folder(trained, run_command, tmp_path):
    folder = copy_of(trained, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with only_writer(folder):
        answer = run_command("train", *trained.arguments, "--save_dir", folder, "--steps", "60")
        assert nms.load(folder).render(trained.takes / "examples" / "riff.mid").any()  # Readers need not wait.
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith(f"nms_train: {folder}: another training is writing there. ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_by_the_clock_stops_in_time_for_good(trained, run_command, tmp_path):
    folder = tmp_path / "instrument"
    arguments = (*trained.arguments, "--save_dir", folder, "--max_minutes", "0.02")
    answer = run_command("train", *arguments)
    assert answer.status == 0, answer.error
    # Making the graph alone takes longer than that, and the step begun is finished.
    assert step(folder) == 1
    assert tf.train.load_checkpoint(str(folder / "last")).get_tensor("seconds/.ATTRIBUTES/VARIABLE_VALUE") >= 1.2
    again = run_command("train", *arguments)
    assert again.status == 0
    assert "Going on from step 1, " in again.output
    assert "Nothing left to do" in again.output
    assert step(folder) == 1
