"""The stream as a LiteRT model (formerly TensorFlow Lite), for phones, plug-ins and single-board computers.

LiteRT has neither float64 nor complex numbers nor Fourier transforms. So the steps that count phases, draw noise and
convolve are written here once more, in what it has: whole numbers that wrap, matrix products, and the signal moved
against itself. Everything else is the instrument's own.
"""

from __future__ import annotations

import math
import tempfile
from typing import Any

import ddsp
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth import processors
from neural_midi_synth.decoders import UNROLLED
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import Instrument
from neural_midi_synth.saved_model import channel_facts, flat_state, nested_state

State = dict[str, Any]

SIGNATURE = "stream"
_STEPS = 256  # of a semitone, in the table of frequencies
_PART = 256  # samples of a response at a time
_HALF_FROM = 1024  # float constants with as many elements are weights and are stored in half precision


def convert(instrument: Instrument, block_frames: int) -> bytes:
    """Makes the stream step a LiteRT model of one signature, 'stream'. Weights are float16, sums are float32.

    Inputs are one block of control frames, a float32 `[1, block_frames, 1]` for each channel by its name, and the
    state by the names `state_…`. Outputs are `audio`, float32 `[1, block_frames * hop]`, `instrument.latency` samples
    behind the frames, and the next state by the same names. A stream begins with zeros for all the state. Frames must
    be finite; they are clipped to the range of their channel.

    What it plays is what `instrument.step` does to within 1e-3 of full scale: that is what rounding the weights costs.
    Pitch and phase are the same to the last bit, so that it does not grow with time.

    Args:
        instrument: An instrument whose processors are `nms.Harmonic`, `nms.FilteredNoise`, `nms.Reverb` and `Add`.
        block_frames: Control frames of a block, a multiple of the decoder's stride, up to ten times that.

    Returns:
        The model, to be written into a `.tflite` file or given to an interpreter.

    Raises:
        DataError: The instrument has another processor, or a block is so long that it needs a loop.
        ValueError: `block_frames` is not a multiple of the stride from 1.
    """
    stride = instrument.decoder.stride
    if block_frames != int(block_frames) or block_frames < 1 or block_frames % stride:
        raise ValueError(f"convert: block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
    if block_frames > UNROLLED * stride:
        raise DataError(f"LiteRT: blocks have up to {UNROLLED * stride} control frames, not {block_frames}.")
    for processor in instrument.processor_group.processors:
        if type(processor) not in (*_STEPS_OF, ddsp.processors.Add):
            raise DataError(
                f"LiteRT: the processor '{processor.name}' ({type(processor).__name__}) cannot be converted. "
                "Harmonic, FilteredNoise, Reverb and Add can; export without --tflite, or change the model."
            )
    channels = channel_facts(instrument)
    begin = instrument.initial_state(1)
    flat = {name: value.numpy() for name, value in flat_state(begin)}
    signature = {channel: tf.TensorSpec([1, block_frames, 1], tf.float32, channel) for channel in channels}
    for name, value in flat.items():
        if value.size:
            # What counts modulo 2³² is int32 here.
            dtype = tf.int32 if value.dtype == np.int64 else tf.float32
            signature[name] = tf.TensorSpec(value.shape, dtype, name)

    def stream(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        frames = {name: tf.clip_by_value(inputs[name], of.minimum, of.maximum) for name, of in channels.items()}
        # What a stream begins with is taken off the state, so that it begins with zeros.
        state = {name: inputs[name] + value if value.any() else inputs.get(name, value) for name, value in flat.items()}
        signal, state = _step(instrument, frames, nested_state(begin, state))
        state = {name: value - flat[name] if flat[name].any() else value for name, value in flat_state(state)}
        return {"audio": instrument.level * signal, **{name: value for name, value in state.items() if name in inputs}}

    module = tf.Module()
    module.weights = instrument.variables  # The instrument itself would be saved with all that it can.
    module.stream = tf.function(stream, autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {SIGNATURE: module.stream.get_concrete_function(**signature)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        model = converter.convert()
    return _with_half_weights(model)


def _step(instrument: Instrument, frames: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Instrument.step`, for one voice; returns the signal only."""
    scaled = instrument.preprocessor(frames)
    parameters, decoder_state = instrument.decoder(scaled, state=state["decoder"])
    f0_hz = tf.concat([state["f0_hz"], _midi_to_hz(frames["f0_midi"])], axis=1)
    n_frames = frames["f0_midi"].shape[1]
    parameters["f0_hz"], later_f0_hz = f0_hz[:, :n_frames], f0_hz[:, n_frames:]
    group, group_state = instrument.processor_group, {}
    outputs = dict(parameters, inputs=parameters)
    for name, keys, *_ in group.dag:
        processor = getattr(group, name)
        controls = processor.get_controls(*(ddsp.core.nested_lookup(key, outputs) for key in keys))
        if type(processor) in _STEPS_OF:
            step = _STEPS_OF[type(processor)]
            signal, group_state[name] = step(processor, controls, state["processor_group"][name])
        else:
            signal = processor.get_signal(**controls)
        outputs[name] = {"controls": controls, "signal": signal}
    return signal, {"f0_hz": later_f0_hz, "decoder": decoder_state, "processor_group": group_state}


def _midi_to_hz(pitch: tf.Tensor) -> tf.Tensor:
    """Hz `[1, n, 1]` to the last bit of a float32, or phases would drift: in whole numbers, as a parabola by the step.

    An octave is a table of steps, and what the pitch is above a step is a small multiple of the last bit that a pitch
    has. Whole numbers become float32 by rounding once.
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


def _harmonic(processor: processors.Harmonic, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Harmonic.step`."""
    f0_hz = tf.concat([state["f0_hz"], controls["f0_hz"]], axis=1)
    harmonics = controls["amplitudes"] * controls["harmonic_distribution"]
    frequencies = ddsp.core.get_harmonic_frequencies(controls["f0_hz"], processor.n_harmonics)
    harmonics = ddsp.core.remove_above_nyquist(frequencies, harmonics, processor.sample_rate)
    harmonics = tf.concat([state["harmonics"], harmonics], axis=1)
    phase, last_phase = _phase(processor, f0_hz[:, :, 0], state["phase"])
    rise = np.arange(processor.hop, dtype=np.float32) / processor.hop
    if processor.amp_resample_method == "window":
        rise = 0.5 - 0.5 * np.cos(math.pi * rise)
    pairs = processors._harmonic_sum(phase, tf.stack([harmonics[:, :-1], harmonics[:, 1:]], axis=2))
    signal = pairs[:, :, 0] + tf.cast(rise, tf.float32) * (pairs[:, :, 1] - pairs[:, :, 0])
    return tf.reshape(signal, [1, -1]), {"phase": last_phase, "f0_hz": f0_hz[:, -1:], "harmonics": harmonics[:, -1:]}


def _phase(processor: processors.Harmonic, f0_hz: tf.Tensor, phase: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `Harmonic._phase`, in int64 steps of 2⁻⁶⁴ cycles, which wrap by themselves; the high word is the phase.

    Args:
        processor: The bank.
        f0_hz: `[1, n_frames + 1]`.
        phase: int32 `[1]`, 2³² steps a cycle.

    Returns:
        Cycles in [-0.5, 0.5), float32 `[1, n_frames, hop]`, and the phase at the end, int32 `[1]`.
    """
    # A frequency in whole numbers: Hz, 2⁻¹⁴ Hz, 2⁻²⁸ Hz.
    whole = tf.floor(f0_hz)
    middle = (f0_hz - whole) * 2.0**14
    last = (middle - tf.floor(middle)) * 2.0**14
    digits = [tf.cast(digit, tf.int64)[..., tf.newaxis] for digit in (whole, middle, last)]

    def times(factor: float) -> tf.Tensor:
        return sum(digit * round(factor * 2.0**-shift) for digit, shift in zip(digits, (0, 14, 28)))

    hop, step = processor.hop, 2.0**64 / processor.sample_rate
    sounds = tf.cast(f0_hz[:, :-1, tf.newaxis] > 0.0, tf.int64)
    increments, slopes, halves = times(step), times(step / hop), times(step / 2.0)
    slopes = (slopes[:, 1:] - slopes[:, :-1]) * sounds
    samples = np.arange(hop, dtype=np.int64)
    within = _high_word(increments[:, :-1] * (samples + 1) + slopes * (samples * (samples + 1) // 2))
    # What adds up from hop to hop, without the rounding of slopes.
    wholes = _high_word((halves[:, :-1] * (hop + 1) + halves[:, 1:] * (hop - 1)) * sounds)
    ends = phase[:, tf.newaxis] + tf.cumsum(wholes[:, :, 0], axis=1)
    starts = tf.concat([phase[:, tf.newaxis], ends[:, :-1]], axis=1)
    return tf.cast(starts[..., tf.newaxis] + within, tf.float32) * 2.0**-32, ends[:, -1]


def _high_word(x: tf.Tensor) -> tf.Tensor:
    """int64 in steps of 2⁻⁶⁴ to int32 in steps of 2⁻³², rounded."""
    return tf.bitcast(x + 2**31, tf.int32)[..., 1]


def _filtered_noise(
    processor: processors.FilteredNoise, controls: dict[str, tf.Tensor], state: State
) -> tuple[tf.Tensor, State]:
    """As `FilteredNoise.step`, in time instead of frequency."""
    magnitudes, hop = controls["magnitudes"], processor.hop
    n_frames = magnitudes.shape[1]
    n_samples = n_frames * hop
    samples = state["sample"] + tf.range(n_samples)
    noise = tf.reshape(_white_noise(samples, processor.seed), [n_frames, hop])
    real, imaginary = np.split(processor._bands_to_spectrum.astype(np.float64), 2, axis=-1)
    responses = np.fft.irfft(real + 1j * imaginary, processor._fft_size)[:, : processor._response_size]
    # In two halves of half precision, together as precise as they have to be.
    coarse = responses.astype(np.float16).astype(np.float32)
    responses = np.concatenate([coarse, (responses - coarse).astype(np.float32)], axis=0)
    responses = tf.matmul(tf.concat([magnitudes, magnitudes], axis=-1)[0], responses)
    blocks = tf.matmul(responses[:, tf.newaxis], _shifted(noise, processor._response_size))[:, 0]
    fresh = tf.pad(_overlap_and_add(blocks, hop), [[hop - processor._delay, 0]])[tf.newaxis]
    signal, ringing = _ring(fresh, state["ringing"], n_samples)
    return signal, {"sample": state["sample"] + n_samples, "ringing": ringing}


def _white_noise(samples: tf.Tensor, seed: int) -> tf.Tensor:
    """As that of `processors`, of int32 sample indices."""
    key = tf.bitcast(processors.hashed_seed(seed), tf.int32)
    return processors.uniform(processors.hashed(tf.bitcast(samples + key, tf.uint32)))


def _reverb(processor: processors.Reverb, controls: dict[str, tf.Tensor], state: State) -> tuple[tf.Tensor, State]:
    """As `Reverb.step`, in time: each part of the response against all shifts of the block is a matrix product."""
    audio, response = controls["audio"], controls["ir"]
    n_samples = audio.shape[1]
    part = min(n_samples, _PART)
    parts = tf.reshape(tf.pad(response, [[0, -response.shape[0] % part]]), [-1, part])
    echoes = tf.matmul(parts, _shifted(audio, part)[0])
    wet, ringing = _ring(_overlap_and_add(echoes, part)[tf.newaxis], state["ringing"], n_samples)
    return wet + (audio if processor._add_dry else 0.0), {"ringing": ringing}


def _ring(fresh: tf.Tensor, ringing: tf.Tensor, n_samples: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds what rings on; the first `n_samples` are due, as many as before go on ringing."""
    n_ringing = ringing.shape[1]
    fresh = tf.pad(fresh, [[0, 0], [0, max(n_samples + n_ringing - fresh.shape[1], 0)]])[:, : n_samples + n_ringing]
    signal = fresh + tf.pad(ringing, [[0, 0], [0, n_samples]])
    return signal[:, :n_samples], signal[:, n_samples:]


def _shifted(signal: tf.Tensor, n_shifts: int) -> tf.Tensor:
    """Signals `[batch, n]` moved right by 0, 1, 2 …: `[batch, n_shifts, n + n_shifts]`.

    Rows one sample longer than the result's, one after the other, fall back by a sample a row.
    """
    batch, width = signal.shape[0], signal.shape[1] + n_shifts
    rows = tf.tile(tf.pad(signal, [[0, 0], [0, n_shifts + 1]]), [1, n_shifts])
    return tf.reshape(rows[:, : n_shifts * width], [batch, n_shifts, width])


def _overlap_and_add(blocks: tf.Tensor, hop: int) -> tf.Tensor:
    """Sums blocks `[n, size]` that each begin a hop after the one before."""
    n_blocks, size = blocks.shape
    n_hops = -(-size // hop)
    hops = tf.reshape(tf.pad(blocks, [[0, 0], [0, n_hops * hop - size]]), [n_blocks, n_hops, hop])
    moved = [tf.pad(hops[:, i], [[i, n_hops - 1 - i], [0, 0]]) for i in range(n_hops)]
    return tf.reshape(tf.add_n(moved), [-1])


_STEPS_OF = {
    processors.Harmonic: _harmonic,
    processors.FilteredNoise: _filtered_noise,
    processors.Reverb: _reverb,
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
