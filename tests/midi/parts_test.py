"""The instruments of a file are found, listed and chosen; MIDI channels that are strings are one instrument."""

import numpy as np
import pytest

from midi.midi_files import bend, bend_range, control, error_of, name, note, program, tempo, write_file
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.parts import best_part
from neural_midi_synth.midi.standard_midi_file import read_midi, read_parts


def pitches_of(piece):
    return [voice.notes[:, 2].tolist() for voice in piece.voices]


@pytest.fixture
def song(tmp_path):
    """Lead, bass and drums, each with a controller."""
    lead = [name("Lead"), *note(0, 1, 60, channel=0), control(0, 55, 10), bend(0, 4096)]
    bass = [name("Bässe".encode().decode("latin1")), *note(0, 2, 40, channel=1), control(0, 55, 20, channel=1)]
    drums = [*note(0, 1, 36, channel=9), *note(0, 1, 42, channel=9)]
    return write_file(tmp_path / "song.mid", [tempo(0, 120)], lead, bass, drums)


def test_an_instrument_is_chosen_by_track_name_or_midi_channel(song):
    message = error_of(song)
    assert "has several instruments. Choose one by track or midi_channel, or play them together with all" in message
    for part in (
        "track 2 'Lead' MIDI channel 1: 1 notes",
        "track 3 'Bässe' MIDI channel 2: 1",
        "track 4 MIDI channel 10 (drums): 2",
    ):
        assert part in message
    lead = [{"track": 2}, {"track": "2"}, {"track": "Lead"}, {"midi_channel": 1}, {"track": 2, "midi_channel": 1}]
    for choice in lead:
        (voice,) = read_midi(song, **choice).voices
        assert voice.notes[0, 2] == 60
        np.testing.assert_array_equal(voice.control_changes, [[0, 55, 10]])
        np.testing.assert_array_equal(voice.pitch_bends, [[0, 1.0]])
    for choice in ({"track": 3}, {"track": "Bässe"}, {"midi_channel": 2}):
        (voice,) = read_midi(song, **choice).voices
        assert voice.notes[0, 2] == 40
        np.testing.assert_array_equal(voice.control_changes, [[0, 55, 20]])
        assert not len(voice.pitch_bends)
    for choice in (
        {"track": 1},
        {"track": "Organ"},
        {"midi_channel": 5},
        {"track": 2, "midi_channel": 2},
        {"track": 99},
    ):
        message = error_of(song, **choice)
        assert "has no notes on" in message
        assert "'Lead'" in message
    assert "midi_channel 5" in error_of(song, midi_channel=5)


def test_all_tracks_are_all_instruments_but_drums(song):
    assert pitches_of(read_midi(song, all_tracks=True)) == [[60], [40]]
    assert pitches_of(read_midi(song, track=3, all_tracks=True)) == [[40]]
    assert pitches_of(read_midi(song, track=4)) == [[36], [42]]
    assert "has only drums" in error_of(song, track=4, all_tracks=True)


def test_the_parts_of_a_song_are_told(song):
    lead, bass, drums = read_parts(song)
    assert (lead.track, lead.name, lead.midi_channels, lead.program, lead.is_drums) == (2, "Lead", (1,), None, False)
    assert (bass.track, bass.name, bass.midi_channels) == (3, "Bässe", (2,))
    assert drums.is_drums
    assert pitches_of(drums.piece) == [[36], [42]]


def test_a_list_of_many_instruments_is_cut(tmp_path):
    tracks = [[*note(0, 1, 40, channel=i % 16)] for i in range(40)]
    message = error_of(write_file(tmp_path / "song.mid", *tracks))
    assert "and 32 more" in message
    assert read_midi(tmp_path / "song.mid", track=33).notes[0, 2] == 40


STRINGS = [
    [*note(0, 2, 40, channel=0), control(0, 55, 1, channel=0), *bend_range(0, 12, channel=0), bend(1, 4096, 0)],
    [*note(0.5, 2, 45, channel=1), *note(1.95, 3, 47, channel=1), control(0, 55, 2, channel=1)],
    [*note(1, 2, 50, channel=5)],
]


def assert_strings(piece):
    assert pitches_of(piece) == [[40], [45, 47], [50]]
    low, middle, high = piece.voices
    np.testing.assert_array_equal(low.control_changes[0], [0, 55, 1])
    np.testing.assert_array_equal(low.pitch_bends, [[1, 6.0]])
    np.testing.assert_array_equal(middle.control_changes, [[0, 55, 2]])
    assert not len(middle.pitch_bends)
    np.testing.assert_allclose(middle.notes[:, :2], [[0.5, 1.95], [1.95, 3]], atol=1e-3)
    assert not len(high.control_changes)


@pytest.mark.parametrize("type", [0, 1])
def test_midi_channels_of_one_track_are_strings(tmp_path, type):
    path = write_file(tmp_path / "guitar.mid", [*sum(STRINGS, []), program(0, 27), program(0, 27, 1)], type=type)
    assert_strings(read_midi(path))
    (part,) = read_parts(path)
    assert (part.track, part.midi_channels, part.program) == (1, (1, 2, 6), 27)
    assert part.title == "track 1 MIDI channels 1, 2, 6"


def test_midi_channels_of_several_tracks_are_strings(tmp_path):
    path = write_file(tmp_path / "guitar.mid", [tempo(0, 120), program(0, 27)], *reversed(STRINGS))
    assert_strings(read_midi(path))
    (part,) = read_parts(path)
    assert (part.track, part.midi_channels, part.program) == (2, (1, 2, 6), 27)
    assert pitches_of(read_midi(path, midi_channel=2)) == [[45, 47]]
    assert pitches_of(read_midi(path, track=4)) == [[40]]


def test_strings_of_one_track_in_a_song_are_one_instrument(tmp_path):
    guitar = [name("Guitar"), *sum(STRINGS, [])]
    piano = [name("Piano"), *note(0, 2, 60, channel=3), *note(0, 2, 64, channel=3)]
    path = write_file(tmp_path / "song.mid", guitar, piano, note(0, 1, 36, channel=9))
    assert [part.midi_channels for part in read_parts(path)] == [(1, 2, 6), (4,), (10,)]
    assert_strings(read_midi(path, track="Guitar"))
    assert pitches_of(read_midi(path, track="Piano")) == [[60], [64]]
    assert "track 1 'Guitar' MIDI channels 1, 2, 6: 4 notes" in error_of(path)


@pytest.mark.parametrize(
    "other",
    [
        note(0, 1, 36, channel=9),  # drums
        [*note(0, 2, 60, channel=3), *note(0, 2, 64, channel=3)],  # a chord on one MIDI channel
        [program(0, 27), *note(0, 2, 60, channel=3), program(0, 40, channel=3)],  # another program
    ],
)
def test_what_is_no_string_keeps_midi_channels_apart(tmp_path, other):
    path = write_file(tmp_path / "song.mid", [*note(0, 1, 60, channel=0), *note(0, 1, 50, channel=1), *other])
    assert len(read_parts(path)) == 3
    assert "several instruments" in error_of(path)


def test_a_pedal_holds_a_string_until_it_is_struck_again(tmp_path):
    pedal = [control(0, 64, 127, channel) for channel in (0, 1)] + [control(4, 64, 0, channel) for channel in (0, 1)]
    strings = [*note(0, 1, 40, channel=0), *note(2, 3, 43, channel=0), *note(0, 1, 50, channel=1)]
    low, high = read_midi(write_file(tmp_path / "guitar.mid", [*pedal, *strings])).voices
    np.testing.assert_allclose(low.notes[:, :2], [[0, 2], [2, 4]], atol=1e-9)
    np.testing.assert_allclose(high.notes[:, :2], [[0, 4]], atol=1e-9)


def test_a_program_comes_from_its_own_track_or_one_without_notes(tmp_path):
    own = [program(0, 30), *note(0, 1, 60), program(0.5, 31)]
    path = write_file(tmp_path / "song.mid", [program(0, 5), program(0, 6, 1)], own, note(0, 1, 40, channel=1))
    assert [part.program for part in read_parts(path)] == [30, 6]


def test_the_best_part_is_the_one_that_lies_best_in_a_range(tmp_path):
    bass = [program(0, 33), *note(0, 1, 30), *note(1, 2, 33)]
    guitar = [program(0, 27, 1), *(event for i in range(6) for event in note(i, i + 1, 50 + i, channel=1))]
    piano = [program(0, 0, 2), *(event for i in range(12) for event in note(i, i + 1, 20 + 8 * i, channel=2))]
    drums = [event for i in range(40) for event in note(i, i + 1, 50, channel=9)]
    parts = read_parts(write_file(tmp_path / "band.mid", drums, bass, guitar, piano))
    assert best_part(parts, 40, 86).midi_channels == (2,)
    assert best_part(parts, 28, 34).midi_channels == (1,)
    assert best_part(parts, 0, 127).midi_channels == (3,)
    assert best_part(parts, 126, 127).midi_channels == (1,)  # None fits: the first that is no drums.
    assert best_part(parts[:2], 50, 50).midi_channels == (1,)


def test_a_file_with_drums_alone_has_no_best_part(tmp_path):
    path = write_file(tmp_path / "drums.mid", note(0, 1, 36, channel=9))
    with pytest.raises(DataError, match="drums.mid: has only drums .*midi_channel 10"):
        best_part(read_parts(path), 0, 127)


def test_two_tracks_of_one_program_are_one_instrument(tmp_path):
    tracks = (
        [name("Right"), program(0.0, 0), *note(0.0, 1.0, 72), *note(0.0, 1.0, 76)],
        [name("Bass"), program(0.0, 33, channel=1), *note(0.0, 1.0, 40, channel=1)],
        [name("Left"), program(0.0, 0), *note(0.0, 1.0, 48)],
        [name("Without"), *note(0.0, 1.0, 50, channel=2), *note(0.2, 0.9, 60, channel=2)],
    )
    path = write_file(tmp_path / "piano.mid", *tracks)
    piano, bass, without = read_parts(path)
    assert (piano.track, piano.more_tracks, piano.title) == (1, (3,), "tracks 1, 3 'Right' MIDI channel 1")
    assert sorted(piano.piece.notes[:, 2]) == [48, 72, 76]
    assert len(piano.piece.voices) == 3
    assert (bass.track, without.track, without.program) == (2, 4, None)
    assert len(read_midi(path, track="Left").notes) == 1
