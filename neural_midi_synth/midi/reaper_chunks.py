"""The chunks of a Reaper project file: a tree of named lines, as far as takes need them.

A project is text. A line that begins with `<` opens a chunk, `>` alone closes it, and any other line has a name and
values, some in quotes. The package rpp has the rules of quoting and the elements of the tree. The tree is put together
here, since rpp's own parser takes time that grows with the square of the lines of a chunk, and refuses the whole
project for one odd line in the state of a plug-in.
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.inputs import read_bytes

if TYPE_CHECKING:
    import rpp

# Chunks that are read. Others are passed over: plug-ins, envelopes, notes, frozen tracks.
_READ = {"REAPER_PROJECT", "TRACK", "ITEM", "SOURCE", "TEMPOENVEX"}
# MIDI messages of other lengths (texts, system exclusive) are chunks of their own, whose first line tells their time.
_MESSAGES = {"X", "x", "Xm", "xm"}
_DEEPEST = 32
# Times in a project, in seconds, are within this: eleven days.
MAX_SECONDS = 1_000_000.0


def read_chunks(path: pathlib.Path) -> rpp.Element:
    """Reads a project as a tree.

    Args:
        path: The .RPP file.

    Returns:
        The chunk REAPER_PROJECT. Children are chunks (`rpp.Element`) and lines (lists of strings, the name first).

    Raises:
        DataError: The file is missing, can't be read or is not a Reaper project.
    """
    import rpp

    lines = _decoded(read_bytes(path)).split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if not lines[first].strip().startswith("<REAPER_PROJECT"):
        raise DataError(f"{path}: is not a Reaper project, whatever its name. Save it in Reaper again.")
    root = rpp.Element("REAPER_PROJECT", [], [])
    open_chunks, passed_over = [root], 0
    for line in lines[first + 1 :]:
        line = line.strip()
        if line == ">":
            if passed_over:
                passed_over -= 1
            else:
                open_chunks.pop()
                if not open_chunks:
                    return root
        elif line.startswith("<"):
            tokens = _tokens(line[1:])
            if passed_over or not tokens or tokens[0] not in _READ | _MESSAGES:
                passed_over += 1
                continue
            chunk = rpp.Element(tokens[0], tokens[1:], [])
            open_chunks[-1].append(chunk)
            if tokens[0] in _MESSAGES:
                passed_over = 1
                continue
            open_chunks.append(chunk)
            if len(open_chunks) > _DEEPEST:
                raise DataError(f"{path}: is damaged (its chunks are nested too deep). Save it in Reaper again.")
        elif line and not passed_over:
            open_chunks[-1].append(_tokens(line))
    raise DataError(f"{path}: is cut short. Save it in Reaper or copy it again.")


def _decoded(content: bytes) -> str:
    """Returns text that is UTF-8, as Reaper saves it, or in what Windows used before."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _tokens(line: str) -> list[str]:
    """Returns the words of a line without their quotes, at least one where the line is not blank."""
    from rpp import scanner

    if not any(quote in line for quote in "\"'`"):
        return line.split()
    try:
        tokens = [token.value for token in scanner.tokenize(line) if token.type == "STRING"]
    except (ValueError, IndexError):  # A quote without its partner.
        tokens = []
    return tokens or line.split()


def lines(chunk: rpp.Element) -> Iterator[list[str]]:
    """Yields the lines of a chunk: name and values of each, without the chunks in it."""
    return (child for child in chunk if isinstance(child, list))


def chunks(children: rpp.Element | Sequence[list[str] | rpp.Element], tag: str) -> Iterator[rpp.Element]:
    """Yields the chunks of a name in a chunk."""
    return (child for child in children if not isinstance(child, list) and child.tag == tag)


def values(children: rpp.Element | Sequence[list[str] | rpp.Element], name: str) -> list[str]:
    """Returns the values of the first line of a name in a chunk; none where there is no such line."""
    return next((child[1:] for child in children if isinstance(child, list) and child[0] == name), [])


def first_value(children: rpp.Element | Sequence[list[str] | rpp.Element], name: str) -> str:
    """Returns the first value of the first line of a name in a chunk; an empty string where there is none."""
    return next(iter(values(children, name)), "")


def number(tokens: Sequence[str], i: int, default: float, where: str, limit: float = MAX_SECONDS) -> float:
    """Returns a value of a line as a number.

    Args:
        tokens: Values of the line.
        i: Which of them.
        default: What a value that is missing counts as.
        where: File and place, for the message.
        limit: The largest magnitude that makes sense.

    Raises:
        DataError: It is not a number, or beyond the limit.
    """
    if i >= len(tokens):
        return default
    try:
        result = float(tokens[i])
    except ValueError:
        result = math.nan
    if not abs(result) <= limit:
        raise DataError(f"{where}: has {tokens[i][:40]!r} where a number should be. Save the project in Reaper again.")
    return result


def find_file(project: pathlib.Path, name: str, folders: Sequence[str] = ()) -> pathlib.Path | None:
    """Finds a file that a project names, even where project and files have been moved together.

    Looked for are the path itself, relative to the project, with the separators of Windows or others, and then the
    name alone beside the project and in the folders where Reaper records, without regard to capitals.

    Args:
        project: The .RPP file.
        name: As the project has it.
        folders: Where the project records, relative to it.

    Returns:
        The file; None if it is in none of these places.
    """
    name = name.replace("\\", "/")
    if not name or "\0" in name:
        return None
    as_given = project.parent / name
    if os.path.isfile(as_given):
        return as_given
    wanted = name.rsplit("/", 1)[-1].casefold()
    for folder in ("", *folders, "Media", "Audio", "media", "audio"):
        folder = project.parent / folder.replace("\\", "/")
        try:
            found = next((path for path in sorted(folder.iterdir()) if path.name.casefold() == wanted), None)
        except (OSError, ValueError):
            continue
        if found is not None and os.path.isfile(found):
            return found
    return None
