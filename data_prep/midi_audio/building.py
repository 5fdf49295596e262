"""Builds a data set as gin configures it, unless it is there already."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import gin
import tensorflow as tf
from absl import logging

from neural_midi_synth.data_prep.takes import find_takes, fingerprint
from neural_midi_synth.errors import DataError

from .config import DEMO_GUITAR, MidiAudioConfig
from .midi_audio_dataset_builder import MidiAudio

# Made in `build` only, so that gin is the configuration of training and `--config` that of `tfds build`.
_GinConfig = gin.external_configurable(MidiAudioConfig, module="midi_audio", denylist=["name", "source_dir"])


def configured(source_dir: str | os.PathLike | None = None, **settings: Any) -> MidiAudioConfig:
    """Returns the configuration of a data set as gin binds it.

    Args:
        source_dir: As for `build`.
        **settings: Attributes of `MidiAudioConfig` that go before gin's.

    Raises:
        DataError: No data set can be made like this.
    """
    config = _GinConfig(name="unnamed", source_dir=pathlib.Path(source_dir or DEMO_GUITAR).expanduser(), **settings)
    config.check()
    return config


def build(
    source_dir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    before_building: Callable[[MidiAudioConfig], dict[str, Any] | None] | None = None,
    **settings: Any,
) -> MidiAudio:
    """Builds a data set, unless it is there from the same takes with the same configuration.

    The configuration's name has a hash of both in it, so that a data set is found again wherever the takes are, and
    takes that have changed are never mistaken for what they were.

    Args:
        source_dir: Folder of recordings and MIDI files or Reaper projects, or one project; the demo guitar if None.
        data_dir: Where data sets are kept; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if None.
        before_building: Is called with the configuration of a data set that is not there yet, and returns what its
            metadata are to tell as `inspection`.
        **settings: Attributes of `MidiAudioConfig`; those not given are as gin binds them.

    Returns:
        The builder, ready for `as_dataset`.

    Raises:
        DataError: Takes can't be used, or the data set can't be written.
    """
    config = configured(source_dir, **settings)
    source_dir = pathlib.Path(config.source_dir)
    takes = find_takes(source_dir, config.audio_track, config.midi_track)
    contents = fingerprint(takes, config.facts())
    folder = re.sub("[^A-Za-z0-9]+", "_", source_dir.resolve().name).strip("_") or "takes"
    config.name = f"{folder}_{contents[:12]}"
    with _quiet():
        builder = MidiAudio(config=config, data_dir=data_dir)
        is_prepared = builder.is_prepared()
    if before_building is not None and not is_prepared:
        builder.inspection = before_building(config)
    with _quiet():
        if not builder.is_prepared():
            try:
                builder.download_and_prepare()
            except (OSError, tf.errors.OpError, RuntimeError) as error:
                reason = _why_not_written(error)
                if reason is None:
                    raise
                builder = MidiAudio(config=config, data_dir=data_dir)
                if not builder.is_prepared():  # Else another process has built it meanwhile.
                    raise DataError(
                        f"{builder.data_dir}: the data set can't be written ({reason}). "
                        "Make room there, or choose another --data_dir."
                    ) from error
    return builder


def _why_not_written(error: Exception) -> str | None:
    """What keeps a disk from being written to, in a few words; None if the error tells of something else."""
    if isinstance(error.__cause__, (OSError, tf.errors.OpError)):  # TFDS makes another of it, to add what it was at.
        error = error.__cause__
    if isinstance(error, tf.errors.OpError):
        return error.message.split("; ")[-1]
    return error.strerror or str(error) if isinstance(error, OSError) else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tfds from telling about downloads, of which there are none."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
