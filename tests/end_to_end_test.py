"""The whole road by its commands: takes, an instrument, a piece it never saw, a report."""

import json
import math
import shutil

import numpy as np
import pytest

from neural_midi_synth.evaluation import metrics, results
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import write_midi


def test_takes_become_an_instrument_that_plays_a_piece_of_any_length(trained, start_command, write_take, tmp_path):
    assert f"nms_render --instrument {trained.folder}" in trained.answer.output
    voice = write_take(tmp_path / "piece.wav", seconds=36.7, seed=5)
    (tmp_path / "piece.wav").unlink()
    arguments = ("--instrument", trained.folder, "--midi", tmp_path / "piece.mid", "--output", tmp_path / "piece.flac")
    answer = start_command("render", *arguments).answer()
    assert answer.status == 0, answer.error
    samples, sample_rate = read_audio(tmp_path / "piece.flac")
    assert len(samples) / sample_rate == pytest.approx(voice.duration + 1.0, abs=1e-3)
    assert len(samples) / sample_rate > 36.0
    loudness = np.abs(samples[: 36 * sample_rate]).reshape([36, -1]).max(axis=1)
    assert loudness.min() > 1e-4  # It plays to the end.


def test_the_instrument_is_measured_on_what_it_never_saw(own_instrument, start_command, tmp_path):
    answer = start_command("evaluate", "--instrument", own_instrument, "--output", tmp_path / "report").answer()
    assert answer.status == 0, answer.error
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["examples"]
    facts = json.loads((own_instrument / "data_set.json").read_text())
    for example in numbers["examples"]:
        assert example["name"].split()[0] in facts["takes"]
        for name in results.keys([]):
            assert example[name] is None or math.isfinite(example[name])
    for name in ("spectral_loss", "log_mel_db", "envelope_db", "real_time_factor"):
        assert numbers["mean"][name] > 0.0
    assert "mean" in answer.output
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_an_instrument_is_measured_on_ones_own_recordings(trained, own_instrument, run_command, tmp_path):
    folder = shutil.copytree(trained.takes / "examples", tmp_path / "riffs")
    arguments = ("--instrument", own_instrument, "--midi_dir", folder, "--output", tmp_path / "report")
    answer = run_command("evaluate", *arguments)
    assert answer.status == 0, answer.error
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    (example,) = numbers["examples"]
    assert example["name"] == "riff"
    # What the report says of the sounds it shows.
    reference, sample_rate = read_audio(tmp_path / "report" / "sounds" / "riff_reference.wav")
    played, _ = read_audio(tmp_path / "report" / "sounds" / "riff.wav")
    again = metrics.compare(reference, played, sample_rate)
    assert example["log_mel_db"] == pytest.approx(again["log_mel_db"], abs=1e-3)  # Files have 24 bits.
    assert example["envelope_db"] == pytest.approx(again["envelope_db"], abs=1e-3)
    # Its own playing as the recording is matched to the last bit but those.
    write_audio(folder / "riff.wav", played, sample_rate)
    assert run_command("evaluate", *arguments).status == 0
    perfect = json.loads((tmp_path / "report" / "report.json").read_text())["mean"]
    assert perfect["log_mel_db"] < 0.05
    assert perfect["envelope_db"] < 0.05


def test_an_instrument_of_one_voice_is_measured_on_chords_too(own_instrument, run_command, tmp_path):
    piece = Piece(tuple(Voice(np.array([[0.1, 1.0, pitch, 100], [1.0, 1.5, pitch + 2, 90]])) for pitch in (45, 49, 52)))
    write_midi(piece, tmp_path / "riffs" / "chords.mid")
    arguments = ("--instrument", own_instrument, "--midi", tmp_path / "riffs" / "chords.mid")
    assert run_command("render", *arguments, "--output", tmp_path / "riffs" / "chords.wav").status == 0
    arguments = ("--instrument", own_instrument, "--midi_dir", tmp_path / "riffs", "--output", tmp_path / "report")
    answer = run_command("evaluate", *arguments)
    assert answer.status == 0, answer.error
    assert "Multi-pitch recall" in answer.output
    (example,) = json.loads((tmp_path / "report" / "report.json").read_text())["examples"]
    # The recording is the instrument's own playing, but for the last of 24 bits.
    assert example["multipitch_f"] > 0.0
    for name in ("precision", "recall", "f"):
        assert example[f"multipitch_{name}"] == pytest.approx(example[f"reference_multipitch_{name}"], abs=0.02)
    assert example["multipitch_share"] == pytest.approx(1.0, abs=0.02)
    assert example["pitch_accuracy"] is None
