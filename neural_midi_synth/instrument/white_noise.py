"""White noise that is a function of an index and a seed alone, so that where a block begins changes nothing."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def white_noise(samples: tf.Tensor, seed: int | np.ndarray) -> tf.Tensor:
    """Uniform noise in [-1, 1) that is a function of the sample index and the seed: a hash of both.

    Args:
        samples: int64, or int32 that wraps around where it overflows, any shape.
        seed: Any integer, or one for each of the last dimension.

    Returns:
        float32, shaped as `samples`.
    """
    key = hashed_seed(seed)
    if samples.dtype == tf.int32:  # LiteRT has neither int64 that becomes uint32 nor sums of uint32.
        return uniform(hashed(tf.bitcast(samples + tf.bitcast(key, tf.int32), tf.uint32)))
    return uniform(hashed(tf.cast(samples & 0xFFFFFFFF, tf.uint32) + key))


def hashed(x: tf.Tensor) -> tf.Tensor:
    """A hash of uint32 of which each output bit depends on all input bits: C. Wellons' "lowbias32"."""
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    for by, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = xor(x, shift(x, tf.constant(by, tf.uint32))) * tf.constant(factor, tf.uint32)
    return xor(x, shift(x, tf.constant(16, tf.uint32)))


def hashed_seed(seed: int | np.ndarray) -> tf.Tensor:
    """What a seed adds to the index of each sample, uint32: noise of another seed is another stretch of one noise."""
    return hashed(tf.constant((seed + 0x9E3779B9) % 2**32, tf.uint32))


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 as float32 in [-1, 1), by their upper 24 bits."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-23 - 1.0
