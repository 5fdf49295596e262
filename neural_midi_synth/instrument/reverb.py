"""The reverb: ddsp's convolution with a trainable impulse response, that rings on from block to block."""

from __future__ import annotations

import math

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.recurrent import State

_INAUDIBLE = 1e-4  # What may be left out of a response, as a share of what it makes of white noise: 80 dB below it.


@gin.configurable(module="nms")
class Reverb(ddsp.effects.Reverb):
    """Convolution with a trainable impulse response: the room and the body of the instrument.

    Attributes:
        parameters: The network outputs it takes: none.
        lag: Hops by which the signal is behind the dry one.
    """

    lag = 0

    def __init__(
        self,
        reverb_length: int = gin.REQUIRED,
        decay_seconds: float | None = None,
        sample_rate: int | None = None,
        add_dry: bool = True,
        name: str = "reverb",
    ) -> None:
        """Describes the impulse response.

        Args:
            reverb_length: Its length, samples.
            decay_seconds: Where given, the weights are multiplied by `exp(-t / decay_seconds)`, so that a late
                reflection has to be earned. Without it the weights are the response, as in ddsp.
            sample_rate: Samples a second; needed with `decay_seconds`.
            add_dry: Whether the dry signal is added.
            name: Name of the layer.
        """
        if reverb_length < 2:
            raise ValueError("Reverb.reverb_length: a response has at least 2 samples.")
        super().__init__(trainable=True, reverb_length=reverb_length, add_dry=add_dry, name=name)
        self.parameters: dict[str, int] = {}
        self._envelope = np.ones(reverb_length, np.float32)
        if decay_seconds is not None:
            self._envelope = np.exp(-np.arange(reverb_length) / (decay_seconds * sample_rate)).astype(np.float32)

    def impulse_response(self) -> tf.Tensor:
        """The wet impulse response, as long as it is played, `[n]`; the first of it is 0: the dry signal's place."""
        if not self.built:
            self.build(None)
        return self._mask_dry_ir(self._ir * self._envelope)[0, : self._reverb_length]

    def leave_out_the_inaudible(self) -> None:
        """Shortens the response to where what is left of it can be heard no more: for playing, once it is learnt."""
        response = self.impulse_response().numpy()
        energy = np.cumsum(np.square(response[::-1]))[::-1]
        if np.isfinite(energy[0]):
            least = _INAUDIBLE**2 * (float(self._add_dry) + energy[0])
            self._reverb_length = max(np.count_nonzero(energy > least), 2)

    def get_controls(self, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        """Dry audio `[batch, n_samples]` and the impulse response `[n]`."""
        return {"audio": audio, "ir": self.impulse_response()}

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence.

        Args:
            batch: Batch size.
            first_sample: Not used: the response is the same at all times.

        Returns:
            What still rings after a block, `[batch, n - 1]`, with a response of `n` samples.
        """
        del first_sample
        return {"ringing": tf.zeros([batch, self._reverb_length - 1])}

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Adds what rings on.

        Args:
            controls: What `get_controls` returns.
            state: Of the block before.

        Returns:
            Signal `[batch, n_samples]`, no later than the dry one, and the next state.
        """
        audio = controls["audio"]
        batch, n_samples = tf.shape(audio)[0], tf.shape(audio)[1]
        # The shorter of the two is one part, the longer is cut into parts of that length: small transforms, many at a
        # time.
        part = tf.maximum(tf.minimum(n_samples, self._reverb_length), 1)
        n_blocks, n_parts = tf.maximum(-(-n_samples // part), 1), -(-self._reverb_length // part)
        blocks = tf.pad(audio, [[0, 0], [0, n_blocks * part - n_samples]])
        parts = tf.pad(controls["ir"], [[0, n_parts * part - self._reverb_length]])
        fft_size = _transform_size(2 * part)
        spectra = tf.signal.rfft(tf.reshape(blocks, [batch, n_blocks, part]), [fft_size])
        spectra *= tf.signal.rfft(tf.reshape(parts, [n_parts, part]), [fft_size])
        echoes, _ = tf.split(tf.signal.irfft(spectra, [fft_size]), [2 * part, fft_size - 2 * part], axis=-1)
        wet = tf.signal.overlap_and_add(echoes, part)
        n_ringing = self._reverb_length - 1
        n_beyond = tf.shape(wet)[1] - n_samples - n_ringing
        due, later, _ = tf.split(wet, [n_samples, n_ringing, n_beyond], axis=1)
        ringing = tf.pad(state["ringing"], [[0, 0], [0, n_samples]])
        signal = due + ringing[:, :n_samples] + (audio if self._add_dry else 0.0)
        return signal, {"ringing": later + ringing[:, n_samples:]}

    def get_signal(self, audio: tf.Tensor, ir: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_samples]`."""
        return self.step({"audio": audio, "ir": ir}, self.initial_state(tf.shape(audio)[0]))[0]


def _transform_size(size: tf.Tensor) -> tf.Tensor:
    """An even number not below `size`, four binary digits and then zeros, int32: quick to transform."""
    unit = 2.0 ** tf.maximum(tf.floor(tf.math.log(tf.cast(size, tf.float64)) / math.log(2.0)) - 3.0, 1.0)
    return tf.cast(tf.math.ceil(tf.cast(size, tf.float64) / unit) * unit, tf.int32)
