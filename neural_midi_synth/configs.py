"""Finds gin configs: those that come with the package, and the user's own."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator

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


def parts(path: str | os.PathLike) -> Iterator[tuple[pathlib.Path, str]]:
    """Reads a gin config and what it includes.

    gin would look for included files among Python's packages too, and stumble over a folder `models` where Python runs.

    Args:
        path: Of a file.

    Yields:
        A file and a part of its text without `include` lines, in the order in which gin takes them. Blank lines stand
        for what comes before in the file, so that the numbers of lines are those of the file.

    Raises:
        DataError: An included file is not there, or files include each other.
        OSError, UnicodeError: A file cannot be read.
    """
    yield from _parts(pathlib.Path(path), ())


def _parts(path: pathlib.Path, around: tuple[pathlib.Path, ...]) -> Iterator[tuple[pathlib.Path, str]]:
    if path.resolve() in around:
        raise DataError(f"{path}: includes itself. Take out one of the include lines.")
    text = path.read_text(encoding="utf-8")
    begin = 0
    for line in _INCLUDE.finditer(text):
        yield path, "\n" * text.count("\n", 0, begin) + text[begin : line.start()]
        yield from _parts(find(line["name"]), (*around, path.resolve()))
        begin = line.end()
    yield path, "\n" * text.count("\n", 0, begin) + text[begin:]
