"""Single notes of an instrument as samples: played in batches, measured, looped where they are steady, cut."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import soxr
import tensorflow as tf

from neural_midi_synth.instrument.controls import COLUMNS, padded
from neural_midi_synth.instrument.instrument import Instrument

SILENT_DB = -80.0
"""Below the peak of a sample: what is quieter is silence."""

_BEFORE_SECONDS = 0.25  # Of silence before a note, in which the network comes to rest.
_UNHEARD_SECONDS = 30.0  # By which notes outlast their samples.
_TAKE_OFFSET = 2**26  # Samples from one take of a note to the next, whose noise is another.
_BATCH_SECONDS = 80  # Of sound that is played at once.
_FADE_IN_SECONDS = 0.001
_FADE_OUT_SECONDS = 0.02
# Levels are those of windows as long as several periods of the lowest notes.
_LEVEL_SECONDS = 0.2
_STEADY_SECONDS = 3.0  # At the end of a long note, by which it is told whether it is steady,
_STEADY_DB = 1.5  # and by how much its level may move there.
_LOOP_SECONDS = (0.2, 0.45)
_MATCHED_SECONDS = 0.1  # Of sound that has to be the same where a loop begins and where it ends.
_LOOP_FADE_SECONDS = 0.05
# Samplers' release is an exponential: over `ampeg_release` it falls by e^-9.
_RELEASE_DB = 9.0 * 20.0 * np.log10(np.e)
_RELEASE_WINDOW_SECONDS = 0.01
_RELEASE_FALL_DB = 50.0  # As far as a release is followed.
_RELEASE_LIMITS = (0.01, 10.0)


@dataclasses.dataclass(frozen=True)
class Note:
    """A note to be sampled.

    Attributes:
        pitch: MIDI note number.
        velocity: 1 to 127.
        styles: Controller number → value, 0 to 127.
        take: Which of several that differ in nothing but their noise.
    """

    pitch: int
    velocity: int
    styles: dict[int, int]
    take: int = 0


@dataclasses.dataclass(frozen=True)
class Loop:
    """A stretch of a sample that is played again and again.

    Attributes:
        start: Its first sample.
        end: The one after its last.
    """

    start: int
    end: int


def play(
    instrument: Instrument, notes: Sequence[Note], seconds: float, tail: float = 0.0, sample_rate: int | None = None
) -> np.ndarray:
    """Plays notes, each by itself, in batches.

    Notes of one take have the same noise, and their partials begin with the same phases. So the samples of a pitch
    add up like the curves of one: a mixture of two velocities or styles has partials in between, without beats.

    Args:
        instrument: What plays.
        notes: At least one.
        seconds: How long each lasts.
        tail: What is played after its end, s. Without a tail the end is beyond what is played, so that an instrument
            which is told beforehand when notes end does not prepare for it.
        sample_rate: Of the audio; the instrument's unless given.

    Returns:
        Audio float32 `[notes, n_samples]`, from the notes' onset.
    """
    before = round(_BEFORE_SECONDS * instrument.frame_rate) / instrument.frame_rate
    first = round(before * instrument.sample_rate)
    n_samples = first + round((seconds + tail) * instrument.sample_rate)
    end = before + seconds + (0.0 if tail else _UNHEARD_SECONDS)
    most = max(1, int(_BATCH_SECONDS * instrument.sample_rate / n_samples))
    (graph,) = instrument.traced("samples", functools.partial(_trace, instrument))
    rate = sample_rate or instrument.sample_rate
    batches = []
    for begin in range(0, len(notes), most):
        batch = notes[begin : begin + most]
        rows = [
            {
                "notes": [(before, end, note.pitch, note.velocity)],
                "control_changes": [(0.0, number, value) for number, value in note.styles.items()],
                "pitch_bends": [],
            }
            for note in batch
        ]
        takes = tf.constant([note.take * _TAKE_OFFSET for note in batch], tf.int64)
        audio = graph(padded(rows), takes, tf.constant(n_samples)).numpy()
        if rate != instrument.sample_rate:
            audio = soxr.resample(audio.T, instrument.sample_rate, rate, "VHQ").T
        batches.append(audio[:, round(before * rate) :][:, : round((seconds + tail) * rate)])
    return np.concatenate(batches)


def _trace(instrument: Instrument) -> Sequence[tf.types.experimental.ConcreteFunction]:
    def graph(rows: dict[str, tf.Tensor], first_sample: tf.Tensor, n_samples: tf.Tensor) -> tf.Tensor:
        return instrument({**rows, "first_sample": first_sample}, n_samples=n_samples)

    rows = {name: tf.TensorSpec([None, None, columns], tf.float64) for name, columns in COLUMNS.items()}
    specs = (rows, tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int32))
    return [tf.function(graph, autograph=False).get_concrete_function(*specs)]


def levels(audio: np.ndarray, sample_rate: int, window: float = _LEVEL_SECONDS) -> np.ndarray:
    """Returns root mean square levels of windows that follow each other, dB of full scale.

    Args:
        audio: float `[..., n]`.
        sample_rate: Samples a second.
        window: Length of a window, s.

    Returns:
        float `[..., windows]`; what does not fill a window is left out.
    """
    size = round(window * sample_rate)
    windows = audio[..., : audio.shape[-1] // size * size].reshape([*audio.shape[:-1], -1, size])
    return 10.0 * np.log10(np.mean(np.square(windows, dtype=np.float64), axis=-1) + 1e-20)


def steady_after(audio: np.ndarray, sample_rate: int) -> float | None:
    """Finds when long notes have come to the level that they keep, or to silence.

    Args:
        audio: Notes that last throughout, float `[notes, n]`.
        sample_rate: Samples a second.

    Returns:
        Seconds after which no note moves by more than a decibel and a half; None where one does to its end.
    """
    level = levels(audio, sample_rate)
    level = np.maximum(level, level.max(axis=1, keepdims=True) + SILENT_DB)
    n_last = round(_STEADY_SECONDS / _LEVEL_SECONDS)
    kept = level[:, -n_last:].mean(axis=1, keepdims=True)
    moving = np.flatnonzero((np.abs(level - kept) > _STEADY_DB).any(axis=0))
    first = moving[-1] + 1 if len(moving) else 0
    return None if first > level.shape[1] - n_last else first * _LEVEL_SECONDS


def find_loop(audio: np.ndarray, sample_rate: int) -> Loop:
    """Finds the loop at the end of samples that are steady there: the one stretch after which all of them come again.

    All samples of a pitch get the same, so that they stay together however long a note lasts.

    Args:
        audio: Samples of one pitch, float `[samples, n]`, of at least a second.
        sample_rate: Samples a second.

    Returns:
        The loop; it ends with the samples.
    """
    shortest, longest = (round(seconds * sample_rate) for seconds in _LOOP_SECONDS)
    size = round(_MATCHED_SECONDS * sample_rate)
    end = audio.shape[1]
    alike = np.zeros(longest - shortest + 1)
    for sample in audio.astype(np.float64):
        pattern, before = sample[end - size :], sample[end - size - longest : end - shortest]
        n_fft = 1 << (len(before) + size).bit_length()
        product = np.fft.irfft(np.fft.rfft(before, n_fft) * np.conj(np.fft.rfft(pattern, n_fft)), n_fft)
        energies = np.convolve(np.square(before), np.ones(size), "valid")
        alike += product[: len(alike)] / np.sqrt(np.maximum(energies * np.sum(np.square(pattern)), 1e-20))
    length = longest - int(np.argmax(alike))
    return Loop(end - length, end)


def cut(sample: np.ndarray, sample_rate: int, loop: Loop | None) -> tuple[np.ndarray, Loop | None]:
    """Ends a sample: with its loop, where it still sounds there, or else where it has died away.

    Args:
        sample: float `[n]`, to the end of the loop.
        sample_rate: Samples a second.
        loop: Where it may be looped.

    Returns:
        The sample, float32, faded in and out; what comes before the loop's start fades in before its end, so that it
        goes on without a click. And the loop, or None where there is none.
    """
    sample = np.array(sample, np.float32)
    n_in, n_out, n_loop = (
        round(seconds * sample_rate) for seconds in (_FADE_IN_SECONDS, _FADE_OUT_SECONDS, _LOOP_FADE_SECONDS)
    )
    sample[:n_in] *= np.linspace(0.0, 1.0, n_in, dtype=np.float32)
    sounding = np.flatnonzero(np.abs(sample) > 10 ** (SILENT_DB / 20) * np.abs(sample).max())
    last = int(sounding[-1]) + 1 if len(sounding) else 1
    if loop is not None and last > loop.start:
        fade = np.linspace(0.0, 1.0, n_loop, dtype=np.float32)
        before = sample[loop.start - n_loop : loop.start]
        sample[loop.end - n_loop : loop.end] = (1 - fade) * sample[loop.end - n_loop : loop.end] + fade * before
        return sample[: loop.end], loop
    sample = sample[: last + n_out]
    n_out = min(n_out, len(sample))
    sample[len(sample) - n_out :] *= np.linspace(1.0, 0.0, n_out, dtype=np.float32)
    return sample, None


def release_seconds(audio: np.ndarray, sample_rate: int, offset: float) -> float | None:
    """Measures how a note dies away after its end, as samplers say it: the time of an exponential's fall by e^-9.

    Args:
        audio: A note and what follows, float `[n]`.
        sample_rate: Samples a second.
        offset: Its end, s.

    Returns:
        Seconds, 0.01 to 10; None where the note was silent by then.
    """
    first = round(offset * sample_rate)
    before = levels(audio[:first], sample_rate)
    at_end = levels(audio[first - round(2 * _RELEASE_WINDOW_SECONDS * sample_rate) : first], sample_rate, 0.02)[0]
    if at_end < before.max() + SILENT_DB / 2:
        return None
    fall = at_end - levels(audio[first:], sample_rate, _RELEASE_WINDOW_SECONDS)
    followed = min(_RELEASE_FALL_DB, fall.max() - 6.0)
    n_windows = int(np.argmax(fall >= followed)) + 1
    times = (np.arange(n_windows) + 0.5) * _RELEASE_WINDOW_SECONDS
    rate = np.sum(times * fall[:n_windows]) / np.sum(np.square(times))
    return float(np.clip(_RELEASE_DB / max(rate, 1.0), *_RELEASE_LIMITS))
