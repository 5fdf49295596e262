"""In graph: which voice plays each note of a request, by the rules of `midi.allocation`."""

from __future__ import annotations

import tensorflow as tf

from neural_midi_synth.instrument.controls import PADDING, has_length
from neural_midi_synth.midi.allocation import LEGATO_OVERLAP, LEGATO_SHARE

# The rules of `midi.allocation` by their order there: the same pitch lasts, legato, the same pitch has ended, another
# has ended, a new voice; and last, a voice whose note is cut off.
_STRUCK_AGAIN, _LEGATO, _SAME_PITCH, _ENDED, _NEW, _STOLEN = range(6)


def notes_of_voices(notes: tf.Tensor, most: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Divides the notes of pieces into voices, as many as it takes.

    Args:
        notes: `[batch, n, 4]`: start s, end s, MIDI pitch, velocity; in any order, padded with `PADDING`.
        most: The most voices. Where more notes overlap, the one that began earliest ends.

    Returns:
        Notes `[batch, voices, n_of_voice, 4]`, padded with `PADDING`, and the number of voices, an int32 scalar from 1.
    """
    notes = tf.where(has_length(notes)[..., tf.newaxis], tf.cast(notes, tf.float64), PADDING)
    for column in (2, 0):  # By start, and by pitch where starts are equal; padding goes last.
        keys = tf.where(notes[..., 0] > PADDING, notes[..., column], float("inf"))
        notes = tf.gather(notes, tf.argsort(keys, axis=1, stable=True), batch_dims=1)
    is_note = notes[..., 0] > PADDING
    voices = tf.cond(
        _is_monophonic(notes, is_note),
        lambda: tf.zeros(tf.shape(notes)[:2], tf.int32),
        lambda: _allocated(notes, is_note, most),
    )
    voices = tf.where(is_note, voices, -1)
    n_voices = tf.maximum(tf.reduce_max(voices, initial_value=0) + 1, 1)

    member = tf.one_hot(voices, n_voices, dtype=tf.int32)
    place = tf.reduce_sum(tf.cumsum(member, axis=1) * member, axis=2) - 1
    longest = tf.reduce_max(tf.reduce_sum(member, axis=1), initial_value=0)
    where = tf.where(is_note)
    of_batch = tf.cast(where[:, 0], tf.int32)
    indices = tf.stack([of_batch, tf.gather_nd(voices, where), tf.gather_nd(place, where)], axis=1)
    empty = tf.fill([tf.shape(notes)[0], n_voices, longest, 4], tf.constant(PADDING, tf.float64))
    return tf.tensor_scatter_nd_update(empty, indices, tf.gather_nd(notes, where)), n_voices


def _is_monophonic(notes: tf.Tensor, is_note: tf.Tensor) -> tf.Tensor:
    """Whether each note, sorted by start, could follow the one before in the same voice."""
    last, note = notes[:, :-1], notes[:, 1:]
    follows = (last[..., 1] <= note[..., 0]) | (last[..., 2] == note[..., 2]) | _is_legato(last, note)
    return tf.reduce_all(follows | ~is_note[:, 1:])


def _is_legato(last: tf.Tensor, note: tf.Tensor) -> tf.Tensor:
    overlap = tf.minimum(last[..., 1], note[..., 1]) - note[..., 0]
    shorter = tf.minimum(last[..., 1] - last[..., 0], note[..., 1] - note[..., 0])
    return (overlap <= LEGATO_OVERLAP) & (overlap <= LEGATO_SHARE * shorter)


def _allocated(notes: tf.Tensor, is_note: tf.Tensor, most: int) -> tf.Tensor:
    """The voice of each note, int32 `[batch, n]`, one after the other in the order of their starts."""
    batch, n_notes = tf.unstack(tf.shape(notes)[:2])
    by_time = tf.transpose(notes, [1, 0, 2])
    valid = tf.transpose(is_note)

    def turn(i: tf.Tensor, newest: tf.Tensor, voices: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        note = by_time[i][:, tf.newaxis]
        used = newest[..., 0] > PADDING
        same_pitch = newest[..., 2] == note[..., 2]
        ended = newest[..., 1] <= note[..., 0]
        rank_ended = tf.where(same_pitch, _SAME_PITCH, _ENDED)
        rank_lasting = tf.where(same_pitch, _STRUCK_AGAIN, tf.where(_is_legato(newest, note), _LEGATO, _STOLEN))
        rank = tf.where(used, tf.where(ended, rank_ended, rank_lasting), _NEW)
        best = tf.reduce_min(rank, axis=1, keepdims=True)
        # Of several by one rule: the latest start in legato, the earliest end, the earliest start; else the first.
        key = tf.where(rank == _LEGATO, -newest[..., 0], tf.where(rank == _ENDED, newest[..., 1], newest[..., 0]))
        has_key = (rank == _LEGATO) | (rank == _ENDED) | (rank == _STOLEN)
        key = tf.where(rank == best, tf.where(has_key, key, tf.zeros_like(key)), float("inf"))
        voice = tf.argmin(key, axis=1, output_type=tf.int32)
        taken = tf.one_hot(voice, most, on_value=True, off_value=False) & valid[i][:, tf.newaxis]
        newest = tf.where(taken[..., tf.newaxis], note, newest)
        return i + 1, newest, voices.write(i, voice)

    newest = tf.fill([batch, most, 4], tf.constant(PADDING, tf.float64))
    voices = tf.TensorArray(tf.int32, n_notes, element_shape=[None])
    *_, voices = tf.while_loop(
        lambda i, *_: i < n_notes,
        turn,
        (0, newest, voices),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, most, 4]), None),
    )
    return tf.transpose(voices.stack())
