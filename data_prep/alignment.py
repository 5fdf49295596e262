"""Where an annotation belongs in its recording: offset, drift, and the onset of each note.

Where an annotated note begins, the sound should have an onset with the harmonics of its pitch, and go on with them.
Every offset and drift in reach is tried (a Hough transform of the evidence for each note), and the best one is the line
that most notes agree on. Then the onset of each note is looked for near that line, and a robust line through them is
the offset and the drift to a millisecond or so. The share of
the notes that are then heard at their pitch is the confidence.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neural_midi_synth.data_prep import onsets
from neural_midi_synth.files.audio import resample
from neural_midi_synth.midi.pieces import Piece, Voice

MAX_OFFSET = 2.5
"""The largest offset that is looked for, in seconds."""
MAX_DRIFT = 0.006
"""The largest drift that is looked for, in seconds a second."""
FEWEST_NOTES = 8
"""Annotations with fewer notes are not aligned: they would fit in too many places."""
LEAST_CONFIDENCE = 0.6
"""Below it an annotation should not be trusted to belong to the recording. Where it does, more than 0.95 of the notes
are heard; of another song's annotation 0.05 to 0.4, wherever it fits best."""
MAX_MOVE = 0.08
"""The farthest that a single note is moved to its onset, in seconds."""

_SURE = 0.35  # Share of a note's sound that must be new at its onset.
_CROWDED = 0.06  # Onsets nearer to each other than this (s) are not told apart.
# A sound that rises slowly also begins late: sampled and bowed notes are heard 6 to 12 ms after they are played, plucks
# at once. So much of the lag is the instrument's, and not an error of the annotation: by how much the mean attack is
# above _PLUCK, where that of each note counts up to _LONGEST_ATTACK, times _ATTACK_TO_LAG, up to _MOST_LAG. Found by
# trying on guitars, basses, violins and cellos whose annotations are exact; left are errors of 2 ms, bowed 5 ms.
_PLUCK, _LONGEST_ATTACK, _ATTACK_TO_LAG, _MOST_LAG = 0.0004, 0.015, 1.8, 0.0083
# Corrections smaller than this (s) are left off, and so are those that are about the lag of the instrument. Of a drift
# it is what it makes from the middle of the take to its ends.
_SMALLEST_OFFSET, _BESIDE_LAG, _SMALLEST_DRIFT = 0.006, 0.003, 0.004
_SOUNDING = 1.0  # A pitch is heard where it sounds by so many standard deviations stronger than others.
_BY_ATTACK = 0.5  # Onsets are found so many seconds too early or late at most, by deviation, a second of attack.
# Residuals of exact annotations have a median size of 1 ms (plucked) to 6 ms (bowed); ±30 ms of jitter makes it 15.
_LOOSE = 0.0085
_OUTLIER = 0.04  # A single note so far (s) off is moved in any take.
_MOVABLE, _SURE_OF_OUTLIER = 0.25, 0.5  # Sureness that it takes.


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """How an annotation lies in its recording.

    A time t of the annotation is to be heard at t + offset + drift · t.

    Attributes:
        offset: Seconds; positive where the sound is later than its annotation. 0 where there is nothing to correct.
        drift: Seconds a second; positive where the sound is slower. 0 where there is nothing to correct.
        residuals: `[n]` float64: how much later each note of `Piece.notes` begins than the others let expect, in
            seconds.
        sureness: `[n]` float64, 0..1: how clearly the onset of each note stands out; 0 where others are too near.
        moves: `[n]` float64: seconds that each note should be moved by beyond offset and drift; 0 for most notes of a
            take whose annotation is exact.
        confidence: 0..1: the share of the notes whose pitch is heard where they then are. See `LEAST_CONFIDENCE`.
        evidence: `[m]` float64: evidence for each offset from -MAX_OFFSET to MAX_OFFSET along the drift, a note's mean.
    """

    offset: float
    drift: float
    residuals: np.ndarray
    sureness: np.ndarray
    moves: np.ndarray
    confidence: float
    evidence: np.ndarray

    @property
    def scatter(self) -> float:
        """Median size of the residuals of sure notes, in seconds; 0 where none is sure."""
        return float(np.median(np.abs(self.residuals[self.is_sure]))) if self.is_sure.any() else 0.0

    @property
    def is_sure(self) -> np.ndarray:
        """Of which notes the onset stands out clearly, bool `[n]`."""
        return self.sureness > _SURE

    def limited_to(self, align: str) -> Alignment:
        """Returns what of it is corrected: all for "notes", all but single notes for "take", nothing for "off"."""
        if align == "notes":
            return self
        limited = dataclasses.replace(self, moves=np.zeros_like(self.moves))
        return limited if align == "take" else dataclasses.replace(limited, offset=0.0, drift=0.0)

    def told(self) -> str:
        """Returns in a few words what there is to correct; "" if nothing."""
        words = []
        if self.offset or self.drift:
            direction = "later" if self.offset >= 0 else "earlier"
            words.append(f"the sound is {abs(self.offset):.3f} s {direction} than annotated")
        if self.drift:
            words.append(f"{abs(self.drift):.3%} {'slower' if self.drift > 0 else 'faster'}")
        moved = np.abs(self.moves[self.moves != 0.0])
        if len(moved):
            words.append(f"{len(moved)} of {len(self.moves)} notes are off by {1e3 * np.median(moved):.0f} ms")
        return ", ".join(words)

    def heard(self, times: np.ndarray) -> np.ndarray:
        """Returns when times of the annotation are to be heard, both in seconds."""
        return times + self.offset + self.drift * times

    def annotated(self, times: np.ndarray) -> np.ndarray:
        """Returns when times of the recording are in the annotation, both in seconds: the reverse of `heard`."""
        return (times - self.offset) / (1.0 + self.drift)


def align(samples: np.ndarray, sample_rate: int, piece: Piece) -> Alignment:
    """Finds where an annotation belongs in its recording.

    Args:
        samples: float32 `[n]`, mono.
        sample_rate: Samples per second.
        piece: The annotation, of any number of voices.

    Returns:
        The alignment. With fewer than `FEWEST_NOTES` notes there is nothing to correct and the confidence is 1.
    """
    notes = piece.notes
    if len(notes) < FEWEST_NOTES:
        nothing = np.zeros(len(notes))
        return Alignment(0.0, 0.0, nothing, nothing, nothing, 1.0, np.zeros(0))
    samples = resample(samples, sample_rate, onsets.SAMPLE_RATE)
    activations = onsets.activations(samples, notes[:, 2])
    offset, drift, evidence = _rough_line(activations, notes)
    starts, gaps = notes[:, 0], _gaps(notes[:, 0])
    reach = np.clip(0.6 * gaps, 0.02, onsets.SEARCH_SECONDS)
    lag = 0.0  # Of the instrument.
    for _ in range(2):  # The second time from a better line, so that fewer notes are mistaken for their neighbours.
        line = offset + drift * starts
        found = onsets.note_onsets(samples, starts + line, notes[:, 2], reach)
        lags = line + found.lags
        sureness = np.where(gaps > _CROWDED, found.sureness, 0.0)
        sure = sureness > _SURE
        if sure.sum() < FEWEST_NOTES:  # All are strummed: one by one they are not told apart, but their middle is.
            sure = found.sureness > _SURE
        if sure.sum() < FEWEST_NOTES:
            break
        attacks = np.clip(found.attacks, 0.0, 2 * _LONGEST_ATTACK)
        attack = float(np.minimum(attacks[sure], _LONGEST_ATTACK).mean())
        lag = min(_ATTACK_TO_LAG * max(attack - _PLUCK, 0.0), _MOST_LAG)
        drift, by_attack = _robust_slopes(starts[sure], lags[sure], attacks[sure])
        offset = float(np.median(lags[sure] - drift * starts[sure])) - lag
        lags = lags - by_attack * (attacks - attacks[sure].mean()) - lag
    residuals = lags - (offset + drift * starts)
    if sure.any():
        residuals -= np.median(residuals[sure])
    offset, drift = _worth_correcting(offset, drift, starts, lag, _doubt(residuals[sure]))
    confidence = _share_heard(activations, notes, starts + offset + drift * starts)
    return Alignment(offset, drift, residuals, sureness, _moves(residuals, sureness), confidence, evidence)


def apply(piece: Piece, alignment: Alignment) -> Piece:
    """Moves an annotation to where it is heard.

    Control changes and pitch bends are moved along; those between two notes that are moved differently by what lies
    between. Notes of a voice keep their order, and those that did not overlap don't afterwards. A note that begins
    before the recording keeps its (negative) start; one that ends before it is left out.

    Args:
        piece: What was aligned.
        alignment: From `align`.

    Returns:
        The corrected piece, of the same voices.
    """
    moves = alignment.moves
    if not alignment.offset and not alignment.drift and not moves.any():
        return piece
    order = np.argsort(np.concatenate([voice.notes[:, 0] for voice in piece.voices]), kind="stable")
    of_voices = np.empty_like(moves)
    of_voices[order] = moves
    voices, first = [], 0
    for voice in piece.voices:
        voices.append(_moved(voice, alignment, of_voices[first : first + len(voice.notes)]))
        first += len(voice.notes)
    return Piece(tuple(voices))


def _moved(voice: Voice, alignment: Alignment, moves: np.ndarray) -> Voice:
    """Returns a voice with everything moved by the line, and each note's start by its own move too."""
    old = voice.notes[:, :2]
    lines, ends = alignment.heard(old[:, 0]), alignment.heard(old[:, 1])
    starts = lines + moves
    # Where notes would come nearer than to half their distance they stay, so that none gets in front of another.
    while (near := np.diff(starts) < 0.5 * np.diff(lines) - 1e-9).any():
        staying = np.append(near, False) | np.append(False, near)
        starts[staying] = lines[staying]
    touching = np.abs(old[1:, 0] - old[:-1, 1]) < 0.01
    apart = old[1:, 0] >= old[:-1, 1]
    ends[:-1] = np.where(touching, ends[:-1] + starts[1:] - lines[1:], ends[:-1])
    ends[:-1] = np.where(apart, np.minimum(ends[:-1], starts[1:]), ends[:-1])
    ends = np.maximum(ends, starts + 0.5 * np.minimum(old[:, 1] - old[:, 0], 0.02))
    moved = np.column_stack([starts, ends, voice.notes[:, 2:]])

    def along(times: np.ndarray) -> np.ndarray:
        moves_there = np.interp(times, old[:, 0], starts - lines) if len(old) else 0.0
        return alignment.heard(times) + moves_there

    control_changes, bends = voice.control_changes.copy(), voice.pitch_bends.copy()
    control_changes[:, 0], bends[:, 0] = along(control_changes[:, 0]), along(bends[:, 0])
    return Voice(moved[moved[:, 1] > 0.0], control_changes, bends)


def _worth_correcting(offset: float, drift: float, starts: np.ndarray, lag: float, doubt: float) -> tuple[float, float]:
    """Returns offset and drift, or 0 for what attacks, chance or the instrument's lag (s) may make of an exact take."""
    middle, half = 0.5 * (starts[0] + starts[-1]), 0.5 * (starts[-1] - starts[0])
    # The ends of a line are known less well than its middle, by the square root of three.
    if abs(drift) * half < max(_SMALLEST_DRIFT + lag, np.sqrt(3.0) * doubt):
        offset, drift = offset + drift * middle, 0.0
    if not drift and abs(offset) < max(_SMALLEST_OFFSET, lag + _BESIDE_LAG, doubt):
        offset = 0.0
    return float(offset), float(drift)


def _share_heard(activations: onsets.Activations, notes: np.ndarray, starts: np.ndarray) -> float:
    """Returns the share of notes whose pitch is heard after their attack, where they begin at `starts` (s)."""
    lasting = np.clip(notes[:, 1] - notes[:, 0], 0.0, 0.3)
    standing = activations.standing(starts + np.minimum(0.05, 0.5 * lasting), starts + lasting, notes[:, 2])
    return float(np.mean(standing > _SOUNDING))


def _moves(residuals: np.ndarray, sureness: np.ndarray) -> np.ndarray:
    """Decides which notes are moved: where the annotation is loose all with a clear onset, else very clear outliers."""
    sizes, sure = np.abs(residuals), sureness > _SURE
    loose = sure.any() and np.median(sizes[sure]) > _LOOSE
    moved = sureness > _MOVABLE if loose else (sureness > _SURE_OF_OUTLIER) & (sizes > _OUTLIER)
    return np.where(moved & (sizes <= MAX_MOVE), residuals, 0.0)


def _doubt(residuals: np.ndarray) -> float:
    """Returns three standard errors of the middle of a line with these residuals, of notes in their order, in seconds.

    Notes of a phrase are played in one style, and styles differ in how late they are heard. So both the notes and the
    phrases, taken to be of eight notes, are looked at as a sample, and the larger error counts.
    """
    if len(residuals) < FEWEST_NOTES:
        return 3.0 * onsets.HOP_SECONDS
    phrases = np.array([np.median(phrase) for phrase in np.array_split(residuals, len(residuals) // 8)])
    errors = [1.5 * np.median(np.abs(sample)) / np.sqrt(len(sample)) for sample in (residuals, phrases)]
    return 3.0 * 1.25 * float(max(errors))  # The median's error is 1.25 times the mean's.


def _gaps(starts: np.ndarray) -> np.ndarray:
    """Returns the seconds from each start to the nearest other one."""
    gaps = np.concatenate([[np.inf], np.diff(starts), [np.inf]])
    return np.minimum(gaps[:-1], gaps[1:])


def _robust_slopes(times: np.ndarray, lags: np.ndarray, attacks: np.ndarray) -> tuple[float, float]:
    """Fits lag = offset + drift · time + by_attack · (attack - mean attack) with the least absolute deviations.

    Notes that rise slowly are found a little earlier or later than plucked ones; without the third term a take that
    has more of them at its end would seem to drift.

    Returns:
        Drift and by_attack.
    """
    columns = np.column_stack([np.ones_like(times), times, attacks - attacks.mean()])
    line = np.array([np.median(lags), 0.0, 0.0])
    for _ in range(30):  # Iteratively reweighted least squares; 1 ms is as good as 0.
        sizes = np.maximum(np.abs(lags - columns @ line), 1e-3)
        weighted = columns.T / sizes
        # A Gaussian prior, since in a loose annotation of plucks the third term would follow the looseness.
        prior = np.diag([0.0, 0.0, np.median(sizes) / _BY_ATTACK**2])
        line = np.linalg.lstsq(weighted @ columns + prior, weighted @ lags, rcond=None)[0]
    return float(line[1]), float(line[2])


def _rough_line(activations: onsets.Activations, notes: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Tries every offset and drift.

    Returns:
        Offset, drift, and the evidence for each offset along this drift, a note's mean.
    """
    hop = onsets.HOP_SECONDS
    duration = max(float(notes[-1, 0]), 1.0)
    n_lags, farthest = round(MAX_OFFSET / hop), int(np.ceil(MAX_DRIFT * duration / hop))
    length = max(5.0, duration / 240)  # Of a segment, s, within which drift is neglected.
    segments = (np.maximum(notes[:, 0], 0.0) / length).astype(int)
    evidence = _evidence(activations, notes, segments, n_lags + farthest)
    centres = (np.arange(len(evidence)) + 0.5) * length
    drifts = np.linspace(-MAX_DRIFT, MAX_DRIFT, 2 * farthest + 1)
    rows = np.arange(len(evidence))[:, np.newaxis]
    lags = np.arange(-n_lags, n_lags + 1)
    totals = np.empty([len(drifts), len(lags)], np.float32)
    for i, drift in enumerate(drifts):
        shifts = np.clip(np.round(drift * centres / hop).astype(int), -farthest, farthest)
        totals[i] = evidence[rows, n_lags + farthest + shifts[:, np.newaxis] + lags].sum(axis=0)
    best_drift, best = np.unravel_index(np.argmax(totals), totals.shape)
    along = totals[best_drift] / np.float32(len(notes))
    return float(lags[best] * hop), float(drifts[best_drift]), along


def _evidence(activations: onsets.Activations, notes: np.ndarray, segments: np.ndarray, farthest: int) -> np.ndarray:
    """Returns how much speaks for each lag of the notes of each segment, float32 `[n_segments, 2 · farthest + 1]`."""
    hop, held = onsets.HOP_SECONDS, 0.4  # What is heard after that (s) is not looked at: it may have died away.
    deviation = activations.onsets.std(axis=1, keepdims=True) + 1e-9
    rises = np.minimum((activations.onsets - activations.onsets.mean(axis=1, keepdims=True)) / deviation, 4.0)
    standings = [(each.mean(), each.std() + 1e-9) for each in map(np.diff, activations.presence)]  # One row in memory.
    usual, spread = np.array(standings).T
    last = rises.shape[1] - 1
    evidence = np.zeros([segments[-1] + 1, 2 * farthest + 1], np.float32)
    for segment in np.unique(segments):
        mine = notes[segments == segment]
        rows = activations.row_of(mine[:, 2])[:, np.newaxis]
        frames = np.round(mine[:, :1] / hop).astype(int) + np.arange(-farthest, farthest + 1)
        lengths = np.maximum(np.minimum(mine[:, 1] - mine[:, 0], held) / hop, 3.0).astype(int)[:, np.newaxis]
        inside = np.clip(frames, 0, last)
        onset = np.where(frames == inside, rises[rows, inside], 0.0)
        until = np.clip(frames + lengths, 0, last)
        sounding = (activations.presence[rows, until] - activations.presence[rows, inside]) / lengths
        sounding = np.where(until - inside == lengths, (sounding - usual[rows]) / spread[rows], 0.0)
        evidence[segment] = (onset + sounding).sum(axis=0)
    return evidence
