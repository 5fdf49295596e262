"""What an exported instrument tells of itself: `instrument.json`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from neural_midi_synth.exporting import saved_model
from neural_midi_synth.instrument.controls import COLUMNS, PADDING
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import trained_on

INSTRUMENT_NAME = "instrument.json"
FORMAT = 1
"""Of `instrument.json`. It is raised when readers of the old format would misunderstand the new one."""

EVENT_FRAME = "floor(seconds * frame_rate + 33 / 64)"
"""For clients that draw control frames: where an event takes effect, as `instrument.controls.frame_of` computes it."""

_PACKAGES = ("neural-midi-synth", "tensorflow", "tf-keras", "ddsp", "numpy")


def instrument_facts(instrument: Instrument, trained_in: str | os.PathLike | None = None) -> dict[str, Any]:
    """What `instrument.json` tells, but for the version and the LiteRT model.

    Args:
        instrument: A trained instrument.
        trained_in: Its folder, where the facts are to tell of its training, too.

    Returns:
        Facts that JSON can hold.
    """
    nothing = {name: tf.zeros([1, 0, n]) for name, n in COLUMNS.items()}
    silence = {name: float(value[0, 0, 0]) for name, value in instrument.controls(**nothing, n_frames=1).items()}
    channels = saved_model.channel_facts(instrument)
    return {
        "format": FORMAT,
        "sample_rate": instrument.sample_rate,
        "hop": instrument.hop,
        "frame_rate": instrument.frame_rate,
        "event_frame": EVENT_FRAME,
        "latency": instrument.latency,
        "stride": instrument.decoder.stride,
        "live": not instrument.controls.needs_future,
        "channels": {name: {**dataclasses.asdict(facts), "default": silence[name]} for name, facts in channels.items()},
        "styles": instrument.styles,
        "defaults": instrument.controls.defaults,
        "padding": PADDING,
        "longest_seconds": saved_model.MAX_SECONDS,
        "voices": saved_model.MAX_VOICES,
        "signatures": saved_model.describe(instrument),
        **({} if trained_in is None else _training_facts(pathlib.Path(trained_in))),
        "packages": dict(_packages()),
    }


def _training_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder of an instrument tells of its training: `trained_on` and `training`."""
    facts: dict[str, Any] = {"training": dict(_training(folder))}
    trained = trained_on(folder)
    trained.pop("folder", None)  # A path on the machine where it was trained.
    if trained:
        facts["trained_on"] = trained
    return facts


def _training(folder: pathlib.Path) -> Iterator[tuple[str, float | str]]:
    """Which checkpoint it is, its steps and minutes, and the best validation loss, as far as the checkpoint tells."""
    name = "best" if (folder / "best").is_dir() else "last"
    path = tf.train.latest_checkpoint(str(folder / name))
    if path is None:
        return
    yield "checkpoint", name
    values = tf.train.load_checkpoint(path)
    seconds, best = (f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("seconds", "best"))
    if not values.has_tensor(seconds):  # It holds weights alone.
        return
    yield "steps", int(path.rpartition("-")[2])
    yield "minutes", round(float(values.get_tensor(seconds)) / 60.0, 2)
    loss = float(values.get_tensor(best))
    if math.isfinite(loss):  # Before the first validation it is infinite.
        yield "validation_loss", round(loss, 4)


def _packages() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
