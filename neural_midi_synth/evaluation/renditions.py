"""The notes of examples with their sound, and other renditions of the same notes by the same player."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from neural_midi_synth.evaluation.examples import Example, data_set_at, piece_of
from neural_midi_synth.evaluation.note_metrics import HELD_SECONDS, LEAD_SECONDS
from neural_midi_synth.midi.pieces import Piece, Voice, in_force

# Two notes are the same note played twice if they have the same pitch, others that sound with them have the same
# pitches, both set in on a silent string or both on one that sounds, and they differ by no more than this. Units:
# velocity and values of styles of 127, octaves of length. Notes with a held part may differ in length by more, since
# clips are cut to one length before they are compared.
NEAR_VELOCITY = 8.0
NEAR_STYLE = 16.0
NEAR_LENGTH = 0.6

_RINGING = 0.05  # s: so long a string may still sound after a note.
_EARLIEST = 0.03  # s: notes that begin a clip, or an excerpt, may have been cut.
_SHORTEST = 0.03  # s: what overlaps less does not sound together.


@dataclasses.dataclass(frozen=True, eq=False)
class Notes:
    """Notes of a piece, by what a listener would call them the same or not.

    Attributes:
        times: `[n, 2]`, start and end in seconds; notes that would end after the sound does end with it.
        pitches: `[n]`, MIDI note number as bent at the onset.
        velocities: `[n]`, 1 to 127.
        styles: `[n, m]`, values of the instrument's styles at the onset, 0 to 127.
        together: Pitches of the notes of other voices that sound meanwhile, in order, a tuple for each note.
        follows: `[n]` bool: whether a note of the same voice ended less than 50 ms before, or lasts still.
        steady: `[n]` bool: whether the pitch is not bent while the note lasts.
    """

    times: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    styles: np.ndarray
    together: tuple[tuple[int, ...], ...]
    follows: np.ndarray
    steady: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    @property
    def lengths(self) -> np.ndarray:
        """Seconds, `[n]`."""
        return self.times[:, 1] - self.times[:, 0]

    @property
    def lone_pitches(self) -> np.ndarray:
        """Pitches whose partials can be told: NaN for bent notes and those of chords, `[n]`."""
        alone = np.array([not others for others in self.together], bool)
        return np.where(alone & self.steady, self.pitches, np.nan)

    def clips(self, samples: np.ndarray, sample_rate: int) -> list[np.ndarray]:
        """Cuts the sound of each note, from `LEAD_SECONDS` before its onset to its end."""
        lead = round(LEAD_SECONDS * sample_rate)
        edges = [(int(start * sample_rate) - lead, int(end * sample_rate)) for start, end in self.times]
        return [samples[first:last] for first, last in edges]


def notes_of(piece: Piece, seconds: float, styles: Mapping[str, int]) -> Notes:
    """Finds the notes of a piece that begin in its sound, 30 ms after its beginning at the earliest.

    Args:
        piece: What is played.
        seconds: Length of the sound.
        styles: Style name → control change number.

    Returns:
        The notes sorted by start, none shorter than 30 ms.
    """
    rows = [_of_voice(piece, index, seconds, list(styles.values())) for index in range(len(piece.voices))]
    rows = sorted((row for of_voice in rows for row in of_voice), key=lambda row: row[0][0])
    times, pitches, velocities, values, together, follows, steady = zip(*rows) if rows else ((),) * 7
    return Notes(
        np.array(times).reshape(-1, 2),
        np.array(pitches, np.float64),
        np.array(velocities, np.float64),
        np.array(values, np.float64).reshape(len(rows), len(styles)),
        tuple(together),
        np.array(follows, bool),
        np.array(steady, bool),
    )


def _of_voice(piece: Piece, index: int, seconds: float, numbers: Sequence[int]) -> list[tuple]:
    """Returns a row of all attributes for each note of a voice."""
    voice, rows = piece.voices[index], []
    others = [other.notes for i, other in enumerate(piece.voices) if i != index]
    others = np.concatenate(others) if others else np.zeros([0, 4])
    before = -np.inf
    for start, end, pitch, velocity in voice.notes:
        follows, before = start - before < _RINGING, max(before, end)
        end = min(end, seconds)
        if start < _EARLIEST or end - start < _SHORTEST:
            continue
        meanwhile = np.minimum(others[:, 1], end) - np.maximum(others[:, 0], start) > _SHORTEST
        bend, steady = _bend(voice, start, end)
        values = [_value(voice, number, start) for number in numbers]
        sounding = tuple(sorted(np.round(others[meanwhile, 2]).astype(int).tolist()))
        rows.append(((start, end), pitch + bend, velocity, values, sounding, follows, steady))
    return rows


def _bend(voice: Voice, start: float, end: float) -> tuple[float, bool]:
    """Returns the bend at the onset of a note in semitones, and whether it stays the same."""
    times, bends = voice.pitch_bends[:, 0], voice.pitch_bends[:, 1]
    held = in_force(times, start)
    bend = float(bends[held]) if held >= 0 else 0.0
    inside = bends[(times > start) & (times < end)]
    return bend, bool(np.all(np.abs(inside - bend) < 0.05))


def _value(voice: Voice, number: int, time: float) -> float:
    """Returns the value of a control change at the onset of a note; 0 where none is in force."""
    changes = voice.control_changes[voice.control_changes[:, 1] == number]
    held = in_force(changes[:, 0], time + 1e-3)
    return float(changes[held, 2]) if held >= 0 else 0.0


@dataclasses.dataclass(eq=False)
class Renditions:
    """The nearest other rendition of each of n notes, as far as one has been found.

    Attributes:
        notes: The notes.
        clips: Of each note another rendition, or None.
        distances: How far that differs, without a unit; infinite where there is none.
    """

    notes: Notes
    clips: list[np.ndarray | None] = dataclasses.field(default_factory=list)
    distances: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.clips = [None] * len(self.notes)
        self.distances = np.full(len(self.notes), np.inf)

    def look_in(self, found: Notes, samples: np.ndarray, sample_rate: int, is_own: bool = False) -> None:
        """Takes from other notes those that are nearer than what has been found before.

        Args:
            found: Other notes.
            samples: Their sound.
            sample_rate: Samples per second.
            is_own: Whether these are the notes themselves, of which none is another rendition of itself.
        """
        if not len(found) or not len(self.notes):
            return
        distances = differences(self.notes, found)
        if is_own:
            np.fill_diagonal(distances, np.inf)
        nearest = distances.argmin(axis=1)
        clips = found.clips(samples, sample_rate)
        for index in np.flatnonzero(distances[np.arange(len(nearest)), nearest] < self.distances):
            self.clips[index] = np.array(clips[nearest[index]], np.float32)
            self.distances[index] = distances[index, nearest[index]]


def differences(notes: Notes, others: Notes) -> np.ndarray:
    """Returns how much each of n notes differs from each of m others, `[n, m]`; infinite where it is another note."""
    octaves = np.abs(np.log2(notes.lengths[:, np.newaxis] / others.lengths))
    held = (notes.lengths >= HELD_SECONDS)[:, np.newaxis] & (others.lengths >= HELD_SECONDS)
    apart = [
        np.abs(notes.velocities[:, np.newaxis] - others.velocities) / NEAR_VELOCITY,
        np.where(held, np.minimum(octaves, NEAR_LENGTH), octaves) / NEAR_LENGTH,
        *(np.abs(ours[:, np.newaxis] - theirs) / NEAR_STYLE for ours, theirs in zip(notes.styles.T, others.styles.T)),
    ]
    same = np.abs(notes.pitches[:, np.newaxis] - others.pitches) < 0.05
    same &= notes.follows[:, np.newaxis] == others.follows
    same &= notes.steady[:, np.newaxis] & others.steady
    same &= np.array([[ours == theirs for theirs in others.together] for ours in notes.together]).reshape(same.shape)
    return np.where(same & np.all(np.array(apart) <= 1.0, axis=0), np.sum(apart, axis=0), np.inf)


def renditions_in(
    folder: str | os.PathLike, notes: Sequence[Notes], sample_rate: int, styles: Mapping[str, int]
) -> list[Renditions]:
    """Looks in the training split of a data set for other renditions of notes.

    Args:
        folder: Of the built data set.
        notes: Of several examples.
        sample_rate: Of the instrument.
        styles: Style name → control change number.

    Returns:
        Renditions of the notes of each example.

    Raises:
        DataError: There is no such data set, or it is of another sample rate.
    """
    import tensorflow_datasets as tfds

    builder = data_set_at(folder, sample_rate)
    renditions = [Renditions(each) for each in notes]
    for window in tfds.as_numpy(builder.as_dataset(split="train")):
        if window["pitch_shift"]:
            continue
        samples = window["audio"][: window["n_samples"]]
        found = notes_of(piece_of([window]), len(samples) / sample_rate, styles)
        for each in renditions:
            each.look_in(found, samples, sample_rate)
    return renditions


def renditions_among(examples: Sequence[Example], notes: Sequence[Notes], sample_rate: int) -> list[Renditions]:
    """Looks for other renditions of notes in the recordings of the examples themselves.

    Args:
        examples: With recordings.
        notes: Of each of them.
        sample_rate: Samples per second.

    Returns:
        Renditions of the notes of each example.
    """
    renditions = [Renditions(each) for each in notes]
    for index, each in enumerate(renditions):
        for other, (example, found) in enumerate(zip(examples, notes, strict=True)):
            each.look_in(found, example.reference, sample_rate, is_own=index == other)
    return renditions
