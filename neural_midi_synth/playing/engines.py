"""What computes the blocks of a stream: TensorFlow's graph of an instrument, or its LiteRT model.

A graph plays any instrument, events or control frames. A model must be made first, which takes seconds, and plays
events, of instruments whose processors LiteRT knows. It takes half the time then, and hardly ever much more than that,
since nothing is handed from thread to thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Protocol

import numpy as np
import tensorflow as tf

from neural_midi_synth.environment import silent_stderr
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.controls import COLUMNS, PADDING, VELOCITY, frame_of, padded
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.recurrent import Packing, State
from neural_midi_synth.playing.extra import import_extra

Rows = Mapping[str, Sequence[Sequence[float]]]
"""What matters to a block of a voice's events: rows by name, of as many columns as `COLUMNS` says, by time."""

_MOST_COLUMNS = max(COLUMNS.values())


class Engine(Protocol):
    """Plays block after block and keeps the state between them."""

    def begin(self, first_sample: int) -> None:
        """Silence, and nothing played before.

        Args:
            first_sample: Index of the next sample, on which the noise depends.
        """

    def play(self, voices: Sequence[Rows], first_frame: int) -> np.ndarray:
        """Plays events.

        Args:
            voices: Rows of each voice. One that has no note is silent.
            first_frame: Of the block; frames count from where times do.

        Returns:
            Audio float32 `[block_samples]`.
        """

    def play_frames(self, control_frames: Mapping[str, np.ndarray]) -> np.ndarray:
        """Plays control frames.

        Args:
            control_frames: As for `Stream.block`.

        Returns:
            Audio float32 `[block_samples]`.

        Raises:
            DataError: A channel is missing, or has not as many frames; or the engine takes none.
        """


class GraphEngine:
    """Plays by TensorFlow."""

    def __init__(self, instrument: Instrument, block_frames: int, voices: int) -> None:
        """Traces the graphs, unless the instrument has them from an engine like this one.

        Args:
            instrument: What plays.
            block_frames: Control frames of a block.
            voices: How many there are.
        """
        self._instrument, self._block_frames, self._voices = instrument, block_frames, voices
        self._packing = Packing(instrument.initial_state(1, voices))
        self._play_events, self._step = instrument.traced(("stream", block_frames, voices), self._trace)
        self.begin(first_sample=0)

    def begin(self, first_sample: int) -> None:
        """As `Engine.begin`."""
        self._state = self._packing.pack(self._instrument.initial_state(1, self._voices, first_sample))

    def play(self, voices: Sequence[Rows], first_frame: int) -> np.ndarray:
        """As `Engine.play`."""
        events = _packed_events(voices, first_frame)
        return self._heard(self._play_events(tf.constant(events), self._state))

    def play_frames(self, control_frames: Mapping[str, np.ndarray]) -> np.ndarray:
        """As `Engine.play_frames`."""
        return self._heard(self._step(self._checked(control_frames), self._state))

    def _heard(self, played: list[tf.Tensor]) -> np.ndarray:
        """Keeps the state; returns the sound."""
        signal, *self._state = played
        return signal.numpy()

    def _checked(self, control_frames: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        """Control frames for every voice; those of one voice leave the others silent."""
        frames, one, all_voices = {}, self._block_frames, self._voices * self._block_frames
        is_for_all = False
        for channel in self._instrument.controls.channels:
            if channel not in control_frames:
                raise DataError(f"Control frames: channel '{channel}' is missing.")
            values = np.asarray(control_frames[channel], np.float32)
            if values.size not in (one, all_voices):
                raise DataError(f"Control frames: '{channel}' has {values.size} values, not {one}.")
            is_for_all |= values.size != one
            frames[channel] = np.broadcast_to(values.reshape([-1, one, 1]), [self._voices, one, 1])
        if not is_for_all:
            frames[VELOCITY] = np.pad(frames[VELOCITY][:1], [[0, self._voices - 1], [0, 0], [0, 0]])
        return {channel: tf.constant(values) for channel, values in frames.items()}

    def _trace(self) -> Sequence[tf.types.experimental.ConcreteFunction]:
        """The graphs from rows to sound, in one go, since each call costs time, and from control frames to sound."""
        instrument, block_frames, voices, packing = self._instrument, self._block_frames, self._voices, self._packing

        def step(frames: dict[str, tf.Tensor], packed: list[tf.Tensor]) -> list[tf.Tensor]:
            outputs, state = instrument.step(frames, packing.unpack(packed), voices)
            return [instrument.level * outputs["out"]["signal"][0], *packing.pack(state)]

        def play_events(events: tf.Tensor, packed: list[tf.Tensor]) -> list[tf.Tensor]:
            rows, first_frame = _unpacked_events(events)
            return step(instrument.controls(**rows, n_frames=block_frames, first_frame=first_frame), packed)

        events = tf.TensorSpec([voices, None, _MOST_COLUMNS], tf.float64)
        channels = instrument.controls.channels
        frames = {channel: tf.TensorSpec([voices, block_frames, 1], tf.float32) for channel in channels}
        return (
            tf.function(play_events, autograph=False).get_concrete_function(events, packing.specs),
            tf.function(step, autograph=False).get_concrete_function(frames, packing.specs),
        )


class LiteRTEngine:
    """Plays by LiteRT, in the thread that asks and in no other."""

    def __init__(self, instrument: Instrument, block_frames: int, voices: int, model: bytes) -> None:
        """Readies a model.

        Args:
            instrument: Of which it was made.
            block_frames: Control frames of a block.
            voices: How many there are.
            model: What `exporting.litert.convert` made.

        Raises:
            DataError: LiteRT is not installed; with the command that mends it.
            ValueError: The model is for other blocks or voices.
        """
        self._frame_rate, self._hop = instrument.frame_rate, instrument.hop
        interpreter = import_litert().Interpreter(model_content=model, num_threads=1)
        self._runner = interpreter.get_signature_runner()
        inputs = {name: (of["shape"], of["dtype"]) for name, of in self._runner.get_input_details().items()}
        self._room = {name: [int(size) for size in inputs.pop(name)[0]] for name in COLUMNS}
        self._silence = {name: np.zeros(shape, dtype) for name, (shape, dtype) in inputs.items()}
        if self._room["notes"][:2] != [voices, block_frames + 2]:
            made_for, n_rows, _ = self._room["notes"]
            raise ValueError(
                f"Stream: the model is for {made_for} voices and blocks of {n_rows - 2} frames, not for {voices} and "
                f"{block_frames}."
            )
        # The model counts from what it begins with; what is counted are samples and frames, the whole numbers.
        first, second = (_whole_numbers(instrument.initial_state(1, voices, at)) for at in (0, instrument.hop))
        self._counted = second - first
        self.begin(first_sample=0)
        with silent_stderr():  # It says how it will compute when it does for the first time.
            self.play([dict.fromkeys(COLUMNS, ())] * voices, first_frame=0)
        self.begin(first_sample=0)

    def begin(self, first_sample: int) -> None:
        """As `Engine.begin`, at the begin of a frame."""
        counted = first_sample // self._hop * self._counted
        self._state = {
            name: counted.astype(zeros.dtype) if np.issubdtype(zeros.dtype, np.integer) else zeros
            for name, zeros in self._silence.items()
        }

    def play(self, voices: Sequence[Rows], first_frame: int) -> np.ndarray:
        """As `Engine.play`."""
        filled = {name: self._filled(name, voices, first_frame) for name in COLUMNS}
        self._state = self._runner(**filled, **self._state)
        return self._state.pop("audio")[0]

    def play_frames(self, control_frames: Mapping[str, np.ndarray]) -> np.ndarray:
        """Raises DataError: a model makes the control frames itself."""
        raise DataError("Control frames are not for streams with a LiteRT model. Make a Stream without one.")

    def _filled(self, name: str, voices: Sequence[Rows], first_frame: int) -> np.ndarray:
        """Rows of one kind as the model takes them: times from the block's begin, and as many as it has room for."""
        filled = np.full(self._room[name], PADDING, np.float32)
        n_times = 2 if name == "notes" else 1
        for rows, room in zip((voice[name] for voice in voices), filled):
            if len(rows) > len(room):
                # In a frame the last of its kind counts.
                kinds = [row[1] if name == "control_changes" else 0 for row in rows]
                last = {(kind, frame_of(row[0], self._frame_rate)): row for kind, row in zip(kinds, rows)}
                rows = list(last.values())[-len(room) :]
            if rows:
                values = np.array(rows)
                values[:, :n_times] -= first_frame / self._frame_rate
                room[: len(values)] = values
        return filled


def _whole_numbers(state: State) -> np.ndarray:
    """Those of a state, in the order in which a model has them."""
    packing = Packing(state)
    (packed,) = (each for each in packing.pack(state) if each.dtype.is_integer)
    return packed.numpy()


def import_litert() -> ModuleType:
    """LiteRT's interpreter.

    Raises:
        DataError: It is not installed; with the command that mends it.
    """
    return import_extra("ai_edge_litert.interpreter", "ai-edge-litert")


def _packed_events(voices: Sequence[Rows], first_frame: int) -> np.ndarray:
    """All that a graph has to know of a block's events as one array, since to hand over each takes time.

    Args:
        voices: Rows of each voice.
        first_frame: Of the block.

    Returns:
        Float64 `[voices, 1 + n, 4]`: what `_unpacked_events` takes apart again.
    """
    of_kinds = list(padded(voices).values())
    n_notes, n_changes, _ = (rows.shape[1] for rows in of_kinds)
    head = np.tile(np.array([n_notes, n_changes, first_frame, 0], np.float64), [len(voices), 1, 1])
    wide = [np.zeros([*rows.shape[:2], _MOST_COLUMNS]) for rows in of_kinds]
    for rows, room in zip(of_kinds, wide):
        room[..., : rows.shape[2]] = rows
    return np.concatenate([head, *wide], axis=1)


def _unpacked_events(packed: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Rows by name as `Controls` takes them, and the first frame, int64."""
    head, events = packed[0, 0], packed[:, 1:]
    parts = tf.split(events, tf.concat([tf.cast(head[:2], tf.int32), [-1]], axis=0), axis=1, num=len(COLUMNS))
    rows = {name: part[..., :columns] for (name, columns), part in zip(COLUMNS.items(), parts)}
    return rows, tf.cast(head[2], tf.int64)
