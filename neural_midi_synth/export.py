"""nms_export: from an instrument to a SavedModel that needs nothing but TensorFlow."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags

from neural_midi_synth import command_line, environment
from neural_midi_synth.errors import DataError
from neural_midi_synth.outputs import check_writable, write_aside

if TYPE_CHECKING:
    from neural_midi_synth.instrument import Instrument

USAGE = """Exports an instrument for those who have TensorFlow and not this package.

nms_export --instrument runs/my_guitar --output exported/
    writes exported/1/, as TensorFlow Serving watches for it, and exported/instrument.json, which tells what it is;
    the next export becomes exported/2/
nms_export --instrument runs/my_guitar --output exported/ --tflite
    and exported/stream.tflite, to play live where TensorFlow is too much"""

INSTRUMENT_NAME = "instrument.json"
TFLITE_NAME = "stream.tflite"
FORMAT = 1
"""Of `instrument.json`; a higher number is one that readers of this one may not understand."""

_DATA_SET_NAME = "data_set.json"  # `evaluate` has it too, but would bring its flags with it.
_BLOCK_SECONDS = 0.016  # Of the LiteRT model: what a player of MIDI hardly notices.
_PACKAGES = ("neural-midi-synth", "tensorflow", "tf-keras", "ddsp", "numpy")

_INSTRUMENT = flags.DEFINE_string(
    "instrument", None, "Folder of a trained instrument; the guitar of the package unless given.", allow_override=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the versions.", required=True, allow_override=True)
_TFLITE = flags.DEFINE_bool("tflite", False, f"Write {TFLITE_NAME}, the stream for LiteRT, too.", allow_override=True)
_BLOCK_FRAMES = flags.DEFINE_integer(
    "block_frames",
    None,
    f"Control frames in a block of {TFLITE_NAME}, a multiple of the decoder's stride; unless given, about 16 ms.",
    lower_bound=1,
    allow_override=True,
)


def export(
    instrument: Instrument,
    folder: str | os.PathLike,
    tflite: bool = False,
    block_frames: int | None = None,
    trained_in: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Writes an instrument as the next version of a SavedModel.

    In `folder` the SavedModel becomes `1/`, or the number after the highest there is, as TensorFlow Serving watches for
    it. `instrument.json` beside it tells of the newest version what a client has to know; each version keeps its own
    in `assets.extra/`. What the signatures take and give is told there and in `saved_model`.

    Args:
        instrument: A trained instrument.
        folder: Of the versions; made if need be.
        tflite: Whether to write `stream.tflite` too, one block of a stream for LiteRT.
        block_frames: Control frames in that block, a multiple of the decoder's stride; about 16 ms unless given.
        trained_in: The instrument's folder, for what it tells of its training up to the checkpoint that `load` takes.

    Returns:
        The folder of the version.

    Raises:
        DataError: The folder can't be written, or `block_frames` does not suit the instrument.
    """
    import tensorflow as tf

    from neural_midi_synth import saved_model

    folder = pathlib.Path(folder)
    check_writable(folder / INSTRUMENT_NAME)
    facts = instrument_facts(instrument, trained_in)
    if tflite:
        from neural_midi_synth import litert

        stride = instrument.decoder.stride
        if block_frames is None:
            block_frames = -(-round(_BLOCK_SECONDS * instrument.frame_rate) // stride) * stride
        if block_frames < 1 or block_frames % stride:
            raise DataError(f"--block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
        model = litert.convert(instrument, block_frames)
        facts["tflite"] = {"file": TFLITE_NAME, "block_frames": block_frames}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
            made = pathlib.Path(aside) / "saved_model"
            saved_model.save(instrument, made)
            extra = made / "assets.extra"
            extra.mkdir()
            if trained_in is not None:
                shutil.copy(_config(trained_in), extra)
            version = _place(made, folder, facts)
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        raise DataError(f"{folder}: can't be written ({reason}). Choose another output.") from error
    if tflite:
        with write_aside(folder / TFLITE_NAME) as path:
            path.write_bytes(model)
    with write_aside(folder / INSTRUMENT_NAME) as path:  # Last: what it tells of is there.
        shutil.copy(version / "assets.extra" / INSTRUMENT_NAME, path)
    return version


def instrument_facts(instrument: Instrument, trained_in: str | os.PathLike | None = None) -> dict[str, Any]:
    """What `instrument.json` tells, but for the version.

    Args:
        instrument: A trained instrument.
        trained_in: Its folder, for what it tells of the training.

    Returns:
        Facts that JSON can hold.
    """
    import tensorflow as tf

    from neural_midi_synth import saved_model
    from neural_midi_synth.controls import COLUMNS, PADDING

    nothing = {name: tf.zeros([1, 0, n]) for name, n in COLUMNS.items()}
    silence = {name: float(value[0, 0, 0]) for name, value in instrument.controls(**nothing, n_frames=1).items()}
    channels = saved_model.channel_facts(instrument)
    defaults = {
        style: round(127.0 * silence[f"cc_{number}"], 3)
        for style, number in instrument.styles.items()
        if f"cc_{number}" in silence
    }
    return {
        "format": FORMAT,
        "sample_rate": instrument.sample_rate,
        "hop": instrument.hop,
        "frame_rate": instrument.frame_rate,
        "latency": instrument.latency,
        "stride": instrument.decoder.stride,
        "live": not instrument.controls.needs_future,
        "channels": {name: {**dataclasses.asdict(facts), "default": silence[name]} for name, facts in channels.items()},
        "styles": instrument.styles,
        "defaults": defaults,
        "padding": PADDING,
        "longest_seconds": saved_model.MAX_SECONDS,
        "signatures": saved_model.describe(instrument),
        **({} if trained_in is None else _training_facts(pathlib.Path(trained_in))),
        "packages": dict(_packages()),
    }


def _training_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder of an instrument tells of its training: `trained_on` and `training`."""
    facts: dict[str, Any] = {"training": dict(_training(folder))}
    data_set = folder / _DATA_SET_NAME
    if data_set.is_file():
        try:
            trained_on = json.loads(data_set.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{data_set}: damaged. Delete it, or train again.") from error
        trained_on.pop("folder", None)  # A place on the machine it was trained on.
        facts["trained_on"] = trained_on
    return facts


def _training(folder: pathlib.Path) -> Iterator[tuple[str, float | str]]:
    """Which checkpoint it is, steps, minutes and the best validation loss, as far as the checkpoint tells."""
    import tensorflow as tf

    name = "best" if (folder / "best").is_dir() else "last"
    path = tf.train.latest_checkpoint(str(folder / name))
    if path is None:
        return
    yield "checkpoint", name
    values = tf.train.load_checkpoint(path)
    seconds, best = (f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("seconds", "best"))
    if not values.has_tensor(seconds):  # Weights alone.
        return
    yield "steps", int(path.rpartition("-")[2])
    yield "minutes", round(float(values.get_tensor(seconds)) / 60.0, 2)
    loss = float(values.get_tensor(best))
    if math.isfinite(loss):  # It is not before the first validation.
        yield "validation_loss", round(loss, 4)


def _packages() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _config(folder: str | os.PathLike) -> pathlib.Path:
    from neural_midi_synth.instrument import CONFIG_NAME

    return pathlib.Path(folder) / CONFIG_NAME


def _place(made: pathlib.Path, folder: pathlib.Path, facts: Mapping[str, Any]) -> pathlib.Path:
    """Gives the SavedModel the next number, in one step and without ever replacing one."""
    while True:
        version = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
        text = json.dumps({**facts, "version": version}, indent=2, allow_nan=False)
        (made / "assets.extra" / INSTRUMENT_NAME).write_text(text + "\n", encoding="utf-8")
        try:
            return made.rename(folder / str(version))
        except OSError:
            if not (folder / str(version)).exists():  # Else another export was first to take the number.
                raise


def main() -> None:
    """Exports as the flags say."""
    if _BLOCK_FRAMES.value is not None and not _TFLITE.value:
        raise command_line.UsageError("--block_frames is for --tflite")
    check_writable(pathlib.Path(_OUTPUT.value) / INSTRUMENT_NAME)
    environment.import_tensorflow_quietly()

    from neural_midi_synth.instrument import PRETRAINED, load

    folder = _INSTRUMENT.value or PRETRAINED
    print(export(load(folder), _OUTPUT.value, _TFLITE.value, _BLOCK_FRAMES.value, trained_in=folder))


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
