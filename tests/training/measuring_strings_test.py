"""How stiff strings are, and when they are let go, is measured on sounds whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from neural_midi_synth.training import measuring_strings

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
        found = measuring_strings.of_note(_string(f0_hz, inharmonicity), f0_hz * 2.0 ** (mistuned / 12.0), SAMPLE_RATE)
        assert found == pytest.approx(inharmonicity, rel=0.05, abs=2e-6)


def test_harmonic_sound_is_not_stretched():
    for seed in range(5):
        assert abs(measuring_strings.of_note(_string(196.0, 0.0, seed=seed), 196.0, SAMPLE_RATE)) < 3e-6


def test_noise_and_pure_tones_tell_nothing():
    random = np.random.default_rng(0)
    assert measuring_strings.of_note(random.normal(size=SAMPLE_RATE), 110.0, SAMPLE_RATE) is None
    tone = np.sin(2.0 * np.pi * 220.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert measuring_strings.of_note(tone, 220.0, SAMPLE_RATE) is None
    assert measuring_strings.of_note(np.zeros(SAMPLE_RATE), 220.0, SAMPLE_RATE) is None


def _data_set(examples):
    """What is read of a prepared data set."""
    iterator = SimpleNamespace(as_numpy_iterator=lambda: iter(examples))
    return SimpleNamespace(
        info=SimpleNamespace(metadata={"sample_rate": SAMPLE_RATE}), as_dataset=lambda split: iterator
    )


def _example(first_pulse, pitch=45, onset=0.5, inharmonicity=1e-4, notes=()):
    """A note, silent until its string is let go."""
    f0_hz = 440.0 * 2.0 ** ((pitch - 69) / 12.0)
    audio = 1e-4 * np.random.default_rng(0).normal(size=3 * SAMPLE_RATE)
    string = _string(f0_hz, inharmonicity)
    begin = round((onset + first_pulse) * SAMPLE_RATE)
    audio[begin : begin + len(string)] += string
    rows = np.array([*notes, [onset, onset + 1.4, pitch, 100.0]])
    return {"audio": audio, "n_samples": len(audio), "notes": rows, "pitch_bends": np.zeros([0, 2])}


def test_first_pulses_are_those_of_each_pitch_and_between_pitches_of_those_next_to_it():
    examples = [_example(0.004, 45), _example(0.006, 45, onset=0.005), _example(0.02, 57), _example(0.004, 45)]
    coefficients, first_pulses = measuring_strings.measure(_data_set(examples))
    np.testing.assert_allclose(coefficients[[20, 45, 50, 57, 100]], 1e-4, rtol=0.1)
    assert first_pulses.shape == (128,)
    assert first_pulses[45] == pytest.approx(0.0045, abs=0.001)
    assert first_pulses[[20, 51, 57]] == pytest.approx([first_pulses[45], 0.0125, 0.0205], abs=0.001)


def test_first_pulses_are_the_usual_ones_where_they_cannot_be_told():
    before = [0.0, 0.51, 45, 100.0]
    for examples in ([], [_example(-0.02)], [_example(0.2)], [_example(0.0, notes=[before, [0.1, 0.7, 52, 90.0]])]):
        _, first_pulses = measuring_strings.measure(_data_set(examples))
        np.testing.assert_array_equal(first_pulses, np.full(128, 0.0015, np.float32))
