"""What is heard of each note: how loud it is, which pitch it has, how it decays; and onsets that no note accounts for.

Pitches are told by subharmonic summation (Hermes, 1988): a pitch is as likely as its harmonics are strong, low ones
counting more.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neural_midi_synth.data_prep.onsets import SAMPLE_RATE, hertz

LOWEST_PITCH, HIGHEST_PITCH = 24, 108
"""The pitches that are told apart, MIDI note numbers."""
LEVEL_HOP = 80
"""Samples from one of `frame_levels` to the next, 5 ms."""
LEVELS_A_SECOND = SAMPLE_RATE // LEVEL_HOP

_FRAME = 4096  # 256 ms: long enough to tell an E1 from an F1 by their harmonics.
_SHORT_FRAME = 2048  # For notes that don't last as long.
_SPECTRUM = 8192
_N_HARMONICS = 10
_WEIGHT = 0.84  # Of each harmonic against the one below it, as Hermes has it.
_CENTS = 30.0  # How far a harmonic may be from where it is expected.
_AFTER_ONSET = 0.03  # s: the noise of an attack has no pitch.
_NOTES_AT_ONCE = 64
_FLOOR_STEP = 8  # Bins for which one floor is taken.
_HOPS_OF_LEVEL = 4  # 20 ms
_SILENCE_DB = -120.0


@dataclasses.dataclass(frozen=True, eq=False)
class HeardNotes:
    """What is heard of the notes of a take.

    Attributes:
        levels: `[n]` float64: the loudest 20 ms of the note, dB of full scale.
        saliences: `[n, n_pitches]` float32: how strong the harmonics of each pitch from `LOWEST_PITCH` to
            `HIGHEST_PITCH` are while the note lasts, relative to the strongest pitch.
        decays: `[n]` float64: how fast the note gets quieter, dB a second; NaN where it is too short to tell.
    """

    levels: np.ndarray
    saliences: np.ndarray
    decays: np.ndarray

    def pitches(self) -> np.ndarray:
        """Returns the strongest pitch of each note, `[n]` MIDI note numbers."""
        return LOWEST_PITCH + np.argmax(self.saliences, axis=1)

    def salience_of(self, pitches: np.ndarray) -> np.ndarray:
        """Returns how salient a pitch is in each note, `[n]`: 1 where none is more so."""
        rows = np.clip(np.round(pitches).astype(int), LOWEST_PITCH, HIGHEST_PITCH) - LOWEST_PITCH
        return self.saliences[np.arange(len(self.saliences)), rows]


def listen(samples: np.ndarray, levels: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> HeardNotes:
    """Listens to a recording where notes should be.

    Args:
        samples: float32 `[m]` at `onsets.SAMPLE_RATE`.
        levels: Its levels, from `frame_levels`.
        starts: `[n]`: when the notes set in, s.
        ends: `[n]`: when they end, or the next one begins.
    """
    loudest, decays = np.full(len(starts), _SILENCE_DB), np.full(len(starts), np.nan)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = int(np.clip(start * LEVELS_A_SECOND, 0, len(levels) - 1))
        of_note = levels[first : max(int(end * LEVELS_A_SECOND), first + 4)]
        loudest[i] = of_note.max(initial=_SILENCE_DB)
        after = of_note[int(np.argmax(of_note)) :][: round(0.4 * LEVELS_A_SECOND)]
        if len(after) >= round(0.1 * LEVELS_A_SECOND):
            decays[i] = -np.polyfit(np.arange(len(after)) / LEVELS_A_SECOND, after, 1)[0]
    return HeardNotes(loudest, saliences(samples, starts + _AFTER_ONSET, ends), decays)


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """Measures the level of 20 ms every 5 ms.

    Args:
        samples: float32 `[m]` at `onsets.SAMPLE_RATE`.

    Returns:
        float64 `[m // 80 + 1]`, dB of full scale; frame i is centred on 5 ms times i.
    """
    width = _HOPS_OF_LEVEL * LEVEL_HOP
    padded = np.pad(samples, (width // 2, width // 2 + LEVEL_HOP))
    hops = padded[: len(padded) // LEVEL_HOP * LEVEL_HOP].reshape([-1, LEVEL_HOP])
    power = np.einsum("ij,ij->i", hops, hops).astype(np.float64)
    mean_square = np.convolve(power, np.ones(_HOPS_OF_LEVEL), "valid")[: len(samples) // LEVEL_HOP + 1] / width
    return 10.0 * np.log10(np.maximum(mean_square, 10.0 ** (_SILENCE_DB / 10.0)))


def levels_at(levels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the levels, of `frame_levels`, at times in seconds."""
    return levels[np.clip(np.round(times * LEVELS_A_SECOND).astype(int), 0, len(levels) - 1)]


def saliences(samples: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Measures how salient each pitch is in stretches of a sound.

    Args:
        samples: float32 `[m]` at `onsets.SAMPLE_RATE`.
        starts: `[n]`, s.
        ends: `[n]`, s. At most a quarter of a second of each stretch is looked at, at least an eighth.

    Returns:
        float32 `[n, n_pitches]`, 0..1: relative to the most salient pitch of the stretch.
    """
    padded = np.pad(samples, (0, _FRAME))
    firsts = np.clip(np.round(starts * SAMPLE_RATE).astype(int), 0, len(samples))
    lasting = np.where((ends - starts) * SAMPLE_RATE >= 0.75 * _FRAME, _FRAME, _SHORT_FRAME)
    windows = {size: np.pad(np.hanning(size), (0, _FRAME - size)).astype(np.float32) for size in (_FRAME, _SHORT_FRAME)}
    views = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)
    found = np.zeros([len(starts), HIGHEST_PITCH - LOWEST_PITCH + 1], np.float32)
    for first in range(0, len(starts), _NOTES_AT_ONCE):
        part = slice(first, first + _NOTES_AT_ONCE)
        frames = views[firsts[part]] * np.stack([windows[size] for size in lasting[part]])
        found[part] = _summed(np.sqrt(np.abs(np.fft.rfft(frames, _SPECTRUM, axis=1))))
    return found / np.maximum(found.max(axis=1, keepdims=True), 1e-9)


def _summed(spectra: np.ndarray) -> np.ndarray:
    """Sums the harmonics of each pitch over spectra `[n, bins]`, what stands out of them alone counting."""
    spectra = np.maximum(spectra - _floor(spectra), 0.0)
    pitches = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 1)
    total = np.zeros([len(spectra), len(pitches)], np.float32)
    for harmonic in range(1, _N_HARMONICS + 1):
        frequencies = harmonic * hertz(pitches) * _SPECTRUM / SAMPLE_RATE
        for row, frequency in enumerate(frequencies):
            low, high = (round(frequency * 2.0 ** (cents / 1200.0)) for cents in (-_CENTS, _CENTS))
            if low < spectra.shape[1]:
                total[:, row] += _WEIGHT ** (harmonic - 1) * spectra[:, low : high + 1].max(axis=1)
    return total


def _floor(spectra: np.ndarray) -> np.ndarray:
    """Returns what lies between the harmonics, `[n, bins]`: of 41 bins around each, what 30 % are below.

    The harmonics of the lowest pitch are 16 bins apart, and 8 wide.
    """
    padded = np.pad(spectra, [(0, 0), (20, 20 + _FLOOR_STEP)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 41, axis=1)[:, ::_FLOOR_STEP]
    floor = np.partition(windows, 12, axis=2)[:, :, 12]
    return np.repeat(floor, _FLOOR_STEP, axis=1)[:, : spectra.shape[1]]


def rises(levels: np.ndarray, least_rise: float, least_level: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds where the sound becomes suddenly louder.

    Args:
        levels: Of `frame_levels`.
        least_rise: dB, from 20 ms before a moment to 30 ms after it.
        least_level: dB of full scale, that it reaches.

    Returns:
        Times of the onsets, s, at least 50 ms apart, and their rises in dB.
    """
    from scipy import signal

    # The quieter of the frames before and the louder of those after: a beat of two strings is no onset.
    before = -_maximum_before(-levels, 6)
    after = _maximum_before(levels[::-1], 7)[::-1]
    rise = np.where(after >= least_level, after - before, 0.0)
    peaks, facts = signal.find_peaks(rise, height=least_rise, distance=10, plateau_size=1)
    return peaks / LEVELS_A_SECOND, facts["peak_heights"]


def _maximum_before(levels: np.ndarray, n: int) -> np.ndarray:
    """Returns the greatest of each value and the n - 1 before it."""
    from scipy import ndimage

    return ndimage.maximum_filter1d(levels, n, origin=(n - 1) // 2)
