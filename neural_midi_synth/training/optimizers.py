"""Optimizers: functions of the learning rate and of what is to be trained, chosen by gin as `nms.train.optimizer`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import gin
import tensorflow as tf

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Of x, x³ and x⁵ for each singular value x; of Jordan et al.
_ITERATIONS = 5


@gin.configurable(module="nms")
def adam(learning_rate: float, hidden: Iterable[tf.Variable], clip_norm: float) -> tf.keras.optimizers.Optimizer:
    """The lineage's optimizer: Adam for everything.

    Args:
        learning_rate: Before the schedule.
        hidden: Not used.
        clip_norm: Gradients are scaled down to this norm.
    """
    del hidden
    return tf.keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm)


@gin.configurable(module="nms")
def muon(
    learning_rate: float,
    hidden: Iterable[tf.Variable],
    clip_norm: float,
    matrix_rate: float = 0.4,
    momentum: float = 0.95,
    beta_2: float = 0.99,
) -> tf.keras.optimizers.Optimizer:
    """The default's optimizer: Muon for the hidden layers, Adam for the rest.

    Args:
        learning_rate: Before the schedule.
        hidden: Kernels `[n, m]` of hidden layers, without a recurrent one: its singular values would all grow, and with
            them, frame after frame, whatever differs a little.
        clip_norm: Gradients are scaled down to this norm.
        matrix_rate: Root mean square of the change of the kernels' entries in a step, in learning rates.
        momentum: Of the gradients of the kernels.
        beta_2: Of Adam. Trainings of a thousand steps want a shorter memory than Adam's 0.999.
    """
    return Muon(learning_rate, hidden, matrix_rate, momentum, beta_2=beta_2, global_clipnorm=clip_norm)


class Muon(tf.keras.optimizers.Adam):
    """Muon (Jordan et al., 2024) for some matrices, Adam for all else.

    Gradients of a matrix lie in a few directions above all, and Adam moves it in these. Muon makes all singular values
    of the averaged gradient nearly equal, so that a step goes as far in each direction. Its matrices learn as much in
    fewer steps. A step's length is as Liu et al. (2025) have it.

    It has the variables of Adam, means of gradients and of their squares: either goes on where the other stopped.
    """

    def __init__(
        self,
        learning_rate: float,
        matrices: Iterable[tf.Variable],
        matrix_rate: float,
        momentum: float,
        name: str = "Adam",
        **of_adam: float,
    ) -> None:
        """Sets the numbers.

        Args:
            learning_rate: Of both.
            matrices: What Muon is for, variables `[n, m]`.
            matrix_rate: Root mean square of the change of their entries in a step, in learning rates.
            momentum: Share of the mean of their gradients that is left after a step.
            name: Of the optimizer.
            of_adam: More of what Adam takes.
        """
        super().__init__(learning_rate, name=name, **of_adam)
        self._matrices = {self._var_key(variable) for variable in matrices}
        self._matrix_rate = matrix_rate
        self._momentum = momentum

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Changes a variable."""
        key = self._var_key(variable)
        if key not in self._matrices:
            super().update_step(gradient, variable)
            return
        index = self._index_dict[key]
        mean, mean_square = self._momentums[index], self._velocities[index]
        new = 1.0 - self._momentum
        mean.assign(self._momentum * mean + new * gradient)
        mean_square.assign(self.beta_2 * mean_square + (1.0 - self.beta_2) * tf.square(gradient))  # For Adam alone.
        direction = orthogonal(new * gradient + self._momentum * mean)
        length = self._matrix_rate * math.sqrt(max(variable.shape))
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * length * direction)


def orthogonal(matrix: tf.Tensor) -> tf.Tensor:
    """Makes the singular values of a matrix nearly equal, by Newton–Schulz iteration.

    Args:
        matrix: `[n, m]`.

    Returns:
        `[n, m]`, with the same singular vectors, and singular values of about 0.7 to 1.2; those that were less than a
        thousandth of the norm stay smaller.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    first, third, fifth = _NEWTON_SCHULZ
    found = tf.transpose(matrix) if is_tall else matrix
    found /= tf.norm(found) + 1e-12
    for _ in range(_ITERATIONS):
        square = tf.matmul(found, found, transpose_b=True)
        found = first * found + tf.matmul(third * square + fifth * tf.matmul(square, square), found)
    return tf.transpose(found) if is_tall else found
