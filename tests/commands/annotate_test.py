"""nms_annotate: whole drafts of recordings and folders, projects to open, and one line for what can't be annotated."""

import os
import pathlib
import re
import shutil

import mido
import numpy as np
import pytest
import rpp
import soundfile

from neural_midi_synth.files.audio import RECORDING_SUFFIXES, write_audio
from neural_midi_synth.midi.standard_midi_file import read_midi

PROGRESS = re.compile(r"\d+%\|")


def played(seconds=3.0, rate=22050, first=40):
    """Plucked strings, a note each half second, a fifth and an octave higher in turn."""
    sound = np.zeros(round(seconds * rate), np.float32)
    time = np.arange(rate // 2) / rate
    for i in range(round(seconds / 0.5) - 1):
        phase = 2 * np.pi * 440 * 2 ** ((first + (0, 7, 12)[i % 3] - 69) / 12) * time
        note = sum(np.sin(k * phase + k) / k for k in range(1, 12)) * np.exp(-5 * time)
        start = (i + 1) * rate // 2
        sound[start : start + len(note)] += (0.3 * note)[: len(sound) - start]
    return sound


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "take.wav"
    write_audio(path, played(), 22050)
    return path


def test_a_recording_becomes_a_draft(run_command, recording, tmp_path):
    answer = run_command("annotate", recording, "--output", tmp_path / "draft.mid")
    assert answer.status == 0, answer.error
    (voice,) = read_midi(tmp_path / "draft.mid").voices
    assert voice.notes[:, 2].tolist() == [40, 47, 52, 40, 47]
    np.testing.assert_allclose(voice.notes[:, 0], 0.5 * np.arange(1, 6), atol=0.01)
    assert voice.control_changes[0].tolist() == [0.0, 55, 127]
    assert f"{tmp_path / 'draft.mid'}: 5 notes, MIDI 40 to 52; not sure of 0" in answer.output
    assert "openness (CC55) is 127 throughout" in answer.output


def test_a_project_has_the_recording_and_the_draft(run_command, recording, tmp_path):
    project = tmp_path / "projects" / "draft.RPP"
    answer = run_command("annotate", recording, "--output", tmp_path / "draft.mid", "--reaper", project)
    assert answer.status == 0, answer.error
    sound, notes = (track.find("ITEM") for track in rpp.loads(project.read_text()).findall("TRACK"))
    file = sound.find("SOURCE").find("FILE")[1]
    assert os.path.samefile(project.parent / file, recording)
    lines = [[int(byte, 16) for byte in line[2:]] for line in notes.find("SOURCE").findall("E")]
    written = [mido.Message.from_bytes(line) for line in lines][:-1]
    assert written == [m.copy(time=0) for m in mido.MidiFile(tmp_path / "draft.mid").tracks[0] if not m.is_meta]


def test_a_project_alone_will_do(run_command, recording, tmp_path):
    answer = run_command("annotate", recording, "--reaper", tmp_path / "draft.RPP")
    assert answer.status == 0, answer.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draft.RPP", "take.wav"]


def test_every_recording_of_a_folder_gets_a_draft(run_command, tmp_path):
    (tmp_path / "takes").mkdir()
    for first, name in ((40, "one.wav"), (43, "two.flac"), (45, "three.OGG")):
        write_audio(tmp_path / "takes" / name, played(first=first), 22050)
    (tmp_path / "takes" / "notes.txt").write_text("Not a recording.")
    output, project = tmp_path / "drafts", tmp_path / "all.RPP"
    answer = run_command("annotate", tmp_path / "takes", "--output", output, "--reaper", project)
    assert answer.status == 0, answer.error
    lowest = {path.stem: read_midi(path).notes[:, 2].min() for path in output.iterdir()}
    assert lowest == {"one": 40, "two": 43, "three": 45}
    items = rpp.loads(project.read_text()).findall("TRACK")[0].findall("ITEM")
    positions = [float(item.find("POSITION")[1]) for item in items]
    assert positions == sorted(positions) and np.diff(positions).min() > 3.0  # none over another


@pytest.mark.parametrize("suffix", sorted(set(RECORDING_SUFFIXES) - {".wav"}))
def test_every_kind_of_recording_is_read(run_command, tmp_path, suffix):
    path = tmp_path / f"take{suffix}"
    encoding = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".aif": {"format": "AIFF"}}.get(suffix, {})
    rate = 48000 if suffix == ".opus" else 22050
    soundfile.write(path, np.stack([played(rate=rate)] * 2, axis=1), rate, **encoding)
    answer = run_command("annotate", path, "--output", tmp_path / "draft.mid")
    assert answer.status == 0, answer.error
    assert read_midi(tmp_path / "draft.mid").notes[:, 2].tolist() == [40, 47, 52, 40, 47]


def test_what_is_not_sure_has_a_marker(run_command, tmp_path):
    rate = 22050
    time = np.arange(3 * rate // 2) / rate
    semitones = 2.0 * np.clip((time - 0.5) / 0.3, 0, 1)
    phase = 2 * np.pi * np.cumsum(220.0 * 2 ** (semitones / 12)) / rate
    bent = 0.3 * sum(np.sin(k * phase + k) / k for k in range(1, 12)) * np.exp(-time)
    write_audio(tmp_path / "bent.wav", np.concatenate([np.zeros(rate // 2), bent]).astype(np.float32), rate)
    answer = run_command("annotate", tmp_path / "bent.wav", "--output", tmp_path / "draft.mid")
    assert answer.status == 0, answer.error
    markers, now = [], 0.0
    for message in mido.MidiFile(tmp_path / "draft.mid"):
        now += message.time
        if message.type == "marker":
            markers.append((message.text, now))
    ((text, when),) = markers
    assert text == "bent from where?" and abs(when - 0.5) < 0.02
    assert "Look first at bent.wav 0.50 s" in answer.output


def text_file(path):
    path.write_text("This is a text.")
    return path


def empty_file(path):
    path.write_bytes(b"")
    return path


def cut_file(path):
    write_audio(path, played(), 22050)
    path.write_bytes(path.read_bytes()[:300])
    return path


def sound_of(value):
    def write(path):
        soundfile.write(path, np.full(22050, value), 22050, subtype="FLOAT")
        return path

    return write


def folder_of(*names):
    def make(path):
        folder = path.with_suffix("")
        folder.mkdir()
        for name in names:
            write_audio(folder / name, played(), 22050)
        return folder

    return make


# What is given, what else, and what must be told.
HOSTILE = {
    "a text": (text_file, (), "is not audio, whatever its name"),
    "an empty file": (empty_file, (), "is empty"),
    "a file cut short": (cut_file, (), "take.wav: "),
    "nothing": (lambda path: path, (), "no such file"),
    "another kind of file": (lambda path: text_file(path.with_suffix(".doc")), (), "not an audio file"),
    "silence": (sound_of(0.0), (), "is silent throughout"),
    "NaN": (sound_of(np.nan), (), "contains NaN"),
    "no notes": (sound_of(0.5), (), "no note is found"),
    "a folder without recordings": (folder_of(), (), "has no recordings"),
    "a folder into one file": (folder_of("a.wav", "b.wav"), ("--output", "a.mid"), "one MIDI file for 2 recordings"),
    "two recordings of one name": (folder_of("a.wav", "a.flac"), (), "two recordings"),
    "an output of another kind": (
        lambda path: folder_of("a.wav")(path) / "a.wav",
        ("--output", "a.txt"),
        "ends? in .mid",
    ),
    "an output in a file": (
        lambda path: shutil.copy(folder_of("a.wav")(path) / "a.wav", path),
        ("--output", "take.wav/a.mid"),
        "not a folder",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_annotated_is_told_in_one_line(run_command, monkeypatch, tmp_path, what):
    make, arguments, told = HOSTILE[what]
    monkeypatch.chdir(tmp_path)
    given = make(pathlib.Path("take.wav"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = run_command("annotate", given, *(arguments or ("--output", "drafts/")), "--reaper", "draft.RPP")
    assert answer.status == 1, answer
    (line,) = [line for line in answer.error.splitlines() if line.strip() and not PROGRESS.search(line)]
    assert line.startswith("nms_annotate: ")
    assert re.search(told, line), line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_annotation_that_is_there_is_kept_unless_told_otherwise(run_command, recording, tmp_path):
    draft = tmp_path / "draft.mid"
    draft.write_text("Hours of work.")
    answer = run_command("annotate", recording, "--output", draft)
    assert answer.status == 1 and "--overwrite" in answer.error
    assert draft.read_text() == "Hours of work."
    assert run_command("annotate", recording, "--output", draft, "--overwrite").status == 0
    assert len(read_midi(draft).notes) == 5


def test_the_same_recording_has_the_same_draft(run_command, recording, tmp_path):
    for name in ("a.mid", "b.mid"):
        assert run_command("annotate", recording, "--output", tmp_path / name).status == 0
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()
