"""An instrument in one file, as it is read: `guitar.nms`. `exporting.portable` writes it.

It is a zip file of these members and no others:

| member | what it is |
|---|---|
| `instrument.json` | facts, as an export has them, with `licence`, `parameters` and `layout` (1) |
| `operative_config.gin` | the config |
| `best/ckpt-N.index`, `best/ckpt-N.data-00000-of-00001` | the weights after N steps, a checkpoint of TensorFlow |
| `data_set.json` | what it was trained on, where that is known |
| `verdict.json` | how near it comes to its player, where it was evaluated |
| `LICENSE.txt` | what may be done with it |
| `sound.flac`, `picture.png` | ten seconds of it, and what they look like |
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.archives import Archive
from neural_midi_synth.files.inputs import read_bytes

SUFFIX = ".nms"
LAYOUT = 1
"""Raised when readers of the old layout would misunderstand the new one."""

CONFIG_NAME = "operative_config.gin"
DATA_SET_NAME = "data_set.json"
VERDICT_NAME = "verdict.json"
FACTS_NAME = "instrument.json"
LICENCE_NAME = "LICENSE.txt"
SOUND_NAME = "sound.flac"
PICTURE_NAME = "picture.png"

_MEGABYTE = 2**20
_MOST_BYTES = {
    FACTS_NAME: _MEGABYTE,
    CONFIG_NAME: _MEGABYTE,
    DATA_SET_NAME: _MEGABYTE,
    VERDICT_NAME: _MEGABYTE,
    LICENCE_NAME: _MEGABYTE,
    SOUND_NAME: 16 * _MEGABYTE,
    PICTURE_NAME: 16 * _MEGABYTE,
}
_WEIGHTS = re.compile(r"best/(ckpt-[0-9]{1,12})\.(index|data-00000-of-00001)")
_MOST_BYTES_OF_WEIGHTS = {"index": _MEGABYTE, "data-00000-of-00001": 512 * _MEGABYTE}


def archive(path: str | os.PathLike) -> Archive:
    """Opens an instrument in a file.

    Args:
        path: The file.

    Returns:
        Its members, checked.

    Raises:
        DataError: It is no such file, or not as its layout is.
    """
    opened = Archive(path, _most_bytes)
    weights = {match[1] for match in map(_WEIGHTS.fullmatch, opened.names) if match}
    if len(weights) != 1:
        raise DataError(f"{path}: holds the weights of {len(weights)} instruments, not of one. Ask for it again.")
    return opened


def read_facts(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what the file of an instrument tells of itself, without loading it.

    Args:
        path: The file.

    Returns:
        `instrument.json`, and the text of the licence as 'licence'.

    Raises:
        DataError: It is no such file, damaged, or of a newer version of this package.
    """
    opened = archive(path)
    facts = _facts(opened, path)
    return {**facts, "licence": opened.read(LICENCE_NAME).decode("utf-8", "replace")}


def _facts(opened: Archive, path: str | os.PathLike) -> dict[str, Any]:
    try:
        facts = dict(json.loads(opened.read(FACTS_NAME)))
        layout = facts.get("layout")
    except (ValueError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {FACTS_NAME} is damaged. Ask for it again.") from error
    if layout != LAYOUT:
        raise DataError(f"{path}: has layout {layout!r}, and this version reads {LAYOUT}. Install a newer version.")
    return facts


@contextlib.contextmanager
def as_folder(source: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Is the folder of an instrument while the block lasts, whether it comes in a folder or in a file.

    Args:
        source: A folder that `nms_train` wrote, or a file that `nms_export --file` did.

    Yields:
        The folder; that of a file is unpacked elsewhere, and goes away with the block.

    Raises:
        DataError: The file is none of an instrument, or not as its layout is.
    """
    source = pathlib.Path(source)
    if not source.is_file():
        yield source
        return
    opened = archive(source)
    _facts(opened, source)
    with tempfile.TemporaryDirectory(prefix="nms_") as name:
        folder = pathlib.Path(name)
        try:
            (folder / "best").mkdir()
            for member in opened.names:
                if member in (SOUND_NAME, PICTURE_NAME):
                    continue
                (folder / member).write_bytes(opened.read(member))
                if weights := _WEIGHTS.fullmatch(member):
                    line = f'model_checkpoint_path: "{weights[1]}"\n'
                    (folder / "best" / "checkpoint").write_text(line, encoding="utf-8")
        except OSError as error:
            raise DataError(f"{tempfile.gettempdir()}: has no room to unpack {source} ({error.strerror}).") from error
        try:
            yield folder
        except DataError as error:
            # What is wrong in the file is told with the file's name.
            raise DataError(str(error).replace(str(folder), str(source))) from error


def name_of(source: str | os.PathLike) -> str:
    """Returns what an instrument is called: the name of its folder, or of its file without the suffix."""
    path = pathlib.Path(source).resolve()
    return path.stem if path.is_file() else path.name


def fingerprint(path: str | os.PathLike) -> str:
    """Returns a hash of an instrument's config and weights."""
    digest = hashlib.sha256()
    with as_folder(path) as opened:
        folder = opened / ("best" if (opened / "best").is_dir() else "last")
        # The state of a checkpoint has the time in it.
        for file in [opened / CONFIG_NAME, *sorted(folder.glob("ckpt-*"))]:
            digest.update(file.name.encode() + b"\n" + read_bytes(file))
    return digest.hexdigest()


def _most_bytes(name: str) -> int:
    """Returns how many bytes a member may have; 0 where there is none of that name."""
    weights = _WEIGHTS.fullmatch(name)
    return _MOST_BYTES_OF_WEIGHTS[weights[2]] if weights else _MOST_BYTES.get(name, 0)
