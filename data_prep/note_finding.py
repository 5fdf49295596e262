"""The notes of a monophonic recording: which attacks begin one, its pitch, how that moves, and where it ends."""

from __future__ import annotations

import dataclasses

import numpy as np

from neural_midi_synth.data_prep.attacks import FLUX_HOP, beginning, find_attacks, spectral_flux
from neural_midi_synth.data_prep.hearing import LEVEL_HOP, frame_levels
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE
from neural_midi_synth.data_prep.pitch_tracking import Pitch, pitch_of, track

TRACK_HOP = 160
"""Samples between two frames of a note's pitch curve, 10 ms."""

_SILENCE = -120.0  # dB
_QUIETEST = -50.0  # dB below a loud passage: a note whose peak is lower is left out
_LEAST_CLARITY = 0.35
_SAME_PITCH = 0.6  # semitones
# A note that is struck again gets louder by so many dB at least, or its attack is as strong as this flux.
_RISE, _STRONG_FLUX = 2.0, 0.12
# A string that is let go makes a noise like an attack, after which the level falls by so many dB. What is short (s) and
# quieter than the note before by so many dB is taken for such a noise, too.
_FALL, _NOISE_SECONDS, _NOISE_BELOW = 6.0, 0.11, 9.0
_SHORT_NOTE, _SHORTEST_STRETCH = 0.08, 0.03  # s
# A note has died away when it is so many dB below its peak.
_DIED_AWAY = 40.0
# Damping: so many dB within 8 levels (40 ms).
_DAMPING, _DAMPING_LEVELS = 12.0, 8
# A slur: the median pitches of 50 ms before and after are so far apart, and neither moves more than that.
_SLUR, _SLUR_STEADY, _SLUR_FRAMES = 0.75, 0.4, 5
# Of these intervals (semitones), a step of the pitch curve is more often a mistake of the curve than a slur.
_INTERVALS_OF_HARMONICS = (5, 7, 12, 19, 24, 28)
_LOW_PITCH = 46.0  # below it, the pitch curve has windows of 128 ms, not 64 ms


@dataclasses.dataclass
class FoundNote:
    """A note of a recording.

    Attributes:
        start: Seconds.
        end: Seconds.
        pitch: MIDI note number with its fraction; that which it begins with, where it is bent.
        with_fifth: Whether its fifth sounds along.
        curve: Its pitch over time, float64 `[k, 2]`: seconds, MIDI note number with its fraction; may be empty.
        peak: Highest level of its first 150 ms, in dB below a loud passage.
        doubt: What is not sure about it, in a word or two; empty if nothing is.
    """

    start: float
    end: float
    pitch: float
    with_fifth: bool
    curve: np.ndarray
    peak: float
    doubt: str


@dataclasses.dataclass
class _Candidate:
    """An attack that may begin a note: when, how strong, its pitch, and the levels around it (dB)."""

    time: float
    stop: float
    flux: float
    pitch: Pitch
    peak: float
    rise: float
    fall: float
    lasts: float
    doubt: str = ""


def find_notes(samples: np.ndarray) -> list[FoundNote]:
    """Finds the notes of a recording in which one sounds at a time.

    Args:
        samples: `[n]` float32 at 16 kHz, where 1 is a loud passage: a minute or so.

    Returns:
        The notes, sorted, none overlapping.
    """
    levels = frame_levels(samples)
    begun: list[_Candidate] = []
    for candidate in _candidates(samples, levels):
        if _begins_a_note(candidate, begun[-1] if begun else None):
            begun.append(candidate)
    duration = len(samples) / SAMPLE_RATE
    notes = []
    for i, candidate in enumerate(begun):
        last = begun[i + 1].time if i + 1 < len(begun) else duration
        notes += _with_slurs(samples, levels, candidate, _end(levels, candidate.time, last))
    return notes


def _place(seconds: float) -> int:
    """Index of the level at a time."""
    return round(seconds * SAMPLE_RATE / LEVEL_HOP)


def _candidates(samples: np.ndarray, levels: np.ndarray) -> list[_Candidate]:
    """Looks at each attack that a pitch follows."""
    times, fluxes = find_attacks(samples)
    found = []
    for time, stop, flux in zip(times, [*times[1:], len(samples) / SAMPLE_RATE], fluxes):
        if stop - time < _SHORTEST_STRETCH:
            continue
        # The first 10 ms are noise of the pick.
        pitch = pitch_of(samples[round((time + 0.01) * SAMPLE_RATE) : round(min(stop, time + 0.4) * SAMPLE_RATE)])
        if pitch is None or pitch.clarity < _LEAST_CLARITY:
            continue
        first, last = _place(time), _place(stop)
        before = levels[max(first - 8, 0) : max(first - 1, 0)]
        before = before.mean() if len(before) else _SILENCE
        # The next attack is no part of it: a level is that of 10 ms to both sides.
        own = levels[first + 1 : max(last - 2, first + 2)]
        peak = own[:30].max(initial=_SILENCE)
        sounding = np.flatnonzero(own > peak - 15.0)
        found.append(
            _Candidate(
                time,
                stop,
                flux,
                pitch,
                peak=peak,
                rise=own[:12].max(initial=_SILENCE) - before,
                fall=before - own[9:21].max(initial=_SILENCE),
                lasts=(sounding[-1] + 1) * LEVEL_HOP / SAMPLE_RATE if len(sounding) else 0.0,
            )
        )
    return found


def _begins_a_note(new: _Candidate, old: _Candidate | None) -> bool:
    """Decides whether an attack begins a note, given the note before it; tells the candidate what is doubtful."""
    if new.peak < _QUIETEST:
        return False
    interval = abs(new.pitch.pitch - old.pitch.pitch) if old else np.inf
    same, octave = interval < _SAME_PITCH, abs(interval - 12) < _SAME_PITCH
    if old is not None:
        weak = new.rise < _RISE and new.flux < _STRONG_FLUX
        let_go = new.rise < _RISE + 1.0 and new.fall > _FALL
        quieter = new.peak < old.peak - _NOISE_BELOW
        if same and (weak or let_go or (new.rise < _RISE and new.fall > _FALL / 2)):
            return False
        if quieter and new.lasts < (_NOISE_SECONDS if same else _SHORT_NOTE):
            return False
        if not same and let_go and (new.lasts < _SHORT_NOTE or octave or new.pitch.clarity < 0.6):
            return False
        if weak and new.pitch.margin < 0.03:
            return False
    if new.pitch.margin < 0.06:
        new.doubt = "pitch?"
    elif new.pitch.clarity < 0.6:
        new.doubt = "noise?"
    elif new.lasts < 0.04 or (old is not None and new.rise < _RISE and new.fall > _FALL / 2):
        new.doubt = "a note?"
    elif same and new.rise < _RISE:
        new.doubt = "struck again?"
    return True


def _end(levels: np.ndarray, start: float, last: float) -> float:
    """Finds where a note ends: where it is damped, has died away, or the next note begins at `last`."""
    first, stop = _place(start + 0.03), _place(last)
    curve = levels[first : stop + _DAMPING_LEVELS]
    n_levels = stop - first
    if n_levels < 2 or len(curve) <= _DAMPING_LEVELS:
        return last
    loudest = np.maximum.accumulate(curve)
    (died,) = np.nonzero(curve[:n_levels] < np.maximum(loudest[:n_levels] - _DIED_AWAY, _QUIETEST - 6.0))
    end = died[0] if len(died) else n_levels
    (falls,) = np.nonzero(curve[:-_DAMPING_LEVELS] - curve[_DAMPING_LEVELS:] > _DAMPING)
    for place in falls[falls < end]:
        # Between two beats, or two periods of a low note, the level comes back.
        after = curve[place + _DAMPING_LEVELS : min(place + 40, n_levels)]
        if after.max(initial=_SILENCE) < curve[place] - 8.0:
            while curve[place] - curve[place + 1] < 1.0:
                place += 1
            end = place
            break
    return min(start + 0.03 + end * LEVEL_HOP / SAMPLE_RATE, last)


def _with_slurs(samples: np.ndarray, levels: np.ndarray, candidate: _Candidate, end: float) -> list[FoundNote]:
    """Makes notes of an attack: one, and one more for each step of its pitch that has no attack."""
    curve = _pitch_curve(samples, candidate.time, end, candidate.pitch.pitch)
    starts, doubts = [candidate.time], [candidate.doubt]
    for time in _steps(curve, candidate, levels):
        around = round(time * SAMPLE_RATE)
        first = max(around - 640, 0)
        flux = spectral_flux(samples[first : around + 640])
        time = beginning(samples, first + int(np.argmax(flux[4:])) * FLUX_HOP + 4 * FLUX_HOP) if len(flux) > 4 else time
        if time - starts[-1] > _SHORT_NOTE and end - time > _SHORT_NOTE:
            starts.append(time)
            doubts.append("slur?")
    notes = []
    for start, stop, doubt in zip(starts, [*starts[1:], end], doubts):
        own = curve[(curve[:, 0] >= start) & (curve[:, 0] < stop)]
        pitch = candidate.pitch.pitch
        settled = own[(own[:, 0] > start + 0.03) & ~np.isnan(own[:, 1])][:8, 1]
        if len(settled) >= 3 and (start > candidate.time or abs(np.median(settled) - pitch) < 2.75):
            # A bent note is written as the pitch that it begins with.
            beginning_pitch = float(np.median(settled))
            if start > candidate.time or abs(beginning_pitch - pitch) > _SAME_PITCH:
                pitch = beginning_pitch
        peak = levels[_place(start) + 1 : _place(start) + 31].max(initial=_SILENCE)
        notes.append(FoundNote(start, stop, pitch, candidate.pitch.with_fifth, own, float(peak), doubt))
    return notes


def _pitch_curve(samples: np.ndarray, start: float, end: float, pitch: float) -> np.ndarray:
    """Follows the pitch of a note: seconds and MIDI note numbers, `[k, 2]`; windows lie inside the note."""
    window = 2048 if pitch < _LOW_PITCH else 1024
    first, last = round(start * SAMPLE_RATE) + window // 2, round(end * SAMPLE_RATE) - window // 2
    centres = np.arange(first, last, TRACK_HOP)
    if not len(centres):
        return np.zeros([0, 2])
    return np.stack([centres / SAMPLE_RATE, track(samples, centres, window)], axis=1)


def _steps(curve: np.ndarray, candidate: _Candidate, levels: np.ndarray) -> list[float]:
    """Finds the times (s) when a pitch curve steps from one steady pitch to another."""
    n, found = _SLUR_FRAMES, []
    pitches = curve[:, 1]
    for i in range(n + 1, len(pitches) - 2 * n):
        before, after, later = pitches[i - n - 1 : i - 1], pitches[i + 1 : i + n + 1], pitches[i + n : i + 2 * n]
        if np.isnan(before).any() or np.isnan(after).any() or np.isnan(later).any():
            continue
        interval = np.median(after) - np.median(before)
        if abs(interval) < _SLUR or max(np.ptp(before), np.ptp(after), np.ptp(later)) > _SLUR_STEADY:
            continue
        if abs(np.median(later) - np.median(after)) > _SLUR_STEADY:
            continue
        place = _place(curve[i, 0])
        rise = levels[place : place + 12].max(initial=_SILENCE) - levels[max(place - 12, 0) : place].mean()
        near_harmonic = any(abs(abs(interval) - other) < 0.5 for other in _INTERVALS_OF_HARMONICS)
        if near_harmonic and rise < _RISE:
            continue
        if not found or curve[i, 0] - found[-1] > _SHORT_NOTE:
            found.append(float(curve[i, 0]))
    return found
