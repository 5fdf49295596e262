"""ddsp's processors with a state, so that a clip is a stream with one block.

Each processor subclasses the one of ddsp, keeps its `get_controls`, and computes its signal in `step(controls, state)`,
which returns the signal of one block and the state the next block starts from. `get_signal` is that step on the whole
clip. `ProcessorGroup` wires them as ddsp's does.

Frames are windowed in pairs, so the samples between two frames are known when the second one has come: a stream is one
hop behind its controls. Signal `i` of a stream is sample `i - hop` of the clip.
"""

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

State = dict[str, Any]

_CYCLE = 2**32  # phase units a cycle
_SIDE = 9  # harmonics on either side of a group's middle; see `_harmonic_sum`
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
    """

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

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """Silence at phase 0: phase int64 `[batch]`, last frame's f0 `[batch, 1, 1]` and harmonics `[batch, 1, k]`."""
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
        falling, rising = tf.unstack(_harmonic_sum(phase, tf.stack([before, harmonics], axis=2)), axis=2)
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


def _harmonic_sum(phase: tf.Tensor, harmonics: tf.Tensor) -> tf.Tensor:
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


@gin.configurable(module="nms")
class FilteredNoise(ddsp.synths.FilteredNoise):
    """White noise through a filter that changes every frame.

    The noise is a function of the seed and the absolute sample index alone: wherever a block begins, a sample is the
    same.
    """

    def __init__(
        self,
        hop: int = gin.REQUIRED,
        n_bands: int = gin.REQUIRED,
        window_size: int = 0,
        initial_bias: float = -5.0,
        seed: int = 0,
        scale_fn: Any = exp_sigmoid,
        name: str = "filtered_noise",
    ) -> None:
        """Describes the noise.

        Args:
            hop: Samples a frame.
            n_bands: Bands of the filter, evenly spaced from 0 Hz to half the sample rate; at most `hop + 1`.
            window_size: Length of the impulse responses, samples; 0 for twice `n_bands` less two.
            initial_bias: Added to the network outputs, so that training starts without noise.
            seed: Of the noise.
            scale_fn: Maps network outputs to magnitudes.
            name: Name of the layer.

        Raises:
            ValueError: A filter longer than two hops, which could not be played one hop behind.
        """
        super().__init__(
            n_samples=None, window_size=window_size, scale_fn=scale_fn, initial_bias=initial_bias, name=name
        )
        self.hop = hop
        self.n_bands = n_bands
        self.seed = seed
        # The filter is linear in its magnitudes: ddsp's response to each band alone makes a matrix.
        bands = tf.eye(n_bands)[tf.newaxis]
        responses = ddsp.core.frequency_impulse_response(bands, window_size=window_size)[0].numpy()
        self._response_size = responses.shape[-1]
        self._delay = (self._response_size - 1) // 2 - 1  # what ddsp cuts off to make up for the filter's own delay
        if self._delay > hop:
            raise ValueError(f"FilteredNoise: {n_bands} bands need a hop of {self._delay} samples; it is {hop}.")
        self._fft_size = 2 ** math.ceil(math.log2(self._response_size + hop - 1))
        spectra = np.fft.rfft(responses.astype(np.float64), self._fft_size)
        self._bands_to_spectrum = np.concatenate([spectra.real, spectra.imag], axis=-1).astype(np.float32)

    def initial_state(self, batch: int | tf.Tensor, first_sample: int | tf.Tensor = 0) -> State:
        """Nothing sounding.

        Args:
            batch: Batch size.
            first_sample: Index of the first sample, a scalar or `[batch]`.

        Returns:
            The next sample's index int64 `[batch]` and what still rings, `[batch, n]`.
        """
        return {
            "sample": tf.broadcast_to(tf.cast(first_sample, tf.int64), [batch]),
            "ringing": tf.zeros([batch, self.hop - self._delay + self._response_size - 1]),
        }

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Plays a hop of noise through the filter of each frame.

        Args:
            controls: Magnitudes `[batch, n_frames, n_bands]`.
            state: Of the block before.

        Returns:
            Signal `[batch, n_frames * hop]`, one hop behind the controls, and the next state.
        """
        magnitudes = controls["magnitudes"]
        batch, n_frames = tf.shape(magnitudes)[0], tf.shape(magnitudes)[1]
        n_samples = n_frames * self.hop
        samples = state["sample"][:, tf.newaxis] + tf.range(tf.cast(n_samples, tf.int64))
        noise = tf.reshape(_white_noise(samples, self.seed), [batch, n_frames, self.hop])
        real, imaginary = tf.split(tf.matmul(magnitudes, self._bands_to_spectrum), 2, axis=-1)
        spectrum = tf.signal.rfft(noise, [self._fft_size]) * tf.complex(real, imaginary)
        fresh = tf.signal.overlap_and_add(tf.signal.irfft(spectrum, [self._fft_size]), self.hop)
        fresh = tf.pad(fresh, [[0, 0], [self.hop - self._delay, 0]])
        n_ringing = state["ringing"].shape[1]
        n_beyond = self._fft_size - (self.hop + self._response_size - 1)  # where a block has ended
        due, later, _ = tf.split(fresh, [n_samples, n_ringing, n_beyond], axis=1)
        ringing = tf.pad(state["ringing"], [[0, 0], [0, n_samples]])
        return due + ringing[:, :n_samples], {
            "sample": state["sample"] + tf.cast(n_samples, tf.int64),
            "ringing": later + ringing[:, n_samples:],
        }

    def get_signal(self, magnitudes: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_frames * hop]`."""
        controls = {"magnitudes": tf.pad(magnitudes, [[0, 0], [0, 1], [0, 0]])}
        signal, _ = self.step(controls, self.initial_state(tf.shape(magnitudes)[0]))
        return signal[:, self.hop :]


def _white_noise(samples: tf.Tensor, seed: int) -> tf.Tensor:
    """Uniform noise in [-1, 1) that is a function of the sample index and the seed: a hash of both.

    Args:
        samples: int64, any shape.
        seed: Any integer.

    Returns:
        float32, shaped as `samples`.
    """
    return uniform(hashed(tf.cast(samples & 0xFFFFFFFF, tf.uint32) + hashed_seed(seed)))


def hashed(x: tf.Tensor) -> tf.Tensor:
    """A hash of uint32 with full avalanche; the constants are those C. Wellons found by search, "lowbias32"."""
    shift, xor = tf.bitwise.right_shift, tf.bitwise.bitwise_xor
    for by, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = xor(x, shift(x, tf.constant(by, tf.uint32))) * tf.constant(factor, tf.uint32)
    return xor(x, shift(x, tf.constant(16, tf.uint32)))


def hashed_seed(seed: int) -> tf.Tensor:
    """What is added to the indices of samples, uint32: the noise of another seed is another stretch of it."""
    return hashed(tf.constant((seed + 0x9E3779B9) % 2**32, tf.uint32))


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 to float32 in [-1, 1)."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-23 - 1.0


@gin.configurable(module="nms")
class Reverb(ddsp.effects.Reverb):
    """Convolution with a trainable impulse response: the room and the body of the instrument."""

    def __init__(
        self,
        reverb_length: int = gin.REQUIRED,
        decay_seconds: float | None = None,
        sample_rate: int | None = None,
        add_dry: bool = True,
        name: str = "reverb",
    ) -> None:
        """Describes the impulse response.

        Args:
            reverb_length: Its length, samples.
            decay_seconds: Where given, the weights are multiplied by `exp(-t / decay_seconds)`, so that a late
                reflection has to be earned. Without it the weights are the response, as in ddsp.
            sample_rate: Samples a second; needed with `decay_seconds`.
            add_dry: Whether the dry signal is added.
            name: Name of the layer.
        """
        if reverb_length < 2:
            raise ValueError("Reverb.reverb_length: a response has at least 2 samples.")
        super().__init__(trainable=True, reverb_length=reverb_length, add_dry=add_dry, name=name)
        self._envelope = np.ones(reverb_length, np.float32)
        if decay_seconds is not None:
            self._envelope = np.exp(-np.arange(reverb_length) / (decay_seconds * sample_rate)).astype(np.float32)

    def impulse_response(self) -> tf.Tensor:
        """The wet impulse response, `[reverb_length]`; its first sample is 0, which is the dry signal's place."""
        if not self.built:
            self.build(None)
        return self._mask_dry_ir(self._ir * self._envelope)[0]

    def get_controls(self, audio: tf.Tensor) -> dict[str, tf.Tensor]:
        """Dry audio `[batch, n_samples]` and the impulse response `[reverb_length]`."""
        return {"audio": audio, "ir": self.impulse_response()}

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """Nothing ringing: `[batch, reverb_length - 1]`."""
        return {"ringing": tf.zeros([batch, self._reverb_length - 1])}

    def step(self, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
        """Adds what rings on.

        Args:
            controls: What `get_controls` returns.
            state: Of the block before.

        Returns:
            Signal `[batch, n_samples]`, no later than the dry one, and the next state.
        """
        audio = controls["audio"]
        batch, n_samples = tf.shape(audio)[0], tf.shape(audio)[1]
        # The shorter of the two is one part, the longer is cut into parts of that length: small transforms, many at a
        # time.
        part = tf.maximum(tf.minimum(n_samples, self._reverb_length), 1)
        n_blocks, n_parts = tf.maximum(-(-n_samples // part), 1), -(-self._reverb_length // part)
        blocks = tf.pad(audio, [[0, 0], [0, n_blocks * part - n_samples]])
        parts = tf.pad(controls["ir"], [[0, n_parts * part - self._reverb_length]])
        fft_size = _transform_size(2 * part)
        spectra = tf.signal.rfft(tf.reshape(blocks, [batch, n_blocks, part]), [fft_size])
        spectra *= tf.signal.rfft(tf.reshape(parts, [n_parts, part]), [fft_size])
        echoes, _ = tf.split(tf.signal.irfft(spectra, [fft_size]), [2 * part, fft_size - 2 * part], axis=-1)
        wet = tf.signal.overlap_and_add(echoes, part)
        n_ringing = self._reverb_length - 1
        n_beyond = tf.shape(wet)[1] - n_samples - n_ringing
        due, later, _ = tf.split(wet, [n_samples, n_ringing, n_beyond], axis=1)
        ringing = tf.pad(state["ringing"], [[0, 0], [0, n_samples]])
        signal = due + ringing[:, :n_samples] + (audio if self._add_dry else 0.0)
        return signal, {"ringing": later + ringing[:, n_samples:]}

    def get_signal(self, audio: tf.Tensor, ir: tf.Tensor) -> tf.Tensor:
        """The whole clip, `[batch, n_samples]`."""
        return self.step({"audio": audio, "ir": ir}, self.initial_state(tf.shape(audio)[0]))[0]


def _transform_size(size: tf.Tensor) -> tf.Tensor:
    """An even number not below `size`, four binary digits and then zeros, int32: quick to transform."""
    unit = 2.0 ** tf.maximum(tf.floor(tf.math.log(tf.cast(size, tf.float64)) / math.log(2.0)) - 3.0, 1.0)
    return tf.cast(tf.math.ceil(tf.cast(size, tf.float64) / unit) * unit, tf.int32)


@gin.configurable(module="nms")
class ProcessorGroup(ddsp.processors.ProcessorGroup):
    """ddsp's `ProcessorGroup`, played block by block."""

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """The initial state of each processor that has one, by name."""
        stateful = (processor for processor in self.processors if hasattr(processor, "step"))
        return {processor.name: processor.initial_state(batch) for processor in stateful}

    def step(self, inputs: dict[str, tf.Tensor], state: State) -> tuple[dict[str, Any], State]:
        """Runs the DAG over one block.

        Args:
            inputs: Synthesizer parameters by name, `[batch, n_frames, …]`.
            state: Of the block before.

        Returns:
            The outputs of each processor as `{'controls', 'signal'}` by name, the last one's as 'out', and the
            next state.
        """
        outputs: dict[str, Any] = dict(inputs, inputs=inputs)
        next_state = {}
        for name, keys, *_ in self.dag:
            processor = getattr(self, name)
            controls = processor.get_controls(*(ddsp.core.nested_lookup(key, outputs) for key in keys))
            if name in state:
                signal, next_state[name] = processor.step(controls, state[name])
            else:
                signal = processor.get_signal(**controls)
            outputs["out"] = outputs[name] = {"controls": controls, "signal": signal}
        return outputs, next_state
