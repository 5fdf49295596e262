"""Plays an instrument block by block, live, from events as they come.

A stream counts control frames from 0. Events take effect at a frame, and what they do is heard `latency` samples after
it. The control frames are those of `instrument.controls`, the featurizer that training and rendering use: a stream
hands it the few events that still matter, so memory and time of a block do not grow.

Example:
    ```python
    stream = Stream(nms.load("my_guitar"), block_frames=4)
    stream.note_on(40, 100)
    stream.note_on(47, 100)  # Another voice: both notes last.
    audio = stream.block()  # 4 frames later the notes have begun.
    stream.note_off(40)
    ```
"""

from __future__ import annotations

import bisect
import collections
import math
import os
import threading
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.rendering import render_blocks
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.playing.engines import Engine, GraphEngine, LiteRTEngine
from neural_midi_synth.playing.voices import Voices

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2


class Stream:
    """An instrument played in blocks of one size, on several voices.

    A note takes a voice that is free, or, where all are taken, the voice of the oldest note, first among those whose
    key is up and that the pedal holds. With one voice the newest note is heard, as on a monophonic synthesizer.

    Events wait until their frame has come. They may be given in any order, and from another thread than the one that
    pulls blocks; those for one frame happen in the order they were given, and those for a frame that has already been
    played happen at once, at the next block's first frame. They are read as those of a MIDI channel in a file are, by
    `midi.events.MidiChannel`. Where they come on several MIDI channels, each has notes, a pedal, controls and a bend of
    its own.

    Attributes:
        instrument: What is played.
        block_frames: Control frames of a block.
        block_samples: Samples of a block.
        voices: How many notes can last at once.
        sample_rate: Samples a second.
        hop: Samples a frame.
        latency: Samples from the frame of an event to where it begins to be heard.
        frame: The frame that the next block begins with.
    """

    def __init__(self, instrument: Instrument, block_frames: int, voices: int = 6, model: bytes | None = None) -> None:
        """Readies an instrument for playing; the first block is not slower than the others.

        Args:
            instrument: A trained instrument. It may be shared by several streams; those alike share its graphs too.
            block_frames: Control frames of a block, a multiple of the decoder's stride.
            voices: How many notes can last at once.
            model: What `exporting.litert.convert` makes of the instrument for such blocks and voices. LiteRT plays it
                in place of TensorFlow, in half the time and more evenly; it is the same to within 1e-3 of full scale.

        Raises:
            DataError: There is a model, and LiteRT is not installed.
            ValueError: `block_frames` is not a multiple of the stride from 1, `voices` no whole number from 1, or the
                model is for other ones.
        """
        stride = instrument.decoder.stride
        if block_frames != int(block_frames) or block_frames < 1 or block_frames % stride:
            raise ValueError(f"Stream: block_frames is {block_frames}; this instrument needs a multiple of {stride}.")
        if voices != int(voices) or voices < 1:
            raise ValueError(f"Stream: voices is {voices}; give a whole number from 1.")
        self.instrument = instrument
        self.block_frames = int(block_frames)
        self.voices = int(voices)
        self.sample_rate = instrument.sample_rate
        self.hop = instrument.hop
        self.block_samples = self.block_frames * self.hop
        self.latency = instrument.latency
        if model is None:
            self._engine: Engine = GraphEngine(instrument, self.block_frames, self.voices)
        else:
            self._engine = LiteRTEngine(instrument, self.block_frames, self.voices, model)
        self._lock = threading.RLock()
        self.reset()
        self.block()
        self.reset()

    def reset(self) -> None:
        """Begins anew at frame 0, as if nothing had ever been played. May be called from any thread."""
        with self._lock:
            self.frame = 0
            self._given: collections.deque[tuple[float, str, Hashable, tuple[float, ...]]] = collections.deque()
            self._n_events = 0
            self._queue: list[tuple[float, int, str, Hashable, tuple[float, ...]]] = []
            controls = self.instrument.controls
            defaults = {controls.styles[style]: value for style, value in controls.defaults.items()}
            numbers = [int(channel[3:]) for channel in controls.channels if channel.startswith("cc_")]
            self._voices = Voices(self.voices, {number: defaults.get(number, 0.0) for number in numbers})
            self._begin(first_sample=0)

    def panic(self) -> None:
        """Silences everything at once, what rings included, until the next note begins. May be called from any thread.

        Notes that last and events that wait are forgotten, and the pedal is up. Control changes and bends stay in
        force, and frames go on counting.
        """
        with self._lock:
            self._given.clear()
            self._queue = []
            self._voices.release(self.frame)
            self._begin(first_sample=0)
            self._silent = True

    @property
    def pitches(self) -> list[float | None]:
        """MIDI note number of the note that lasts on each voice, None where none does. From any thread."""
        return self._voices.pitches

    def frame_of(self, sample: float) -> float:
        """The frame of an event at a sample, counted from the stream's begin: the one that it has in a file.

        Args:
            sample: As a host counts them.

        Returns:
            What events take as `frame`, with its fraction: an instrument with the channel 'onset' begins a note at its
            sample, another at the nearest frame.
        """
        return sample / self.hop

    def note_on(self, pitch: float, velocity: float, frame: float | None = None, midi_channel: Hashable = None) -> None:
        """Begins a note.

        Args:
            pitch: MIDI note number, 0 to 127.
            velocity: 1 to 127; 0 ends the note, as in MIDI.
            frame: When; unless given, with the next block.
            midi_channel: Whose note it is, where there are several.

        Raises:
            DataError: The instrument cannot be played live, or a value is out of its range.
        """
        if velocity == 0:
            self.note_off(pitch, frame, midi_channel)
        else:
            self._push("note_on", frame, midi_channel, pitch=(pitch, 127), velocity=(velocity, 127))

    def note_off(self, pitch: float, frame: float | None = None, midi_channel: Hashable = None) -> None:
        """Ends the oldest note of a pitch whose key is down, unless the pedal (CC64) holds it.

        However soon it comes, a note lasts a frame.

        Args:
            pitch: That it began with.
            frame: When; unless given, with the next block.
            midi_channel: Whose note it is, as for `note_on`.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("note_off", frame, midi_channel, pitch=(pitch, 127))

    def control_change(
        self, number: int, value: float, frame: float | None = None, midi_channel: Hashable = None
    ) -> None:
        """Sets a controller.

        Args:
            number: Of the controller, 0 to 127; `instrument.styles` names those of styles.
            value: 0 to 127.
            frame: When; unless given, with the next block.
            midi_channel: Whose notes it is for; unless given, all.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("control_change", frame, midi_channel, number=(number, 127), value=(value, 127))

    def pitch_bend(self, semitones: float, frame: float | None = None, midi_channel: Hashable = None) -> None:
        """Bends the pitch.

        Args:
            semitones: Up; negative down.
            frame: When; unless given, with the next block.
            midi_channel: Whose notes it is for; unless given, all.

        Raises:
            DataError: As for `note_on`.
        """
        self._push("pitch_bend", frame, midi_channel, semitones=(semitones, None))

    def block(self, control_frames: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Plays the next block.

        Args:
            control_frames: Channel name → values of `block_frames` frames in the channel's unit, for the first voice,
                or for each, `[voices, block_frames]`. They are played in place of what the events say. Any instrument
                takes them, but no model of LiteRT.

        Returns:
            Audio float32 `[block_samples]`, `latency` samples behind.

        Raises:
            DataError: A channel is missing, or has not as many frames; or there is a model, and it takes none.
        """
        with self._lock:
            self._happen(self.frame + self.block_frames)
            if control_frames is not None:
                self._wake()
                signal = self._engine.play_frames(control_frames)
            elif self._silent:
                signal = np.zeros(self.block_samples, np.float32)
            else:
                signal = self._engine.play(self._voices.rows(self.instrument.frame_rate), self.frame)
            self.frame += self.block_frames
            return signal

    def blocks(
        self,
        piece: Piece | Voice | music_pb2.NoteSequence | str | os.PathLike,
        styles: Mapping[str, float] | None = None,
        n_samples: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Plays a piece from its beginning, in blocks; the stream is reset first. Any instrument does that.

        Args:
            piece: As for `Instrument.render`; all of its voices play, however many the stream has.
            styles: Style name → control change value (0 to 127) that holds throughout, whatever the file says.
            n_samples: Length of the whole; unless given, to the end of the last note and a second more.

        Yields:
            Audio float32 `[block_samples]`, the last one shorter: together what `instrument.render` plays. The latency
            is made up for.

        Raises:
            DataError: The file cannot be used, or the instrument has no such style.
        """
        self.reset()
        waiting = np.zeros(0, np.float32)
        for signal in render_blocks(self.instrument, piece, styles, None, n_samples, self.block_frames):
            waiting = np.concatenate([waiting, signal])
            while len(waiting) >= self.block_samples:
                yield waiting[: self.block_samples]
                waiting = waiting[self.block_samples :]
        if len(waiting):
            yield waiting

    def _push(
        self, what: str, frame: float | None, midi_channel: Hashable, **values: tuple[float, float | None]
    ) -> None:
        needs_future = self.instrument.controls.needs_future
        if needs_future:
            raise DataError(
                f"This instrument cannot be played live: its channel '{needs_future[0]}' must know when a note will "
                "end. Play files with it, or train one with models/guitar_live.gin."
            )
        for name, (value, highest) in values.items():
            if not math.isfinite(value) or (highest is not None and not 0 <= value <= highest):
                raise DataError(f"{what}: {name}={value} is not " + ("0 to 127." if highest else "a number."))
        frame = self.frame if frame is None else float(frame)
        if not math.isfinite(frame):
            raise DataError(f"{what}: frame={frame} is not a number.")
        self._given.append((frame, what, midi_channel, tuple(value for value, _ in values.values())))

    def _happen(self, end_frame: int) -> None:
        """Takes the events before `end_frame` off the queue, and forgets those that cannot matter from `frame` on."""
        while self._given:
            frame, *event = self._given.popleft()
            bisect.insort(self._queue, (max(frame, self.frame), self._n_events, *event))
            self._n_events += 1
        n_due = bisect.bisect_left(self._queue, (end_frame,))
        due, self._queue = self._queue[:n_due], self._queue[n_due:]
        self._voices.forget(self.frame)
        for frame, _, what, midi_channel, values in due:
            if self._silent and what == "note_on":
                self._wake()
            self._voices.happen(frame, what, midi_channel, values)

    def _begin(self, first_sample: int) -> None:
        """Silence, from which sample on, and no notes."""
        self._silent = False
        self._voices.silence()
        self._engine.begin(first_sample)

    def _wake(self) -> None:
        """Goes on after panic, as after a reset but in time."""
        if self._silent:
            self._begin(first_sample=self.frame * self.hop)
