"""Voices and pieces: windows hold what the whole holds there, and too many voices are told with their time."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from midi.strategies import voices
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.pieces import Piece, Voice, check_voices


def _in_force(events: np.ndarray, time: float, default: float) -> float:
    """Value of the last event at or before a time, the obvious way."""
    values = [value for event_time, value in events if event_time <= time]
    return values[-1] if values else default


def _known_at(voice: Voice, time: float) -> tuple:
    """What a player of the voice knows at a time: the note's start, end, pitch, velocity, or the pitch that is held."""
    begun = [note for note in voice.notes if note[0] <= time]
    if not begun:
        return (None,)
    start, end, pitch, velocity = begun[-1]
    return (start - time, end - time, pitch, velocity) if time < end else (None, pitch)


@hypothesis.settings(deadline=None)
@hypothesis.given(voice=voices(), start=st.integers(-100, 8_100), length=st.integers(0, 1_000))
def test_a_window_is_played_as_the_whole_is_there(voice, start, length):
    # Halves of the events' steps, so that windows begin and end on events as well as between them.
    step = 1.0 / 256.0
    window = voice.window(start * step, (start + length) * step)
    for i in range(0, length, max(length // 7, 1)):
        assert _known_at(voice, (start + i) * step) == _known_at(window, i * step)
        for number in np.unique(voice.control_changes[:, 1]):
            events = [v.control_changes[v.control_changes[:, 1] == number][:, [0, 2]] for v in (voice, window)]
            assert _in_force(events[0], (start + i) * step, -1.0) == _in_force(events[1], i * step, -1.0)
        bends = voice.pitch_bends, window.pitch_bends
        assert _in_force(bends[0], (start + i) * step, 0.0) == _in_force(bends[1], i * step, 0.0)


@hypothesis.settings(deadline=None)
@hypothesis.given(voice=voices(), start=st.integers(0, 8_000), length=st.integers(1, 1_000))
def test_a_window_holds_no_more_than_it_needs(voice, start, length):
    step = 1.0 / 256.0
    window, end = voice.window(start * step, (start + length) * step), length * step
    assert np.sum(window.notes[:, 1] <= 0.0) <= 1
    assert np.all(window.notes[:, 0] < end)
    before = window.control_changes[window.control_changes[:, 0] < 0.0]
    assert len(before) == len(np.unique(before[:, 1]))
    assert np.sum(window.pitch_bends[:, 0] <= 0.0) <= 1
    for events in (window.control_changes, window.pitch_bends):
        assert np.all(events[:, 0] < end)
        assert np.all(np.diff(events[:, 0]) >= 0.0)


def test_a_voice_without_notes_is_silent():
    voice = Voice([])
    assert voice.duration == 0.0
    assert voice.notes.shape == (0, 4)
    assert voice.window(1.0, 2.0).control_changes.shape == (0, 3)


def test_a_voice_sorts_its_events():
    voice = Voice([[1, 2, 60, 100], [0, 1, 62, 100]], [[3, 1, 0], [1, 1, 9], [1, 1, 8]], [[2, 1], [1, 0]])
    np.testing.assert_array_equal(voice.notes[:, 0], [0, 1])
    np.testing.assert_array_equal(voice.control_changes[:, 2], [9, 8, 0])
    np.testing.assert_array_equal(voice.pitch_bends[:, 0], [1, 2])
    assert voice.duration == 2.0


def test_transposing_moves_pitches_alone():
    voice = Voice([[0, 1, 60, 100]], [[0, 55, 127]], [[0, 1.5]])
    for moved in (voice.transpose(-1.5), Piece((Voice([]), voice)).transpose(-1.5).voices[1]):
        np.testing.assert_array_equal(moved.notes, [[0, 1, 58.5, 100]])
        np.testing.assert_array_equal(moved.control_changes, voice.control_changes)
        np.testing.assert_array_equal(moved.pitch_bends, voice.pitch_bends)


def test_a_piece_is_made_of_voices_at_least_one():
    with pytest.raises(ValueError, match="at least one voice"):
        Piece(())
    with pytest.raises(TypeError, match="not of ndarray"):
        Piece((np.zeros([1, 4]),))
    voice = Voice([[0, 1, 60, 100]])
    assert Piece([voice]).voices == (voice,)
    assert Piece.of(voice).voices == (voice,)
    piece = Piece((voice, voice))
    assert Piece.of(piece) is piece


def test_a_piece_has_the_notes_of_all_its_voices_by_start():
    piece = Piece((Voice([[0, 1, 60, 100], [2, 3, 61, 100]]), Voice([[0, 9, 40, 80], [1, 2, 41, 80]]), Voice([])))
    np.testing.assert_array_equal(piece.notes[:, 2], [60, 40, 41, 61])
    assert piece.duration == 9.0
    assert Piece((Voice([]),)).duration == 0.0


def test_a_window_of_a_piece_has_all_its_voices_in_order():
    piece = Piece((Voice([[0, 1, 60, 100]]), Voice([[5, 6, 61, 100]], [[4, 55, 9]]), Voice([])))
    window = piece.window(4.5, 5.5)
    assert len(window.voices) == 3
    np.testing.assert_array_equal(window.voices[0].notes, [[-4.5, -3.5, 60, 100]])  # Its pitch is held.
    np.testing.assert_array_equal(window.voices[1].notes, [[0.5, 1.5, 61, 100]])
    np.testing.assert_array_equal(window.voices[1].control_changes, [[-0.5, 55, 9]])


CHORD = Piece((Voice([[0, 1, 40, 90], [2, 4, 40, 90]]), Voice([[2.5, 3, 47, 90]]), Voice([[2.75, 3, 52, 90]])))


def test_too_many_voices_are_told_with_time_notes_and_remedy():
    with pytest.raises(DataError) as caught:
        check_voices(CHORD, 1, "take.mid")
    assert str(caught.value) == (
        "take.mid: is polyphonic: notes 40 and 47 overlap from 2.50 s on. Choose one part with --track or "
        "--midi_channel, or train on voices (--gin_file models/guitar_strings.gin)."
    )
    with pytest.raises(DataError) as caught:
        check_voices(CHORD, 2, "take.mid")
    message = str(caught.value)
    assert "of more than 2 voices: notes 40 and 52 overlap from 2.75 s on. Choose" in message
    assert "\n" not in message


def test_voices_that_never_overlap_are_counted_too():
    piece = Piece((Voice([[0, 1, 40, 90]]), Voice([[1, 2, 47, 90]])))
    with pytest.raises(DataError, match="has 2 voices, more than the 1 to be trained on. Choose one part with --track"):
        check_voices(piece, 1, "take.mid")


def test_as_many_voices_as_allowed_pass():
    for most in (3, 6):
        check_voices(CHORD, most, "take.mid")
