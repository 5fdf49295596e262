"""Finds gin configs: those that come with the package, and the user's own."""

from __future__ import annotations

import os
import pathlib
import re

from neural_midi_synth.errors import DataError

_INCLUDE = re.compile(r"""^\s*include\s+(['"])(?P<name>.+?)\1\s*(#.*)?$""", re.MULTILINE)
_PACKAGE = pathlib.Path(__file__).resolve().parent


def folder() -> pathlib.Path:
    """Returns the folder of the configs that come with the package: `gin/` of the installed package or the checkout."""
    installed = _PACKAGE / "gin"
    return installed if installed.is_dir() else _PACKAGE.parent / "gin"


def find(name: str | os.PathLike) -> pathlib.Path:
    """Finds a gin config.

    Args:
      name: A path to a file, or the name of a config of the package such as `models/guitar.gin`; the suffix `.gin`
        may be left out.

    Returns:
      The path of an existing file. A file of the user's own goes before one of the package.

    Raises:
      DataError: There is no such file.
    """
    wanted = pathlib.Path(name)
    names = [wanted] if wanted.suffix == ".gin" else [wanted, wanted.with_name(wanted.name + ".gin")]
    for candidate in [*names, *(folder() / each for each in names)]:
        if candidate.is_file():
            return candidate
    have = sorted(path.relative_to(folder()).as_posix() for path in folder().glob("*/*.gin"))
    raise DataError(f"{name}: no such gin config. Give a path to a file, or one of: {', '.join(have)}.")


def read(path: str | os.PathLike) -> str:
    """Reads a gin config with what it includes.

    gin would look for included files among Python's packages too, and stumble over a folder `models` where Python runs.

    Args:
        path: Of a file.

    Returns:
        Its text, where that of the included files stands in place of the `include` lines.

    Raises:
        DataError: An included file is not there, or files include each other.
        OSError, UnicodeError: The file cannot be read.
    """
    return _with_includes(pathlib.Path(path), ())


def _with_includes(path: pathlib.Path, around: tuple[pathlib.Path, ...]) -> str:
    if path.resolve() in around:
        raise DataError(f"{path}: includes itself. Take out one of the include lines.")
    around = (*around, path.resolve())
    text = path.read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda line: _with_includes(find(line["name"]), around), text)
