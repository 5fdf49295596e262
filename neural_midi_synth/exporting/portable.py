"""An instrument in one file to hand on: `guitar.nms`. `instrument.portable` has its layout, and reads it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import pictures
from neural_midi_synth.exporting.facts import instrument_facts
from neural_midi_synth.files.archives import write_zip
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.files.outputs import check_writable
from neural_midi_synth.instrument import portable
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import PRETRAINED, as_folder, kept_verdict, trained_on
from neural_midi_synth.midi.pieces import Piece, Voice

SECONDS = 10
"""Length of the sound in the file."""

_NOT_STATED = "Nobody has stated a licence. Ask whoever made this instrument before you hand it on.\n"
_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"  # Where TensorFlow keeps the value of a variable.
_NOTES, _NOTE_SECONDS = 18, 0.5
_MOST_LICENCE_BYTES = 2**20


def save_weights(instrument: Instrument, trained_in: str | os.PathLike, folder: pathlib.Path) -> str:
    """Saves an instrument's weights, without what training needs to go on, which is twice as much again.

    Args:
        instrument: As `load` loads it from `trained_in`.
        trained_in: Its folder or file.
        folder: Gets a checkpoint of the same number, with its minutes and validation loss, if it knows them. What has
            weights alone is copied as it is.

    Returns:
        The checkpoint's name, such as 'ckpt-3900'.
    """
    with as_folder(trained_in) as opened:
        path = tf.train.latest_checkpoint(str(opened / ("best" if (opened / "best").is_dir() else "last")))
        reader = tf.train.load_checkpoint(path)
        if not any(name.startswith("optimizer/") for name in reader.get_variable_to_shape_map()):
            shutil.copytree(pathlib.Path(path).parent, folder)
            return pathlib.Path(path).name
        figures = {
            name: tf.Variable(reader.get_tensor(f"{name}/{_VALUE}"))
            for name in ("seconds", "best")
            if reader.has_tensor(f"{name}/{_VALUE}")
        }
    checkpoint = tf.train.Checkpoint(instrument=instrument, **figures)
    steps = int(path.rpartition("-")[2])
    return pathlib.Path(tf.train.CheckpointManager(checkpoint, str(folder), 1).save(checkpoint_number=steps)).name


def export_file(
    instrument: Instrument,
    path: str | os.PathLike,
    trained_in: str | os.PathLike | None = None,
    licence: str | None = None,
) -> pathlib.Path:
    """Writes an instrument as one file, whole or not at all. The same folder gives the same bytes in a new process.

    Args:
        instrument: As `load` loads it.
        path: The file; ends in .nms.
        trained_in: Where it was loaded from, its folder or its file; unless given, the guitar of the package.
        licence: What may be done with it: the text of a licence, or its name. Unless given, that of `trained_in`.

    Returns:
        The path.

    Raises:
        DataError: The file can't be written, its name ends in something else, or the instrument has modules of
            somebody's own, which others have not got.
    """
    path, trained_in = pathlib.Path(path), trained_in or PRETRAINED
    if path.suffix.lower() != portable.SUFFIX:
        raise DataError(f"{path}: the file of an instrument ends in {portable.SUFFIX}. Give it that suffix.")
    check_writable(path)
    members: dict[str, bytes] = {}
    with as_folder(trained_in) as opened:
        kept = opened / portable.LICENCE_NAME
        licence = licence or (kept.read_text(encoding="utf-8") if kept.is_file() else _NOT_STATED)
        config = (opened / portable.CONFIG_NAME).read_bytes()
    if len(licence.encode()) > _MOST_LICENCE_BYTES:
        raise DataError(f"{path}: a licence of more than {_MOST_LICENCE_BYTES} bytes. Give its name.")
    facts = {
        **instrument_facts(instrument, trained_in),
        "layout": portable.LAYOUT,
        "licence": licence.strip().splitlines()[0][:200],
        "parameters": instrument.count_params(),
    }
    members[portable.FACTS_NAME] = _json(facts)
    members[portable.LICENCE_NAME] = licence.strip().encode() + b"\n"
    members[portable.CONFIG_NAME] = config
    learnt = trained_on(trained_in)
    learnt.pop("folder", None)  # A path on the machine where it was trained.
    if learnt:
        members[portable.DATA_SET_NAME] = _json(learnt)
    with tempfile.TemporaryDirectory(prefix="nms_") as name:
        aside = pathlib.Path(name)
        checkpoint = save_weights(instrument, trained_in, aside / "best")
        for suffix in ("index", "data-00000-of-00001"):
            members[f"best/{checkpoint}.{suffix}"] = (aside / "best" / f"{checkpoint}.{suffix}").read_bytes()
        verdict = kept_verdict(trained_in)
        if verdict:
            members[portable.VERDICT_NAME] = _json({"checkpoint": f"best/{checkpoint}", **verdict})
        piece = sample_piece(instrument, learnt)
        samples = instrument.render(piece, n_samples=SECONDS * instrument.sample_rate)
        write_audio(aside / portable.SOUND_NAME, samples, instrument.sample_rate)
        members[portable.SOUND_NAME] = (aside / portable.SOUND_NAME).read_bytes()
    members[portable.PICTURE_NAME] = pictures.example_picture(
        piece, samples, None, instrument.sample_rate, {style: instrument.styles[style] for style in _moved(learnt)}
    )
    write_zip(path, members)
    portable.archive(path)  # It is read as it will be, before anybody is told that it is there.
    return path


def sample_piece(instrument: Instrument, learnt: dict[str, Any]) -> Piece:
    """What an instrument plays in its file: up and down its range, with each style at both ends of its values.

    Args:
        instrument: A trained instrument.
        learnt: What `trained_on` tells.

    Returns:
        One voice, whose last note ends a second before `SECONDS`.
    """
    low, high = (round(each) for each in instrument.pitch_range)
    velocities = learnt.get("velocity", {"minimum": 40, "maximum": 120})
    up = np.round(np.linspace(low, high, _NOTES // 2))
    pitches = np.concatenate([up, up[::-1]])
    louder = np.linspace(velocities["minimum"], velocities["maximum"], 4)[np.arange(_NOTES) % 4]
    starts = _NOTE_SECONDS * np.arange(_NOTES)
    notes = np.stack([starts, starts + 0.9 * _NOTE_SECONDS, pitches, np.round(louder)], axis=1)
    changes = []
    for place, (style, of_style) in enumerate(_moved(learnt).items()):
        for turn in range(_NOTES // 2):
            at_most = turn >> place & 1
            value = of_style["maximum"] if at_most else of_style["minimum"]
            changes.append((2 * turn * _NOTE_SECONDS, instrument.styles[style], value))
    return Piece((Voice(notes, np.array(changes).reshape([-1, 3])),))


def _moved(learnt: dict[str, Any]) -> dict[str, Any]:
    """The styles of which several values were learnt."""
    return {name: of for name, of in learnt.get("styles", {}).items() if of["minimum"] < of["maximum"]}


def _json(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
