"""What is wrong with a take, note by note: the sound is asked whether it has what the annotation says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from neural_midi_synth.data_prep import hearing
from neural_midi_synth.data_prep.alignment import Alignment
from neural_midi_synth.data_prep.attacks import find_attacks
from neural_midi_synth.data_prep.hearing import HIGHEST_PITCH, LEVELS_A_SECOND, LOWEST_PITCH, levels_at
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE
from neural_midi_synth.data_prep.played_notes import PlayedNotes, played_notes
from neural_midi_synth.evaluation.pictures import note_name
from neural_midi_synth.midi.pieces import Piece

CRITICAL, WARNING = "critical", "warning"

_OFF_TIME = 0.045  # s: a note so far from its sound is said to be early or late.
_FARTHEST = 0.4  # s: a sound without a note may belong to a note so far away that has none.
_ZERO_LENGTH = 0.012  # s
_LEGATO, _LEGATO_SHARE = 0.1, 0.5  # Notes of a line may overlap as much: seconds, and share of the shorter one.
_SILENT_BELOW_USUAL = 36.0  # dB
_NO_ONSET = 2.5  # dB: a note whose start has no greater rise has not been played.
_AT_ONSET = 0.06  # s
# Another pitch is heard where it is so many times as salient as the annotated one, and so many times as it is in nine
# of ten notes of this style: a power chord's fifth always is.
_OTHER_PITCH, _OCTAVE, _BEYOND_USUAL, _SHORT_NOTE, _OF_SHORT = 1.15, 1.0, 1.3, 0.15, 1.2
_STRIDE, _WINDOW = 0.06, 0.13  # s: how the time between two notes is looked through for a sound without a note
_GONE = 0.55  # A pitch as little salient as that does not sound any more.
# A stroke gets the sound louder by so many dB, and most of it lasts; what a finger leaving the string does is short.
_STROKE, _LASTING_STROKE, _STROKE_SECONDS = 5.5, 4.0, 0.12
# What bows and breath do to a note that sounds gets it louder, too, but nothing sets in within so many seconds.
_STROKE_TO_ATTACK = 0.05
_LOUD_BELOW_USUAL = 22.0  # dB
_REST, _LONGEST_REST = 0.1, 0.4  # s: rests from this length on are listened to, and for how long at most.
# Rests tell something where a take has so many, and all but so many percent of them get quieter by so many dB.
_FEWEST_RESTS, _SOUNDING_PERCENT, _QUIETER = 8, 25, 8.0
_AS_LOUD = 2.5  # dB: a rest that gets quieter by less than that has a note that is not annotated.
# s: how far from the onset of a note a sound may begin and be its own; where the onset was found, and where not.
_APART, _APART_UNSURE = 0.09, 0.085
# s: how finely a change of pitch is looked for, and from where on it counts; and how salient the new pitch must be.
_CHANGE_STEP, _CLEARLY_OFF, _CLEAR_PITCH = 0.02, 0.105, 0.85


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something wrong with a take.

    Attributes:
        kind: One of those that `docs/record.md` lists.
        tier: `CRITICAL`, which stops the training, or `WARNING`.
        start: When it begins, s in the annotation's own time.
        end: When it ends, s.
        pitch: MIDI note number of the note that it is about; None where it is not about a note.
        message: What is wrong, its likely causes, and what to do, for a musician.
    """

    kind: str
    tier: str
    start: float
    end: float
    pitch: float | None
    message: str


def find(
    samples: np.ndarray, levels: np.ndarray, piece: Piece, alignment: Alignment
) -> tuple[list[Fault], hearing.HeardNotes, PlayedNotes]:
    """Finds notes of a take that the sound contradicts, and sounds that no note accounts for.

    Args:
        samples: float32 `[n]` at `onsets.SAMPLE_RATE`.
        levels: From `hearing.frame_levels`.
        piece: The annotation, as it is.
        alignment: From `alignment.align`.

    Returns:
        The faults, sorted by time; what is heard of each note; and the notes.
    """
    played = played_notes(piece, alignment)
    if not len(played.notes):
        return [], hearing.listen(samples, levels, played.onsets, played.ends), played
    one_voice = len(piece.voices) == 1
    ends = np.minimum(played.ends, np.append(played.onsets[1:], np.inf)) if one_voice else played.ends
    heard = hearing.listen(samples, levels, played.onsets, ends)
    usual = float(np.median(heard.levels))
    faults = _written_faults(piece)
    silent = heard.levels < max(usual - _SILENT_BELOW_USUAL, float(np.percentile(levels, 2)) + 6.0)
    rises = _rises_at(levels, played.onsets)
    wrong = _wrong_pitches(played, heard) if one_voice else {}
    stray = _stray_sounds(samples, levels, played, usual) if one_voice else []
    changes = _pitch_changes(samples, played) if one_voice else {}
    for i, pitch in wrong.items():
        before = played.pitches[i - 1] if i else -100.0
        if not silent[i] and rises[i] < _NO_ONSET and abs(pitch - before) < 0.7:
            silent[i] = True  # What is heard is the note before, still ringing.
    off_time = _off_time(played, changes, silent, stray)
    early = {fault.start for fault in off_time}  # Overlaps that come of it are mended with it.
    faults = [fault for fault in faults if fault.kind != "overlap" or fault.start not in early] + off_time
    for i in np.flatnonzero(silent):
        faults.append(_silent(played.notes[i]))
    for i, pitch in wrong.items():
        if not silent[i] and played.notes[i, 0] not in early:
            faults.append(_wrong(played.notes[i], pitch))
    faults += [_unannotated(start, end, pitch, alignment) for start, end, pitch in stray]
    return sorted(faults, key=lambda fault: fault.start), heard, played


def _written_faults(piece: Piece) -> list[Fault]:
    """Finds what is wrong with an annotation by itself: notes without length, and notes of a line that overlap."""
    faults = []
    for voice in piece.voices:
        for i, (start, end, pitch, _) in enumerate(voice.notes):
            name = f"{note_name(pitch)} at {start:.2f} s"
            if end - start < _ZERO_LENGTH:
                message = f"{name} lasts {1e3 * (end - start):.0f} ms. Draw it as long as it sounds, or delete it."
                faults.append(Fault("zero_length", WARNING, start, end, pitch, message))
            elif i + 1 < len(voice.notes):
                next_start, next_end = voice.notes[i + 1, :2]
                shorter = min(end - start, next_end - next_start)
                if end - next_start > max(min(_LEGATO, _LEGATO_SHARE * shorter), 0.02):
                    message = (
                        f"{name} lasts until {end:.2f} s, but the next note begins at {next_start:.2f} s. Shorten it."
                    )
                    faults.append(Fault("overlap", WARNING, next_start, end, pitch, message))
    return faults


def _rises_at(levels: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """Returns by how many dB the sound gets louder around each onset."""
    reach = round(_AT_ONSET * LEVELS_A_SECOND)
    padded = np.pad(levels, (2 * reach, 2 * reach), mode="edge")
    centres = np.clip(np.round(onsets * LEVELS_A_SECOND).astype(int), 0, len(levels) - 1) + 2 * reach
    window = padded[centres[:, np.newaxis] + np.arange(-reach - 8, reach + 8)]
    lowest = np.minimum.accumulate(window, axis=1)
    return (window - lowest).max(axis=1)


def _wrong_pitches(played: PlayedNotes, heard: hearing.Heard) -> dict[int, float]:
    """Finds notes of which another pitch is heard; returns it by the number of the note."""
    n_pitches = HIGHEST_PITCH - LOWEST_PITCH + 1
    rows = np.clip(np.round(played.pitches).astype(int) - LOWEST_PITCH, 0, n_pitches - 1)
    intervals = np.arange(-24, 25)
    columns = rows[:, np.newaxis] + intervals
    there = (columns >= 0) & (columns < n_pitches)
    own = np.maximum(heard.saliences[np.arange(len(rows)), rows], 1e-3)
    saliences = np.take_along_axis(heard.saliences, np.clip(columns, 0, n_pitches - 1), axis=1)
    ratios = np.where(there, saliences, 0.0) / own[:, np.newaxis]
    least = np.where(intervals % 12 == 0, _OCTAVE, _OTHER_PITCH)[np.newaxis] * np.ones_like(ratios)
    _, style = np.unique(played.styles, axis=0, return_inverse=True)
    for each in range(style.max(initial=-1) + 1):
        alike = style.ravel() == each
        least[alike] = np.maximum(least[alike], _BEYOND_USUAL * np.percentile(ratios[alike], 90, axis=0))
    is_short = played.ends - played.onsets < _SHORT_NOTE  # Its octave is heard less well.
    least[is_short[:, np.newaxis] & (intervals % 12 == 0)] *= _OF_SHORT
    near = np.abs(intervals) < 1  # A note may be bent by up to a semitone while it sounds.
    beyond = np.where(near, 0.0, ratios / least)
    best = np.argmax(beyond, axis=1)
    return {
        int(i): float(LOWEST_PITCH + columns[i, best[i]])
        for i in np.flatnonzero(beyond[np.arange(len(rows)), best] > 1.0)
    }


def _stray_sounds(
    samples: np.ndarray, levels: np.ndarray, played: PlayedNotes, usual: float
) -> list[tuple[float, float, float]]:
    """Finds sounds that begin where no note does; returns start, end (s of the recording) and pitch of each."""
    end = len(samples) / SAMPLE_RATE
    loud = usual - _LOUD_BELOW_USUAL
    times, pitches, rises = _new_pitches(samples, played, levels, loud)
    found = [(time, pitch) for time, pitch, rise in zip(times, pitches, rises, strict=True) if rise > 3.0]
    strokes, _ = hearing.rises(levels, _STROKE, loud)
    before, after = (levels_at(levels, strokes + away) for away in (-0.02, _STROKE_SECONDS))
    strokes = strokes[(after - before > _LASTING_STROKE) & (after > loud)]
    begun = np.append(strokes, _sounding_rests(levels, played, loud, end))
    heard_there = hearing.saliences(samples, begun + 0.03, begun + 0.03 + _WINDOW)
    pitches = (LOWEST_PITCH + np.argmax(heard_there, axis=1)).astype(float)
    are_new = ~_swells(samples, begun, pitches, played, usual)
    found += list(zip(begun[are_new].tolist(), pitches[are_new], strict=True))
    strays: list[tuple[float, float, float]] = []
    starts = np.sort(played.onsets)
    accounts_for = np.where(played.sure, _APART, _APART_UNSURE)
    for time, pitch in sorted(found):
        accounted = np.any(np.abs(played.onsets - time) < accounts_for)
        after_other = not strays or time - strays[-1][0] > 0.12
        if not accounted and after_other and time < end - 0.1:
            following = starts[starts > time]
            strays.append((time, float(min(following[0] if len(following) else end, time + 0.5)), pitch))
    return strays


def _swells(
    samples: np.ndarray, times: np.ndarray, pitches: np.ndarray, played: PlayedNotes, usual: float
) -> np.ndarray:
    """Tells where a note swells, as vibrato and bows make it: its own pitch gets louder, but there is no attack.

    Args:
        samples: float32 `[n]` at `onsets.SAMPLE_RATE`.
        times: When the sound gets louder, s, `[m]`.
        pitches: What is heard then, MIDI note numbers, `[m]`.
        played: The notes.
        usual: Level of the notes, dB of full scale.

    Returns:
        bool `[m]`.
    """
    if not len(times):
        return np.zeros(0, bool)
    note = np.maximum(np.searchsorted(played.onsets, times) - 1, 0)
    sounds = (played.onsets[note] < times) & (times < played.ends[note])
    attacks, _ = find_attacks(samples / np.float32(10.0 ** (usual / 20.0)))
    sets_in = np.any(np.abs(attacks - times[:, np.newaxis]) < _STROKE_TO_ATTACK, axis=1)
    return sounds & (np.abs(pitches - played.pitches[note]) < 0.7) & ~sets_in


def _sounding_rests(levels: np.ndarray, played: PlayedNotes, loud: float, end: float) -> np.ndarray:
    """Finds rests in which the sound goes on as in the note before; none where rests of the take often sound so.

    Args:
        levels: From `hearing.frame_levels`.
        played: The notes.
        loud: What is quieter, dB, does not count as sound.
        end: Of the recording, s.

    Returns:
        When they begin, s.
    """
    following = np.append(played.onsets[1:], end)
    ends = np.maximum.accumulate(played.ends)
    are_rests = following - ends > _REST
    begins = ends[are_rests]
    lengths = np.minimum(following[are_rests] - begins, _LONGEST_REST)
    inside = np.array([levels_at(levels, begins + share * lengths) for share in np.linspace(0.3, 0.9, 7)])
    before = np.array([levels_at(levels, begins - away) for away in (0.02, 0.04, 0.06)])
    falls = np.median(before, axis=0) - np.median(inside, axis=0)
    if len(falls) < _FEWEST_RESTS or np.percentile(falls, _SOUNDING_PERCENT) < _QUIETER:
        return np.zeros(0)
    return begins[(falls < _AS_LOUD) & (np.min(inside, axis=0) > loud)]


def _new_pitches(
    samples: np.ndarray, played: PlayedNotes, levels: np.ndarray, loud: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds where between two onsets another pitch begins to sound than that of the first.

    Returns:
        Times, s; MIDI note numbers; and by how many dB the sound gets louder there.
    """
    end = len(samples) / SAMPLE_RATE
    following = np.append(played.onsets[1:], end)
    of_note, times = [], []
    for i, (onset, until) in enumerate(zip(played.onsets, following, strict=True)):
        steps = np.arange(onset + 0.1, until - _WINDOW, _STRIDE)
        times.append(steps)
        of_note.append(np.full(len(steps), i))
    times, of_note = np.concatenate(times), np.concatenate(of_note)
    saliences = hearing.saliences(samples, times, times + _WINDOW)
    strongest = np.argmax(saliences, axis=1)
    rows = np.clip(np.round(played.pitches[of_note]).astype(int) - LOWEST_PITCH, 1, saliences.shape[1] - 2)
    own = np.max([saliences[np.arange(len(times)), rows + d] for d in (-1, 0, 1)], axis=0)
    is_loud = levels_at(levels, times + 0.5 * _WINDOW) > loud
    other = (own < _GONE) & is_loud
    # Two windows that follow each other, of one note, with one other pitch; the first such pair of a row of them.
    pair = other[:-1] & other[1:] & (of_note[:-1] == of_note[1:]) & (np.abs(np.diff(strongest)) <= 1)
    first = pair & ~np.append(False, other[:-2] & (of_note[:-2] == of_note[1:-1]))
    at = np.flatnonzero(first)
    begun = times[at] + _STRIDE
    return begun, (LOWEST_PITCH + strongest[at + 1]).astype(float), _rises_at(levels, begun)


def _off_time(
    played: PlayedNotes, changes: dict[int, float], silent: np.ndarray, stray: list[tuple[float, float, float]]
) -> list[Fault]:
    """Finds notes that lie beside their sounds.

    Args:
        played: The notes.
        changes: From `_pitch_changes`.
        silent: Which notes seem not to be heard; corrected where their sound is found beside them.
        stray: From `_stray_sounds`; those that turn out to be a note's are taken out.
    """
    faults = []
    for i, (start, end, pitch, _) in enumerate(played.notes):
        off_by = float(played.off_by[i])
        if not played.sure[i]:
            near = [each for each in stray if abs(each[0] - played.starts[i]) < _FARTHEST and _alike(each[2], pitch)]
            if near:
                nearest = min(near, key=lambda each: abs(each[0] - played.starts[i]))
                stray.remove(nearest)
                off_by, silent[i] = nearest[0] - played.starts[i], False
            elif abs(changes.get(i, 0.0)) > _CLEARLY_OFF:
                off_by, silent[i] = changes[i], False
        if abs(off_by) >= _OFF_TIME and not silent[i]:
            kind, way = ("early", "before") if off_by > 0 else ("late", "after")
            message = (
                f"{note_name(pitch)} at {start:.2f} s is annotated {1e3 * abs(off_by):.0f} ms {way} it sounds. "
                "Move it to its attack."
            )
            faults.append(Fault(kind, WARNING, start, end, pitch, message))
    return faults


def _alike(heard: float, pitch: float) -> bool:
    """Whether a pitch may be that of a note, or an octave or a power chord's fifth beside it."""
    return min(abs((heard - pitch) % 12 - interval) for interval in (0, 7, 12)) < 0.6


def _pitch_changes(samples: np.ndarray, played: PlayedNotes) -> dict[int, float]:
    """Finds by how much later than annotated the pitch of the note before gives way to that of a note.

    Args:
        samples: float32 `[n]` at `onsets.SAMPLE_RATE`.
        played: The notes; those without a clear onset are looked at.

    Returns:
        Number of the note → seconds, for those whose pitch is another than that of the note before.
    """
    steps = np.arange(-0.3, 0.3, _CHANGE_STEP)
    changes = {}
    looked_at = [i for i in np.flatnonzero(~played.sure) if i and abs(played.pitches[i] - played.pitches[i - 1]) > 0.7]
    starts = played.starts[looked_at]
    times = starts[:, np.newaxis] + steps
    found = hearing.saliences(samples, np.maximum(times.ravel() - 0.064, 0.0), times.ravel() + 0.064)
    found = found.reshape([len(looked_at), len(steps), found.shape[1]])
    for row, i in enumerate(looked_at):
        pitch, before = (
            int(np.clip(round(played.pitches[j]), LOWEST_PITCH, HIGHEST_PITCH)) - LOWEST_PITCH for j in (i, i - 1)
        )
        until = played.starts[i + 1] if i + 1 < len(played.starts) else np.inf
        there = (times[row] > played.starts[i - 1] + 0.05) & (times[row] < min(until, played.ends[i] + 0.1) - 0.05)
        newer = np.where(found[row, :, pitch] > found[row, :, before], 1.0, -1.0)[there]
        if len(newer) > 3 and newer[-1] > 0 > newer[0]:
            # The step that parts before from after best.
            step = int(np.argmin(np.cumsum(newer))) + 1
            clear = np.mean(np.concatenate([newer[:step] < 0, newer[step:] > 0])) > 0.9
            if clear and found[row, there, pitch][step:].mean() > _CLEAR_PITCH:
                changes[int(i)] = float(times[row][there][step] - played.starts[i])
    return changes


def _silent(note: Sequence[float]) -> Fault:
    start, end, pitch, _ = note
    message = (
        f"{note_name(pitch)} at {start:.2f} s is annotated, but nothing is heard there. Delete the note, or record it."
    )
    return Fault("silent_note", WARNING, start, end, pitch, message)


def _wrong(note: Sequence[float], heard: float) -> Fault:
    start, end, pitch, _ = note
    octave = "an octave " if abs(abs(heard - pitch) - 12) < 0.6 else ""
    message = (
        f"{note_name(pitch)} at {start:.2f} s sounds {octave}{'higher' if heard > pitch else 'lower'}, as "
        f"{note_name(heard)}. Move the note there, or check the tuning."
    )
    return Fault("wrong_pitch", WARNING, start, end, pitch, message)


def _unannotated(start: float, end: float, pitch: float, alignment: Alignment) -> Fault:
    start, end = (float(alignment.annotated(each)) for each in (start, end))
    message = (
        f"A sound like {note_name(pitch)} begins at {start:.2f} s, but no note is annotated there. Add it, or cut the "
        "sound."
    )
    return Fault("unannotated_sound", WARNING, start, end, pitch, message)
