"""Pitch of single notes by harmonic sums: no weights, from a bass's low E (41 Hz) and below to a guitar's last fret.

A candidate pitch is good where the spectrum has its harmonics and has nothing half-way between them. The first is what
an octave too high misses, the second what an octave too low would have (compare SWIPE, Camacho and Harris, JASA 2008).
A note that sounds with its fifth, as power chords do, has a candidate of its own: else the fifth would be taken for it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy import ndimage

from neural_midi_synth.data_prep.onsets import SAMPLE_RATE, hertz

PITCHES = np.arange(24.0, 96.0, 0.25)
"""Candidates, as MIDI note numbers: C1 (33 Hz) to B6."""
NOTE_FFT, FRAME_FFT = 16384, 4096
"""Points of the transforms of a note and of a frame of its pitch curve; what is shorter is padded."""
_HARMONICS, _HIGHEST = 10, 4000.0  # Hz
# A harmonic is looked for within 1.5 % of its place, a quarter of a semitone: strings are stiff, and grids are coarse.
_TOLERANCE = 0.015
# What a fifth that sounds along must add to the harmonics, as a share of their sum. Chosen on the demo guitar.
_COST_OF_FIFTH = 0.25
# The noise between harmonics: so many times this percentile of the amplitudes within this width (Hz).
_FLOOR_GAIN, _FLOOR_PERCENTILE, _FLOOR_WIDTH = 1.3, 30, 400.0
# Another pitch is a rival where it is further away than this, in semitones.
_RIVAL = 0.75


@dataclasses.dataclass(frozen=True)
class Pitch:
    """The pitch of a stretch of sound.

    Attributes:
        pitch: MIDI note number with its fraction.
        with_fifth: Whether its fifth sounds along.
        clarity: Share of the spectrum that the harmonics explain, 0 to 1.
        margin: How much better it is than the best rival, 0 to 1 (no rival at all).
    """

    pitch: float
    with_fifth: bool
    clarity: float
    margin: float


@functools.lru_cache(maxsize=4)
def _comb(n_fft: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pitch has its half-harmonics, `[n_pitches, 2 * _HARMONICS]`: first bin, last bin + 1, and weight."""
    halves = np.arange(1, 2 * _HARMONICS + 1)
    frequencies = hertz(PITCHES)[:, None] / 2 * halves
    bins = frequencies * n_fft / SAMPLE_RATE
    first = np.maximum(np.floor(bins * (1 - _TOLERANCE)).astype(int), 1)
    last = np.ceil(bins * (1 + _TOLERANCE)).astype(int) + 1
    weights = np.sqrt(2.0 / halves) * (frequencies < _HIGHEST)
    n_bins = _n_bins(n_fft)
    return np.minimum(first, n_bins - 2), np.minimum(last, n_bins - 1), weights


def _n_bins(n_fft: int) -> int:
    """Bins of a spectrum up to the highest harmonic that is looked at, and some more."""
    return int(_HIGHEST * 1.1 * n_fft / SAMPLE_RATE)


def midi_pitch(frequency: np.ndarray | float) -> np.ndarray | float:
    """Turns frequencies in Hz into MIDI note numbers with their fractions."""
    return 69.0 + 12.0 * np.log2(np.asarray(frequency) / 440.0)


def _magnitudes(frames: np.ndarray, n_fft: int) -> np.ndarray:
    """Magnitudes of windowed frames, `[..., n_bins]`."""
    window = np.hanning(frames.shape[-1]).astype(np.float32)
    return np.abs(np.fft.rfft(frames * window, n_fft, axis=-1))[..., : _n_bins(n_fft)]


def _above_floor(magnitudes: np.ndarray, n_fft: int) -> np.ndarray:
    """Square roots of magnitudes above the noise between the harmonics."""
    amplitudes = np.sqrt(magnitudes)
    # The floor is smooth: every few bins are enough.
    step = max(n_fft // FRAME_FFT, 1)
    width = round(_FLOOR_WIDTH * n_fft / SAMPLE_RATE / step) | 1
    size = (1,) * (amplitudes.ndim - 1) + (width,)
    floor = ndimage.percentile_filter(amplitudes[..., ::step], _FLOOR_PERCENTILE, size)
    floor = np.repeat(floor, step, axis=-1)[..., : amplitudes.shape[-1]]
    return np.maximum(amplitudes - _FLOOR_GAIN * floor, 0.0)


def harmonic_sums(amplitudes: np.ndarray, n_fft: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores every candidate on a spectrum.

    Args:
        amplitudes: `[n_bins]`, above the noise.
        n_fft: Size of the transform they come from.

    Returns:
        Scores `[n_pitches]` as a single note and as one whose fifth sounds along: sum of the harmonics less sum of what
        is half-way between them.
    """
    first, last, weights = _comb(n_fft)
    # Level j of the pyramid has the highest of 2**j bins from each bin on, so two reads give that of any range.
    levels = int(np.log2(max((last - first).max(), 1))) + 1
    pyramid = [amplitudes]
    for level in range(1, levels):
        shift = 2 ** (level - 1)
        before = pyramid[-1]
        pyramid.append(np.maximum(before, np.concatenate([before[shift:], np.zeros(shift, before.dtype)])))
    pyramid = np.stack(pyramid)
    level = np.log2(np.maximum(last - first, 1)).astype(int)
    peaks = np.maximum(pyramid[level, first], pyramid[level, np.maximum(last - 2**level, 0)]) * weights
    halves = np.arange(1, 2 * _HARMONICS + 1)
    of_fifth = (halves % 3 == 0) & (halves % 2 == 1)
    harmonics, between = peaks[:, 1::2].sum(axis=1), peaks[:, 0::2].sum(axis=1)
    fifth = peaks[:, of_fifth].sum(axis=1)
    return harmonics - between, (1 - _COST_OF_FIFTH) * harmonics + 2 * fifth - between


def pitch_of(samples: np.ndarray) -> Pitch | None:
    """Finds the pitch of a stretch of sound in which one note is heard.

    Args:
        samples: `[n]` float32 at 16 kHz; half a second at most is used.

    Returns:
        The pitch; None for silence.
    """
    samples = samples[: NOTE_FFT // 2]
    if len(samples) < 64:
        return None
    magnitudes = _magnitudes(samples, NOTE_FFT)
    amplitudes = _above_floor(magnitudes, NOTE_FFT)
    single, chord = harmonic_sums(amplitudes, NOTE_FFT)
    scores = np.maximum(single, chord)
    best = int(np.argmax(scores))
    if scores[best] <= 0:
        return None
    rivals = scores[np.abs(PITCHES - PITCHES[best]) > _RIVAL]
    with_fifth = bool(chord[best] > single[best])
    return Pitch(
        pitch=_refined(magnitudes, PITCHES[best], NOTE_FFT),
        with_fifth=with_fifth,
        clarity=_explained(amplitudes, PITCHES[best], with_fifth),
        margin=float(np.clip(1.0 - rivals.max() / scores[best], 0.0, 1.0)),
    )


def _explained(amplitudes: np.ndarray, pitch: float, with_fifth: bool) -> float:
    """Share of the spectrum above the noise that lies near the harmonics of a pitch (and of its fifth)."""
    bins = np.arange(len(amplitudes)) * SAMPLE_RATE / NOTE_FFT
    near = np.zeros(len(bins), bool)
    for root in (float(hertz(pitch)), 1.5 * float(hertz(pitch)))[: 1 + with_fifth]:
        away = np.abs(bins - np.maximum(np.round(bins / root), 1) * root)
        near |= away < np.maximum(0.2 * root, 8.0)
    total = float(np.square(amplitudes).sum())
    return float(np.square(amplitudes[near]).sum()) / total if total else 0.0


def _refined(magnitudes: np.ndarray, pitch: float, n_fft: int) -> float:
    """Refines a pitch to a few cents by the peaks of its harmonics, the strong and high ones counting most."""
    frequency = float(hertz(pitch))
    estimates, weights = [], []
    for harmonic in range(1, 9):
        place = harmonic * frequency * n_fft / SAMPLE_RATE
        first, last = int(place * 0.975), int(np.ceil(place * 1.025)) + 1
        if last + 1 >= len(magnitudes):
            break
        peak = first + int(np.argmax(magnitudes[first:last]))
        below, middle, above = np.log(magnitudes[peak - 1 : peak + 2] + 1e-9)
        curvature = below - 2 * middle + above
        if middle < max(below, above) or curvature >= 0:  # The edge of a neighbour, no peak.
            continue
        estimates.append((peak + 0.5 * (below - above) / curvature) * SAMPLE_RATE / n_fft / harmonic)
        weights.append(np.sqrt(magnitudes[peak]) * np.sqrt(harmonic))
    if not estimates:
        return pitch
    return float(midi_pitch(np.average(estimates, weights=weights)))


def track(samples: np.ndarray, centres: np.ndarray, window: int) -> np.ndarray:
    """Follows the pitch over time.

    Args:
        samples: `[n]` float32 at 16 kHz.
        centres: Sample index of the middle of each frame, int `[k]`; may be near or beyond the ends.
        window: Samples of a frame.

    Returns:
        Pitches with their fractions, float64 `[k]`; NaN where nothing has one.
    """
    padded = np.pad(samples, (window // 2, window))
    pitches = np.full(len(centres), np.nan)
    for i, centre in enumerate(np.clip(centres, 0, len(samples))):
        magnitudes = _magnitudes(padded[centre : centre + window], FRAME_FFT)
        single, chord = harmonic_sums(_above_floor(magnitudes, FRAME_FFT), FRAME_FFT)
        scores = np.maximum(single, chord)
        best = int(np.argmax(scores))
        if scores[best] > 0:
            pitches[i] = _refined(magnitudes, PITCHES[best], FRAME_FFT)
    return pitches
