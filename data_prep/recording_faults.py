"""What is wrong with a recording by itself: overloads, hum, noise, a channel that is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neural_midi_synth.data_prep.faults import WARNING, Fault
from neural_midi_synth.data_prep.hearing import LEVEL_HOP, LEVELS_A_SECOND
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE
from neural_midi_synth.data_prep.played_notes import PlayedNotes
from neural_midi_synth.data_prep.takes import Take, read_recording
from neural_midi_synth.files.audio import read_audio_info

_CLIPPED_RUN = 4  # Samples that stay at the peak: no sound but a very low one does so by itself.
_CLIPPED_FROM = 0.5  # Of full scale; what is quieter has not been cut off by a converter.
_FEWEST_CLIPPED = 3
_CLIPPED_APART = 0.05  # s
_ONE_SIDED = 30.0  # dB
_NOISE_BELOW_USUAL = 32.0  # dB: noise nearer to the notes than that is learnt with them.
_DIGITAL_SILENCE = -100.0  # dB
_HUM_FRAME = 16384
_HUM_ABOVE_NOISE, _HUM_LEVEL, _HUM_HARMONICS = 15.0, -75.0, 4  # dB, dB of full scale, multiples of the mains
_QUIET_SHARE = 0.1
_FEWEST_FRAMES = LEVELS_A_SECOND
_RINGING = 0.5  # s


def find(
    take: Take,
    recorded: np.ndarray,
    sample_rate: int,
    samples: np.ndarray,
    levels: np.ndarray,
    played: PlayedNotes,
    usual: float,
) -> list[Fault]:
    """Finds what is wrong with the recording of a take.

    Args:
        take: The take.
        recorded: Its sound, float32 `[m]`, mono.
        sample_rate: Samples per second of `recorded`.
        samples: The same at `onsets.SAMPLE_RATE`, float32 `[n]`.
        levels: From `hearing.frame_levels`.
        played: Its notes.
        usual: Level of its notes, dB of full scale.

    Returns:
        The faults; their times are those of the recording.

    Raises:
        DataError: The recording can't be read.
    """
    faults = []
    only_channel = take.item is not None and take.item.channel is not None
    if only_channel or read_audio_info(take.audio_path)[2] == 1:
        faults += _clipping([recorded], sample_rate)
    else:
        left, right = (read_recording(take, channel)[0] for channel in (0, 1))
        faults += _clipping([left, right], sample_rate) + _one_sided(left, right)
    between = levels[~_under_notes(played, len(levels)) & (levels > _DIGITAL_SILENCE)]
    floor = float(np.percentile(between, 100 * _QUIET_SHARE)) if len(between) > _FEWEST_FRAMES else -np.inf
    if floor > usual - _NOISE_BELOW_USUAL:
        message = (
            f"Between notes it is only {usual - floor:.0f} dB quieter than they are. If that is noise, it is learnt: "
            "record closer, or with less gain."
        )
        faults.append(Fault("noise", WARNING, 0.0, len(samples) / SAMPLE_RATE, None, message))
    return faults + _hum(samples, levels)


def _under_notes(played: PlayedNotes, n_frames: int) -> np.ndarray:
    """Returns which frames of `hearing.frame_levels` have a note or what rings after it, bool `[n_frames]`."""
    under = np.zeros(n_frames + 1, int)
    np.add.at(under, np.clip(((played.onsets - 0.1) * LEVELS_A_SECOND).astype(int), 0, n_frames), 1)
    np.add.at(under, np.clip(((played.ends + _RINGING) * LEVELS_A_SECOND).astype(int), 0, n_frames), -1)
    return np.cumsum(under)[:-1] > 0


def _clipping(channels: Sequence[np.ndarray], sample_rate: int) -> list[Fault]:
    """Finds where samples stay at the peak, as a converter leaves them that was given too much."""
    moments = []
    for sound in channels:
        peak = float(np.abs(sound).max(initial=0.0))
        if peak < _CLIPPED_FROM:
            continue
        at_peak = np.abs(sound) >= 0.999 * peak
        edges = np.flatnonzero(np.diff(np.concatenate([[False], at_peak, [False]]).astype(np.int8)))
        runs = edges[::2][edges[1::2] - edges[::2] >= _CLIPPED_RUN]
        moments.append(runs / sample_rate)
    times = np.unique(np.round(np.concatenate([*moments, np.zeros(0)]) / _CLIPPED_APART)) * _CLIPPED_APART
    if len(times) < _FEWEST_CLIPPED:
        return []
    message = (
        f"Overloaded in {len(times)} places, from {times[0]:.2f} s on: the peaks are cut off. "
        "Record again with less gain."
    )
    return [Fault("clipping", WARNING, float(times[0]), float(times[-1]), None, message)]


def _one_sided(left: np.ndarray, right: np.ndarray) -> list[Fault]:
    levels = [10.0 * np.log10(max(float(np.mean(np.square(each, dtype=np.float64))), 1e-12)) for each in (left, right)]
    if abs(levels[0] - levels[1]) < _ONE_SIDED:
        return []
    there, missing = ("left", "right") if levels[0] > levels[1] else ("right", "left")
    message = f"All sound is on the {there} channel, and the mean of both is used. Export the {there} one as mono: "
    message += f"the {missing} one adds nothing but noise, and the level is halved."
    return [Fault("one_sided", WARNING, 0.0, 0.0, None, message)]


def _hum(samples: np.ndarray, levels: np.ndarray) -> list[Fault]:
    """Finds the mains' frequency and its multiples where nothing is played."""
    hop = _HUM_FRAME // 4
    if len(samples) < _HUM_FRAME:
        return []
    frames = np.lib.stride_tricks.sliding_window_view(samples, _HUM_FRAME)[::hop]
    firsts = np.arange(len(frames)) * hop
    loudness = np.array([levels[first // LEVEL_HOP : (first + _HUM_FRAME) // LEVEL_HOP].max() for first in firsts])
    heard = np.flatnonzero(loudness > _DIGITAL_SILENCE)
    quiet = heard[np.argsort(loudness[heard])[: max(int(_QUIET_SHARE * len(heard)), 1)]]
    if not len(quiet):
        return []
    window = np.hanning(_HUM_FRAME) * 4.0 / _HUM_FRAME
    power = np.mean(np.abs(np.fft.rfft(frames[quiet] * window, axis=1)) ** 2, axis=0)
    decibels = 10.0 * np.log10(np.maximum(power, 1e-15)) - 3.0
    for mains in (50.0, 60.0):
        stand_out, total = 0, 0.0
        for k in range(1, _HUM_HARMONICS + 1):
            middle = round(k * mains * _HUM_FRAME / SAMPLE_RATE)
            peak = decibels[middle - 1 : middle + 2].max()
            around = np.median(decibels[middle - 14 : middle + 15])
            stand_out += peak - around > _HUM_ABOVE_NOISE
            total += 10.0 ** (peak / 10.0)
        level = 10.0 * np.log10(total)
        if stand_out >= 2 and level > _HUM_LEVEL:
            message = (
                f"Hums at {mains:.0f} Hz and its multiples ({level:.0f} dB of full scale). Turn away from amplifier "
                "and screen, check the cable, and record again; or filter it out."
            )
            return [Fault("hum", WARNING, 0.0, len(samples) / SAMPLE_RATE, None, message)]
    return []
