"""The stream as a LiteRT model (formerly TensorFlow Lite), for phones, plug-ins and single-board computers."""

from __future__ import annotations

import tempfile

import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import litert_graph, litert_steps
from neural_midi_synth.instrument.controls import COLUMNS
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.oscillators import polynomial_sines
from neural_midi_synth.instrument.recurrent import UNROLLED, Packing, State

SIGNATURE = "stream"
_BLOCK_SECONDS = 0.016


def convert(instrument: Instrument, block_frames: int, voices: int = 1) -> bytes:
    """Makes the stream step a LiteRT model of one signature, 'stream'. Weights are float16, sums are float32.

    Inputs are the few events that matter to a block, and the state, as `packing` packs it: `state_float32` and
    `state_int32`. Events are rows as those of the SavedModel's `serving_default`, for each voice, but their times are
    seconds from the block's first frame:

    - `notes`, float32 `[voices, rows, 4]`: start, end, MIDI note number, velocity (0 to 127). Of each voice the note
      that lasts or ended last, and those that begin in the block; a note that still lasts may end at any later time.
    - `control_changes`, float32 `[voices, rows of all controllers, 3]`: time, number, value (0 to 127). Of each
      controller that is heard the one in force, and those in the block.
    - `pitch_bends`, float32 `[voices, rows, 2]`: time, semitones. Likewise.

    `rows` is `block_frames + 2`, so that there is one for each frame. Rows need no order, and those whose time is
    `controls.PADDING` or below are ignored. A voice whose notes are all padding is silent.

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
    packed = packing(instrument, block_frames, voices)
    signature |= {spec.name: spec for spec in packed.specs}
    names = [spec.name for spec in packed.specs]

    def moved(state: State, sign: int) -> State:
        """By what does not begin with 0: outputs of a decoder with a stride, and from the second voice on the noise."""

        def by_first(value: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
            first = first.numpy().astype(value.dtype.as_numpy_dtype)
            return value + sign * first if first.any() else value

        return tf.nest.map_structure(by_first, state, begin)

    def stream(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = {name: inputs[name] for name in COLUMNS}
        frames = instrument.controls(**rows, n_frames=block_frames, lookup=litert_steps.COMPARISON)
        # The client keeps the difference from the initial state, so that it can begin with zeros.
        state = moved(packed.unpack([inputs[name] for name in names]), 1)
        with polynomial_sines():  # Which LiteRT computes many at a time, unlike its own.
            signal, state = litert_steps.step(instrument, frames, state, voices)
        return {"audio": instrument.level * signal, **dict(zip(names, packed.pack(moved(state, -1))))}

    module = tf.Module()
    module.weights = instrument.variables  # Not the instrument itself, all of whose graphs would be saved.
    module.stream = tf.function(stream, autograph=False)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, {SIGNATURE: module.stream.get_concrete_function(**signature)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        model = converter.convert()
    return litert_graph.improved(model)


def packing(instrument: Instrument, block_frames: int, voices: int) -> Packing:
    """Where in a model's state its parts lie.

    Args:
        instrument: As for `convert`.
        block_frames: As for `convert`.
        voices: As for `convert`.

    Returns:
        The packing of what the model keeps. Whole numbers are int32: phases and indices of samples matter modulo 2³²
        only, and frames are fewer.
    """
    return Packing(
        tf.nest.map_structure(
            lambda value: tf.zeros(value.shape, tf.int32 if value.dtype.is_integer else tf.float32),
            litert_steps.initial_state(instrument, block_frames, voices),
        )
    )


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
