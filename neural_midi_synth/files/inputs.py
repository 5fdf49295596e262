"""Whole files, read, or a sentence that says why that can't be done."""

from __future__ import annotations

import pathlib

from neural_midi_synth.errors import DataError


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file.

    Raises:
        DataError: It is not there, or can't be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check its name.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
