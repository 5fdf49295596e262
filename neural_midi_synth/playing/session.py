"""A session: who plays a live instrument, a keyboard and a file, and the take that is kept of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from neural_midi_synth.instrument.controls import frame_of
from neural_midi_synth.instrument.rendering import TAIL_SECONDS
from neural_midi_synth.midi.pieces import Piece
from neural_midi_synth.midi.standard_midi_file import WRITE_TICKS_PER_BEAT, timed_messages
from neural_midi_synth.playing.keyboard import Event, Keyboard
from neural_midi_synth.playing.live import Live
from neural_midi_synth.playing.recording import Recording

if TYPE_CHECKING:
    import mido

_TICKS_PER_SECOND = 2 * WRITE_TICKS_PER_BEAT  # At 120 beats a minute.


class Session:
    """A live instrument and those who play it.

    Attributes:
        live: The instrument.
        keyboard: What reads the messages of whoever plays.
        values: Style name → control change value that was last set, for those that were.
    """

    def __init__(
        self, live: Live, keyboard: Keyboard, piece: Piece | None = None, take: Recording | None = None
    ) -> None:
        """Puts a session together.

        Args:
            live: The instrument.
            keyboard: Reads messages.
            piece: Is played from the first block on, along with what comes.
            take: Is told of all that is played.
        """
        self.live, self.keyboard, self._take = live, keyboard, take
        self.values = {name: value for name, value in live.stream.instrument.controls.defaults.items()}
        self._names = {number: name for name, number in live.stream.instrument.styles.items()}
        self._messages = timed_messages(piece) if piece is not None else []
        self._file = Keyboard("file", live.stream.instrument.styles, knobs={}, separate=True)
        self._n_played = 0
        self._first_frame: int | None = None
        self._end = frame_of(piece.duration + TAIL_SECONDS, live.stream.instrument.frame_rate) if piece else None
        live.before_block = self._play_file
        if take is not None:
            live.on_block = take.played
        for event in keyboard.begin():
            self.play(event, time.perf_counter())

    @property
    def is_over(self) -> bool:
        """Whether the piece has been played, if there is one."""
        started = self._first_frame is not None
        return self._end is not None and started and self.live.stream.frame > self._first_frame + self._end

    def receive(self, message: mido.Message, when: float) -> None:
        """Takes a message of the keyboard; from any thread.

        Args:
            message: Any.
            when: When it came, s by `time.perf_counter`.
        """
        if message.type == "reset":
            self.panic()
        for event in self.keyboard.read(message):
            self.play(event, when)

    def play(self, event: Event, when: float) -> None:
        """Has an event happen, and keeps it."""
        frame = self.live.happen(event.what, event.values, when, event.midi_channel)
        self._happened(frame, event)

    def set_style(self, style: str, value: float) -> None:
        """Sets a style, 0 to 127, for all that sounds."""
        self.play(self.keyboard.set_style(style, min(max(value, 0.0), 127.0)), time.perf_counter())

    def release(self) -> None:
        """Lets all keys of the keyboard go, as when it is taken away."""
        for event in self.keyboard.released():
            self.play(event, time.perf_counter())

    def panic(self) -> None:
        """Silences everything at once; the piece goes on with its next note."""
        for event in [*self.keyboard.released(), *self._file.released()]:
            self._happened(self.live.stream.frame, event)
        self.live.panic()

    def _play_file(self, end_frame: int) -> None:
        """Hands over the events of the piece before a frame; they happen at the places nearest to their times."""
        if self._first_frame is None:
            self._first_frame = end_frame
        while self._n_played < len(self._messages):
            tick, message = self._messages[self._n_played]
            frame = self._first_frame + self.live.nearest(tick / _TICKS_PER_SECOND)
            if frame >= end_frame + self.live.stream.block_frames:
                break
            self._n_played += 1
            for event in self._file.read(message):
                stream = self.live.stream
                getattr(stream, event.what)(*event.values, frame=frame, midi_channel=event.midi_channel)
                self._happened(frame, event)

    def _happened(self, frame: float, event: Event) -> None:
        if event.what == "control_change" and event.values[0] in self._names:
            self.values[self._names[int(event.values[0])]] = event.values[1]
        if self._take is not None:
            self._take.happened(frame, event)
