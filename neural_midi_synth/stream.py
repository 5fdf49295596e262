"""Plays an instrument block by block: live, from events as they come, or a whole file.

A stream counts control frames from 0. Events take effect at a frame, and what they do is heard `latency` samples after
it. The control frames are those of `instrument.controls`, the featurizer that training and rendering use: a stream
hands it the few events that still matter, so memory and time of a block do not grow.

Example:
    ```python
    stream = Stream(nms.load("my_guitar"), block_frames=4)
    stream.note_on(40, 100)
    audio = stream.block()  # 4 frames later the note has begun.
    stream.note_off(40)
    ```
"""

from __future__ import annotations

import bisect
import collections
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from neural_midi_synth.controls import COLUMNS, batch_of_one, in_force
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import TAIL_SECONDS, Instrument
from neural_midi_synth.notes import Voice, read_midi

_NOT_YET = 1.0e9  # s: when a note ends that still sounds
_SUSTAIN_PEDAL, _PEDAL_DOWN = 64, 64  # The controller, and from which value on it holds notes.


class Stream:
    """One voice of an instrument, played in blocks of one size.

    Events wait until their frame has come. They may be given in any order, and from another thread than the one that
    pulls blocks; those for one frame happen in the order they were given, and those for a frame that has already been
    played happen at once, at the next block's first frame.

    Attributes:
        instrument: What is played.
        block_frames: Control frames of a block.
        block_samples: Samples of a block.
        sample_rate: Samples a second.
        hop: Samples a frame. A host that counts samples finds the frame of an event by `round(sample / hop)`.
        latency: Samples from the frame of an event to where it begins to be heard.
        frame: The frame that the next block begins with.
    """

    def __init__(self, instrument: Instrument, block_frames: int) -> None:
        """Readies an instrument for playing; the first block is not slower than the others.

        Args:
            instrument: A trained instrument. It may be shared by several streams.
            block_frames: Control frames of a block, a multiple of the decoder's stride.

        Raises:
            ValueError: `block_frames` is not a multiple of the stride from 1.
        """
        stride = instrument.decoder.stride
        if block_frames != int(block_frames) or block_frames < 1 or block_frames % stride:
            raise ValueError(f"Stream: block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
        self.instrument = instrument
        self.block_frames = int(block_frames)
        self.sample_rate = instrument.sample_rate
        self.hop = instrument.hop
        self.block_samples = self.block_frames * self.hop
        self.latency = instrument.latency
        channels = instrument.controls.channels
        self._numbers = frozenset(int(channel[3:]) for channel in channels if channel.startswith("cc_"))
        initial = instrument.initial_state(1)
        rows = {name: tf.TensorSpec([1, None, columns], tf.float64) for name, columns in COLUMNS.items()}
        frames = {channel: tf.TensorSpec([1, self.block_frames, 1], tf.float32) for channel in channels}
        state = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), initial)
        # Traced once, here; concrete functions cannot be traced again, and are called in half a millisecond less.
        first_frame = tf.TensorSpec([], tf.int64)
        self._features = tf.function(self._control_frames).get_concrete_function(rows, first_frame)
        self._step = tf.function(self._signal).get_concrete_function(frames, state)
        self.reset()
        self.block()
        self.reset()

    def reset(self) -> None:
        """Begins anew at frame 0, as if nothing had ever been played."""
        self.frame = 0
        self._given: collections.deque[tuple[int, str, tuple[float, ...]]] = collections.deque()
        self._n_events = 0
        self._state = self.instrument.initial_state(1)
        self._silent = False
        self._pedal = False
        self._queue: list[tuple[int, int, str, tuple[float, ...]]] = []
        self._notes: list[_Note] = []
        self._held: dict[int | None, list[tuple[int, float]]] = {}  # By controller; None for pitch bend.

    def panic(self) -> None:
        """Silences everything at once, what rings included, until the next note begins.

        Notes that sound and events that wait are forgotten, and the pedal is up. Control changes and bends stay in
        force, and frames go on counting.
        """
        self._given.clear()
        self._queue, self._notes, self._pedal, self._silent = [], [], False, True

    def note_on(self, pitch: float, velocity: float, frame: int | None = None) -> None:
        """Begins a note; one that sounds ends.

        Args:
            pitch: MIDI note number, 0 to 127.
            velocity: 1 to 127; 0 ends the note, as in MIDI.
            frame: When; unless given, with the next block.

        Raises:
            DataError: The instrument cannot be played live, or a value is out of its range.
        """
        if velocity == 0:
            self.note_off(pitch, frame)
        else:
            self._push("note_on", frame, pitch=(pitch, 127), velocity=(velocity, 127))

    def note_off(self, pitch: float, frame: int | None = None) -> None:
        """Ends a note, unless a newer one has ended it or the pedal (CC64) holds it. A note lasts a frame at least.

        Args:
            pitch: That it began with.
            frame: When; unless given, with the next block.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("note_off", frame, pitch=(pitch, 127))

    def control_change(self, number: int, value: float, frame: int | None = None) -> None:
        """Sets a controller.

        Args:
            number: Of the controller, 0 to 127; `instrument.styles` names those of styles.
            value: 0 to 127.
            frame: When; unless given, with the next block.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("control_change", frame, number=(number, 127), value=(value, 127))

    def pitch_bend(self, semitones: float, frame: int | None = None) -> None:
        """Bends the pitch.

        Args:
            semitones: Up; negative down.
            frame: When; unless given, with the next block.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("pitch_bend", frame, semitones=(semitones, None))

    def block(self, control_frames: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Plays the next block.

        Args:
            control_frames: Channel name → values of `block_frames` frames in the channel's unit, played in place of
                what the events say. Any instrument takes them.

        Returns:
            Audio float32 `[block_samples]`, `latency` samples behind.

        Raises:
            DataError: A channel is missing, or has not as many frames.
        """
        self._happen(self.frame + self.block_frames)
        if control_frames is not None:
            self._wake()
            frames = self._checked(control_frames)
        elif self._silent:
            self.frame += self.block_frames
            return np.zeros(self.block_samples, np.float32)
        else:
            frames = self._features(self._rows(), tf.constant(self.frame, tf.int64))
        return self._play(frames)

    def blocks(
        self, voice: Voice | str | os.PathLike, styles: Mapping[str, float] | None = None, n_samples: int | None = None
    ) -> Iterator[np.ndarray]:
        """Plays a voice from its beginning, in blocks; the stream is reset first. Any instrument does that.

        Args:
            voice: A voice or the path of a MIDI file.
            styles: Style name → control change value (0 to 127) that holds throughout, whatever the file says.
            n_samples: Length of the whole; unless given, to the end of the last note and a second more.

        Yields:
            Audio float32 `[block_samples]`, the last one shorter: together what `instrument.render` plays. The latency
            is made up for.

        Raises:
            DataError: The file cannot be used, or the instrument has no such style.
        """
        voice = voice if isinstance(voice, Voice) else read_midi(voice)
        left = round((voice.duration + TAIL_SECONDS) * self.sample_rate) if n_samples is None else n_samples
        score = self.instrument.score(voice, styles or {})
        self.reset()
        skip, waiting = self.latency, np.zeros(0, np.float32)
        while left > 0:
            rows = score.rows(self.frame, self.frame + self.block_frames)
            signal = self._play(self._features(rows, tf.constant(self.frame, tf.int64)))
            waiting = np.concatenate([waiting, signal[skip:]])
            skip = max(skip - len(signal), 0)
            if len(waiting) >= min(self.block_samples, left):
                yield waiting[: min(self.block_samples, left)]
                left -= self.block_samples
                waiting = waiting[self.block_samples :]

    def _push(self, what: str, frame: int | None, **values: tuple[float, float | None]) -> None:
        needs_future = self.instrument.controls.needs_future
        if needs_future:
            raise DataError(
                f"This instrument cannot be played live: its channel '{needs_future[0]}' must know when a note will "
                "end. Play files with it, or train one with models/guitar_live.gin."
            )
        for name, (value, highest) in values.items():
            if not math.isfinite(value) or (highest is not None and not 0 <= value <= highest):
                raise DataError(f"{what}: {name}={value} is not " + ("0 to 127." if highest else "a number."))
        if frame is not None and frame != int(frame):
            raise DataError(f"{what}: frame={frame} is not a whole number.")
        frame = self.frame if frame is None else int(frame)
        self._given.append((frame, what, tuple(value for value, _ in values.values())))

    def _happen(self, end_frame: int) -> None:
        """Takes the events before `end_frame` off the queue, and forgets those that cannot matter from `frame` on."""
        while self._given:
            frame, what, values = self._given.popleft()
            bisect.insort(self._queue, (max(frame, self.frame), self._n_events, what, values))
            self._n_events += 1
        n_due = bisect.bisect_left(self._queue, (end_frame,))
        due, self._queue = self._queue[:n_due], self._queue[n_due:]
        self._notes = self._notes[in_force([note.onset for note in self._notes], self.frame) :]
        for number, events in self._held.items():
            self._held[number] = events[in_force([frame for frame, _ in events], self.frame) :]
        for frame, _, what, values in due:
            if what == "note_on":
                self._notes.append(_Note(frame, *values))
                self._wake()
            elif what == "note_off":
                self._let_go(frame, *values)
            elif what == "pitch_bend":
                self._held.setdefault(None, []).append((frame, *values))
            else:
                self._change(frame, *values)

    def _let_go(self, frame: int, pitch: float) -> None:
        # Where a note ends and the same begins in one frame, the note that ends is the older one.
        down = [note for note in self._notes if note.pitch == pitch and note.key_down]
        for note in [note for note in down if note.onset < frame] or down:
            note.key_down = False
            if not self._pedal:
                note.end(frame)

    def _change(self, frame: int, number: int, value: float) -> None:
        if number in self._numbers:
            self._held.setdefault(int(number), []).append((frame, value))
        if number == _SUSTAIN_PEDAL:
            self._pedal = value >= _PEDAL_DOWN
            for note in self._notes:
                if not self._pedal and not note.key_down:
                    note.end(frame)

    def _wake(self) -> None:
        """Goes on after panic, as after a reset but in time."""
        if self._silent:
            self._silent = False
            self._state = self.instrument.initial_state(1)
            for state in self._state["processor_group"].values():
                if "sample" in state:
                    state["sample"] += self.frame * self.hop

    def _rows(self) -> dict[str, tf.Tensor]:
        """What `Controls` has to know of the events; float64 times that it rounds to the very frames."""
        rate = self.instrument.frame_rate
        notes = [
            (note.onset / rate, _NOT_YET if note.offset is None else note.offset / rate, note.pitch, note.velocity)
            for note in self._notes
        ]
        held = {number: events for number, events in self._held.items() if number is not None}
        changes = [(frame / rate, number, value) for number, events in held.items() for frame, value in events]
        bends = [(frame / rate, semitones) for frame, semitones in self._held.get(None, [])]
        return batch_of_one({"notes": notes, "control_changes": changes, "pitch_bends": bends})

    def _checked(self, control_frames: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
        frames = {}
        for channel in self.instrument.controls.channels:
            if channel not in control_frames:
                raise DataError(f"Control frames: channel '{channel}' is missing.")
            values = np.asarray(control_frames[channel], np.float32)
            if values.size != self.block_frames:
                raise DataError(f"Control frames: '{channel}' has {values.size} values, not {self.block_frames}.")
            frames[channel] = tf.constant(values.reshape([1, -1, 1]))
        return frames

    def _play(self, frames: dict[str, tf.Tensor]) -> np.ndarray:
        signal, self._state = self._step(frames, self._state)
        self.frame += self.block_frames
        return signal.numpy()

    def _control_frames(self, rows: dict[str, tf.Tensor], first_frame: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.instrument.controls(**rows, n_frames=self.block_frames, first_frame=first_frame)

    def _signal(self, frames: dict[str, tf.Tensor], state: dict[str, Any]) -> tuple[tf.Tensor, dict[str, Any]]:
        outputs, state = self.instrument.step(frames, state)
        return self.instrument.level * outputs["out"]["signal"][0], state


class _Note:
    """A note that sounds, or is the last that did; `offset` is None until it is known."""

    def __init__(self, onset: int, pitch: float, velocity: float) -> None:
        self.onset, self.pitch, self.velocity = onset, pitch, velocity
        self.offset: int | None = None
        self.key_down = True

    def end(self, frame: int) -> None:
        if self.offset is None:
            self.offset = max(frame, self.onset + 1)
