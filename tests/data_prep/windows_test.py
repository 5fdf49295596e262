"""Stretches of the splits and windows in them: all of the playing, nothing twice, nothing beyond."""

import warnings

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from neural_midi_synth.errors import DataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    from neural_midi_synth.data_prep.midi_audio import windows


def test_long_silences_are_skipped_and_short_ones_kept():
    notes = np.array([[1.0, 2, 60, 99], [3.5, 4, 60, 99], [20, 22, 60, 99]], np.float64)
    regions = windows.playing_regions(notes, 25 * 100, 100, tail=0.2, max_silence=2.0)
    np.testing.assert_array_equal(regions, [[100, 420], [2000, 2220]])
    starts = windows.window_starts(regions, 0, 2500, window=400, hop=100)
    assert starts == [100, 2000]
    assert windows.window_starts(regions, 0, 2100, window=400, hop=100) == [100, 1700]


region_lists = st.lists(st.integers(1, 400), max_size=12).map(
    lambda steps: np.cumsum(steps)[: len(steps) // 2 * 2].reshape([-1, 2])
)


@hypothesis.given(regions=region_lists, stretch=st.tuples(st.integers(0, 1500), st.integers(1, 1500)), data=st.data())
def test_windows_hold_playing_and_stay_in_their_stretch(regions, stretch, data):
    start, end = stretch[0], stretch[0] + stretch[1]
    window = data.draw(st.integers(1, 300))
    hop = data.draw(st.integers(1, window))
    starts = windows.window_starts(regions, start, end, window, hop)
    assert all(start <= at and (at + window <= end or at == start) for at in starts)
    assert all(later > earlier for earlier, later in zip(starts, starts[1:], strict=False))
    if hop == window:
        assert all(later - earlier >= window for earlier, later in zip(starts, starts[1:], strict=False))
    else:
        played = np.zeros(end + window, bool)
        covered = np.zeros(end + window, bool)
        for region_start, region_end in regions:
            played[max(region_start, start) : max(min(region_end, end), start)] = True
        for at in starts:
            covered[at : at + window] = True
        assert np.all(covered[played])  # Training leaves no playing out.


@hypothesis.given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    validation=st.sampled_from([0.0, 0.05, 0.3]),
    test=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_splits_take_all_the_time_once(lengths, validation, test):
    regions = [np.array([[0, length]]) for length in lengths]
    try:
        stretches = windows.split_stretches(lengths, regions, 100, {"validation": validation, "test": test})
    except DataError:
        assert sum(length // 100 for length in lengths) < 1 + (validation > 0) + (test > 0)
        return
    assert list(stretches) == ["train", *["validation"] * (validation > 0), *["test"] * (test > 0)]
    assert all(stretches.values())
    for split in list(stretches)[1:]:
        assert all(each.end - each.start >= 100 for each in stretches[split])  # Whole windows.
    used = [np.zeros(length, int) for length in lengths]
    for stretch in sum(stretches.values(), []):
        used[stretch.take][stretch.start : stretch.end] += 1
    assert all(np.all(each == 1) for each in used)


def test_held_out_time_is_spread_and_as_much_as_asked_for():
    lengths = [7200] * 10
    regions = [np.array([[0, 7200]])] * 10
    stretches = windows.split_stretches(lengths, regions, 400, {"validation": 0.05, "test": 0.1})
    for split, fraction in (("validation", 0.05), ("test", 0.1)):
        total = sum(each.end - each.start for each in stretches[split])
        assert total == pytest.approx(fraction * 72000, rel=0.2)  # Blocks are whole.
        assert len({each.take for each in stretches[split]}) >= 4
        assert len({each.start for each in stretches[split]}) >= 3
