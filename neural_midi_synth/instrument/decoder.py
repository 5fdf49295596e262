"""From control frames to the parameters of the processors: scaling and the decoder network."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.recurrent import UNROLLED, Recurrent, State, on_gpu

SILENT = -20.0
"""A network output that ddsp's `exp_sigmoid` turns into silence: what a decoder with a stride starts from."""


@gin.configurable(module="nms")
class Preprocessor:
    """Scales each channel so that the network sees all of [0, 1].

    Attributes:
        scales: Channel name → scale. A scale is `('linear', low, high)`, which maps low to 0 and high to 1, or
            `('log', knee, high)` for times: linear below the knee (s), logarithmic above it, 1 from high (s) on.
            A channel without a scale is taken as it is.
    """

    def __init__(self, scales: dict[str, tuple[str, float, float]] | None = None) -> None:
        self.scales = dict(scales or {})
        for channel, (kind, low, high) in self.scales.items():
            if kind not in ("linear", "log") or not high > low or (kind == "log" and low <= 0.0):
                raise ValueError(
                    f"Preprocessor.scales: '{channel}' needs ('linear', low, high) or ('log', knee, high), low < high."
                )

    def __call__(self, control_frames: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Scales control frames.

        Args:
            control_frames: Channel name → `[batch, n_frames, 1]`, in the channel's unit.

        Returns:
            The same channels, scaled.
        """
        return {channel: self._scaled(channel, value) for channel, value in control_frames.items()}

    def _scaled(self, channel: str, value: tf.Tensor) -> tf.Tensor:
        if channel not in self.scales:
            return value
        kind, low, high = self.scales[channel]
        if kind == "linear":
            return (value - low) / (high - low)
        return tf.math.log1p(tf.clip_by_value(value, 0.0, high) / low) / math.log1p(high / low)


@gin.configurable(module="nms")
class Decoder(tf.keras.layers.Layer):
    """Scaled control frames to synthesizer parameters.

    One MLP for each channel, or one for all of them; a recurrent layer over their outputs; an MLP over both; a linear
    head for each parameter. This is the decoder of DDSP (Engel et al., 2020) as the style-aware synthesizer of Grechin
    and Groves (2021) uses it.

    With a stride, the network sees every so many frames, and its outputs are brought back to the frame rate by ddsp's
    overlapping windows. It is then a stride of frames behind: `latency_frames`.
    """

    def __init__(
        self,
        channels: tuple[str, ...] = gin.REQUIRED,
        outputs: tuple[tuple[str, int], ...] | None = None,
        units: int = 512,
        layers: int = 3,
        rnn_units: int = 512,
        stride: int = 1,
        mlp_per_channel: bool = True,
        fourier_features: dict[str, int] | None = None,
        octaves: dict[str, int] | None = None,
        name: str = "decoder",
    ) -> None:
        """Describes the network.

        Args:
            channels: The channels it sees.
            outputs: Name and size of each head, such as `('harmonic_distribution', 100)`. An instrument sets them by
                what its processors take; given here too, they must be the same.
            units: Of each dense layer.
            layers: Dense layers of each MLP.
            rnn_units: Of the recurrent layer.
            stride: Frames from one the network sees to the next.
            mlp_per_channel: One MLP for each channel, else one for all.
            fourier_features: Channel name → n: the channel `x` is joined by its Fourier features, sin and cos of
                π 2ⁱ x for i < n (Tancik et al., 2020), so that a small network can tell near values apart.
            octaves: What configs called `fourier_features` before; where it is given, it goes before them.
            name: Name of the layer.
        """
        super().__init__(name=name)
        if not channels:
            raise ValueError("Decoder.channels: name at least one channel.")
        sizes = {"units": units, "layers": layers, "rnn_units": rnn_units, "stride": stride}
        for what, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"Decoder.{what}: {size!r} is not a whole number from 1.")
        self.channels = tuple(channels)
        self.stride = int(stride)
        self.latency_frames = self.stride if self.stride > 1 else 0
        self._fourier_features = dict((fourier_features if octaves is None else octaves) or {})
        self._mlp_per_channel = mlp_per_channel
        n_mlps = len(self.channels) if mlp_per_channel else 1
        self._input_mlps = [_mlp(layers, units) for _ in range(n_mlps)]
        self._recurrent = Recurrent(rnn_units)
        self._output_mlp = _mlp(layers, units)
        self.outputs: tuple[tuple[str, int], ...] = ()
        if outputs is not None:
            self.set_outputs(dict(outputs))

    def set_outputs(self, sizes: Mapping[str, int]) -> None:
        """Gives the decoder a head for each output.

        Args:
            sizes: Output name → size, in the order in which the heads share one dense layer.

        Raises:
            ValueError: The heads are there already, and are other ones.
        """
        outputs = tuple((str(name), int(size)) for name, size in sizes.items())
        if self.outputs and dict(self.outputs) != dict(outputs):
            raise ValueError(
                f"Decoder.outputs: {dict(self.outputs)}, but the processors take {dict(outputs)}. Leave it out."
            )
        if not self.outputs:
            self.outputs = outputs
            self._head = tf.keras.layers.Dense(sum(size for _, size in outputs))

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """Recurrent state `[batch, rnn_units]`; with a stride also the last outputs, silent, `[batch, 1, outputs]`."""
        state = {"recurrent": tf.zeros([batch, self._recurrent.units])}
        if self.stride > 1:
            state["outputs"] = tf.fill([batch, 1, self._head.units], SILENT)
        return state

    def call(self, inputs: dict[str, tf.Tensor], state: State) -> tuple[dict[str, tf.Tensor], State]:
        """Decodes a block of frames.

        Args:
            inputs: Channel name → `[batch, n_frames, 1]`, scaled; `n_frames` a multiple of the stride.
            state: Of the block before.

        Returns:
            Output name → `[batch, n_frames, size]`, `latency_frames` behind the inputs, and the next state.
        """
        values = [inputs[channel][:, :: self.stride] for channel in self.channels]
        n_frames = values[0].shape[1]
        few = n_frames is not None and n_frames <= UNROLLED
        if self._mlp_per_channel and self._output_mlp.built and not few and not on_gpu():
            hidden, last = self._from_unique_values(values, state["recurrent"])
        else:
            channels = [self._with_fourier_features(channel, value) for channel, value in zip(self.channels, values)]
            if not self._mlp_per_channel:
                channels = [tf.concat(channels, axis=-1)]
            embedded = tf.concat([mlp(channel) for mlp, channel in zip(self._input_mlps, channels)], axis=-1)
            recurrent, last = self._recurrent(embedded, state=state["recurrent"])
            hidden = self._output_mlp(tf.concat([recurrent, embedded], axis=-1))
        outputs = self._head(hidden)
        next_state = {"recurrent": last}
        if self.stride > 1:
            outputs = tf.concat([state["outputs"], outputs], axis=1)
            next_state["outputs"] = outputs[:, -1:]
            outputs = _between_frames(outputs, self.stride)
        sizes = [size for _, size in self.outputs]
        return dict(zip([name for name, _ in self.outputs], tf.split(outputs, sizes, axis=-1))), next_state

    def weights_by_name(self) -> dict[str, tuple[tf.Variable, int, list[Hashable]]]:
        """Its weights, with what the entries of an axis stand for: decoders of other channels and heads share some.

        Returns:
            Name of a weight → the variable, an axis of it, and the names of the entries along that axis: channels and
            their Fourier features, units, or the outputs, `(name, index)`.
        """
        features = [self._feature_names(channel) for channel in self.channels]
        of_mlps = dict(zip(self.channels, features)) if self._mlp_per_channel else {"all": sum(features, [])}
        embedded = [(mlp, unit) for mlp in of_mlps for unit in range(self._output_mlp.layers[0].units)]
        recurrent = [("recurrent", unit) for unit in range(self._recurrent.units)]
        dense = [(mlp, layers, names) for (mlp, names), layers in zip(of_mlps.items(), self._input_mlps)]
        named: dict[str, tuple[tf.Variable, int, list[Hashable]]] = {}
        for mlp, layers, names in [*dense, ("output", self._output_mlp, [*recurrent, *embedded])]:
            for i, layer in enumerate(layers.layers):
                rows = names if i == 0 else list(range(layer.kernel.shape[0]))
                named[f"{mlp}/{i}/kernel"] = layer.kernel, 0, rows
                named[f"{mlp}/{i}/bias"] = layer.bias, 0, list(range(layer.units))
        cell, gates = self._recurrent.cell, list(range(3 * self._recurrent.units))
        named["recurrent/kernel"] = cell.kernel, 0, embedded
        named["recurrent/recurrent_kernel"] = cell.recurrent_kernel, 1, gates
        named["recurrent/bias"] = cell.bias, 1, gates
        outputs = [(name, i) for name, size in self.outputs for i in range(size)]
        return {**named, "head/kernel": (self._head.kernel, 1, outputs), "head/bias": (self._head.bias, 0, outputs)}

    def hidden_kernels(self) -> list[tf.Variable]:
        """Its matrices, but for that of the heads, and that by which the recurrent layer takes its own outputs."""
        named = self.weights_by_name().items()
        return [weight for name, (weight, *_) in named if name.endswith("/kernel") and not name.startswith("head/")]

    def _from_unique_values(self, values: Sequence[tf.Tensor], state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What `call` computes before the head, once for each value of a channel instead of once for each frame.

        A channel holds its value for many frames, and notes are alike. So what depends on one channel alone, its MLP
        and its part in the matrix products that follow, is computed once for each value that occurs (`tf.unique`), and
        the results are gathered into the frames. Weights have their gradients; control frames have none.

        Args:
            values: Of each channel, `[batch, n_frames, 1]`.
            state: Of the recurrent layer.

        Returns:
            `[batch, n_frames, units]` and the recurrent layer's next state.
        """
        unique = [tf.unique(tf.reshape(value, [-1])) for value in values]
        embedded = [
            mlp(self._with_fourier_features(channel, each.y[tf.newaxis, :, tf.newaxis]))[0]
            for mlp, channel, each in zip(self._input_mlps, self.channels, unique)
        ]
        batch, n_frames = tf.unstack(tf.shape(values[0])[:2])

        def times(kernel: tf.Tensor) -> tf.Tensor:
            parts = zip(embedded, tf.split(kernel, len(embedded)), unique)
            products = [tf.gather(tf.matmul(rows, part), each.idx) for rows, part, each in parts]
            return tf.reshape(tf.add_n(products), [batch, n_frames, kernel.shape[1]])

        recurrent, last = self._recurrent.recur(times(tf.convert_to_tensor(self._recurrent.cell.kernel)), state)
        first, *others = self._output_mlp.layers
        of_recurrent, of_embedded = tf.split(first.kernel, [self._recurrent.units, -1])
        hidden = first.activation(tf.matmul(recurrent, of_recurrent) + times(of_embedded) + first.bias)
        for layer in others:
            hidden = layer(hidden)
        return hidden, last

    def _feature_names(self, channel: str) -> list[Hashable]:
        """What `_with_fourier_features` makes of a channel, in its order."""
        waves = [(channel, wave, i) for wave in ("sin", "cos") for i in range(self._fourier_features.get(channel, 0))]
        return [(channel,), *waves]

    def _with_fourier_features(self, channel: str, value: tf.Tensor) -> tf.Tensor:
        """A channel and its Fourier features, `[…, 1 + 2 n]`."""
        n_features = self._fourier_features.get(channel, 0)
        if not n_features:
            return value
        angles = value * (math.pi * 2.0 ** np.arange(n_features, dtype=np.float32))
        return tf.concat([value, tf.sin(angles), tf.cos(angles)], axis=-1)


def _mlp(layers: int, units: int) -> tf.keras.Sequential:
    dense = (tf.keras.layers.Dense(units, activation=tf.nn.leaky_relu) for _ in range(layers))
    return tf.keras.Sequential(list(dense))


def _between_frames(frames: tf.Tensor, stride: int) -> tf.Tensor:
    """From frame to frame in `stride` steps by halves of a Hann window: `[b, n + 1, c]` to `[b, n·stride, c]`."""
    rise = (0.5 - 0.5 * np.cos(math.pi * np.arange(stride) / stride)).astype(np.float32)[:, np.newaxis]
    begin, end = frames[:, :-1, tf.newaxis], frames[:, 1:, tf.newaxis]
    between = begin + rise * (end - begin)
    return tf.reshape(between, [tf.shape(frames)[0], -1, frames.shape[-1]])
