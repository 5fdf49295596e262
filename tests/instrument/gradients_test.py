"""What training makes small: the distance of sounds, and of what is random in them the distance of distributions."""

import types

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.instrument.gradients import loss_of
from neural_midi_synth.instrument.losses import SpectralLoss

SAMPLE_RATE = 16000
SIZE = 256
_random = np.random.default_rng(0)


def _noise():
    return tf.constant(0.1 * _random.normal(size=[4, 16000]), tf.float32)


def _steady():
    """A click a window: each bin of each window has the magnitude that noise has in the median."""
    clicks = np.zeros([4, 16000], np.float32)
    clicks[:, :: SIZE // 2] = 1.0
    recorded, played = (tf.abs(tf.signal.stft(each, SIZE, SIZE // 2)) for each in (_noise(), clicks))
    return tf.constant(clicks * np.median(recorded) / np.median(played))


def _instrument(**losses):
    spectral_loss = SpectralLoss((SIZE,), mel_weight=0.0, overlap=0.5, sample_rate=SAMPLE_RATE, **losses)
    return types.SimpleNamespace(spectral_loss=spectral_loss, processor_group=types.SimpleNamespace(losses=[]))


@pytest.mark.parametrize("losses", [{"mag_weight": 0.0}, {"logmag_weight": 0.0}])
def test_to_noise_other_noise_is_nearer_than_what_stands_still_by_two_renditions_alone(losses):
    instrument, recorded, steady = _instrument(**losses), _noise(), _steady()

    def distances(n_renditions):
        noise = float(loss_of(instrument, recorded, iter([_noise() for _ in range(n_renditions)])))
        return noise, float(loss_of(instrument, recorded, iter([steady] * n_renditions)))

    noise, still = distances(1)
    assert still < 0.95 * noise
    noise, still = distances(2)
    assert noise < 0.9 * still


def test_of_noise_the_level_of_the_recording_is_the_nearest():
    instrument, recorded = _instrument(), _noise()
    gains = [0.7, 0.85, 1.0, 1.15, 1.3]
    losses = [float(loss_of(instrument, recorded, iter([gain * _noise(), gain * _noise()]))) for gain in gains]
    assert np.argmin(losses) == 2
