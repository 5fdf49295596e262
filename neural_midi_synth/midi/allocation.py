"""Divides notes that overlap into voices: chords apart, a melody with its legato together.

The rules need nothing but the last note of each voice, so a TensorFlow graph can repeat them. Notes are taken in the
order of their starts, those of one start from low to high, those of one pitch too in the order given, and each goes to
the first of these that there is:

1. The voice whose last note has the same pitch and has not ended: the string is struck again.
2. The voice whose last note overlaps the new one as fingers do in legato, by no more than `LEGATO_OVERLAP` seconds
   and by no more than `LEGATO_SHARE` of the shorter of both. Of several, the one whose last note began last.
3. The voice whose last note has ended and had the same pitch.
4. The voice whose last note has ended, the earliest of them.
5. A new voice, or, if there may be no more, the voice whose last note began earliest.

Where this leaves several, the voice of the lowest number. A note that has not ended when the next of its voice begins
ends there. An overlap is from the start of the newer note to the end of that of both which ends earlier. A note ends
before another begins also if both happen at one time.
"""

from __future__ import annotations

import numpy as np

# Notes of one voice may overlap by this many seconds, as fingers do in legato, and by no more than this share of the
# shorter note, so that short chords are not taken for legato.
LEGATO_OVERLAP = 0.1
LEGATO_SHARE = 0.5


def allocate(notes: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Finds the voice of each note by the rules above.

    Args:
        notes: `[n, 4]`: start (s), end (s), pitch, velocity; in any order.
        limit: The most voices there may be, from 1; unless given, as many as it takes.

    Returns:
        `[n]` int64: number of the voice, from 0, of each row.
    """
    voices: list[tuple[float, float, float]] = []  # Start, end and pitch of the last note of each.
    result = np.zeros(len(notes), np.int64)
    order = np.lexsort((notes[:, 2], notes[:, 0]))
    for i, (start, end, pitch) in zip(order, notes[order, :3].tolist()):
        voice = _find(voices, start, end, pitch)
        if voice is None and limit is not None and len(voices) >= limit:
            voice = min(range(len(voices)), key=lambda number: voices[number][0])
        if voice is None:
            voice = len(voices)
            voices.append((start, end, pitch))
        voices[voice] = (start, end, pitch)
        result[i] = voice
    return result


def _find(voices: list[tuple[float, float, float]], start: float, end: float, pitch: float) -> int | None:
    """Finds the voice of a note by rules 1 to 4."""
    legato = same_pitch = ended = None
    for i, (last_start, last_end, last_pitch) in enumerate(voices):
        if last_end <= start:
            if last_pitch == pitch and same_pitch is None:
                same_pitch = i
            if ended is None or last_end < voices[ended][1]:
                ended = i
        elif last_pitch == pitch:
            return i
        elif _is_legato(last_start, last_end, start, end) and (legato is None or last_start > voices[legato][0]):
            legato = i
    return next((i for i in (legato, same_pitch, ended) if i is not None), None)


def _is_legato(last_start: float, last_end: float, start: float, end: float) -> bool:
    overlap = min(last_end, end) - start
    return overlap <= LEGATO_OVERLAP and overlap <= LEGATO_SHARE * min(last_end - last_start, end - start)


def divide(notes: np.ndarray, limit: int | None = None) -> list[np.ndarray]:
    """Divides notes into voices by the rules above.

    Args:
        notes: `[n, 4]`: start (s), end (s), pitch, velocity; in any order.
        limit: The most voices there may be, from 1; unless given, as many as it takes.

    Returns:
        Notes `[n_i, 4]` of each voice, sorted by start, none overlapping; without those that are left with no length.
    """
    voices = allocate(notes, limit)
    return [newest_wins(notes[voices == voice]) for voice in range(voices.max(initial=-1) + 1)]


def is_monophonic(notes: np.ndarray) -> bool:
    """Tells whether notes, `[n, 4]`, overlap no more than legato playing does, and so are one voice."""
    return not allocate(notes).any()


def newest_wins(notes: np.ndarray) -> np.ndarray:
    """Ends each note of a voice where the next one begins, and drops those which that leaves without length.

    Args:
        notes: `[n, 4]`: start (s), end (s), pitch, velocity; in any order.

    Returns:
        `[m, 4]`, sorted by start; of notes that begin together the highest is left.
    """
    notes = notes[np.lexsort((notes[:, 2], notes[:, 0]))]
    notes[:-1, 1] = np.minimum(notes[:-1, 1], notes[1:, 0])
    return notes[notes[:, 1] > notes[:, 0]]
