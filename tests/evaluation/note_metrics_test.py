"""Notes are measured right where the answer is known from how their sound was made."""

import numpy as np
import pytest

from neural_midi_synth.evaluation import note_metrics
from neural_midi_synth.evaluation.note_metrics import DECAY_EDGES_HZ, LEAD_SECONDS, PARTIALS

RATES = pytest.mark.parametrize("sample_rate", [16000, 48000])
LEAD = LEAD_SECONDS


def times_of(seconds, sample_rate):
    """Times of a clip whose note begins at 0 and lasts so long."""
    return np.arange(round((LEAD + seconds) * sample_rate)) / sample_rate - LEAD


def risen(rise_ms, sample_rate, seconds=0.3, pitch=69):
    """A sine whose amplitude grows linearly for twice `rise_ms`, and stays."""
    times = times_of(seconds, sample_rate)
    amplitude = np.clip(times / (2e-3 * rise_ms), 0.0, 1.0)
    return amplitude * np.sin(2.0 * np.pi * 440.0 * 2.0 ** ((pitch - 69) / 12.0) * times)


def string(inharmonicity, pitch, sample_rate, seconds=1.0):
    """A stiff string: partial k at k f0 sqrt(1 + B k²)."""
    times, f0_hz = times_of(seconds, sample_rate), 440.0 * 2.0 ** ((pitch - 69) / 12.0)
    partials = np.arange(1, 17)
    frequencies = partials * f0_hz * np.sqrt(1.0 + inharmonicity * partials**2)
    return np.sin(2.0 * np.pi * times[:, np.newaxis] * frequencies) @ (1.0 / partials) * (times >= 0.0)


@RATES
@pytest.mark.parametrize("rise_ms", [2.0, 10.0, 40.0])
def test_a_rise_is_the_time_to_half_of_the_highest_level(rise_ms, sample_rate):
    # At 2 kHz two periods fit into the 1 ms over which levels are taken, so their mean is the amplitude's; that mean
    # is over half a millisecond before and after.
    assert note_metrics.rise_time(risen(rise_ms, sample_rate, pitch=95), sample_rate) == pytest.approx(rise_ms, abs=0.5)


@RATES
def test_what_sounds_before_the_onset_has_risen_before(sample_rate):
    sound = np.sin(2.0 * np.pi * 2000.0 * times_of(0.3, sample_rate))
    assert note_metrics.rise_time(sound, sample_rate) == pytest.approx(-1000.0 * LEAD, abs=0.5)
    assert np.isnan(note_metrics.rise_time(np.zeros(4000), sample_rate))


@RATES
def test_a_click_is_heard_by_its_colour_not_by_its_level(sample_rate):
    noise = np.random.default_rng(0).standard_normal(sample_rate // 10)
    assert note_metrics.click_difference(noise, 0.1 * noise, sample_rate) == pytest.approx(0.0, abs=1e-3)
    # The upper half of the spectrum is 12 dB lower: halves are then 6 dB above and below what is between them.
    spectrum = np.fft.rfft(noise)
    spectrum[len(spectrum) // 2 :] *= 10.0 ** (-12.0 / 20.0)
    assert note_metrics.click_difference(noise, np.fft.irfft(spectrum), sample_rate) == pytest.approx(6.0, abs=1.0)
    assert np.isnan(note_metrics.click_difference(noise[:100], noise[:100], sample_rate))


@RATES
@pytest.mark.parametrize("inharmonicity", [0.0, 5e-5, 2e-4])
def test_partials_of_a_stiff_string_lie_where_its_stiffness_puts_them(inharmonicity, sample_rate):
    # Bins of the padded transform are 0.12 Hz apart: 0.3 cents of the 6th partial of A2.
    clip = string(inharmonicity, 45, sample_rate)
    partials = np.array(PARTIALS)
    expected = 600.0 * np.log2((1.0 + inharmonicity * partials**2) / (1.0 + inharmonicity))
    found = note_metrics.partial_stretch(clip[round(0.09 * sample_rate) :], 45.0, sample_rate)
    np.testing.assert_allclose(found, expected, atol=1.5)


def test_partials_that_do_not_stand_out_are_not_told():
    noise = np.random.default_rng(0).standard_normal(16000)
    assert np.isnan(note_metrics.partial_stretch(noise, 45.0, 16000)).all()
    # Above half the sample rate there are none: 440 Hz times 10 is beyond 4 kHz.
    found = note_metrics.partial_stretch(string(0.0, 69, 8000), 69.0, 8000)
    assert np.isfinite(found[: PARTIALS.index(8) + 1]).all() and np.isnan(found[PARTIALS.index(9) :]).all()


@RATES
def test_the_flux_grows_with_the_modulation_of_a_held_note(sample_rate):
    times = times_of(1.0, sample_rate)
    still, slow, deep = (
        note_metrics.spectral_flux(
            (1.0 + depth * np.sin(2.0 * np.pi * 5.0 * times)) * string(0.0, 45, sample_rate), sample_rate
        )
        for depth in (0.0, 0.2, 0.4)
    )
    # The edges of the clip move in all of them alike.
    assert (deep - still) / (slow - still) == pytest.approx(2.0, rel=0.15)


@RATES
@pytest.mark.parametrize("rate", [-60.0, -20.0, 0.0])
def test_every_band_has_its_own_decay(rate, sample_rate):
    # A sine in the middle of each band, whose decay is faster by 5 dB/s from band to band.
    times = times_of(1.0, sample_rate)
    middles = [0.5 * (low + high) for low, high in zip(DECAY_EDGES_HZ, DECAY_EDGES_HZ[1:]) if high <= sample_rate / 2]
    rates = rate - 5.0 * np.arange(len(middles))
    clip = sum(
        10.0 ** (each * times / 20.0) * np.sin(2.0 * np.pi * middle * times) for each, middle in zip(rates, middles)
    )
    found = note_metrics.decay_rates([clip, 0.5 * clip], sample_rate)
    np.testing.assert_allclose(found[:, : len(rates)], np.stack([rates, rates]), atol=1.0)
    assert np.isnan(found[:, len(rates) :]).all()


def test_hiss_is_not_taken_for_the_end_of_a_note():
    times = times_of(2.0, 16000)
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(len(times))
    clip = 10.0 ** (-60.0 * times / 20.0) * np.sin(2.0 * np.pi * 300.0 * times) + hiss
    assert note_metrics.decay_rates([clip], 16000)[0, 1] == pytest.approx(-60.0, abs=3.0)


def test_notes_are_compared_over_the_stretch_that_both_have():
    longer, shorter = string(1e-4, 45, 16000, seconds=2.0), string(1e-4, 45, 16000, seconds=1.0)
    measured = note_metrics.compare_notes([longer, longer], [shorter, risen(10.0, 16000)], [45.0, np.nan], 16000)
    assert {name: values.shape for name, values in measured.items()} == {
        **{name: (2,) for name in ("log_mel", "envelope", "rise", "reference_rise", "click", "flux")},
        **{name: (2, 11) for name in ("stretch", "reference_stretch")},
        **{name: (2, 7) for name in ("decay", "reference_decay")},
    }
    for name in ("log_mel", "envelope", "click"):
        assert measured[name][0] == 0.0
    assert measured["flux"][0] == 1.0
    np.testing.assert_array_equal(measured["stretch"][0], measured["reference_stretch"][0])
    # A note of 0.3 s has no held part.
    assert np.isnan(measured["flux"][1]) and np.isnan(measured["decay"][1]).all()
    assert measured["log_mel"][1] > 3.0


def test_no_notes_are_no_numbers():
    assert {values.shape[0] for values in note_metrics.compare_notes([], [], [], 16000).values()} == {0}
