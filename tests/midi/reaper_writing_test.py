"""Projects for Reaper: whole, the same for the same input, and with everything in its place."""

import mido
import pytest
import rpp

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi import reaper_writing
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import WRITE_TICKS_PER_BEAT, timed_messages

VOICE = Voice([[0.5, 1.0, 40, 99], [1.0, 1.5, 47, 80]], [[0.0, 55, 127]])


def items():
    midi = reaper_writing.midi_source(timed_messages(VOICE, 90.0), WRITE_TICKS_PER_BEAT, 4000)
    return [
        reaper_writing.ReaperItem("take.flac", 2.0, reaper_writing.audio_source("../take.flac")),
        reaper_writing.ReaperItem("take.mid", 2.0, midi, position=2.5),
    ]


def write(path):
    recording, annotation = items()
    tracks = [("Guitar", [recording]), ("Notes", [annotation])]
    reaper_writing.write_reaper_project(path, tracks, 90.0, 48000, [(0.5, "a note?")])


def test_a_project_holds_recording_annotation_and_markers(tmp_path):
    write(tmp_path / "a.RPP")
    project = rpp.loads((tmp_path / "a.RPP").read_text(encoding="utf-8"))
    assert project.find("TEMPO")[1] == "90.0"
    assert project.find("MARKER")[1:] == ["1", "0.500000", "a note?", "0"]
    sound, notes = (track.find("ITEM") for track in project.findall("TRACK"))
    assert list(sound.find("SOURCE").attrib) == ["FLAC"] and sound.find("SOURCE").find("FILE")[1] == "../take.flac"
    assert (float(sound.find("POSITION")[1]), float(notes.find("POSITION")[1])) == (0.0, 2.5)
    lines = notes.find("SOURCE").findall("E")
    messages = [mido.Message.from_bytes([int(byte, 16) for byte in line[2:]]) for line in lines]
    assert [message.note for message in messages if message.type == "note_on"] == [40, 47]
    assert messages[0].control == 55 and messages[-1].control == 123
    assert sum(int(line[1]) for line in lines) == 4000


def test_the_same_project_is_the_same_bytes(tmp_path):
    for name in ("a.RPP", "b.RPP"):
        write(tmp_path / name)
    assert (tmp_path / "a.RPP").read_bytes() == (tmp_path / "b.RPP").read_bytes()


def test_a_project_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("A file.")
    with pytest.raises(DataError, match="cannot make this folder"):
        write(tmp_path / "file" / "a.RPP")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
