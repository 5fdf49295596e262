"""Seconds become quarter notes and back, by the closed forms of held and of linear tempos."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neural_midi_synth.midi.tempo_map import TempoMap, TempoPoint


def test_a_held_tempo_counts_evenly_before_and_after_its_point():
    tempo_map = TempoMap([TempoPoint(1.0, 90.0)])
    np.testing.assert_allclose(tempo_map.quarter_notes([-1.0, 1.0, 5.0]), [-3.0, 0.0, 6.0], atol=1e-12)
    np.testing.assert_allclose(tempo_map.seconds([-3.0, 0.0, 6.0]), [-1.0, 1.0, 5.0], atol=1e-12)


def test_a_gradual_tempo_is_a_quadratic_function():
    """From 60 to 120 in 8 s the tempo is (1 + t / 8) / s, so quarter notes are t + t² / 16."""
    tempo_map = TempoMap([TempoPoint(0.0, 60.0, gradual=True), TempoPoint(8.0, 120.0)])
    time = np.linspace(0.0, 8.0, 33)
    np.testing.assert_allclose(tempo_map.quarter_notes(time), time + time**2 / 16.0, atol=1e-12)
    beats = np.linspace(0.0, 12.0, 33)
    np.testing.assert_allclose(tempo_map.seconds(beats), 8.0 * (np.sqrt(1.0 + beats / 4.0) - 1.0), atol=1e-12)
    np.testing.assert_allclose(tempo_map.quarter_notes(10.0), 12.0 + 4.0)


def test_a_square_point_jumps():
    tempo_map = TempoMap([TempoPoint(0.0, 60.0), TempoPoint(4.0, 240.0), TempoPoint(5.0, 60.0)])
    np.testing.assert_allclose(tempo_map.quarter_notes([2.0, 4.0, 4.5, 6.0]), [2.0, 4.0, 6.0, 9.0])


points = st.lists(
    st.builds(TempoPoint, st.floats(0.0, 500.0), st.floats(1.0, 960.0), st.booleans()), min_size=1, max_size=8
)


@given(points, st.lists(st.floats(-100.0, 1000.0), min_size=1, max_size=20))
def test_seconds_are_the_inverse_of_quarter_notes(points, times):
    tempo_map = TempoMap(points)
    # At one quarter note a minute a rounding error of 1e-12 quarter notes is one of 6e-11 s; ramps add a few digits.
    np.testing.assert_allclose(tempo_map.seconds(tempo_map.quarter_notes(times)), times, atol=1e-7)


@given(points)
def test_quarter_notes_rise(points):
    assert np.all(np.diff(TempoMap(points).quarter_notes(np.linspace(-10.0, 600.0, 500))) > 0.0)
