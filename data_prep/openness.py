"""How open each note is, guessed from its sound: a palm on the strings makes them dark and lets them die away fast.

Nothing is known of the instrument. So the notes of a recording are compared with each other: where they fall into two
kinds, of which the dark one dies away faster, a note's openness is its place between the two.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neural_midi_synth.data_prep.onsets import SAMPLE_RATE

OPEN, MUTED = 127.0, 0.0
_CORNERS = (1000.0, 2000.0)  # Hz: brightness is the share of the power above each.
_FROM, _TO = 0.03, 0.2  # s after the start: past the pick, before most notes end.
_FEWEST_NOTES = 24
# Two kinds: the brightness of one is at least so many dB above that of the other, each has a share of the notes of at
# least this, and a note of the dark kind dies away faster than one of the bright kind this often.
_LEAST_DISTANCE, _LEAST_SHARE, _LEAST_ORDER = 12.0, 0.08, 0.65
# Notes this near to one of the kinds, as a share of the distance, are taken to be of it.
_NEAR = 0.25
# A note whose openness is less than this away from one of the ends is meant to be there.
_SNAP = 16.0


@dataclasses.dataclass(frozen=True)
class Timbre:
    """The sound of one note.

    Attributes:
        brightness: Shares of its power above 1 and 2 kHz, in dB, 0 or below.
        level: Of what is measured, in dB.
        decay: dB per second, from its peak on; NaN for notes too short to tell.
    """

    brightness: tuple[float, float]
    level: float
    decay: float


def timbre_of(samples: np.ndarray, levels: np.ndarray, level_hop: int, start: float, end: float) -> Timbre:
    """Measures a note.

    Args:
        samples: `[n]` float32 at 16 kHz.
        levels: Level over time (dB), float64 `[ceil(n / level_hop)]`.
        level_hop: Samples between two levels.
        start: Of the note (s).
        end: Of the note (s).
    """
    stretch = samples[
        round((start + _FROM) * SAMPLE_RATE) : round(max(min(end, start + _TO), start + 0.08) * SAMPLE_RATE)
    ]
    power = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)), 4096)) ** 2 + 1e-12
    frequencies = np.arange(len(power)) * SAMPLE_RATE / 4096
    brightness = tuple(10.0 * np.log10(power[frequencies > corner].sum() / power.sum()) for corner in _CORNERS)
    level = 10.0 * np.log10(np.mean(np.square(stretch)) + 1e-12) if len(stretch) else -120.0
    rate = SAMPLE_RATE / level_hop
    curve = levels[round(start * rate) + 2 : round(min(end, start + 1.0) * rate)]
    peak = int(np.argmax(curve[:24])) if len(curve) else 0
    decay = np.nan
    if len(curve) - peak >= 8:
        decay = np.polyfit(np.arange(len(curve) - peak) / rate, curve[peak:], 1)[0]
    return Timbre(brightness, float(level), float(decay))


def guess_openness(timbres: list[Timbre], pitches: np.ndarray) -> np.ndarray | None:
    """Guesses the openness of the notes of a recording by comparing them.

    Args:
        timbres: Of the notes, n of them.
        pitches: `[n]`: MIDI note numbers.

    Returns:
        `[n]` float64, 0 (muted) to 127 (open); None where the notes are not of two kinds.
    """
    if len(timbres) < _FEWEST_NOTES:
        return None
    brightness = np.array([timbre.brightness for timbre in timbres])
    levels = np.array([timbre.level for timbre in timbres])
    decays = np.array([timbre.decay for timbre in timbres])
    places, shares = [], []
    for bright in brightness.T:
        dark_line, bright_line = _two_lines(pitches, bright)
        distance = np.median(bright_line - dark_line)
        if distance < _LEAST_DISTANCE:
            return None
        # Where a pitch is rare, the two lines may cross.
        dark_line = np.minimum(dark_line, bright_line - distance / 2)
        distance = bright_line - dark_line
        places.append((bright - dark_line) / distance)
        shares.append((_power(bright) - _power(dark_line)) / (_power(bright_line) - _power(dark_line)))
    place = np.mean(places, axis=0)
    dark, bright = place < _NEAR, place > 1 - _NEAR
    if min(dark.mean(), bright.mean()) < _LEAST_SHARE or _dies_faster(decays[dark], decays[bright]) < _LEAST_ORDER:
        return None
    # A note between the kinds is taken for a mixture of both, s parts of open power and 1 - s of muted power. The
    # louder kind hides the other one, so how much louder it is comes in.
    ratio = _power(np.median(levels[dark]) - np.median(levels[bright]))
    share = np.mean([ratio * s / (1.0 - s + ratio * s) for s in np.clip(shares, 0.0, 1.0)], axis=0)
    openness = OPEN * 2.0 / np.pi * np.arcsin(np.sqrt(share))
    openness[openness < _SNAP] = MUTED
    openness[openness > OPEN - _SNAP] = OPEN
    return openness


def _power(decibels: np.ndarray | float) -> np.ndarray | float:
    return 10.0 ** (np.asarray(decibels) / 10.0)


def _dies_faster(dark: np.ndarray, bright: np.ndarray) -> float:
    """Returns how often, of a dark and a bright note, the dark one dies away faster; 0 where that can't be told."""
    dark, bright = dark[np.isfinite(dark)], bright[np.isfinite(bright)]
    if not len(dark) or not len(bright):
        return 0.0
    return float(np.searchsorted(np.sort(dark), bright).mean() / len(dark))


def _two_lines(pitches: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divides values into a low and a high kind, each a parabola over pitch; returns both at each pitch."""
    spread = pitches.std()
    x = (pitches - pitches.mean()) / spread if spread > 0 else np.zeros(len(pitches))
    degree = 2 if len(np.unique(pitches)) > 8 else 0
    low = values < np.polyval(np.polyfit(x, values, degree), x)
    for _ in range(30):
        if min(low.sum(), (~low).sum()) < 2 * (degree + 1):
            break
        lines = [np.polyval(_robust_fit(x[kind], values[kind], degree), x) for kind in (low, ~low)]
        middle = (lines[0] + lines[1]) / 2
        if np.array_equal(low, values < middle):
            return lines[0], lines[1]
        low = values < middle
    else:
        return lines[0], lines[1]
    median = np.full(len(values), np.median(values))
    return median, median


def _robust_fit(x: np.ndarray, y: np.ndarray, degree: int) -> np.ndarray:
    """Fits a polynomial to most of the values: what is far from it counts less (Huber's weights)."""
    fit = np.polyfit(x, y, degree)
    for _ in range(5):
        away = np.abs(y - np.polyval(fit, x))
        scale = 1.5 * np.median(away) + 1e-9
        fit = np.polyfit(x, y, degree, w=np.sqrt(1.0 / np.maximum(1.0, away / scale)))
    return fit
