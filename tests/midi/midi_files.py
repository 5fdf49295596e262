"""Builds MIDI files message by message, so that what is read does not depend on what writes."""

import pathlib

import mido
import pytest

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.standard_midi_file import read_midi


def write_file(path: pathlib.Path, *tracks: list, type: int = 1, ticks_per_beat: int = 480) -> pathlib.Path:
    """Writes tracks of (seconds at 120 beats a minute, message); other tempos scale them."""
    midi = mido.MidiFile(type=type, ticks_per_beat=ticks_per_beat)
    for events in tracks:
        track, last = mido.MidiTrack(), 0
        for time, message in sorted(events, key=lambda event: event[0]):
            tick = round(time * 2 * ticks_per_beat)
            track.append(message.copy(time=tick - last))
            last = tick
        midi.tracks.append(track)
    midi.save(path)
    return path


def note(start: float, end: float, pitch: int, velocity: int = 100, channel: int = 0) -> list:
    """A note; `channel` counts from 0."""
    return [
        (start, mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)),
        (end, mido.Message("note_off", note=pitch, channel=channel)),
    ]


def control(time: float, number: int, value: int, channel: int = 0) -> tuple:
    """A control change."""
    return time, mido.Message("control_change", control=number, value=value, channel=channel)


def bend(time: float, value: int, channel: int = 0) -> tuple:
    """A position of the pitch wheel."""
    return time, mido.Message("pitchwheel", pitch=value, channel=channel)


def program(time: float, number: int, channel: int = 0) -> tuple:
    """A program change."""
    return time, mido.Message("program_change", program=number, channel=channel)


def tempo(time: float, beats_per_minute: float) -> tuple:
    """A tempo change."""
    return time, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute))


def name(text: str) -> tuple:
    """The name of a track."""
    return 0.0, mido.MetaMessage("track_name", name=text)


def bend_range(time: float, semitones: int, cents: int = 0, channel: int = 0) -> list:
    """Sets the range of the pitch wheel, and selects no parameter after it."""
    values = ((101, 0), (100, 0), (6, semitones), (38, cents), (101, 127), (100, 127))
    return [control(time, number, value, channel) for number, value in values]


def error_of(path: pathlib.Path, read=read_midi, **choice) -> str:
    """The one line that reading a file ends in."""
    with pytest.raises(DataError) as caught:
        read(path, **choice)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message
