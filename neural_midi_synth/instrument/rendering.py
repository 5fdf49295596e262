"""Plays whole pieces with an instrument, block by block."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.controls import COLUMNS, Score
from neural_midi_synth.instrument.recurrent import State
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import best_part, read_parts

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2

    from neural_midi_synth.instrument.instrument import Instrument

BLOCK_SECONDS = 2
TAIL_SECONDS = 1.0
"""What is played after the end of the last note, unless a length is given."""


def render_blocks(
    instrument: Instrument,
    piece: Piece | Voice | music_pb2.NoteSequence | str | os.PathLike,
    styles: Mapping[str, float] | None = None,
    sample_rate: int | None = None,
    n_samples: int | None = None,
    block_frames: int | None = None,
) -> Iterator[np.ndarray]:
    """Plays a piece, one block of audio after the other; memory does not grow with the length.

    Args:
        instrument: What plays.
        piece: As for `Instrument.render`.
        styles: Style name → control change value (0 to 127) that holds throughout, whatever the file says.
        sample_rate: Of the result; the instrument's own unless given.
        n_samples: Length of the result at the instrument's sample rate; unless given, to the end of the last note and
            a second more.
        block_frames: Control frames of a block, a multiple of the decoder's stride; two seconds unless given.

    Yields:
        Audio float32 `[n]`.

    Raises:
        DataError: The file cannot be used, or the instrument has no such style.
    """
    piece = as_piece(piece, instrument)
    voices = len(piece.voices)
    if n_samples is None:
        n_samples = round((piece.duration + TAIL_SECONDS) * instrument.sample_rate)
    resampler = soxr.ResampleStream(instrument.sample_rate, sample_rate or instrument.sample_rate, 1, dtype="float32")
    score = score_of(instrument, piece, styles or {})
    if block_frames is None:
        stride = instrument.decoder.stride
        block_frames = -(-BLOCK_SECONDS * instrument.frame_rate // stride) * stride
    state = instrument.initial_state(1, voices)
    group_state, skip, left = state["processor_group"], instrument.latency, n_samples
    _, synthesize = block_functions(instrument)
    for parameters in _decoded(instrument, score, state, voices, block_frames, instrument.frames_for(n_samples)):
        signal, group_state = synthesize(parameters, tf.constant(voices), group_state)
        signal = signal.numpy()[0]
        signal, skip = signal[skip:][:left], max(skip - len(signal), 0)
        left -= len(signal)
        if sample_rate not in (None, instrument.sample_rate):
            signal = resampler.resample_chunk(signal, last=left == 0)
        yield signal


def _decoded(
    instrument: Instrument, score: Score, state: State, voices: int, block_frames: int, n_frames: int
) -> Iterator[dict[str, tf.Tensor]]:
    """The decoder's outputs, block by block, decoded in a thread while the processors play the block before.

    The decoder takes one frame after the other, so by itself it would leave the other processor cores idle.
    """
    decode, _ = block_functions(instrument)

    def block(frame: int, state: State) -> tuple[dict[str, tf.Tensor], State, int]:
        left = n_frames - frame
        # A short rest goes with the block before it.
        length = left if left <= 3 * block_frames // 2 else block_frames
        place = tf.constant([frame, length], tf.int64)
        return *decode(score.rows(frame, frame + length), place, state), frame + length

    state = {name: value for name, value in state.items() if name != "processor_group"}
    frame = 0
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(block, frame, state) if n_frames else None
        while ahead is not None:
            parameters, state, frame = ahead.result()
            ahead = thread.submit(block, frame, state) if frame < n_frames else None
            yield parameters


def as_piece(piece: Piece | Voice | music_pb2.NoteSequence | str | os.PathLike, instrument: Instrument) -> Piece:
    """A piece of whatever can be played: of several instruments in a file, the one that lies best in the range.

    Args:
        piece: A piece, a voice, a `NoteSequence`, or the path of a MIDI file.
        instrument: What will play it.

    Returns:
        The piece.

    Raises:
        DataError: The file cannot be used.
    """
    if isinstance(piece, Piece):
        return piece
    if isinstance(piece, Voice):
        return Piece((piece,))
    return best_part(read_parts(piece), *instrument.pitch_range).piece


def score_of(instrument: Instrument, piece: Piece, styles: Mapping[str, float]) -> Score:
    """A piece as it is played: with styles that hold throughout.

    Args:
        instrument: What plays.
        piece: What is played.
        styles: Style name → control change value (0 to 127).

    Returns:
        Its rows, by block.

    Raises:
        DataError: The instrument has no such style, or a value is out of its range.
    """
    voices = with_styles(instrument, piece, styles).voices
    return Score([{name: getattr(voice, name) for name in COLUMNS} for voice in voices], instrument.frame_rate)


def with_styles(instrument: Instrument, piece: Piece, styles: Mapping[str, float]) -> Piece:
    """A piece with styles that hold throughout, whatever its control changes were.

    Args:
        instrument: What will play it.
        piece: What is to be played.
        styles: Style name → control change value (0 to 127).

    Returns:
        The piece.

    Raises:
        DataError: The instrument has no such style, or a value is out of its range.
    """
    for style, value in styles.items():
        if style not in instrument.styles:
            known = ", ".join(instrument.styles) or "none"
            raise DataError(f"'{style}' is not a style of this instrument; it has {known}.")
        if not 0 <= value <= 127:
            raise DataError(f"{style}={value}: a style's value is 0 to 127.")
    fixed = np.array([(0.0, instrument.styles[style], value) for style, value in styles.items()]).reshape([-1, 3])
    voices = []
    for voice in piece.voices:
        free = ~np.isin(voice.control_changes[:, 1], fixed[:, 1])
        control_changes = np.concatenate([fixed, voice.control_changes[free]])
        voices.append(Voice(voice.notes, control_changes, voice.pitch_bends))
    return Piece(tuple(voices))


def block_functions(instrument: Instrument) -> Sequence[Callable[..., Any]]:
    """The graphs that play a block of any length and any number of voices, traced once for an instrument.

    Args:
        instrument: What plays.

    Returns:
        The decoder's: from rows of `Score`, int64 `[first frame, number of frames]` and a state to what the processor
        group takes and the next state. And the group's: from that, the number of voices and its state to audio
        `[1, n_samples]`, `latency` samples behind, and its next state.
    """

    def decode(rows: dict[str, tf.Tensor], place: tf.Tensor, state: State) -> tuple[dict[str, tf.Tensor], State]:
        return instrument.decode(instrument.controls(**rows, n_frames=place[1], first_frame=place[0]), state)

    def synthesize(parameters: dict[str, tf.Tensor], voices: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
        outputs, state = instrument.processor_group.step(parameters, state, voices)
        return instrument.level * outputs["out"]["signal"], state

    def trace() -> Sequence[tf.types.experimental.ConcreteFunction]:
        specs = state_specs(instrument)
        of_group = specs.pop("processor_group")
        rows = {name: tf.TensorSpec([None, None, n], tf.float64) for name, n in COLUMNS.items()}
        sizes = {**dict(instrument.decoder.outputs), **dict.fromkeys(instrument.processor_group.given, 1)}
        parameters = {name: tf.TensorSpec([None, None, size], tf.float32) for name, size in sizes.items()}
        return (
            tf.function(decode, autograph=False).get_concrete_function(rows, tf.TensorSpec([2], tf.int64), specs),
            tf.function(synthesize, autograph=False).get_concrete_function(
                parameters, tf.TensorSpec([], tf.int32), of_group
            ),
        )

    return instrument.traced("block", trace)


def state_specs(instrument: Instrument) -> State:
    """The specs of a state of any number of pieces and voices."""
    return tf.nest.map_structure(
        lambda value: tf.TensorSpec([None, *value.shape[1:]], value.dtype), instrument.initial_state(1)
    )
