"""A gated recurrent unit with its state in and out, quick on processor cores, and whether there is a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

State = dict[str, Any]
"""What a stage keeps from one block to the next: tensors, nested by name."""

UNROLLED = 10
"""Frames computed in one turn of the recurrent loop. A turn has a cost of its own, as much as some frames; sequences of
so few frames are computed without a loop."""

_STATE_PREFIX = "state_"


def flat_state(state: State, prefix: str = _STATE_PREFIX) -> Iterator[tuple[str, Any]]:
    """The tensors of a state with their names: the paths to them, joined by underscores."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat_state(value, f"{prefix}{name}_")
        else:
            yield prefix + name, value


def nested_state(like: State, values: Mapping[str, Any], prefix: str = _STATE_PREFIX) -> State:
    """The inverse of `flat_state`; `like` is any state."""
    return {
        name: nested_state(value, values, f"{prefix}{name}_") if isinstance(value, dict) else values[prefix + name]
        for name, value in like.items()
    }


class Packing:
    """A state as one tensor for each type of number: two tensors are handed over in less time than twenty.

    Attributes:
        places: Where the tensors lie, by the names of `flat_state`: type, begin and end.
        specs: Of what `pack` returns, with names.
    """

    def __init__(self, like: State) -> None:
        """Finds the places.

        Args:
            like: Any state.
        """
        self._like = like
        self._leaves = tf.nest.flatten(like)
        self._types = sorted({leaf.dtype for leaf in self._leaves}, key=lambda dtype: dtype.name)
        ends = dict.fromkeys(self._types, 0)
        numbered = tf.nest.pack_sequence_as(like, list(range(len(self._leaves))))
        of_leaves = []
        for leaf in self._leaves:
            begin = ends[leaf.dtype]
            ends[leaf.dtype] = begin + leaf.shape.num_elements()
            of_leaves.append((leaf.dtype, begin, ends[leaf.dtype]))
        self.places = {name: of_leaves[i] for name, i in flat_state(numbered)}
        self.specs = [tf.TensorSpec([ends[dtype]], dtype, _STATE_PREFIX + dtype.name) for dtype in self._types]

    def pack(self, state: State) -> list[tf.Tensor]:
        """Makes of a state one vector for each of `specs`."""
        leaves = tf.nest.flatten(state)
        return [
            tf.concat([tf.reshape(leaf, [-1]) for leaf in leaves if leaf.dtype == dtype], axis=0)
            for dtype in self._types
        ]

    def unpack(self, packed: Sequence[tf.Tensor]) -> State:
        """The inverse of `pack`."""
        parts = {}
        for dtype, values in zip(self._types, packed):
            sizes = [leaf.shape.num_elements() for leaf in self._leaves if leaf.dtype == dtype]
            parts[dtype] = iter(tf.split(values, sizes))
        leaves = [tf.reshape(next(parts[leaf.dtype]), leaf.shape) for leaf in self._leaves]
        return tf.nest.pack_sequence_as(self._like, leaves)


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
    """Whether TensorFlow may compute on a GPU: `tf.config.set_visible_devices` can hide those there are."""
    return bool(tf.config.get_visible_devices("GPU"))


@tf.custom_gradient
def _recur(projected: tf.Tensor, state: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
    """The recursion over the frames.

    Args:
        projected: Inputs times the kernel, `[batch, n_frames, 3 units]`.
        state: `[batch, units]`.
        kernel: Of the recurrence, `[units, 3 units]`.
        bias: Of the recurrence, `[3 units]`.

    Returns:
        Outputs `[batch, n_frames, units]`.
    """
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
    """The gates and the candidate of the gated recurrent unit, for one frame or for all of them at once.

    Args:
        projected: Inputs times the kernel, `[…, 3 units]`.
        recurrent: The state times the recurrent kernel, `[…, 3 units]`.

    Returns:
        Update gate, reset gate, the state's part of the candidate before the reset gate, and the candidate, each
        `[…, units]`. The next state is `candidate + update * (state - candidate)`.
    """
    update, reset, fresh = tf.split(projected, 3, axis=-1)
    to_update, to_reset, from_state = tf.split(recurrent, 3, axis=-1)
    reset = tf.sigmoid(reset + to_reset)
    return tf.sigmoid(update + to_update), reset, from_state, tf.tanh(fresh + reset * from_state)
