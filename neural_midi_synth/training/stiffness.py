"""Measures how stiff the strings of a recorded instrument are, by where the partials of its notes lie.

Partial k of a stiff string lies at k f0 √(1 + B k²) (Fletcher, 1964). So (f_k / k)² is a line over k²: where it begins
is f0², and its slope over that is the inharmonicity coefficient B. What is not a string, or a bowed one, whose bow
holds all partials together, has a slope of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from scipy import fft, ndimage

from neural_midi_synth.instrument.strings import PITCHES

MOST_NOTES = 8
"""Notes of a pitch that are looked at."""

_SHORTEST, _LONGEST = 0.4, 2.0  # s of a note that are looked at
_AFTER_ONSET, _BEFORE_END = 0.08, 0.03  # s that are not
_TRANSFORM_SECONDS = 4.0  # Notes are padded with silence to that: bins of a quarter of a Hz.
_MOST_PARTIALS = 20
_FEWEST_PARTIALS = 6
_CANDIDATES = np.append(0.0, np.geomspace(3e-6, 2e-3, 300))  # for B: up to that of a piano's shortest strings
_WITHIN_OCTAVES = 1.0 / 24.0  # of its pitch the first partial is looked for
_WITHIN_BINS = 4  # of where another is expected
_ABOVE_MEDIAN = 8.0  # What a partial's magnitude must be, as a multiple of the median around it
_AROUND = 20  # bins to either side.
_BELOW_PEAK = 1e-4  # Magnitudes below this share of the highest count as that.
# Of the notes of a string instrument so many are stretched, at least; of another half, by as little as noise makes it.
_SURE_SHARE = 0.75


def measure(builder: tfds.core.DatasetBuilder) -> np.ndarray:
    """Measures the inharmonicity coefficient of each pitch in what a data set has for training.

    Args:
        builder: A prepared data set.

    Returns:
        B of each MIDI note number, float32 `[128]`; between pitches that were played from those next to it, and 0
        throughout where most notes are not stretched.
    """
    sample_rate = builder.info.metadata["sample_rate"]
    found: dict[int, list[float]] = {}
    looked_at: dict[int, int] = {}
    for example in builder.as_dataset(split="train").as_numpy_iterator():
        for pitch, samples in _notes(example, sample_rate):
            if looked_at.get(pitch, 0) < MOST_NOTES:
                looked_at[pitch] = looked_at.get(pitch, 0) + 1
                coefficient = of_note(samples, 440.0 * 2.0 ** ((pitch - 69) / 12.0), sample_rate)
                if coefficient is not None:
                    found.setdefault(pitch, []).append(coefficient)
    measured = np.array([each for of_pitch in found.values() for each in of_pitch])
    if not len(measured) or np.mean(measured > 0.0) < _SURE_SHARE:
        return np.zeros(PITCHES, np.float32)
    pitches = sorted(found)
    medians = [max(float(np.median(found[pitch])), 0.0) for pitch in pitches]
    return np.interp(np.arange(PITCHES), pitches, medians).astype(np.float32)


def of_note(samples: np.ndarray, f0_hz: float, sample_rate: int) -> float | None:
    """Measures the inharmonicity coefficient of one note.

    Args:
        samples: Of the note alone, without its attack, float `[n]`.
        f0_hz: Its fundamental frequency, right to half a semitone.
        sample_rate: Samples a second.

    Returns:
        B, which noise can make negative; None where the sound has too few partials.
    """
    size = fft.next_fast_len(int(_TRANSFORM_SECONDS * sample_rate), real=True)
    spectrum = np.abs(fft.rfft(samples * np.hanning(len(samples)), size))
    spectrum = np.maximum(spectrum, _BELOW_PEAK * spectrum.max())
    place = f0_hz * size / sample_rate
    first = _peak(spectrum, place, place * (2.0**_WITHIN_OCTAVES - 1.0))
    orders = np.arange(1, min(_MOST_PARTIALS, int(0.4 * sample_rate / f0_hz)) + 1)
    if first is None or len(orders) < _FEWEST_PARTIALS:
        return None
    # First the candidate whose partials are loudest together, then a line through the peaks that are near them.
    stretched = np.sqrt(1.0 + _CANDIDATES[:, np.newaxis] * orders**2) / np.sqrt(1.0 + _CANDIDATES[:, np.newaxis])
    places = first * orders * stretched
    loudest = ndimage.maximum_filter1d(spectrum, 2 * _WITHIN_BINS + 1)
    bins = np.minimum(np.round(places).astype(int), len(spectrum) - 1)
    best = places[np.argmax(np.log(loudest[bins]).sum(axis=-1))]
    peaks = [_peak(spectrum, place, 2 * _WITHIN_BINS) for place in best]
    found = [(order, peak) for order, peak in zip(orders, peaks) if peak is not None]
    if len(found) < _FEWEST_PARTIALS:
        return None
    return min(_slope(*np.array(found).T), _CANDIDATES[-1])


def _notes(example: Mapping[str, Any], sample_rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pitch and sound, without the attack, of the notes in an example that sound alone and are not bent."""
    seconds = example["n_samples"] / sample_rate
    notes = example["notes"]
    notes = notes[np.argsort(notes[:, 0], kind="stable")]
    starts = notes[:, 0]
    if len(example["pitch_bends"]) and np.any(example["pitch_bends"][:, 1] != 0.0):
        return
    before = np.maximum.accumulate(np.concatenate([[-math.inf], notes[:-1, 1]])) if len(notes) else starts
    following = np.append(starts[1:], math.inf)
    for (start, end, pitch, _), others_end, next_start in zip(notes, before, following):
        if start < 0.0 or others_end > start + _AFTER_ONSET or pitch != round(pitch):
            continue
        end = min(end, next_start, seconds) - _BEFORE_END
        start += _AFTER_ONSET
        if end - start >= _SHORTEST:
            end = min(end, start + _LONGEST)
            yield int(pitch), example["audio"][round(start * sample_rate) : round(end * sample_rate)]


def _peak(spectrum: np.ndarray, place: float, within: float) -> float | None:
    """Bin, with its fraction, of the highest peak so near a place, where it stands out; None where none does."""
    first, last = math.floor(place - within), math.ceil(place + within)
    if last + 2 >= len(spectrum):
        return None
    highest = first + int(np.argmax(spectrum[first : last + 1]))
    around = spectrum[max(first - _AROUND, 0) : last + 1 + _AROUND]
    if highest in (first, last) or spectrum[highest] < _ABOVE_MEDIAN * np.median(around):
        return None
    left, middle, right = np.log(spectrum[highest - 1 : highest + 2])
    return highest + 0.5 * (left - right) / min(left - 2.0 * middle + right, -1e-12)


def _slope(orders: np.ndarray, frequencies: np.ndarray) -> float:
    """B of a line through (f_k / k)² over k²; partials far from it count less."""
    x, y = orders**2, (frequencies / orders) ** 2
    weights = np.ones_like(x)
    for _ in range(4):
        mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
        slope = np.sum(weights * (x - mean_x) * (y - mean_y)) / np.sum(weights * (x - mean_x) ** 2)
        begin = mean_y - slope * mean_x
        error = np.abs(y - begin - slope * x)
        weights = 1.0 / (error + np.median(error) + 1e-6 * mean_y)
    return float(slope / begin)
