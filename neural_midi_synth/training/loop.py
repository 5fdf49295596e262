"""`train`: from a built data set and gin's configuration to an instrument in a folder.

A run can be stopped at any moment and started again: weights, optimizer and step are in the checkpoint, and batch,
clips and noise follow from the step and the seed. A run that was interrupted ends where one left alone ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf
import tensorflow_datasets as tfds

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.locks import only_writer
from neural_midi_synth.files.outputs import check_writable, write_aside
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import CONFIG_NAME, DATA_SET_NAME, build, configured_controls
from neural_midi_synth.training import fitting, partials
from neural_midi_synth.training.batches import check_clips, held_out_batches, training_batches
from neural_midi_synth.training.callbacks import Budget, Checkpoints, ExampleLog, Progress, read_examples
from neural_midi_synth.training.optimizers import adam, muon  # noqa: F401  (gin configures them)
from neural_midi_synth.training.schedules import cosine_decay, exponential_decay  # noqa: F401  (gin configures them)
from neural_midi_synth.training.starting import start_from

_UNTIL_STOPPED = 10**9  # epochs
_LOWEST_LEVEL = 1e-3  # So that recordings that are all but silent are not divided by nothing.
_OF_CALLER = ["builder", "save_dir", "example_dir", "max_minutes", "strategy", "callbacks", "debug", "start"]


@gin.configurable(module="nms", denylist=_OF_CALLER)
def train(
    builder: tfds.core.DatasetBuilder,
    save_dir: str | os.PathLike,
    example_dir: str | os.PathLike | None = None,
    max_minutes: float | None = None,
    strategy: tf.distribute.Strategy | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    debug: bool = False,
    start: Instrument | None = None,
    steps: int = gin.REQUIRED,
    batch_size: int = gin.REQUIRED,
    clip_seconds: float = gin.REQUIRED,
    learning_rate: float = gin.REQUIRED,
    schedule: Callable[[int, float], float] = gin.REQUIRED,
    optimizer: Callable[..., tf.keras.optimizers.Optimizer] = adam,
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
        callbacks: More of Keras's callbacks, called after those that save and log: a notebook watches with them. A run
            that goes on in the middle of an epoch ends that epoch in a `fit` of its own, with the same callbacks.
        debug: Let errors in building the instrument pass as they are, with their tracebacks.
        start: An instrument whose weights a new one begins with, as far as they share them: `starting.start_from`.
        steps: Stop after so many steps, unless there is `max_minutes`.
        batch_size: Clips in a batch, over all devices.
        clip_seconds: Length of a clip.
        learning_rate: Of the optimizer, before the schedule.
        schedule: Function of step and progress, a factor on the learning rate.
        optimizer: Function of `optimizers` that makes it.
        clip_norm: Gradients are scaled down to this norm.
        steps_per_epoch: Steps from one validation and checkpoint to the next.
        steps_per_example: Steps from one playing of the examples to the next.
        seed: Of the initial weights, the batches and the noise.

    Returns:
        The instrument as it is at the end.

    Raises:
        DataError: The configuration or the data cannot be used, the folder holds another instrument or another training
            is writing it, or the loss or its gradient stopped being a number.
    """
    save_dir = pathlib.Path(save_dir)
    check_writable(save_dir / CONFIG_NAME)
    _check_counts(steps=steps, batch_size=batch_size, steps_per_epoch=steps_per_epoch)
    if not clip_seconds > 0:
        raise DataError(f"gin: train.clip_seconds is {clip_seconds!r}. Make it more than 0.")
    pieces = read_examples(example_dir) if example_dir else {}
    strategy = strategy or tf.distribute.get_strategy()
    resolver = strategy.cluster_resolver
    is_chief = resolver is None or resolver.task_type in (None, "chief") or resolver.task_id == 0
    controls = configured_controls(debug)
    learnt = fitting.ranges(builder, controls.styles, controls.defaults)
    tf.keras.utils.set_random_seed(seed)
    with strategy.scope():
        with fitting.only_what_is_used(controls, learnt["styles"]) as unused:
            instrument = build(debug)
        for style in unused:
            del learnt["styles"][style]
        if start is not None:
            start_from(instrument, start)
        hidden = instrument.decoder.hidden_kernels()
        instrument.compile(optimizer=optimizer(learning_rate, hidden=hidden, clip_norm=clip_norm))
        instrument.optimizer.build(instrument.trainable_variables)
        budget = Budget(instrument.optimizer, steps, max_minutes)
        checkpoints = Checkpoints(instrument, budget, save_dir, writes=is_chief)
    clip_samples = round(clip_seconds * instrument.sample_rate)
    check_clips(builder, clip_samples, instrument.sample_rate)
    if is_chief:
        print(f"{instrument.count_params():,} parameters, {builder.info.splits['train'].num_examples} examples.")
        if unused:
            print(f"No take changes {' or '.join(unused)}: the instrument is without.")
    with only_writer(save_dir) if is_chief else contextlib.nullcontext():
        if checkpoints.restore():
            print(f"Going on from step {budget.step}, {float(budget.seconds.numpy()) / 60.0:.1f} minutes.")
        else:
            instrument.level.assign(max(builder.info.metadata["peak"], _LOWEST_LEVEL))
            partials.measure_for(instrument, builder)
        budget.start()
        if budget.progress >= 1.0:
            print("Nothing left to do: give more --steps or --max_minutes to train on.")
            return instrument
        progress = Progress(budget, learning_rate, schedule, save_dir)
        own: list[tf.keras.callbacks.Callback] = [progress, checkpoints]
        if is_chief:
            _write_facts(save_dir, builder, learnt)
            own.append(ExampleLog(budget, save_dir / "logs", pieces, steps_per_example))

        def fit_epochs(n_steps: int, n_epochs: int) -> None:
            done = budget.step // steps_per_epoch
            instrument.fit(
                training_batches(builder, batch_size, clip_samples, seed, budget.step),
                validation_data=held_out_batches(builder, "validation", batch_size),
                steps_per_epoch=n_steps,
                initial_epoch=done,
                epochs=done + n_epochs,
                callbacks=[*own, *callbacks],
                verbose=0,
            )

        try:
            # Epochs end at multiples of their length, however often a run was stopped, so that `best/` is chosen from
            # the states that a run left alone would choose it from.
            if to_end_of_epoch := -budget.step % steps_per_epoch:
                fit_epochs(to_end_of_epoch, 1)
            if budget.progress < 1.0:
                fit_epochs(steps_per_epoch, _UNTIL_STOPPED)
        except KeyboardInterrupt:
            saved = "" if checkpoints.save() else ", whose state is not a number any more and is not saved"
            print(f"\nStopped at step {budget.step}{saved}; the same command goes on from there.")
            raise
        finally:
            progress.close()
        for callback in own:
            if isinstance(callback, ExampleLog):
                callback.finish()
        if is_chief and (outlook := progress.outlook()):
            print(outlook)
    return instrument


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise DataError(f"gin: train.{name} is {count!r}. Make it a whole number from 1.")


def _write_facts(save_dir: pathlib.Path, builder: tfds.core.DatasetBuilder, learnt: Mapping[str, Any]) -> None:
    """Writes what the instrument is (the operative config) and what it is trained on."""
    with write_aside(save_dir / CONFIG_NAME) as path:
        path.write_text(gin.operative_config_str(max_line_length=120), encoding="utf-8")
    metadata = builder.info.metadata
    facts = {"folder": str(pathlib.Path(builder.data_dir).resolve()), "takes": metadata["takes"]}
    before = save_dir / DATA_SET_NAME
    if before.exists() and not facts.items() <= json.loads(before.read_text(encoding="utf-8")).items():
        print("From here on it is trained on other takes, or otherwise prepared ones, than before.")
    with write_aside(before) as path:
        if metadata.get("inspection"):
            facts["inspection"] = metadata["inspection"]
        path.write_text(json.dumps({**facts, **learnt}, indent=2), encoding="utf-8")
