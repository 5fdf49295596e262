"""The steps of an instrument with what LiteRT has: neither float64 nor complex numbers nor Fourier transforms.

Those of processors that count phases, make noise or convolve are written here once more, with integers, which wrap
around where they overflow, in place of float64; and a matrix product in place of Fourier transforms (see `_delayed`).
Everything else is the instrument's own code.
"""

from __future__ import annotations

import math

import ddsp
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.controls import Lookup
from neural_midi_synth.instrument.harmonic import Harmonic
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.noise import FilteredNoise, Filters
from neural_midi_synth.instrument.oscillators import FIRST_PULSE, Oscillators, running_phase
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.instrument.reverb import Reverb

HALF_FROM = 16384
"""Float constants with as many elements are stored in half precision. Smaller matrices make a model hardly larger, and
the decoder's first one, which sees the Fourier features, is what half precision would cost most in."""

_STEPS = 256  # of a semitone, in the table of frequencies
_PARTS = 1024  # of a sample, in which a phase that begins anew is counted
_PART = 128  # samples of a response at a time
_SHORT_PART = 32  # Likewise, of the short responses that noise has, of which there are many.


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


def step(
    instrument: Instrument, frames: dict[str, tf.Tensor], state: State, voices: int, audible: tf.Tensor
) -> tuple[tf.Tensor, State]:
    """As `Instrument.step`, with the steps of this module.

    Args:
        instrument: Whose processors are `CONVERTIBLE`.
        frames: Channel name → `[voices, n_frames, 1]`.
        state: Of the block before, phases and indices of samples int32.
        voices: Of the piece.
        audible: 1 or 0 for each voice, float32 `[voices]`.

    Returns:
        The signal `[1, n_frames * hop]` before it is scaled by `level`, and the next state.
    """
    steps = {processor.name: _STEPS_OF.get(type(processor)) for processor in instrument.processor_group.processors}
    scaled = instrument.preprocessor(frames)
    parameters, decoder_state = instrument.decoder(scaled, state=state["decoder"])
    given, given_state = instrument.given(frames, state, _midi_to_hz)
    outputs, group_state = instrument.processor_group.run(
        {**parameters, **given},
        state["processor_group"],
        lambda processor, controls, state: steps[processor.name](processor, controls, state),
        voices,
        audible,
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

    def phases(
        self, f0_hz: tf.Tensor, phase: tf.Tensor, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        starts, last = self._starts(f0_hz, phase[:, tf.newaxis], onset, plucked)
        since, is_anew = self._since_begin(f0_hz, self.middles, onset, plucked)
        if is_anew is not None:
            starts *= 1 - tf.cast(is_anew, tf.int32)
        return tf.cast(starts + since, tf.float32) * 2.0**-32, last[:, 0]

    def begins(
        self, frequencies: tf.Tensor, phase: tf.Tensor, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        begins, last = self._starts(frequencies, phase, onset, plucked)
        return tf.cast(begins, tf.float32) * 2.0**-32, last

    def filled_in(self, played: tf.Tensor) -> tf.Tensor:
        return _exact_product(played, self._between)

    def _starts(
        self, hz: tf.Tensor, phase: tf.Tensor, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Phase at the begin of each hop, int32 `[voices, n_frames, n]`, and at the end, int32 `[voices, n]`."""
        steps, _ = self._since_begin(hz, np.array([self._hop - 1.0]), onset, plucked)
        return running_phase(steps, phase, plucked, _first_of)

    def _since_begin(
        self, hz: tf.Tensor, samples: np.ndarray, onset: tf.Tensor | None, plucked: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Steps of the phase from each hop's begin to some samples in it.

        Args:
            hz: `[voices, n_frames + 1, n]`; `n` is 1, or there is one sample.
            samples: Numbers of the samples, whole or halves.
            onset: Where a note begins in each hop, `[voices, n_frames, 1]`.
            plucked: Whether that is a plucked string's, bool `[voices, n_frames, 1]`.

        Returns:
            int32 `[voices, n_frames, n or samples]`, and where they are those of a note that began the phase anew.
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
        return _high_word(tf.where(is_anew, times(step / _PARTS)[:, 1:] * since * sounds, steps)), is_anew


def _exact_product(x: tf.Tensor, constant: np.ndarray) -> tf.Tensor:
    """`x @ constant` in parts, each too small to be stored in half precision."""
    rows = np.array_split(constant.astype(np.float32), -(-constant.size // (HALF_FROM - constant.shape[1])))
    columns = tf.split(x, [len(each) for each in rows], axis=-1)
    return tf.add_n([tf.matmul(*each) for each in zip(columns, rows)])


def _harmonic(processor: Harmonic, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Harmonic.step`."""
    oscillators = _Oscillators(processor.hop, processor.sample_rate, processor.highest_hz)
    return processor.step_with(oscillators, controls, state)


def _first_of(count: tf.Tensor) -> tf.Tensor:
    """Of rows of numbers that do not fall, the index of the first one as high as each: so many are lower."""
    return tf.reduce_sum(tf.cast(count[:, tf.newaxis] < count[:, :, tf.newaxis], tf.int32), axis=2)


def _high_word(x: tf.Tensor) -> tf.Tensor:
    """int64 in steps of 2⁻⁶⁴ to int32 in steps of 2⁻³², rounded."""
    return tf.bitcast(x + 2**31, tf.int32)[..., 1]


class _Filters(Filters):
    """As `Filters`, in time instead of frequency, and with int32 for the indices of samples."""

    def noise(self, hops: tf.Tensor) -> tf.Tensor:
        return hops

    def responses(self, magnitudes: tf.Tensor) -> tf.Tensor:
        return _exact_product(magnitudes, self.bands)

    def filtered(self, noise: tf.Tensor, responses: tf.Tensor) -> tf.Tensor:
        voices, n_hops, size = responses.shape
        hops = tf.reshape(noise, [voices * n_hops, -1])
        echoes = _convolved(tf.reshape(responses, [voices * n_hops, size]), hops, _SHORT_PART)
        n_samples = hops.shape[1] + size - 1
        return tf.reshape(_cut(echoes, 0, n_samples), [voices, n_hops, n_samples])

    def overlap_and_add(self, signals: tf.Tensor, hop: int) -> tf.Tensor:
        size = signals.shape[-1]
        n_samples = (signals.shape[1] - 1) * hop + size
        return _cut(_overlap_and_add(signals, hop), 0, n_samples)


def _filtered_noise(processor: FilteredNoise, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `FilteredNoise.step`."""
    return processor.step_with(_Filters(processor.filters.bands, processor.hop), controls, state)


def _reverb(processor: Reverb, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Reverb.step`, in time instead of frequency: the response is cut into parts, each convolved with the block."""
    audio, response = controls["audio"], controls["ir"]
    n_samples = audio.shape[1]
    part = min(n_samples, _PART)
    parts = tf.reshape(tf.pad(response, [[0, -response.shape[0] % part]]), [-1, part])
    # With the constant last, it is a fully connected layer, which LiteRT has made quickest.
    echoes = [
        tf.matmul(delayed, parts, transpose_a=True, transpose_b=True) for delayed in tf.unstack(_delayed(audio, part))
    ]
    wet, ringing = _ring(_overlap_and_add_columns(tf.stack(echoes), part), state["ringing"], n_samples)
    return wet + (audio if processor._add_dry else 0.0), {"ringing": ringing}


def _convolved(responses: tf.Tensor, signals: tf.Tensor, part: int) -> tf.Tensor:
    """Convolves in time: responses are cut into parts, each convolved with the signal.

    Args:
        responses: `[batch, size]`.
        signals: `[batch, n_samples]`.
        part: Samples of a part, at most.

    Returns:
        `[batch, n]`, where `n` is at least `n_samples + size - 1`; what is beyond is zeros.
    """
    batch, size = responses.shape
    part = min(part, signals.shape[1])
    parts = tf.reshape(tf.pad(responses, [[0, 0], [0, -size % part]]), [batch, -1, part])
    return _overlap_and_add(tf.matmul(parts, _delayed(signals, part)), part)


def _ring(fresh: tf.Tensor, ringing: tf.Tensor, n_samples: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds what still rings of earlier blocks to what a block makes.

    Args:
        fresh: `[batch, n]`: the block's sound and, after its `n_samples`, its ringing.
        ringing: `[batch, n_ringing]`, from the block's first sample on.
        n_samples: Samples of the block.

    Returns:
        The sound of the block `[batch, n_samples]` and what rings after it `[batch, n_ringing]`.
    """
    n_ringing = ringing.shape[1]
    n = n_samples + n_ringing
    fresh = _cut(tf.pad(fresh, [[0, 0], [0, max(n - fresh.shape[1], 0)]]), 0, n)
    signal = fresh + tf.pad(ringing, [[0, 0], [0, n_samples]])
    return _cut(signal, 0, n_samples), _cut(signal, n_samples, n)


def _delayed(signal: tf.Tensor, n_rows: int) -> tf.Tensor:
    """Signals delayed by 0, 1, 2, … samples, row by row: `[batch, n]` to `[batch, n_rows, n + n_rows]`.

    An impulse response `[n_rows]` times this matrix is the response's convolution with the signal, since convolution is
    a sum of delayed signals, weighted by the response. For the signal a b c and three rows the matrix (a Toeplitz
    matrix: each diagonal holds one value) is

        a b c 0 0 0
        0 a b c 0 0
        0 0 a b c 0

    Read row after row, it is a b c and four zeros, over and over. So it is made without a loop: the signal and so many
    zeros are repeated, and what comes out is cut into rows, each one sample shorter than a repetition.
    """
    batch, width = signal.shape[0], signal.shape[1] + n_rows
    padded = tf.pad(signal, [[0, 0], [0, n_rows + 1]])
    repeated = tf.reshape(padded[:, tf.newaxis] * tf.ones([1, n_rows, 1]), [batch, -1])
    return tf.reshape(_cut(repeated, 0, n_rows * width), [batch, n_rows, width])


def _cut(x: tf.Tensor, begin: int, end: int, axis: int = 1) -> tf.Tensor:
    """A slice along an axis. LiteRT copies Python's slices number by number, and these at once."""
    begins, sizes = [0] * len(x.shape), list(x.shape)
    begins[axis], sizes[axis] = begin, end - begin
    return tf.slice(x, begins, sizes)


def _overlap_and_add(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """Sums blocks `[batch, n, size]` that each begin a hop after the one before: `[batch, n_samples]`."""
    batch, n_blocks, size = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, 0], [0, n_hops * hop - size]]), [batch, n_blocks, n_hops, hop])
    of_each = [tf.reshape(_cut(hops, i, i + 1, axis=2), [batch, n_blocks, hop]) for i in range(n_hops)]
    moved = [tf.pad(each, [[0, 0], [i, n_hops - 1 - i], [0, 0]]) for i, each in enumerate(of_each)]
    return tf.reshape(tf.add_n(moved), [batch, -1])


def _overlap_and_add_columns(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """As `_overlap_and_add`, of blocks that are columns, `[batch, size, n]`."""
    batch, size, n_blocks = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, n_hops * hop - size], [0, 0]]), [batch, n_hops, hop, n_blocks])
    of_each = [tf.reshape(_cut(hops, i, i + 1), [batch, hop, n_blocks]) for i in range(n_hops)]
    moved = [tf.pad(each, [[0, 0], [0, 0], [i, n_hops - 1 - i]]) for i, each in enumerate(of_each)]
    return tf.reshape(tf.transpose(tf.add_n(moved), [0, 2, 1]), [batch, -1])


_STEPS_OF = {
    Harmonic: _harmonic,
    FilteredNoise: _filtered_noise,
    Reverb: _reverb,
}
CONVERTIBLE = (*_STEPS_OF, ddsp.processors.Add)
"""The types of processors that there are steps for."""
