"""A bank of oscillators whose frequencies and amplitudes go from frame to frame, by few sines and matrix products."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

CYCLE = 2**32
"""Steps of a phase in one cycle."""
FIRST_PULSE = 0.0015
"""Seconds from the onset of a plucked string to its first pulse, where its partials are at their first phases, or 0."""

# Where a bank is not played at every sample:
_HEADROOM = 16.0 / 15.0  # Half the rate at which it is played, over its highest oscillator, at least.
_BEYOND = 8  # At how many positions before a hop, and after it, it is played.
_LONGEST_FILLED_IN = 8192  # Samples of a hop. The matrix that fills in grows with their square.

# Coefficients of the polynomial in `_polynomial_sine`, the highest power first.
_SINE = (12.235930442810059, -38.12417984008789, 67.04401397705078, -64.83468627929688, 25.13273048400879)
_POLYNOMIAL = contextvars.ContextVar("polynomial_sines", default=False)


class _Counted(NamedTuple):
    """For how many samples of a hop the frequency of its begin has counted, and the change to that of its end.

    Attributes:
        begin: At the middles of the pieces, `[…, pieces]`.
        change: Likewise.
        begin_at_end: At the end of the hop, `[…, 1]`.
        change_at_end: Likewise.
        is_anew: Whether the phase at a middle is that of a note that began it anew in this hop, bool `[…, pieces]`;
            None where none does.
    """

    begin: tf.Tensor
    change: tf.Tensor
    begin_at_end: tf.Tensor
    change_at_end: tf.Tensor
    is_anew: tf.Tensor | None


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

    Where no oscillator is higher than a part of half the sample rate, the bank is played at every second or third
    sample only, from a little before the hop to a little after it, and one more matrix product fills in the samples
    between: that of the best guess for sounds that reach no higher. What it leaves is 60 dB below the sound or less.

    Attributes:
        positions: Where the bank is played, samples from the hop's begin, `[pieces * samples of a piece]`.
        middles: Samples from the hop's begin to the middle of each piece, `[pieces]`.
    """

    def __init__(self, hop: int, sample_rate: int, highest_hz: float | None = None) -> None:
        """Cuts a hop into pieces.

        Args:
            hop: Samples a frame.
            sample_rate: Samples a second.
            highest_hz: No oscillator that sounds is higher; half the sample rate unless given.
        """
        self._hop = hop
        self._sample_rate = sample_rate
        filled_in = highest_hz is not None and hop <= _LONGEST_FILLED_IN
        spacing = 1 if not filled_in else max(int(sample_rate / (2.0 * highest_hz * _HEADROOM) + 1e-6), 1)
        n = hop if spacing == 1 else -(-hop // spacing) + 2 * _BEYOND
        # 2 hop / n + n sines for pieces of n samples: fewest at the root of 2 hop.
        half = min(range(1, max(n // 2, 1) + 1), key=lambda half: (-(-n // (2 * half)) + half, -half))
        n = 2 * half * -(-n // (2 * half))
        first = 0.0 if spacing == 1 else hop // 2 - 0.5 - (n - 1) / 2.0 * spacing
        self.positions = first + np.arange(n) * float(spacing)
        self._offsets = ((np.arange(half) + 0.5) * spacing).astype(np.float32)[:, np.newaxis]
        self._size = 2 * half * spacing
        samples = self.positions.reshape([-1, 2 * half])
        self.middles = samples.mean(axis=1)
        # Of the later frame's frequency, on the way from a middle to a sample: what it is halfway between them.
        self._share_of_frequency = ((0.5 * (samples + self.middles[:, np.newaxis]) + 0.5) / hop).astype(np.float32)
        self._between = None if spacing == 1 else _between(self.positions, hop, 2.0 * highest_hz / sample_rate)

    def begins(
        self,
        frequencies: tf.Tensor,
        phase: tf.Tensor,
        onset: tf.Tensor | None,
        plucked: tf.Tensor | None,
        first_phases: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Phase of each oscillator at the begin of each hop.

        The frequency goes linearly from frame to frame; where a note begins, it jumps. Within a hop the sum of its
        increments has a closed form; from hop to hop the sums are whole numbers, added modulo a cycle, so that where a
        block begins changes nothing. Whole numbers have no gradient: that of the sums they stand for takes its place.

        Args:
            frequencies: Hz, `[batch, n_frames + 1, n]`. Where a frame's is 0 (before the first one) the phase stays.
            phase: int64 `[batch, n]`, 2³² steps a cycle.
            onset: Where a note begins in each hop, 0 to 1, and below 0 where none does, `[batch, n_frames, 1]`.
            plucked: Whether the note that begins in a hop is plucked, bool `[batch, n_frames, 1]`. The phase of such a
                note begins anew, and comes to its first phase when its first pulse does, `FIRST_PULSE` after its onset.
            first_phases: Of the note that begins in each hop, cycles `[batch, n_frames, n]`; 0 unless given.

        Returns:
            Cycles in [-0.5, 0.5), float64 `[batch, n_frames, n]`, and the phase at the end, int64 `[batch, n]`.
        """
        begin, change = _begin_and_change(frequencies)
        counted = self._counted(onset, plucked)
        cycles = (begin * counted.begin_at_end + change * counted.change_at_end) / self._sample_rate
        if first_phases is not None:
            cycles += tf.where(plucked, tf.cast(first_phases, tf.float64), 0.0)
        return _added_up(cycles, phase, plucked)

    def phases(
        self, begins: tf.Tensor, f0_hz: tf.Tensor, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tf.Tensor:
        """Phase of fundamentals at the middle of each piece, so exact that multiples of it are phases too.

        Args:
            begins: At the begin of each hop, as `begins` returns them, `[batch, n_frames, n]`.
            f0_hz: As for `begins`, `[batch, n_frames + 1, n]`.
            onset: As for `begins`.
            plucked: As for `begins`.

        Returns:
            Cycles in [-0.5, 0.5], float32 `[batch, n_frames, n, pieces]`.
        """
        begin, change = (each[..., tf.newaxis] for each in _begin_and_change(f0_hz))
        counted = self._counted(onset, plucked)
        of_begin, of_change = (each[:, :, tf.newaxis] for each in (counted.begin, counted.change))
        begins = begins[..., tf.newaxis]
        if counted.is_anew is not None:
            begins *= tf.cast(~counted.is_anew, tf.float64)[:, :, tf.newaxis]
        cycles = begins + (begin * of_begin + change * of_change) / self._sample_rate
        return tf.cast(cycles - tf.stop_gradient(tf.round(cycles)), tf.float32)

    def bank_phases(
        self,
        begins: tf.Tensor,
        frequencies: tf.Tensor,
        onset: tf.Tensor | None,
        plucked: tf.Tensor | None,
        first_phases: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Phase of each oscillator of a bank at the middle of each piece; frames come first, as for `play`.

        Args:
            begins: At the begin of each hop, as `begins` returns them, `[n_frames, batch, n]`.
            frequencies: Hz, `[n_frames + 1, batch, n]`.
            onset: `[n_frames, batch, 1]`.
            plucked: bool `[n_frames, batch, 1]`.
            first_phases: As for `begins`, `[n_frames, batch, n]`.

        Returns:
            In turns of `turn`, float32 `[n_frames, batch, pieces, n]`.
        """
        turns = frequencies[:, :, tf.newaxis] * (turn() / self._sample_rate)
        begin, change = turns[:-1], tf.where(turns[:-1] > 0.0, turns[1:] - turns[:-1], 0.0)
        counted = self._counted(onset, plucked, np.float32)
        begins = turn() * self.cycles(begins)[:, :, tf.newaxis]
        if counted.is_anew is not None:
            first = 0.0 if first_phases is None else turn() * first_phases[:, :, tf.newaxis]
            begins = tf.where(counted.is_anew[..., tf.newaxis], first, begins)
        return begins + begin * counted.begin[..., tf.newaxis] + change * counted.change[..., tf.newaxis]

    def cycles(self, begins: tf.Tensor) -> tf.Tensor:
        """What `begins` returns, as cycles in float32."""
        return tf.cast(begins, tf.float32)

    def jumps(self, onset: tf.Tensor) -> tf.Tensor:
        """Samples of the hop before pitch and phase are the new note's: they change with the piece it begins in."""
        first = self.middles[0] - self._size / 2.0 + 0.5
        return tf.maximum(first + tf.floor((onset * self._hop - first) / self._size) * self._size, 0.0)

    def _counted(self, onset: tf.Tensor | None, plucked: tf.Tensor | None, dtype: type = np.float64) -> _Counted:
        """For how many samples the frequencies at both ends of a hop have counted, at the middles and at its end."""
        samples = np.append(self.middles, self._hop - 1.0).astype(dtype)
        of_begin = tf.constant((samples + 1.0)[np.newaxis, np.newaxis])
        of_change = tf.constant((samples * (samples + 1.0) / (2.0 * self._hop))[np.newaxis, np.newaxis])
        is_anew = None
        if onset is not None:
            since_jump = tf.maximum(samples + 1.0 - tf.cast(self.jumps(onset), dtype), 0.0)
            of_change = tf.where(onset < 0.0, of_change, since_jump)
            if plucked is not None:
                first_pulse = tf.cast(onset, dtype) * self._hop + FIRST_PULSE * self._sample_rate
                is_anew = plucked & (since_jump > 0.0)
                of_begin, of_change = (
                    tf.where(is_anew, samples + 1.0 - first_pulse, each) for each in (of_begin, of_change)
                )
                is_anew = is_anew[..., :-1]
        return _Counted(of_begin[..., :-1], of_change[..., :-1], of_begin[..., -1:], of_change[..., -1:], is_anew)

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
            rise: Share of the later frame's amplitude at each of `positions`, `[n]` or `[n_frames, batch, n]`.
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
        turned = (frequencies * (turn() / self._sample_rate))[:, :, tf.newaxis] * self._offsets
        # Of each hop at the earlier frequency and at the later one.
        sines, cosines = (tf.concat([each[:-1], each[1:]], axis=2) for each in _sine_and_cosine(turned))
        even, odd = (tf.matmul(of, by, transpose_b=True) for of, by in zip(of_phases, (cosines, sines)))
        shape = [n_frames, batch, 2, pieces, 2, len(self._offsets)]
        played = _forth_and_back(tf.reshape(even, shape), tf.reshape(odd, shape))
        at_begin, at_end = tf.unstack(played, axis=4)
        falling, rising = tf.unstack(at_begin + share[..., tf.newaxis, :, :] * (at_end - at_begin), axis=2)
        signal = tf.reshape(falling + rise * (rising - falling), [n_frames, batch, len(self.positions)])
        if self._between is not None:
            signal = self.filled_in(signal)
        elif len(self.positions) != self._hop:
            signal = signal[..., : self._hop]
        return tf.reshape(frames_first(signal), [batch, -1])

    def filled_in(self, played: tf.Tensor) -> tf.Tensor:
        """Every sample of each hop, `[…, hop]`, from what is played at `positions`, `[…, n]`."""
        return tf.tensordot(played, self._between, 1)

    def _in_pieces(self, samples: tf.Tensor) -> tf.Tensor:
        """Cuts what there is at `positions`, `[…, n]`, into pieces: `[…, pieces, samples of a piece]`."""
        return tf.reshape(samples, tf.concat([tf.shape(samples)[:-1], [len(self.middles), -1]], axis=0))


def _between(positions: np.ndarray, hop: int, band: float) -> np.ndarray:
    """The matrix that makes of a sound at `positions` the same sound at each sample of a hop.

    It errs least, in the mean over all sounds that reach up to `band` of half the sample rate, each frequency counting
    alike: linear prediction, whose correlations are known.

    Args:
        positions: Samples from the hop's begin, `[n]`.
        hop: Samples.
        band: As a share of half the sample rate.

    Returns:
        float32 `[n, hop]`.
    """
    positions = positions[:, np.newaxis]
    among = np.sinc(band * (positions - positions.T)) + 1e-6 * np.eye(len(positions))
    return np.linalg.solve(among, np.sinc(band * (positions - np.arange(hop)))).astype(np.float32)


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


def _added_up(cycles: tf.Tensor, phase: tf.Tensor, restarts: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Cycles of whole hops, added up from a phase on, to phases that wrap.

    Args:
        cycles: Of each hop, float64 `[batch, n_frames, n]`.
        phase: At the first hop's begin, int64 `[batch, n]`.
        restarts: Hops at whose end the phase is their own cycles, whatever it was before, bool `[batch, n_frames, 1]`.

    Returns:
        Cycles in [-0.5, 0.5) at each hop's begin, float64 `[batch, n_frames, n]`, and the phase at the last hop's end,
        int64 `[batch, n]`.
    """

    @tf.custom_gradient
    def add_up(cycles: tf.Tensor) -> Any:
        before, last = running_phase(tf.cast(tf.round(cycles * CYCLE), tf.int64), phase, restarts)
        wrapped = tf.cast(((before + CYCLE // 2) & (CYCLE - 1)) - CYCLE // 2, tf.float64) / CYCLE

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            # A phase is the sum of the whole hops before, back to a restart.
            later = tf.cumsum(upstream, axis=1, exclusive=True, reverse=True)
            if restarts is not None:
                count = tf.cumsum(tf.cast(restarts[..., 0], tf.int32), axis=1)
                ends_at = tf.searchsorted(count, count, side="right")
                later -= tf.gather(tf.concat([later, tf.zeros_like(later[:, :1])], axis=1), ends_at, batch_dims=1)
            return later

        return (wrapped, last & (CYCLE - 1)), gradient

    return add_up(cycles)


def running_phase(
    steps: tf.Tensor,
    phase: tf.Tensor,
    restarts: tf.Tensor | None,
    first_of: Callable[[tf.Tensor], tf.Tensor] = lambda count: tf.searchsorted(count, count, side="left"),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds up the steps of hops, from a phase on.

    Args:
        steps: Of each hop, whole numbers `[batch, n_frames, n]`.
        phase: At the first hop's begin, `[batch, n]`.
        restarts: Hops at whose end the phase is their own steps, whatever it was before, bool `[batch, n_frames, 1]`.
        first_of: Of each row of numbers that do not fall, the index of the first one that is as high as each.

    Returns:
        The phase at each hop's begin, shaped as `steps`, and at the last one's end, as `phase`.
    """
    phase = phase[:, tf.newaxis]
    after = tf.cumsum(steps, axis=1)
    before = after - steps
    if restarts is None:
        return phase + before, (phase + after)[:, -1]
    count = tf.cumsum(tf.cast(restarts[..., 0], tf.int32), axis=1)
    since = -tf.gather(before, first_of(count), batch_dims=1)
    since = tf.where((count == 0)[..., tf.newaxis], phase, since)
    return before + tf.concat([phase, since[:, :-1]], axis=1), (after + since)[:, -1]


@contextlib.contextmanager
def polynomial_sines() -> Iterator[None]:
    """While a graph is traced: its sines are polynomials, for those who compute a sine number by number.

    XLA makes them one loop with the rest, a tenth of the time; LiteRT computes many numbers at a time.
    """
    token = _POLYNOMIAL.set(True)
    try:
        yield
    finally:
        _POLYNOMIAL.reset(token)


def turn() -> float:
    """What a cycle is in the angles that are played: 2π, or, where the sine is a polynomial of cycles, 1."""
    return 1.0 if _POLYNOMIAL.get() else 2.0 * math.pi


def _sine_and_cosine(angles: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sine and cosine of angles in turns of `turn`; to 3e-7 for small ones."""
    if _POLYNOMIAL.get():
        return _polynomial_sine(angles), _polynomial_sine(angles + 0.25)
    return tf.sin(angles), tf.cos(angles)


def _polynomial_sine(cycles: tf.Tensor) -> tf.Tensor:
    """sin(2πx): zero at every half cycle, times what Chebyshev's polynomials fit to the rest."""
    cycles -= tf.round(cycles)
    square = cycles * cycles
    return cycles * (0.25 - square) * tf.math.polyval([tf.constant(each) for each in _SINE], square)
