"""Between blocks and a device: times are steady, rates are changed without harm, and what breaks off fades."""

import numpy as np
import pytest

from neural_midi_synth.playing.output import FADE_SECONDS, Output, Resampler, SteadyClock

RATE = 48000


def test_a_clock_is_as_steady_as_what_comes_however_late_it_is_seen():
    random = np.random.default_rng(0)
    clock = SteadyClock(memory=1.0)
    late = random.exponential(0.002, 400)
    late[::20] = 0.0001  # Now and then something is seen at once.
    # The other clock gains 50 µs a second.
    times = [clock.see(i * 0.005, 100.0 + i * 0.005 * (1.0 - 5e-5) + late[i]) for i in range(400)]
    really = 100.0 + np.arange(400) * 0.005 * (1.0 - 5e-5)
    # As late as what was seen soonest, and what the clock gains while it remembers.
    assert np.abs(np.array(times) - really - 0.0001)[20:].max() < 1e-4
    assert clock.counted_at(times[-1]) == pytest.approx(399 * 0.005, abs=1e-4)


def test_a_clock_follows_a_device_that_stumbled():
    clock = SteadyClock(memory=0.2)
    for i in range(100):
        clock.see(i * 0.005, i * 0.005)
    for i in range(100, 200):
        clock.see(i * 0.005, i * 0.005 + 0.05)
    assert clock.counted_at(1.0) == pytest.approx(0.95)


@pytest.mark.parametrize("to_rate", [48000, 44100, 22050, 11025, 16000])
def test_blocks_are_resampled_as_if_they_were_one_with_the_delay_that_is_told(to_rate):
    resampler = Resampler(16000, to_rate)
    seconds = np.arange(16000) / 16000
    tones = (300.0, 1000.0, 4000.0)
    wave = sum(np.sin(2 * np.pi * hz * seconds) for hz in tones).astype(np.float32)
    lengths = np.cumsum(np.random.default_rng(1).integers(1, 500, 200))
    played = np.concatenate([resampler(block) for block in np.split(wave, lengths[lengths < 16000])])
    assert len(played) == -(-16000 * to_rate // 16000)
    at = np.arange(len(played)) / to_rate - resampler.delay / 16000
    expected = sum(np.sin(2 * np.pi * hz * at) for hz in tones)
    settled = slice(round(0.01 * to_rate), None)
    # Kaiser's window keeps images 60 dB below each of three tones.
    np.testing.assert_allclose(played[settled], expected[settled], atol=3e-3)


def test_a_block_yields_whole_samples_where_the_rates_have_a_whole_ratio():
    resampler = Resampler(16000, 48000)
    assert [len(resampler(np.zeros(64, np.float32))) for _ in range(5)] == [192] * 5


def _jumps(samples):
    """The largest second difference: a click is a step, or a bend in the curve."""
    return np.abs(np.diff(samples, 2)).max()


def _tone(n_samples, hz=220.0, begin=0):
    return (0.5 * np.sin(2 * np.pi * hz * (begin + np.arange(n_samples)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("gap", [1, 100, 256, 700, 3000])
@pytest.mark.parametrize("begin", [768, 800, 853])  # At different phases of the tone.
def test_a_gap_fades_out_and_in_again_without_a_click(gap, begin):
    output, tone = Output(RATE), _tone(6000)
    output.write(0, tone[:begin])
    output.write(begin + gap, tone[begin + gap :])
    played = np.concatenate([output.read(256) for _ in range(23)])
    assert output.gaps == 1
    assert output.position == len(played)
    fade = round(FADE_SECONDS * RATE)
    # Twice what the tone and fades of 5 ms have by themselves, where a break would have a hundred times.
    smoothest = _jumps(tone) + 0.5 * np.pi**2 / 2 / fade**2
    assert _jumps(played) < 3 * smoothest
    broken = tone[: len(played)].copy()
    broken[begin : begin + gap] = 0.0
    assert _jumps(broken) > 20 * smoothest or gap == 1
    if gap > fade:
        assert not played[begin + fade : begin + gap].any()
    after = begin + gap + 2 * fade
    np.testing.assert_array_equal(played[after:], tone[after : len(played)])


def test_nothing_is_lost_between_blocks_and_reads_of_other_lengths():
    output, tone = Output(RATE), _tone(4000)
    for begin in range(0, 4000, 160):
        output.write(begin, tone[begin : begin + 160])
    played = np.concatenate([output.read(n) for n in (64, 1, 500, 333, 2000, 1102)])
    fade = round(FADE_SECONDS * RATE)
    np.testing.assert_array_equal(played[fade:], tone[fade:])
    assert output.gaps == 0
    assert output.peak == pytest.approx(0.5, abs=1e-3)


def test_what_comes_too_late_is_not_heard_later():
    output, tone = Output(RATE), _tone(2048)
    output.read(512)
    output.write(256, tone)  # Its first 256 samples should have been heard already.
    played = output.read(1024)
    fade = round(FADE_SECONDS * RATE)
    np.testing.assert_array_equal(played[fade:], tone[256 + fade : 256 + 1024])


def test_clearing_silences_at_once_and_is_no_gap():
    output = Output(RATE)
    output.write(0, _tone(4800))
    output.read(1024)
    output.clear()
    played = output.read(1024)
    assert output.gaps == 0
    assert not played[round(FADE_SECONDS * RATE) :].any()
    assert _jumps(played) < 0.01
