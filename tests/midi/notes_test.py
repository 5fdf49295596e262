"""Voices survive MIDI files and windows; files that hold no single voice end in one line."""

import io
import pathlib
import struct

import hypothesis
import hypothesis.strategies as st
import mido
import numpy as np
import pytest

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.notes import Voice, read_midi, write_midi

# write_midi rounds to ticks: 960 per beat, and set_tempo to whole microseconds per beat, which adds up to 1e-6 of the
# time.
TICK = 1.0 / 960.0


def _midi(path: pathlib.Path, *tracks: list, type: int = 1, ticks_per_beat: int = 480) -> pathlib.Path:
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


def _note(start: float, end: float, pitch: int, velocity: int = 100, channel: int = 0) -> list:
    return [
        (start, mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)),
        (end, mido.Message("note_off", note=pitch, channel=channel)),
    ]


def _control(time: float, number: int, value: int, channel: int = 0) -> tuple:
    return time, mido.Message("control_change", control=number, value=value, channel=channel)


def _bend(time: float, value: int, channel: int = 0) -> tuple:
    return time, mido.Message("pitchwheel", pitch=value, channel=channel)


def _tempo(time: float, beats_per_minute: float) -> tuple:
    return time, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute))


def _name(text: str) -> tuple:
    return 0.0, mido.MetaMessage("track_name", name=text)


def _error(path: pathlib.Path, **choice) -> str:
    with pytest.raises(DataError) as caught:
        read_midi(path, **choice)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@st.composite
def voices(draw) -> Voice:
    """Voices without sustain pedal or registered parameters, in time steps that are exact in ticks and in binary."""
    times = sorted(draw(st.sets(st.integers(0, 4_000), min_size=2, max_size=24)))
    notes = [
        (start, draw(st.integers(start + 1, end)), draw(st.integers(0, 127)), draw(st.integers(1, 127)))
        for start, end in zip(times[:-1], times[1:], strict=True)
        if draw(st.booleans())
    ] or [(0, 1, 60, 100)]
    step = 1.0 / 128.0  # Fifteen ticks at 120 beats a minute; differences of its multiples are not rounded.
    numbers = st.sampled_from([1, 7, 11, 55, 56, 74])
    last = int(notes[-1][1])
    changes = draw(st.lists(st.tuples(st.integers(0, last), numbers, st.integers(0, 127)), max_size=20))
    bends = draw(st.lists(st.tuples(st.integers(0, last), st.floats(-24.0, 24.0)), max_size=20))
    return Voice(
        np.array(notes) * [step, step, 1, 1],
        np.array(changes).reshape([-1, 3]) * [step, 1, 1],
        np.array(bends).reshape([-1, 2]) * [step, 1],
    )


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(voice=voices(), tempo=st.floats(40.0, 240.0))
def test_a_written_voice_reads_back(tmp_path, voice, tempo):
    path = tmp_path / "riff.mid"
    write_midi(voice, path, tempo)
    read = read_midi(path)
    tolerance = {"rtol": 1e-6, "atol": TICK * 60.0 / tempo}
    np.testing.assert_allclose(read.notes[:, :2], voice.notes[:, :2], **tolerance)
    np.testing.assert_array_equal(read.notes[:, 2:], voice.notes[:, 2:])
    read_changes = read.control_changes[~np.isin(read.control_changes[:, 1], [6, 38, 100, 101])]
    np.testing.assert_allclose(read_changes[:, 0], voice.control_changes[:, 0], **tolerance)
    np.testing.assert_array_equal(read_changes[:, 1:], voice.control_changes[:, 1:])
    np.testing.assert_allclose(read.pitch_bends[:, 0], voice.pitch_bends[:, 0], **tolerance)
    # Half a step of the widest range, and a whole one at its upper end, which MIDI does not reach.
    np.testing.assert_allclose(read.pitch_bends[:, 1], voice.pitch_bends[:, 1], rtol=0.0, atol=25.0 / 8192.0)


def _in_force(events: np.ndarray, time: float, default: float) -> float:
    """Value of the last event at or before a time, the obvious way."""
    values = [value for event_time, value in events if event_time <= time]
    return values[-1] if values else default


def _sounding(voice: Voice, time: float) -> tuple:
    """What a player of the voice knows at a time: the note's start, end, pitch, velocity, or the pitch that is held."""
    begun = [note for note in voice.notes if note[0] <= time]
    if not begun:
        return (None,)
    start, end, pitch, velocity = begun[-1]
    return (start - time, end - time, pitch, velocity) if time < end else (None, pitch)


@hypothesis.settings(deadline=None)
@hypothesis.given(voice=voices(), start=st.integers(-100, 8_100), length=st.integers(0, 1_000))
def test_a_window_sounds_as_the_whole_does_there(voice, start, length):
    # Halves of the events' steps, so that windows begin and end on events as well as between them.
    step = 1.0 / 256.0
    window = voice.window(start * step, (start + length) * step)
    for i in range(0, length, max(length // 7, 1)):
        assert _sounding(voice, (start + i) * step) == _sounding(window, i * step)
        for number in np.unique(voice.control_changes[:, 1]):
            events = [v.control_changes[v.control_changes[:, 1] == number][:, [0, 2]] for v in (voice, window)]
            assert _in_force(events[0], (start + i) * step, -1.0) == _in_force(events[1], i * step, -1.0)
        bends = voice.pitch_bends, window.pitch_bends
        assert _in_force(bends[0], (start + i) * step, 0.0) == _in_force(bends[1], i * step, 0.0)


@hypothesis.settings(deadline=None)
@hypothesis.given(voice=voices(), start=st.integers(0, 8_000), length=st.integers(1, 1_000))
def test_a_window_holds_no_more_than_it_needs(voice, start, length):
    step = 1.0 / 256.0
    window, end = voice.window(start * step, (start + length) * step), length * step
    assert np.sum(window.notes[:, 1] <= 0.0) <= 1
    assert np.all(window.notes[:, 0] < end)
    before = window.control_changes[window.control_changes[:, 0] < 0.0]
    assert len(before) == len(np.unique(before[:, 1]))
    assert np.sum(window.pitch_bends[:, 0] <= 0.0) <= 1
    for events in (window.control_changes, window.pitch_bends):
        assert np.all(events[:, 0] < end)
        assert np.all(np.diff(events[:, 0]) >= 0.0)


def test_a_voice_without_notes_is_silent():
    voice = Voice([])
    assert voice.duration == 0.0
    assert voice.notes.shape == (0, 4)
    assert voice.window(1.0, 2.0).control_changes.shape == (0, 3)


def test_a_voice_sorts_its_events():
    voice = Voice([[1, 2, 60, 100], [0, 1, 62, 100]], [[3, 1, 0], [1, 1, 9], [1, 1, 8]], [[2, 1], [1, 0]])
    np.testing.assert_array_equal(voice.notes[:, 0], [0, 1])
    np.testing.assert_array_equal(voice.control_changes[:, 2], [9, 8, 0])
    np.testing.assert_array_equal(voice.pitch_bends[:, 0], [1, 2])
    assert voice.duration == 2.0


def test_transposing_moves_pitches_alone():
    voice = Voice([[0, 1, 60, 100]], [[0, 55, 127]], [[0, 1.5]])
    moved = voice.transpose(-1.5)
    np.testing.assert_array_equal(moved.notes, [[0, 1, 58.5, 100]])
    np.testing.assert_array_equal(moved.control_changes, voice.control_changes)
    np.testing.assert_array_equal(moved.pitch_bends, voice.pitch_bends)


@pytest.mark.parametrize("name", ["riff.mid", "riff.MID", "riff.Midi"])
@pytest.mark.parametrize("type", [0, 1])
def test_both_types_and_all_suffixes_are_read(tmp_path, name, type):
    path = _midi(tmp_path / name, [*_note(0.5, 1.0, 40, 64), _control(0.25, 55, 127)], type=type)
    voice = read_midi(path)
    np.testing.assert_allclose(voice.notes, [[0.5, 1.0, 40, 64]], atol=1e-9)
    np.testing.assert_allclose(voice.control_changes, [[0.25, 55, 127]], atol=1e-9)
    assert voice.pitch_bends.shape == (0, 2)


def test_a_tempo_map_on_any_track_is_followed(tmp_path):
    # At 120 until 1 s, then at 60 until 3 s (which were 2 s), then at 240.
    notes = [*_note(0.5, 1.5, 40), *_note(2.5, 4.0, 41)]
    expected = [[0.5, 2.0, 40, 100], [3.25, 4.0, 41, 100]]
    tempos = [_tempo(1.0, 60.0), _tempo(2.0, 240.0)]
    for tracks in ([tempos, notes], [notes, tempos], [[*tempos, *notes]], [tempos[:1], notes, tempos[1:]]):
        voice = read_midi(_midi(tmp_path / "riff.mid", *tracks))
        np.testing.assert_allclose(voice.notes, expected, atol=1e-9)


def test_an_instrument_is_chosen_by_track_name_or_channel(tmp_path):
    lead = [_name("Lead"), *_note(0, 1, 60, channel=0), _control(0, 55, 10), _bend(0, 4096)]
    bass = [_name("Bässe".encode().decode("latin1")), *_note(0, 2, 40, channel=1), _control(0, 55, 20, channel=1)]
    drums = [*_note(0, 1, 36, channel=9), *_note(0, 1, 42, channel=9)]
    path = _midi(tmp_path / "song.mid", [_tempo(0, 120)], lead, bass, drums)
    message = _error(path)
    assert "Choose one by track or channel" in message
    for part in ("track 2 'Lead' channel 1: 1 notes", "track 3 'Bässe' channel 2", "track 4 channel 10 (drums): 2"):
        assert part in message
    for choice in ({"track": 2}, {"track": "2"}, {"track": "Lead"}, {"channel": 1}, {"track": 2, "channel": 1}):
        voice = read_midi(path, **choice)
        assert voice.notes[0, 2] == 60
        np.testing.assert_array_equal(voice.control_changes, [[0, 55, 10]])
        np.testing.assert_array_equal(voice.pitch_bends, [[0, 1.0]])
    for choice in ({"track": 3}, {"track": "Bässe"}, {"channel": 2}):
        voice = read_midi(path, **choice)
        assert voice.notes[0, 2] == 40
        np.testing.assert_array_equal(voice.control_changes, [[0, 55, 20]])
        assert not len(voice.pitch_bends)
    for choice in ({"track": 1}, {"track": "Organ"}, {"channel": 5}, {"track": 2, "channel": 2}, {"track": 99}):
        assert "has no notes on" in _error(path, **choice)


def test_tracks_on_one_channel_keep_their_own_controls(tmp_path):
    first = [*_note(0, 1, 60), _control(0, 55, 10)]
    second = [*_note(0, 1, 40), _control(0, 55, 20)]
    path = _midi(tmp_path / "song.mid", first, second)
    assert "several instruments" in _error(path, channel=1)
    np.testing.assert_array_equal(read_midi(path, track=2).control_changes, [[0, 55, 20]])


def test_controls_on_a_track_without_notes_belong_to_their_channel(tmp_path):
    path = _midi(tmp_path / "riff.mid", [_control(0.5, 55, 127), _control(0.5, 55, 1, channel=3)], _note(0, 1, 40))
    np.testing.assert_array_equal(read_midi(path).control_changes, [[0.5, 55, 127]])


def test_program_changes_do_not_divide_an_instrument(tmp_path):
    program = (1.0, mido.Message("program_change", program=29))
    path = _midi(tmp_path / "riff.mid", [*_note(0, 1, 40), _control(0.5, 55, 9), program, *_note(1, 2, 41)])
    voice = read_midi(path)
    np.testing.assert_array_equal(voice.notes[:, 2], [40, 41])
    np.testing.assert_array_equal(voice.control_changes, [[0.5, 55, 9]])


def test_a_list_of_many_instruments_is_cut(tmp_path):
    tracks = [[*_note(0, 1, 40, channel=i % 16)] for i in range(40)]
    message = _error(_midi(tmp_path / "song.mid", *tracks))
    assert "and 32 more" in message
    assert read_midi(tmp_path / "song.mid", track=33).notes[0, 2] == 40


def test_the_bend_range_is_honoured_as_it_changes(tmp_path):
    def set_range(time, semitones, cents):
        values = ((101, 0), (100, 0), (6, semitones), (38, cents), (101, 127), (100, 127), (6, 77))
        return [_control(time, number, value) for number, value in values]

    events = [_bend(0.0, 4096), *set_range(0.5, 12, 50), _bend(1.0, -8192), _bend(1.5, 0), *_note(0, 2, 40)]
    voice = read_midi(_midi(tmp_path / "riff.mid", events))
    # The new range moves the bend that is held: first its semitones, then its cents.
    expected = [[0.0, 1.0], [0.5, 6.0], [0.5, 6.25], [1.0, -12.5], [1.5, 0.0]]
    np.testing.assert_allclose(voice.pitch_bends, expected, atol=1e-9)


def test_other_parameters_leave_the_bend_range_alone(tmp_path):
    fine_tuning = [_control(0, number, value) for number, value in ((101, 0), (100, 1), (6, 24))]
    unregistered = [_control(0, number, value) for number, value in ((101, 0), (100, 0), (99, 0), (98, 0), (6, 24))]
    for events in (fine_tuning, unregistered, [_control(0, 6, 24)]):
        voice = read_midi(_midi(tmp_path / "riff.mid", [*events, _bend(0.5, 4096), *_note(0, 1, 40)]))
        np.testing.assert_allclose(voice.pitch_bends, [[0.5, 1.0]], atol=1e-9)


def test_a_bend_in_force_before_the_first_note_is_kept(tmp_path):
    path = _midi(tmp_path / "riff.mid", [_bend(0, 8191), _control(0, 55, 3), *_note(1, 2, 40)])
    np.testing.assert_allclose(read_midi(path).pitch_bends, [[0.0, 2.0 * 8191 / 8192]], atol=1e-9)


def test_the_sustain_pedal_holds_notes_until_its_release_or_the_next_note(tmp_path):
    events = [
        *_note(0.0, 0.5, 40),
        _control(0.25, 64, 127),
        *_note(1.0, 1.5, 43),
        _control(2.0, 64, 0),
        *_note(2.5, 3.0, 45),
    ]
    voice = read_midi(_midi(tmp_path / "riff.mid", events))
    expected = [[0.0, 1.0, 40, 100], [1.0, 2.0, 43, 100], [2.5, 3.0, 45, 100]]
    np.testing.assert_allclose(voice.notes, expected, atol=1e-9)
    np.testing.assert_allclose(voice.control_changes, [[0.25, 64, 127], [2.0, 64, 0]], atol=1e-9)


def test_a_pedal_that_is_never_released_holds_to_the_next_note(tmp_path):
    events = [_control(0.0, 64, 127), *_note(0.0, 0.5, 40), *_note(1.0, 1.5, 43)]
    voice = read_midi(_midi(tmp_path / "riff.mid", events))
    np.testing.assert_allclose(voice.notes[:, :2], [[0.0, 1.0], [1.0, 1.5]], atol=1e-9)


def test_the_pedal_works_on_the_drum_channel_too(tmp_path):
    events = [_control(0.0, 64, 127, channel=9), *_note(0, 0.5, 40, channel=9), _control(1.0, 64, 0, channel=9)]
    np.testing.assert_allclose(read_midi(_midi(tmp_path / "riff.mid", events)).notes[:, :2], [[0.0, 1.0]], atol=1e-9)


def test_legato_overlaps_are_cut_where_the_newer_note_begins(tmp_path):
    path = _midi(tmp_path / "riff.mid", [*_note(0, 1.05, 40), *_note(1, 2, 43), *_note(1.95, 3, 40)])
    np.testing.assert_allclose(read_midi(path).notes[:, :2], [[0, 1], [1, 1.95], [1.95, 3]], atol=1e-3)


@pytest.mark.parametrize(
    "notes",
    [
        [_note(2, 3, 40), _note(2, 3, 43)],  # a chord
        [_note(2, 3, 40), _note(2.03, 3, 43)],  # strummed
        [_note(1.95, 2.03, 40), _note(1.95, 2.03, 43)],  # short
        [_note(0, 9, 40), _note(2, 2.05, 43)],  # a melody over a pedal note
        [_note(0, 9, 40), _note(2, 3, 43), _note(4, 5, 45)],
    ],
)
def test_polyphony_is_told_with_its_time(tmp_path, notes):
    message = _error(_midi(tmp_path / "song.mid", sum(notes, [])))
    assert "is polyphonic" in message
    start = max(notes[0][0][0], notes[1][0][0])
    assert f"notes 40 and 43 overlap from {start:.2f} s on" in message


def test_a_polyphonic_file_is_reduced_to_its_newest_notes(tmp_path):
    chord = [*_note(0, 1, 43), *_note(0, 1, 48), *_note(0, 1, 40)]
    path = _midi(tmp_path / "song.mid", [*chord, *_note(0.5, 0.75, 36), *_note(2, 3, 41)])
    voice = read_midi(path, polyphonic=True)
    np.testing.assert_allclose(voice.notes[:, :3], [[0, 0.5, 48], [0.5, 0.75, 36], [2, 3, 41]], atol=1e-9)


def test_a_repeated_pitch_is_struck_again(tmp_path):
    # The second note-on comes before, at, and after the first one's note-off.
    for second in (0.9, 1.0, 1.1):
        path = _midi(tmp_path / "riff.mid", [*_note(second, 2, 40), *_note(0, 1, 40)])
        voice = read_midi(path)
        assert len(voice.notes) == 2
        np.testing.assert_allclose(voice.notes[:, 0], [0, second], atol=1e-3)


def test_a_note_that_is_never_ended_lasts_to_the_end_of_its_track(tmp_path):
    path = _midi(tmp_path / "riff.mid", [_note(0, 9, 40)[0], _control(3, 55, 0)], [_control(5, 55, 1)])
    np.testing.assert_allclose(read_midi(path).notes, [[0, 3, 40, 100]], atol=1e-9)


def test_notes_without_length_are_left_out(tmp_path):
    zero = _note(1, 1, 41)
    path = _midi(tmp_path / "riff.mid", [*_note(0, 2, 40), *zero])
    np.testing.assert_array_equal(read_midi(path).notes[:, 2], [40])
    assert "no length" in _error(_midi(tmp_path / "none.mid", zero))


def test_running_status_is_understood(tmp_path):
    track = bytes([0, 0x90, 40, 100, 96, 40, 0, 0, 43, 90, 96, 43, 0, 0, 0xFF, 0x2F, 0])
    path = tmp_path / "riff.mid"
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track)
    np.testing.assert_allclose(read_midi(path).notes, [[0, 0.5, 40, 100], [0.5, 1, 43, 90]], atol=1e-9)


def test_hours_of_midi_keep_their_time(tmp_path):
    path = _midi(tmp_path / "long.mid", [*_note(0, 1, 40), *_note(10_800, 10_801, 43)])
    np.testing.assert_allclose(read_midi(path).notes[1, :2], [10_800, 10_801], rtol=0.0, atol=1e-8)


def _content(ticks_per_beat: int = 480, type: int = 1) -> bytes:
    midi = mido.MidiFile(type=type, ticks_per_beat=ticks_per_beat)
    events = [*_note(0, 1, 40), *_note(1, 2, 43)]
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
        (_content()[:22] + b"\xff\xff\xff" + _content()[25:], ""),
    ],
)
def test_what_is_no_midi_ends_in_one_line(tmp_path, content, what, capfd):
    path = tmp_path / "riff.mid"
    path.write_bytes(content)
    assert what in _error(path)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    assert "no such file" in _error(tmp_path / "none.mid")
    (tmp_path / "folder.mid").mkdir()
    assert "is a folder" in _error(tmp_path / "folder.mid")


def test_a_file_with_controls_alone_has_no_notes(tmp_path):
    assert "has no notes" in _error(_midi(tmp_path / "riff.mid", [_control(0, 55, 1), _tempo(0, 120)]))


@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(position=st.integers(0, len(_content()) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_told(tmp_path, position, byte, cut):
    content = bytearray(_content())
    content[position] = byte
    path = tmp_path / "riff.mid"
    path.write_bytes(content[: position + 1] if cut else content)
    try:
        assert len(read_midi(path).notes)
    except DataError as error:
        assert "\n" not in str(error)


def test_a_voice_that_begins_before_time_0_is_written_from_there(tmp_path):
    voice = Voice([[-2, -1, 38, 90], [-1, 1, 40, 90]], [[-3, 55, 9]], [[-1, 0.5]])
    write_midi(voice, tmp_path / "riff.mid")
    read = read_midi(tmp_path / "riff.mid")
    np.testing.assert_allclose(read.notes, [[0, 1, 40, 90]], atol=1e-9)
    np.testing.assert_array_equal(read.control_changes[-1], [0, 55, 9])
    np.testing.assert_array_equal(read.pitch_bends, [[0, 0.5]])


@pytest.mark.parametrize("pitch", [60.5, -1, 128])
def test_pitches_midi_does_not_have_are_refused(tmp_path, pitch):
    with pytest.raises(ValueError, match="whole pitches"):
        write_midi(Voice([[0, 1, pitch, 100]]), tmp_path / "riff.mid")
    with pytest.raises(ValueError, match="wider than MIDI"):
        write_midi(Voice([[0, 1, 60, 100]], pitch_bends=[[0, 2.0 * max(abs(pitch), 100)]]), tmp_path / "riff.mid")
    assert not list(tmp_path.iterdir())
