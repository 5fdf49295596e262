"""Batches of clips from a built data set. A training batch depends on the seed and the step alone.

So a run that is stopped and goes on sees what it would have seen. Nothing is shuffled in memory: the place of a clip in
the training gives its epoch, a permutation of that epoch gives the number of its example, and that is read from disk.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.controls import COLUMNS, PADDING
from neural_midi_synth.training.records import Records

# Features that tell the voice of each row of these events.
_VOICES = {"notes": "note_voices", "control_changes": "control_change_voices", "pitch_bends": "pitch_bend_voices"}
_REMEDY = "Build it with tfds build, or give --source_dir."


def built_data_set(name: str, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
    """Finds a data set that is built.

    Args:
        name: As tfds names it, such as 'midi_audio/default', or the path of its folder.
        data_dir: Where data sets are kept; TFDS's own place if None.

    Returns:
        Its builder.

    Raises:
        DataError: There is none of that name, or it is of another kind or of an earlier version.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # tfds warns of what is told below.
    try:
        if pathlib.Path(name).is_dir():
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (OSError, ValueError, AssertionError) as error:
        raise DataError(f"{name}: no such data set is built. {_REMEDY}") from error
    finally:
        logging.set_verbosity(verbosity)
    if not builder.is_prepared():
        raise DataError(f"{name}: no such data set is built. {_REMEDY}")
    if not {"audio", *COLUMNS} <= set(builder.info.features):
        raise DataError(f"{name}: is not a data set of recordings and their MIDI annotations. {_REMEDY}")
    if not {"n_samples", *_VOICES.values()} <= set(builder.info.features):
        raise DataError(f"{name}: was built by an earlier version ({builder.version}). Build it anew with tfds build.")
    return builder


def n_voices(builder: tfds.core.DatasetBuilder) -> int:
    """Returns the most voices that a take of a data set has."""
    return int(builder.info.metadata["voices"])


def check_clips(builder: tfds.core.DatasetBuilder, clip_samples: int, sample_rate: int) -> None:
    """Checks that clips can be cut from a data set.

    Args:
        builder: A prepared data set.
        clip_samples: Length of a clip.
        sample_rate: Samples per second of the instrument.

    Raises:
        DataError: The examples are of another sample rate, or one of them is shorter than a clip.
    """
    metadata = builder.info.metadata
    if metadata["sample_rate"] != sample_rate:
        raise DataError(
            f"{builder.data_dir}: is at {metadata['sample_rate']} Hz, the instrument at {sample_rate} Hz. "
            "Build it anew."
        )
    window = builder.info.features["audio"].shape[0]
    if window < clip_samples:
        raise DataError(
            f"train.clip_seconds is {clip_samples / sample_rate:g}, but the windows of the data set are "
            f"{window / sample_rate:g} s long. Lower it, or raise MidiAudioConfig.window_seconds."
        )
    if metadata["shortest"] < clip_samples:
        raise DataError(
            f"train.clip_seconds is {clip_samples / sample_rate:g}, but the shortest take of the data set lasts "
            f"{metadata['shortest'] / sample_rate:.2f} s. Lower it, or take out takes that short."
        )


def training_batches(
    builder: tfds.core.DatasetBuilder, batch_size: int, clip_samples: int, seed: int, first_step: int
) -> tf.data.Dataset:
    """Makes the endless batches of the train split, from a given step on.

    Args:
        builder: A prepared data set that `check_clips` accepts.
        batch_size: Clips in a batch.
        clip_samples: Length of a clip, cut at random from what is recorded of an example.
        seed: Of order, clips and noise.
        first_step: The step the first batch is for.

    Returns:
        Batches of `audio` `[batch, clip_samples]`, the events padded to equal length (`notes` `[batch, n, 4]` and so
        on, or `[batch, voices, n, 4]` where takes have several), and `first_sample` `[batch]`, where noise begins.

    Raises:
        DataError: The data set's files can't be read.
    """
    records = Records(builder, "train")
    sample_rate = builder.info.metadata["sample_rate"]
    features = builder.info.features

    def clip(place: tf.Tensor) -> dict[str, tf.Tensor]:
        """The clip of a place in the whole training."""
        epoch, within_epoch = place // len(records), place % len(records)
        number = tf.random.experimental.index_shuffle(
            within_epoch, seed=[tf.cast(seed, tf.int64), epoch], max_index=tf.constant(len(records) - 1, tf.int64)
        )
        example = features.deserialize_example(records.read(number))
        random = tf.random.stateless_uniform([2], [tf.cast(seed, tf.int64), place], maxval=2**30, dtype=tf.int32)
        begin = random[0] % (example["n_samples"] - clip_samples + 1)
        events = _events(example, n_voices(builder), tf.cast(begin, tf.float32) / sample_rate)
        audio = example["audio"][begin : begin + clip_samples]
        return {"audio": audio, **events, "first_sample": tf.cast(random[1], tf.int64)}

    places = tf.data.Dataset.range(first_step * batch_size, 2**62)
    clips = places.map(clip, num_parallel_calls=os.cpu_count())
    return _batched(clips, batch_size, drop_remainder=True).prefetch(2)


def held_out_batches(builder: tfds.core.DatasetBuilder, split: str, batch_size: int) -> tf.data.Dataset | None:
    """Makes batches of the examples of a split, in order.

    Args:
        builder: A prepared data set. What it holds out is recorded from beginning to end.
        split: Name of the split.
        batch_size: Examples in a batch; the last one may have fewer.

    Returns:
        Batches as `training_batches` makes them, but for `first_sample`; None where nothing is held out for the split.
    """
    if split not in builder.info.splits:
        return None
    examples = builder.as_dataset(split=split).map(
        lambda example: {"audio": example["audio"], **_events(example, n_voices(builder), 0.0)}
    )
    return _batched(examples, batch_size, drop_remainder=False).prefetch(2)


def _events(example: Mapping[str, tf.Tensor], voices: int, start: float | tf.Tensor) -> dict[str, tf.Tensor]:
    """The events of an example, times relative to `start` (s), a voice a row where there are several.

    Args:
        example: From the data set.
        voices: How many voices there may be.
        start: Where a clip begins, s.

    Returns:
        `notes` `[n, 4]`, `control_changes` `[m, 3]` and `pitch_bends` `[k, 2]`, or each of them `[voices, n, columns]`,
        where rows of `PADDING` make up for what one voice has less than another.
    """
    events = {}
    for name, columns in COLUMNS.items():
        n_times = 2 if name == "notes" else 1
        rows = tf.concat([example[name][:, :n_times] - start, example[name][:, n_times:]], axis=1)
        if voices > 1:
            # Rows are sorted by voice.
            by_voice = tf.RaggedTensor.from_value_rowids(rows, tf.cast(example[_VOICES[name]], tf.int64), nrows=voices)
            rows = by_voice.to_tensor(PADDING, shape=[voices, None, columns])
        events[name] = rows
    return events


def _batched(clips: tf.data.Dataset, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
    padding = {name: tf.zeros([], spec.dtype) for name, spec in clips.element_spec.items()}
    padding.update({name: tf.constant(PADDING) for name in COLUMNS})
    batches = clips.padded_batch(batch_size, padding_values=padding, drop_remainder=drop_remainder)
    options = tf.data.Options()
    # What would tune the pipeline sleeps for up to a minute, and training could not end until it woke up.
    options.autotune.enabled = False
    # Every worker makes the same batches and takes its share of each.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)
