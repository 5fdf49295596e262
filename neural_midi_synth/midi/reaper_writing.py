"""Reaper projects, written: recordings and their annotations on two tracks, ready to open."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural_midi_synth.files.outputs import write_aside

if TYPE_CHECKING:
    import mido
    import rpp

# What Reaper calls the kind of a file that is not .wav or .aiff.
_SOURCES = {".mp3": "MP3", ".flac": "FLAC", ".ogg": "VORBIS", ".opus": "OPUS"}


@dataclasses.dataclass(frozen=True)
class ReaperItem:
    """A recording or an annotation on a track.

    Attributes:
        name: What Reaper shows.
        length: Seconds.
        source: What it plays, from `audio_source` or `midi_source`.
        position: Seconds from the beginning of the project.
    """

    name: str
    length: float
    source: rpp.Element
    position: float = 0.0


def audio_source(file: str | os.PathLike) -> rpp.Element:
    """Refers to a recording.

    Args:
        file: As it is to stand in the project: absolute, or relative to its folder.
    """
    import rpp

    kind = _SOURCES.get(pathlib.PurePath(file).suffix.lower(), "WAVE")
    return rpp.Element("SOURCE", [kind], [["FILE", os.fspath(file)]])


def midi_source(messages: Sequence[tuple[int, mido.Message]], ticks_per_beat: int, end: int) -> rpp.Element:
    """Holds the MIDI of an item.

    Args:
        messages: Their ticks from the beginning of the item, and themselves; sorted by tick.
        ticks_per_beat: In a quarter note.
        end: Tick at which the item ends.
    """
    import rpp

    lines, previous = [], 0
    for tick, message in messages:
        lines.append(["E", tick - previous, *(f"{byte:02x}" for byte in message.bytes())])
        previous = tick
    # All notes off is where Reaper has the end of the MIDI.
    lines.append(["E", max(end - previous, 0), "b0", "7b", "00"])
    return rpp.Element("SOURCE", ["MIDI"], [["HASDATA", 1, ticks_per_beat, "QN"], *lines])


def write_reaper_project(
    path: str | os.PathLike,
    tracks: Sequence[tuple[str, Sequence[ReaperItem]]],
    tempo: float,
    sample_rate: int,
    markers: Sequence[tuple[float, str]] = (),
) -> None:
    """Writes a project; it is there whole or not at all. The same arguments write the same bytes.

    Args:
        path: The project, a .RPP file.
        tracks: The name of each and its items.
        tempo: Beats per minute, in 4/4.
        sample_rate: Hz.
        markers: Seconds and name of each.

    Raises:
        DataError: The file can't be written.
    """
    import rpp

    project = rpp.Element("REAPER_PROJECT", ["0.1", "6.0/linux-x86_64", "0"])
    project.append(["TEMPO", tempo, 4, 4])
    project.append(["SAMPLERATE", sample_rate, 0, 0])
    project.extend(["MARKER", i, f"{time:.6f}", name, 0] for i, (time, name) in enumerate(markers, start=1))
    project.extend(_track(name, items) for name, items in tracks)
    with write_aside(path) as aside:
        aside.write_text(rpp.dumps(project), encoding="utf-8")


def _track(name: str, items: Sequence[ReaperItem]) -> rpp.Element:
    import rpp

    identity = _identity(items[0], 0) if items else _identity(ReaperItem(name, 0.0, None), 0)
    track = rpp.Element("TRACK", [identity], [["NAME", name], ["TRACKID", identity]])
    for item in items:
        element = rpp.Element("ITEM", [])
        element.extend([["POSITION", f"{item.position:.6f}".rstrip("0").rstrip(".")], ["LENGTH", f"{item.length:.6f}"]])
        element.extend([["LOOP", 0], ["IGUID", _identity(item, 1)], ["NAME", item.name], ["SOFFS", 0]])
        element.extend([["GUID", _identity(item, 2)], item.source])
        track.append(element)
    return track


def _identity(item: ReaperItem, number: int) -> str:
    """A name that Reaper takes for unique: always the same for an item."""
    return "{" + str(uuid.uuid5(uuid.NAMESPACE_URL, f"{item.name} {number}")).upper() + "}"
