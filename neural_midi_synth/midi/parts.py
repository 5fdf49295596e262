"""Parts: the instruments of a file, how they are found among its MIDI channels, and how one of them is chosen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.allocation import allocate, divide, is_monophonic, newest_wins
from neural_midi_synth.midi.events import PEDAL_DOWN, SUSTAIN_PEDAL, Bent, ControlChanged, Fact, NoteBegan
from neural_midi_synth.midi.pieces import Piece, Voice

DRUM_CHANNEL = 10
_MAX_LISTED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """An instrument of a file and what it plays.

    Attributes:
        track: Number of its track in the file, from 1; of the first one where it has several.
        name: Of that track; may be empty.
        midi_channels: MIDI channels of its notes, 1..16, in order.
        program: Number of its General MIDI program, 0..127; None where the file gives none.
        is_drums: Whether its pitches are drums (MIDI channel 10).
        piece: Its notes and controls.
        source: Name of the file, for messages.
        more_tracks: Numbers of its other tracks.
    """

    track: int
    name: str
    midi_channels: tuple[int, ...]
    program: int | None
    is_drums: bool
    piece: Piece
    source: str = "This file"
    more_tracks: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """One line that tells it apart: `track 2 'Lead' MIDI channel 1`."""
        tracks = ", ".join(map(str, (self.track, *self.more_tracks)))
        words = [f"tracks {tracks}" if self.more_tracks else f"track {tracks}"]
        if self.name:
            words.append(repr(self.name))
        plural = "s" if len(self.midi_channels) > 1 else ""
        words.append(f"MIDI channel{plural} {', '.join(map(str, self.midi_channels))}")
        if self.is_drums:
            words.append("(drums)")
        return " ".join(words)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelEvents:
    """What one MIDI channel of one track plays, as `MidiChannel` has understood it.

    Attributes:
        track: Number of the track, from 1.
        name: Of the track; may be empty.
        midi_channel: 1..16.
        program: General MIDI program, 0..127, or None.
        is_drums: Whether it plays drums.
        notes: `[n, 4]` float64: start (s), end (s), pitch, velocity; sorted by start, then by pitch.
        key_ups: `[n]` float64: when the keys of these notes were released (s); the pedal may hold notes longer.
        control_changes: `[m, 3]` float64: time (s), number, value; sorted by time.
        pitch_bends: `[k, 2]` float64: time (s), semitones; sorted by time.
    """

    track: int
    name: str
    midi_channel: int
    program: int | None
    is_drums: bool
    notes: np.ndarray
    key_ups: np.ndarray
    control_changes: np.ndarray
    pitch_bends: np.ndarray

    @classmethod
    def of(
        cls, facts: Iterable[Fact], track: int, name: str, midi_channel: int, program: int | None, is_drums: bool
    ) -> ChannelEvents:
        """Gathers what a `MidiChannel` has told, after its `end`. Notes of no length are dropped."""
        facts = list(facts)
        notes = [fact.note for fact in facts if isinstance(fact, NoteBegan)]
        rows = [(note.start, note.end, note.pitch, note.velocity, note.key_up) for note in notes]
        rows = np.array(rows, np.float64).reshape([-1, 5])
        rows = rows[rows[:, 1] > rows[:, 0]]
        rows = rows[np.lexsort((rows[:, 2], rows[:, 0]))]
        changes = [(fact.time, fact.number, fact.value) for fact in facts if isinstance(fact, ControlChanged)]
        bends = [(fact.time, fact.semitones) for fact in facts if isinstance(fact, Bent)]
        return cls(
            track,
            name,
            midi_channel,
            program,
            is_drums,
            rows[:, :4],
            rows[:, 4],
            np.array(changes, np.float64).reshape([-1, 3]),
            np.array(bends, np.float64).reshape([-1, 2]),
        )

    def is_string(self) -> bool:
        """Whether it may be a string of an instrument: its keys are played one at a time, but for legato."""
        return not self.is_drums and is_monophonic(self.key_notes())

    def key_notes(self) -> np.ndarray:
        """Returns the notes `[n, 4]` as the keys play them, without the pedal."""
        held = np.column_stack([self.notes[:, 0], self.key_ups, self.notes[:, 2:]])
        return held[held[:, 1] > held[:, 0]]

    def voice(self, notes: np.ndarray) -> Voice:
        """Returns a voice of these notes with the controls of the MIDI channel."""
        return Voice(notes, self.control_changes, self.pitch_bends)


def group_parts(channels: Sequence[ChannelEvents], source: str, most: int | None = None) -> list[Part]:
    """Finds the instruments of a file.

    Where there are several MIDI channels, no two the same, each monophonic, none with drums, and with no more than one
    program, they are the strings of one instrument, read string-wise: a voice each, in the order of the MIDI channels.
    If that is not so for the file as a whole, it may be so for a track. Of all else each track and MIDI channel is by
    itself, and its notes are allocated to voices. Last, what has one and the same program is one instrument, as the two
    hands of a piano are on two tracks.

    Args:
        channels: What has notes, in the order of tracks.
        source: Name of the file.
        most: Where keys are played on no more voices than this, notes that the pedal holds take no more either: each
            ends for the next one. Unless given, they get voices of their own.

    Returns:
        The parts in the order of tracks and MIDI channels.
    """
    if _are_strings(channels):
        return [_string_wise(channels, source)]
    parts = []
    for _, of_track in itertools.groupby(channels, key=lambda channel: channel.track):
        of_track = list(of_track)
        if _are_strings(of_track):
            parts.append(_string_wise(of_track, source))
        else:
            parts += [_allocated(channel, source, most) for channel in of_track]
    return _joined_by_program(parts)


def _joined_by_program(parts: Sequence[Part]) -> list[Part]:
    """Joins parts of the same program; those without a program, and drums, stay as they are."""
    joined: list[Part] = []
    for part in parts:
        same = (each for each in joined if each.program == part.program and not each.is_drums)
        other = None if part.program is None or part.is_drums else next(same, None)
        if other is None:
            joined.append(part)
            continue
        tracks = {*other.more_tracks, part.track, *part.more_tracks} - {other.track}
        joined[joined.index(other)] = dataclasses.replace(
            other,
            midi_channels=tuple(sorted({*other.midi_channels, *part.midi_channels})),
            piece=Piece(other.piece.voices + part.piece.voices),
            more_tracks=tuple(sorted(tracks)),
        )
    return joined


def _are_strings(channels: Sequence[ChannelEvents]) -> bool:
    programs = {channel.program for channel in channels} - {None}
    numbers = {channel.midi_channel for channel in channels}
    distinct = 1 < len(numbers) == len(channels)
    return distinct and len(programs) <= 1 and all(channel.is_string() for channel in channels)


def _string_wise(channels: Sequence[ChannelEvents], source: str) -> Part:
    strings = sorted(channels, key=lambda channel: channel.midi_channel)
    piece = Piece(tuple(string.voice(newest_wins(string.notes)) for string in strings))
    first = min(channels, key=lambda channel: channel.track)
    program = next((string.program for string in strings if string.program is not None), None)
    numbers = tuple(string.midi_channel for string in strings)
    return Part(first.track, first.name, numbers, program, False, piece, source)


def as_strings(piece: Piece) -> list[Voice]:
    """Readies voices to be written string-wise, such that reading gives the same notes: the inverse of `group_parts`.

    Args:
        piece: Whatever was read or made.

    Returns:
        Its voices, without overlapping notes. Where a note ends although the pedal (CC64) is down, and no other note
        ends it, the pedal is lifted for a moment.
    """
    strings = []
    for voice in piece.voices:
        notes, changes = newest_wins(voice.notes), voice.control_changes
        pedal = changes[changes[:, 1] == SUSTAIN_PEDAL]
        lifts_at = changes[(changes[:, 1] == SUSTAIN_PEDAL) & (changes[:, 2] < PEDAL_DOWN), 0]
        ends = notes[~np.isin(notes[:, 1], notes[:, 0]) & ~np.isin(notes[:, 1], lifts_at), 1]
        before = np.searchsorted(pedal[:, 0], ends, side="left") - 1
        lifts = [
            (end, SUSTAIN_PEDAL, value)
            for end, i in zip(ends, before)
            if i >= 0 and pedal[i, 2] >= PEDAL_DOWN
            for value in (0, pedal[i, 2])
        ]
        changes = np.concatenate([np.reshape(lifts, [-1, 3]), changes])
        strings.append(Voice(notes, changes, voice.pitch_bends))
    return strings


def _allocated(channel: ChannelEvents, source: str, most: int | None) -> Part:
    enough = most is not None and allocate(channel.key_notes()).max(initial=-1) < most
    notes_of_voices = divide(channel.notes, most if enough else None)
    piece = Piece(tuple(channel.voice(notes) for notes in notes_of_voices))
    numbers = (channel.midi_channel,)
    return Part(channel.track, channel.name, numbers, channel.program, channel.is_drums, piece, source)


def choose_piece(
    channels: Sequence[ChannelEvents],
    source: str,
    track: int | str | None,
    midi_channel: int | None,
    all_tracks: bool,
    most: int | None,
) -> Piece:
    """Makes one piece of what was chosen of a file.

    Args:
        channels: What has notes in the file, in the order of tracks; at least one.
        source: Name of the file.
        track: Number of the track from 1, or its name; None for any.
        midi_channel: 1..16; None for any.
        all_tracks: Whether to play several instruments together, without drums.
        most: As for `group_parts`.

    Returns:
        The piece.

    Raises:
        DataError: Nothing was chosen, or several instruments were and `all_tracks` is false, or only drums and it is
            true.
    """
    chosen = [
        channel
        for channel in channels
        if (track is None or str(track) in (channel.name, str(channel.track)))
        and (midi_channel is None or midi_channel == channel.midi_channel)
    ]
    if not chosen:
        asked = (("track", track), ("midi_channel", midi_channel))
        asked = " ".join(f"{word} {value!r}" for word, value in asked if value is not None)
        instruments = _listed(group_parts(channels, source))
        raise DataError(f"{source}: has no notes on {asked}. Choose among those it has ({instruments}).")
    parts = group_parts(chosen, source, most)
    if all_tracks:
        return Piece(tuple(itertools.chain.from_iterable(part.piece.voices for part in _without_drums(parts))))
    if len(parts) > 1:
        raise DataError(
            f"{source}: has several instruments. Choose one by track or midi_channel, or play them together with"
            f" all_tracks ({_listed(parts)})."
        )
    return parts[0].piece


def _listed(parts: Sequence[Part]) -> str:
    listed = [f"{part.title}: {len(part.piece.notes)} notes" for part in parts[:_MAX_LISTED]]
    if len(parts) > _MAX_LISTED:
        listed.append(f"and {len(parts) - _MAX_LISTED} more")
    return "; ".join(listed)


def _without_drums(parts: Sequence[Part]) -> list[Part]:
    pitched = [part for part in parts if not part.is_drums]
    if not pitched:
        raise DataError(
            f"{parts[0].source}: has only drums ({_listed(parts)}). Choose a file with other instruments, or these"
            f" by midi_channel {DRUM_CHANNEL}."
        )
    return pitched


def best_part(parts: Sequence[Part], lowest: float, highest: float) -> Part:
    """Finds the part whose notes lie best in a range of pitches: as many inside, and as few outside, as can be.

    Args:
        parts: Of a file, at least one.
        lowest: Pitch, MIDI note number.
        highest: Pitch, not below `lowest`.

    Returns:
        The part with the largest n_inside² / n; of equals the first. Drums never.

    Raises:
        DataError: All parts are drums.
    """

    def fit(part: Part) -> float:
        pitches = part.piece.notes[:, 2]
        return np.sum((pitches >= lowest) & (pitches <= highest)) ** 2 / max(len(pitches), 1)

    return max(_without_drums(parts), key=fit)
