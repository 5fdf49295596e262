"""In graph, notes go to the voices that `midi.allocation` gives them."""

import functools

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_midi_synth.exporting import allocation
from neural_midi_synth.instrument.controls import PADDING
from neural_midi_synth.midi.allocation import allocate

# Twentieths of a second: starts and ends often coincide, and overlaps are often just legato (0.1 s) or just not.
ON_GRID = st.tuples(st.integers(0, 24), st.integers(-1, 12), st.integers(60, 63)).map(
    lambda note: (note[0] / 20, (note[0] + note[1]) / 20, note[2], 90)
)
SECONDS = st.floats(0, 3, width=32, allow_subnormal=False)  # TensorFlow takes subnormal numbers for 0.
ANYWHERE = st.tuples(SECONDS, SECONDS, st.floats(40, 41, width=32)).map(
    lambda note: (note[0], note[0] + note[1], note[2], 1)
)
IGNORED = st.sampled_from(
    [(PADDING,) * 4, (2 * PADDING, 1, 60, 90), (0, np.inf, 60, 90), (np.nan, 1, 60, 90), (0.2, 0.4, np.nan, 90)]
)


@functools.cache
def graph(most):
    """The graph for up to `most` voices, of any number of pieces and notes, as it is exported."""
    spec = tf.TensorSpec([None, None, 4], tf.float32)
    return tf.function(lambda notes: allocation.divide(notes, most), autograph=False).get_concrete_function(spec)


@st.composite
def batches(draw, note):
    """Pieces of as many rows each, float32 `[batch, n, 4]`."""
    n_notes = draw(st.integers(0, 16))
    rows = st.lists(note, min_size=n_notes, max_size=n_notes)
    pieces = draw(st.lists(rows, min_size=1, max_size=3))
    return np.reshape(np.array(pieces, np.float32), [len(pieces), n_notes, 4])


@settings(max_examples=500, deadline=None)
@given(batches(ON_GRID | IGNORED) | batches(ANYWHERE), st.integers(1, 4) | st.just(32))
def test_notes_go_to_the_voices_that_they_have_in_a_file(pieces, most):
    expected = []
    for piece in pieces.astype(np.float64):
        notes = piece[np.isfinite(piece).all(axis=1) & (piece[:, 0] > PADDING) & (piece[:, 1] > piece[:, 0])]
        voices = allocate(notes, most)
        order = np.lexsort((notes[:, 2], notes[:, 0]))
        expected.append([notes[order][voices[order] == voice] for voice in range(voices.max(initial=-1) + 1)])
    found, n_voices = (value.numpy() for value in graph(most)(tf.constant(pieces)))
    assert n_voices == found.shape[1] == max(1, *map(len, expected), 1)
    for of_piece, of_file in zip(found, expected):
        for voice, notes in zip(of_piece, [*of_file, *[np.zeros([0, 4])] * (n_voices - len(of_file))]):
            np.testing.assert_array_equal(voice[: len(notes)], notes)
            np.testing.assert_array_equal(voice[len(notes) :], PADDING)
