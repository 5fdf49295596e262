"""Standard MIDI Files: read as pieces and parts, and written."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.inputs import read_bytes
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.midi.events import as_midi
from neural_midi_synth.midi.note_sequences import from_note_sequence, source_name
from neural_midi_synth.midi.parts import (
    DRUM_CHANNEL,
    ChannelEvents,
    Part,
    as_strings,
    best_part,
    choose_piece,
    group_parts,
)
from neural_midi_synth.midi.pieces import Piece, Voice, check_midi_pitches
from neural_midi_synth.midi.tracks import MAX_TICKS, Clock, SharedEvents, Track, play

if TYPE_CHECKING:
    import mido
    from note_seq.protobuf import music_pb2

__all__ = ["MIDI_SUFFIXES", "Part", "best_part", "read_midi", "read_parts", "timed_messages", "write_midi"]

# Names of MIDI files end in one of these, in any mixture of capitals.
MIDI_SUFFIXES = (".mid", ".midi")
WRITE_TICKS_PER_BEAT = 960
# Meta event 0x59 is a key signature of two bytes. The second is C major, which stands in for keys that do not exist.
_KEY_SIGNATURE, _C_MAJOR = re.compile(rb"\xff\x59\x02..", re.DOTALL), b"\xff\x59\x02\x00\x00"


def read_midi(
    source: str | os.PathLike | music_pb2.NoteSequence,
    track: int | str | None = None,
    midi_channel: int | None = None,
    all_tracks: bool = False,
    most_voices: int | None = None,
) -> Piece:
    """Reads the voices of one instrument from a Standard MIDI File of type 0 or 1, or from a NoteSequence.

    Tempo changes are honoured wherever they are. Control changes and pitch bends on a track without notes belong to
    every note on their MIDI channel. Notes are paired first in, first out; the sustain pedal (CC64) holds them until
    it rises; pitch bends are in semitones by the range that registered parameter 0 sets (two semitones unless set).

    Notes on several MIDI channels that are the strings of one instrument (each monophonic, no two programs, no drums)
    are a voice each. Other notes are allocated to voices, a legato line to one; see `midi.allocation`.

    Args:
        source: The file, or a NoteSequence, each instrument of which counts as a track with its own MIDI channel.
        track: Number of the track in the file, from 1, or its name; needed when several tracks have notes.
        midi_channel: 1..16; needed when notes are on several MIDI channels that are not strings of one instrument.
        all_tracks: Whether to read all instruments, but for drums, as one piece.
        most_voices: Where keys are played on no more voices than this, notes that the pedal holds take no more either:
            each ends for the next one. Unless given, they get voices of their own.

    Returns:
        The piece, with at least one note in each voice, and none overlapping in a voice.

    Raises:
        DataError: The file is missing, damaged or has no notes; or it has several instruments, and `track`,
            `midi_channel` and `all_tracks` do not choose.
    """
    return choose_piece(read_channels(source), _name(source), track, midi_channel, all_tracks, most_voices)


def read_parts(source: str | os.PathLike | music_pb2.NoteSequence) -> list[Part]:
    """Reads all instruments of a file, at least one.

    Args:
        source: As for `read_midi`.

    Returns:
        The parts, in the order of tracks and MIDI channels.

    Raises:
        DataError: The file is missing, damaged or has no notes.
    """
    return group_parts(read_channels(source), _name(source))


def _name(source: str | os.PathLike | music_pb2.NoteSequence) -> str:
    return str(pathlib.Path(source)) if isinstance(source, str | os.PathLike) else source_name(source)


def read_channels(source: str | os.PathLike | music_pb2.NoteSequence) -> list[ChannelEvents]:
    """Reads each MIDI channel of each track that has notes, at least one.

    Args:
        source: As for `read_midi`.

    Returns:
        What they play, in the order of tracks and MIDI channels.

    Raises:
        DataError: The file is missing, damaged or has no notes.
    """
    if not isinstance(source, str | os.PathLike):
        return from_note_sequence(source)
    path = pathlib.Path(source)
    midi = load_midi(path)
    tracks = [Track(i, messages) for i, messages in enumerate(midi.tracks, start=1)]
    found = sorted({(track.number, channel) for track in tracks for channel in track.channels_with_notes})
    if not found:
        raise DataError(f"{path}: has no notes. Export the track that has them.")
    clock = Clock(tracks, midi.ticks_per_beat)
    shared = {channel: SharedEvents(tracks, channel) for channel in {channel for _, channel in found}}
    channels = []
    for number, channel in found:
        track = tracks[number - 1]
        if track.end_tick > MAX_TICKS:
            raise DataError(
                f"{path}: lasts more than {MAX_TICKS} ticks, so it is probably damaged. Export it again, or cut it."
            )
        program = track.programs.get(channel, shared[channel].program)
        facts = play(track, channel, shared[channel], clock)
        events = ChannelEvents.of(facts, number, track.name, channel + 1, program, channel + 1 == DRUM_CHANNEL)
        if len(events.notes):
            channels.append(events)
    if not channels:
        raise DataError(f"{path}: all its notes have no length. Give them one and export it again.")
    return channels


def load_midi(path: pathlib.Path) -> mido.MidiFile:
    """Parses a Standard MIDI File of type 0 or 1.

    Raises:
        DataError: The file is missing, damaged, or of another kind.
    """
    import mido

    if path.is_dir():
        raise DataError(f"{path}: is a folder. Give a MIDI file.")
    content = read_bytes(path)
    if not content:
        raise DataError(f"{path}: is empty (0 bytes). Export the MIDI again.")
    if content[:4] != b"MThd":
        raise DataError(f"{path}: is not a Standard MIDI file, whatever its name. Export it as one (type 0 or 1).")
    try:
        try:
            midi = mido.MidiFile(file=io.BytesIO(content), clip=True)
        except mido.KeySignatureError:
            # Files in the wild have keys that do not exist. Nothing here depends on them.
            midi = mido.MidiFile(file=io.BytesIO(_KEY_SIGNATURE.sub(_C_MAJOR, content)), clip=True)
    except EOFError as error:
        raise DataError(f"{path}: is cut short. Export or copy it again.") from error
    except Exception as error:
        # Damaged files end in whatever exception the damage leads to: any of them means the same.
        raise DataError(f"{path}: is damaged ({_one_line(error)}). Export it again.") from error
    if midi.type not in (0, 1):
        raise DataError(f"{path}: is a MIDI file of type {midi.type}. Export it as type 0 or 1.")
    if midi.ticks_per_beat <= 0:
        raise DataError(
            f"{path}: counts time in SMPTE frames or not at all. Export it with ticks per beat (quarter note)."
        )
    return midi


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def write_midi(
    music: Piece | Voice,
    path: str | os.PathLike,
    tempo: float = 120.0,
    markers: Sequence[tuple[float, str]] = (),
) -> None:
    """Writes a piece as a Standard MIDI File of type 0, with 960 ticks per beat.

    One voice is written as it is, on MIDI channel 1; when it is read, a pedal (CC64) among its controls holds its
    notes. Several voices have a MIDI channel each, in order and without channel 10, and reading the file gives the
    same voices, but for those without notes. More than 15 voices fit only if they share their controls: all are on
    MIDI channel 1 then, and reading allocates the notes anew.

    Where there are pitch bends, their range is written (registered parameter 0) as wide as they need, in place of the
    controllers of the voice that set such parameters. What ended before time 0 is left out, and what began before it
    begins there.

    Args:
        music: A piece or a voice whose notes have whole pitches in 0..127.
        path: The file.
        tempo: Beats per minute.
        markers: Seconds, 0 or later, and text of each marker, which sequencers show; reading leaves them out.

    Raises:
        DataError: The file can't be written.
        ValueError: A pitch is not a MIDI note number, a bend is wider than 127 semitones, or there are more than 15
            voices with controls of their own.
    """
    import mido

    midi = mido.MidiFile(type=0, ticks_per_beat=WRITE_TICKS_PER_BEAT, charset="utf-8")
    messages = [(0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))]
    ticks_per_second = WRITE_TICKS_PER_BEAT * tempo / 60.0
    messages += [(round(time * ticks_per_second), mido.MetaMessage("marker", text=text)) for time, text in markers]
    messages += timed_messages(music, tempo)
    track, last_tick = mido.MidiTrack(), 0
    for tick, message in sorted(messages, key=lambda event: event[0]):
        track.append(message.copy(time=tick - last_tick))
        last_tick = tick
    midi.tracks.append(track)
    with write_aside(path) as aside:
        midi.save(aside)


def timed_messages(music: Piece | Voice, tempo: float = 120.0) -> list[tuple[int, mido.Message]]:
    """Says a piece in MIDI messages, as `write_midi` writes them.

    Args:
        music: A piece or a voice whose notes have whole pitches in 0..127.
        tempo: Beats per minute.

    Returns:
        The tick of each message, `WRITE_TICKS_PER_BEAT` to a beat, and itself; in the order to be written.

    Raises:
        ValueError: As `write_midi`.
    """
    piece = Piece.of(music)
    check_midi_pitches(piece)
    ticks_per_second = WRITE_TICKS_PER_BEAT * tempo / 60.0
    messages = []
    for voice, channel in _on_midi_channels(piece):
        messages += _messages(voice, channel, ticks_per_second)
    return sorted(messages, key=lambda event: event[0])


def _on_midi_channels(piece: Piece) -> list[tuple[Voice, int]]:
    """Gives each voice of a piece a MIDI channel, from 0."""
    if len(piece.voices) == 1:
        return [(piece.voices[0], 0)]
    channels = [channel for channel in range(16) if channel + 1 != DRUM_CHANNEL]
    if len(piece.voices) <= len(channels):
        return list(zip(as_strings(piece), channels))
    first = piece.voices[0]
    for voice in piece.voices:
        if not (
            np.array_equal(voice.control_changes, first.control_changes)
            and np.array_equal(voice.pitch_bends, first.pitch_bends)
        ):
            raise ValueError(
                f"A MIDI file holds {len(channels)} voices with controls of their own, not {len(piece.voices)}."
            )
    return [(dataclasses.replace(first, notes=piece.notes), 0)]


def _messages(voice: Voice, channel: int, ticks_per_second: float) -> list[tuple[int, mido.Message]]:
    """Returns the messages of a voice with their ticks; those of one tick are in the order to be written."""
    import mido

    def tick(time: float) -> int:
        return max(round(time * ticks_per_second), 0)

    control_changes, wheel = as_midi(voice.control_changes, voice.pitch_bends)
    controls = [
        (tick(time), mido.Message("control_change", channel=channel, control=int(number), value=int(value)))
        for time, number, value in control_changes
    ]
    bends = [(tick(time), mido.Message("pitchwheel", channel=channel, pitch=int(value))) for time, value in wheel]
    ends, starts = [], []
    notes = voice.notes[voice.notes[:, 1] > 0.0]
    next_starts = [*(tick(start) for start in notes[1:, 0]), None]
    for (start, end, pitch, velocity), next_start in zip(notes, next_starts):
        if tick(end) == tick(start) == next_start:
            continue  # Shorter than half a tick, and the next note begins: they would be a chord.
        ends.append((max(tick(end), tick(start) + 1), mido.Message("note_off", channel=channel, note=int(pitch))))
        velocity = min(max(round(velocity), 1), 127)
        starts.append((tick(start), mido.Message("note_on", channel=channel, note=int(pitch), velocity=velocity)))
    # A note that ends where the pedal goes down has ended before.
    return [*ends, *controls, *bends, *starts]
