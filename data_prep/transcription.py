"""A first annotation of a recording: its notes with velocities, bends and styles, and what is not sure about them.

For recordings in which one note sounds at a time, of any length: they are worked on in pieces of a minute. What is
found is a draft, for its musician to correct.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from neural_midi_synth.data_prep.hearing import LEVEL_HOP, frame_levels
from neural_midi_synth.data_prep.note_finding import FoundNote, find_notes
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE
from neural_midi_synth.data_prep.openness import OPEN, Timbre, guess_openness, timbre_of
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.midi.pieces import Voice

OPENNESS, POWER_CHORD = 55, 56
"""Controller numbers of the styles that are guessed."""
PIECE_SECONDS = 60.0
# Before a piece, so that what sounds at its beginning is known; after it, so that its last note is heard to its end.
_BEFORE, _AFTER = 2.0, 12.0  # s
_LOUD_PERCENTILE = 99.0
_SILENT = 1e-4  # -80 dB of full scale
# Fewer notes with a fifth than this share are mistakes, not power chords.
_LEAST_POWER_CHORDS = 0.03
# A bend is written where the pitch is so far (semitones) from its note, in so many frames of 10 ms at least.
_LEAST_BEND, _BEND_FRAMES, _BEND_STEP, _WIDEST_BEND = 0.2, 6, 0.03, 2.75
# A note bent further than this may have been meant as another note. Less detuning than this is not written.
_BENT_FAR, _LEAST_DETUNING = 0.6, 0.1  # semitones
_LEAST_OPENNESS_STEP = 12.0
_MOST_UNPITCHED = 0.1  # share of the notes; of single notes it is 1 %, of chords 20 %
# Velocities: the quietest and the loudest twentieth of the notes get these, and what is between them is in dB.
_SOFT, _HARD, _SOFTEST = 40.0, 120.0, 1.0
_LEAST_RANGE = 12.0  # dB between soft and hard: playing that is even gets even velocities.


@dataclasses.dataclass(frozen=True)
class Heard:
    """What was heard in one recording.

    Attributes:
        path: The recording.
        notes: Its notes, at least one; levels in dB of full scale.
        timbres: How each of them sounds.
        duration: Of the recording, in seconds.
    """

    path: pathlib.Path
    notes: tuple[FoundNote, ...]
    timbres: tuple[Timbre, ...]
    duration: float


@dataclasses.dataclass(frozen=True)
class Draft:
    """The draft of one recording's annotation.

    Attributes:
        path: The recording.
        voice: Notes, control changes and pitch bends.
        doubts: What is not sure: seconds, and a word or two; sorted.
        duration: Of the recording, in seconds.
    """

    path: pathlib.Path
    voice: Voice
    doubts: tuple[tuple[float, str], ...]
    duration: float


def hear(path: str | os.PathLike, progress: Callable[[float], object] = lambda seconds: None) -> Heard:
    """Listens to a recording.

    Args:
        path: Of any format and sample rate that `read_audio` reads.
        progress: Is told, now and then, how many more seconds have been heard.

    Returns:
        Its notes.

    Raises:
        DataError: The file can't be read, is silent, or no note is found in it.
    """
    samples, _ = read_audio(path, SAMPLE_RATE)
    loud = _loudness(samples)
    if not loud:
        raise DataError(f"{path}: is silent throughout. Record or export it again.")
    heard: list[tuple[FoundNote, Timbre]] = []
    duration = len(samples) / SAMPLE_RATE
    for start in np.arange(0.0, duration, PIECE_SECONDS):
        end = min(start + PIECE_SECONDS, duration)
        for note, timbre in _of_piece(samples, loud, start, end):
            if heard:  # One that began in the piece before was followed without knowing of this one.
                heard[-1][0].end = min(heard[-1][0].end, note.start)
            heard.append((note, timbre))
        progress(end - start)
    heard = [(note, timbre) for note, timbre in heard if note.end > note.start]
    if not heard:
        raise DataError(f"{path}: no note is found in it. Give a recording in which one note sounds at a time.")
    notes, timbres = zip(*heard)
    return Heard(pathlib.Path(path), notes, timbres, duration)


def write_down(recordings: Sequence[Heard]) -> tuple[list[Draft], list[str]]:
    """Writes down what was heard in recordings of one instrument, which are compared with each other.

    Args:
        recordings: At least one.

    Returns:
        The draft of each, in order; and remarks on them all, each a sentence for their musician.
    """
    remarks = []
    notes = [note for recording in recordings for note in recording.notes]
    timbres = [timbre for recording in recordings for timbre in recording.timbres]
    detuning = _detuning(np.array([note.pitch for note in notes]))
    if detuning:
        remarks.append(
            f"The instrument is {abs(detuning) * 100:.0f} cents {'sharp' if detuning > 0 else 'flat'}: every note is "
            "bent by that."
        )
    pitches = np.clip(np.round([note.pitch - detuning for note in notes]), 0, 127)
    if np.mean([note.doubt == "pitch?" for note in notes]) > _MOST_UNPITCHED:
        remarks.append(
            "Many of the notes have no clear pitch: where several sound at once, as in chords, this draft is of no use."
        )
    openness = guess_openness(timbres, pitches)
    if openness is None:
        remarks.append("The notes don't fall into muted and open ones, so openness (CC55) is 127 throughout.")
        openness = np.full(len(notes), OPEN)
    else:
        remarks.append(
            f"{np.mean(openness < 64):.0%} of the notes sound muted: openness (CC55) is guessed from how bright each "
            "note is."
        )
    fifths = np.array([note.with_fifth for note in notes])
    power_chords = fifths.mean() >= _LEAST_POWER_CHORDS
    if power_chords:
        remarks.append(f"{fifths.sum()} notes sound with their fifth and are written as power chords (CC56).")
    velocities = guess_velocities(np.array([note.peak for note in notes]), pitches)
    drafts, first = [], 0
    for recording in recordings:
        own = slice(first, first + len(recording.notes))
        first = own.stop
        controls = _held(recording.notes, OPENNESS, openness[own], _LEAST_OPENNESS_STEP)
        if power_chords:
            controls += _held(recording.notes, POWER_CHORD, np.where(fifths[own], 127.0, 0.0), 1.0)
        bends, doubts = _bends_and_doubts(recording.notes, pitches[own], detuning, power_chords)
        times = np.array([(note.start, note.end) for note in recording.notes])
        voice = Voice(
            np.column_stack([times, pitches[own], velocities[own]]),
            np.array(sorted(controls)),
            np.array(bends).reshape([-1, 2]),
        )
        drafts.append(Draft(recording.path, voice, tuple(doubts), recording.duration))
    return drafts, remarks


def _loudness(samples: np.ndarray) -> float:
    """Returns the amplitude that 1 % of the samples exceed, of those that are not silence; 0 without any."""
    edges = np.concatenate([[0.0], np.geomspace(_SILENT, 16.0, 400)])
    counts = np.zeros(len(edges) - 1, np.int64)
    for first in range(0, len(samples), 1 << 20):  # There may be hours of them.
        counts += np.histogram(np.minimum(np.abs(samples[first : first + (1 << 20)]), 15.9), edges)[0]
    sounding = counts[1:]
    if not sounding.sum():
        return 0.0
    place = np.searchsorted(np.cumsum(sounding), _LOUD_PERCENTILE / 100.0 * sounding.sum())
    return float(edges[1:][place])


def _of_piece(samples: np.ndarray, loud: float, start: float, end: float) -> list[tuple[FoundNote, Timbre]]:
    """Finds the notes that begin in a piece of a recording, and measures them; their times are the recording's."""
    first = max(round((start - _BEFORE) * SAMPLE_RATE), 0)
    piece = np.asarray(samples[first : round((end + _AFTER) * SAMPLE_RATE)]) / np.float32(loud)
    offset = first / SAMPLE_RATE
    levels = frame_levels(piece)
    found = []
    for note in find_notes(piece):
        if not start <= note.start + offset < end:
            continue
        timbre = timbre_of(piece, levels, LEVEL_HOP, note.start, note.end)
        note.start, note.end = note.start + offset, note.end + offset
        note.curve[:, 0] += offset
        note.peak += 20.0 * np.log10(loud)
        found.append((note, timbre))
    return found


def _detuning(pitches: np.ndarray) -> float:
    """Finds how far all pitches are from those of 440 Hz, -0.5 to 0.5 semitones; 0 where that is little."""
    directions = np.exp(2j * np.pi * pitches)
    detuning = float(np.angle(directions.mean()) / (2 * np.pi))
    return detuning if abs(detuning) >= _LEAST_DETUNING else 0.0


def _held(
    notes: Sequence[FoundNote], number: int, values: np.ndarray, least_step: float
) -> list[tuple[float, float, float]]:
    """Writes a control change where the value of a note is another than the one in force; the first at time 0."""
    controls, in_force = [], None
    for i, (note, value) in enumerate(zip(notes, values)):
        value = float(round(value))
        if in_force is None or abs(value - in_force) >= least_step or (value != in_force and value in (0.0, OPEN)):
            controls.append((note.start if i else 0.0, number, value))
            in_force = value
    return controls


def _bends_and_doubts(
    notes: Sequence[FoundNote], pitches: np.ndarray, detuning: float, power_chords: bool
) -> tuple[list[tuple[float, float]], list[tuple[float, str]]]:
    """Writes the bends of notes (s, semitones), and what is not sure about them (s, words)."""
    bends, doubts = [(0.0, detuning)] if detuning else [], []
    for note, pitch in zip(notes, pitches):
        doubt = note.doubt or ("a fifth?" if note.with_fifth and not power_chords else "")
        curve = _bend_of(note, pitch, detuning)
        if curve is None:
            curve = [(note.start, detuning)]
        elif max(abs(semitones - detuning) for _, semitones in curve) > _BENT_FAR:
            doubt = doubt or "bent from where?"
        if doubt:
            doubts.append((float(note.start), doubt))
        for time, semitones in curve:
            in_force = bends[-1][1] if bends else 0.0
            if abs(semitones - in_force) >= _BEND_STEP or (semitones != in_force and time == note.start):
                bends.append((time, semitones))
    return bends, doubts


def _bend_of(note: FoundNote, pitch: float, detuning: float) -> list[tuple[float, float]] | None:
    """Finds how a note is bent, as times (s) and semitones; None where it keeps its pitch."""
    from scipy import ndimage

    times, semitones = note.curve[:, 0], note.curve[:, 1] - pitch
    known = np.isfinite(semitones) & (np.abs(semitones - detuning) < _WIDEST_BEND)
    if known.sum() < _BEND_FRAMES:
        return None
    semitones = ndimage.median_filter(np.interp(times, times[known], semitones[known]), 5, mode="nearest")
    if np.sum(np.abs(semitones - detuning) > _LEAST_BEND) < _BEND_FRAMES:
        return None
    return [(note.start, float(semitones[0])), *zip(times.tolist(), semitones.tolist())]


def guess_velocities(levels: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    """Turns the levels of notes into velocities.

    High strings are quieter than low ones however they are struck, so what a line over pitch explains is taken off.

    Args:
        levels: `[n]`: dB at the attacks.
        pitches: `[n]`: MIDI note numbers.

    Returns:
        `[n]` float64, whole, 1 to 127. Where all notes are equally loud, they are all in the middle.
    """
    if np.ptp(pitches) > 0:
        slope = np.polyfit(pitches, levels, 1)[0]
        levels = levels - slope * (pitches - np.median(pitches))
    soft, hard = np.percentile(levels, [5.0, 95.0])
    middle, span = (soft + hard) / 2, max(hard - soft, _LEAST_RANGE)
    velocities = (_SOFT + _HARD) / 2 + (levels - middle) / span * (_HARD - _SOFT)
    return np.clip(np.round(velocities), _SOFTEST, 127.0)
