"""What takes can't teach an instrument is left out of it."""

import json

import numpy as np
from made_runs import TINY_GIN

import neural_midi_synth as nms
from neural_midi_synth.instrument.loading import build, configure, configured_controls
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi
from neural_midi_synth.playing.stream import Stream
from neural_midi_synth.training.fitting import only_what_is_used

LIVE = ["Controls.channels = ('f0_midi', 'velocity', 'gate', 'cc_55', 'cc_56', 'distance_from_onset')"]
NEVER, ALWAYS, MOVED = (
    {"minimum": 0.0, "maximum": 0.0},
    {"minimum": 127.0, "maximum": 127.0},
    {"minimum": 0, "maximum": 1},
)


def processors(instrument):
    return [processor.name for processor in instrument.processor_group.processors]


def built(openness, power_chord):
    with only_what_is_used(configured_controls(), {"openness": openness, "power_chord": power_chord}) as unused:
        return build(), unused


def test_a_style_that_takes_never_change_is_left_out_and_what_it_alone_plays():
    configure([TINY_GIN])
    whole = build()
    instrument, unused = built(MOVED, NEVER)
    assert unused == ["power_chord"] and instrument.styles == {"openness": 55}
    assert "cc_55" in instrument.decoder.channels and "cc_56" not in instrument.decoder.channels
    assert {"fifth", "tones"} < {*processors(whole)} and not {"fifth", "tones"} & {*processors(instrument)}
    assert not any(head.startswith("fifth") for head in instrument.processor_group.heads)
    assert instrument.render(Voice([[0.1, 0.4, 50, 100]])).any()
    instrument, unused = built(NEVER, NEVER)
    assert unused == ["openness", "power_chord"] and instrument.styles == {}
    assert not [channel for channel in instrument.controls.channels if channel.startswith("cc_")]


def test_a_style_that_is_on_throughout_has_no_name_and_is_heard():
    configure([TINY_GIN], ["Controls.defaults = {'power_chord': 127, 'openness': 64}"])
    instrument, unused = built(MOVED, ALWAYS)
    assert unused == ["power_chord"] and "fifth" in processors(instrument)
    assert instrument.controls.defaults == {"openness": 64.0}


def test_what_is_configured_is_as_before_when_the_instrument_is_built():
    configure([TINY_GIN], ["nms.ProcessorGroup.without_styles = ['slap']"])
    whole = build()
    built(NEVER, NEVER)
    again = build()
    assert again.styles == whole.styles == {"openness": 55, "power_chord": 56}
    assert again.decoder.channels == whole.decoder.channels
    assert processors(again) == processors(whole)
    instrument, unused = built(MOVED, MOVED)
    assert not unused and instrument.styles == whole.styles


def test_an_instrument_trained_on_takes_without_styles_has_none(write_take, run_command, tmp_path):
    takes, folder = tmp_path / "takes", tmp_path / "instrument"
    for i in range(2):
        voice = write_take(takes / f"{i}.wav", seed=i)
        write_midi(Voice(voice.notes), takes / f"{i}.mid")
    (tmp_path / "live.gin").write_text(f"include '{TINY_GIN}'\ninclude 'models/guitar_live_16k.gin'\n")
    arguments = ("--gin_file", TINY_GIN, "--gin_file", tmp_path / "live.gin", "--source_dir", takes, "--steps", 2)
    answer = run_command("train", *arguments, "--data_dir", tmp_path / "data", "--save_dir", folder)
    assert answer.status == 0, answer.error
    assert "No take changes openness or power_chord: the instrument is without." in answer.output
    assert json.loads((folder / "data_set.json").read_text())["styles"] == {}
    instrument = nms.load(folder)
    assert instrument.styles == {}
    # What a mod wheel is turned to, or a file says, is nothing to it.
    piece = read_midi(takes / "0.mid")
    told = Voice(piece.notes, np.array([[0.0, 55, 127], [0.5, 56, 127]]))
    np.testing.assert_array_equal(instrument.render(told), instrument.render(piece))
    stream = Stream(instrument, 4)
    stream.control_change(55, 127)
    stream.note_on(50, 100)
    assert stream.block().any()
    # It goes on as the same instrument.
    answer = run_command("train", *arguments[:-1], 4, "--data_dir", tmp_path / "data", "--save_dir", folder)
    assert answer.status == 0 and "Going on from step 2" in answer.output, answer.error
