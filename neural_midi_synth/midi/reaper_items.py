"""Tracks and media items of a Reaper project: the active takes that are not muted, and the MIDI events in them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi import reaper_chunks
from neural_midi_synth.midi.reaper_events import MidiItem, MidiSource, file_source, read_source

if TYPE_CHECKING:
    import rpp

# Kinds of sources that have sound, and those that have MIDI.
AUDIO_SOURCES = frozenset({"WAVE", "AIFF", "MP3", "FLAC", "VORBIS", "OGG", "OPUS", "WAVPACK"})
MIDI_SOURCES = frozenset({"MIDI", "MIDIPOOL"})
_SLOWEST_RATE, _FASTEST_RATE = 0.1, 40.0


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """The active take of a media item that is not muted.

    Attributes:
        position: Where the item begins in the project, s.
        length: Seconds, above 0.
        loops: Whether its source is repeated until it ends.
        gain: Volume of the item times that of the take, as a factor.
        children: Lines and chunks of the take.
        source: The take's chunk SOURCE.
        where: File and place, for messages.
    """

    position: float
    length: float
    loops: bool
    gain: float
    children: Sequence[list[str] | rpp.Element]
    source: rpp.Element
    where: str

    @property
    def kind(self) -> str:
        """What its source is, or what the section is of that its source may be: `WAVE`, `MIDI` and so on."""
        return next(iter(innermost(self.source).attrib), "")

    def value(self, name: str, i: int, default: float) -> float:
        """Returns a number of a line of the take."""
        return reaper_chunks.number(reaper_chunks.values(self.children, name), i, default, self.where)

    @property
    def rate(self) -> float:
        """How many times as fast as its source it plays."""
        rate = self.value("PLAYRATE", 0, 1.0)
        if not _SLOWEST_RATE <= rate <= _FASTEST_RATE:
            raise DataError(f"{self.where}: has a play rate of {rate:g}. Glue the item in Reaper.")
        return rate


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """A track of a project.

    Attributes:
        number: From 1.
        name: May be empty.
        is_muted: Whether all of it is muted.
        items: Those that have an active take and are not muted.
    """

    number: int
    name: str
    is_muted: bool
    items: tuple[Item, ...]

    @property
    def title(self) -> str:
        """Number and name: `2 'Annotation'`."""
        return f"{self.number} {self.name!r}" if self.name else str(self.number)

    def of_kinds(self, kinds: frozenset[str]) -> list[Item]:
        """Returns the items whose source is one of these kinds."""
        return [item for item in self.items if item.kind in kinds]


def read_tracks(root: rpp.Element, path: pathlib.Path) -> list[Track]:
    """Reads the tracks of a project.

    Args:
        root: Of `reaper_chunks.read_chunks`.
        path: The project, for messages.

    Raises:
        DataError: Positions, lengths or volumes are not numbers.
    """
    return [_track(chunk, i, path) for i, chunk in enumerate(reaper_chunks.chunks(root, "TRACK"), start=1)]


def _track(chunk: rpp.Element, number: int, path: pathlib.Path) -> Track:
    name = reaper_chunks.first_value(chunk, "NAME")
    name = "".join(c if c.isprintable() else " " for c in name)
    is_muted = reaper_chunks.number(reaper_chunks.values(chunk, "MUTESOLO"), 0, 0.0, str(path)) != 0.0
    items = [_item(item, number, name, path) for item in reaper_chunks.chunks(chunk, "ITEM")]
    return Track(number, name, is_muted, tuple(item for item in items if item is not None))


def _item(chunk: rpp.Element, track: int, track_name: str, path: pathlib.Path) -> Item | None:
    """Reads a media item; None if it is muted or empty."""
    position = reaper_chunks.number(reaper_chunks.values(chunk, "POSITION"), 0, 0.0, str(path))
    where = f"{path}: the item at {position:.2f} s of track {track}" + (f" {track_name!r}" if track_name else "")
    length = reaper_chunks.number(reaper_chunks.values(chunk, "LENGTH"), 0, 0.0, where)
    if length <= 0.0 or reaper_chunks.number(reaper_chunks.values(chunk, "MUTE"), 0, 0.0, where):
        return None
    takes: list[list[list[str] | rpp.Element]] = [[]]
    active = 0
    for child in chunk:
        if isinstance(child, list) and child[0] == "TAKE":
            takes.append([])
            active = len(takes) - 1 if "SEL" in child else active
        else:
            takes[-1].append(child)
    source = next(reaper_chunks.chunks(takes[active], "SOURCE"), None)
    if source is None:
        return None
    # The line VOLPAN has the volume of the item and, two values on, that of its first take. Other takes have their own.
    volumes, own, i = reaper_chunks.values(chunk, "VOLPAN"), None, 2
    if active:
        own, i = reaper_chunks.values(takes[active], "TAKEVOLPAN"), 1
    gain = reaper_chunks.number(volumes, 0, 1.0, where)
    gain *= reaper_chunks.number(volumes if own is None else own, i, 1.0, where)
    loops = reaper_chunks.number(reaper_chunks.values(chunk, "LOOP"), 0, 0.0, where) != 0.0
    return Item(position, length, loops, gain, takes[active], source, where)


def innermost(source: rpp.Element) -> rpp.Element:
    """Returns the source that a section is of, or the source itself."""
    inner = next(reaper_chunks.chunks(source, "SOURCE"), None)
    return source if inner is None else innermost(inner)


def read_pools(root: rpp.Element) -> dict[str, rpp.Element]:
    """Finds the MIDI events that several items share: names of the pools, and for each the source that has its events.

    Only one of the items that share them has them in the file; it need not be one that is heard.
    """
    pools: dict[str, rpp.Element] = {}
    for track in reaper_chunks.chunks(root, "TRACK"):
        for item in reaper_chunks.chunks(track, "ITEM"):
            for source in reaper_chunks.chunks(item, "SOURCE"):
                name = reaper_chunks.first_value(source, "POOLEDEVTS")
                if name and reaper_chunks.values(source, "HASDATA"):
                    pools.setdefault(name, source)
    return pools


def _with_events(source: rpp.Element, pools: Mapping[str, rpp.Element]) -> rpp.Element:
    """Returns the source that has the events of a MIDI source: itself, or another one of its pool."""
    if reaper_chunks.values(source, "HASDATA"):
        return source
    return pools.get(reaper_chunks.first_value(source, "POOLEDEVTS"), source)


def has_notes(item: Item, pools: Mapping[str, rpp.Element]) -> bool:
    """Tells whether a MIDI item may have notes, without reading all of it."""
    source = innermost(item.source)
    return bool(reaper_chunks.first_value(source, "FILE")) or any(
        line[0] in ("E", "e") and len(line) > 2 and line[2].startswith("9")
        for line in reaper_chunks.lines(_with_events(source, pools))
    )


def read_midi_item(item: Item, pools: Mapping[str, rpp.Element], path: pathlib.Path) -> MidiItem:
    """Reads what a MIDI item plays.

    Args:
        item: Of one of the kinds in `MIDI_SOURCES`.
        pools: Of `read_pools`.
        path: The project.

    Raises:
        DataError: The events can't be read, or the file that has them is not found.
    """
    source = innermost(item.source)
    if source is not item.source:
        raise DataError(f"{item.where}: plays a section of its MIDI. Glue the item in Reaper.")
    start = item.value("SOFFS", 0, 0.0)
    return MidiItem(item.position, item.length, start, item.rate, item.loops, _events(item, source, pools, path))


def _events(item: Item, source: rpp.Element, pools: Mapping[str, rpp.Element], path: pathlib.Path) -> MidiSource:
    name = reaper_chunks.first_value(source, "FILE")
    if not name:
        return read_source(_with_events(source, pools), item.where)
    found = reaper_chunks.find_file(path, name)
    if found is None:
        raise DataError(f"{item.where}: its MIDI file {name!r} is not found. Copy it beside the project.")
    return file_source(found)
