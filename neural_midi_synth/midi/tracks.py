"""Tracks of a Standard MIDI File: their events by MIDI channel, the time of a tick, and what tracks share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.midi.events import PARAMETER_CONTROLLERS, Fact, MidiChannel

if TYPE_CHECKING:
    import mido

# This is seven hours at 120 beats a minute and 960 ticks a beat; beyond it the file is damaged.
MAX_TICKS = 50_000_000
_DEFAULT_TEMPO = 500_000  # microseconds per beat
# Times are rounded to so many decimals of a second, so that the same music has the same times to the last bit, whether
# it comes from a file or from a Reaper project.
TIME_DECIMALS = 11


class Track:
    """A track of a file, its events sorted by MIDI channel.

    Attributes:
        number: From 1.
        name: May be empty.
        end_tick: Where the track ends.
        tempos: Pairs of tick and microseconds per beat.
        channels_with_notes: MIDI channels, from 0, of its notes.
        events: MIDI channel → pairs of tick and message of its notes, control changes and bends.
        parameters: The same, of the control changes that set parameters alone.
        programs: MIDI channel → its first program.
    """

    def __init__(self, number: int, messages: mido.MidiTrack) -> None:
        self.number = number
        self.end_tick = 0
        self.tempos: list[tuple[int, int]] = []
        self.channels_with_notes: set[int] = set()
        self.events: dict[int, list[tuple[int, mido.Message]]] = {}
        self.parameters: dict[int, list[tuple[int, mido.Message]]] = {}
        self.programs: dict[int, int] = {}
        names = [message.name for message in messages if message.type == "track_name"]
        self.name = _decoded(names[0]) if names else ""
        for message in messages:
            self.end_tick += message.time
            if self.end_tick <= MAX_TICKS:
                self._add(self.end_tick, message)
            elif message.type == "note_on" and message.velocity > 0:
                self.channels_with_notes.add(message.channel)

    def _add(self, tick: int, message: mido.Message) -> None:
        if message.type == "set_tempo" and message.tempo > 0:
            self.tempos.append((tick, message.tempo))
        elif message.type == "program_change":
            self.programs.setdefault(message.channel, message.program)
        elif message.type in ("note_on", "note_off", "control_change", "pitchwheel"):
            self.events.setdefault(message.channel, []).append((tick, message))
            if message.type == "note_on" and message.velocity > 0:
                self.channels_with_notes.add(message.channel)
            elif message.type == "control_change" and message.control in PARAMETER_CONTROLLERS:
                self.parameters.setdefault(message.channel, []).append((tick, message))


def _decoded(name: str) -> str:
    """Returns a track's name, decoded as UTF-8 where it is that; mido decodes as Latin-1."""
    with contextlib.suppress(UnicodeError):
        name = name.encode("latin1").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in name).strip()


class Clock:
    """Converts ticks to seconds by the tempo changes of all tracks."""

    def __init__(self, tracks: Sequence[Track], ticks_per_beat: int) -> None:
        changes = [change for track in tracks for change in track.tempos]
        changes = [(0, _DEFAULT_TEMPO), *sorted(changes, key=lambda change: change[0])]
        self._ticks = np.array([tick for tick, _ in changes], np.float64)
        self._seconds_per_tick = np.array([tempo for _, tempo in changes]) / 1e6 / ticks_per_beat
        durations = np.diff(self._ticks) * self._seconds_per_tick[:-1]
        self._seconds = np.concatenate([[0.0], np.cumsum(durations)])

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Returns the times of ticks in seconds, rounded to `TIME_DECIMALS`."""
        i = np.searchsorted(self._ticks, ticks, side="right") - 1
        return np.round(self._seconds[i] + (ticks - self._ticks[i]) * self._seconds_per_tick[i], TIME_DECIMALS)


class SharedEvents:
    """What the tracks of a file share on one MIDI channel.

    Attributes:
        controls: Pairs of tick and message of tracks without notes: their control changes and bends.
        parameters: Number of a track with notes → such pairs of the control changes that set parameters.
        program: The first program on a track without notes; None if there is none.
    """

    def __init__(self, tracks: Sequence[Track], channel: int) -> None:
        without_notes = [track for track in tracks if not track.channels_with_notes]
        self.controls = [
            (tick, message)
            for track in without_notes
            for tick, message in track.events.get(channel, [])
            if message.type in ("control_change", "pitchwheel")
        ]
        self.parameters = {
            track.number: track.parameters[channel]
            for track in tracks
            if track.channels_with_notes and channel in track.parameters
        }
        self.program = next((track.programs[channel] for track in without_notes if channel in track.programs), None)


def play(track: Track, channel: int, shared: SharedEvents, clock: Clock) -> Iterator[Fact]:
    """Plays the events of one MIDI channel of a track to a `MidiChannel`.

    At one tick what tracks without notes control comes first, then the parameters that other tracks set, then the
    track's own events in their order. Notes that nothing ends last to the end of the track.
    """
    events = [(tick, 0, message) for tick, message in shared.controls]
    for number, parameters in shared.parameters.items():
        if number != track.number:
            events += [(tick, 1, message) for tick, message in parameters]
    events += [(tick, 2, message) for tick, message in track.events[channel]]
    events.sort(key=lambda event: event[:2])
    times = clock.seconds(np.array([track.end_tick, *(tick for tick, _, _ in events)], np.float64)).tolist()

    midi_channel = MidiChannel()
    for time, (_, _, message) in zip(times[1:], events):
        if message.type == "note_on":
            yield from midi_channel.note_on(time, message.note, message.velocity)
        elif message.type == "note_off":
            yield from midi_channel.note_off(time, message.note)
        elif message.type == "control_change":
            yield from midi_channel.control_change(time, message.control, message.value)
        else:
            yield from midi_channel.pitch_wheel(time, message.pitch)
    yield from midi_channel.end(times[0])
