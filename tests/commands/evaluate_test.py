"""nms_evaluate takes flags that go together, and chooses what is played of a MIDI file."""

import html
import json
import sys

import mido
import numpy as np
import pytest

from neural_midi_synth.evaluation import metrics
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.instrument.loading import kept_verdict
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
def test_the_flags_choose_the_instrument_of_a_midi_file(own_instrument, run_command, tmp_path):
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
    arguments = ("--instrument", own_instrument, "--midi_dir", folder, "--output", tmp_path / "report")
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


@pytest.mark.slow
def test_the_takes_tell_how_near_the_player_comes_and_what_they_lack(trained, own_instrument, run_command, tmp_path):
    # The first take, played by the same player: a second rendition of each is in the takes.
    folder, report = tmp_path / "riffs", tmp_path / "report"
    folder.mkdir()
    samples, sample_rate = read_audio(trained.takes / "one.wav")
    write_audio(folder / "riff.wav", samples, sample_rate)
    write_midi(read_midi(trained.takes / "one.mid"), folder / "riff.mid")
    arguments = ("--instrument", own_instrument, "--midi_dir", folder, "--output", report)
    answer = run_command("evaluate", *arguments)
    assert answer.status == 0, answer.error
    facts = json.loads((report / "report.json").read_text(encoding="utf-8"))
    notes, verdict = facts["notes"], facts["verdict"]
    assert notes["from_takes"]
    assert notes["notes"] == 29
    assert 10 <= notes["played_twice"] <= 29  # Some lie in what is held out.
    # They are the very same sound, moved by less than a millisecond where training aligns them.
    assert notes["measures"]["log_mel"]["player_median"] < 0.5
    assert notes["measures"]["rise"]["player_median"] < 1.0
    # Trained for forty steps it is far from that.
    assert notes["measures"]["log_mel"]["multiple"] > 5.0
    assert verdict["verdict"] == "far off"
    assert any("minutes of notes are few" in line for line in verdict["record"])
    assert verdict["message"] in answer.output
    assert html.escape(verdict["message"]) in (report / "report.html").read_text(encoding="utf-8")
    assert kept_verdict(own_instrument) == verdict


def test_perceived_quality_needs_visqol(trained, run_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol", None)  # As if it was not installed.
    metrics.visqol.cache_clear()
    arguments = ("--midi_dir", trained.takes / "examples", "--output", tmp_path / "report", "--perceived")
    answer = run_command("evaluate", "--instrument", trained.folder, *arguments)
    assert answer.status == 1
    assert answer.error.splitlines()[-1].endswith("--perceived needs ViSQOL. Install it: pip install visqol-python")
    assert not (tmp_path / "report").exists()
