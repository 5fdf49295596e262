"""MIDI in, voices out: one monophonic line of notes with the control changes and pitch bends that shape it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import os
import pathlib
import types
import warnings
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import write_aside

if TYPE_CHECKING:
    import mido
    from note_seq.protobuf import music_pb2

# Names of MIDI files end in one of these, in any mixture of capitals.
MIDI_SUFFIXES = (".mid", ".midi")
# Notes of one voice may overlap by this many seconds, as fingers do in legato, and by no more than this share of the
# shorter note, so that short chords are not taken for legato.
LEGATO_OVERLAP = 0.1
LEGATO_SHARE = 0.5
DEFAULT_BEND_RANGE = 2.0
DRUM_CHANNEL = 10

# Registered parameter 0 is the pitch bend range: 101 and 100 select it, 6 sets semitones and 38 cents. 99 and 98
# select a non-registered parameter, to which 6 and 38 belong from then on.
_RPN_MSB, _RPN_LSB, _NRPN_MSB, _NRPN_LSB, _DATA_MSB, _DATA_LSB = 101, 100, 99, 98, 6, 38
_BEND_STEPS = 8192
_WRITE_TICKS_PER_BEAT = 960
# pretty_midi tabulates the time of every tick. This is seven hours at 120 beats a minute and 960 ticks a beat; beyond
# it the file is damaged, or would take gigabytes of memory to read.
_MAX_TICKS = 50_000_000
_MAX_LISTED = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """One monophonic line of notes and the controls that shape it.

    Values are those of the MIDI file, unscaled. Times are seconds and may be negative in a window, where they tell
    what was in force at its start.

    Attributes:
      notes: `[n, 4]` float64: start (s), end (s), pitch (MIDI note number), velocity (1..127); sorted by start.
      control_changes: `[m, 3]` float64: time (s), controller number, value (0..127); sorted by time.
      pitch_bends: `[k, 2]` float64: time (s), semitones; sorted by time.
    """

    notes: np.ndarray
    control_changes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0, 3]))
    pitch_bends: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0, 2]))

    def __post_init__(self) -> None:
        for name, n_columns in (("notes", 4), ("control_changes", 3), ("pitch_bends", 2)):
            events = np.asarray(getattr(self, name), np.float64).reshape([-1, n_columns])
            events = events[np.argsort(events[:, 0], kind="stable")]
            object.__setattr__(self, name, events)

    @property
    def duration(self) -> float:
        """End of the last note in seconds; 0 without notes."""
        return float(self.notes[:, 1].max()) if len(self.notes) else 0.0

    def window(self, start: float, end: float) -> Voice:
        """Returns all that matters to the sound in [start, end), with times relative to `start`.

        Notes keep their full length, so one that began before the window starts at a negative time. When no note
        sounds at `start`, the last note that ended before it is there too, since its pitch is held. The last control
        change of each number and the last pitch bend at or before `start` keep their (negative) times.

        Args:
          start: Seconds.
          end: Seconds, not before `start`.

        Returns:
          The voice of the window.
        """
        starts, ends = self.notes[:, 0], self.notes[:, 1]
        inside = (starts < end) & (ends > start)
        if not np.any(inside & (starts <= start)):
            before = np.flatnonzero(ends <= start)
            inside[before[-1:]] = True
        notes = self.notes[inside] - [start, start, 0.0, 0.0]

        numbers = self.control_changes[:, 1]
        kept = _inside_or_in_force(self.control_changes[:, 0], start, end, numbers)
        control_changes = self.control_changes[kept] - [start, 0.0, 0.0]

        times = self.pitch_bends[:, 0]
        kept = _inside_or_in_force(times, start, end, np.zeros_like(times))
        return Voice(notes, control_changes, self.pitch_bends[kept] - [start, 0.0])

    def transpose(self, semitones: float) -> Voice:
        """Returns the voice with every pitch moved.

        Args:
          semitones: May be negative or fractional.

        Returns:
          The moved voice. Pitches are not limited to 0..127.
        """
        return Voice(self.notes + [0.0, 0.0, semitones, 0.0], self.control_changes, self.pitch_bends)


def _inside_or_in_force(times: np.ndarray, start: float, end: float, kinds: np.ndarray) -> np.ndarray:
    """Marks the events in (start, end) and the last one of each kind at or before `start`."""
    kept = (times > start) & (times < end)
    for kind in np.unique(kinds):
        kept[np.flatnonzero((kinds == kind) & (times <= start))[-1:]] = True
    return kept


def read_midi(
    path: str | os.PathLike, track: int | str | None = None, channel: int | None = None, polyphonic: bool = False
) -> Voice:
    """Reads one voice from a Standard MIDI file of type 0 or 1.

    Tempo changes are honoured wherever they are. The sustain pedal (CC64) holds notes until it is released or the next
    note begins. Pitch bends are in semitones by the range that registered parameter 0 sets (two semitones unless set).
    Control changes are as in the file; those on a track without notes belong to every voice on their channel.

    Args:
      path: The file.
      track: Number of the track in the file, from 1, or its name; needed when several tracks have notes.
      channel: MIDI channel, 1..16; needed when the notes are on several channels.
      polyphonic: Take a polyphonic file, and keep only the newest note at each time, the highest of those that begin
        together. Without it notes that overlap more than legato playing does are an error.

    Returns:
      The voice, with at least one note, and none overlapping.

    Raises:
      DataError: The file is missing, damaged or has no notes; it has several instruments, and `track` and `channel`
        do not choose one; it is polyphonic, and `polyphonic` is false.
    """
    path = pathlib.Path(path)
    midi = _choose(_load(path), path, track, channel)
    note_seq = _import_note_seq()
    sequence = _note_sequence(path, midi)
    if not polyphonic:
        _check_monophonic(_note_array(sequence), path)
    notes = _newest_wins(_note_array(note_seq.apply_sustain_control_changes(sequence)))
    if not len(notes):
        raise DataError(f"{path}: all its notes have no length. Give them one and export it again.")

    control_changes = np.array(
        [(c.time, c.control_number, c.control_value) for c in sequence.control_changes], dtype=np.float64
    ).reshape([-1, 3])
    bends = np.array([(b.time, b.bend) for b in sequence.pitch_bends], dtype=np.float64).reshape([-1, 2])
    voice = Voice(notes, control_changes, bends)
    return dataclasses.replace(voice, pitch_bends=_bends_in_semitones(voice.pitch_bends, voice.control_changes))


def _load(path: pathlib.Path) -> mido.MidiFile:
    """Parses a file, or says why that can't be done."""
    import mido

    if path.is_dir():
        raise DataError(f"{path}: is a folder. Give a MIDI file.")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check its name.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if not content:
        raise DataError(f"{path}: is empty (0 bytes). Export the MIDI again.")
    if content[:4] != b"MThd":
        raise DataError(f"{path}: is not a Standard MIDI file, whatever its name. Export it as one (type 0 or 1).")
    try:
        # Damaged files end in whatever exception the damage leads to: any of them means the same.
        midi = mido.MidiFile(file=io.BytesIO(content), clip=True)
    except EOFError as error:
        raise DataError(f"{path}: is cut short. Export or copy it again.") from error
    except Exception as error:
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


def _choose(midi: mido.MidiFile, path: pathlib.Path, track: int | str | None, channel: int | None) -> mido.MidiFile:
    """Reduces a file to its tempo changes and the events of one instrument.

    pretty_midi, with which note_seq reads, looks for tempo changes in the first track only, starts another instrument
    at each program change, drops notes that are never ended, and forgets tracks and channels. So they are dealt with
    before it sees them.
    """
    import mido

    n_notes: collections.Counter[tuple[int, int]] = collections.Counter()
    events = []  # (tick, track, message)
    last_ticks = []
    for i, messages in enumerate(midi.tracks, start=1):
        tick = 0
        for message in messages:
            tick += message.time
            events.append((tick, i, message))
            if message.type == "note_on" and message.velocity > 0:
                n_notes[i, message.channel + 1] += 1
        last_ticks.append(tick)

    chosen_track, chosen_channel = _choose_instrument(midi, n_notes, path, track, channel)
    end_tick = last_ticks[chosen_track - 1]
    if end_tick > _MAX_TICKS:
        raise DataError(f"{path}: lasts {end_tick} ticks, so it is probably damaged. Export it again, or cut it.")
    tracks_with_notes = {i for i, _ in n_notes}
    tempo_changes, messages = [], []
    for tick, i, message in events:
        if tick > end_tick:
            continue
        if message.type == "set_tempo":
            if message.tempo > 0:
                tempo_changes.append((tick, message))
        elif message.type in ("note_on", "note_off", "control_change", "pitchwheel"):
            is_control = message.type in ("control_change", "pitchwheel")
            if message.channel + 1 == chosen_channel and (
                i == chosen_track or (is_control and i not in tracks_with_notes)
            ):
                # Channel 10 would make drums of it.
                messages.append((tick, message.copy(channel=0)))
    pitches = sorted({message.note for _, message in messages if message.type == "note_on"})
    messages.extend((end_tick, mido.Message("note_off", note=pitch)) for pitch in pitches)

    reduced = mido.MidiFile(type=1, ticks_per_beat=midi.ticks_per_beat)
    for track_events in (tempo_changes, messages):
        reduced.tracks.append(_delta_times(track_events))
    return reduced


def _delta_times(events: list) -> mido.MidiTrack:
    """Makes a track of (tick, message) pairs; those of one tick keep their order."""
    import mido

    result, last_tick = mido.MidiTrack(), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        result.append(message.copy(time=tick - last_tick))
        last_tick = tick
    return result


def _choose_instrument(
    midi: mido.MidiFile,
    n_notes: dict[tuple[int, int], int],
    path: pathlib.Path,
    track: int | str | None,
    channel: int | None,
) -> tuple[int, int]:
    """Returns the (track, channel), both from 1, that alone has notes among those that are asked for."""
    if not n_notes:
        raise DataError(f"{path}: has no notes. Export the track that has them.")
    names = {i: _track_name(messages) for i, messages in enumerate(midi.tracks, start=1)}
    found = [
        (i, c)
        for i, c in sorted(n_notes)
        if (track is None or str(track) in (names[i], str(i))) and (channel is None or c == channel)
    ]
    if len(found) == 1:
        return found[0]
    listed = [
        f"track {i}{f' {names[i]!r}' if names[i] else ''} channel {c}{' (drums)' if c == DRUM_CHANNEL else ''}:"
        f" {n_notes[i, c]} notes"
        for i, c in found or sorted(n_notes)
    ]
    more = f"; and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    instruments = "; ".join(listed[:_MAX_LISTED]) + more
    if found:
        raise DataError(f"{path}: has several instruments. Choose one by track or channel ({instruments}).")
    asked = " ".join(
        f"{word} {value!r}" for word, value in (("track", track), ("channel", channel)) if value is not None
    )
    raise DataError(f"{path}: has no notes on {asked}. Choose among those it has ({instruments}).")


def _track_name(messages: mido.MidiTrack) -> str:
    """Returns a track's name, decoded as UTF-8 where it is that; mido decodes as Latin-1."""
    name = next((message.name for message in messages if message.type == "track_name"), "")
    with contextlib.suppress(UnicodeError):
        name = name.encode("latin1").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in name).strip()


def _import_note_seq() -> types.ModuleType:
    with warnings.catch_warnings():
        # pydub, which note_seq imports, warns that there is no ffmpeg. Nothing here needs one.
        warnings.simplefilter("ignore")
        import note_seq
    return note_seq


def _note_sequence(path: pathlib.Path, midi: mido.MidiFile) -> music_pb2.NoteSequence:
    """Converts a reduced file to note_seq's form."""
    note_seq = _import_note_seq()
    content = io.BytesIO()
    midi.save(file=content)
    try:
        return note_seq.midi_to_note_sequence(content.getvalue())
    except note_seq.MIDIConversionError as error:
        raise DataError(f"{path}: is damaged ({_one_line(error)}). Export it again.") from error


def _note_array(sequence: music_pb2.NoteSequence) -> np.ndarray:
    """Returns the notes as `[n, 4]` float64 (start s, end s, pitch, velocity), sorted by start, then by pitch."""
    notes = [(note.start_time, note.end_time, note.pitch, note.velocity) for note in sequence.notes]
    notes = np.array(notes, dtype=np.float64).reshape([-1, 4])
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]


def _check_monophonic(notes: np.ndarray, path: pathlib.Path) -> None:
    """Raises if notes of different pitch, sorted by start, overlap more than legato playing does."""
    sounding: list[np.ndarray] = []
    for note in notes:
        start, end, pitch, _ = note
        sounding = [older for older in sounding if older[1] > start and older[2] != pitch]
        for older in sounding:
            overlap = min(older[1], end) - start
            if overlap > LEGATO_OVERLAP or overlap > LEGATO_SHARE * min(older[1] - older[0], end - start):
                raise DataError(
                    f"{path}: is polyphonic: notes {older[2]:.0f} and {pitch:.0f} overlap from {start:.2f} s on. "
                    "Put each voice on a track of its own, or allow polyphonic files, which keeps the newest note."
                )
        sounding.append(note)


def _newest_wins(notes: np.ndarray) -> np.ndarray:
    """Ends each note, sorted by start, where the next one begins; drops those that leaves without length."""
    notes = notes.copy()
    notes[:-1, 1] = np.minimum(notes[:-1, 1], notes[1:, 0])
    return notes[notes[:, 1] > notes[:, 0]]


def _bends_in_semitones(bends: np.ndarray, control_changes: np.ndarray) -> np.ndarray:
    """Converts pitch bends to semitones by the range in force.

    A change of the range moves a bent note at once. Of events at one time control changes come first.

    Args:
      bends: `[k, 2]` float64: time (s), bend (-8192..8191).
      control_changes: `[m, 3]` float64: time (s), number, value; among them those that set the range.

    Returns:
      `[k', 2]` float64: time (s), semitones; sorted by time.
    """
    events = [(time, 0, number, value) for time, number, value in control_changes]
    events += [(time, 1, bend, 0) for time, bend in bends]
    events.sort(key=lambda event: event[:2])
    selected = {_RPN_MSB: 127.0, _RPN_LSB: 127.0}
    registered = True
    semitones, cents, bend = DEFAULT_BEND_RANGE, 0.0, 0.0
    result = []
    for time, is_bend, number, value in events:
        if is_bend:
            bend = number
        elif number in selected:
            selected[number], registered = value, True
            continue
        elif number in (_NRPN_MSB, _NRPN_LSB):
            registered = False
            continue
        elif number in (_DATA_MSB, _DATA_LSB) and registered and not any(selected.values()):
            semitones, cents = (value, cents) if number == _DATA_MSB else (semitones, value)
            if not bend:
                continue
        else:
            continue
        result.append((time, bend / _BEND_STEPS * (semitones + cents / 100.0)))
    return np.array(result, dtype=np.float64).reshape([-1, 2])


def write_midi(voice: Voice, path: str | os.PathLike, tempo: float = 120.0) -> None:
    """Writes a voice as a Standard MIDI file of type 0 on channel 1, with 960 ticks per beat.

    Where there are pitch bends, their range is written (registered parameter 0) as wide as they need, in place of the
    controllers of the voice that set such parameters. What ended before time 0 is left out, and what began before it
    begins there.

    Args:
      voice: Notes with whole pitches in 0..127.
      path: The file.
      tempo: Beats per minute.

    Raises:
      DataError: The file can't be written.
      ValueError: A pitch is not a MIDI note number, or a bend is wider than 127 semitones.
    """
    import mido

    pitches = voice.notes[:, 2]
    if np.any((pitches != np.round(pitches)) | (pitches < 0) | (pitches > 127)):
        raise ValueError("MIDI files take whole pitches from 0 to 127; express others as pitch bends.")
    ticks_per_second = _WRITE_TICKS_PER_BEAT * tempo / 60.0

    def tick(time: float) -> int:
        return max(round(time * ticks_per_second), 0)

    controls, control_changes = [], voice.control_changes
    if len(voice.pitch_bends):
        widest = np.abs(voice.pitch_bends[:, 1]).max()
        bend_range = max(int(np.ceil(widest * _BEND_STEPS / (_BEND_STEPS - 1))), int(DEFAULT_BEND_RANGE))
        if bend_range > 127:
            raise ValueError(f"A pitch bend of {widest:.1f} semitones is wider than MIDI allows (127).")
        for number, value in ((_RPN_MSB, 0), (_RPN_LSB, 0), (_DATA_MSB, bend_range), (_DATA_LSB, 0)):
            controls.append((0, mido.Message("control_change", control=number, value=value)))
        parameters = (_RPN_MSB, _RPN_LSB, _NRPN_MSB, _NRPN_LSB, _DATA_MSB, _DATA_LSB)
        control_changes = control_changes[~np.isin(control_changes[:, 1], parameters)]
    for time, number, value in control_changes:
        controls.append((tick(time), mido.Message("control_change", control=int(number), value=round(value))))
    for time, semitones in voice.pitch_bends:
        bend = min(round(semitones / bend_range * _BEND_STEPS), _BEND_STEPS - 1)
        controls.append((tick(time), mido.Message("pitchwheel", pitch=bend)))
    ends, starts = [], []
    for start, end, pitch, velocity in voice.notes:
        if end <= 0:
            continue
        ends.append((max(tick(end), tick(start) + 1), mido.Message("note_off", note=int(pitch))))
        velocity = min(max(round(velocity), 1), 127)
        starts.append((tick(start), mido.Message("note_on", note=int(pitch), velocity=velocity)))

    midi = mido.MidiFile(type=0, ticks_per_beat=_WRITE_TICKS_PER_BEAT)
    set_tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))
    midi.tracks.append(_delta_times([(0, set_tempo), *controls, *ends, *starts]))
    with write_aside(path) as aside:
        midi.save(aside)
