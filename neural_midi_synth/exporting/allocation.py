"""In graph: which voice plays each note of a request, by the rules of `midi.allocation`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.controls import COLUMNS, PADDING, has_length
from neural_midi_synth.midi.allocation import LEGATO_OVERLAP, LEGATO_SHARE


def divide(notes: tf.Tensor, most: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Divides the notes of pieces into voices, as many as it takes.

    Where all pieces of the batch are monophonic, and so one voice each, this costs next to nothing; else the notes are
    gone through one by one.

    Args:
        notes: `[batch, n, 4]`: start (s), end (s), MIDI pitch, velocity; in any order, padded with `PADDING`. Rows that
            `Controls` would ignore are left out.
        most: The most voices of a piece, from 1.

    Returns:
        Notes float64 `[batch, voices, n_of_voice, 4]`, each voice by start and padded with `PADDING`; and the number of
        voices, an int32 scalar from 1: that of the piece which has the most.
    """
    notes, is_note = _in_order(notes)
    voices = tf.cond(
        _is_monophonic(notes, is_note),
        lambda: tf.zeros(tf.shape(notes)[:2], tf.int32),
        lambda: _allocate(notes, most),
    )
    voices = tf.where(is_note, voices, -1)
    n_voices = tf.reduce_max(tf.pad(voices, [[0, 0], [0, 1]])) + 1

    in_voice = tf.one_hot(voices, n_voices, dtype=tf.int32)
    place = tf.reduce_sum(tf.cumsum(in_voice, axis=1) * in_voice, axis=2) - 1
    n_of_voice = tf.reduce_max(tf.pad(place, [[0, 0], [0, 1]], constant_values=-1)) + 1
    rows = tf.cast(tf.where(is_note), tf.int32)
    indices = tf.stack([rows[:, 0], tf.gather_nd(voices, rows), tf.gather_nd(place, rows)], axis=1)
    padding = tf.fill([tf.shape(notes)[0], n_voices, n_of_voice, COLUMNS["notes"]], tf.constant(PADDING, tf.float64))
    return tf.tensor_scatter_nd_update(padding, indices, tf.gather_nd(notes, rows)), n_voices


def _in_order(notes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Notes float64 by start, those of one start by pitch, and which rows are notes; all others are padding, last."""
    is_note = has_length(notes)
    notes = tf.where(is_note[..., tf.newaxis], tf.cast(notes, tf.float64), PADDING)
    for column in (2, 0):
        order = tf.argsort(tf.where(is_note, notes[..., column], float("inf")), axis=1, stable=True)
        notes, is_note = (tf.gather(each, order, batch_dims=1) for each in (notes, is_note))
    return notes, is_note


def _is_monophonic(notes: tf.Tensor, is_note: tf.Tensor) -> tf.Tensor:
    """Whether each note goes to the voice of the note before it, in all pieces."""
    start, end, pitch, _ = tf.unstack(notes, axis=-1)
    overlap = tf.minimum(end[:, :-1], end[:, 1:]) - start[:, 1:]
    longest_legato = _longest_legato(start, end)
    is_legato = overlap <= tf.minimum(longest_legato[:, :-1], longest_legato[:, 1:])
    has_ended = end[:, :-1] <= start[:, 1:]
    return tf.reduce_all(has_ended | (pitch[:, :-1] == pitch[:, 1:]) | is_legato | ~is_note[:, 1:])


def _longest_legato(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """The longest overlap of a note with another, in seconds, that is legato."""
    return tf.minimum(LEGATO_SHARE * (end - start), LEGATO_OVERLAP)


class _Note(NamedTuple):
    """What the rules have to know of notes: float64 tensors of one shape.

    Attributes:
        start: s.
        end: s.
        pitch: MIDI note number.
        longest_legato: The longest overlap with another note, s, that is legato.
        start_rank: Place of `start` among all starts and ends of the piece, a fraction from 0 to below 1.
        end_rank: Place of `end`, likewise.
    """

    start: tf.Tensor
    end: tf.Tensor
    pitch: tf.Tensor
    longest_legato: tf.Tensor
    start_rank: tf.Tensor
    end_rank: tf.Tensor


# A voice without a note: as one that has ended, but after those that really have.
_UNUSED = _Note(-np.inf, -np.inf, -np.inf, -np.inf, 0.0, 1.0)


def _facts(notes: tf.Tensor) -> tf.Tensor:
    """`[batch, n, 4]` to the six fields of `_Note`, float64 `[6, batch, n]`."""
    start, end, pitch, _ = tf.unstack(notes, axis=-1)
    times = tf.sort(tf.concat([start, end], axis=1), axis=1)
    ranks = (tf.cast(tf.searchsorted(times, each), tf.float64) * 2.0**-32 for each in (start, end))
    return tf.stack(_Note(start, end, pitch, _longest_legato(start, end), *ranks))


def _allocate(notes: tf.Tensor, most: int) -> tf.Tensor:
    """The voice of each note, one note of each piece after the other.

    Args:
        notes: `[batch, n, 4]`, in order, and padding last.
        most: The most voices of a piece.

    Returns:
        int32 `[batch, n]`.
    """
    batch, n_notes = tf.unstack(tf.shape(notes)[:2])
    facts = tf.transpose(_facts(notes), [2, 0, 1])[..., tf.newaxis]
    numbers = np.arange(most)

    def allocate_one(
        i: tf.Tensor, last: tf.Tensor, voices: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        """Note `i`; `last` tells of the last note of each voice, `[6, batch, most]`."""
        note = tf.gather(facts, i)
        scores = _scores(_Note(*tf.unstack(last)), _Note(*tf.unstack(note)))
        voice = tf.argmin(scores + numbers * 2.0**-40, axis=1)  # The first of those that suit equally.
        last = tf.where(numbers == voice[:, tf.newaxis], note, last)
        return i + 1, last, voices.write(i, voice)

    unused = tf.tile(np.reshape(_UNUSED, [-1, 1, 1]), [1, batch, most])
    *_, voices = tf.while_loop(
        lambda i, *_: i < n_notes,
        allocate_one,
        (0, unused, tf.TensorArray(tf.int64, n_notes, element_shape=[None])),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([len(_UNUSED), None, most]), None),
        parallel_iterations=1,
    )
    return tf.cast(tf.transpose(voices.stack()), tf.int32)


def _scores(last: _Note, note: _Note) -> tf.Tensor:
    """How well voices suit a note by the rules of `midi.allocation`, the lowest score best.

    Args:
        last: The last note of each voice, `[batch, voices]`.
        note: One note of each piece, `[batch, 1]`.

    Returns:
        float64 `[batch, voices]`.
    """
    has_same_pitch = last.pitch == note.pitch
    overlap = tf.minimum(last.end, note.end) - note.start
    is_legato = overlap <= tf.minimum(last.longest_legato, note.longest_legato)
    # Of several it was legato with, the one that began last; of those that have ended, the first; at last, the oldest.
    other_lasts = tf.where(is_legato, 1.0 - last.start_rank, 5.0 + last.start_rank)
    if_lasts = tf.where(has_same_pitch, np.float64(0.0), other_lasts)
    if_ended = tf.where(has_same_pitch, np.float64(2.0), 3.0 + last.end_rank)
    return tf.where(last.end <= note.start, if_ended, if_lasts)
