"""What is known of the strings of an instrument: how stiff they are, and when the first pulse of a note comes."""

from __future__ import annotations

import gin
import tensorflow as tf

from neural_midi_synth.instrument.oscillators import FIRST_PULSE

PITCHES = 128


@gin.configurable(module="nms")
class Strings(tf.keras.layers.Layer):
    """The inharmonicity coefficient B of each pitch, and the time from the onset of a note to its first pulse.

    Partial k of a stiff string lies at k f0 √(1 + B k²) (Fletcher, 1964). No gradients train what is known of strings:
    it is measured in the recordings before training, by `training.measuring_strings`. B is 0 where partials are not
    stretched.

    Attributes:
        coefficients: Variable `[128]`, B of each MIDI note number.
        first_pulses: Variable `[128]`, seconds; None unless there are processors that take it.
    """

    def __init__(self, name: str = "strings") -> None:
        super().__init__(name=name)
        self.coefficients = self.add_weight("coefficients", [PITCHES], initializer="zeros", trainable=False)
        self.first_pulses: tf.Variable | None = None

    def add_first_pulses(self) -> None:
        """Makes the variable `first_pulses`."""
        usual = tf.keras.initializers.Constant(FIRST_PULSE)
        self.first_pulses = self.add_weight("first_pulses", [PITCHES], initializer=usual, trainable=False)

    def call(self, f0_midi: tf.Tensor) -> tf.Tensor:
        """B at a pitch, MIDI note number, `[batch, n_frames, 1]`, linear between whole ones."""
        return _between_pitches(self.coefficients, f0_midi)

    def first_pulse(self, f0_midi: tf.Tensor) -> tf.Tensor:
        """Seconds from an onset to the first pulse at a pitch, likewise."""
        return _between_pitches(self.first_pulses, f0_midi)


def _between_pitches(of_pitches: tf.Tensor, f0_midi: tf.Tensor) -> tf.Tensor:
    below = tf.clip_by_value(tf.floor(f0_midi), 0.0, PITCHES - 2.0)
    index = tf.cast(below, tf.int32)
    low, high = (tf.gather(of_pitches, each) for each in (index, index + 1))
    return low + tf.clip_by_value(f0_midi - below, 0.0, 1.0) * (high - low)
