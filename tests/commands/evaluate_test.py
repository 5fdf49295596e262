"""nms_evaluate takes flags that go together, and chooses what is played of a MIDI file."""

import json

import mido
import numpy as np
import pytest

from neural_midi_synth.files.audio import write_audio


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--midi_dir", "riffs", "--data_set", "data"), "either --midi_dir or --data_set"),
        (("--track", "2"), "--track is for --midi_dir"),
        (("--data_set", "data", "--midi_channel", "2"), "--midi_channel is for --midi_dir"),
        (("--all_tracks",), "--all_tracks is for --midi_dir"),
        (("--midi_dir", "riffs", "--midi_channel", "17"), "--midi_channel"),
    ],
)
def test_flags_that_do_not_go_together_are_told(run_command, tmp_path, arguments, message):
    answer = run_command("evaluate", "--instrument", tmp_path, "--output", tmp_path / "report", *arguments)
    assert answer.status == 2
    assert message in answer.error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_flags_choose_the_instrument_of_a_midi_file(trained, run_command, tmp_path):
    midi = mido.MidiFile()
    for number, (name, pitch) in enumerate((("Lead", 60), ("Bass", 40)), start=1):
        track = midi.add_track(name)
        track.append(mido.Message("program_change", channel=number, program=number))
        track.append(mido.Message("note_on", channel=number, note=pitch, velocity=99))
        track.append(mido.Message("note_off", channel=number, note=pitch, time=480))
    folder = tmp_path / "songs"
    folder.mkdir()
    midi.save(folder / "song.mid")
    write_audio(folder / "song.wav", 0.1 * np.sin(np.arange(24000, dtype=np.float32)), 16000)
    arguments = ("--instrument", trained.folder, "--midi_dir", folder, "--output", tmp_path / "report")
    answer = run_command("evaluate", *arguments)
    assert answer.status == 1
    assert "has several instruments" in answer.error
    assert not (tmp_path / "report").exists()
    sounds = {}
    for flag in ("--track=Bass", "--midi_channel=2", "--all_tracks"):
        answer = run_command("evaluate", *arguments, flag)
        assert answer.status == 0, answer.error
        (example,) = json.loads((tmp_path / "report" / "report.json").read_text())["examples"]
        assert ("multipitch_f" in example) == (flag == "--all_tracks")
        sounds[flag] = (tmp_path / "report" / "sounds" / "song.wav").read_bytes()
    assert len(set(sounds.values())) == 3
