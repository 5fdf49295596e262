"""Training: batches that depend on the step alone, the callbacks of `fit`, and `train`, which ties them together.

A run can be stopped at any moment and started again: weights, optimizer and step are in the checkpoint, and batch,
crop and noise follow from the step and the seed. A run that was interrupted ends where one left alone ends.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tqdm.auto import tqdm

from neural_midi_synth.evaluation import pictures
from neural_midi_synth.instrument.controls import COLUMNS, PADDING
from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation.comparing import DATA_SET_NAME
from neural_midi_synth.instrument import CONFIG_NAME, Instrument, build
from neural_midi_synth.midi.notes import MIDI_SUFFIXES, read_midi
from neural_midi_synth.files.outputs import check_writable, write_aside

_EVENTS = ("notes", "control_changes", "pitch_bends")
_CACHE_BYTES = 2**30
_SHUFFLED = 4096
_FEW_VALUES = 16  # of a style, told one by one
_UNTIL_STOPPED = 10**9  # epochs


def built_data_set(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
    """Finds a data set that is built.

    Args:
        name: As tfds names it, such as 'midi_audio/default', or the path of its folder.
        data_dir: Where data sets are kept; TFDS's own place if None.

    Raises:
        DataError: There is none of that name.
    """
    remedy = "Build it with tfds build, or give --source_dir."
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # tfds warns of what is told below.
    try:
        if pathlib.Path(name).is_dir():
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (OSError, ValueError, AssertionError) as error:
        raise DataError(f"{name}: no such data set is built. {remedy}") from error
    finally:
        logging.set_verbosity(verbosity)
    if not builder.is_prepared():
        raise DataError(f"{name}: no such data set is built. {remedy}")
    if not {"audio", *_EVENTS} <= set(builder.info.features):
        raise DataError(f"{name}: is not a data set of recordings and their MIDI annotations. {remedy}")
    return builder


def training_batches(
    builder: tfds.core.DatasetBuilder, batch_size: int, clip_samples: int, sample_rate: int, seed: int, first_step: int
) -> tf.data.Dataset:
    """Makes the endless batches of the train split, from a given step on.

    Args:
        builder: A prepared data set.
        batch_size: Clips in a batch.
        clip_samples: Length of a clip, cut from an example at random.
        sample_rate: Samples a second.
        seed: Of order, crops and noise.
        first_step: The step the first batch is for.

    Returns:
        Batches of `audio` `[batch, clip_samples]`, the events padded to equal length, and `first_sample` `[batch]`.

    Raises:
        DataError: The examples are of another sample rate, or shorter than a clip.
    """
    built_for = (builder.info.metadata or {}).get("sample_rate", sample_rate)
    if built_for != sample_rate:
        raise DataError(f"{builder.data_dir}: is at {built_for} Hz, the instrument at {sample_rate} Hz. Build it anew.")
    split = builder.info.splits["train"]
    n_examples = split.num_examples
    window = builder.info.features["audio"].shape[0]
    if window < clip_samples:
        raise DataError(
            f"train.clip_seconds is {clip_samples / sample_rate:g}, but the windows of the data set are "
            f"{window / sample_rate:g} s long. Lower it, or raise MidiAudioConfig.window_seconds."
        )
    examples = builder.as_dataset(split="train").map(_sounding)
    if split.num_bytes < _CACHE_BYTES:
        examples = examples.cache()

    first = first_step * batch_size

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # An epoch's order follows from its number alone, so a run can start anywhere.
        return examples.shuffle(min(n_examples, _SHUFFLED), seed=seed + number, reshuffle_each_iteration=False)

    def clip(index: tf.Tensor, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        random = tf.random.stateless_uniform([2], [tf.cast(seed, tf.int64), index], maxval=2**30, dtype=tf.int32)
        begin = random[0] % (window - clip_samples + 1)
        clipped = {
            "audio": example["audio"][begin : begin + clip_samples],
            "first_sample": tf.cast(random[1], tf.int64),
        }
        seconds = tf.cast(begin, tf.float32) / sample_rate
        for name, times in zip(_EVENTS, (2, 1, 1)):
            clipped[name] = tf.concat([example[name][:, :times] - seconds, example[name][:, times:]], axis=1)
        return clipped

    epochs = tf.data.Dataset.range(first // n_examples, 2**62)
    clips = epochs.flat_map(epoch).skip(first % n_examples).enumerate(first).map(clip)
    return _batched(clips, batch_size, endless=True).prefetch(tf.data.AUTOTUNE)


def held_out_batches(builder: tfds.core.DatasetBuilder, split: str, batch_size: int) -> tf.data.Dataset | None:
    """Batches of whole examples of a split, in order; None where the data set holds nothing out for it."""
    if split not in builder.info.splits:
        return None
    return _batched(builder.as_dataset(split=split).map(_sounding), batch_size, endless=False).prefetch(2)


def _sounding(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: example[name] for name in ("audio", *_EVENTS)}


def _batched(clips: tf.data.Dataset, batch_size: int, endless: bool) -> tf.data.Dataset:
    padding = {name: tf.zeros([], spec.dtype) for name, spec in clips.element_spec.items()}
    padding.update({name: tf.constant(PADDING) for name in _EVENTS})
    batches = clips.padded_batch(batch_size, padding_values=padding, drop_remainder=endless)
    options = tf.data.Options()
    # Every worker makes the same batches and takes its share of each.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


@gin.configurable(module="nms")
def cosine_decay(step: int, progress: float, warmup_steps: int = 50, hold: float = 0.3, end: float = 0.01) -> float:
    """The default learning rate schedule: a short rise, a level stretch, and a fall that ends with the training.

    Args:
        step: Steps done.
        progress: Share of the training that is done, 0 to 1.
        warmup_steps: Steps of the rise.
        hold: Progress at which the fall begins.
        end: What is left at the end.

    Returns:
        Factor on the learning rate.
    """
    fall = max(0.0, progress - hold) / (1.0 - hold)
    return min(1.0, (step + 1) / warmup_steps) * (end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fall))))


@gin.configurable(module="nms")
def exponential_decay(step: int, progress: float, rate: float = 0.98, steps: int = 10_000) -> float:
    """The lineage's schedule: ×`rate` after every `steps` steps, whatever the progress."""
    del progress
    return rate ** (step // steps)


class Budget:
    """How much of the training is done, by steps or by minutes, interruptions included.

    Attributes:
        seconds: A variable of the checkpoint: seconds trained until now.
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
    """Sets the learning rate, stops when the budget is used or the loss is no number, and shows one bar."""

    def __init__(self, budget: Budget, learning_rate: float, schedule: Any, save_dir: pathlib.Path) -> None:
        super().__init__()
        self._budget = budget
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._save_dir = save_dir
        self._bar: tqdm | None = None
        self._notes: dict[str, float] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Shows the bar."""
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
        """Looks at the loss and at the budget."""
        if not math.isfinite(logs["loss"]):
            raise DataError(
                f"{self._save_dir}: the loss is not a number any more at step {self._budget.step}. The last good state "
                "is kept: check the recordings, or lower train.learning_rate, and run again."
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

    def close(self) -> None:
        """Closes the bar, however training ended, so that what is told next stands below it."""
        if self._bar is not None:
            self._bar.close()


class Checkpoints(tf.keras.callbacks.Callback):
    """Keeps the last state and the best on validation, each whole at every moment."""

    def __init__(self, instrument: Instrument, budget: Budget, save_dir: pathlib.Path, writes: bool) -> None:
        super().__init__()
        self.best = tf.Variable(float("inf"), trainable=False)
        self._budget = budget
        checkpoint = tf.train.Checkpoint(
            instrument=instrument, optimizer=instrument.optimizer, seconds=budget.seconds, best=self.best
        )
        # All workers save, since saving may need all of them; the others' copies go aside and then away.
        self._aside = None if writes else tempfile.TemporaryDirectory(prefix="nms_worker_")
        folder = save_dir if self._aside is None else pathlib.Path(self._aside.name)
        self._managers = {
            name: tf.train.CheckpointManager(checkpoint, str(folder / name), max_to_keep=1) for name in ("last", "best")
        }
        self._checkpoint = checkpoint
        self._last = save_dir / "last"

    def restore(self) -> bool:
        """Goes on from the last state, if there is one; says whether there was."""
        path = tf.train.latest_checkpoint(str(self._last))
        if path is None:
            return False
        try:
            self._checkpoint.restore(path).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError) as error:
            raise DataError(
                f"{path}: damaged, or of an instrument with another configuration. Choose another --save_dir."
            ) from error
        return True

    def save(self, name: str = "last") -> None:
        """Saves the state as it is now."""
        self._budget.seconds.assign(self._budget.minutes * 60.0)
        self._managers[name].save(checkpoint_number=self._budget.step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the last state, and the best if it is; a state that does not play is not saved."""
        loss = logs.get("val_loss", logs["loss"])
        if not math.isfinite(loss):
            return
        if loss < float(self.best.numpy()):
            self.best.assign(loss)
            self.save("best")
        self.save()


class ExampleLog(tf.keras.callbacks.Callback):
    """Writes scalars, and what the instrument makes of example MIDI files, for TensorBoard."""

    def __init__(
        self, budget: Budget, log_dir: pathlib.Path, example_dir: pathlib.Path | None, every_steps: int
    ) -> None:
        super().__init__()
        self._budget = budget
        self._every_steps = every_steps
        self._played_at = 0
        if example_dir and not example_dir.is_dir():
            raise DataError(f"{example_dir}: no such folder. Give a folder of MIDI files as --example_dir.")
        paths = sorted(example_dir.iterdir()) if example_dir else []
        self._voices = {path.stem: read_midi(path) for path in paths if path.suffix.lower() in MIDI_SUFFIXES}
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

    def on_train_end(self, logs: dict | None = None) -> None:
        """Plays the examples a last time."""
        self._play()
        self._writer.close()

    def _play(self) -> None:
        self._played_at = self._budget.step
        with self._writer.as_default(step=self._budget.step):
            for name, voice in self._voices.items():
                samples = self.model.render(voice)
                tf.summary.audio(name, samples[np.newaxis, :, np.newaxis], self.model.sample_rate)
                picture = pictures.example_picture(voice, samples, None, self.model.sample_rate, self.model.styles)
                tf.summary.image(name, tf.io.decode_png(picture, channels=3)[tf.newaxis])


def _peak(builder: tfds.core.DatasetBuilder) -> float:
    """The highest peak of the train split: the level the instrument plays at, whatever that of the recording."""
    peaks = builder.as_dataset(split="train").map(lambda example: tf.reduce_max(tf.abs(example["audio"])))
    return max(float(peaks.reduce(0.0, tf.maximum)), 1e-3)


def _write_facts(save_dir: pathlib.Path, builder: tfds.core.DatasetBuilder, instrument: Instrument) -> None:
    """Writes what the instrument is (the operative config) and what it is trained on."""
    with write_aside(save_dir / CONFIG_NAME) as path:
        path.write_text(gin.operative_config_str(max_line_length=120), encoding="utf-8")
    facts = {"folder": str(pathlib.Path(builder.data_dir).resolve()), "takes": builder.info.metadata["takes"]}
    before = save_dir / DATA_SET_NAME
    if before.exists() and not facts.items() <= json.loads(before.read_text(encoding="utf-8")).items():
        print("From here on it is trained on other takes, or otherwise prepared ones, than before.")
    with write_aside(before) as path:
        path.write_text(json.dumps({**facts, **_heard(builder, instrument)}, indent=2), encoding="utf-8")


def _heard(builder: tfds.core.DatasetBuilder, instrument: Instrument) -> dict[str, Any]:
    """The pitches, velocities and values of the styles in the train split: where the instrument is at home."""
    nothing = {name: tf.zeros([1, 0, columns]) for name, columns in COLUMNS.items()}
    silence = instrument.controls(**nothing, n_frames=1)
    styles = {style: number for style, number in instrument.styles.items() if f"cc_{number}" in silence}
    defaults = {style: 127.0 * float(silence[f"cc_{number}"][0, 0, 0]) for style, number in styles.items()}
    values: dict[str, set[float]] = {name: set() for name in ("pitch", "velocity", *styles)}
    events = builder.as_dataset(split="train").map(lambda example: (example["notes"], example["control_changes"]))
    for notes, changes in events.as_numpy_iterator():
        values["pitch"].update(notes[:, 2].tolist())
        values["velocity"].update(notes[:, 3].tolist())
        for style, number in styles.items():
            of_style = changes[changes[:, 1] == number]
            values[style].update(of_style[:, 2].tolist())
            if not (of_style[:, 0] <= 0.0).any():
                values[style].add(defaults[style])
    ranges = {name: {"minimum": min(of), "maximum": max(of)} for name, of in values.items() if of}
    for style in styles:
        if len(values[style]) <= _FEW_VALUES:
            ranges[style]["values"] = sorted(values[style])
    return {
        **{name: ranges[name] for name in ("pitch", "velocity") if name in ranges},
        "styles": {style: ranges[style] for style in styles},
    }


@gin.configurable(module="nms", denylist=["builder", "save_dir", "example_dir", "max_minutes", "strategy", "callbacks"])
def train(
    builder: tfds.core.DatasetBuilder,
    save_dir: str | os.PathLike,
    example_dir: str | os.PathLike | None = None,
    max_minutes: float | None = None,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    steps: int = gin.REQUIRED,
    batch_size: int = gin.REQUIRED,
    clip_seconds: float = gin.REQUIRED,
    learning_rate: float = gin.REQUIRED,
    schedule: Any = gin.REQUIRED,
    clip_norm: float = 1.0,
    steps_per_epoch: int = 100,
    steps_per_example: int = 1000,
    seed: int = 0,
) -> Instrument:
    """Trains the instrument that gin describes, or goes on training it.

    Args:
        builder: A prepared data set of the instrument's sample rate.
        save_dir: Folder of the instrument: checkpoints `last/` and `best/`, the operative config, `logs/`.
        example_dir: Folder of MIDI files to play now and then, for TensorBoard.
        max_minutes: Stop after so many minutes, earlier runs of the same folder included, however many steps that is.
        strategy: How the work is distributed; the default is one device.
        callbacks: More of Keras's callbacks, called after those that save and log: a notebook watches with them.
        steps: Stop after so many steps, unless there is `max_minutes`.
        batch_size: Clips in a batch, over all devices.
        clip_seconds: Length of a clip.
        learning_rate: Of Adam, before the schedule.
        schedule: Function of step and progress, a factor on the learning rate.
        clip_norm: Gradients are scaled down to this norm.
        steps_per_epoch: Steps from one validation and checkpoint to the next.
        steps_per_example: Steps from one playing of the examples to the next.
        seed: Of the initial weights, the batches and the noise.

    Returns:
        The instrument as it is at the end.

    Raises:
        DataError: The configuration or the data cannot be used, the folder holds another instrument, or the loss
            stopped being a number.
    """
    save_dir = pathlib.Path(save_dir)
    check_writable(save_dir / CONFIG_NAME)
    counts = {"steps": steps, "batch_size": batch_size, "steps_per_epoch": steps_per_epoch}
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise DataError(f"gin: train.{name} is {count!r}. Make it a whole number from 1.")
    if not clip_seconds > 0:
        raise DataError(f"gin: train.clip_seconds is {clip_seconds!r}. Make it more than 0.")
    strategy = strategy or tf.distribute.get_strategy()
    resolver = strategy.cluster_resolver
    is_chief = resolver is None or resolver.task_type in (None, "chief") or resolver.task_id == 0
    tf.keras.utils.set_random_seed(seed + 1)  # tf.data takes no tensor for a seed where the global one is 0.
    with strategy.scope():
        instrument = build()
        instrument.compile(optimizer=tf.keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm))
        instrument.optimizer.build(instrument.trainable_variables)
        budget = Budget(instrument.optimizer, steps, max_minutes)
        checkpoints = Checkpoints(instrument, budget, save_dir, writes=is_chief)
    if is_chief:
        print(f"{instrument.count_params():,} parameters, {builder.info.splits['train'].num_examples} examples.")
    if checkpoints.restore():
        print(f"Going on from step {budget.step}, {float(budget.seconds.numpy()) / 60.0:.1f} minutes.")
    else:
        instrument.level.assign(_peak(builder))
    budget.start()
    if budget.progress >= 1.0:
        print("Nothing left to do: give more --steps or --max_minutes to train on.")
        return instrument
    clip_samples = round(clip_seconds * instrument.sample_rate)
    batches = training_batches(builder, batch_size, clip_samples, instrument.sample_rate, seed, budget.step)
    progress = Progress(budget, learning_rate, schedule, save_dir)
    own: list[tf.keras.callbacks.Callback] = [progress, checkpoints]
    if is_chief:
        examples = pathlib.Path(example_dir) if example_dir else None
        own.append(ExampleLog(budget, save_dir / "logs", examples, steps_per_example))
        _write_facts(save_dir, builder, instrument)
    try:
        instrument.fit(
            batches,
            validation_data=held_out_batches(builder, "validation", batch_size),
            steps_per_epoch=steps_per_epoch,
            epochs=math.ceil((steps - budget.step) / steps_per_epoch) if max_minutes is None else _UNTIL_STOPPED,
            callbacks=[*own, *callbacks],
            verbose=0,
        )
    except KeyboardInterrupt:
        checkpoints.save()
        print(f"\nStopped at step {budget.step}; the same command goes on from there.")
        raise
    finally:
        progress.close()
    return instrument
