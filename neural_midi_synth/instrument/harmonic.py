"""The harmonic oscillator bank: ddsp's, with a phase that never drifts and a sum that costs few sines."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.recurrent import State

_CYCLE = 2**32  # steps of the phase in one cycle
_SIDE = 9  # harmonics on either side of a group's middle; see `harmonic_sum`
# Coefficients of the polynomial in `_sine`, the highest power first.
_SINE = (12.235930442810059, -38.12417984008789, 67.04401397705078, -64.83468627929688, 25.13273048400879)
_FOR_XLA = contextvars.ContextVar("for_xla", default=False)


@tf.custom_gradient
def exp_sigmoid(x: tf.Tensor) -> Any:
    """The `exp_sigmoid` of ddsp, 2 sigmoid(x)^log(10) + 1e-7, and its gradient, without powers, which take longer."""
    sigmoid = tf.sigmoid(x)
    power = 2.0 * tf.exp(math.log(10.0) * tf.math.log(sigmoid))
    return power + 1e-7, lambda upstream: upstream * power * (math.log(10.0) * (1.0 - sigmoid))


@gin.configurable(module="nms")
class Harmonic(ddsp.synths.Harmonic):
    """A bank of harmonic oscillators on one phase.

    The sum of ddsp's `Harmonic`, computed another way. The phase is counted in 2³² steps a cycle and wraps exactly, so
    it neither drifts nor blurs however long it plays. Harmonic `k` is `sin(kφ)`, and the sine of a sum of angles
    splits the bank into low and high multiples of φ: no frequency or amplitude of a single harmonic is ever stored at
    audio rate. A harmonic that glides over half the sample rate fades within the hop, where ddsp cuts it off at a
    sample.

    Attributes:
        parameters: The network outputs it takes, name → size.
        lag: Hops by which the signal is behind the controls.
    """

    lag = 1

    def __init__(
        self,
        sample_rate: int = gin.REQUIRED,
        hop: int = gin.REQUIRED,
        n_harmonics: int = gin.REQUIRED,
        f0_ratio: float = 1.0,
        amp_resample_method: str = "window",
        normalize_below_nyquist: bool = True,
        scale_fn: Any = exp_sigmoid,
        name: str = "harmonic",
    ) -> None:
        """Describes the bank.

        Args:
            sample_rate: Samples a second.
            hop: Samples a frame.
            n_harmonics: Oscillators in the bank.
            f0_ratio: Factor on the fundamental frequency: 1.5 plays the fifth.
            amp_resample_method: How amplitudes go from frame to frame: 'window' (overlapping Hann windows) or 'linear'.
            normalize_below_nyquist: Whether harmonics above half the sample rate are removed before normalising.
            scale_fn: Maps network outputs to amplitudes.
            name: Name of the layer, under which the group's DAG finds it.
        """
        if amp_resample_method not in ("window", "linear"):
            raise ValueError(f"Harmonic.amp_resample_method: '{amp_resample_method}' is neither 'window' nor 'linear'.")
        super().__init__(
            n_samples=None,
            sample_rate=sample_rate,
            scale_fn=scale_fn,
            normalize_below_nyquist=normalize_below_nyquist,
            amp_resample_method=amp_resample_method,
            name=name,
        )
        self.hop = hop
        self.n_harmonics = n_harmonics
        self.f0_ratio = f0_ratio
        self.parameters = {"amplitudes": 1, "harmonic_distribution": n_harmonics}

    def get_controls(
        self, amplitudes: tf.Tensor, harmonic_distribution: tf.Tensor, f0_hz: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """As ddsp's, at `f0_ratio` times the frequency.

        Args:
            amplitudes: Network outputs `[batch, n_frames, 1]`.
            harmonic_distribution: Network outputs `[batch, n_frames, n_harmonics]`.
            f0_hz: Fundamental frequency in Hz, `[batch, n_frames, 1]`.

        Returns:
            The same names: amplitudes above 0, a distribution that sums to 1, and the frequency of the first harmonic.
        """
        return super().get_controls(amplitudes, harmonic_distribution, f0_hz * self.f0_ratio)

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Silence at phase 0.

        Args:
            batch: Batch size.
            first_sample: Not used: a phase begins at 0 wherever a clip does.

        Returns:
            Phase int64 `[batch]`, the last frame's f0 `[batch, 1, 1]` and harmonics `[batch, 1, n_harmonics]`.
        """
        del first_sample
        return {
            "phase": tf.zeros([batch], tf.int64),
            "f0_hz": tf.zeros([batch, 1, 1]),
            "harmonics": tf.zeros([batch, 1, self.n_harmonics]),
        }

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays the samples up to the newest frame.

        Args:
            controls: What `get_controls` returns, for `n_frames` frames.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        f0_hz = tf.concat([state["f0_hz"], controls["f0_hz"]], axis=1)
        harmonics = controls["amplitudes"] * controls["harmonic_distribution"]
        frequencies = ddsp.core.get_harmonic_frequencies(controls["f0_hz"], self.n_harmonics)
        harmonics = ddsp.core.remove_above_nyquist(frequencies, harmonics, self.sample_rate)
        # Slices are dear in the gradient, splits are not.
        earlier, last = tf.split(harmonics, [tf.shape(harmonics)[1] - 1, 1], axis=1)
        before = tf.concat([state["harmonics"], earlier], axis=1)
        phase, last_phase = self._phase(f0_hz[:, :, 0], state["phase"])
        rise = np.arange(self.hop, dtype=np.float32) / self.hop
        if self.amp_resample_method == "window":
            rise = 0.5 - 0.5 * np.cos(math.pi * rise)
        falling, rising = tf.unstack(harmonic_sum(phase, tf.stack([before, harmonics], axis=2)), axis=2)
        signal = falling + tf.cast(rise, tf.float32) * (rising - falling)
        signal = tf.reshape(signal, [tf.shape(signal)[0], -1])
        return signal, {"phase": last_phase, "f0_hz": f0_hz[:, -1:], "harmonics": last}

    def get_signal(self, amplitudes: tf.Tensor, harmonic_distribution: tf.Tensor, f0_hz: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`; the last frame is held for a hop, as ddsp does."""
        controls = {"amplitudes": amplitudes, "harmonic_distribution": harmonic_distribution, "f0_hz": f0_hz}
        controls = {name: tf.concat([value, value[:, -1:]], axis=1) for name, value in controls.items()}
        signal, _ = self.step(controls, self.initial_state(tf.shape(f0_hz)[0]))
        return signal[:, self.hop :]

    def _phase(self, f0_hz: tf.Tensor, phase: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Phase at each sample between frames, in cycles in [-0.5, 0.5).

        The frequency goes linearly from frame to frame. Within a hop the sum of its increments has a closed form; from
        hop to hop the sums are whole numbers, added modulo a cycle, so that where a block begins changes nothing.
        Whole numbers have no gradient: that of the sums they stand for takes its place.

        Args:
            f0_hz: `[batch, n_frames + 1]`. Where a frame's frequency is 0 (before the first one) the phase stays.
            phase: int64 `[batch]`.

        Returns:
            float32 `[batch, n_frames, hop]` and the phase at the end, int64 `[batch]`.
        """
        samples = np.arange(self.hop, dtype=np.float64)
        of_begin, of_slope = samples + 1.0, samples * (samples + 1.0) / 2.0

        @tf.custom_gradient
        def cycles(f0_hz: tf.Tensor) -> Any:
            increments = tf.cast(f0_hz, tf.float64) * (_CYCLE / self.sample_rate)
            begin = increments[:, :-1, tf.newaxis]
            slope = (increments[:, 1:, tf.newaxis] - begin) / self.hop
            sounds = begin > 0.0
            within = tf.cast(tf.round(begin * of_begin + tf.where(sounds, slope, 0.0) * of_slope), tf.int64)
            ends = phase[:, tf.newaxis] + tf.cumsum(within[:, :, -1], axis=1)
            starts = tf.concat([phase[:, tf.newaxis], ends[:, :-1]], axis=1)
            wrapped = (starts[..., tf.newaxis] + within + _CYCLE // 2) & (_CYCLE - 1)

            def gradient(upstream: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
                # A sample's phase is the sum of the increments in its hop and those of the whole hops before.
                upstream = tf.cast(upstream, tf.float64)
                later = tf.cumsum(tf.reduce_sum(upstream, axis=2), axis=1, exclusive=True, reverse=True)
                to_begin = tf.linalg.matvec(upstream, of_begin) + later * of_begin[-1]
                to_slope = tf.linalg.matvec(upstream, of_slope) + later * of_slope[-1]
                to_slope = tf.where(sounds[..., 0], to_slope, 0.0) / self.hop
                to_f0_hz = tf.pad(to_begin - to_slope, [[0, 0], [0, 1]]) + tf.pad(to_slope, [[0, 0], [1, 0]])
                return tf.cast(to_f0_hz / self.sample_rate, tf.float32)

            return (tf.cast(wrapped - _CYCLE // 2, tf.float32) / _CYCLE, ends[:, -1] & (_CYCLE - 1)), gradient

        return cycles(f0_hz)


def harmonic_sum(phase: tf.Tensor, harmonics: tf.Tensor) -> tf.Tensor:
    """Sums sin(kφ) over k = 1 … K, weighted by each of a hop's pair of frames.

    With k = 19 i + j and |j| ≤ 9, sin(kφ) = sin(19iφ) cos(jφ) + cos(19iφ) sin(jφ): the sums over j are matrix products,
    those over i follow, and instead of K sines a sample there are 2 (9 + K / 19). The harmonics j above and below 19 i
    share their cosine and, but for its sign, their sine.

    Args:
        phase: Cycles, `[batch, n_frames, hop]`.
        harmonics: Amplitudes, `[batch, n_frames, 2, K]`.

    Returns:
        `[batch, n_frames, 2, hop]`.
    """
    width = 2 * _SIDE + 1
    n_groups = -(-(harmonics.shape[-1] + _SIDE + 1) // width)
    batch, n_frames = tf.unstack(tf.shape(phase)[:2])
    hop = phase.shape[-1]
    padding = [_SIDE + 1, n_groups * width - harmonics.shape[-1] - _SIDE - 1]
    groups = tf.pad(harmonics, [[0, 0], [0, 0], [0, 0], padding])
    below, middle, above = tf.split(tf.reshape(groups, [batch, n_frames, 2 * n_groups, width]), [_SIDE, 1, _SIDE], -1)
    below = tf.reverse(below, [-1])
    of_cosines, of_sines = tf.concat([middle, above + below], axis=-1), above - below

    phase = phase[:, :, tf.newaxis]
    low = phase * np.arange(1, _SIDE + 1, dtype=np.float32)[:, np.newaxis]
    cosines = tf.matmul(of_cosines, tf.concat([tf.ones_like(phase), _sine(low + 0.25)], axis=2))
    sines = tf.matmul(of_sines, _sine(low))
    high = phase * np.arange(0, n_groups * width, width, dtype=np.float32)[:, np.newaxis]
    high -= tf.round(high)
    shape = [batch, n_frames, 2, n_groups, hop]
    sums = _sine(high)[:, :, tf.newaxis] * tf.reshape(cosines, shape)
    sums += _sine(high + 0.25)[:, :, tf.newaxis] * tf.reshape(sines, shape)
    return tf.reduce_sum(sums, axis=3)


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


def _sine(cycles: tf.Tensor) -> tf.Tensor:
    """sin(2πx), x in cycles; to 3e-7 for small |x|."""
    if not _FOR_XLA.get():
        return tf.sin((2.0 * math.pi) * cycles)
    # Zero at every half cycle, times what Chebyshev's polynomials fit to the rest.
    cycles -= tf.round(cycles)
    square = cycles * cycles
    return cycles * (0.25 - square) * tf.math.polyval([tf.constant(each) for each in _SINE], square)
