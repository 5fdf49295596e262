"""Attacks in a recording: where the spectrum rises, and when exactly the sound begins to."""

from __future__ import annotations

import numpy as np

from neural_midi_synth.data_prep.onsets import SAMPLE_RATE

FLUX_HOP = 80
"""Samples between two frames of the spectral flux, 5 ms."""

_WINDOW, _LAG = 256, 2
# What is found is then looked at with spectra of 4 ms, every 1 ms, from 30 ms before the peak of the flux to 10 ms
# after it; the attack begins where the flux first has this part of its peak there.
_FINE_WINDOW, _FINE_HOP, _FINE_LAG = 64, 16, 4
_SEARCH_BEFORE, _SEARCH_AFTER, _PART_OF_PEAK = 480, 160, 0.22
# A gap is 20 dB below what was before it, over 4 ms.
_GAP, _GAP_FRAMES = 0.01, 4
# Magnitudes are relative to a loud passage: what is 60 dB below it counts little.
_COMPRESSION = 1000.0
# An attack is a peak of the flux that is higher than this and so many times the median around it (0.2 s).
_LEAST_FLUX, _TIMES_MEDIAN, _MEDIAN_FRAMES = 0.03, 1.5, 41
_CLOSEST_FRAMES = 6
# In spectra of 16 ms each period of a bass's low string is an attack. So the flux of longer ones, which have two of
# its periods, must rise too, near the peak.
_LONG_WINDOW, _LONG_LAG, _LEAST_LONG_FLUX = 768, 6, 0.04
_LONG_BEFORE, _LONG_AFTER = 4, 6
# What comes so soon (s) after an attack and is so much weaker belongs to it, and two can't be nearer than the other.
_ECHO_SECONDS, _ECHO, _CLOSEST_SECONDS = 0.06, 0.4, 0.005


def spectral_flux(samples: np.ndarray, window: int = _WINDOW, hop: int = FLUX_HOP, lag: int = _LAG) -> np.ndarray:
    """Measures how much the spectrum rises.

    Each frequency is compared with the loudest of its neighbours `lag` frames before, so that vibrato is no rise
    (SuperFlux: Böck and Widmer, DAFx 2013).

    Args:
        samples: `[n]` float32, where 1 is a loud passage.
        window: Samples of each spectrum.
        hop: Samples between frames.
        lag: Frames between the spectra that are compared.

    Returns:
        `[ceil(n / hop)]` float32: the mean rise, 0 or above, in decades of amplitude. Frame i is centred at i · hop.
    """
    from scipy import ndimage

    n_frames = -(-len(samples) // hop)
    padded = np.pad(samples, (window // 2, window + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:n_frames]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)) / (window / 4)
    levels = np.log10(1.0 + _COMPRESSION * magnitudes)
    flux = np.zeros(n_frames, np.float32)
    if n_frames > lag:
        before = ndimage.maximum_filter1d(levels[:-lag], 3, axis=1)
        flux[lag:] = np.maximum(levels[lag:] - before, 0.0).mean(axis=1)
    return flux


def find_attacks(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the attacks.

    Args:
        samples: `[n]` float32 at 16 kHz, where 1 is a loud passage.

    Returns:
        When they begin (s), float64 `[k]`, sorted and at least 5 ms apart; and how strong they are, float64 `[k]`: the
        peak of the spectral flux.
    """
    from scipy import ndimage

    flux = spectral_flux(samples)
    highest = ndimage.maximum_filter1d(flux, 2 * _CLOSEST_FRAMES + 1)
    usual = ndimage.median_filter(flux, _MEDIAN_FRAMES, mode="nearest")
    (frames,) = np.nonzero((flux == highest) & (flux > _LEAST_FLUX + _TIMES_MEDIAN * usual))
    long_flux = np.pad(spectral_flux(samples, _LONG_WINDOW, FLUX_HOP, _LONG_LAG), (_LONG_BEFORE, _LONG_AFTER))
    near = np.lib.stride_tricks.sliding_window_view(long_flux, _LONG_BEFORE + _LONG_AFTER + 1)
    frames = frames[near[frames].max(axis=1) > _LEAST_LONG_FLUX]
    times = np.array([beginning(samples, frame * FLUX_HOP) for frame in frames], np.float64)
    gaps = np.diff(times, prepend=-1.0)
    before = np.concatenate([[0.0], flux[frames][:-1]])
    echo = (gaps < _ECHO_SECONDS) & (flux[frames] < _ECHO * before)
    kept = (gaps > _CLOSEST_SECONDS) & ~echo
    return times[kept], flux[frames][kept].astype(np.float64)


def beginning(samples: np.ndarray, around: int) -> float:
    """Finds when an attack begins.

    Args:
        samples: `[n]` float32 at 16 kHz.
        around: Sample index of the peak of its spectral flux.

    Returns:
        Seconds.
    """
    first = max(around - _SEARCH_BEFORE, 0)
    near = spectral_flux(samples[first : around + _SEARCH_AFTER + _FINE_WINDOW], _FINE_WINDOW, _FINE_HOP, _FINE_LAG)
    near = near[: max((around + _SEARCH_AFTER - first) // _FINE_HOP, 1)]
    peak = int(np.argmax(near))
    # Where the note before is damped just before, the damping is a rise of high frequencies, too.
    quietest = _gap(samples[first : first + peak * _FINE_HOP])
    begin = quietest + int(np.argmax(near[quietest:] >= _PART_OF_PEAK * near[peak]))
    return (first + begin * _FINE_HOP) / SAMPLE_RATE


def _gap(samples: np.ndarray) -> int:
    """Finds the frame of the gap that a sound falls into, of `_FINE_HOP` samples each; 0 where there is none."""
    frames = samples[: len(samples) // _FINE_HOP * _FINE_HOP].reshape([-1, _FINE_HOP])
    power = np.convolve(np.square(frames, dtype=np.float64).sum(axis=1), np.ones(_GAP_FRAMES), "same")
    if not len(frames):
        return 0
    quietest = int(np.argmin(power))
    return quietest if power[quietest] < _GAP * power[: quietest + 1].max() else 0
