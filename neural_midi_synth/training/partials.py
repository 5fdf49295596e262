"""Measures how a recorded instrument is tuned and how stiff its strings are, by where the partials of its notes lie.

Partial k of a stiff string lies at k f0 √(1 + B k²) (Fletcher, 1964). So (f_k / k)² is a line over k²: where it begins
is f0², and its slope over that is the inharmonicity coefficient B. What is not a string, or a bowed one, whose bow
holds all partials together, has a slope of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from scipy import fft, ndimage

from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.strings import PITCHES
from neural_midi_synth.midi.pieces import in_force

MOST_NOTES = 8
"""Notes of a pitch that are looked at."""

_SHORTEST, _LONGEST = 0.4, 2.0  # s of a note that are looked at
_AFTER_ONSET, _BEFORE_END = 0.08, 0.03  # s that are not
_TRANSFORM_SECONDS = 4.0  # Notes are padded with silence to that: bins of a quarter of a Hz.
_MOST_PARTIALS = 20
_FEWEST_PARTIALS = 6
# Of the notes of a plucked or struck string so many have so large a B, at least. Noise and vibrato make one of 1e-6.
_SURE_SHARE, _LEAST_STRETCHED = 0.75, 3e-6
# Of B: up to that of a piano's shortest strings.
_CANDIDATES = np.append(0.0, np.geomspace(_LEAST_STRETCHED, 2e-3, 300))
_WITHIN_OCTAVES = 1.0 / 24.0  # of its pitch the first partial is looked for
# How far to either side of its middle a partial moves, and how often the middle is looked for, from the last one on.
_VIBRATO_OCTAVES, _TIMES_BALANCED = 1.0 / 24.0, 4
_WITHIN_BINS = 4  # of where another is expected
_ABOVE_MEDIAN = 8.0  # What a partial's magnitude must be, as a multiple of the median around it
_AROUND = 20  # bins to either side.
_BELOW_PEAK = 1e-4  # Magnitudes below this share of the highest count as that.
_FEWEST_NOTES = 3  # of a pitch tell how it is tuned
_AUDIBLE_OFFSET = 0.05  # semitones: beside another instrument that is in tune


class Measured(NamedTuple):
    """What is measured of each MIDI note number; between pitches that were played, from those next to it.

    Attributes:
        tuning: Semitones by which it sounds higher than in equal temperament with A at 440 Hz, float32 `[128]`.
        inharmonicity: B, float32 `[128]`; 0 throughout where most notes are not stretched.
        offset: Semitones, the median of all notes' tunings.
    """

    tuning: np.ndarray
    inharmonicity: np.ndarray
    offset: float


class Note(NamedTuple):
    """What is measured of a note.

    Attributes:
        tuning: Semitones by which it sounds higher than it should.
        inharmonicity: B, which noise can make negative; None where there are too few partials.
    """

    tuning: float
    inharmonicity: float | None


def measure_for(instrument: Instrument, builder: tfds.core.DatasetBuilder) -> None:
    """Gives an instrument its tuning and its strings' stiffness, where its config has them."""
    if instrument.strings is None and instrument.tuning is None:
        return
    measured = measure(builder)
    if instrument.strings is not None:
        instrument.strings.coefficients.assign(measured.inharmonicity)
    if instrument.tuning is not None:
        instrument.tuning.semitones.assign(measured.tuning)
        if abs(measured.offset) >= _AUDIBLE_OFFSET:
            way = "sharp" if measured.offset > 0.0 else "flat"
            print(f"The recordings are {100.0 * abs(measured.offset):.0f} cents {way}, and so is the instrument.")


def measure(builder: tfds.core.DatasetBuilder) -> Measured:
    """Measures each pitch in what a data set has for training.

    Args:
        builder: A prepared data set.
    """
    sample_rate = builder.info.metadata["sample_rate"]
    tunings: dict[int, list[float]] = {}
    coefficients: dict[int, list[float]] = {}
    looked_at: dict[int, int] = {}
    for example in builder.as_dataset(split="train").as_numpy_iterator():
        for pitch, samples in _notes(example, sample_rate):
            number = round(pitch)
            if looked_at.get(number, 0) < MOST_NOTES:
                looked_at[number] = looked_at.get(number, 0) + 1
                note = of_note(samples, 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), sample_rate)
                if note is not None:
                    tunings.setdefault(number, []).append(note.tuning)
                    if note.inharmonicity is not None:
                        coefficients.setdefault(number, []).append(note.inharmonicity)
    measured = np.array([each for of_pitch in coefficients.values() for each in of_pitch])
    if not len(measured) or np.mean(measured > _LEAST_STRETCHED) < _SURE_SHARE:
        coefficients = {}
    offset = float(np.median([each for of_pitch in tunings.values() for each in of_pitch] or [0.0]))
    # One note may be another than the annotated one, or played out of tune: where there are few, the offset counts.
    sure = {pitch: [*values, *[offset] * (_FEWEST_NOTES - len(values))] for pitch, values in tunings.items()}
    return Measured(_medians(sure), np.maximum(_medians(coefficients), 0.0), offset)


def _medians(found: Mapping[int, Sequence[float]]) -> np.ndarray:
    """The median of what was found at each pitch, float32 `[128]`: linear between them, 0 without any."""
    pitches = sorted(found)
    medians = [float(np.median(found[pitch])) for pitch in pitches]
    return np.interp(np.arange(PITCHES), pitches or [0], medians or [0.0]).astype(np.float32)


def of_note(samples: np.ndarray, f0_hz: float, sample_rate: int) -> Note | None:
    """Measures one note.

    Args:
        samples: Of the note alone, without its attack, float `[n]`.
        f0_hz: Its fundamental frequency, right to half a semitone.
        sample_rate: Samples a second.

    Returns:
        How it is tuned and how its partials are stretched; None where no first partial stands out, or partials lie as
        those of no string do.
    """
    size = fft.next_fast_len(int(_TRANSFORM_SECONDS * sample_rate), real=True)
    spectrum = np.abs(fft.rfft(samples * np.hanning(len(samples)), size))
    spectrum = np.maximum(spectrum, _BELOW_PEAK * spectrum.max())
    place = f0_hz * size / sample_rate
    first = _peak(spectrum, place, place * (2.0**_WITHIN_OCTAVES - 1.0))
    if first is None:
        return None
    orders = np.arange(1, min(_MOST_PARTIALS, int(0.4 * sample_rate / f0_hz)) + 1)
    # First the candidate whose partials are loudest together, then a line through the peaks that are near them.
    stretched = np.sqrt(1.0 + _CANDIDATES[:, np.newaxis] * orders**2) / np.sqrt(1.0 + _CANDIDATES[:, np.newaxis])
    places = first * orders * stretched
    loudest = ndimage.maximum_filter1d(spectrum, 2 * _WITHIN_BINS + 1)
    bins = np.minimum(np.round(places).astype(int), len(spectrum) - 1)
    best = places[np.argmax(np.log(loudest[bins]).sum(axis=-1))]
    peaks = [_peak(spectrum, place, 2 * _WITHIN_BINS) for place in best]
    found = [(order, _balance(spectrum, peak)) for order, peak in zip(orders, peaks) if peak is not None]
    if len(found) < _FEWEST_PARTIALS:
        return Note(12.0 * math.log2(_balance(spectrum, first) / place), None)
    begin, slope = _line(*np.array(found).T)
    if begin <= 0.0:
        return None
    return Note(12.0 * math.log2(math.sqrt(begin) / place), min(slope / begin, _CANDIDATES[-1]))


def _notes(example: Mapping[str, Any], sample_rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """Pitch and sound, without the attack, of the notes in an example that sound alone and keep their pitch."""
    seconds = example["n_samples"] / sample_rate
    order = np.argsort(example["notes"][:, 0], kind="stable")
    notes, voices = example["notes"][order], example["note_voices"][order]
    starts = notes[:, 0]
    before = np.maximum.accumulate(np.concatenate([[-math.inf], notes[:-1, 1]])) if len(notes) else starts
    following = np.append(starts[1:], math.inf)
    for (start, end, pitch, _), voice, others_end, next_start in zip(notes, voices, before, following):
        if start < 0.0 or others_end > start + _AFTER_ONSET:
            continue
        end = min(end, next_start, seconds) - _BEFORE_END
        start += _AFTER_ONSET
        times, bends = example["pitch_bends"][example["pitch_bend_voices"] == voice].T
        bend = np.append(bends, 0.0)[in_force(times, start)]  # The last of them where there is none yet.
        moves = np.any(bends[(times > start) & (times < end)] != bend)
        if end - start >= _SHORTEST and not moves:
            end = min(end, start + _LONGEST)
            yield float(pitch + bend), example["audio"][round(start * sample_rate) : round(end * sample_rate)]


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


def _balance(spectrum: np.ndarray, peak: float) -> float:
    """Bin, with its fraction, about which the power around a peak is balanced: vibrato has peaks where it turns."""
    place = peak
    for _ in range(_TIMES_BALANCED):
        first, last = (round(place * 2.0**octaves) for octaves in (-_VIBRATO_OCTAVES, _VIBRATO_OCTAVES))
        bins = np.arange(first, min(last + 1, len(spectrum)))
        place = float(np.average(bins, weights=spectrum[bins] ** 2))
    return place


def _line(orders: np.ndarray, frequencies: np.ndarray) -> tuple[float, float]:
    """Begin and slope of a line through (f_k / k)² over k²; partials far from it count less."""
    x, y = orders**2, (frequencies / orders) ** 2
    weights = np.ones_like(x)
    for _ in range(4):
        mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
        slope = np.sum(weights * (x - mean_x) * (y - mean_y)) / np.sum(weights * (x - mean_x) ** 2)
        begin = mean_y - slope * mean_x
        error = np.abs(y - begin - slope * x)
        weights = 1.0 / (error + np.median(error) + 1e-6 * mean_y)
    return float(begin), float(slope)
