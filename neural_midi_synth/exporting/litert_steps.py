"""The steps of an instrument with what LiteRT has: neither float64 nor complex numbers nor Fourier transforms.

Those of processors that count phases, make noise or convolve are written here once more, with integers, which wrap
around where they overflow, in place of float64; and matrix products in place of Fourier transforms (see
`litert_convolution`). Everything else is the instrument's own code.
"""

from __future__ import annotations

import math

import ddsp
import numpy as np
import tensorflow as tf

from neural_midi_synth.exporting.litert_convolution import (
    FourierTransform,
    PartitionedConvolution,
    complex_product,
    exact_product,
    overlap_and_add,
)
from neural_midi_synth.instrument.controls import Lookup
from neural_midi_synth.instrument.harmonic import Banks, Harmonic
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.noise import FilteredNoise, Filters
from neural_midi_synth.instrument.oscillators import FIRST_PULSE, Oscillators, running_phase
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.instrument.reverb import Reverb

_STEPS = 256  # of a semitone, in the table of frequencies
_PARTS = 1024  # of a sample, in which a phase that begins anew is counted


class _Comparison(Lookup):
    """Finds rows by comparing all with all, since there are few, in float32: times from the block's begin are short."""

    dtype = tf.float32

    def is_finite(self, rows: tf.Tensor) -> tf.Tensor:
        return rows - rows == 0.0

    def last_at(self, event_frames: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
        has_come = event_frames[:, tf.newaxis] <= frames[..., tf.newaxis]
        return tf.reduce_sum(tf.cast(has_come, tf.int32), axis=-1) - 1


COMPARISON = _Comparison()
"""How `Controls` finds rows."""


def initial_state(instrument: Instrument, block_frames: int, voices: int) -> State:
    """As `Instrument.initial_state` of one piece, for `step`."""
    state = instrument.initial_state(1, voices)
    for processor in instrument.processor_group.processors:
        if isinstance(processor, Reverb):
            shape = _convolution(processor, block_frames * instrument.hop).shape
            batch = state["processor_group"][processor.name]["ringing"].shape[0]
            state["processor_group"][processor.name] = {"latest": tf.zeros([batch, *shape])}
    return state


def step(instrument: Instrument, frames: dict[str, tf.Tensor], state: State, voices: int) -> tuple[tf.Tensor, State]:
    """As `Instrument.step`, with the steps of this module.

    Args:
        instrument: Whose processors are `CONVERTIBLE`.
        frames: Channel name → `[voices, n_frames, 1]`.
        state: Of the block before, phases and indices of samples int32.
        voices: Of the piece.

    Returns:
        The signal `[1, n_frames * hop]` before it is scaled by `level`, and the next state.
    """
    scaled = instrument.preprocessor(frames)
    parameters, decoder_state = instrument.decoder(scaled, state=state["decoder"])
    given, given_state = instrument.given(frames, state, _midi_to_hz)
    outputs, group_state = instrument.processor_group.run(
        {**parameters, **given},
        state["processor_group"],
        lambda processor, controls, state: _STEPS_OF[type(processor)](processor, controls, state),
        voices,
    )
    return outputs["out"]["signal"], {**given_state, "decoder": decoder_state, "processor_group": group_state}


def _midi_to_hz(pitch: tf.Tensor) -> tf.Tensor:
    """Hz `[voices, n, 1]`, right to the last bit of a float32, since phases add its error up.

    It is computed in integers. A table holds frequency, slope and curvature at each step of an octave; how far a pitch
    is above a step is an integer too, a small multiple of the last bit that a float32 pitch has. The one rounding is
    that of the sum to float32.
    """
    hz = 440.0 * 2.0 ** ((np.arange(12 * _STEPS + 1) / _STEPS - 69.0) / 12.0)
    grows = math.log(2.0) / 12.0 / 2**19
    table = np.stack([hz, hz * grows, hz * grows**2 / 2.0], axis=-1)
    table = tf.constant(np.round(table * 2.0**57), tf.int64)

    octave = tf.floor(pitch / 12.0)
    above = pitch - 12.0 * octave
    step = tf.clip_by_value(tf.cast(tf.round(above * _STEPS), tf.int32), 0, 12 * _STEPS)
    rest = tf.cast(tf.round((above - tf.cast(step, tf.float32) / _STEPS) * 2.0**19), tf.int64)
    row = tf.gather(table, step)
    hz = row[..., 0] + rest * (row[..., 1] + rest * row[..., 2])
    exponent = tf.clip_by_value(tf.cast(octave, tf.int32), -20, 20) + (127 - 57)
    return tf.cast(hz, tf.float32) * tf.bitcast(exponent * 2**23, tf.float32)


class _Oscillators(Oscillators):
    """As `Oscillators`, in int64 steps of 2⁻⁶⁴ cycles, which wrap by themselves; the high word is the phase, int32."""

    def begins(
        self,
        frequencies: tf.Tensor,
        phase: tf.Tensor,
        onset: tf.Tensor | None,
        plucked: tf.Tensor | None,
        first_phases: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As the other's, int32 in steps of 2⁻³² cycles."""
        steps, _ = self._since_begin(frequencies, np.array([self._hop - 1.0]), onset, plucked)
        if first_phases is not None:
            first_phases -= tf.round(first_phases)
            first_steps = 4 * tf.cast(tf.round(first_phases * 2.0**30), tf.int32)  # Half a cycle wraps to minus half.
            steps += tf.where(plucked, first_steps, 0)
        return running_phase(steps, phase, plucked, _first_of)

    def phases(
        self, begins: tf.Tensor, f0_hz: tf.Tensor, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tf.Tensor:
        begins, f0_hz = begins[..., tf.newaxis], f0_hz[..., tf.newaxis]
        onset, plucked = (None if each is None else each[..., tf.newaxis] for each in (onset, plucked))
        since, is_anew = self._since_begin(f0_hz, self.middles, onset, plucked)
        if is_anew is not None:
            begins *= 1 - tf.cast(is_anew, tf.int32)
        return tf.cast(begins + since, tf.float32) * 2.0**-32

    def cycles(self, begins: tf.Tensor) -> tf.Tensor:
        return tf.cast(begins, tf.float32) * 2.0**-32

    def filled_in(self, played: tf.Tensor) -> tf.Tensor:
        return exact_product(played, self._between)

    def _since_begin(
        self, hz: tf.Tensor, samples: np.ndarray, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Steps of the phase from each hop's begin to some samples in it.

        Args:
            hz: `[voices, n_frames + 1, n]` where there is one sample, else `[voices, n_frames + 1, n, 1]`.
            samples: Numbers of the samples, whole or halves.
            onset: Where a note begins in each hop, `[voices, n_frames, 1]` or `[voices, n_frames, 1, 1]`.
            plucked: Whether that is a plucked string's, bool, shaped as `onset`.

        Returns:
            int32 `[voices, n_frames, n]` or `[voices, n_frames, n, samples]`, and where they are those of a note that
            began the phase anew: bool, with one for all `n`.
        """
        # A frequency in whole numbers: Hz, 2⁻¹⁴ Hz, 2⁻²⁸ Hz.
        whole = tf.floor(hz)
        middle = (hz - whole) * 2.0**14
        last = (middle - tf.floor(middle)) * 2.0**14
        digits = [tf.cast(digit, tf.int64) for digit in (whole, middle, last)]

        def times(factor: float) -> tf.Tensor:
            return sum(digit * round(factor * 2.0**-shift) for digit, shift in zip(digits, (0, 14, 28)))

        def change(factor: float) -> tf.Tensor:
            factors = times(factor)
            return factors[:, 1:] - factors[:, :-1]

        step = 2.0**64 / self._sample_rate
        doubled = np.round(2.0 * samples).astype(np.int64)
        # What adds up from hop to hop, at the last sample, is without the rounding of a slope.
        is_last = doubled == 2 * self._hop - 2
        gradual = tf.where(
            is_last, change(step / 2.0) * (self._hop - 1), change(step / (8 * self._hop)) * (doubled * (doubled + 2))
        )
        if onset is not None:
            since = tf.maximum(doubled + 2 - 2 * tf.cast(self.jumps(onset), tf.int64), 0)
            gradual = tf.where(onset < 0.0, gradual, change(step / 2.0) * since)
        sounds = tf.cast(hz[:, :-1] > 0.0, tf.int64)
        steps = times(step / 2.0)[:, :-1] * (doubled + 2) + gradual * sounds
        if plucked is None:
            return _high_word(steps), None
        is_anew = plucked & (since > 0)
        # Onsets lie on 64ths of a hop; a sample is counted in as many parts.
        first_pulse = tf.cast(tf.round((onset * self._hop + FIRST_PULSE * self._sample_rate) * _PARTS), tf.int64)
        since = (doubled + 2) * (_PARTS // 2) - first_pulse
        anew = times(step / _PARTS)[:, 1:] * since * sounds
        return _high_word(tf.where(is_anew, anew, steps)), is_anew


def _harmonic(processor: Harmonic, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Harmonic.step`."""
    signal, state = _banks(Banks([processor]), {processor.name: controls}, {processor.name: state})
    return signal, state[processor.name]


def _banks(banks: Banks, controls: dict[str, dict[str, tf.Tensor]], state: State) -> tuple[tf.Tensor, State]:
    """As `Banks.step`."""
    return banks.step_with(_Oscillators(*banks.settings), controls, state)


def _first_of(count: tf.Tensor) -> tf.Tensor:
    """Of rows of numbers that do not fall, the index of the first one as high as each: so many are lower."""
    return tf.reduce_sum(tf.cast(count[:, tf.newaxis] < count[:, :, tf.newaxis], tf.int32), axis=2)


def _high_word(x: tf.Tensor) -> tf.Tensor:
    """int64 in steps of 2⁻⁶⁴ to int32 in steps of 2⁻³², rounded."""
    return tf.bitcast(x + 2**31, tf.int32)[..., 1]


class _Filters(Filters):
    """As `Filters`, by products of matrices."""

    def __init__(self, bands: np.ndarray, hop: int) -> None:
        self._hop, self._n_samples = hop, hop + bands.shape[-1] - 1
        self._transform = FourierTransform.of_at_least(max(hop, -(-self._n_samples // 2)))
        spectra = self._transform.of_responses(bands)
        self._spectra = np.stack([spectra.real, spectra.imag], axis=1).reshape([len(bands), -1])

    def noise(self, hops: tf.Tensor) -> tf.Tensor:
        """Spectra, `[voices, n, …]`: the real part, and then the imaginary part."""
        voices, n_hops, hop = hops.shape
        padded = tf.pad(tf.reshape(hops, [-1, hop]), [[0, 0], [0, self._transform.n_samples - hop]])
        return tf.reshape(self._transform.forth(padded), [voices, n_hops, -1])

    def responses(self, magnitudes: tf.Tensor) -> tf.Tensor:
        """Likewise."""
        return exact_product(magnitudes, self._spectra)

    def filtered(self, noise: tf.Tensor, responses: tf.Tensor) -> tf.Tensor:
        voices, n_hops, _ = responses.shape
        parts = [
            tf.reshape(part, [-1, *self._transform.shape])
            for each in (noise, responses)
            for part in tf.split(each, 2, axis=2)
        ]
        signal = self._transform.back(*complex_product(*parts), 2 * self._transform.n_samples)
        return tf.reshape(signal[:, : self._n_samples], [voices, n_hops, self._n_samples])

    def overlap_and_add(self, signals: tf.Tensor, hop: int) -> tf.Tensor:
        size = signals.shape[-1]
        n_samples = (signals.shape[1] - 1) * hop + size
        return overlap_and_add(signals, hop)[:, :n_samples]


def _filtered_noise(processor: FilteredNoise, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `FilteredNoise.step`."""
    return processor.step_with(_Filters(processor.filters.bands, processor.hop), controls, state)


def _reverb(processor: Reverb, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Reverb.step`; its state are the spectra of the latest blocks instead of what rings of them."""
    audio = controls["audio"]
    convolution = _convolution(processor, audio.shape[1])
    wet, latest = convolution(audio, state["latest"])
    return wet + (audio if processor._add_dry else 0.0), {"latest": latest}


def _convolution(processor: Reverb, n_samples: int) -> PartitionedConvolution:
    """The convolution of a room, for blocks of so many samples."""
    with tf.init_scope():
        return PartitionedConvolution(processor.impulse_response().numpy(), n_samples)


_STEPS_OF = {
    Harmonic: _harmonic,
    Banks: _banks,
    FilteredNoise: _filtered_noise,
    Reverb: _reverb,
}
CONVERTIBLE = (*_STEPS_OF, ddsp.processors.Add)
"""The types of processors that there are steps for."""
