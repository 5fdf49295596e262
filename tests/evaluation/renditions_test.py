"""Notes that a player plays twice are found, and others are not taken for them."""

import numpy as np
import pytest

from neural_midi_synth.evaluation.examples import Example
from neural_midi_synth.evaluation.note_metrics import LEAD_SECONDS
from neural_midi_synth.evaluation.renditions import Renditions, differences, notes_of, renditions_among
from neural_midi_synth.midi.pieces import Piece, Voice

STYLES = {"openness": 55}


def notes(*rows, controls=(), bends=()):
    """The notes of a voice; with the others of `Notes`."""
    voice = Voice(np.array(rows, float), np.array(controls).reshape(-1, 3), np.array(bends).reshape(-1, 2))
    return notes_of(Piece.of(voice), 20.0, STYLES)


def test_notes_tell_what_makes_them_the_same():
    found = notes(
        (0.0, 0.5, 40, 90),  # Begins with the sound, so it may have been cut.
        (0.5, 1.0, 41, 100),
        (2.0, 2.01, 42, 100),  # Too short.
        (3.0, 25.0, 43, 80),
        controls=[(0.2, 55, 10), (2.0, 55, 120)],
        bends=[(0.5, 1.0), (3.0, 0.0), (3.5, 0.5)],
    )
    np.testing.assert_array_equal(found.times, [[0.5, 1.0], [3.0, 20.0]])
    np.testing.assert_array_equal(found.pitches, [42.0, 43.0])
    np.testing.assert_array_equal(found.styles, [[10.0], [120.0]])
    np.testing.assert_array_equal(found.follows, [True, False])
    np.testing.assert_array_equal(found.steady, [True, False])
    np.testing.assert_array_equal(found.lone_pitches, [42.0, np.nan])


def test_clips_begin_before_the_onset_and_end_with_the_note():
    samples = np.arange(4000.0)
    (clip,) = notes((1.0, 1.5, 40, 90)).clips(samples, 1000)
    np.testing.assert_array_equal(clip, samples[1000 - round(1000 * LEAD_SECONDS) : 1500])


def test_the_notes_of_a_chord_know_of_each_other():
    lower = Voice(np.array([[1.0, 2.0, 40, 90], [3.0, 4.0, 40, 90]]))
    upper = Voice(np.array([[1.0, 1.5, 47, 90], [1.5, 2.0, 52, 90], [3.98, 5.0, 47, 90]]))
    found = notes_of(Piece((lower, upper)), 10.0, STYLES)
    # 20 ms are no chord.
    assert found.together == ((47, 52), (40,), (40,), (), ())
    np.testing.assert_array_equal(np.isnan(found.lone_pitches), [True, True, True, False, False])


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ((1.0, 1.4, 40, 94), True),
        ((1.0, 1.4, 41, 90), False),
        ((1.0, 1.4, 40, 70), False),
        ((1.0, 2.4, 40, 90), False),
        ((0.04, 0.44, 40, 90), True),
    ],
)
def test_the_same_note_has_the_same_pitch_and_nearly_the_same_velocity_and_length(other, is_same):
    difference = differences(notes((1.0, 1.4, 40, 90)), notes(other))
    assert np.isfinite(difference).item() == is_same


def test_notes_of_other_styles_bends_and_beginnings_are_others():
    one = notes((1.0, 1.4, 40, 90), controls=[(0.0, 55, 0)])
    assert np.isfinite(differences(one, notes((1.0, 1.4, 40, 90), controls=[(0.0, 55, 12)])))
    assert np.isinf(differences(one, notes((1.0, 1.4, 40, 90), controls=[(0.0, 55, 60)])))
    assert np.isinf(differences(one, notes((1.0, 1.4, 40, 90), controls=[(0.0, 55, 0)], bends=[(1.2, 1.0)])))
    follows = notes((0.02, 1.0, 50, 90), (1.0, 1.4, 40, 90), controls=[(0.0, 55, 0)])
    assert np.isinf(differences(one, follows)).all()


def test_held_notes_need_not_be_of_one_length():
    assert np.isfinite(differences(notes((1.0, 1.7, 40, 90)), notes((1.0, 4.0, 40, 90))))


def test_the_nearest_rendition_is_taken_wherever_it_is_found():
    renditions = Renditions(notes((1.0, 1.4, 40, 90)))
    samples = np.arange(8000.0)
    renditions.look_in(notes((1.0, 1.4, 40, 97), (3.0, 3.4, 40, 91)), samples, 1000)
    assert renditions.clips[0][0] == 3000 - round(1000 * LEAD_SECONDS)
    nearest = renditions.distances.copy()
    renditions.look_in(notes((5.0, 5.4, 40, 95)), samples, 1000)
    assert renditions.clips[0][0] == 3000 - round(1000 * LEAD_SECONDS)
    np.testing.assert_array_equal(renditions.distances, nearest)


def test_no_note_is_another_rendition_of_itself():
    piece = Piece.of(Voice(np.array([[1.0, 1.4, 40, 90], [2.0, 2.4, 45, 90], [3.0, 3.4, 40, 92]])))
    example = Example("a", piece, np.arange(5000, dtype=np.float32))
    (found,) = renditions_among([example], [notes_of(piece, 5.0, STYLES)], 1000)
    lead = round(1000 * LEAD_SECONDS)
    assert [None if clip is None else clip[0] for clip in found.clips] == [3000 - lead, None, 1000 - lead]
