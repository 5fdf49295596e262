"""How stiff the strings of an instrument are: what stretches their partials."""

from __future__ import annotations

import gin
import tensorflow as tf

PITCHES = 128


@gin.configurable(module="nms")
class Strings(tf.keras.layers.Layer):
    """The inharmonicity coefficient B of each pitch.

    Partial k of a stiff string lies at k f0 √(1 + B k²) (Fletcher, 1964). B is no weight that gradients train: it is
    measured in the recordings before training, by `training.stiffness`, and is 0 where partials are not stretched.

    Attributes:
        coefficients: Variable `[128]`, B of each MIDI note number.
    """

    def __init__(self, name: str = "strings") -> None:
        super().__init__(name=name)
        self.coefficients = self.add_weight("coefficients", [PITCHES], initializer="zeros", trainable=False)

    def call(self, f0_midi: tf.Tensor) -> tf.Tensor:
        """B at a pitch, MIDI note number, `[batch, n_frames, 1]`, linear between whole ones."""
        below = tf.clip_by_value(tf.floor(f0_midi), 0.0, PITCHES - 2.0)
        index = tf.cast(below, tf.int32)
        low, high = (tf.gather(self.coefficients, each) for each in (index, index + 1))
        return low + tf.clip_by_value(f0_midi - below, 0.0, 1.0) * (high - low)
