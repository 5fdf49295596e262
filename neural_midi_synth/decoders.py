"""From control frames to synthesizer parameters: scaling, recurrent layer, decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

State = dict[str, Any]

UNROLLED = 10
"""Frames in one turn of the recurrent loop; as few need no loop."""

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


class Recurrent(tf.keras.layers.GRU):
    """Keras' gated recurrent unit, faster on processor cores, with its state in and out.

    The projection of the inputs is one matrix product outside the loop. So is, in the gradient, everything but the
    recursion itself: the gates are computed again from the outputs, all frames at once, and the gradient of the
    recurrent weights is one product at the end. On a machine with a GPU it is Keras' own layer, which cuDNN computes.
    """

    def __init__(self, units: int, name: str = "recurrent") -> None:
        super().__init__(units, return_sequences=True, return_state=True, name=name)

    def call(self, inputs: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs over the frames.

        Args:
            inputs: `[batch, n_frames, inputs]`.
            state: `[batch, units]`.

        Returns:
            Outputs `[batch, n_frames, units]` and the last of them, the next state.
        """
        if on_gpu():
            outputs, last = super().call(inputs, initial_state=[state])
            return outputs, last
        return self.recur(tf.tensordot(inputs, self.cell.kernel, 1), state)

    def recur(self, projected: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """As `call`, of inputs times the kernel, `[batch, n_frames, 3 units]`."""
        projected += self.cell.bias[0]
        # A mirrored variable would be taken for one that the custom gradient captures.
        outputs = _recur(projected, state, tf.convert_to_tensor(self.cell.recurrent_kernel), self.cell.bias[1])
        return outputs, tf.concat([state[:, tf.newaxis], outputs], axis=1)[:, -1]


def on_gpu() -> bool:
    """Whether there is a GPU to compute on."""
    return bool(tf.config.list_physical_devices("GPU"))


@tf.custom_gradient
def _recur(projected: tf.Tensor, state: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
    """The recursion: projected inputs `[batch, n_frames, 3 units]` to outputs `[batch, n_frames, units]`."""
    units = kernel.shape[0]
    frames = tf.transpose(projected, [1, 0, 2])

    def forward(hidden: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        update, _, _, candidate = _gates(frame, tf.matmul(hidden, kernel) + bias)
        hidden = candidate + update * (hidden - candidate)
        return hidden, hidden

    outputs = _scan(forward, state, frames)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        upstream = tf.transpose(upstream, [1, 0, 2])
        before = tf.concat([state[tf.newaxis], outputs[:-1]], axis=0)
        recurrent = tf.tensordot(before, kernel, 1) + bias
        update, reset, from_state, candidate = _gates(frames, recurrent)
        to_candidate = (1.0 - update) * (1.0 - candidate**2)
        to_reset = to_candidate * from_state * reset * (1.0 - reset)
        to_update = (before - candidate) * update * (1.0 - update)
        slopes = tf.stack([to_update, to_reset, to_candidate * reset], axis=2)

        def to_before(hidden: tf.Tensor, slopes: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
            through = tf.reshape(hidden[:, tf.newaxis] * slopes, [-1, 3 * units])
            return hidden * update + tf.matmul(through, kernel, transpose_b=True)

        def backward(
            carried: tf.Tensor, upstream: tf.Tensor, slopes: tf.Tensor, update: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            hidden = upstream + carried
            return to_before(hidden, slopes, update), hidden

        latest_first = (tf.reverse(each, [0]) for each in (upstream, slopes, update))
        hidden = tf.reverse(_scan(backward, tf.zeros_like(state), *latest_first), [0])
        to_state = to_before(hidden[0], slopes[0], update[0])
        to_recurrent = tf.reshape(hidden[:, :, tf.newaxis] * slopes, tf.shape(frames))
        to_projected = tf.concat([to_recurrent[..., : 2 * units], hidden * to_candidate], axis=-1)
        of_frames = tf.reshape(to_recurrent, [-1, 3 * units])
        to_kernel = tf.matmul(tf.reshape(before, [-1, units]), of_frames, transpose_a=True)
        return tf.transpose(to_projected, [1, 0, 2]), to_state, to_kernel, tf.reduce_sum(of_frames, axis=0)

    return tf.transpose(outputs, [1, 0, 2]), gradient


def _scan(step: Callable[..., tuple[tf.Tensor, tf.Tensor]], state: tf.Tensor, *sequences: tf.Tensor) -> tf.Tensor:
    """Runs over the frames, several in one turn of the loop: a turn costs as much as some frames do.

    Args:
        step: (state, a frame of each sequence) → (state, output), both shaped as the state.
        state: `[batch, units]`.
        *sequences: `[n_frames, batch, …]`, the last dimensions known.

    Returns:
        Outputs `[n_frames, batch, units]`.
    """

    def turn(state: tf.Tensor, sequences: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = []
        for frames in zip(*map(tf.unstack, sequences)):
            state, output = step(state, *frames)
            outputs.append(output)
        return state, tf.stack(outputs)

    n_frames = sequences[0].shape[0]
    if n_frames is not None and n_frames <= UNROLLED:
        return turn(state, sequences)[1]
    n_frames, batch = tf.unstack(tf.shape(sequences[0])[:2])
    n_turns = -(-n_frames // UNROLLED)

    def in_turns(sequence: tf.Tensor) -> tf.Tensor:
        padding = [[0, n_turns * UNROLLED - n_frames]] + [[0, 0]] * (len(sequence.shape) - 1)
        return tf.reshape(tf.pad(sequence, padding), [n_turns, UNROLLED, batch, *sequence.shape[2:]])

    turns = [in_turns(sequence) for sequence in sequences]
    shape = state.shape

    def body(i: tf.Tensor, state: tf.Tensor, outputs: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        state, output = turn(state, [sequence[i] for sequence in turns])
        state.set_shape(shape)
        return i + 1, state, outputs.write(i, output)

    outputs = tf.TensorArray(tf.float32, n_turns, element_shape=[UNROLLED, None, state.shape[-1]])
    *_, outputs = tf.while_loop(lambda i, *_: i < n_turns, body, (0, state, outputs), maximum_iterations=n_turns)
    return tf.reshape(outputs.stack(), [n_turns * UNROLLED, batch, state.shape[-1]])[:n_frames]


def _gates(projected: tf.Tensor, recurrent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Update gate, reset gate, what the state gives to the candidate, candidate; each `[…, units]`."""
    update, reset, fresh = tf.split(projected, 3, axis=-1)
    to_update, to_reset, from_state = tf.split(recurrent, 3, axis=-1)
    reset = tf.sigmoid(reset + to_reset)
    return tf.sigmoid(update + to_update), reset, from_state, tf.tanh(fresh + reset * from_state)


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
        outputs: tuple[tuple[str, int], ...] = gin.REQUIRED,
        units: int = 512,
        layers: int = 3,
        rnn_units: int = 512,
        stride: int = 1,
        mlp_per_channel: bool = True,
        octaves: dict[str, int] | None = None,
        name: str = "decoder",
    ) -> None:
        """Describes the network.

        Args:
            channels: The channels it sees.
            outputs: Name and size of each head, such as `('harmonic_distribution', 100)`.
            units: Of each dense layer.
            layers: Dense layers of each MLP.
            rnn_units: Of the recurrent layer.
            stride: Frames from one the network sees to the next.
            mlp_per_channel: One MLP for each channel, else one for all.
            octaves: Channel name → n: the channel `x` is joined by sin and cos of π 2ⁱ x, i < n, so that a small
                network can tell near values apart.
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
        self.outputs = tuple((str(output), int(size)) for output, size in outputs)
        self.stride = int(stride)
        self.latency_frames = self.stride if self.stride > 1 else 0
        self._octaves = dict(octaves or {})
        self._mlp_per_channel = mlp_per_channel
        n_mlps = len(self.channels) if mlp_per_channel else 1
        self._input_mlps = [_mlp(layers, units) for _ in range(n_mlps)]
        self._recurrent = Recurrent(rnn_units)
        self._output_mlp = _mlp(layers, units)
        self._head = tf.keras.layers.Dense(sum(size for _, size in self.outputs))

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
            hidden, last = self._from_distinct(values, state["recurrent"])
        else:
            channels = [self._expanded(channel, value) for channel, value in zip(self.channels, values)]
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

    def _from_distinct(self, values: Sequence[tf.Tensor], state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What `call` computes before the head, with a fraction of the products.

        A channel holds its value for many frames, and notes are alike. What depends on one channel alone, its MLP and
        its part in the products that follow, is computed once for each distinct value and then put where that stands.
        Weights have their gradients; control frames have none.

        Args:
            values: Of each channel, `[batch, n_frames, 1]`.
            state: Of the recurrent layer.

        Returns:
            `[batch, n_frames, units]` and the recurrent layer's next state.
        """
        distinct = [tf.unique(tf.reshape(value, [-1])) for value in values]
        embedded = [
            mlp(self._expanded(channel, each.y[tf.newaxis, :, tf.newaxis]))[0]
            for mlp, channel, each in zip(self._input_mlps, self.channels, distinct)
        ]
        batch, n_frames = tf.unstack(tf.shape(values[0])[:2])

        def times(kernel: tf.Tensor) -> tf.Tensor:
            parts = zip(embedded, tf.split(kernel, len(embedded)), distinct)
            products = [tf.gather(tf.matmul(rows, part), each.idx) for rows, part, each in parts]
            return tf.reshape(tf.add_n(products), [batch, n_frames, kernel.shape[1]])

        recurrent, last = self._recurrent.recur(times(tf.convert_to_tensor(self._recurrent.cell.kernel)), state)
        first, *others = self._output_mlp.layers
        of_recurrent, of_embedded = tf.split(first.kernel, [self._recurrent.units, -1])
        hidden = first.activation(tf.matmul(recurrent, of_recurrent) + times(of_embedded) + first.bias)
        for layer in others:
            hidden = layer(hidden)
        return hidden, last

    def _expanded(self, channel: str, value: tf.Tensor) -> tf.Tensor:
        n_octaves = self._octaves.get(channel, 0)
        if not n_octaves:
            return value
        angles = value * (math.pi * 2.0 ** np.arange(n_octaves, dtype=np.float32))
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
