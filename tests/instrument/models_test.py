"""The configs of models that differ from the default in a few lines are the instruments they say they are."""

import json

import numpy as np
import pytest

import neural_midi_synth as nms
from neural_midi_synth import configs
from neural_midi_synth.instrument import loading
from neural_midi_synth.midi.pieces import Voice

SMALL = ("Decoder.units = 16", "Decoder.rnn_units = 16", "nms.train.batch_size = 1", "nms.train.clip_seconds = 0.5")


@pytest.mark.parametrize("name", ["", "_16k"])
def test_a_live_guitar_needs_no_future(name):
    loading.configure([configs.find(f"models/guitar_live{name}.gin")], skip_unknown=True)
    live = loading.build()
    assert live.controls.needs_future == ()
    loading.configure([configs.find(f"models/guitar{name}.gin")], skip_unknown=True)
    default = loading.build()
    assert set(default.controls.channels) - set(live.controls.channels) == {"distance_to_offset"}
    assert (*live.decoder.channels, "onset") == live.controls.channels
    assert (live.sample_rate, live.styles) == (default.sample_rate, default.styles)
    assert live.latency / live.sample_rate == 0.004  # a frame: half of the default's


@pytest.mark.slow
def test_the_same_takes_train_an_instrument_at_16_khz(write_take, run_command, tmp_path):
    write_take(tmp_path / "takes" / "one.wav", seconds=12.0)
    folder = tmp_path / "instrument"
    arguments = ["--source_dir", tmp_path / "takes", "--data_dir", tmp_path / "data", "--save_dir", folder]
    arguments += [argument for binding in SMALL for argument in ("--gin_param", binding)]
    answer = run_command("train", "--gin_file", "models/guitar_16k.gin", "--steps", 2, *arguments)
    assert answer.status == 0, answer.error
    played = nms.load(folder, "last")
    assert (played.sample_rate, played.frame_rate, played.hop) == (16000, 125, 128)
    assert json.loads((folder / "data_set.json").read_text())["takes"]
    audio = played.render(Voice(np.array([[0.0, 0.5, 40, 100]])), n_samples=16_001)
    assert audio.shape == (16_001,)
    assert np.all(np.isfinite(audio)) and np.any(audio)
    # Its frames are those of the default, and its room rings as long.
    loading.configure([configs.find("models/guitar.gin")], skip_unknown=True)
    default = loading.build()
    assert default.frame_rate == played.frame_rate
    seconds = [each.processor_group.reverb._ir.shape[0] / each.sample_rate for each in (default, played)]
    assert seconds[0] == pytest.approx(seconds[1])
