"""A bank of oscillators whose frequencies and amplitudes go from frame to frame, by few sines and matrix products."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

CYCLE = 2**32
"""Steps of a phase in one cycle."""

# Coefficients of the polynomial in `_polynomial_sine`, the highest power first.
_SINE = (12.235930442810059, -38.12417984008789, 67.04401397705078, -64.83468627929688, 25.13273048400879)
_FOR_XLA = contextvars.ContextVar("for_xla", default=False)


class Oscillators:
    """A bank of oscillators between one frame and the next.

    A hop is cut into pieces. The phase of every oscillator is found at the middle of each piece, exactly; from there it
    goes straight on at the frame's frequency, forth and back. With the sine of a sum of angles,

        sin(θ ± ωt) = sin θ cos ωt ± cos θ sin ωt,

    the sum over the oscillators, whose θ are those of the pieces and whose ωt are those of a piece's samples, becomes
    two matrix products. So instead of a sine for each oscillator and sample it takes two for each oscillator and piece,
    and one for each oscillator and sample of a piece: for a hop of 128 samples a quarter. No frequency or amplitude of
    a single oscillator is ever stored at audio rate.

    Where the pitch is steady this is exact. In a vibrato of a semitone, six times a second, what differs is 74 dB below
    the sound with hops of 8 ms, and 87 dB with hops of 4 ms.

    Attributes:
        middles: Samples from the hop's begin to the middle of each piece, `[pieces]`.
    """

    def __init__(self, hop: int, sample_rate: int) -> None:
        """Cuts a hop into pieces.

        Args:
            hop: Samples a frame.
            sample_rate: Samples a second.
        """
        self._hop = hop
        self._sample_rate = sample_rate
        # 2 hop / n + n sines for pieces of n samples: fewest at the root of 2 hop.
        half = min(range(1, max(hop // 2, 1) + 1), key=lambda half: (-(-hop // (2 * half)) + half, -half))
        self._offsets = (np.arange(half) + 0.5).astype(np.float32)
        self.middles = np.arange(-(-hop // (2 * half))) * (2.0 * half) + half - 0.5
        self._padded_hop = 2 * half * len(self.middles)
        # Of the later frame's frequency, on the way from a middle to a sample: what it is halfway between them.
        samples = np.arange(self._padded_hop).reshape([-1, 2 * half])
        self._share_of_frequency = ((0.5 * (samples + self.middles[:, np.newaxis]) + 0.5) / hop).astype(np.float32)

    def phases(self, f0_hz: tf.Tensor, phase: tf.Tensor, onset: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Phase at the middle of each piece.

        The frequency goes linearly from frame to frame; where a note begins, it jumps. Within a hop the sum of its
        increments has a closed form; from hop to hop the sums are whole numbers, added modulo a cycle, so that where a
        block begins changes nothing. Whole numbers have no gradient: that of the sums they stand for takes its place.

        Args:
            f0_hz: `[batch, n_frames + 1, 1]`. Where a frame's frequency is 0 (before the first one) the phase stays.
            phase: int64 `[batch]`, 2³² steps a cycle.
            onset: Where a note begins in each hop, 0 to 1, and below 0 where none does, `[batch, n_frames, 1]`.

        Returns:
            Cycles in [-0.5, 0.5), float32 `[batch, n_frames, pieces]`, and the phase at the end, int64 `[batch]`.
        """
        begin, change = _begin_and_change(f0_hz)
        at_middles, at_end = self._counted(onset)
        within = begin * (self.middles + 1.0) + change * at_middles
        ends = (begin * self._hop + change * at_end)[..., 0]
        return _wrapped(within / self._sample_rate, ends / self._sample_rate, phase)

    def begins(self, frequencies: tf.Tensor, phase: tf.Tensor, onset: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Phase of each oscillator of a bank at the begin of each hop, counted as in `phases`.

        Args:
            frequencies: Hz, `[batch, n_frames + 1, n]`.
            phase: int64 `[batch, n]`.
            onset: As for `phases`.

        Returns:
            Cycles in [-0.5, 0.5), float32 `[batch, n_frames, n]`, and the phase at the end, int64 `[batch, n]`.
        """
        begin, change = _begin_and_change(frequencies)
        _, at_end = self._counted(onset)
        ends = (begin * self._hop + change * at_end) / self._sample_rate
        begins, last = _wrapped(tf.zeros_like(ends)[:, :, tf.newaxis], ends, phase)
        return begins[:, :, 0], last

    def within(self, frequencies: tf.Tensor, onset: tf.Tensor | None) -> tf.Tensor:
        """How far each oscillator turns from each hop's begin to its middles; frames come first, as for `play`.

        Args:
            frequencies: Hz, `[n_frames + 1, batch, n]`.
            onset: `[n_frames, batch, 1]`.

        Returns:
            In turns of `turn`, float32 `[n_frames, batch, pieces, n]`.
        """
        turns = frequencies[:, :, tf.newaxis] * (turn() / self._sample_rate)
        begin, end = turns[:-1], turns[1:]
        change = tf.where(begin > 0.0, end - begin, 0.0)
        middles = (self.middles + 1.0).astype(np.float32)[:, np.newaxis]
        at_middles = tf.constant(self._gradual(self.middles), tf.float32)
        if onset is not None:
            jumped = tf.maximum(middles[:, 0] - self.jumps(onset), 0.0)
            at_middles = tf.where(onset < 0.0, at_middles, jumped)
        return begin * middles + change * at_middles[..., tf.newaxis]

    def jumps(self, onset: tf.Tensor) -> tf.Tensor:
        """Samples of the hop before pitch and phase are the new note's: they change with the piece it begins in."""
        size = 2 * len(self._offsets)
        return tf.floor(onset * (self._hop / size)) * size

    def _gradual(self, samples: np.ndarray) -> np.ndarray:
        """For how many samples the next frame's frequency has counted where it comes gradually."""
        return samples * (samples + 1.0) / (2.0 * self._hop)

    def _counted(self, onset: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """For how many samples the next frame's frequency has counted, at the middles and at the end: float64."""
        samples = np.append(self.middles, self._hop - 1.0)
        counted = tf.constant(self._gradual(samples)[np.newaxis, np.newaxis])
        if onset is not None:
            jumps = tf.cast(self.jumps(onset), tf.float64)
            counted = tf.where(onset < 0.0, counted, tf.maximum(samples + 1.0 - jumps, 0.0))
        return counted[..., :-1], counted[..., -1:]

    def play(
        self,
        phases: tf.Tensor,
        frequencies: tf.Tensor,
        amplitudes: tf.Tensor,
        rise: tf.Tensor,
        onset: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Plays the bank from each frame to the next.

        The amplitudes of the earlier frame fall while those of the later rise. Both play, around the middles, at the
        earlier frequency; where the pitch glides, they get of what the change to the later one makes the share that is
        due there. Frames come first in what it takes, since parts of a first axis are not copied.

        Args:
            phases: At the middles, in turns of `turn`, `[n_frames, batch, pieces, n]`.
            frequencies: Hz, `[n_frames + 1, batch, n]`.
            amplitudes: `[n_frames + 1, batch, n]`.
            rise: Share of the later frame's amplitude at each sample, `[hop]` or `[n_frames, batch, hop]`.
            onset: Where a note begins in each hop, 0 to 1, and below 0 where none does, `[n_frames, batch, 1]`.

        Returns:
            `[batch, n_frames * hop]`.
        """
        n_frames, batch, pieces, n = tf.unstack(tf.shape(phases))
        rise = self._in_pieces(rise)
        share: tf.Tensor = tf.constant(self._share_of_frequency)
        if onset is not None:
            share = tf.where(onset[..., tf.newaxis] < 0.0, share, rise)
        falling_and_rising = tf.stack([amplitudes[:-1], amplitudes[1:]], axis=2)[:, :, :, tf.newaxis]

        def weighted(waves: tf.Tensor) -> tf.Tensor:
            return tf.reshape(falling_and_rising * waves[:, :, tf.newaxis], [n_frames, batch, 2 * pieces, n])

        of_phases = [weighted(waves) for waves in _sine_and_cosine(phases)]
        turned = (frequencies * (turn() / self._sample_rate))[..., tf.newaxis] * self._offsets
        sines, cosines = _sine_and_cosine(turned)

        def played(of_frames: slice) -> tf.Tensor:
            even_and_odd = (tf.matmul(of, turns[of_frames]) for of, turns in zip(of_phases, (cosines, sines)))
            return tf.reshape(_forth_and_back(*even_and_odd), [n_frames, batch, 2, pieces, 2 * len(self._offsets)])

        at_begin, at_end = played(slice(None, -1)), played(slice(1, None))
        falling, rising = tf.unstack(at_begin + share[..., tf.newaxis, :, :] * (at_end - at_begin), axis=2)
        signal = tf.reshape(falling + rise * (rising - falling), [n_frames, batch, self._padded_hop])
        if self._padded_hop != self._hop:
            signal = signal[..., : self._hop]
        return tf.reshape(frames_first(signal), [batch, -1])

    def _in_pieces(self, samples: tf.Tensor) -> tf.Tensor:
        """Cuts samples of hops, `[…, hop]`, into pieces: `[…, pieces, samples of a piece]`."""
        missing = self._padded_hop - self._hop
        if missing:
            samples = tf.pad(samples, [[0, 0]] * (len(samples.shape) - 1) + [[0, missing]])
        return tf.reshape(samples, tf.concat([tf.shape(samples)[:-1], [len(self.middles), -1]], axis=0))


def frames_first(of_frames: tf.Tensor) -> tf.Tensor:
    """Exchanges the first two axes: `[batch, n_frames, n]` to `[n_frames, batch, n]`, or back."""
    return tf.transpose(of_frames, [1, 0, 2])


def _forth_and_back(even: tf.Tensor, odd: tf.Tensor) -> tf.Tensor:
    """Samples after the middles are the sum of the two, samples before them the difference."""
    return tf.concat([tf.reverse(even - odd, [-1]), even + odd], axis=-1)


def _begin_and_change(frequencies: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of each hop the first frame's frequency and how much higher the next one's is: float64."""
    frequencies = tf.cast(frequencies, tf.float64)
    begin, end = frequencies[:, :-1], frequencies[:, 1:]
    return begin, tf.where(begin > 0.0, end - begin, 0.0)


@tf.custom_gradient
def _wrapped(within: tf.Tensor, ends: tf.Tensor, phase: tf.Tensor) -> Any:
    """Cycles since each hop's begin, and those of whole hops, to phases that wrap.

    Args:
        within: Cycles from the hop's begin, float64 `[batch, n_frames, …]`.
        ends: Cycles of each hop, float64 `[batch, n_frames]` or `[batch, n_frames, n]`.
        phase: At the first hop's begin, int64 `[batch]` or `[batch, n]`.

    Returns:
        Cycles in [-0.5, 0.5), float32, shaped as `within`, and the phase at the last hop's end, int64 as `phase`.
    """
    a_hop = tf.cast(tf.round(ends * CYCLE), tf.int64)
    after = phase[:, tf.newaxis] + tf.cumsum(a_hop, axis=1)
    before = after - a_hop
    axis = 2  # of the pieces
    if len(within.shape) > len(before.shape):
        before = tf.expand_dims(before, axis)
    steps = before + tf.cast(tf.round(within * CYCLE), tf.int64)
    wrapped = tf.cast(((steps + CYCLE // 2) & (CYCLE - 1)) - CYCLE // 2, tf.float32) / CYCLE

    def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
        # A phase is the sum of what its hop has had of it and of the whole hops before.
        upstream = tf.cast(upstream, tf.float64)
        of_hop = tf.reduce_sum(upstream, axis=axis)
        return upstream, tf.cumsum(of_hop, axis=1, exclusive=True, reverse=True), None

    return (wrapped, after[:, -1] & (CYCLE - 1)), gradient


@contextlib.contextmanager
def for_xla() -> Iterator[None]:
    """While a graph that XLA will compile is traced: sines are polynomials, which XLA makes one loop with the rest.

    Its own sine is computed number by number, and takes ten times as long.
    """
    token = _FOR_XLA.set(True)
    try:
        yield
    finally:
        _FOR_XLA.reset(token)


def turn() -> float:
    """What a cycle is in the angles that are played: 2π, or, where the sine is a polynomial of cycles, 1."""
    return 1.0 if _FOR_XLA.get() else 2.0 * math.pi


def _sine_and_cosine(angles: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sine and cosine of angles in turns of `turn`; to 3e-7 for small ones."""
    if _FOR_XLA.get():
        return _polynomial_sine(angles), _polynomial_sine(angles + 0.25)
    return tf.sin(angles), tf.cos(angles)


def _polynomial_sine(cycles: tf.Tensor) -> tf.Tensor:
    """sin(2πx): zero at every half cycle, times what Chebyshev's polynomials fit to the rest."""
    cycles -= tf.round(cycles)
    square = cycles * cycles
    return cycles * (0.25 - square) * tf.math.polyval([tf.constant(each) for each in _SINE], square)
