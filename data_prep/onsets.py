"""Where notes begin in a sound: how strongly each pitch sounds and sets in over time, and the moment of each onset.

The first (`activations`) is coarse, knows every pitch at every time, and finds where an annotation belongs. The second
(`note_onsets`) is fine, looks at the surroundings of each note alone, and finds its onset to a millisecond or so.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16000
"""What is worked at, whatever the sample rate of the sound."""
HOP_SECONDS = 0.01
"""From one frame of the activations to the next. Frame number i is centred on i · HOP_SECONDS."""
SEARCH_SECONDS = 0.1
"""How far from where it is expected an onset is looked for."""

_LOWEST_PITCH, _HIGHEST_PITCH = 21, 108
_FRAME = 2048  # 128 ms: harmonics of an E1 are 5 bins apart.
_N_HARMONICS = 8
_RISE_FRAMES = 3  # An onset is a rise from 30 ms before a moment to 30 ms after it.
_BLOCK = 4096  # Frames that are analysed at once, so that hours of sound fit in memory.

_FINE_FRAME = 512  # 32 ms
_FINE_HOP = 32  # 2 ms
_FINE_HARMONICS = 12
_NOTES_AT_ONCE = 32
_RISE_SECONDS = 0.05
_PRIOR_SECONDS = 0.06  # How far an onset may well be from where it is expected: one standard deviation.
_MARGIN_SECONDS = 0.12
# A rise is followed through these shares of its height. An ideal step, smeared by the window, takes the times below
# from the first to the second and to the last of them, and has the first so long before its onset.
_TRACE, _RISEN, _HALF = 0.05, 0.2, 0.5
_STEP_TO_RISEN, _STEP_TO_HALF, _TRACE_OF_STEP = 0.0042, 0.0095, 0.0099


@dataclasses.dataclass(frozen=True)
class Activations:
    """How strongly pitches sound, and set in, over time.

    Attributes:
        onsets: `[n_pitches, n_frames]` float32: rise of the pitch's harmonics, 0 or above.
        presence: `[n_pitches, n_frames + 1]` float64: sum up to a frame of by how many standard deviations the
            pitch sounds stronger than all pitches of the frame do in the mean.
        pitches: `[n_pitches]` int: MIDI note numbers of the rows.
    """

    onsets: np.ndarray
    presence: np.ndarray
    pitches: np.ndarray

    def row_of(self, pitches: np.ndarray) -> np.ndarray:
        """Returns the row of each of the pitches that were asked for, `[m]` int."""
        return np.searchsorted(self.pitches, _within(pitches))

    def standing(self, starts: np.ndarray, ends: np.ndarray, pitches: np.ndarray) -> np.ndarray:
        """Returns how many standard deviations pitches sound stronger than others, `[m]`, -inf outside the sound.

        Args:
            starts: `[m]`: from when (s).
            ends: `[m]`: to when (s).
            pitches: `[m]`: MIDI note numbers, of those that were asked for.
        """
        last = self.presence.shape[1] - 1
        first = np.round(starts / HOP_SECONDS).astype(int)
        until = np.clip(np.round(ends / HOP_SECONDS).astype(int), first + 1, last)
        inside = (first >= 0) & (until > first)
        first, until, rows = np.clip(first, 0, last - 1), np.maximum(until, 1), self.row_of(pitches)
        mean = (self.presence[rows, until] - self.presence[rows, first]) / np.maximum(until - first, 1)
        return np.where(inside, mean, -np.inf)


def activations(samples: np.ndarray, pitches: np.ndarray) -> Activations:
    """Measures how strongly pitches sound and set in.

    Args:
        samples: float32 `[n]` at `SAMPLE_RATE`.
        pitches: MIDI note numbers, in any order.
    """
    from scipy import fft

    hop = round(HOP_SECONDS * SAMPLE_RATE)
    wanted = np.unique(_within(pitches))
    all_pitches = np.arange(_LOWEST_PITCH, _HIGHEST_PITCH + 1)
    combs = _combs(all_pitches)
    padded = np.pad(samples, (_FRAME // 2, _FRAME // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::hop]
    floor = max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-9) * 1e-2
    saliences, standings = [], []
    rows = np.searchsorted(all_pitches, wanted)
    for first in range(0, len(frames), _BLOCK):
        spectrum = np.abs(fft.rfft(frames[first : first + _BLOCK] * _hann(_FRAME), axis=1))
        salience = np.log1p(spectrum / np.float32(floor)) @ combs
        middle, deviation = salience.mean(axis=1, keepdims=True), salience.std(axis=1, keepdims=True)
        salience = salience[:, rows]
        standings.append((salience - middle) / (deviation + np.float32(1e-3)))
        saliences.append(salience)
    salience, standing = np.concatenate(saliences).T, np.concatenate(standings).T
    rise = np.zeros_like(salience)
    rise[:, _RISE_FRAMES:-_RISE_FRAMES] = salience[:, 2 * _RISE_FRAMES :] - salience[:, : -2 * _RISE_FRAMES]
    presence = np.pad(np.cumsum(standing, axis=1, dtype=np.float64), [(0, 0), (1, 0)])
    return Activations(np.maximum(rise, 0.0), presence, wanted)


def _within(pitches: np.ndarray) -> np.ndarray:
    """Returns pitches as whole ones that have harmonics in the spectrum."""
    return np.clip(np.round(pitches), _LOWEST_PITCH, _HIGHEST_PITCH).astype(int)


def _combs(pitches: np.ndarray) -> np.ndarray:
    """Returns weights of the bins for each pitch, float32 `[bins, n_pitches]`: the nearest ones of its harmonics."""
    combs = np.zeros([_FRAME // 2 + 1, len(pitches)], np.float32)
    for i, pitch in enumerate(pitches):
        for harmonic in range(1, _N_HARMONICS + 1):
            b = round(harmonic * hertz(pitch) * _FRAME / SAMPLE_RATE)
            if b < len(combs):
                combs[b, i] += harmonic**-0.5
    return combs / combs.sum(axis=0)


def hertz(pitch: npt.ArrayLike) -> Any:
    """Turns MIDI note numbers into Hz."""
    return 440.0 * 2.0 ** ((np.asarray(pitch) - 69.0) / 12.0)


@dataclasses.dataclass(frozen=True)
class Onsets:
    """Where notes set in, each found near where it is expected.

    Attributes:
        lags: `[n]` float64: seconds from where it is expected to where its sound begins.
        attacks: `[n]` float64: seconds from there to half of its rise; 0 for an ideal pluck.
        sureness: `[n]` float64, 0..1: how much of what sounds after the onset was not there before.
    """

    lags: np.ndarray
    attacks: np.ndarray
    sureness: np.ndarray


def note_onsets(samples: np.ndarray, times: np.ndarray, pitches: np.ndarray, reach: np.ndarray) -> Onsets:
    """Finds the onset of each note near where it is expected.

    First the moment is found when the harmonics of the note rise most, in spectra every 2 ms, so that notes are heard
    through others that last; then where the rise of those that do begins.

    Args:
        samples: float32 `[n]` at `SAMPLE_RATE`.
        times: `[m]`: when the onsets are expected (s).
        pitches: `[m]`: MIDI note numbers.
        reach: `[m]`: how far from there they are looked for (s), up to `SEARCH_SECONDS`.
    """
    pad = round((SEARCH_SECONDS + 2 * _MARGIN_SECONDS) * SAMPLE_RATE)
    padded = np.pad(samples, pad)
    centres = np.clip(np.round(times * SAMPLE_RATE).astype(int), 0, len(samples)) + pad
    found = np.zeros([3, len(times)])
    for first in range(0, len(times), _NOTES_AT_ONCE):
        part = slice(first, first + _NOTES_AT_ONCE)
        levels = _harmonic_levels(padded, centres[part], pitches[part])
        frames, rises, found[2, part] = _rises(levels, reach[part])
        rising = np.einsum("nth,nh->nt", levels, rises)
        for i, frame in enumerate(frames):
            found[:2, first + i] = _beginning(rising[i], frame)
    found[0] += (centres - pad) / SAMPLE_RATE - times
    return Onsets(*found)


def _harmonic_levels(padded: np.ndarray, centres: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Returns magnitudes of the harmonics of notes around their times, `[n, frames, harmonics]`."""
    from scipy import fft

    reach = round((SEARCH_SECONDS + _MARGIN_SECONDS) * SAMPLE_RATE / _FINE_HOP)
    views = np.lib.stride_tricks.sliding_window_view(padded, _FINE_FRAME)
    firsts = centres[:, np.newaxis] - _FINE_FRAME // 2 + np.arange(-reach, reach + 1) * _FINE_HOP
    spectra = np.abs(fft.rfft(views[firsts] * _hann(_FINE_FRAME), axis=2))
    frequencies = hertz(pitches)[:, np.newaxis] * np.arange(1, _FINE_HARMONICS + 1)
    bins = np.round(frequencies * _FINE_FRAME / SAMPLE_RATE).astype(int)
    there = bins <= _FINE_FRAME // 2
    bins = np.where(there, bins, 0)[:, np.newaxis, :]
    return np.take_along_axis(spectra, bins, axis=2) * there[:, np.newaxis, :]


def _rises(levels: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds when harmonics rise most, from the mean of 50 ms before to that of 50 ms after.

    Returns:
        The frame of each note `[n]`, the rise of each harmonic there `[n, harmonics]`, and how much of what is there
        after it the rise is `[n]`, 0..1.
    """
    step = _FINE_HOP / SAMPLE_RATE
    width, middle, search = round(_RISE_SECONDS / step), levels.shape[1] // 2, round(SEARCH_SECONDS / step)
    sums = np.cumsum(np.pad(np.sqrt(levels), [(0, 0), (1, 0), (0, 0)]), axis=1)
    frames = np.arange(middle - search, middle + search + 1)
    after = (sums[:, frames + width] - sums[:, frames]) / width
    before = (sums[:, frames] - sums[:, frames - width]) / width
    rise = np.maximum(after - before, 0.0)
    distances = np.abs(frames - middle) * step
    prior = np.exp(-0.5 * (distances / _PRIOR_SECONDS) ** 2) * (distances <= reach[:, np.newaxis] + step / 2)
    best = np.argmax(rise.sum(axis=2) * prior, axis=1)
    rows = np.arange(len(levels))
    share = rise[rows, best].sum(axis=1) / np.maximum((after + before)[rows, best].sum(axis=1), 1e-9)
    return frames[best], rise[rows, best], share


def _beginning(level: np.ndarray, steepest: int) -> tuple[float, float]:
    """Finds where a level begins to rise: the line through two low points of the rise, followed down to its foot.

    Args:
        level: `[frames]`; the middle one is where the onset is expected.
        steepest: Frame of the rise.

    Returns:
        Seconds from the middle frame to the foot, and what the attack takes longer than an ideal step.
    """
    step = _FINE_HOP / SAMPLE_RATE
    base = min(np.median(level[steepest - 22 : steepest - 8]), level[steepest - 20 : steepest + 1].min())
    peak = steepest - 5 + int(np.argmax(level[steepest - 5 : steepest + 27]))
    height = max(level[peak] - base, 1e-12)
    moments = []
    for share in (_TRACE, _RISEN, _HALF):
        above = level[: peak + 1] - (base + share * height)
        below = np.flatnonzero(above < 0.0)
        i = below[-1] if len(below) else 0
        moments.append(i - above[i] / (above[i + 1] - above[i]) if i < peak and above[i + 1] > above[i] else float(i))
    trace, risen, half = ((moment - len(level) // 2) * step for moment in moments)
    return trace + _TRACE_OF_STEP - max(risen - trace - _STEP_TO_RISEN, 0.0), half - trace - _STEP_TO_HALF


def _hann(size: int) -> np.ndarray:
    """Returns a Hann window under which a full-scale sine has magnitude 1, float32 `[size]`."""
    return (np.hanning(size + 1)[:-1] * 4.0 / size).astype(np.float32)
