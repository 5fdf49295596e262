"""Exports as numbered versions in a folder, each whole or not there, as TensorFlow Serving watches for them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import saved_model
from neural_midi_synth.exporting.facts import INSTRUMENT_NAME, instrument_facts
from neural_midi_synth.files.outputs import check_writable, write_aside
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import CONFIG_NAME, as_folder

TFLITE_NAME = "stream.tflite"


def export(
    instrument: Instrument,
    folder: str | os.PathLike,
    tflite: bool = False,
    block_frames: int | None = None,
    voices: int = 1,
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
        voices: Voices of that stream.
        trained_in: The instrument's folder, for what it tells of its training up to the checkpoint that `load` takes.

    Returns:
        The folder of the version.

    Raises:
        DataError: The folder can't be written, or `block_frames` does not suit the instrument.
    """
    folder = pathlib.Path(folder)
    check_writable(folder / INSTRUMENT_NAME)
    facts = instrument_facts(instrument, trained_in)
    if tflite:
        from neural_midi_synth.exporting import litert

        block_frames = litert.block_frames_of(instrument, block_frames)
        model = litert.convert(instrument, block_frames, voices)
        facts["tflite"] = {"file": TFLITE_NAME, "block_frames": block_frames, "voices": voices}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
            made = pathlib.Path(aside) / "saved_model"
            saved_model.save(instrument, made)
            extra = made / "assets.extra"
            extra.mkdir()
            if trained_in is not None:
                with as_folder(trained_in) as opened:
                    shutil.copy(opened / CONFIG_NAME, extra)
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
