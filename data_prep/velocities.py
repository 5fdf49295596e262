"""Velocities from the sound: how loud each note is at its attack, freed from what its pitch and style make of it.

Annotations made by hand or by a transcriber often have one velocity throughout, or velocities that have nothing to do
with the sound; an instrument trained on them can't be played with dynamics. Here the level of each attack is measured
(`measure`), and what pitch and styles explain of it over all takes together is taken off; what is left is how hard
each note is played (`infer`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from neural_midi_synth.midi.pieces import Piece, Voice, in_force

FEWEST_NOTES = 16
"""With fewer notes nothing is told about velocities."""
LEAST_CORRELATION = 0.25
"""Annotated velocities whose rank correlation with the loudness of the notes is below this carry no information."""
EQUALLY_LOUD = 0.75
"""Notes are equally loud where they differ by less than so many dB (median)."""
MIDDLE_VELOCITY = 80
"""What the note of middle loudness gets."""
DECIBELS_PER_DECADE = 40.0
"""Of velocity, as the Downloadable Sounds standard and most samplers have it: half the velocity is 12 dB less."""

_WINDOW, _STEP, _ATTACK = 0.02, 0.005, 0.12  # s: level of 20 ms, every 5 ms, from the onset on
_SHORTEST = 0.03  # s: that much of a note is looked at even if the next one begins before.
_KNOTS = 4.0  # Semitones between two pitches whose levels are learnt; those between are interpolated.
_PRIOR_NOTES = 10.0  # A pitch or a style counts for less than its notes say by so many notes that say nothing.
_PHRASES = 8.0  # The loudness of a take's notes is as varied as if there were so many independent ones.
_SILENCE = 1e-10  # Mean square


@dataclasses.dataclass(frozen=True, eq=False)
class Attacks:
    """What is measured of the notes of a take, in the order of its voices and of the notes in each.

    Attributes:
        levels: `[n]` float64: level of the attack, dB of full scale.
        pitches: `[n]` float64: MIDI note numbers.
        velocities: `[n]` float64: as annotated, 1..127.
        styles: By controller number, `[n]` float64: its value at the onset, 0..1.
    """

    levels: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    styles: dict[int, np.ndarray]


def measure(samples: np.ndarray, sample_rate: int, piece: Piece) -> Attacks:
    """Measures how loud the attacks of the notes of a take are.

    The level of an attack is that of the loudest 20 ms in its first 0.12 s, or until the next note begins. Where other
    notes last, what sounded before is taken off.

    Args:
        samples: float32 `[n]`, mono.
        sample_rate: Samples per second.
        piece: The annotation, aligned.
    """
    starts_of_all = np.sort(piece.notes[:, 0])
    numbers = sorted({int(number) for voice in piece.voices for number in voice.control_changes[:, 1]})
    levels, styles = [], {number: [] for number in numbers}
    for voice in piece.voices:
        starts = voice.notes[:, 0]
        following = np.append(starts_of_all, np.inf)[np.searchsorted(starts_of_all, starts + 1e-3)]
        levels.append(_levels(samples, sample_rate, starts, following))
        for number in numbers:
            changes = voice.control_changes[voice.control_changes[:, 1] == number]
            values = np.append(changes[:, 2], 0.0)[in_force(changes[:, 0], starts + 1e-3)]
            styles[number].append(values / 127.0)
    notes = np.concatenate([voice.notes for voice in piece.voices])
    return Attacks(
        np.concatenate(levels),
        notes[:, 2],
        notes[:, 3],
        {number: np.concatenate(values) for number, values in styles.items()},
    )


def unexplained(takes: Sequence[Attacks], with_velocities: bool = False) -> list[np.ndarray]:
    """Takes off the levels of attacks what pitch and styles explain.

    A level is explained as a curve of the pitch, a curve of the value of each style, and what styles do together, by
    robust ridge regression over the notes of all takes.

    Args:
        takes: From `measure`, of one instrument.
        with_velocities: Whether what the annotated velocities explain is taken off, too.

    Returns:
        For each take float64 `[n]`: by how many dB each note is louder than others of its pitch and style.
    """
    counts = [len(take.levels) for take in takes]
    if not sum(counts):
        return [np.zeros(0) for _ in takes]
    levels = np.concatenate([take.levels for take in takes])
    columns = np.concatenate(_columns(takes), axis=1)
    if with_velocities:
        struck = np.concatenate([take.velocities for take in takes])
        columns = np.column_stack([columns, np.log(np.maximum(struck, 1.0))])
    columns = columns - columns.mean(axis=0)
    weights = np.ones_like(levels)
    for _ in range(5):  # A note that is not to be heard at all should not count for much.
        middle = np.average(levels, weights=weights)
        weighted = columns * weights[:, np.newaxis]
        gram = weighted.T @ columns + _PRIOR_NOTES * np.eye(columns.shape[1])
        left = levels - middle - columns @ np.linalg.solve(gram, weighted.T @ (levels - middle))
        weights = 1.0 / np.maximum(np.abs(left) / max(2.0 * np.median(np.abs(left)), 1.0), 1.0)
    return np.split(left, np.cumsum(counts)[:-1])


def loudness(takes: Sequence[Attacks]) -> list[np.ndarray]:
    """Tells how loud notes are, freed from what pitch and styles make of it.

    Takes that are on the whole louder than others by more than what is played in them may explain were recorded so, and
    are levelled.

    Args:
        takes: From `measure`, of one instrument.

    Returns:
        As `unexplained`.
    """
    of_takes = unexplained(takes)
    left = np.concatenate(of_takes) if of_takes else np.zeros(0)
    if not len(left):
        return of_takes
    middles = np.array([np.median(each) if len(each) else 0.0 for each in of_takes])
    by_chance = np.var(left) / _PHRASES
    believed = max(np.var(middles) - by_chance, 0.0) / max(np.var(middles), 1e-9)
    return [each - believed * middle for each, middle in zip(of_takes, middles, strict=True)]


def carry_information(takes: Sequence[Attacks]) -> bool:
    """Tells whether annotated velocities say something about how loud the notes are.

    Args:
        takes: From `measure`, of one instrument.

    Returns:
        False where notes are not equally loud, but the velocities are all the same, or have a rank correlation
        (Spearman's) below `LEAST_CORRELATION` with the levels of the notes, and with what pitch and style leave of
        them. True with fewer than `FEWEST_NOTES` notes: who knows.
    """
    velocities = np.concatenate([take.velocities for take in takes]) if takes else np.zeros(0)
    if len(velocities) < FEWEST_NOTES:
        return True
    louder = np.concatenate(loudness(takes))
    if np.median(np.abs(louder - np.median(louder))) < EQUALLY_LOUD:
        return True
    levels = np.concatenate([take.levels for take in takes])
    return max(correlation(velocities, louder), correlation(velocities, levels)) >= LEAST_CORRELATION


def correlation(velocities: np.ndarray, loudnesses: np.ndarray) -> float:
    """Returns the rank correlation (Spearman's) of two `[n]` arrays, -1..1; 0 where one of them is constant."""
    from scipy import stats

    ranks = [stats.rankdata(values) for values in (velocities, loudnesses)]
    if any(np.ptp(each) == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def infer(takes: Sequence[Attacks]) -> list[np.ndarray]:
    """Tells from the sound how hard notes are played.

    Args:
        takes: From `measure`, of one instrument. The more, the better pitch and style are told from dynamics.

    Returns:
        For each take float64 `[n]`: velocities, whole, 1..127. The note of middle loudness has `MIDDLE_VELOCITY`, and
        one that is 12 dB louder twice as much.
    """
    louder = loudness(takes)
    middle = np.median(np.concatenate(louder)) if sum(map(len, louder)) else 0.0
    return [
        np.clip(np.round(MIDDLE_VELOCITY * 10.0 ** ((each - middle) / DECIBELS_PER_DECADE)), 1, 127) for each in louder
    ]


def apply(piece: Piece, velocities: np.ndarray) -> Piece:
    """Returns a piece with other velocities, `[n]` in the order of its voices and of the notes in each."""
    voices, first = [], 0
    for voice in piece.voices:
        notes = voice.notes.copy()
        notes[:, 3] = velocities[first : first + len(notes)]
        voices.append(Voice(notes, voice.control_changes, voice.pitch_bends))
        first += len(notes)
    return Piece(tuple(voices))


def _levels(samples: np.ndarray, sample_rate: int, starts: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Returns the level of the attack of each note in dB; `following` is when the next note begins, in any voice."""
    window, step = max(round(_WINDOW * sample_rate), 1), max(round(_STEP * sample_rate), 1)
    levels = np.empty(len(starts))
    for i, (start, end) in enumerate(zip(starts, following, strict=True)):
        first = round(start * sample_rate)
        seconds = min(max(end - start, _SHORTEST), _ATTACK + _WINDOW)
        last = min(first + round(seconds * sample_rate), len(samples))
        power = _powers(samples, max(first, 0), last, window, step)
        before = _powers(samples, max(first - window - step, 0), max(first - step, 0), window, step)
        loudest = power.max(initial=_SILENCE)
        levels[i] = 10.0 * np.log10(max(loudest - before.min(initial=loudest) * 0.5, 0.1 * loudest, _SILENCE))
    return levels


def _powers(samples: np.ndarray, first: int, last: int, window: int, step: int) -> np.ndarray:
    """Returns the mean square of each window that lies between two samples."""
    if min(last, len(samples)) - first < window:
        return np.zeros(0)
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples[first:last], dtype=np.float64))])
    ends = np.arange(window, len(sums), step)
    return (sums[ends] - sums[ends - window]) / window


def _columns(takes: Sequence[Attacks]) -> list[np.ndarray]:
    """Returns what may explain a level: columns `[n, ...]` for pitch, for each style, and for each two styles."""
    pitches = np.concatenate([take.pitches for take in takes])
    knots = np.arange(np.floor(pitches.min()), pitches.max() + _KNOTS, _KNOTS)
    columns = [np.maximum(1.0 - np.abs(pitches[:, np.newaxis] - knots) / _KNOTS, 0.0)]
    styles = []
    for number in sorted({number for take in takes for number in take.styles}):
        style = np.concatenate([take.styles.get(number, np.zeros(len(take.levels))) for take in takes])
        if np.ptp(style) > 0.0:
            styles.append((style - style.mean())[:, np.newaxis])
    columns += [one * other for i, one in enumerate(styles) for other in styles[: i + 1]]
    return [*columns, *styles]
