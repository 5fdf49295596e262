"""Metrics are known numbers on sounds whose difference is known."""

import sys

import numpy as np
import pytest

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import metrics

SAMPLE_RATE = 16000


def tone(pitch, seconds=1.5, sample_rate=SAMPLE_RATE, level=0.3):
    """A sound of ten falling harmonics, as from a plucked string that does not decay."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
    sound = sum(np.sin(2 * np.pi * k * frequency * times) / k for k in range(1, 11))
    return (level / np.abs(sound).max() * sound).astype(np.float32)


def noise(seconds=1.5, level=0.1, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def test_a_sound_does_not_differ_from_itself():
    sound = tone(45)
    assert metrics.compare(sound, sound, SAMPLE_RATE) == {
        "spectral_loss": 0.0,
        "log_mel_db": 0.0,
        "envelope_db": 0.0,
        "pitch_accuracy": 1.0,
    }


@pytest.mark.parametrize("n_samples", [1000, 16000, 23457])
def test_spectral_loss_equals_that_of_ddsp(n_samples):

    from ddsp import losses

    reference, rendering = tone(40)[:n_samples], noise()[:n_samples]
    reference[n_samples // 3 : n_samples // 2] = 0.0  # Digital silence meets the guard of the logarithm.
    expected = losses.SpectralLoss(mag_weight=1.0, logmag_weight=1.0)(reference[None], rendering[None])
    # float32 sums of a million terms in another order.
    assert metrics.spectral_loss(reference, rendering) == pytest.approx(float(expected), rel=1e-3)


def test_spectral_loss_does_not_depend_on_the_blocks_it_is_summed_in(monkeypatch):
    reference, rendering = tone(40), noise()
    whole = metrics.spectral_loss(reference, rendering)
    monkeypatch.setattr(metrics, "_BLOCK_SAMPLES", 3 * 2048)
    assert metrics.spectral_loss(reference, rendering) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("gain_db", [-6.0, 3.0])
@pytest.mark.parametrize("sample_rate", [16000, 44100])
def test_a_gain_is_a_difference_of_as_many_decibels_in_every_band(gain_db, sample_rate):
    # White noise lies above the floor everywhere, so each band of each frame differs by just the gain.
    reference = noise()
    rendering = reference * 10.0 ** (gain_db / 20.0)
    assert metrics.log_mel_difference(reference, rendering, sample_rate) == pytest.approx(abs(gain_db), abs=1e-3)
    assert metrics.envelope_difference(reference, rendering, sample_rate) == pytest.approx(abs(gain_db), abs=1e-3)


def test_a_rendering_that_stops_early_is_compared_with_silence():
    reference, half = noise(2.0), noise(2.0)[:SAMPLE_RATE]
    # The envelope differs by its whole range over half of the time; the frames at the cut and the few decibels
    # between the loudest window and the others leave some tolerance.
    assert metrics.envelope_difference(reference, half, SAMPLE_RATE) == pytest.approx(30.0, abs=1.5)
    assert metrics.envelope_difference(reference, np.pad(half, (0, SAMPLE_RATE)), SAMPLE_RATE) == pytest.approx(
        metrics.envelope_difference(reference, half, SAMPLE_RATE)
    )


def test_a_rendering_that_goes_on_too_long_is_compared_with_silence():
    assert metrics.envelope_difference(noise(2.0)[:SAMPLE_RATE], noise(2.0), SAMPLE_RATE) == pytest.approx(
        30.0, abs=1.5
    )


def test_noise_below_the_floor_is_silence():
    loud = np.concatenate([tone(45), np.zeros(SAMPLE_RATE, np.float32)])
    hiss = loud + noise(2.5, level=1e-6)
    hiss[: SAMPLE_RATE * 3 // 2] = loud[: SAMPLE_RATE * 3 // 2]
    assert metrics.log_mel_difference(loud, hiss, SAMPLE_RATE) == pytest.approx(0.0, abs=1e-3)
    assert metrics.envelope_difference(loud, hiss, SAMPLE_RATE) == pytest.approx(0.0, abs=1e-3)


def test_silence_equals_silence_and_has_no_pitch():
    silence = np.zeros(SAMPLE_RATE, np.float32)
    numbers = metrics.compare(silence, silence, SAMPLE_RATE)
    assert np.isnan(numbers.pop("pitch_accuracy"))
    assert set(numbers.values()) == {0.0}


def test_sound_where_the_reference_is_silent_counts():
    numbers = metrics.compare(np.zeros(SAMPLE_RATE, np.float32), noise(1.0), SAMPLE_RATE)
    assert min(numbers[key] for key in ("spectral_loss", "log_mel_db", "envelope_db")) > 1.0


@pytest.mark.parametrize(("semitones", "expected"), [(0.4, 1.0), (1.0, 0.0), (12.0, 0.0)])
def test_pitch_is_right_within_half_a_semitone(semitones, expected):
    assert metrics.pitch_accuracy(tone(45), tone(45 + semitones), SAMPLE_RATE) == pytest.approx(expected, abs=0.05)


def test_pitch_counts_only_where_the_reference_has_one():
    # Where the reference is silent the rendering may play anything; where the rendering is silent it is wrong.
    reference = np.concatenate([tone(40, 2.0), np.zeros(2 * SAMPLE_RATE, np.float32)])
    assert metrics.pitch_accuracy(reference, tone(40, 4.0), SAMPLE_RATE) >= 0.95
    # A frame of 128 ms at the cut belongs to neither half.
    assert metrics.pitch_accuracy(tone(40, 4.0), tone(40, 2.0), SAMPLE_RATE) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("pitch", [36, 64, 76])
def test_pitch_is_found_over_the_guitars_range_at_any_sample_rate(pitch):
    track = metrics.pitch_track(tone(pitch, 1.0, 44100), 44100)
    cents = 1200.0 * np.log2(track / (440.0 * 2.0 ** ((pitch - 69) / 12)))
    assert np.nanmedian(np.abs(cents)) < 10.0
    assert np.isfinite(track).mean() > 0.9


def test_openness_decay_is_the_fall_of_an_exponential():
    times = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE - 1.0
    decay_rate = 3.0  # energy falls as exp(-2 · 3 · t)
    sound = np.where(times >= 0, np.exp(-decay_rate * np.maximum(times, 0)), 0) * noise(3.0)

    def energy(start, end):
        return np.exp(-2 * decay_rate * start) - np.exp(-2 * decay_rate * end)

    expected = 10 * np.log10(energy(0.5, 1.5) / energy(0.0, 0.1))
    # The mean power of a tenth of a second of noise is known to 0.2 dB (1600 samples).
    assert metrics.openness_decay(sound, 1.0, SAMPLE_RATE) == pytest.approx(expected, abs=0.5)


def test_openness_decay_of_sound_that_ends_or_is_silent_is_finite():
    assert metrics.openness_decay(tone(40)[:1600], 0.0, SAMPLE_RATE) < -60.0
    assert metrics.openness_decay(np.zeros(100, np.float32), 0.0, SAMPLE_RATE) == 0.0


@pytest.mark.parametrize("n_samples", [1, 100, 1500])
def test_a_sound_may_be_shorter_than_a_window(n_samples):
    numbers = metrics.compare(tone(60)[:n_samples], noise()[:n_samples], SAMPLE_RATE)
    assert numbers["log_mel_db"] > 0.0 or n_samples == 1  # The first sample of a sine is zero.


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros([0], np.float32), "at least one sample"),
        (np.zeros([10, 2], np.float32), "mono"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
    ],
)
def test_what_is_not_a_sound_is_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        metrics.compare(samples, tone(40), SAMPLE_RATE)


def test_perceived_quality_falls_with_noise():
    pytest.importorskip("visqol", reason="The extra 'perceived' is not installed.")
    sound = tone(45, seconds=3.0)
    same, near, far = (
        metrics.perceived_quality(sound, sound + noise(seconds=3.0, level=level), SAMPLE_RATE)
        for level in (0.0, 0.001, 0.03)
    )
    # ViSQOL gives a sound beside itself 4.73 at most.
    assert same == pytest.approx(4.73, abs=0.05)
    assert far < near < same


def test_missing_visqol_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol", None)  # As if it was not installed.
    metrics.visqol.cache_clear()
    with pytest.raises(DataError, match="pip install visqol-python"):
        metrics.perceived_quality(tone(45), tone(45), SAMPLE_RATE)
