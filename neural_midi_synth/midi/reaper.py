"""Reaper projects: the recordings in them, each with what the project's MIDI items play while it lasts.

The format is what Reaper 6 and 7 save. Cockos has not published it; what is relied on here is told by the wiki of its
users (State Chunk Definitions, StateChunkAndRppMidiFormat), the ReaScript documentation (MIDI_GetAllEvts,
SetTempoTimeSigMarker), and the sources of the SWS extension (BR_EnvelopeUtil, RprMidiTake), rppp and ProjectConverter.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi import reaper_chunks
from neural_midi_synth.midi.parts import ChannelEvents
from neural_midi_synth.midi.reaper_events import MidiItem, play_items
from neural_midi_synth.midi.reaper_items import (
    AUDIO_SOURCES,
    MIDI_SOURCES,
    Item,
    Track,
    has_notes,
    read_midi_item,
    read_pools,
    read_tracks,
)
from neural_midi_synth.midi.tempo_map import TempoMap, TempoPoint

if TYPE_CHECKING:
    import rpp

# Names of Reaper projects end in this, in any mixture of capitals.
PROJECT_SUFFIX = ".rpp"
_SLOWEST_TEMPO, _FASTEST_TEMPO = 0.1, 100_000.0
_HELD = 1  # The shape of a tempo point whose tempo is held; others move gradually.
_TIME_SIGNATURE_ONLY = 2  # The flag of a tempo point that does not set the tempo.
_REVERSED = 2  # The flag of a section that is played backwards.
# Channel modes of a take from this one on are one channel of the recording: left, right, the third, and so on.
_FIRST_OF_ONE_CHANNEL, _LAST_OF_ONE_CHANNEL = 3, 66
_MAX_LISTED = 8


@dataclasses.dataclass(frozen=True)
class RecordedItem:
    """A recording in a project, and the MIDI items that may be played while it lasts.

    Attributes:
        audio_path: The recording.
        offset: Where in the recording the item begins, s of the recording.
        duration: Seconds of the recording that it plays, above 0, as far as the recording lasts.
        rate: How many times as fast it plays them; the pitch rises with it.
        gain: Factor of the amplitude.
        channel: The only channel of the recording that is played, from 0; None for the mean of all.
        loops: Whether it plays the recording again where that is shorter.
        position: Where the item begins in the project, s.
        length: Seconds in the project.
        project: The .RPP file.
        midi_track: Number of the track with the annotation, from 1.
        midi_name: Name of that track; may be empty.
        midi_items: All MIDI items of that track.
        tempo_points: The project's tempo.
    """

    audio_path: pathlib.Path
    offset: float
    duration: float
    rate: float
    gain: float
    channel: int | None
    loops: bool
    position: float
    length: float
    project: pathlib.Path
    midi_track: int
    midi_name: str
    midi_items: tuple[MidiItem, ...]
    tempo_points: tuple[TempoPoint, ...]

    def play(self, length: float | None = None) -> list[ChannelEvents]:
        """Returns what is played on each MIDI channel that has notes while the recording lasts.

        Times are relative to the item's beginning. Notes that began before and still last are there with times below
        0, as are the controls in force.

        Args:
            length: Seconds, where that is less than the item has.

        Raises:
            DataError: There are millions of events.
        """
        where = f"{self.project}: track {self.midi_track}" + (f" {self.midi_name!r}" if self.midi_name else "")
        overlapping = [item for item in self.midi_items if self._overlaps(item)]
        return play_items(
            overlapping,
            TempoMap(self.tempo_points),
            self.position,
            self.length if length is None else min(length, self.length),
            self.midi_track,
            self.midi_name,
            where,
        )

    def _overlaps(self, item: MidiItem) -> bool:
        return item.position < self.position + self.length and item.position + item.length > self.position

    def facts(self) -> tuple[object, ...]:
        """Returns what makes a difference to what is heard and played, wherever project and recording are."""
        own = (self.offset, self.duration, self.rate, self.gain, self.channel, self.loops, self.position, self.length)
        return (*own, [item for item in self.midi_items if self._overlaps(item)], self.tempo_points)


def recorded_items(
    path: str | os.PathLike, audio_track: int | str | None = None, midi_track: int | str | None = None
) -> list[RecordedItem]:
    """Finds the recordings of a project that MIDI items annotate.

    Each item of the recorded track is one, with all MIDI items of the annotating track that overlap it. Muted items,
    and takes other than the active one, are not there. Where a project has several tracks with recordings, or with
    notes, those that are muted are left out of the choice; if that leaves several, they have to be chosen.

    Args:
        path: The .RPP file.
        audio_track: Number (from 1) or name of the track with the recordings.
        midi_track: Number or name of the track that annotates them.

    Returns:
        The recordings in the order of their positions, at least one.

    Raises:
        DataError: The project can't be read; which tracks are meant is not clear; no recording overlaps a MIDI item;
            a recording is not found, or is played in a way that has to be glued first.
    """
    path = pathlib.Path(path)
    root = reaper_chunks.read_chunks(path)
    tempo_points = _tempo_points(root, path)
    tracks, pools = read_tracks(root, path), read_pools(root)
    with_sound = [track for track in tracks if track.of_kinds(AUDIO_SOURCES)]
    recorded = _choose(tracks, with_sound, audio_track, "audio_track", path)
    with_notes = [track for track in tracks if any(has_notes(item, pools) for item in track.of_kinds(MIDI_SOURCES))]
    annotating = _choose(tracks, with_notes, midi_track, "midi_track", path)
    midi_items = tuple(read_midi_item(item, pools, path) for item in annotating.of_kinds(MIDI_SOURCES))
    folders = reaper_chunks.values(root, "RECORD_PATH")
    annotation = (annotating.number, annotating.name, midi_items, tempo_points)
    played = play_items(midi_items, TempoMap(tempo_points), 0.0, reaper_chunks.MAX_SECONDS, *annotation[:2], str(path))
    notes = np.concatenate([channel.notes for channel in played]) if played else np.zeros([0, 4])
    found = [
        RecordedItem(*_recording(item, path, folders), path, *annotation)
        for item in sorted(recorded.of_kinds(AUDIO_SOURCES), key=lambda item: item.position)
        if np.any((notes[:, 0] < item.position + item.length) & (notes[:, 1] > item.position))
    ]
    if not found:
        raise DataError(
            f"{path}: no notes of track {annotating.title} lie at a recording of track {recorded.title}. "
            "Choose other tracks with --audio_track and --midi_track, or move the items."
        )
    return found


def _tempo_points(root: rpp.Element, path: pathlib.Path) -> tuple[TempoPoint, ...]:
    """Reads the project's tempo and its envelope."""

    def tempo(tokens: Sequence[str], i: int) -> float:
        value = reaper_chunks.number(tokens, i, 120.0, str(path))
        if not _SLOWEST_TEMPO <= value <= _FASTEST_TEMPO:
            raise DataError(f"{path}: has a tempo of {value:g} beats a minute. Correct it in Reaper.")
        return value

    points = []
    for chunk in reaper_chunks.chunks(root, "TEMPOENVEX"):
        for line in reaper_chunks.lines(chunk):
            if line[0] == "PT":
                time, shape, flags = (
                    reaper_chunks.number(line, i, default, str(path)) for i, default in ((1, 0.0), (3, _HELD), (6, 0))
                )
                if not int(flags) & _TIME_SIGNATURE_ONLY:
                    points.append(TempoPoint(time, tempo(line, 2), shape != _HELD))
    points.sort(key=lambda point: point.time)
    if not points or points[0].time > 0.0:
        points.insert(0, TempoPoint(0.0, tempo(reaper_chunks.values(root, "TEMPO"), 0)))
    return tuple(points)


def _choose(
    tracks: Sequence[Track], candidates: Sequence[Track], wanted: int | str | None, flag: str, path: pathlib.Path
) -> Track:
    """Returns the track that was asked for, or the only one that comes into question."""
    what = "recordings" if flag == "audio_track" else "notes"
    listed = ", ".join(track.title for track in candidates[:_MAX_LISTED])
    listed += f" and {len(candidates) - _MAX_LISTED} more" if len(candidates) > _MAX_LISTED else ""
    if not candidates:
        raise DataError(f"{path}: has no track with {what} that are not muted. Add one, or unmute its items.")
    if wanted is None:
        chosen = [track for track in candidates if not track.is_muted] if len(candidates) > 1 else candidates
        chosen = chosen or candidates
    else:
        by_number = [track for track in candidates if str(track.number) == str(wanted)]
        chosen = by_number or [track for track in candidates if track.name == str(wanted)]
    if not chosen:
        is_there = any(str(wanted) in (str(track.number), track.name) for track in tracks)
        problem = f"track {wanted} has no {what}" if is_there else f"has no track {wanted!r}"
        raise DataError(f"{path}: {problem}. Choose with --{flag} among those that have: {listed}.")
    if len(chosen) > 1:
        raise DataError(f"{path}: has {what} on several tracks. Choose one with --{flag} ({listed}).")
    return chosen[0]


def _recording(
    item: Item, path: pathlib.Path, folders: Sequence[str]
) -> tuple[pathlib.Path, float, float, float, float, int | None, bool, float, float]:
    """Reads how an item plays its recording: the attributes of `RecordedItem` before the project."""
    rate = item.rate
    if rate != 1.0 and item.value("PLAYRATE", 1, 0.0):
        raise DataError(
            f"{item.where}: is played at rate {rate:g} with its pitch preserved, which is left to Reaper. "
            "Glue the item there, or turn off Preserve pitch."
        )
    if item.value("PLAYRATE", 2, 0.0):
        raise DataError(f"{item.where}: has its pitch shifted. Glue the item in Reaper.")
    if reaper_chunks.values(item.children, "SM"):
        raise DataError(f"{item.where}: has stretch markers. Glue the item in Reaper.")
    position, length = item.position, item.length
    offset, source = item.value("SOFFS", 0, 0.0), item.source
    while (inner := next(reaper_chunks.chunks(source, "SOURCE"), None)) is not None:
        mode, section, start = (
            reaper_chunks.number(reaper_chunks.values(source, name), 0, 0.0, item.where)
            for name in ("MODE", "LENGTH", "STARTPOS")
        )
        if int(mode) & _REVERSED:
            raise DataError(f"{item.where}: is played backwards. Glue the item in Reaper.")
        if section > 0.0:
            length = min(length, (section - offset) / rate)
        offset, source = offset + start, inner
    if offset < 0.0:  # The item begins with silence, which is left out.
        position, length, offset = position - offset / rate, length + offset / rate, 0.0
    if length <= 0.0:
        raise DataError(f"{item.where}: plays nothing of its recording. Remove the item, or correct its start offset.")
    name = reaper_chunks.first_value(source, "FILE")
    audio_path = reaper_chunks.find_file(path, name, folders)
    if audio_path is None:
        raise DataError(f"{item.where}: its recording {name!r} is not found. Copy it beside the project.")
    mode = int(item.value("CHANMODE", 0, 0.0))
    channel = mode - _FIRST_OF_ONE_CHANNEL if _FIRST_OF_ONE_CHANNEL <= mode <= _LAST_OF_ONE_CHANNEL else None
    return audio_path, offset, length * rate, rate, item.gain, channel, item.loops, position, length
