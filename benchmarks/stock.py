"""What the benchmarks compare with: the original synthesizer, put together from parts of ddsp and Keras as they come.

This is the architecture of Grechin and Groves (2021), which `models/lineage.gin` describes too: an MLP for each
channel, a recurrent layer, heads, and ddsp's processors behind them. Nothing of `neural_midi_synth` is in it, so its
clips have one length, and its noise is another one at every call.
"""

from __future__ import annotations

import ddsp
import tensorflow as tf

CHANNELS = ("f0_midi", "velocity", "cc_55", "cc_56", "distance_from_onset", "distance_to_offset")
HEADS = {"amplitudes": 1, "harmonic_distribution": 100, "fifth_harmonic_distribution": 100, "magnitudes": 65}
STRIDE = 4  # The network runs at a quarter of the frame rate.


class Decoder(tf.keras.Model):
    """Dense layers and a `GRU` of Keras: scaled control frames to synthesizer parameters."""

    def __init__(self, units: int, layers: int, rnn_units: int) -> None:
        """Makes the layers: `layers` times `units` in each MLP, and `rnn_units` in the recurrent one."""
        super().__init__(name="stock_decoder")
        self.input_mlps = [_mlp(units, layers) for _ in CHANNELS]
        self.recurrent = tf.keras.layers.GRU(rnn_units, return_sequences=True)
        self.output_mlp = _mlp(units, layers)
        self.heads = [tf.keras.layers.Dense(size) for size in HEADS.values()]

    def call(self, control_frames: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Channel name → `[batch, n_frames, 1]`, scaled, to head name → `[batch, n_frames, size]`."""
        n_frames = control_frames["f0_midi"].shape[1]
        channels = [ddsp.core.resample(control_frames[channel], n_frames // STRIDE) for channel in CHANNELS]
        embedded = tf.concat([mlp(channel) for mlp, channel in zip(self.input_mlps, channels)], axis=-1)
        decoded = self.output_mlp(tf.concat([self.recurrent(embedded), embedded], axis=-1))
        outputs = {name: head(decoded) for name, head in zip(HEADS, self.heads)}
        return {name: ddsp.core.resample(output, n_frames, method="window") for name, output in outputs.items()}


def _mlp(units: int, layers: int) -> tf.keras.Sequential:
    pairs = ((tf.keras.layers.Dense(units), tf.keras.layers.LeakyReLU(0.2)) for _ in range(layers))
    return tf.keras.Sequential([layer for pair in pairs for layer in pair])


def processor_group(n_samples: int, sample_rate: int) -> ddsp.processors.ProcessorGroup:
    """Harmonic and fifth, which share their amplitude, and noise, in a room of 4 s."""
    add = ddsp.processors.Add
    return ddsp.processors.ProcessorGroup(
        dag=[
            (
                ddsp.synths.Harmonic(n_samples, sample_rate, name="harmonic"),
                ["amplitudes", "harmonic_distribution", "f0_hz"],
            ),
            (
                ddsp.synths.Harmonic(n_samples, sample_rate, name="fifth"),
                ["amplitudes", "fifth_harmonic_distribution", "fifth_f0_hz"],
            ),
            (
                ddsp.synths.FilteredNoise(n_samples, window_size=0, initial_bias=-10.0, name="filtered_noise"),
                ["magnitudes"],
            ),
            (add(name="tones"), ["harmonic/signal", "fifth/signal"]),
            (add(name="dry"), ["tones/signal", "filtered_noise/signal"]),
            (ddsp.effects.Reverb(trainable=True, reverb_length=4 * sample_rate, name="reverb"), ["dry/signal"]),
        ]
    )


def spectral_loss() -> ddsp.losses.SpectralLoss:
    """Of magnitudes and of their logarithms, six sizes of window."""
    return ddsp.losses.SpectralLoss(loss_type="L1", mag_weight=1.0, logmag_weight=1.0)


class Instrument(tf.keras.Model):
    """Plays and trains clips of one length from control frames that are there already."""

    def __init__(self, n_samples: int, sample_rate: int, units: int, layers: int, rnn_units: int) -> None:
        """Puts the parts together for clips of `n_samples`."""
        super().__init__(name="stock_instrument")
        self.decoder = Decoder(units, layers, rnn_units)
        self.processor_group = processor_group(n_samples, sample_rate)
        self.spectral_loss = spectral_loss()

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Scaled channels and `f0_hz`, each `[batch, n_frames, 1]`, to audio `[batch, n_samples]`."""
        f0_hz = {"f0_hz": features["f0_hz"], "fifth_f0_hz": 1.5 * features["f0_hz"]}
        return self.processor_group({**self.decoder(features), **f0_hz})

    def train_step(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of `fit`; features as for `call`, and the recorded `audio`."""
        with tf.GradientTape() as tape:
            loss = self.spectral_loss(features["audio"], self(features))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {"loss": loss}
