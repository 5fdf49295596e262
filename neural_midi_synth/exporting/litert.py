"""The stream as a LiteRT model (formerly TensorFlow Lite), for phones, plug-ins and single-board computers."""

from __future__ import annotations

import tempfile

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import litert_steps
from neural_midi_synth.exporting.litert_convolution import HALF_FROM
from neural_midi_synth.instrument.controls import COLUMNS, has_length
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.oscillators import polynomial_sines
from neural_midi_synth.instrument.recurrent import UNROLLED, flat_state, nested_state

SIGNATURE = "stream"
_BLOCK_SECONDS = 0.016


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
    check(instrument, block_frames, voices)
    controllers = sum(channel.startswith("cc_") for channel in instrument.controls.channels)
    n_rows = {"notes": 1, "control_changes": max(controllers, 1), "pitch_bends": 1}
    signature = {
        name: tf.TensorSpec([voices, n_rows[name] * (block_frames + 2), columns], tf.float32, name)
        for name, columns in COLUMNS.items()
    }
    begin = litert_steps.initial_state(instrument, block_frames, voices)
    flat = {name: value.numpy() for name, value in flat_state(begin)}
    for name, value in flat.items():
        if value.size:
            # int64 phases and indices of samples matter modulo 2^32 only, and frames are fewer, so int32 will do.
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
        frames = instrument.controls(**rows, n_frames=block_frames, lookup=litert_steps.COMPARISON)
        have_notes = tf.reduce_any(has_length(rows["notes"], litert_steps.COMPARISON), axis=1)
        audible = tf.cast(have_notes | (np.arange(voices) == 0), tf.float32)
        # The client keeps the difference from the initial state, so that it can begin with zeros.
        state = {name: inputs.get(name, value) for name, value in flat.items()}
        state |= {name: state[name] + value for name, value in initial.items()}
        with polynomial_sines():  # Which LiteRT computes many at a time, unlike its own.
            signal, state = litert_steps.step(instrument, frames, nested_state(begin, state), voices, audible)
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


def check(instrument: Instrument, block_frames: int, voices: int) -> None:
    """Tells, at once, whether there can be a model.

    Args:
        instrument: As for `convert`.
        block_frames: As for `convert`.
        voices: As for `convert`.

    Raises:
        DataError: As `convert`.
        ValueError: As `convert`.
    """
    stride = instrument.decoder.stride
    if block_frames != int(block_frames) or block_frames < 1 or block_frames % stride:
        raise ValueError(f"convert: block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
    if voices != int(voices) or voices < 1:
        raise ValueError(f"convert: voices is {voices}; give a whole number from 1.")
    if block_frames > UNROLLED * stride:
        raise DataError(f"LiteRT: blocks have up to {UNROLLED * stride} control frames, not {block_frames}.")
    for processor in instrument.processor_group.processors:
        if type(processor) not in litert_steps.CONVERTIBLE:
            raise DataError(
                f"LiteRT: the processor '{processor.name}' ({type(processor).__name__}) cannot be converted. "
                "Harmonic, FilteredNoise, Reverb and Add can; export without --tflite, or change the model."
            )


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


def _with_half_weights(model: bytes) -> bytes:
    """Stores the weights in half precision.

    The converter would do that to each and every constant, 2π among them; the library ai-edge-quantizer chooses weights
    by their size, but leaves biases as they are (see `_weights`).
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    model.operatorCodes.append(_dequantize_code())
    for graph in model.subgraphs:
        for i in _weights(model, graph):
            tensor = graph.tensors[i]
            buffer = model.buffers[tensor.buffer]
            if len(buffer.data) == 4 * np.prod(tensor.shape):  # Others may share it.
                buffer.data = np.frombuffer(bytes(buffer.data), np.float32).astype(np.float16).view(np.uint8)
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


def _weights(model: schema.ModelT, graph: schema.SubGraphT) -> list[int]:
    """The tensors to be stored in half precision: large constants, and the biases that are added to their products.

    Browsers multiply by half weights quickly, by XNNPACK, only where the bias is half, too.
    """
    computed = {tensor for operator in graph.operators for tensor in operator.outputs}
    large = {
        i
        for i, tensor in enumerate(graph.tensors)
        if tensor.type == schema.TensorType.FLOAT32
        and i not in computed
        and model.buffers[tensor.buffer].data is not None  # It is none of an input.
        and np.prod(tensor.shape) >= HALF_FROM
    }
    layers = [
        operator.inputs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    biases = {inputs[2] for inputs in layers if inputs[1] in large and len(inputs) > 2 and inputs[2] >= 0}
    return sorted(large | biases)


def _dequantize_code() -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # from float16
    return code
