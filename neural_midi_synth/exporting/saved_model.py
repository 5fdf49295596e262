"""The instrument as a SavedModel: four signatures, batched and of any length, that need nothing but TensorFlow.

`facts.describe` tells what each of them takes and gives. Whatever a client sends, it gets audio without NaN, or an
error of one sentence (`InvalidArgumentError`):

- Notes that overlap play as voices, up to `MAX_VOICES` at once, which all have the request's control changes and bends.
- Rows of notes, control changes and bends need no order. Rows whose time is `controls.PADDING` or below, rows with
  values that are not finite, and notes that do not last are ignored. Pitch, velocity and control changes are clipped to
  their ranges.
- Times are float32: beyond a quarter of an hour an event may come a frame late.
- Control frames that are not finite are an error; others are clipped to the range of their channel.
- A state that is not finite, that no instrument could be in, or of another batch than the frames is an error.
- A request for more than `MAX_SECONDS` in all its rows is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from neural_midi_synth.exporting.allocation import divide
from neural_midi_synth.exporting.channels import channel_facts
from neural_midi_synth.instrument.controls import COLUMNS
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.processors import VOICE_OFFSET
from neural_midi_synth.instrument.recurrent import State, flat_state, nested_state

Signature = Callable[..., dict[str, tf.Tensor]]

MAX_SECONDS = {"serving_default": 3600, "control_frames": 3600, "stream": 60}
"""Signature → the longest audio of one request, all rows of the batch together."""

MAX_STREAMS = 1024
"""The most streams that one request can begin."""

MAX_VOICES = 32
"""The most notes of `serving_default` that last at once; where there are more, the one that began earliest ends."""

_BLOCK_SECONDS = 4  # Of all rows together: memory does not grow with the length.
_HIGHEST = 1.0e6  # Greater values are refused in a state: none comes near, and sums of them stay in float32's range.


class Signatures:
    """The graphs of an instrument, by signature.

    They call `instrument.controls` and `instrument.step`, as rendering and streaming do.

    Attributes:
        instrument: What plays.
        state_specs: The state's tensors by name.
    """

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self._channels = channel_facts(instrument)
        self._latency_frames = instrument.latency // instrument.hop
        self._stride = instrument.decoder.stride
        self._specs = {
            name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name)
            for name, value in flat_state(instrument.initial_state(1))
        }
        # A JSON client hands back a tensor without elements as `[]`, from which the server cannot tell its shape: it
        # would refuse the request. So tensors that are always empty are neither inputs nor outputs, such as `f0_hz`,
        # which holds the pitches of as many frames as the decoder is late, where it is not late at all.
        self.state_specs = {name: spec for name, spec in self._specs.items() if 0 not in spec.shape[1:]}

    def functions(self) -> dict[str, Signature]:
        """The signatures as concrete functions, by name."""
        floats, ints = tf.float32, tf.int32
        rows = {name: tf.TensorSpec([None, None, n], floats, name) for name, n in COLUMNS.items()}
        frames = {name: tf.TensorSpec([None, None, 1], floats, name) for name in self._channels}
        specs = {
            "serving_default": (self.play_notes, {**rows, "n_samples": tf.TensorSpec([None], ints, "n_samples")}),
            "control_frames": (self.play_control_frames, frames),
            "initial_state": (self.begin_streams, {"batch": tf.TensorSpec([None], ints, "batch")}),
            "stream": (self.play_block, {**frames, **self.state_specs}),
        }
        return {name: _signature(graph, spec) for name, (graph, spec) in specs.items()}

    def play_notes(
        self, notes: tf.Tensor, control_changes: tf.Tensor, pitch_bends: tf.Tensor, n_samples: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """`serving_default`: clips from notes, on as many voices as overlap.

        Args:
            notes: `[batch, n, 4]`: start s, end s, MIDI pitch, velocity (0 to 127).
            control_changes: `[batch, m, 3]`: time s, controller number, value (0 to 127).
            pitch_bends: `[batch, k, 2]`: time s, semitones.
            n_samples: int32 `[batch]`, or `[1]` for all rows: length of the clips.

        Returns:
            `audio` `[batch, max(n_samples)]`; a row shorter than the longest ends with zeros.

        Raises:
            InvalidArgumentError: Batches that differ or are empty, a length below 0, or more than an hour in all.
        """
        rows = {"notes": notes, "control_changes": control_changes, "pitch_bends": pitch_bends}
        batch = tf.shape(notes)[0]
        checks = [
            *_same([tf.shape(each)[:1] for each in rows.values()], "notes, control_changes and pitch_bends differ in"),
            _demand(batch > 0, "notes: the batch is empty."),
        ]
        given = tf.shape(n_samples)[0]
        checks.append(_demand((given == batch) | (given == 1), "n_samples: give one number for each row of notes."))
        checks.append(_demand(tf.reduce_all(n_samples >= 0), "n_samples: is below 0."))
        checks.append(self._check_length("serving_default", batch, tf.reduce_max(tf.concat([n_samples, [0]], axis=0))))
        with tf.control_dependencies(checks):
            rows = {name: tf.identity(each) for name, each in rows.items()}
            batch = tf.identity(batch)
            n_samples = tf.broadcast_to(n_samples, [batch])
        notes, voices = divide(rows["notes"], MAX_VOICES)
        rows = {name: tf.repeat(each, voices, axis=0) for name, each in rows.items()}
        rows["notes"] = tf.reshape(notes, [batch * voices, -1, COLUMNS["notes"]])

        def control_frames(first_frame: tf.Tensor, n_frames: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.instrument.controls(**rows, n_frames=n_frames, first_frame=first_frame)

        longest = tf.reduce_max(n_samples)
        audio = self._play(control_frames, batch, longest, voices)
        return {"audio": tf.where(tf.sequence_mask(n_samples, longest), audio, 0.0)}

    def play_control_frames(self, **frames: tf.Tensor) -> dict[str, tf.Tensor]:
        """`control_frames`: clips from curves that the client draws.

        Args:
            frames: Channel name → `[batch, n_frames, 1]`, in the channel's unit.

        Returns:
            `audio` `[batch, n_frames * hop]`; frame `i` stands for sample `i * hop`, and the last one is held.

        Raises:
            InvalidArgumentError: Shapes that differ, no frames, values that are not finite, or an hour exceeded.
        """
        batch, n_frames, checks = self._check_frames(frames)
        checks.append(self._check_length("control_frames", batch, n_frames, self.instrument.hop))
        with tf.control_dependencies(checks):
            batch, n_frames = tf.identity(batch), tf.identity(n_frames)
            frames = self._clipped(frames)

        def control_frames(first_frame: tf.Tensor, n_block: tf.Tensor) -> dict[str, tf.Tensor]:
            wanted = tf.minimum(tf.cast(first_frame, tf.int32) + tf.range(n_block), n_frames - 1)
            return {name: tf.gather(values, wanted, axis=1) for name, values in frames.items()}

        return {"audio": self._play(control_frames, batch, n_frames * self.instrument.hop)}

    def begin_streams(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        """`initial_state`: what streams start from.

        A client plays a chord as one stream for each voice and adds up what they play. So the streams of one number
        have noise as different as that of the voices of a piece.

        Args:
            batch: int32 `[n]`: the number of streams; their sum where there are several numbers, so that a server may
                join requests: each request gets what it would get by itself.

        Returns:
            The state's tensors by name, each `[batch, …]`.

        Raises:
            InvalidArgumentError: Less than 1 stream, or more than `MAX_STREAMS`.
        """
        streams = tf.reduce_sum(tf.cast(batch, tf.int64))
        fits = tf.reduce_all(batch >= 1) & (streams >= 1) & (streams <= MAX_STREAMS)
        with tf.control_dependencies([_demand(fits, f"batch: give 1 to {MAX_STREAMS} streams.")]):
            batch = tf.identity(batch)
        first_samples = tf.cast(tf.ragged.range(batch).flat_values, tf.int64) * VOICE_OFFSET % 2**32
        state = self.instrument.initial_state(tf.size(first_samples), first_sample=first_samples)
        states = dict(flat_state(state))
        return {name: states[name] for name in self.state_specs}

    def play_block(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """`stream`: the next block of streams.

        Args:
            inputs: Channel name → `[batch, n_frames, 1]`, where `n_frames` is a multiple of the decoder's stride; and
                the state's tensors by name, as `initial_state` or the block before gave them.

        Returns:
            `audio` `[batch, n_frames * hop]`, `latency` samples behind the frames, and the next state's tensors.

        Raises:
            InvalidArgumentError: Shapes that differ, a number of frames that is no multiple of the stride, values that
                are not finite, a state that no instrument could be in, or more than a minute in all.
        """
        states = {name: inputs[name] for name in self.state_specs}
        frames = {name: inputs[name] for name in self._channels}
        batch, n_frames, checks = self._check_frames(frames)
        checks.append(self._check_length("stream", batch, n_frames, self.instrument.hop))
        if self._stride > 1:
            message = f"Control frames: give a multiple of {self._stride} frames."
            checks.append(_demand(n_frames % self._stride == 0, message))
        batches = tf.stack([tf.shape(value)[0] for value in states.values()])
        checks.append(_demand(tf.reduce_all(batches == batch), "The state's batch is not that of the control frames."))
        for name, value in states.items():
            if value.dtype.is_floating:
                possible = tf.reduce_all(tf.abs(value) <= _HIGHEST)
                checks.append(_demand(possible, f"{name}: is no state that this instrument gave."))
        with tf.control_dependencies(checks):
            frames = self._clipped(frames)
            states = {name: tf.identity(value) for name, value in states.items()}
        for name, spec in self._specs.items():
            if name not in states:
                states[name] = tf.zeros([batch, *spec.shape[1:]], spec.dtype)
        state = nested_state(self.instrument.initial_state(1), states)
        outputs, state = self.instrument.step(frames, state)
        states = dict(flat_state(state))
        audio = self.instrument.level * outputs["out"]["signal"]
        return {"audio": audio, **{name: states[name] for name in self.state_specs}}

    def _play(
        self,
        control_frames: Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]],
        batch: tf.Tensor,
        n_samples: tf.Tensor,
        voices: int | tf.Tensor = 1,
    ) -> tf.Tensor:
        """Plays clips block by block, so that of all that is in memory only the audio grows with their length.

        Args:
            control_frames: From the first frame, int64, and the number of frames to those of a block.
            batch: Number of clips.
            n_samples: Their length.
            voices: Voices of each clip.

        Returns:
            Audio `[batch, n_samples]`.
        """
        n_frames = -(-n_samples // self.instrument.hop) + self._latency_frames
        most = tf.maximum(_BLOCK_SECONDS * self.instrument.frame_rate // (batch * voices), 1)
        n_block = -(-tf.minimum(n_frames, most) // self._stride) * self._stride
        n_blocks = -(-n_frames // n_block)
        initial = self.instrument.initial_state(batch, voices)
        specs = nested_state(initial, self._specs)

        def block(index: tf.Tensor, state: State, signals: tf.TensorArray) -> tuple[tf.Tensor, State, tf.TensorArray]:
            first_frame = tf.cast(index, tf.int64) * tf.cast(n_block, tf.int64)
            outputs, state = self.instrument.step(control_frames(first_frame, n_block), state, voices)
            state = tf.nest.map_structure(lambda value, spec: tf.ensure_shape(value, spec.shape), state, specs)
            return index + 1, state, signals.write(index, outputs["out"]["signal"])

        signals = tf.TensorArray(tf.float32, n_blocks, element_shape=[None, None])
        *_, signals = tf.while_loop(
            lambda index, *_: index < n_blocks,
            block,
            (0, initial, signals),
            shape_invariants=(tf.TensorShape([]), tf.nest.map_structure(lambda spec: spec.shape, specs), None),
            parallel_iterations=1,
        )
        audio = tf.reshape(tf.transpose(signals.stack(), [1, 0, 2]), [batch, -1])
        begin = self.instrument.latency
        return self.instrument.level * audio[:, begin : begin + n_samples]

    def _check_frames(self, frames: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, list[tf.Operation]]:
        """Batch, number of frames, and the checks of control frames."""
        shapes = [tf.shape(values)[:2] for values in frames.values()]
        checks = _same(shapes, "The channels of the control frames differ in")
        with tf.control_dependencies(checks):
            finite = tf.reduce_all(tf.math.is_finite(tf.concat(list(frames.values()), axis=-1)))
        batch, n_frames = shapes[0][0], shapes[0][1]
        checks.append(_demand((batch > 0) & (n_frames > 0), "Control frames: there are none."))
        checks.append(_demand(finite, "Control frames: a value is not finite."))
        return batch, n_frames, checks

    def _check_length(self, signature: str, batch: tf.Tensor, n: tf.Tensor, samples_each: int = 1) -> tf.Operation:
        wanted = tf.cast(batch, tf.int64) * tf.cast(n, tf.int64) * samples_each
        seconds = MAX_SECONDS[signature]
        message = f"This is longer than {seconds} s, all rows together: ask for less at a time."
        return _demand(wanted <= seconds * self.instrument.sample_rate, message)

    def _clipped(self, frames: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            name: tf.clip_by_value(frames[name], channel.minimum, channel.maximum)
            for name, channel in self._channels.items()
        }


def save(instrument: Instrument, folder: str | os.PathLike) -> None:
    """Writes the SavedModel.

    Args:
        instrument: A trained instrument.
        folder: To be made.
    """
    # A plain module with the weights, since Keras would save much more with a model that only this package can use.
    module = tf.Module()
    module.weights = list(instrument.variables)
    tf.saved_model.save(module, os.fspath(folder), Signatures(instrument).functions())


def _signature(graph: Callable[..., dict[str, tf.Tensor]], specs: Mapping[str, tf.TensorSpec]) -> Signature:
    """A concrete function that checks the shapes itself, since not all that load a SavedModel do."""

    def signature(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph(**{name: tf.ensure_shape(value, specs[name].shape) for name, value in inputs.items()})

    return tf.function(signature, autograph=False).get_concrete_function(**specs)


def _demand(condition: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(condition, [message])


def _same(shapes: Sequence[tf.Tensor], what: str) -> list[tf.Operation]:
    """Checks that shapes are one."""
    shapes = tf.stack(shapes)
    return [_demand(tf.reduce_all(shapes == shapes[0]), f"{what} their shapes.")]
