"""Filtered noise: ddsp's, made of white noise that is a function of the sample's index alone."""

from __future__ import annotations

import math
from typing import Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.harmonic import exp_sigmoid
from neural_midi_synth.instrument.recurrent import State


@gin.configurable(module="nms")
class FilteredNoise(ddsp.synths.FilteredNoise):
    """White noise through a filter that changes every frame.

    The noise is a function of the seed and the absolute sample index alone: wherever a block begins, a sample is the
    same.

    Attributes:
        parameters: The network outputs it takes, name → size.
        lag: Hops by which the signal is behind the controls.
    """

    lag = 1

    def __init__(
        self,
        hop: int = gin.REQUIRED,
        n_bands: int = gin.REQUIRED,
        window_size: int = 0,
        initial_bias: float = -5.0,
        seed: int = 0,
        scale_fn: Any = exp_sigmoid,
        name: str = "filtered_noise",
    ) -> None:
        """Describes the noise.

        Args:
            hop: Samples a frame.
            n_bands: Bands of the filter, evenly spaced from 0 Hz to half the sample rate; at most `hop + 1`.
            window_size: Length of the impulse responses, samples; 0 for twice `n_bands` less two.
            initial_bias: Added to the network outputs, so that training starts without noise.
            seed: Of the noise.
            scale_fn: Maps network outputs to magnitudes.
            name: Name of the layer.

        Raises:
            ValueError: A filter longer than two hops, which could not be played one hop behind.
        """
        super().__init__(
            n_samples=None, window_size=window_size, scale_fn=scale_fn, initial_bias=initial_bias, name=name
        )
        self.hop = hop
        self.n_bands = n_bands
        self.seed = seed
        self.parameters = {"magnitudes": n_bands}
        # The filter is linear in its magnitudes: ddsp's response to each band alone makes a matrix.
        bands = tf.eye(n_bands)[tf.newaxis]
        responses = ddsp.core.frequency_impulse_response(bands, window_size=window_size)[0].numpy()
        self._response_size = responses.shape[-1]
        self._delay = (self._response_size - 1) // 2 - 1  # what ddsp cuts off to make up for the filter's own delay
        if self._delay > hop:
            raise ValueError(f"FilteredNoise: {n_bands} bands need a hop of {self._delay} samples; it is {hop}.")
        self._fft_size = 2 ** math.ceil(math.log2(self._response_size + hop - 1))
        spectra = np.fft.rfft(responses.astype(np.float64), self._fft_size)
        self._bands_to_spectrum = np.concatenate([spectra.real, spectra.imag], axis=-1).astype(np.float32)

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence.

        Args:
            batch: Batch size.
            first_sample: Index of the first sample, a scalar or `[batch]`; where it differs, so does the noise.

        Returns:
            The next sample's index int64 `[batch]` and what still rings, `[batch, n]`.
        """
        return {
            "sample": tf.broadcast_to(tf.cast(first_sample, tf.int64), [batch]),
            "ringing": tf.zeros([batch, self.hop - self._delay + self._response_size - 1]),
        }

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays a hop of noise through the filter of each frame.

        Args:
            controls: Magnitudes `[batch, n_frames, n_bands]`.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        magnitudes = controls["magnitudes"]
        batch, n_frames = tf.shape(magnitudes)[0], tf.shape(magnitudes)[1]
        n_samples = n_frames * self.hop
        samples = state["sample"][:, tf.newaxis] + tf.range(tf.cast(n_samples, tf.int64))
        noise = tf.reshape(white_noise(samples, self.seed), [batch, n_frames, self.hop])
        real, imaginary = tf.split(tf.matmul(magnitudes, self._bands_to_spectrum), 2, axis=-1)
        spectrum = tf.signal.rfft(noise, [self._fft_size]) * tf.complex(real, imaginary)
        fresh = tf.signal.overlap_and_add(tf.signal.irfft(spectrum, [self._fft_size]), self.hop)
        fresh = tf.pad(fresh, [[0, 0], [self.hop - self._delay, 0]])
        n_ringing = state["ringing"].shape[1]
        n_beyond = self._fft_size - (self.hop + self._response_size - 1)  # where a block has ended
        due, later, _ = tf.split(fresh, [n_samples, n_ringing, n_beyond], axis=1)
        ringing = tf.pad(state["ringing"], [[0, 0], [0, n_samples]])
        return due + ringing[:, :n_samples], {
            "sample": state["sample"] + tf.cast(n_samples, tf.int64),
            "ringing": later + ringing[:, n_samples:],
        }

    def get_signal(self, magnitudes: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`."""
        controls = {"magnitudes": tf.pad(magnitudes, [[0, 0], [0, 1], [0, 0]])}
        signal, _ = self.step(controls, self.initial_state(tf.shape(magnitudes)[0]))
        return signal[:, self.hop :]


def white_noise(samples: tf.Tensor, seed: int) -> tf.Tensor:
    """Uniform noise in [-1, 1) that is a function of the sample index and the seed: a hash of both.

    Args:
        samples: int64, any shape.
        seed: Any integer.

    Returns:
        float32, shaped as `samples`.
    """
    return uniform(hashed(tf.cast(samples & 0xFFFFFFFF, tf.uint32) + hashed_seed(seed)))


def hashed(x: tf.Tensor) -> tf.Tensor:
    """A hash of uint32 of which each output bit depends on all input bits: C. Wellons' "lowbias32"."""
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    for by, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = xor(x, shift(x, tf.constant(by, tf.uint32))) * tf.constant(factor, tf.uint32)
    return xor(x, shift(x, tf.constant(16, tf.uint32)))


def hashed_seed(seed: int) -> tf.Tensor:
    """What a seed adds to the index of each sample, uint32: noise of another seed is another stretch of one noise."""
    return hashed(tf.constant((seed + 0x9E3779B9) % 2**32, tf.uint32))


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 as float32 in [-1, 1), by their upper 24 bits."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-23 - 1.0
