"""An instrument's strings are as stiff as was measured, and its notes begin where their onsets are."""

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.loading import build, configure
from neural_midi_synth.instrument.strings import Strings, Tuning
from neural_midi_synth.midi.pieces import Voice

SMALL = ["Decoder.units = 8", "Decoder.layers = 1", "Decoder.rnn_units = 8"]


def test_coefficients_are_linear_between_pitches():
    strings = Strings()
    strings.coefficients.assign(np.arange(128, dtype=np.float32) * 1e-6)
    pitches = tf.constant([0.0, 40.0, 40.25, 126.5, 127.0])[tf.newaxis, :, tf.newaxis]
    np.testing.assert_allclose(
        strings(pitches)[0, :, 0], np.float32([0.0, 40.0, 40.25, 126.5, 127.0]) * 1e-6, rtol=1e-5
    )


def test_pitches_sound_as_they_are_tuned():
    tuning = Tuning()
    tuning.semitones.assign(np.where(np.arange(128) == 40, 0.1, 0.0))
    pitches = tf.constant([-1.0, 39.0, 39.5, 40.0, 40.75, 41.0, 130.0])[tf.newaxis, :, tf.newaxis]
    sounding = np.float32([-1.0, 39.0, 39.55, 40.1, 40.775, 41.0, 130.0])
    np.testing.assert_allclose(tuning(pitches)[0, :, 0], sounding, atol=2e-4)


@pytest.fixture(scope="module")
def guitar():
    configure([configs.find("models/guitar.gin")], SMALL, skip_unknown=True)
    return build()


def test_partials_of_a_rendering_are_stretched(guitar):
    voice = Voice(np.array([[0.0, 4.0, 45.0, 100.0]]))
    frequencies = {}
    for coefficient in (0.0, 3e-4):
        guitar.strings.coefficients.assign(np.full(128, coefficient, np.float32))
        samples = guitar.render(voice, n_samples=3 * 48_000)[48_000:]
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        near = np.arange(round(2 * 1090), round(2 * 1125))  # Bins of half a Hz, around the tenth partial of 110 Hz.
        frequencies[coefficient] = near[np.argmax(spectrum[near])] / 2.0
    assert frequencies[0.0] == pytest.approx(1100.0, abs=1.0)
    assert frequencies[3e-4] == pytest.approx(1100.0 * np.sqrt(1.0 + 3e-4 * 100.0), abs=1.0)


def test_a_rendering_is_tuned(guitar):
    voice = Voice(np.array([[0.0, 4.0, 45.0, 100.0]]))
    guitar.strings.coefficients.assign(np.zeros(128, np.float32))
    for semitones in (0.0, 0.2):
        guitar.tuning.semitones.assign(np.full(128, semitones, np.float32))
        samples = guitar.render(voice, n_samples=3 * 48_000)[48_000:]
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        near = np.arange(2 * 1085, 2 * 1130)  # Bins of half a Hz, around the tenth partial of 110 Hz.
        tuned = 1100.0 * 2.0 ** (semitones / 12.0)
        assert near[np.argmax(spectrum[near])] / 2.0 == pytest.approx(tuned, abs=0.5)
    guitar.tuning.semitones.assign(np.zeros(128, np.float32))


def test_a_note_is_the_same_wherever_between_two_frames_it_begins(guitar):
    # What comes before it is the noise that an untrained network makes of silence.
    def rendered(onset):
        samples = guitar.render(Voice(np.array([[onset / 48_000, 1.0, 60.0, 100.0]])), n_samples=24_000)
        return np.abs(samples[onset : onset + 1200])

    levels = [np.sqrt(np.mean(np.square(rendered(3840 + later)))) for later in (0, 111, 192, 303)]
    assert np.ptp(levels) < 0.2 * np.mean(levels)


def test_stiff_strings_need_strings():
    with pytest.raises(DataError, match=r"processors take 'inharmonicity'. Set Instrument.strings = @Strings\(\)"):
        configure([configs.find("models/guitar.gin")], [*SMALL, "Instrument.strings = None"], skip_unknown=True)
        build()
