"""MIDI items of a Reaper project: their sources as the project saves them, and what they play in its time."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi import reaper_chunks, reaper_shapes
from neural_midi_synth.midi.events import PEDAL_DOWN, SUSTAIN_PEDAL, WHEEL_STEPS, Fact, MidiChannel
from neural_midi_synth.midi.parts import DRUM_CHANNEL, ChannelEvents
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.reaper_shapes import Event
from neural_midi_synth.midi.standard_midi_file import load_midi
from neural_midi_synth.midi.tempo_map import TempoMap
from neural_midi_synth.midi.tracks import MAX_TICKS, TIME_DECIMALS

if TYPE_CHECKING:
    import rpp

_NOTE_OFF, _NOTE_ON, _PROGRAM_CHANGE, _SYSTEM = 0x80, 0x90, 0xC0, 0xF0
_END_MARKER = 123  # The last event, "all notes off", tells where the source ends.
_STEPS_PER_BEAT = 32  # Reaper's own, where a project does not say.
_MOST_EVENTS = 2_000_000
# Times that differ by less than this (s) are one time: half a tick at 960 ticks a beat and 240 beats a minute.
_SAME_TIME = 1.3e-4


@dataclasses.dataclass(frozen=True)
class MidiSource:
    """What a MIDI item plays, in ticks.

    Attributes:
        ticks_per_beat: Ticks in a quarter note.
        events: In order, without muted ones and without the marker of the end.
        end_tick: Its length, after which an item that loops begins again.
        tempo: Quarter notes per minute where the item ignores the project's tempo; else None.
        steps_per_beat: In how many steps the curves of control changes are played.
    """

    ticks_per_beat: int
    events: tuple[Event, ...]
    end_tick: int
    tempo: float | None = None
    steps_per_beat: float = _STEPS_PER_BEAT


@dataclasses.dataclass(frozen=True)
class MidiItem:
    """Where a MIDI source is played.

    Attributes:
        position: Where the item begins in the project, s.
        length: Seconds.
        offset: Where in the source it begins, s of the source.
        rate: How many times as fast it is played.
        loops: Whether the source is repeated until the item ends.
        source: What it plays.
    """

    position: float
    length: float
    offset: float
    rate: float
    loops: bool
    source: MidiSource


def read_source(chunk: rpp.Element, where: str) -> MidiSource:
    """Reads the events of a chunk `<SOURCE MIDI …`.

    Args:
        chunk: With the events in it.
        where: File and item, for messages.

    Raises:
        DataError: What is in it are not MIDI events.
    """
    has_data = reaper_chunks.values(chunk, "HASDATA")
    ticks_per_beat = int(reaper_chunks.number(has_data, 1, 960, where, limit=1e6))
    if ticks_per_beat < 1 or (len(has_data) > 2 and has_data[2] != "QN"):
        raise DataError(f"{where}: does not count its MIDI in ticks of a quarter note. Glue the item in Reaper.")
    events: list[Event] = []
    tick, last = 0, None
    for child in chunk:
        name, tokens = (child[0], child[1:]) if isinstance(child, list) else (child.tag, child.attrib)
        if name in ("E", "e", "Em", "em", "X", "x", "Xm", "xm"):
            delta = reaper_chunks.number(tokens, 0, 0.0, where, limit=MAX_TICKS)
            tick += int(delta)
            if delta < 0 or tick > MAX_TICKS:
                raise DataError(f"{where}: has MIDI events at impossible times. Save the project in Reaper again.")
            last = _message(tokens, tick, where) if name[0] in "Ee" else None
            if last is not None and "m" not in name:
                events.append(last)
            else:
                last = None
        elif name == "ENV" and last is not None:
            shape = int(reaper_chunks.number(tokens, 0, 0.0, where, limit=1e6))
            tension = reaper_chunks.number(tokens, 2, 0.0, where)
            if shape not in range(reaper_shapes.BEZIER + 1):
                raise DataError(f"{where}: has a control change of an unknown shape. Set it to Square in Reaper.")
            events[-1] = last._replace(shape=shape, tension=tension)
    if events and _is_end_marker(events[-1]) and events[-1].tick == tick:
        events.pop()
    ignores = reaper_chunks.values(chunk, "IGNTEMPO")
    tempo = None
    if reaper_chunks.number(ignores, 0, 0.0, where):
        tempo = reaper_chunks.number(ignores, 1, 120.0, where, limit=1e5)
        if tempo < 0.1:
            raise DataError(f"{where}: has a tempo of {tempo:g}. Set one above 0 in Reaper.")
    steps = reaper_chunks.number(reaper_chunks.values(chunk, "CCINTERP"), 0, _STEPS_PER_BEAT, where)
    steps = min(max(steps, 1.0), float(ticks_per_beat))
    return MidiSource(ticks_per_beat, tuple(events), tick, tempo, steps)


def _message(tokens: Sequence[str], tick: int, where: str) -> Event | None:
    """Reads the bytes of a MIDI message, which are hexadecimal; None for messages that no channel has."""
    try:
        status, *data = (int(token, 16) for token in tokens[1:4])
    except ValueError as error:
        raise DataError(f"{where}: has a MIDI event that is damaged. Save the project in Reaper again.") from error
    data += [0] * (2 - len(data))
    if not (_NOTE_OFF <= status <= 0xFF and all(0 <= byte <= 127 for byte in data)):
        raise DataError(f"{where}: has a MIDI event that is damaged. Save the project in Reaper again.")
    return Event(tick, status, *data) if status < _SYSTEM else None


def _is_end_marker(event: Event) -> bool:
    return event.status & 0xF0 == reaper_shapes.CONTROL_CHANGE and event.data1 == _END_MARKER


def file_source(path: pathlib.Path) -> MidiSource:
    """Reads a MIDI file that an item plays. Its own tempo is not used, since Reaper plays it in that of the project.

    Raises:
        DataError: The file is missing or damaged.
    """
    midi = load_midi(path)
    events, end = [], 0
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if not message.is_meta and message.bytes()[0] < _SYSTEM:
                events.append(Event(tick, *(message.bytes() + [0])[:3]))
        end = max(end, tick)
    if end > MAX_TICKS:
        raise DataError(f"{path}: lasts more than {MAX_TICKS} ticks, so it is probably damaged. Export it again.")
    return MidiSource(midi.ticks_per_beat, tuple(sorted(events, key=lambda event: event.tick)), end)


def play_items(
    items: Sequence[MidiItem], tempo_map: TempoMap, start: float, length: float, track: int, name: str, where: str
) -> list[ChannelEvents]:
    """Plays the MIDI items of a track in a stretch of the project.

    What an item plays is what Reaper plays: notes that begin in it, until they or it ends; a control change before its
    beginning is in force from there. All items of the track share one state for each MIDI channel.

    Args:
        items: On the track.
        tempo_map: Of the project.
        start: Where the stretch begins in the project, s.
        length: Seconds.
        track: Number of the track, from 1.
        name: Of the track.
        where: File and track, for messages.

    Returns:
        What is played on each MIDI channel that has notes in the stretch, times relative to its beginning. Notes that
        began before keep their (negative) times, as do the control changes in force; notes end with the stretch.

    Raises:
        DataError: There are millions of events.
    """
    timed: list[tuple[float, int, Event]] = []
    programs: dict[int, int] = {}
    for item in sorted(items, key=lambda item: item.position):
        for event in item.source.events:
            if event.status & 0xF0 == _PROGRAM_CHANGE:
                programs.setdefault(event.status & 0x0F, event.data1)
        if item.position < start + length and item.position + item.length > start:
            timed += _in_project(item, tempo_map, where)
        if len(timed) > _MOST_EVENTS:
            raise DataError(
                f"{where}: has more than {_MOST_EVENTS} MIDI events. Cut its items, or turn off Loop source."
            )
    timed.sort(key=lambda each: each[:2])
    numbers = sorted({event.status & 0x0F for _, _, event in timed if event.status & 0xF0 == _NOTE_ON and event.data2})
    channels = []
    for number in numbers:
        own = [(round(time - start, TIME_DECIMALS), event) for time, _, event in timed if event.status & 0x0F == number]
        is_drums = number + 1 == DRUM_CHANNEL
        read = ChannelEvents.of(_facts(own), track, name, number + 1, programs.get(number), is_drums)
        read = _cut(read, length)
        if len(read.notes):
            channels.append(read)
    return channels


def _facts(timed: Sequence[tuple[float, Event]]) -> Iterator[Fact]:
    """Plays events to a MIDI channel."""
    midi_channel = MidiChannel()
    time = 0.0
    for time, event in timed:
        message = event.status & 0xF0
        if message == _NOTE_ON:
            yield from midi_channel.note_on(time, event.data1, event.data2)
        elif message == _NOTE_OFF:
            yield from midi_channel.note_off(time, event.data1)
        elif message == reaper_shapes.CONTROL_CHANGE:
            yield from midi_channel.control_change(time, event.data1, event.data2)
        elif message == reaper_shapes.PITCH_BEND:
            yield from midi_channel.pitch_wheel(time, event.data2 * 128 + event.data1 - WHEEL_STEPS)
    yield from midi_channel.end(time)


def _cut(events: ChannelEvents, length: float) -> ChannelEvents:
    """Keeps what matters to the sound in the first `length` seconds."""
    heard = (events.notes[:, 1] > 0.0) & (events.notes[:, 0] < length - _SAME_TIME)
    notes, key_ups = events.notes[heard], np.minimum(events.key_ups[heard], length)
    notes[:, 1] = np.minimum(notes[:, 1], length)
    controls = Voice(notes, events.control_changes, events.pitch_bends).window(0.0, length)
    return dataclasses.replace(
        events,
        notes=notes,
        key_ups=key_ups,
        control_changes=controls.control_changes,
        pitch_bends=controls.pitch_bends,
    )


def _in_project(item: MidiItem, tempo_map: TempoMap, where: str) -> list[tuple[float, int, Event]]:
    """Returns the events of an item with their times in the project (s) and a rank: ends go before beginnings."""
    source = item.source
    origin = item.position - item.offset / item.rate
    if source.tempo is None:
        origin_beats = float(tempo_map.quarter_notes(origin))
        ticks_per_beat = source.ticks_per_beat * item.rate

        def to_seconds(ticks: np.ndarray) -> np.ndarray:
            return tempo_map.seconds(origin_beats + ticks / ticks_per_beat)

        def to_ticks(seconds: float) -> float:
            return (float(tempo_map.quarter_notes(seconds)) - origin_beats) * ticks_per_beat
    else:
        ticks_per_second = source.ticks_per_beat * source.tempo / 60.0 * item.rate

        def to_seconds(ticks: np.ndarray) -> np.ndarray:
            return origin + ticks / ticks_per_second

        def to_ticks(seconds: float) -> float:
            return (seconds - origin) * ticks_per_second

    end = item.position + item.length
    first, last = 0, 0
    if item.loops and source.end_tick > 0:
        first = math.floor(to_ticks(item.position + _SAME_TIME) / source.end_tick)
        last = max(math.ceil(to_ticks(end - _SAME_TIME) / source.end_tick) - 1, first)
    step = source.ticks_per_beat / source.steps_per_beat
    events = reaper_shapes.sample_shapes(source.events, step, where)
    if len(events) * (last - first + 1) > _MOST_EVENTS:
        raise DataError(f"{where}: an item repeats its MIDI too often. Turn off Loop source, or shorten the item.")
    ticks = np.array([event.tick for event in events], np.float64)
    timed: list[tuple[float, int, Event]] = []
    for repeat in range(first, last + 1):
        begin = repeat * source.end_tick
        times = to_seconds(ticks + begin).tolist()
        until = min(float(to_seconds(np.array(float(begin + source.end_tick)))), end) if source.end_tick else end
        timed += _heard(events, times, item.position, until)
    return timed


def _heard(
    events: Sequence[Event], times: Sequence[float], begin: float, end: float
) -> Iterator[tuple[float, int, Event]]:
    """Yields the events heard from `begin` to `end` (s), and ends what lasts then."""
    sounding: dict[tuple[int, int], int] = {}
    pedals: dict[int, bool] = {}
    for time, event in zip(times, events):
        message, channel = event.status & 0xF0, event.status & 0x0F
        if time > end - _SAME_TIME:
            break
        key = (channel, event.data1)
        if message == _NOTE_ON and event.data2:
            if time < begin - _SAME_TIME:
                continue
            sounding[key] = sounding.get(key, 0) + 1
        elif message in (_NOTE_ON, _NOTE_OFF):
            if not sounding.get(key):
                continue
            sounding[key] -= 1
        elif message == reaper_shapes.CONTROL_CHANGE and event.data1 == SUSTAIN_PEDAL:
            pedals[channel] = event.data2 >= PEDAL_DOWN
        yield max(time, begin), 1, event
    for (channel, pitch), count in sounding.items():
        for _ in range(count):
            yield end, 0, Event(0, _NOTE_OFF | channel, pitch, 0)
    for channel, is_down in pedals.items():
        if is_down:
            yield end, 0, Event(0, reaper_shapes.CONTROL_CHANGE | channel, SUSTAIN_PEDAL, 0)
