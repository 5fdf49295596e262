"""Chords are divided into voices by rules that are told; a melody stays one voice."""

import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from neural_midi_synth.midi.allocation import allocate, divide, is_monophonic, newest_wins


def voices_of(*notes, limit=None):
    """Voice of each (start, end, pitch)."""
    return allocate(np.array([(*note, 100) for note in notes], np.float64).reshape([-1, 4]), limit).tolist()


def test_a_melody_is_one_voice_legato_included():
    assert voices_of((0, 1, 60), (1, 2, 62), (1.95, 3, 64), (5, 6, 60)) == [0, 0, 0, 0]
    assert voices_of() == []


def test_notes_are_taken_by_start_then_from_low_to_high():
    assert voices_of((0, 1, 67), (0, 1, 60), (0, 1, 64)) == [2, 0, 1]
    assert voices_of((1, 3, 60), (0, 2, 62)) == [1, 0]


@pytest.mark.parametrize(
    "second",
    [
        (0, 1, 43),  # a chord
        (0.03, 1, 43),  # strummed
        (0.85, 2, 43),  # longer than legato
        (0.5, 0.55, 43),  # a melody over a held note: all of the shorter note overlaps
        (0.95, 1.04, 43),  # more than half of the shorter note
    ],
)
def test_what_overlaps_more_than_legato_gets_a_voice_of_its_own(second):
    assert voices_of((0, 1, 40), second) == [0, 1]
    assert not is_monophonic(np.array([[0, 1, 40, 100], [*second, 100]]))


def test_the_same_pitch_again_is_the_same_string():
    assert voices_of((0, 4, 60), (0, 4, 64), (2, 3, 64), (2.5, 5, 60)) == [0, 1, 1, 0]


def test_legato_goes_to_the_note_that_began_last():
    chord = [(0, 1.05, 40), (0.5, 1.05, 50)]
    assert voices_of(*chord, (1, 2, 60)) == [0, 1, 1]
    assert voices_of(*chord, (1, 2, 60), (1, 2, 70)) == [0, 1, 1, 0]
    # The one that began last of two that began together is the one of the lower number.
    assert voices_of((0, 1.05, 40), (0, 1.05, 50), (1, 2, 60)) == [0, 1, 0]


def test_a_free_voice_of_the_same_pitch_comes_before_the_one_free_for_longest():
    assert voices_of((0, 1, 40), (0, 2, 50), (0, 3, 60), (4, 5, 50), (4, 5, 61)) == [0, 1, 2, 1, 0]
    assert voices_of((0, 2, 40), (0, 1, 50), (3, 4, 60)) == [0, 1, 1]
    assert voices_of((0, 1, 40), (0, 1, 50), (3, 4, 60)) == [0, 1, 0]


def test_at_the_limit_the_oldest_note_gives_way():
    notes = [(0, 9, 40), (1, 9, 50), (2, 9, 60), (3, 9, 70)]
    assert voices_of(*notes) == [0, 1, 2, 3]
    assert voices_of(*notes, limit=2) == [0, 1, 0, 1]
    assert voices_of(*notes, limit=1) == [0, 0, 0, 0]
    cut = divide(np.array([(*note, 100) for note in notes], np.float64), limit=2)
    np.testing.assert_array_equal(cut[0][:, :3], [[0, 2, 40], [2, 9, 60]])
    np.testing.assert_array_equal(cut[1][:, :3], [[1, 3, 50], [3, 9, 70]])


def test_the_newest_note_wins_in_a_voice():
    notes = np.array([[1, 2, 62, 90], [0, 3, 60, 90], [1, 4, 60, 80]])
    np.testing.assert_array_equal(newest_wins(notes), [[0, 1, 60, 90], [1, 2, 62, 90]])
    np.testing.assert_array_equal(notes[1], [0, 3, 60, 90])  # What was given is as it was.


def test_twice_the_same_note_at_once_is_one_note():
    (voice,) = divide(np.array([[0, 1, 60, 90], [0, 1, 60, 90]], np.float64))
    np.testing.assert_array_equal(voice, [[0, 1, 60, 90]])


NOTES = st.lists(
    st.tuples(st.integers(0, 100), st.integers(1, 60), st.integers(40, 52)).map(
        lambda note: (note[0] / 20, (note[0] + note[1]) / 20, note[2], 100)
    ),
    max_size=30,
).map(lambda notes: np.array(notes, np.float64).reshape([-1, 4]))


@hypothesis.given(NOTES, st.sampled_from([None, 1, 3]))
def test_no_notes_overlap_in_a_voice_and_all_pitches_are_struck(notes, limit):
    divided = divide(notes, limit)
    assert len(divided) <= (limit or 128)
    for voice in divided:
        assert np.all(voice[:-1, 1] <= voice[1:, 0])
        assert np.all(voice[:, 1] > voice[:, 0])
    struck = {(start, pitch) for voice in divided for start, _, pitch, _ in voice}
    if limit is None:
        assert struck == {(start, pitch) for start, _, pitch, _ in notes}


@hypothesis.given(NOTES, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(notes, random):
    # Of one start and pitch the order does matter.
    notes = notes[np.unique(notes[:, [0, 2]], axis=0, return_index=True)[1]]
    order = list(range(len(notes)))
    random.shuffle(order)
    for a, b in zip(divide(notes), divide(notes[order]), strict=True):
        np.testing.assert_array_equal(a[:, :3], b[:, :3])


def test_many_notes_take_no_long_time():
    random = np.random.default_rng(0)
    starts = np.cumsum(random.exponential(0.02, 100_000))
    notes = np.stack([starts, starts + random.uniform(0.05, 0.3, 100_000), random.integers(30, 90, 100_000)], 1)
    notes = np.column_stack([notes, np.full(100_000, 100.0)])
    began = time.monotonic()
    assert allocate(notes).max() < 64
    assert time.monotonic() - began < 30  # A second or two on an idle machine; squared it would be hours.
