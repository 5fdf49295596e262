"""A take of what is played: its sound and its MIDI, written to disk as they come, whole or not at all."""

from __future__ import annotations

import bisect
import contextlib
import os
import pathlib
import queue
import struct
import tempfile
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.midi.events import DATA_LSB, DATA_MSB, PARAMETER_CONTROLLERS, RPN_LSB, RPN_MSB, WHEEL_STEPS
from neural_midi_synth.playing.keyboard import Event
from neural_midi_synth.playing.live import PLACES

if TYPE_CHECKING:
    import mido

_BEATS_PER_SECOND = 2  # At 120 beats a minute, the tempo of a file that says none.
_BEND_RANGE = 48  # semitones
_PART = 65536


class Recording:
    """Writes a sound file, and beside it a MIDI file that plays the same when it is rendered.

    The sound is that of the stream, at its rate and before any device, so that nothing is missing where a device was
    late or away. Memory does not grow with the length: both wait on disk until the end.

    Attributes:
        path: The sound file.
        midi_path: The MIDI file.
    """

    def __init__(self, path: str | os.PathLike, sample_rate: int, hop: int, latency: int) -> None:
        """Readies a take; `with` begins and ends it.

        Args:
            path: Sound file, of one of `AUDIO_SUFFIXES`.
            sample_rate: Of the stream.
            hop: Samples of a control frame.
            latency: Samples by which the sound is behind the frames; so many are left out.
        """
        self.path = pathlib.Path(path)
        self.midi_path = self.path.with_suffix(".mid")
        self._sample_rate, self._hop, self._skip = sample_rate, hop, latency
        self._blocks: queue.Queue[np.ndarray | None] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, Event]] = []
        self._n_events = 0
        self._first_frame: int | None = None
        self._tracks: dict[str, _TrackFile] = {}
        self._of_all: dict[int, float] = {}  # Controllers that were set for everybody.
        self._failures: list[Exception] = []

    def __enter__(self) -> Recording:
        """Begins to write."""
        self._thread = threading.Thread(target=self._write_sound, name="recording", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the take, whatever ended the playing, and puts both files in place.

        Raises:
            DataError: They can't be written.
        """
        self._blocks.put(None)
        self._thread.join()
        try:
            if not self._failures:
                self._write_midi()
        finally:
            for track in self._tracks.values():
                track.file.close()
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def failure(self) -> Exception | None:
        """Why it can't be written, as soon as that is known."""
        return self._failures[0] if self._failures else None

    def happened(self, frame: float, event: Event) -> None:
        """Takes an event; from any thread.

        Args:
            frame: Of the stream, when it happens: a whole number of `PLACES`.
            event: What happens.
        """
        with self._lock:
            self._n_events += 1
            bisect.insort(self._waiting, (frame, self._n_events, event))

    def played(self, frame: int, block: np.ndarray) -> None:
        """Takes a block.

        Args:
            frame: Its first one, of the stream.
            block: float32 `[n]`.
        """
        if self._first_frame is None:
            self._first_frame = frame
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        if not self._failures:
            self._blocks.put(block[skipped:])
        self._take_until(frame + len(block) // self._hop)

    def _write_sound(self) -> None:
        def blocks() -> Iterator[np.ndarray]:
            yield np.zeros(0, np.float32)
            n_samples = 0
            while (block := self._blocks.get()) is not None:
                n_samples += len(block)
                yield block
            if not n_samples:
                yield np.zeros(self._hop, np.float32)

        try:
            write_audio(self.path, blocks(), self._sample_rate)
        except Exception as failure:
            self._failures.append(failure)

    def _take_until(self, frame: int) -> None:
        """Writes the events before a frame; later ones may still get company."""
        with self._lock:
            n_due = bisect.bisect_left(self._waiting, (frame,))
            due, self._waiting = self._waiting[:n_due], self._waiting[n_due:]
        for frame, _, event in due:
            tick = round(max(frame - self._first_frame, 0) * PLACES)
            if event.midi_channel is None:
                number, value = event.values
                self._of_all[int(number)] = value
                for track in self._tracks.values():
                    track.write_to_all(tick, event)
            else:
                name, channel = event.midi_channel
                if name not in self._tracks:
                    self._tracks[name] = _TrackFile(name)
                self._tracks[name].write(tick, event, channel or 0, self._of_all)

    def _write_midi(self) -> None:
        if not self._tracks:
            self._tracks["keyboard"] = _TrackFile("keyboard")
        ticks_per_beat = PLACES * self._sample_rate // (self._hop * _BEATS_PER_SECOND)
        with write_aside(self.midi_path) as aside, open(aside, "wb") as file:
            tracks = list(self._tracks.values())
            file.write(struct.pack(">4sLHHH", b"MThd", 6, min(len(tracks) - 1, 1), len(tracks), ticks_per_beat))
            for track in tracks:
                track.copy_to(file)


class _TrackFile:
    """A track of a MIDI file that waits on disk."""

    def __init__(self, name: str) -> None:
        import mido

        self.file: BinaryIO = tempfile.TemporaryFile()
        self._tick = 0
        self._channels: set[int] = set()
        self._bent: set[int] = set()
        self._put(0, mido.MetaMessage("track_name", name=name))

    def write(self, tick: int, event: Event, channel: int, of_all: dict[int, float]) -> None:
        """Writes an event of a MIDI channel, before the channel's first one what holds for all."""
        if channel not in self._channels:
            self._channels.add(channel)
            for number, value in of_all.items():
                self._put(tick, *_messages(Event("control_change", (number, value), None), channel))
        if event.what == "pitch_bend" and channel not in self._bent:
            self._bent.add(channel)
            for number, value in ((RPN_MSB, 0), (RPN_LSB, 0), (DATA_MSB, _BEND_RANGE), (DATA_LSB, 0)):
                self._put(tick, _control_change(channel, number, value))
        self._put(tick, *_messages(event, channel))

    def write_to_all(self, tick: int, event: Event) -> None:
        """Writes an event to all of its MIDI channels."""
        for channel in sorted(self._channels):
            self._put(tick, *_messages(event, channel))

    def copy_to(self, file: BinaryIO) -> None:
        """Ends the track, and copies it into a MIDI file."""
        import mido

        self._put(self._tick, mido.MetaMessage("end_of_track"))
        file.write(struct.pack(">4sL", b"MTrk", self.file.tell()))
        self.file.seek(0)
        while part := self.file.read(_PART):
            file.write(part)

    def _put(self, tick: int, *messages: mido.Message | mido.MetaMessage) -> None:
        for message in messages:
            self.file.write(_variable_length(max(tick - self._tick, 0)) + bytes(message.bytes()))
            self._tick = max(tick, self._tick)


def _messages(event: Event, channel: int) -> Iterator[mido.Message]:
    """How a MIDI file says an event; the range of bends is always that of `_BEND_RANGE`."""
    import mido

    if event.what == "control_change":
        number, value = event.values
        if number not in PARAMETER_CONTROLLERS:
            yield _control_change(channel, int(number), round(value))
    elif event.what == "pitch_bend":
        wheel = round(event.values[0] / _BEND_RANGE * WHEEL_STEPS)
        yield mido.Message("pitchwheel", channel=channel, pitch=min(max(wheel, -WHEEL_STEPS), WHEEL_STEPS - 1))
    else:
        names = ("note", "velocity")
        yield mido.Message(event.what, channel=channel, **dict(zip(names, map(round, event.values))))


def _control_change(channel: int, number: int, value: int) -> mido.Message:
    import mido

    return mido.Message("control_change", channel=channel, control=number, value=value)


def _variable_length(number: int) -> bytes:
    """A number as MIDI files have it: seven bits a byte, the highest first, all but the last with the eighth bit."""
    septets = [number & 127]
    while number := number >> 7:
        septets.append(128 | number & 127)
    return bytes(reversed(septets))


@contextlib.contextmanager
def recording(path: str | os.PathLike | None, sample_rate: int, hop: int, latency: int) -> Iterator[Recording | None]:
    """A `Recording` where there is a path, else None."""
    if path is None:
        yield None
    else:
        with Recording(path, sample_rate, hop, latency) as take:
            yield take
