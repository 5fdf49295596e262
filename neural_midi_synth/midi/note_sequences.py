"""note_seq's NoteSequences, with which Magenta's tools exchange music, to and from pieces."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.events import WHEEL_STEPS, Fact, MidiChannel, as_midi
from neural_midi_synth.midi.parts import ChannelEvents, as_strings
from neural_midi_synth.midi.pieces import Piece, Voice, check_midi_pitches

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2

# Of notes whose velocity is not set, as MIDI recommends it for keyboards that know no velocity.
_DEFAULT_VELOCITY = 64


def to_note_sequence(music: Piece | Voice) -> music_pb2.NoteSequence:
    """Makes a NoteSequence in which each voice is an instrument.

    What ended before time 0 is left out, and what began before it begins there. Bends are given with the range that
    they need, as registered parameter 0.

    Args:
        music: Notes with whole pitches in 0..127.

    Returns:
        The sequence. Read again, it gives the same voices, but for those without notes.

    Raises:
        ValueError: A pitch is not a MIDI note number, or a bend is wider than 127 semitones.
    """
    piece = Piece.of(music)
    check_midi_pitches(piece)
    sequence = _import_note_seq().NoteSequence()
    voices = piece.voices if len(piece.voices) == 1 else as_strings(piece)
    for instrument, voice in enumerate(voices):
        control_changes, wheel = as_midi(voice.control_changes, voice.pitch_bends)
        for start, end, pitch, velocity in voice.notes[voice.notes[:, 1] > 0.0]:
            sequence.notes.add(
                instrument=instrument,
                start_time=max(start, 0.0),
                end_time=end,
                pitch=int(pitch),
                velocity=min(max(round(velocity), 1), 127),
            )
        for time, number, value in control_changes:
            sequence.control_changes.add(
                instrument=instrument, time=max(time, 0.0), control_number=int(number), control_value=int(value)
            )
        for time, value in wheel:
            sequence.pitch_bends.add(instrument=instrument, time=max(time, 0.0), bend=int(value))
    sequence.total_time = max(piece.duration, 0.0)
    return sequence


def _import_note_seq() -> types.ModuleType:
    with warnings.catch_warnings():
        # pydub, which note_seq imports, warns that there is no ffmpeg. Nothing here needs one.
        warnings.simplefilter("ignore")
        import note_seq
    return note_seq


def source_name(sequence: music_pb2.NoteSequence) -> str:
    """Returns the name of the file that a sequence was made of, as far as it is known, for messages."""
    return sequence.filename or sequence.id or "NoteSequence"


def from_note_sequence(sequence: music_pb2.NoteSequence) -> list[ChannelEvents]:
    """Reads the instruments of a NoteSequence as if each were a track with a MIDI channel of its own.

    Control changes, the pedal among them, and pitch bends (-8192..8191, of two semitones unless registered parameter
    0 sets another range) mean what they mean in MIDI files. Of events at one time note-offs come first, then control
    changes, bends and note-ons. Notes that the pedal still holds at the end of the sequence end there.

    Args:
        sequence: Times in seconds; what is quantized has its times in seconds, too.

    Returns:
        What each instrument plays: its number + 1 is both its track and its MIDI channel, its program is that of its
        first note. Instruments without notes are not among them.

    Raises:
        DataError: There are no notes, or all have no length.
    """
    name = source_name(sequence)
    if not sequence.notes:
        raise DataError(f"{name}: has no notes. Give a NoteSequence that has them.")
    last = max(sequence.total_time, *(note.end_time for note in sequence.notes), 0.0)
    names = {info.instrument: info.name for info in sequence.instrument_infos}
    channels = []
    for instrument, is_drum in sorted({(note.instrument, note.is_drum) for note in sequence.notes}):
        first = next(n for n in sequence.notes if (n.instrument, n.is_drum) == (instrument, is_drum))
        facts = _facts(sequence, instrument, is_drum, last)
        title = names.get(instrument, "")
        read = ChannelEvents.of(facts, instrument + 1, title, instrument + 1, first.program, is_drum)
        if len(read.notes):
            channels.append(read)
    if not channels:
        raise DataError(f"{name}: all its notes have no length. Give them one.")
    return channels


def _facts(sequence: music_pb2.NoteSequence, instrument: int, is_drum: bool, last: float) -> Iterator[Fact]:
    """Plays the events of one instrument to a MIDI channel."""

    def own(events: list) -> list:
        return [event for event in events if (event.instrument, event.is_drum) == (instrument, is_drum)]

    midi_channel = MidiChannel()
    events = []
    for note in own(sequence.notes):
        if note.end_time > note.start_time:
            events.append((note.end_time, 0, midi_channel.note_off, (note.pitch,)))
            velocity = note.velocity or _DEFAULT_VELOCITY
            events.append((note.start_time, 3, midi_channel.note_on, (note.pitch, velocity)))
    for change in own(sequence.control_changes):
        values = (change.control_number, change.control_value)
        events.append((change.time, 1, midi_channel.control_change, values))
    for bend in own(sequence.pitch_bends):
        value = float(np.clip(bend.bend, -WHEEL_STEPS, WHEEL_STEPS - 1))
        events.append((bend.time, 2, midi_channel.pitch_wheel, (value,)))
    for time, _, event, values in sorted(events, key=lambda event: event[:2]):
        yield from event(time, *values)
    yield from midi_channel.end(last)
