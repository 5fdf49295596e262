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
from neural_midi_synth.exporting.channels import channel_facts
from neural_midi_synth.instrument.controls import COLUMNS, PADDING
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import as_folder, kept_verdict, trained_on

INSTRUMENT_NAME = "instrument.json"
FORMAT = 1
"""Of `instrument.json`. It is raised when readers of the old format would misunderstand the new one."""

EVENT_FRAME = "floor(seconds * frame_rate + 33 / 64)"
"""For clients that draw control frames: where an event takes effect, as `instrument.controls.frame_of` computes it."""

_ROWS = {
    "notes": "start s, end s, MIDI note number (fractional if need be), velocity 0 to 127; "
    f"notes that overlap play as voices, up to {saved_model.MAX_VOICES} at once",
    "control_changes": "time s, controller number, value 0 to 127",
    "pitch_bends": "time s, semitones, in force until the next",
}
_PACKAGES = ("neural-midi-synth", "tensorflow", "tf-keras", "ddsp", "numpy")


def instrument_facts(instrument: Instrument, trained_in: str | os.PathLike | None = None) -> dict[str, Any]:
    """What `instrument.json` tells, but for the version and the LiteRT model.

    Args:
        instrument: A trained instrument.
        trained_in: Its folder or file, where the facts are to tell of its training, too.

    Returns:
        Facts that JSON can hold.
    """
    nothing = {name: tf.zeros([1, 0, n]) for name, n in COLUMNS.items()}
    silence = {name: float(value[0, 0, 0]) for name, value in instrument.controls(**nothing, n_frames=1).items()}
    channels = channel_facts(instrument)
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
        "signatures": describe(instrument),
        **({} if trained_in is None else _training_facts(trained_in)),
        "packages": dict(_packages()),
    }


def describe(instrument: Instrument) -> dict[str, Any]:
    """What each signature takes and gives: signature → 'inputs' and 'outputs' → name → dtype, shape and meaning."""
    channels = {}
    for name, channel in channel_facts(instrument).items():
        unit = f" ({channel.unit})" if channel.unit else ""
        channels[name] = _told("float32", "[batch, n_frames, 1]", channel.meaning + unit)
    specs = saved_model.Signatures(instrument).state_specs
    states = {
        name: _told(spec.dtype.name, f"[{', '.join(map(str, ['batch', *spec.shape[1:]]))}]", "hand it back as it came")
        for name, spec in specs.items()
    }
    padding = f"rows whose time is {PADDING:g} or below are padding"
    rows = {
        name: _told("float32", f"[batch, {count}, {COLUMNS[name]}]", f"{_ROWS[name]}; {padding}")
        for name, count in (("notes", "n"), ("control_changes", "m"), ("pitch_bends", "k"))
    }
    n_samples = _told("int32", "[batch]", "length of the clip in samples; one number does for all rows")
    many = f"number of streams, 1 to {saved_model.MAX_STREAMS}: one, or one for each voice of a chord"
    many += "; several numbers are added up, as several requests"
    batch = _told("int32", "[n]", many)
    clip = _told("float32", "[batch, max(n_samples)]", "0 after a row's own n_samples")
    drawn = _told("float32", "[batch, n_frames * hop]", "frame i stands for sample i * hop; the last frame is held")
    late = f"{instrument.latency} samples behind the control frames"
    block = _told("float32", "[batch, n_frames * hop]", late)
    return {
        "serving_default": {"inputs": {**rows, "n_samples": n_samples}, "outputs": {"audio": clip}},
        "control_frames": {"inputs": channels, "outputs": {"audio": drawn}},
        "initial_state": {"inputs": {"batch": batch}, "outputs": states},
        "stream": {"inputs": {**channels, **states}, "outputs": {"audio": block, **states}},
    }


def _told(dtype: str, shape: str, meaning: str) -> dict[str, str]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}


def _training_facts(folder: str | os.PathLike) -> dict[str, Any]:
    """What the folder of an instrument tells of its training: `trained_on`, `training` and `verdict`."""
    with as_folder(folder) as opened:
        facts: dict[str, Any] = {"training": dict(_training(opened))}
    trained = trained_on(folder)
    trained.pop("folder", None)  # A path on the machine where it was trained.
    if trained:
        facts["trained_on"] = trained
    verdict = kept_verdict(folder)
    if verdict:
        facts["verdict"] = verdict
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
