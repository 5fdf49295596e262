"""The callbacks of `fit`: how far training is, its bar, its checkpoints, and what TensorBoard shows."""

from __future__ import annotations

import math
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import pictures
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.midi.pieces import Piece
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES, best_part, read_parts

_ALL_PITCHES = (0, 127)
# From this ratio of the losses of what was held out and what was trained on, takes are what is lacking. docs/train.md
# has the curves: with one take of the demo guitar it is 1.8, with three 1.6, and with ten 1.2 from 300 steps to 3000.
_LACKS_TAKES, _ENOUGH_STEPS = 1.4, 6000
_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"  # Where a checkpoint keeps the value of a variable.


class Budget:
    """How much of the training is done, by steps or by minutes, interruptions included.

    Attributes:
        seconds: A variable of the checkpoint: seconds trained until now.
        steps: When training ends, unless there is `max_minutes`.
        max_minutes: When training ends.
    """

    def __init__(self, optimizer: tf.keras.optimizers.Optimizer, steps: int, max_minutes: float | None) -> None:
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.steps = steps
        self.max_minutes = max_minutes
        self._optimizer = optimizer
        self._started = time.monotonic()
        self._before = 0.0

    def start(self) -> None:
        """Starts the clock, where the checkpoint left it."""
        self._started, self._before = time.monotonic(), float(self.seconds.numpy())

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self._optimizer.iterations.numpy())  # Which a mirrored variable has, and no int().

    @property
    def minutes(self) -> float:
        """Minutes trained."""
        return (self._before + time.monotonic() - self._started) / 60.0

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1: of the minutes where they are given, else of the steps."""
        used = self.step / self.steps if self.max_minutes is None else self.minutes / self.max_minutes
        return min(1.0, used)


class Progress(tf.keras.callbacks.Callback):
    """Sets the learning rate, stops when the budget is used or a number is none any more, and shows one bar."""

    def __init__(
        self,
        budget: Budget,
        learning_rate: float,
        schedule: Callable[[int, float], float],
        save_dir: pathlib.Path,
    ) -> None:
        super().__init__()
        self._budget = budget
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._save_dir = save_dir
        self._bar: tqdm | None = None
        self._notes: dict[str, float] = {}
        self._losses: tuple[float, float] | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Shows the bar, unless it is there."""
        if self._bar is not None:
            return
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        interval = 0.5 if sys.stderr.isatty() or "ipykernel" in sys.modules else 30.0  # A log needs fewer lines.
        self._bar = tqdm(total=1.0, desc="Training", bar_format=form, mininterval=interval)
        self._bar.update(self._budget.progress)
        self._bar.unpause()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sets the learning rate of the step."""
        factor = self._schedule(self._budget.step, self._budget.progress)
        self.model.optimizer.learning_rate.assign(self._learning_rate * factor)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss, the gradient and the budget."""
        for name, what in (("loss", "the loss"), ("gradient_norm", "the gradient")):
            if not math.isfinite(logs[name]):
                raise DataError(
                    f"{self._save_dir}: {what} is not a number any more at step {self._budget.step}. The last good "
                    "state is kept: check the recordings, or lower train.learning_rate, and run again."
                )
        self._notes["loss"] = logs["loss"]
        self._bar.set_postfix(self._notes, refresh=False)
        self._bar.update(self._budget.progress - self._bar.n)
        if self._budget.progress >= 1.0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Shows the validation loss."""
        if logs and "val_loss" in logs:
            self._notes["validation"] = logs["val_loss"]
            self._losses = logs["loss"], logs["val_loss"]

    def outlook(self) -> str | None:
        """Tells whether more training, or more takes, would be heard; None where nothing is held out to tell it by."""
        if self._losses is None:
            return None
        loss, held_out = self._losses
        if held_out > _LACKS_TAKES * loss:
            return (
                "More takes would be heard rather than more training: it is nearer to what it was trained on (loss "
                f"{loss:.2f}) than to what was held out ({held_out:.2f})."
            )
        if self._budget.step < _ENOUGH_STEPS:
            return (
                f"More training would be heard: it had {self._budget.step} steps of {_ENOUGH_STEPS} that are worth it."
            )
        return "More training or takes would hardly be heard."

    def close(self) -> None:
        """Closes the bar, however training ended, so that what is told next stands below it."""
        if self._bar is not None:
            self._bar.close()


class Checkpoints(tf.keras.callbacks.Callback):
    """Keeps the last state and the best on validation, each whole at every moment.

    Attributes:
        best: A variable of the checkpoint: the loss of the best state.
    """

    def __init__(self, instrument: Instrument, budget: Budget, save_dir: pathlib.Path, writes: bool) -> None:
        """Prepares to save; does not touch the folder yet.

        Args:
            instrument: With its optimizer.
            budget: How far training is.
            save_dir: Has the folders `last/` and `best/`.
            writes: Whether this process writes there. Where several train together, one does. All of them must save,
                since to read a variable that is spread over them takes all; what the others save is thrown away.
        """
        super().__init__()
        self.best = tf.Variable(float("inf"), trainable=False)
        self._instrument = instrument
        self._budget = budget
        checkpoint = tf.train.Checkpoint(
            instrument=instrument, optimizer=instrument.optimizer, seconds=budget.seconds, best=self.best
        )
        self._thrown_away = None if writes else tempfile.TemporaryDirectory(prefix="nms_worker_")
        folder = save_dir if self._thrown_away is None else pathlib.Path(self._thrown_away.name)
        self._managers = {
            name: tf.train.CheckpointManager(checkpoint, str(folder / name), max_to_keep=1) for name in ("last", "best")
        }
        self._checkpoint = checkpoint
        self._save_dir = save_dir

    def restore(self) -> bool:
        """Goes on from the last state, if there is one; says whether there was.

        Raises:
            DataError: It is damaged, or of another instrument.
        """
        path = tf.train.latest_checkpoint(str(self._save_dir / "last"))
        if path is None:
            return False
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
            best = tf.train.latest_checkpoint(str(self._save_dir / "best"))
            if best is not None:
                # The best is saved before the last: a run that ended between the two knows its loss from here.
                self.best.assign(tf.train.load_variable(best, f"best/{_VALUE}"))
        except (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError) as error:
            raise DataError(
                f"{path}: damaged, or of an instrument with another configuration. Choose another --save_dir."
            ) from error
        return True

    def save(self, name: str = "last") -> bool:
        """Saves the state as it is now, unless something in it is not a finite number.

        Args:
            name: 'last' or 'best'.

        Returns:
            Whether it was saved.
        """
        variables = [*self._instrument.trainable_variables, *self._instrument.optimizer.variables]
        if not all(np.isfinite(variable.numpy()).all() for variable in variables):
            return False
        self._budget.seconds.assign(self._budget.minutes * 60.0)
        self._managers[name].save(checkpoint_number=self._budget.step)
        return True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the last state, and the best if it is."""
        loss = logs.get("val_loss", logs["loss"])
        if not math.isfinite(loss):
            return
        if loss < float(self.best.numpy()):
            before = float(self.best.numpy())
            self.best.assign(loss)
            if not self.save("best"):
                self.best.assign(before)
        self.save()


def read_examples(folder: str | os.PathLike) -> dict[str, Piece]:
    """Reads the MIDI files of a folder; of those with several instruments, one.

    Args:
        folder: May have other files, which are left alone.

    Returns:
        Name of the file, without suffix → piece.

    Raises:
        DataError: There is no such folder, or a MIDI file can't be used.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give a folder of MIDI files as --example_dir.")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in MIDI_SUFFIXES]
    return {path.stem: best_part(read_parts(path), *_ALL_PITCHES).piece for path in paths}


class ExampleLog(tf.keras.callbacks.Callback):
    """Writes scalars, and what the instrument makes of examples, for TensorBoard."""

    def __init__(self, budget: Budget, log_dir: pathlib.Path, pieces: Mapping[str, Piece], every_steps: int) -> None:
        """Opens the log.

        Args:
            budget: How far training is.
            log_dir: Folder that TensorBoard reads.
            pieces: Name → what is played.
            every_steps: Steps from one playing of the examples to the next.
        """
        super().__init__()
        self._budget = budget
        self._every_steps = every_steps
        self._played_at = budget.step
        self._pieces = dict(pieces)
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the scalars; plays the examples every so many steps."""
        with self._writer.as_default(step=self._budget.step):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            tf.summary.scalar("learning_rate", float(self.model.optimizer.learning_rate.numpy()))
            tf.summary.scalar("minutes", self._budget.minutes)
        if self._budget.step - self._played_at >= self._every_steps:
            self._play()

    def finish(self) -> None:
        """Plays the examples a last time, if something was trained since."""
        if self._budget.step > self._played_at:
            self._play()
        self._writer.close()

    def _play(self) -> None:
        self._played_at = self._budget.step
        with self._writer.as_default(step=self._budget.step):
            for name, piece in self._pieces.items():
                samples = self.model.render(piece)
                tf.summary.audio(name, samples[np.newaxis, :, np.newaxis], self.model.sample_rate)
                picture = pictures.example_picture(piece, samples, None, self.model.sample_rate, self.model.styles)
                tf.summary.image(name, tf.io.decode_png(picture, channels=3)[tf.newaxis])
