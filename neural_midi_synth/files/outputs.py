"""Outputs that are whole or absent: written aside, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from neural_midi_synth.errors import DataError


@contextlib.contextmanager
def write_aside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path beside `path`; what was written there takes the place of `path` if the block ends well.

    The path that is yielded keeps the suffix of `path`, since audio formats are chosen by suffix. It may be used for
    a file or for a folder. A folder replaces a folder of the same name; on any exception nothing is left behind and
    `path` is as it was.

    Args:
        path: File or folder to write. Its parent folders are made.

    Yields:
        The path to write to.

    Raises:
        DataError: The parent folder can't be made or written to.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent}: cannot make this folder ({error.strerror}). Choose another output.") from error
    try:
        yield aside
        if aside.is_dir() and path.is_dir():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(path, old)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)
    except PermissionError as error:
        raise DataError(f"{path}: not allowed to write here. Choose another output.") from error
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Checks, before long work, that a file or folder can be made; makes nothing yet.

    Args:
        path: File or folder.

    Raises:
        DataError: What is there already of its parent folders is no folder, or is not to be written to.
    """
    path = pathlib.Path(path)
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if nearest.is_file() and nearest == path:
        nearest = path.absolute().parent  # It is replaced.
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        what = "not a folder" if not nearest.is_dir() else "not to be written to"
        raise DataError(f"{path}: can't be made, since {nearest} is {what}. Choose another output.")
