"""What is measured of each pitch of a recorded instrument: how it is tuned, and how stiff its string is."""

from __future__ import annotations

import gin
import tensorflow as tf

PITCHES = 128
_STEPS = 4096.0  # of a semitone


class _OfPitches(tf.keras.layers.Layer):
    """A number for each MIDI note number, and between them a line.

    It is no weight that gradients train: it is measured in the recordings before training, by `training.partials`.
    """

    def _add(self, name: str) -> tf.Variable:
        return self.add_weight(name, [PITCHES], initializer="zeros", trainable=False)

    @staticmethod
    def _at(values: tf.Variable, f0_midi: tf.Tensor) -> tf.Tensor:
        below = tf.clip_by_value(tf.floor(f0_midi), 0.0, PITCHES - 2.0)
        index = tf.cast(below, tf.int32)
        low, high = (tf.gather(values, each) for each in (index, index + 1))
        return low + tf.clip_by_value(f0_midi - below, 0.0, 1.0) * (high - low)


@gin.configurable(module="nms")
class Tuning(_OfPitches):
    """How the recorded instrument is tuned.

    Attributes:
        semitones: Variable `[128]`: by how much each MIDI note number sounds higher than in equal temperament with A at
            440 Hz.
    """

    def __init__(self, name: str = "tuning") -> None:
        super().__init__(name=name)
        self.semitones = self._add("semitones")

    def call(self, f0_midi: tf.Tensor) -> tf.Tensor:
        """The pitch that sounds, MIDI note number, where one is played, `[batch, n_frames, 1]`."""
        # In steps as those of a pitch wheel, so that whoever computes it gets the same to the last bit: phases add up.
        return f0_midi + tf.round(self._at(self.semitones, f0_midi) * _STEPS) / _STEPS


@gin.configurable(module="nms")
class Strings(_OfPitches):
    """The inharmonicity coefficient B of each pitch.

    Partial k of a stiff string lies at k f0 √(1 + B k²) (Fletcher, 1964).

    Attributes:
        coefficients: Variable `[128]`, B of each MIDI note number, 0 where partials are not stretched.
    """

    def __init__(self, name: str = "strings") -> None:
        super().__init__(name=name)
        self.coefficients = self._add("coefficients")

    def call(self, f0_midi: tf.Tensor) -> tf.Tensor:
        """B at a pitch, MIDI note number, `[batch, n_frames, 1]`."""
        return self._at(self.coefficients, f0_midi)
