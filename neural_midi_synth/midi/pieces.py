"""What is played: voices, each a monophonic line of notes with its controls, and pieces made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from neural_midi_synth.errors import PolyphonyError


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """One monophonic line of notes and the controls that shape it.

    Values are those of MIDI, unscaled. Times are seconds and may be negative in a window, where they tell what was in
    force at its start. Where notes overlap, the newest wins.

    Attributes:
        notes: `[n, 4]` float64: start (s), end (s), pitch (MIDI note number), velocity (1..127); sorted by start.
        control_changes: `[m, 3]` float64: time (s), controller number, value (0..127); sorted by time.
        pitch_bends: `[k, 2]` float64: time (s), semitones; sorted by time.
    """

    notes: np.ndarray
    control_changes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0, 3]))
    pitch_bends: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0, 2]))

    def __post_init__(self) -> None:
        for name, n_columns in (("notes", 4), ("control_changes", 3), ("pitch_bends", 2)):
            events = np.asarray(getattr(self, name), np.float64).reshape([-1, n_columns])
            events = events[np.argsort(events[:, 0], kind="stable")]
            object.__setattr__(self, name, events)

    @property
    def duration(self) -> float:
        """End of the last note in seconds; 0 without notes."""
        return float(self.notes[:, 1].max()) if len(self.notes) else 0.0

    def window(self, start: float, end: float) -> Voice:
        """Returns all that matters to the sound in [start, end), with times relative to `start`.

        Notes keep their full length, so one that began before the window starts at a negative time. When no note
        lasts at `start`, the last note that ended before it is there too, since its pitch is held. The last control
        change of each number and the last pitch bend at or before `start` keep their (negative) times.

        Args:
            start: Seconds.
            end: Seconds, not before `start`.

        Returns:
            The voice of the window.
        """
        starts, ends = self.notes[:, 0], self.notes[:, 1]
        inside = (starts < end) & (ends > start)
        if not np.any(inside & (starts <= start)):
            before = np.flatnonzero(ends <= start)
            inside[before[-1:]] = True
        notes = self.notes[inside] - [start, start, 0.0, 0.0]

        numbers = self.control_changes[:, 1]
        kept = _inside_or_in_force(self.control_changes[:, 0], start, end, numbers)
        control_changes = self.control_changes[kept] - [start, 0.0, 0.0]

        times = self.pitch_bends[:, 0]
        kept = _inside_or_in_force(times, start, end, np.zeros_like(times))
        return Voice(notes, control_changes, self.pitch_bends[kept] - [start, 0.0])

    def transpose(self, semitones: float) -> Voice:
        """Returns the voice with every pitch moved.

        Args:
            semitones: May be negative or fractional.

        Returns:
            The moved voice. Pitches are not limited to 0..127.
        """
        return Voice(self.notes + [0.0, 0.0, semitones, 0.0], self.control_changes, self.pitch_bends)


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """What is played: one or more voices with the controls that shape them.

    Attributes:
        voices: At least one; some may be without notes.
    """

    voices: tuple[Voice, ...]

    def __post_init__(self) -> None:
        voices = tuple(self.voices)
        if not voices:
            raise ValueError("A piece needs at least one voice, which may be without notes.")
        for voice in voices:
            if not isinstance(voice, Voice):
                raise TypeError(f"A piece is made of voices, not of {type(voice).__name__}.")
        object.__setattr__(self, "voices", voices)

    @classmethod
    def of(cls, music: Piece | Voice) -> Piece:
        """Returns a piece as it is, and a voice as a piece of one voice."""
        return music if isinstance(music, Piece) else cls((music,))

    @property
    def duration(self) -> float:
        """End of the last note in seconds; 0 without notes."""
        return max(voice.duration for voice in self.voices)

    @property
    def notes(self) -> np.ndarray:
        """Notes of all voices, `[n, 4]` float64 as those of a voice, sorted by start, then by voice."""
        notes = np.concatenate([voice.notes for voice in self.voices])
        return notes[np.argsort(notes[:, 0], kind="stable")]

    def window(self, start: float, end: float) -> Piece:
        """Returns the window of each voice, in the same order; see `Voice.window`."""
        return Piece(tuple(voice.window(start, end) for voice in self.voices))

    def transpose(self, semitones: float) -> Piece:
        """Returns the piece with every pitch moved; see `Voice.transpose`."""
        return Piece(tuple(voice.transpose(semitones) for voice in self.voices))


def check_voices(piece: Piece, most: int, name: str) -> None:
    """Refuses a piece of more voices than an instrument is trained on.

    Args:
        piece: The annotation of a take.
        most: The most voices allowed, from 1.
        name: Of the annotation's file, for the message.

    Raises:
        PolyphonyError: There are more. It tells where too many notes overlap first, and which two of them.
    """
    if len(piece.voices) <= most:
        return
    remedy = "Choose one part with --track or --midi_channel, or train on "
    remedy += "voices (--gin_file models/guitar_strings.gin)." if most == 1 else "more voices (MidiAudioConfig.voices)."
    crowd = _first_overlap(piece, most + 1)
    if crowd is None:
        raise PolyphonyError(f"{name}: has {len(piece.voices)} voices, more than the {most} to be trained on. {remedy}")
    start, older, newer = crowd
    how_many = "polyphonic" if most == 1 else f"of more than {most} voices"
    raise PolyphonyError(
        f"{name}: is {how_many}: notes {older:.0f} and {newer:.0f} overlap from {start:.2f} s on. {remedy}"
    )


def _first_overlap(piece: Piece, n_notes: int) -> tuple[float, float, float] | None:
    """Returns the first time when `n_notes` notes overlap, the pitch of the oldest and that of the newest of them."""
    lasting: list[np.ndarray] = []
    for note in piece.notes:
        lasting = [older for older in lasting if older[1] > note[0]]
        lasting.append(note)
        if len(lasting) >= n_notes:
            return float(note[0]), float(lasting[0][2]), float(note[2])
    return None


def check_midi_pitches(piece: Piece) -> None:
    """Raises ValueError if a pitch is not a MIDI note number: a whole number from 0 to 127."""
    pitches = piece.notes[:, 2]
    if np.any((pitches != np.round(pitches)) | (pitches < 0) | (pitches > 127)):
        raise ValueError("MIDI takes whole pitches from 0 to 127; express others as pitch bends.")


def _inside_or_in_force(times: np.ndarray, start: float, end: float, kinds: np.ndarray) -> np.ndarray:
    """Marks the events in (start, end) and the last one of each kind at or before `start`."""
    kept = (times > start) & (times < end)
    for kind in np.unique(kinds):
        of_kind = np.flatnonzero(kinds == kind)
        last = in_force(times[of_kind], start)
        if last >= 0:
            kept[of_kind[last]] = True
    return kept


def in_force(times: npt.ArrayLike, time: npt.ArrayLike) -> Any:
    """Finds which of several events is in force: the last one that is not after a time.

    Args:
        times: Of the events, in order, in whatever unit; `[n]`.
        time: One time, or an array of them.

    Returns:
        Index of the event for each time; -1 where all events come after it.
    """
    return np.searchsorted(times, time, side="right") - 1
