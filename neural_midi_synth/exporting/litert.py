"""The stream as a LiteRT model (formerly TensorFlow Lite), for phones, plug-ins and single-board computers.

LiteRT has neither float64 nor complex numbers nor Fourier transforms. So the steps of those processors that count
phases, make noise or convolve are written here once more, with what it has: integers, which wrap around where they
overflow, in place of float64; and a matrix product in place of Fourier transforms (see `_delayed`). Everything else is
the instrument's own code.
"""

from __future__ import annotations

import math
import tempfile

import ddsp
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting.saved_model import flat_state, nested_state
from neural_midi_synth.instrument import noise
from neural_midi_synth.instrument.controls import COLUMNS, Lookup, has_length
from neural_midi_synth.instrument.harmonic import Harmonic
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.noise import FilteredNoise, Filters
from neural_midi_synth.instrument.oscillators import FIRST_PULSE, Oscillators, polynomial_sines, running_phase
from neural_midi_synth.instrument.recurrent import UNROLLED, State
from neural_midi_synth.instrument.reverb import Reverb

SIGNATURE = "stream"
_BLOCK_SECONDS = 0.016
_STEPS = 256  # of a semitone, in the table of frequencies
_PARTS = 1024  # of a sample, in which a phase that begins anew is counted
_PART = 128  # samples of a response at a time
_SHORT_PART = 32  # Likewise, of the short responses that noise has, of which there are many.
# Float constants with as many elements are stored in half precision. Smaller matrices make a model hardly larger, and
# the first one, which sees the Fourier features, is what half precision would cost most in.
_HALF_FROM = 16384


def convert(instrument: Instrument, block_frames: int, voices: int = 1) -> bytes:
    """Makes the stream step a LiteRT model of one signature, 'stream'. Weights are float16, sums are float32.

    Inputs are the few events that matter to a block, and the state by the names `state_…`. Events are rows as those of
    the SavedModel's `serving_default`, for each voice, but their times are seconds from the block's first frame:

    - `notes`, float32 `[voices, rows, 4]`: start, end, MIDI note number, velocity (0 to 127). Of each voice the note
      that lasts or ended last, and those that begin in the block; a note that still lasts may end at any later time.
    - `control_changes`, float32 `[voices, rows of all controllers, 3]`: time, number, value (0 to 127). Of each
      controller that is heard the one in force, and those in the block.
    - `pitch_bends`, float32 `[voices, rows, 2]`: time, semitones. Likewise.

    `rows` is `block_frames + 2`, so that there is one for each frame. Rows need no order, and those whose time is
    `controls.PADDING` or below are ignored. A voice whose notes are all padding is left out of the sound, but for the
    first.

    Outputs are `audio`, float32 `[1, block_frames * hop]`, the sum of the voices, `instrument.latency` samples behind
    the frames; and the next state by the same names. A stream begins with zeros for all the state.

    What it plays is what `playing.stream.Stream` does to within 1e-3 of full scale: that is what rounding the weights
    costs. Pitch and phase are the same to the last bit, so that it does not grow with time.

    Args:
        instrument: An instrument whose processors are `nms.Harmonic`, `nms.FilteredNoise`, `nms.Reverb` and `Add`.
        block_frames: Control frames of a block, a multiple of the decoder's stride, up to ten times that.
        voices: Voices of the stream, from 1.

    Returns:
        The model, to be written into a `.tflite` file or given to an interpreter.

    Raises:
        DataError: The instrument has another processor, or a block is so long that it needs a loop.
        ValueError: `block_frames` is not a multiple of the stride from 1, or there is no voice.
    """
    _check(instrument, block_frames, voices)
    controllers = sum(channel.startswith("cc_") for channel in instrument.controls.channels)
    n_rows = {"notes": 1, "control_changes": max(controllers, 1), "pitch_bends": 1}
    signature = {
        name: tf.TensorSpec([voices, n_rows[name] * (block_frames + 2), columns], tf.float32, name)
        for name, columns in COLUMNS.items()
    }
    begin = instrument.initial_state(1, voices)
    flat = {name: value.numpy() for name, value in flat_state(begin)}
    for name, value in flat.items():
        if value.size:
            # Phases and the indices of samples, int64, matter modulo 2^32 only, so int32 will do.
            dtype = tf.int32 if value.dtype == np.int64 else tf.float32
            signature[name] = tf.TensorSpec(value.shape, dtype, name)

    # What does not begin with 0: outputs of a decoder with a stride, and from the second voice on the sample's index.
    initial = {
        name: value.astype(np.int32 if value.dtype == np.int64 else value.dtype)
        for name, value in flat.items()
        if value.any()
    }

    def stream(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = {name: inputs[name] for name in COLUMNS}
        frames = instrument.controls(**rows, n_frames=block_frames, lookup=_COMPARISON)
        have_notes = tf.reduce_any(has_length(rows["notes"], _COMPARISON), axis=1)
        audible = tf.cast(have_notes | (np.arange(voices) == 0), tf.float32)
        # The client keeps the difference from the initial state, so that it can begin with zeros.
        state = {name: inputs.get(name, value) for name, value in flat.items()}
        state |= {name: state[name] + value for name, value in initial.items()}
        with polynomial_sines():  # Which LiteRT computes many at a time, unlike its own.
            signal, state = _step(instrument, frames, nested_state(begin, state), voices, audible)
        state = dict(flat_state(state))
        state |= {name: state[name] - value for name, value in initial.items()}
        return {"audio": instrument.level * signal, **{name: value for name, value in state.items() if name in inputs}}

    module = tf.Module()
    module.weights = instrument.variables  # Not the instrument itself, all of whose graphs would be saved.
    module.stream = tf.function(stream, autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {SIGNATURE: module.stream.get_concrete_function(**signature)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        model = converter.convert()
    return _with_half_weights(model)


def block_frames_of(instrument: Instrument, wanted: int | None) -> int:
    """The control frames of a block.

    Args:
        instrument: What plays.
        wanted: How many a user wants; None for about 16 ms, which a player of MIDI hardly notices.

    Returns:
        A multiple of the decoder's stride.

    Raises:
        DataError: What is wanted is none.
    """
    stride = instrument.decoder.stride
    if wanted is None:
        return -(-round(_BLOCK_SECONDS * instrument.frame_rate) // stride) * stride
    if wanted < 1 or wanted % stride:
        raise DataError(f"--block_frames is {wanted}; this instrument needs a multiple of {stride}.")
    return wanted


def _check(instrument: Instrument, block_frames: int, voices: int) -> None:
    """Raises what `convert` raises."""
    stride = instrument.decoder.stride
    if block_frames != int(block_frames) or block_frames < 1 or block_frames % stride:
        raise ValueError(f"convert: block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
    if voices != int(voices) or voices < 1:
        raise ValueError(f"convert: voices is {voices}; give a whole number from 1.")
    if block_frames > UNROLLED * stride:
        raise DataError(f"LiteRT: blocks have up to {UNROLLED * stride} control frames, not {block_frames}.")
    for processor in instrument.processor_group.processors:
        if type(processor) not in (*_STEPS_OF, ddsp.processors.Add):
            raise DataError(
                f"LiteRT: the processor '{processor.name}' ({type(processor).__name__}) cannot be converted. "
                "Harmonic, FilteredNoise, Reverb and Add can; export without --tflite, or change the model."
            )


class _Comparison(Lookup):
    """Finds rows by comparing all with all, since there are few, in float32: times from the block's begin are short."""

    dtype = tf.float32

    def is_finite(self, rows: tf.Tensor) -> tf.Tensor:
        return rows - rows == 0.0

    def last_at(self, event_frames: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
        has_come = event_frames[:, tf.newaxis] <= frames[..., tf.newaxis]
        return tf.reduce_sum(tf.cast(has_come, tf.int32), axis=-1) - 1


_COMPARISON = _Comparison()


def _step(
    instrument: Instrument, frames: dict[str, tf.Tensor], state: State, voices: int, audible: tf.Tensor
) -> tuple[tf.Tensor, State]:
    """As `Instrument.step`, with the steps of this module; returns the signal only."""
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


def _harmonic(processor: Harmonic, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Harmonic.step`."""
    return processor.step_with(_Oscillators(processor.hop, processor.sample_rate), controls, state)


def _first_of(count: tf.Tensor) -> tf.Tensor:
    """Of rows of numbers that do not fall, the index of the first one as high as each: so many are lower."""
    return tf.reduce_sum(tf.cast(count[:, tf.newaxis] < count[:, :, tf.newaxis], tf.int32), axis=2)


def _high_word(x: tf.Tensor) -> tf.Tensor:
    """int64 in steps of 2⁻⁶⁴ to int32 in steps of 2⁻³², rounded."""
    return tf.bitcast(x + 2**31, tf.int32)[..., 1]


class _Filters(Filters):
    """As `Filters`, in time instead of frequency, and with int32 for the indices of samples."""

    def white(self, samples: tf.Tensor, seed: int) -> tf.Tensor:
        key = tf.bitcast(noise.hashed_seed(seed), tf.int32)
        return noise.uniform(noise.hashed(tf.bitcast(samples + key, tf.uint32)))

    def noise(self, hops: tf.Tensor) -> tf.Tensor:
        return hops

    def responses(self, magnitudes: tf.Tensor) -> tf.Tensor:
        # Large constants are stored in half precision: the coarse part of each response, and what is missing from it.
        coarse = self.bands.astype(np.float16).astype(np.float32)
        bands = np.concatenate([coarse, (self.bands - coarse).astype(np.float32)], axis=0)
        return tf.matmul(tf.concat([magnitudes, magnitudes], axis=-1), bands)

    def filtered(self, noise: tf.Tensor, responses: tf.Tensor) -> tf.Tensor:
        voices, n_hops, size = responses.shape
        hops = tf.reshape(noise, [voices * n_hops, -1])
        echoes = _convolved(tf.reshape(responses, [voices * n_hops, size]), hops, _SHORT_PART)
        n_samples = hops.shape[1] + size - 1
        return tf.reshape(echoes[:, :n_samples], [voices, n_hops, n_samples])

    def overlap_and_add(self, signals: tf.Tensor, hop: int) -> tf.Tensor:
        size = signals.shape[-1]
        n_samples = (signals.shape[1] - 1) * hop + size
        return _overlap_and_add(signals, hop)[:, :n_samples]


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
    fresh = tf.pad(fresh, [[0, 0], [0, max(n_samples + n_ringing - fresh.shape[1], 0)]])[:, : n_samples + n_ringing]
    signal = fresh + tf.pad(ringing, [[0, 0], [0, n_samples]])
    return signal[:, :n_samples], signal[:, n_samples:]


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
    repeated = tf.tile(tf.pad(signal, [[0, 0], [0, n_rows + 1]]), [1, n_rows])
    return tf.reshape(repeated[:, : n_rows * width], [batch, n_rows, width])


def _overlap_and_add(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """Sums blocks `[batch, n, size]` that each begin a hop after the one before: `[batch, n_samples]`."""
    batch, n_blocks, size = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, 0], [0, n_hops * hop - size]]), [batch, n_blocks, n_hops, hop])
    moved = [tf.pad(hops[:, :, i], [[0, 0], [i, n_hops - 1 - i], [0, 0]]) for i in range(n_hops)]
    return tf.reshape(tf.add_n(moved), [batch, -1])


def _overlap_and_add_columns(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """As `_overlap_and_add`, of blocks that are columns, `[batch, size, n]`."""
    batch, size, n_blocks = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, n_hops * hop - size], [0, 0]]), [batch, n_hops, hop, n_blocks])
    moved = [tf.pad(hops[:, i], [[0, 0], [0, 0], [i, n_hops - 1 - i]]) for i in range(n_hops)]
    return tf.reshape(tf.transpose(tf.add_n(moved), [0, 2, 1]), [batch, -1])


_STEPS_OF = {
    Harmonic: _harmonic,
    FilteredNoise: _filtered_noise,
    Reverb: _reverb,
}


def _with_half_weights(model: bytes) -> bytes:
    """Stores the weights in half precision.

    The converter would do that to each and every constant, 2π among them.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    model.operatorCodes.append(_dequantize_code())
    halves = set()
    for graph in model.subgraphs:
        computed = {tensor for operator in graph.operators for tensor in operator.outputs}
        for i, tensor in enumerate(list(graph.tensors)):
            buffer = model.buffers[tensor.buffer]
            if i in computed or tensor.type != schema.TensorType.FLOAT32 or np.prod(tensor.shape) < _HALF_FROM:
                continue
            if buffer.data is None:  # an input
                continue
            if tensor.buffer not in halves:
                buffer.data = np.frombuffer(bytes(buffer.data), np.float32).astype(np.float16).view(np.uint8)
                halves.add(tensor.buffer)
            half = schema.TensorT()
            half.name, half.shape = tensor.name + b"/half", tensor.shape
            half.type, half.buffer = schema.TensorType.FLOAT16, tensor.buffer
            graph.tensors.append(half)
            tensor.buffer = 0  # the empty one
            operator = schema.OperatorT()
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.inputs, operator.outputs = [len(graph.tensors) - 1], [i]
            graph.operators.insert(0, operator)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _dequantize_code() -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # from float16
    return code
