"""Filtered noise: ddsp's, made of white noise that is a function of the sample's index alone."""

from __future__ import annotations

import math
from typing import Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.harmonic import exp_sigmoid, rise_of_onset
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.instrument.white_noise import white_noise


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
        response_size = responses.shape[-1]
        self._delay = (response_size - 1) // 2 - 1  # what ddsp cuts off to make up for the filter's own delay
        if self._delay > hop:
            raise ValueError(f"FilteredNoise: {n_bands} bands need a hop of {self._delay} samples; it is {hop}.")
        self._n_ringing = response_size - 1 - self._delay
        self.filters = Filters(responses, hop)

    def get_controls(self, magnitudes: tf.Tensor, onset: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """As ddsp's.

        Args:
            magnitudes: Network outputs `[batch, n_frames, n_bands]`.
            onset: Where a note begins in the hop before each frame, 0 to 1, and below 0 where none does, `[batch,
                n_frames, 1]`; none does unless given.

        Returns:
            The same names, magnitudes above 0.
        """
        controls = super().get_controls(magnitudes)
        return controls if onset is None else {**controls, "onset": onset}

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence.

        Args:
            batch: Batch size.
            first_sample: Index of the first sample, a scalar or `[batch]`; where it differs, so does the noise.

        Returns:
            The next sample's index int64 `[batch]`; the last frame's magnitudes `[batch, 1, n_bands]`, whose hop is
            still to be played; and what rings on from there of the hops before, `[batch, n]`.
        """
        return {
            "sample": tf.broadcast_to(tf.cast(first_sample, tf.int64), [batch]),
            "magnitudes": tf.zeros([batch, 1, self.n_bands]),
            "ringing": tf.zeros([batch, self._n_ringing]),
        }

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays a hop of noise through the filter of each frame.

        A filter sounds a little before its hop, and rings on after it. Where a note begins within a hop, what the
        filters have made until then ends, and the sound of the next frame's filter begins.

        Args:
            controls: What `get_controls` returns, for `n_frames` frames.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        return self.step_with(self.filters, controls, state)

    def step_with(self, filters: Filters, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """As `step`, for those that filter in another way.

        Args:
            filters: What makes and filters the noise.
            controls: As for `step`.
            state: As for `step`.

        Returns:
            As `step`.
        """
        magnitudes = tf.concat([state["magnitudes"], controls["magnitudes"]], axis=1)
        batch, n_hops = tf.shape(magnitudes)[0], tf.shape(magnitudes)[1] - 1
        n_samples = n_hops * self.hop
        samples = state["sample"][:, tf.newaxis] + tf.cast(tf.range(-self.hop, n_samples), state["sample"].dtype)
        noise = filters.noise(tf.reshape(white_noise(samples, self.seed), [batch, n_hops + 1, self.hop]))
        responses = filters.responses(magnitudes)
        early, due, late = self._parts(filters.filtered(noise, responses))
        early, due, late = early[:, 1:], due[:, :-1], late[:, :-1]
        share: float | tf.Tensor = 0.0
        onset = controls.get("onset")
        if onset is not None:
            _, new_due, new_late = self._parts(filters.filtered(noise[:, :-1], responses[:, 1:]))
            begins = onset >= 0.0
            share = tf.where(begins, rise_of_onset(onset, np.arange(self.hop) / self.hop), 0.0)
            early = tf.where(begins, share * early, early)
            due, late = due + share * (new_due - due), tf.where(begins, new_late, late)
        ringing = tf.pad(state["ringing"], [[0, 0], [0, n_samples]])
        ringing += tf.pad(filters.overlap_and_add(late, self.hop), [[0, 0], [self.hop, 0]])
        ringing, later = tf.split(ringing, [n_samples, self._n_ringing], axis=1)
        signal = early + due + (1.0 - share) * tf.reshape(ringing, [batch, n_hops, self.hop])
        return tf.reshape(signal, [batch, n_samples]), {
            "sample": state["sample"] + tf.cast(n_samples, state["sample"].dtype),
            "magnitudes": magnitudes[:, -1:],
            "ringing": later,
        }

    def _parts(self, filtered: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of each hop of filtered noise what sounds in the hop before, in the hop itself, and after it.

        Args:
            filtered: `[batch, n, hop + response_size - 1]`.

        Returns:
            `[batch, n, hop]` twice, and `[batch, n, n_ringing]`.
        """
        early, due, late = tf.split(filtered, [self._delay, self.hop, self._n_ringing], axis=-1)
        return tf.pad(early, [[0, 0], [0, 0], [self.hop - self._delay, 0]]), due, late

    def get_signal(self, magnitudes: tf.Tensor, **onset: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`."""
        controls = {"magnitudes": tf.pad(magnitudes, [[0, 0], [0, 1], [0, 0]])}
        for name, value in onset.items():
            controls[name] = tf.pad(value, [[0, 0], [0, 1], [0, 0]], constant_values=-1.0)
        signal, _ = self.step(controls, self.initial_state(tf.shape(magnitudes)[0]))
        return signal[:, self.hop :]


class Filters:
    """Filters hops of noise, by Fourier transforms.

    Attributes:
        bands: Impulse response of each band alone, float64 `[n_bands, response_size]`.
    """

    def __init__(self, bands: np.ndarray, hop: int) -> None:
        """Transforms the responses.

        Args:
            bands: Impulse response of each band alone, `[n_bands, response_size]`.
            hop: Samples a frame.
        """
        self.bands = bands.astype(np.float64)
        self._n_samples = hop + bands.shape[-1] - 1
        self._fft_size = 2 ** math.ceil(math.log2(self._n_samples))
        spectra = np.fft.rfft(self.bands, self._fft_size)
        self._spectra = np.concatenate([spectra.real, spectra.imag], axis=-1).astype(np.float32)

    def noise(self, hops: tf.Tensor) -> tf.Tensor:
        """Noise `[batch, n, hop]` as `filtered` takes it, `[batch, n, …]`."""
        return tf.signal.rfft(hops, [self._fft_size])

    def responses(self, magnitudes: tf.Tensor) -> tf.Tensor:
        """Filters of magnitudes `[batch, n, n_bands]` as `filtered` takes them, `[batch, n, …]`."""
        return tf.complex(*tf.split(tf.matmul(magnitudes, self._spectra), 2, axis=-1))

    def filtered(self, noise: tf.Tensor, responses: tf.Tensor) -> tf.Tensor:
        """Each hop through its filter, `[batch, n, hop + response_size - 1]`."""
        signal = tf.signal.irfft(noise * responses, [self._fft_size])
        return tf.split(signal, [self._n_samples, self._fft_size - self._n_samples], axis=-1)[0]

    def overlap_and_add(self, signals: tf.Tensor, hop: int) -> tf.Tensor:
        """Sums signals `[batch, n, size]` that each begin a hop after the one before: `[batch, n_samples]`."""
        return tf.signal.overlap_and_add(signals, hop)
