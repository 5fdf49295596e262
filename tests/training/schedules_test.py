"""Schedules rise, hold and fall as they say."""

import pytest

from neural_midi_synth.training import schedules


def test_cosine_decay_rises_holds_and_falls_to_the_end_of_training():
    cosine = [schedules.cosine_decay(step, step / 1000) for step in range(1001)]
    assert cosine[0] == 1 / 50
    assert cosine[49:301] == [1.0] * 252
    assert cosine[650] == pytest.approx((1.0 + 0.01) / 2)
    assert cosine[1000] == pytest.approx(0.01)


def test_exponential_decay_goes_down_in_levels():
    assert schedules.exponential_decay(9_999, 0.0) == 1.0
    assert schedules.exponential_decay(20_000, 0.5) == pytest.approx(0.98**2)
