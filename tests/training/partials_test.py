"""How notes are tuned and how stiff strings are is measured on sounds whose answer is known."""

import types

import numpy as np
import pytest

from neural_midi_synth.instrument.strings import Strings, Tuning
from neural_midi_synth.training import partials

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
def test_the_tuning_and_the_stiffness_of_a_string_are_found(f0_hz, inharmonicity):
    for mistuned in (-0.4, 0.0, 0.3):  # semitones
        sound = _string(f0_hz, inharmonicity)
        found = partials.of_note(sound, f0_hz * 2.0 ** (-mistuned / 12.0), SAMPLE_RATE)
        assert found.inharmonicity == pytest.approx(inharmonicity, rel=0.05, abs=2e-6)
        assert found.tuning == pytest.approx(mistuned, abs=0.002)


def test_harmonic_sound_is_not_stretched():
    for seed in range(5):
        found = partials.of_note(_string(196.0, 0.0, seed=seed), 196.0, SAMPLE_RATE)
        assert abs(found.inharmonicity) < 3e-6
        assert abs(found.tuning) < 0.002


def test_noise_and_silence_tell_nothing():
    random = np.random.default_rng(0)
    assert partials.of_note(random.normal(size=SAMPLE_RATE), 110.0, SAMPLE_RATE) is None
    assert partials.of_note(np.zeros(SAMPLE_RATE), 220.0, SAMPLE_RATE) is None


def test_a_pure_tone_tells_its_tuning_alone():
    tone = np.sin(2.0 * np.pi * 222.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    found = partials.of_note(tone, 220.0, SAMPLE_RATE)
    assert found.inharmonicity is None
    assert found.tuning == pytest.approx(12.0 * np.log2(222.0 / 220.0), abs=0.002)


def test_vibrato_is_balanced_about_its_pitch():
    """30 cents of it, of which a long spectrum shows the turning points alone."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for mistuned in (-0.15, 0.0, 0.15):
        f0_hz = 440.0 * 2.0 ** (mistuned / 12.0)
        depth = f0_hz * (2.0 ** (0.3 / 12.0) - 1.0)
        phase = 2.0 * np.pi * f0_hz * time + depth / 5.5 * np.sin(2.0 * np.pi * 5.5 * time)
        sound = sum(np.sin(k * phase) / k for k in range(1, 10))
        assert partials.of_note(sound, 440.0, SAMPLE_RATE).tuning == pytest.approx(mistuned, abs=0.03)


class _Builder:
    """A data set of one example."""

    def __init__(self, notes, bends, sound):
        voices = np.arange(2)
        self.info = types.SimpleNamespace(metadata={"sample_rate": SAMPLE_RATE})
        self._example = {
            "audio": sound,
            "n_samples": len(sound),
            "notes": np.concatenate([notes[voice] for voice in voices]),
            "note_voices": np.repeat(voices, [len(notes[voice]) for voice in voices]),
            "pitch_bends": np.concatenate([bends[voice] for voice in voices]),
            "pitch_bend_voices": np.repeat(voices, [len(bends[voice]) for voice in voices]),
        }

    def as_dataset(self, split):
        return types.SimpleNamespace(as_numpy_iterator=lambda: iter([self._example]))


def test_each_pitch_is_measured_where_its_notes_keep_theirs():
    # A minor third that a bend holds from before the first note on; each last note is bent while it sounds.
    first = np.float64([[0, 1, 57, 90], [2, 3, 57, 90], [4, 5, 57, 90], [6, 7, 57, 90]])
    second = np.float64([[1, 2, 64, 90], [3, 4, 64, 90], [5, 6, 64, 90], [7, 8, 70, 90]])
    bends = {0: np.array([[-1.0, 3.0], [6.5, 0.0]]), 1: np.array([[0.5, 0.0], [7.5, 1.0]])}
    heard = [(60, 0.1), (64, -0.2)] * 3 + [(60, 0.4), (70, 0.4)]
    sounds = [_string(440.0 * 2.0 ** ((pitch + off - 69) / 12.0), 1e-4, seconds=1.0) for pitch, off in heard]
    measured = partials.measure(_Builder({0: first, 1: second}, bends, np.concatenate(sounds)))
    np.testing.assert_allclose(measured.tuning[[0, 60, 62, 64, 127]], [0.1, 0.1, -0.05, -0.2, -0.2], atol=0.005)
    np.testing.assert_allclose(measured.inharmonicity, 1e-4, rtol=0.05)
    assert measured.offset == pytest.approx(-0.05, abs=0.005)


def test_a_single_note_does_not_tell_how_its_pitch_is_tuned():
    notes = np.float64([[0, 1, 60, 90], [1, 2, 60, 90], [2, 3, 60, 90], [3, 4, 67, 90]])
    sounds = [_string(440.0 * 2.0 ** ((pitch - 69) / 12.0), 1e-4, seconds=1.0) for pitch in (60.1, 60.1, 60.1, 66.6)]
    nothing = {0: np.zeros([0, 2]), 1: np.zeros([0, 2])}
    measured = partials.measure(_Builder({0: notes, 1: np.zeros([0, 4])}, nothing, np.concatenate(sounds)))
    np.testing.assert_allclose(measured.tuning, 0.1, atol=0.005)


@pytest.mark.parametrize(("inharmonicity", "is_string"), [(5e-7, False), (6e-6, True)])
def test_partials_that_are_hardly_stretched_are_those_of_no_string(inharmonicity, is_string):
    notes = np.float64([[0, 1, 57, 90], [1, 2, 57, 90]])
    nothing = {0: np.zeros([0, 2]), 1: np.zeros([0, 2])}
    sound = np.concatenate([_string(220.0, inharmonicity, seconds=1.0, noise=1e-5, seed=seed) for seed in (0, 1)])
    measured = partials.measure(_Builder({0: notes, 1: np.zeros([0, 4])}, nothing, sound))
    np.testing.assert_array_equal(measured.inharmonicity > 0.0, is_string)


def test_recordings_without_notes_that_tell_are_in_tune():
    silent = {0: np.zeros([0, 4]), 1: np.float64([[0.0, 1.0, 64, 90]])}
    measured = partials.measure(_Builder(silent, {0: np.zeros([0, 2]), 1: np.zeros([0, 2])}, np.zeros(SAMPLE_RATE)))
    np.testing.assert_array_equal(measured.tuning, 0.0)
    np.testing.assert_array_equal(measured.inharmonicity, 0.0)
    assert measured.offset == 0.0


@pytest.mark.parametrize(("offset", "told"), [(0.2, "20 cents sharp"), (-0.07, "7 cents flat"), (0.03, "")])
def test_recordings_that_are_out_of_tune_are_told(monkeypatch, capsys, offset, told):
    instrument = types.SimpleNamespace(strings=Strings(), tuning=Tuning())
    measured = partials.Measured(np.full(128, offset), np.full(128, 1e-4), offset)
    monkeypatch.setattr(partials, "measure", lambda builder: measured)
    partials.measure_for(instrument, None)
    np.testing.assert_allclose(instrument.tuning.semitones, offset)
    np.testing.assert_allclose(instrument.strings.coefficients, 1e-4)
    said = capsys.readouterr().out
    assert told in said and bool(said) == bool(told)
