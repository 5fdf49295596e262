"""Standard MIDI Files mean what they say, come back as they were written, and end in one line where damaged."""

import io
import struct

import hypothesis
import hypothesis.strategies as st
import mido
import numpy as np
import pytest

from midi.midi_files import bend, bend_range, control, error_of, note, program, tempo, write_file
from midi.strategies import voices
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.allocation import divide
from neural_midi_synth.midi.events import MidiChannel, NoteBegan
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, read_parts, write_midi

# write_midi rounds to ticks: 960 per beat, and set_tempo to whole microseconds per beat, which adds up to 1e-6 of the
# time.
TICK = 1.0 / 960.0
PARAMETERS = [6, 38, 100, 101]


def read_voice(path, **choice):
    """The one voice of a file."""
    (voice,) = read_midi(path, **choice).voices
    return voice


def assert_same_voices(read, written, beats_per_minute=120.0):
    """Compares all but the controllers that set the bend range, to the resolution of a written file."""
    tolerance = {"rtol": 1e-6, "atol": TICK * 60.0 / beats_per_minute}
    assert len(read) == len(written)
    for a, b in zip(read, written):
        np.testing.assert_allclose(a.notes[:, :2], b.notes[:, :2], **tolerance)
        np.testing.assert_array_equal(a.notes[:, 2:], b.notes[:, 2:])
        changes = [v.control_changes[~np.isin(v.control_changes[:, 1], PARAMETERS)] for v in (a, b)]
        np.testing.assert_allclose(changes[0][:, 0], changes[1][:, 0], **tolerance)
        np.testing.assert_array_equal(changes[0][:, 1:], changes[1][:, 1:])
        np.testing.assert_allclose(a.pitch_bends[:, 0], b.pitch_bends[:, 0], **tolerance)
        # Half a step of the widest range, and a whole one at its upper end, which MIDI does not reach.
        np.testing.assert_allclose(a.pitch_bends[:, 1], b.pitch_bends[:, 1], rtol=0.0, atol=25.0 / 8192.0)


SETTINGS = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])


@SETTINGS
@hypothesis.given(voice=voices(), beats_per_minute=st.floats(40.0, 240.0))
def test_a_written_voice_reads_back(tmp_path, voice, beats_per_minute):
    path = tmp_path / "riff.mid"
    write_midi(voice, path, beats_per_minute)
    assert_same_voices(read_midi(path).voices, [voice], beats_per_minute)


@hypothesis.settings(SETTINGS, max_examples=30)
@hypothesis.given(written=st.lists(voices(), min_size=2, max_size=15))
def test_written_voices_read_back(tmp_path, written):
    path = tmp_path / "chords.mid"
    write_midi(Piece(written), path)
    assert_same_voices(read_midi(path).voices, written)
    (part,) = read_parts(path)
    assert part.midi_channels == tuple([*range(1, 10), *range(11, 17)][: len(written)])


def test_more_voices_than_midi_channels_share_one_if_they_share_their_controls(tmp_path):
    path, controls = tmp_path / "cluster.mid", ([[0.5, 55, 9]], [[0.25, 1.0]])
    cluster = Piece([Voice([[0, 1, 40 + i, 90]], *controls) for i in range(20)])
    write_midi(cluster, path)
    assert_same_voices(read_midi(path).voices, cluster.voices)
    with pytest.raises(ValueError, match="15 voices with controls of their own, not 21"):
        write_midi(Piece([*cluster.voices, Voice([[0, 1, 60, 90]])]), path)


def test_a_voice_that_begins_before_time_0_is_written_from_there(tmp_path):
    voice = Voice([[-2, -1, 38, 90], [-1, 1, 40, 90]], [[-3, 55, 9]], [[-1, 0.5]])
    write_midi(voice, tmp_path / "riff.mid")
    read = read_voice(tmp_path / "riff.mid")
    np.testing.assert_allclose(read.notes, [[0, 1, 40, 90]], atol=1e-9)
    np.testing.assert_array_equal(read.control_changes[-1], [0, 55, 9])
    np.testing.assert_array_equal(read.pitch_bends, [[0, 0.5]])


def test_a_note_shorter_than_a_tick_makes_no_chord(tmp_path):
    short = Voice([[1, 1.0001, 40, 90], [1.0001, 2, 43, 90]])
    write_midi(short, tmp_path / "riff.mid")
    np.testing.assert_allclose(read_voice(tmp_path / "riff.mid").notes, [[1, 2, 43, 90]], atol=1e-9)


@pytest.mark.parametrize("pitch", [60.5, -1, 128])
def test_pitches_midi_does_not_have_are_refused(tmp_path, pitch):
    with pytest.raises(ValueError, match="whole pitches"):
        write_midi(Voice([[0, 1, pitch, 100]]), tmp_path / "riff.mid")
    with pytest.raises(ValueError, match="wider than MIDI"):
        write_midi(Voice([[0, 1, 60, 100]], pitch_bends=[[0, 2.0 * max(abs(pitch), 100)]]), tmp_path / "riff.mid")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["riff.mid", "riff.MID", "riff.Midi"])
@pytest.mark.parametrize("type", [0, 1])
def test_both_types_and_all_suffixes_are_read(tmp_path, name, type):
    path = write_file(tmp_path / name, [*note(0.5, 1.0, 40, 64), control(0.25, 55, 127)], type=type)
    for source in (path, str(path)):
        voice = read_voice(source)
        np.testing.assert_allclose(voice.notes, [[0.5, 1.0, 40, 64]], atol=1e-9)
        np.testing.assert_allclose(voice.control_changes, [[0.25, 55, 127]], atol=1e-9)
        assert voice.pitch_bends.shape == (0, 2)


def test_a_tempo_map_on_any_track_is_followed(tmp_path):
    # At 120 until 1 s, then at 60 until 3 s (which were 2 s), then at 240.
    notes = [*note(0.5, 1.5, 40), *note(2.5, 4.0, 41)]
    expected = [[0.5, 2.0, 40, 100], [3.25, 4.0, 41, 100]]
    tempos = [tempo(1.0, 60.0), tempo(2.0, 240.0)]
    for tracks in ([tempos, notes], [notes, tempos], [[*tempos, *notes]], [tempos[:1], notes, tempos[1:]]):
        voice = read_voice(write_file(tmp_path / "riff.mid", *tracks))
        np.testing.assert_allclose(voice.notes, expected, atol=1e-9)


def test_notes_of_one_pitch_pair_first_in_first_out(tmp_path):
    path = write_file(tmp_path / "riff.mid", [*note(0, 1, 40), *note(0.9, 2, 40)])
    np.testing.assert_allclose(read_voice(path).notes[:, :2], [[0, 0.9], [0.9, 2]], atol=1e-9)
    # The first note ends where the string is struck again, the second by its own note-off.
    for second in (0.9, 1.0, 1.1):
        path = write_file(tmp_path / "riff.mid", [*note(second, 2, 40), *note(0, 1, 40)])
        np.testing.assert_allclose(read_voice(path).notes[:, :2], [[0, min(second, 1)], [second, 2]], atol=1e-3)


def test_controls_on_a_track_without_notes_belong_to_their_midi_channel(tmp_path):
    controls = [control(0.5, 55, 127), control(0.5, 55, 1, channel=3), bend(0.5, 4096), bend(0.5, 1, channel=3)]
    voice = read_voice(write_file(tmp_path / "riff.mid", controls, note(0, 1, 40)))
    np.testing.assert_array_equal(voice.control_changes, [[0.5, 55, 127]])
    np.testing.assert_array_equal(voice.pitch_bends, [[0.5, 1.0]])


def test_tracks_on_one_midi_channel_keep_their_own_controls(tmp_path):
    first = [*note(0, 1, 60), control(0, 55, 10), control(0, 64, 127), bend(0.5, 4096)]
    second = [*note(0, 1, 40), control(0, 55, 20), control(2, 7, 1)]
    path = write_file(tmp_path / "song.mid", first, second)
    assert "several instruments" in error_of(path, midi_channel=1)
    voice = read_voice(path, track=2)
    np.testing.assert_array_equal(voice.control_changes, [[0, 55, 20], [2, 7, 1]])
    np.testing.assert_array_equal(voice.notes[:, 1], [1])
    assert not len(voice.pitch_bends)


def test_the_bend_range_may_be_set_on_a_sibling_track(tmp_path):
    lead = [*note(0, 1, 60), *bend_range(0, 12)]
    bass = [*note(0, 1, 40), bend(0.5, 4096)]
    other = [*note(0, 1, 50, channel=1), bend(0.5, 4096, channel=1)]
    for tracks in ([lead, bass, other], [bass, other, lead]):
        path = write_file(tmp_path / "song.mid", *tracks)
        bends = {part.piece.notes[0, 2]: part.piece.voices[0].pitch_bends for part in read_parts(path)}
        np.testing.assert_array_equal(bends[40], [[0.5, 6.0]])
        np.testing.assert_array_equal(bends[50], [[0.5, 1.0]])  # Another MIDI channel.
        assert not len(bends[60])


def test_program_changes_do_not_divide_an_instrument(tmp_path):
    events = [*note(0, 1, 40), control(0.5, 55, 9), program(1.0, 29), *note(1, 2, 41)]
    voice = read_voice(write_file(tmp_path / "riff.mid", events))
    np.testing.assert_array_equal(voice.notes[:, 2], [40, 41])
    np.testing.assert_array_equal(voice.control_changes, [[0.5, 55, 9]])


def test_the_bend_range_is_honoured_as_it_changes(tmp_path):
    events = [bend(0.0, 4096), *bend_range(0.5, 12, 50), control(0.5, 6, 77)]
    events += [bend(1.0, -8192), bend(1.5, 0), *note(0, 2, 40)]
    voice = read_voice(write_file(tmp_path / "riff.mid", events))
    # The new range moves the bend that is held: first its semitones, then its cents.
    expected = [[0.0, 1.0], [0.5, 6.0], [0.5, 6.25], [1.0, -12.5], [1.5, 0.0]]
    np.testing.assert_allclose(voice.pitch_bends, expected, atol=1e-9)


def test_a_bend_in_force_before_the_first_note_is_kept(tmp_path):
    path = write_file(tmp_path / "riff.mid", [bend(0, 8191), control(0, 55, 3), *note(1, 2, 40)])
    np.testing.assert_allclose(read_voice(path).pitch_bends, [[0.0, 2.0 * 8191 / 8192]], atol=1e-9)


def test_the_sustain_pedal_holds_notes_and_what_it_holds_goes_on_in_a_voice_of_its_own(tmp_path):
    events = [
        *note(0.0, 0.5, 40),
        control(0.25, 64, 127),
        *note(1.0, 1.5, 43),
        control(2.0, 64, 0),
        *note(2.5, 3.0, 45),
    ]
    first, second = read_midi(write_file(tmp_path / "riff.mid", events)).voices
    np.testing.assert_allclose(first.notes, [[0.0, 2.0, 40, 100], [2.5, 3.0, 45, 100]], atol=1e-9)
    np.testing.assert_allclose(second.notes, [[1.0, 2.0, 43, 100]], atol=1e-9)
    for voice in (first, second):
        np.testing.assert_allclose(voice.control_changes, [[0.25, 64, 127], [2.0, 64, 0]], atol=1e-9)
    (one,) = read_midi(tmp_path / "riff.mid", most_voices=1).voices  # Its keys are played one at a time.
    np.testing.assert_allclose(one.notes[:, :3], [[0.0, 1.0, 40], [1.0, 2.0, 43], [2.5, 3.0, 45]], atol=1e-9)
    write_file(tmp_path / "chord.mid", [*note(0, 1, 40), *note(0, 1, 43)])
    assert len(read_midi(tmp_path / "chord.mid", most_voices=1).voices) == 2


def test_a_pedal_on_a_track_of_its_own_holds_also_after_the_last_note(tmp_path):
    pedal = [control(0.5, 64, 127), control(5.0, 64, 0)]
    for tracks in ([pedal, note(0, 1, 40)], [note(0, 1, 40), pedal]):
        path = write_file(tmp_path / "riff.mid", *tracks)
        np.testing.assert_allclose(read_voice(path).notes, [[0, 5, 40, 100]], atol=1e-9)
    path = write_file(tmp_path / "riff.mid", [control(0.5, 64, 127, channel=1)], note(0, 1, 40))
    np.testing.assert_allclose(read_voice(path).notes, [[0, 1, 40, 100]], atol=1e-9)


def test_a_pedal_that_never_rises_holds_to_the_end_of_the_track(tmp_path):
    events = [control(0.0, 64, 127), *note(0.0, 0.5, 40), *note(1.0, 1.5, 43), control(3.0, 1, 0)]
    path = write_file(tmp_path / "riff.mid", events, [control(9.0, 1, 0)])
    np.testing.assert_allclose(read_midi(path).notes[:, :2], [[0.0, 3.0], [1.0, 3.0]], atol=1e-9)


def test_the_pedal_works_on_the_drum_channel_too(tmp_path):
    events = [control(0.0, 64, 127, channel=9), *note(0, 0.5, 40, channel=9), control(1.0, 64, 0, channel=9)]
    path = write_file(tmp_path / "riff.mid", events)
    np.testing.assert_allclose(read_voice(path).notes[:, :2], [[0.0, 1.0]], atol=1e-9)


def test_channel_mode_messages_end_notes(tmp_path):
    held = [control(0.0, 64, 127), *note(0, 9, 40)]
    for events, end in (
        ([control(1, 120, 0)], 1),  # All sound off
        ([control(1, 123, 0), control(2, 64, 0)], 2),  # All notes off: the pedal still holds.
        ([control(1, 121, 0)], 9),  # Reset all controllers: the key is still down.
        ([control(1, 123, 0), control(2, 121, 0)], 2),
    ):
        path = write_file(tmp_path / "riff.mid", [*held, *events, control(9, 1, 0)])
        np.testing.assert_allclose(read_voice(path).notes[:, :2], [[0, end]], atol=1e-9)


def test_legato_overlaps_are_cut_where_the_newer_note_begins(tmp_path):
    path = write_file(tmp_path / "riff.mid", [*note(0, 1.05, 40), *note(1, 2, 43), *note(1.95, 3, 40)])
    np.testing.assert_allclose(read_voice(path).notes[:, :2], [[0, 1], [1, 1.95], [1.95, 3]], atol=1e-3)


def test_a_chord_is_a_voice_a_note_and_all_have_the_controls(tmp_path):
    chord = [*note(0, 1, 43), *note(0, 1, 48), *note(0, 1, 40), control(0.5, 55, 9), bend(0.5, 4096)]
    piece = read_midi(write_file(tmp_path / "song.mid", [*chord, *note(2, 3, 48)]))
    pitches = [voice.notes[:, 2].tolist() for voice in piece.voices]
    assert pitches == [[40], [43], [48, 48]]
    for voice in piece.voices:
        np.testing.assert_array_equal(voice.control_changes, [[0.5, 55, 9]])
        np.testing.assert_array_equal(voice.pitch_bends, [[0.5, 1.0]])


def test_a_note_that_is_never_ended_lasts_to_the_end_of_its_track(tmp_path):
    path = write_file(tmp_path / "riff.mid", [note(0, 9, 40)[0], control(3, 55, 0)], [control(5, 55, 1)])
    np.testing.assert_allclose(read_voice(path).notes, [[0, 3, 40, 100]], atol=1e-9)


def test_notes_without_length_are_left_out(tmp_path):
    zero = note(1, 1, 41)
    path = write_file(tmp_path / "riff.mid", [*note(0, 2, 40), *zero])
    np.testing.assert_array_equal(read_voice(path).notes[:, 2], [40])
    assert "no length" in error_of(write_file(tmp_path / "none.mid", zero))


def test_running_status_is_understood(tmp_path):
    track = bytes([0, 0x90, 40, 100, 96, 40, 0, 0, 43, 90, 96, 43, 0, 0, 0xFF, 0x2F, 0])
    path = tmp_path / "riff.mid"
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track)
    np.testing.assert_allclose(read_voice(path).notes, [[0, 0.5, 40, 100], [0.5, 1, 43, 90]], atol=1e-9)


def test_a_key_that_does_not_exist_does_not_matter(tmp_path):
    track = bytes([0, 0xFF, 0x59, 2, 9, 7, 0, 0x90, 40, 100, 96, 40, 0, 0, 0xFF, 0x2F, 0])
    path = tmp_path / "riff.mid"
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track)
    np.testing.assert_allclose(read_voice(path).notes, [[0, 0.5, 40, 100]], atol=1e-9)


def test_hours_of_midi_keep_their_time(tmp_path):
    path = write_file(tmp_path / "long.mid", [*note(0, 1, 40), *note(10_800, 10_801, 43)])
    np.testing.assert_allclose(read_voice(path).notes[1, :2], [10_800, 10_801], rtol=0.0, atol=1e-8)


def _content(ticks_per_beat: int = 480, type: int = 1) -> bytes:
    midi = mido.MidiFile(type=type, ticks_per_beat=ticks_per_beat)
    events = [*note(0, 1, 40), control(0, 64, 127), *note(1, 2, 43), bend(0, 99), program(0, 3), tempo(0, 100)]
    midi.tracks.append(mido.MidiTrack(message.copy(time=480) for _, message in events))
    content = io.BytesIO()
    midi.save(file=content)
    return content.getvalue()


def _with_time(delta: bytes) -> bytes:
    track = delta + bytes([0x90, 40, 100, 96, 40, 0, 0, 0xFF, 0x2F, 0])
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty (0 bytes)"),
        (b"these are my notes: C E G\n", "is not a Standard MIDI file"),
        (b"MThd", "is cut short"),
        (_content()[:20], "is cut short"),
        (_content()[:-7], "is cut short"),
        (_content(type=2), "of type 2"),
        (b"MThd" + struct.pack(">IHHbb", 6, 0, 1, -25, 40) + _content()[14:], "SMPTE"),
        (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 0) + _content()[14:], "SMPTE"),
        (b"MThd" + struct.pack(">IHHH", 6, 1, 0, 480), "has no notes"),
        (_with_time(b"\xff\xff\xff\x7f"), "probably damaged"),
        (_with_time(b"\xff" * 20_000 + b"\x7f"), "probably damaged"),
        (_content()[:22] + b"\xff\xff\xff" + _content()[25:], ""),
    ],
)
def test_what_is_no_midi_ends_in_one_line(tmp_path, content, what, capfd):
    path = tmp_path / "riff.mid"
    path.write_bytes(content)
    assert what in error_of(path)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    assert "no such file" in error_of(tmp_path / "none.mid")
    (tmp_path / "folder.mid").mkdir()
    assert "is a folder" in error_of(tmp_path / "folder.mid")


def test_a_file_with_controls_alone_has_no_notes(tmp_path):
    assert "has no notes" in error_of(write_file(tmp_path / "riff.mid", [control(0, 55, 1), tempo(0, 120)]))


def _read_or_told(path, content):
    path.write_bytes(content)
    try:
        for piece in [part.piece for part in read_parts(path)] + [read_midi(path)]:
            assert all(len(voice.notes) for voice in piece.voices)
    except DataError as error:
        assert "\n" not in str(error)


@SETTINGS
@hypothesis.given(position=st.integers(0, len(_content()) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_told(tmp_path, position, byte, cut):
    content = bytearray(_content())
    content[position] = byte
    _read_or_told(tmp_path / "riff.mid", content[: position + 1] if cut else content)


@st.composite
def hostile_files(draw) -> bytes:
    """A header with numbers that may lie, then tracks of made-up bytes, most of which begin as events do."""
    status = st.sampled_from([0x80, 0x90, 0x99, 0xB0, 0xC0, 0xE0, 0xF0, 0xF7, 0xFF]).map(lambda byte: bytes([byte]))
    event = st.tuples(st.binary(max_size=3), status, st.binary(max_size=4)).map(b"".join)
    tracks = draw(st.lists(st.lists(st.one_of(event, st.binary(max_size=8))).map(b"".join), max_size=3))
    n_tracks = draw(st.one_of(st.just(len(tracks)), st.integers(0, 65535)))
    division = draw(st.one_of(st.just(480), st.integers(0, 65535)))
    header = b"MThd" + struct.pack(">IHHH", 6, draw(st.integers(0, 3)), n_tracks, division)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


@SETTINGS
@hypothesis.given(content=hostile_files())
def test_hostile_bytes_are_read_or_told(tmp_path, content):
    _read_or_told(tmp_path / "riff.mid", content)


@st.composite
def channel_events(draw) -> list[tuple[int, str, tuple]]:
    """Events of a MIDI channel as (tick, method of `MidiChannel`, values), with few pitches, so that they meet."""
    pitch, numbers = st.integers(60, 63), st.sampled_from([6, 38, 64, 64, 64, 96, 100, 101, 120, 121, 123])
    event = st.one_of(
        st.tuples(st.just("note_on"), st.tuples(pitch, st.integers(0, 2))),
        st.tuples(st.just("note_on"), st.tuples(pitch, st.just(100))),
        st.tuples(st.just("note_off"), st.tuples(pitch)),
        st.tuples(st.just("control_change"), st.tuples(numbers, st.sampled_from([0, 1, 127]))),
        st.tuples(st.just("pitch_wheel"), st.tuples(st.integers(-8192, 8191))),
    )
    events = draw(st.lists(st.tuples(st.integers(0, 60), event), max_size=40))
    return [(60 * time, *event) for time, event in sorted(events, key=lambda event: event[0])]


def as_messages(events, channel=0) -> list:
    """The same events as messages with times in seconds at 120 beats a minute and 480 ticks a beat."""
    messages = []
    for tick, method, values in events:
        if method == "note_on":
            message = mido.Message("note_on", note=values[0], velocity=values[1], channel=channel)
        elif method == "note_off":
            message = mido.Message("note_off", note=values[0], channel=channel)
        elif method == "control_change":
            message = mido.Message("control_change", control=values[0], value=values[1], channel=channel)
        else:
            message = mido.Message("pitchwheel", pitch=values[0], channel=channel)
        messages.append((tick / 960, message))
    return messages


@SETTINGS
@hypothesis.given(events=channel_events())
def test_a_file_holds_the_notes_that_its_events_mean_when_played(tmp_path, events):
    channel, facts = MidiChannel(), []
    for tick, method, values in events:
        facts += getattr(channel, method)(tick / 960, *values)
    facts += channel.end(events[-1][0] / 960 if events else 0)
    notes = [fact.note for fact in facts if isinstance(fact, NoteBegan)]
    played = np.array([(n.start, n.end, n.pitch, n.velocity) for n in notes if n.end > n.start], np.float64)
    path = write_file(tmp_path / "riff.mid", as_messages(events))
    if not len(played):
        assert "no length" in error_of(path) or not notes
        return
    for voice, expected in zip(read_midi(path).voices, divide(played), strict=True):
        np.testing.assert_allclose(voice.notes, expected, atol=1e-9)


@SETTINGS
@hypothesis.given(events=st.lists(channel_events(), min_size=1, max_size=3))
def test_what_was_read_of_any_file_can_be_written_and_read_again(tmp_path, events):
    tracks = [as_messages(each, channel) + note(4, 5, 60, channel=channel) for channel, each in enumerate(events)]
    path = write_file(tmp_path / "song.mid", *tracks)
    piece = read_midi(path, all_tracks=True)
    hypothesis.assume(1 < len(piece.voices) < 16)
    write_midi(piece, tmp_path / "again.mid")
    again = read_midi(tmp_path / "again.mid")
    assert len(again.voices) == len(piece.voices)
    for a, b in zip(again.voices, piece.voices):
        np.testing.assert_allclose(a.notes, b.notes, atol=1e-6)
