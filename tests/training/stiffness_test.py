"""How stiff strings are is measured on sounds whose answer is known."""

import numpy as np
import pytest

from neural_midi_synth.training import stiffness

SAMPLE_RATE = 16000


def _string(f0_hz, inharmonicity, seconds=1.5, noise=1e-3, seed=0):
    """A plucked string, whose higher partials are weaker and shorter, in some noise."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = noise * random.normal(size=len(time))
    for order in range(1, 60):
        frequency = order * f0_hz * np.sqrt(1.0 + inharmonicity * order**2)
        if frequency < SAMPLE_RATE / 2:
            turns = 2.0 * np.pi * (frequency * time + random.random())
            samples += 0.9 ** (order - 1) * np.exp(-(1.0 + 0.2 * order) * time) * np.sin(turns)
    return samples


@pytest.mark.parametrize("f0_hz", [82.4, 196.0, 330.0])
@pytest.mark.parametrize("inharmonicity", [2e-5, 1e-4, 5e-4])
def test_the_coefficient_of_a_string_is_found(f0_hz, inharmonicity):
    for mistuned in (-0.4, 0.0, 0.3):  # semitones
        found = stiffness.of_note(_string(f0_hz, inharmonicity), f0_hz * 2.0 ** (mistuned / 12.0), SAMPLE_RATE)
        assert found == pytest.approx(inharmonicity, rel=0.05, abs=2e-6)


def test_harmonic_sound_is_not_stretched():
    for seed in range(5):
        assert abs(stiffness.of_note(_string(196.0, 0.0, seed=seed), 196.0, SAMPLE_RATE)) < 3e-6


def test_noise_and_pure_tones_tell_nothing():
    random = np.random.default_rng(0)
    assert stiffness.of_note(random.normal(size=SAMPLE_RATE), 110.0, SAMPLE_RATE) is None
    tone = np.sin(2.0 * np.pi * 220.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert stiffness.of_note(tone, 220.0, SAMPLE_RATE) is None
    assert stiffness.of_note(np.zeros(SAMPLE_RATE), 220.0, SAMPLE_RATE) is None
