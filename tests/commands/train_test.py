"""nms_train: which notes it takes, and how it tells of a researcher's own mistake."""

import re
import warnings

import gin
import mido
import numpy as np
import pytest

from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.instrument.noise import FilteredNoise

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds


@pytest.fixture
def two_instruments(write_take, tmp_path):
    """A folder with a take whose MIDI file has a second instrument."""
    write_take(tmp_path / "takes" / "take.wav")
    path = tmp_path / "takes" / "take.mid"
    midi = mido.MidiFile(path)
    guitar, strings = (mido.Message("program_change", program=n, channel=c) for n, c in ((27, 0), (90, 1)))
    lead = mido.MidiTrack([mido.MetaMessage("track_name", name="Lead"), guitar, *midi.tracks[0]])
    pad = mido.MidiTrack([mido.MetaMessage("track_name", name="Pad"), strings])
    pad += [mido.Message("note_on", note=80, channel=1), mido.Message("note_off", note=80, channel=1, time=9600)]
    mido.MidiFile(type=1, ticks_per_beat=midi.ticks_per_beat, tracks=[lead, pad]).save(path)
    return path.parent


def arguments(trained, takes, *more):
    """Of a training that ends when the data set is built, since no clip is that long."""
    places = ("--source_dir", takes, "--data_dir", takes / "data", "--save_dir", takes / "run")
    return ["train", *trained.arguments[:2], *places, "--gin_param", "nms.train.clip_seconds = 60", *more]


@pytest.mark.parametrize("choice", [("--track", "Lead"), ("--track", "1"), ("--midi_channel", "1")])
def test_one_instrument_of_several_is_trained_on(trained, two_instruments, run_command, choice):
    answer = run_command(*arguments(trained, two_instruments))
    assert answer.status == 1
    assert "has several instruments" in answer.error.splitlines()[-1]
    assert "--track" in answer.error and "--midi_channel" in answer.error
    answer = run_command(*arguments(trained, two_instruments, *choice))
    assert "train.clip_seconds is 60" in answer.error.splitlines()[-1]
    (folder,) = (two_instruments / "data" / "midi_audio").glob("takes_*/*")
    for example in tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset("train")):
        assert example["notes"][:, 2].max() < 60


def test_warnings_that_are_ignored_are_not_listed_but_kept(trained, write_take, run_command, tmp_path):
    for flag in ((), ("--ignore_warnings",)):
        takes = tmp_path / f"takes{len(flag)}"
        write_take(takes / "take.wav")
        midi = mido.MidiFile(takes / "take.mid")
        # A note of another pitch than it sounds.
        on, off = ([m for m in midi.tracks[-1] if m.type == kind][4] for kind in ("note_on", "note_off"))
        off.note = on.note = on.note - 12
        midi.save(takes / "take.mid")
        answer = run_command(*arguments(trained, takes, *flag))
        assert ("    take: " in answer.output) == (not flag), answer.output
        assert "WARNING" not in answer.error
        (folder,) = (takes / "data" / "midi_audio").glob("takes*/*")
        found = tfds.builder_from_directory(folder).info.metadata["inspection"]
        assert found["warnings"] >= 1
        assert found["ignored"] == bool(flag)
        assert f"{found['verdict'].capitalize()}: {found['message']}" in answer.output


def test_a_training_starts_from_another_instrument(trained, run_command, tmp_path):
    common = ("train", *trained.arguments, "--save_dir", tmp_path / "run", "--steps", "1", "--start_from")
    answer = run_command(*common, tmp_path / "nowhere")
    assert answer.status == 1
    assert re.search(r"nowhere: no instrument here .* Name a folder that nms_train wrote\.$", answer.error.strip())
    answer = run_command(*common, "demo_guitar")
    assert answer.status == 1
    assert "The instrument to start from has another number of layers" in answer.error.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    answer = run_command(*common, trained.folder)
    assert answer.status == 0, answer.error


def test_notes_are_chosen_where_a_data_set_is_built(run_command, tmp_path):
    for choice in (("--track", "1"), ("--midi_channel", "1"), ("--audio_track", "1"), ("--midi_track", "1")):
        answer = run_command("train", "--dataset", "midi_audio/default", "--save_dir", tmp_path / "run", *choice)
        assert answer.status == 2
        assert "--midi_track are for --source_dir" in answer.error


@pytest.fixture
def session(write_take, tmp_path):
    """A Reaper project with a recording on each of two tracks, and notes on each of two others."""
    write_take(tmp_path / "takes" / "take.wav")
    (tmp_path / "takes" / "take.mid").unlink()
    item = "    <ITEM\n      POSITION 0\n      LENGTH 12\n      <SOURCE {}\n      >\n    >\n"
    events = "E 960 90 {0} 60\nE 960 80 {0} 00\n" * 9
    sources = {
        "Guitar": 'WAVE\nFILE "take.wav"',
        "DI": 'WAVE\nFILE "gone.wav"',
        "Notes": "MIDI\nHASDATA 1 960 QN\n" + events.format("30"),
        "Drums": "MIDI\nHASDATA 1 960 QN\n" + events.format("50"),
    }
    tracks = [f"  <TRACK\n    NAME {name}\n{item.format(source)}  >\n" for name, source in sources.items()]
    path = tmp_path / "takes" / "session.RPP"
    path.write_text('<REAPER_PROJECT 0.1 "7.0/linux-x86_64" 0\n  TEMPO 120 4 4\n' + "".join(tracks) + ">\n")
    return path


@pytest.mark.parametrize("as_folder", [False, True])
def test_tracks_of_a_reaper_project_are_chosen(trained, session, run_command, as_folder):
    places = ("--data_dir", session.parent / "data", "--save_dir", session.parent / "run")
    source = ("--source_dir", session.parent if as_folder else session)
    command = ["train", *trained.arguments[:2], *source, *places, "--gin_param", "nms.train.clip_seconds = 60"]
    command += ["--align", "off"]  # Nothing is played in these recordings.
    for choice, problem in (
        ((), "session.RPP: has recordings on several tracks. Choose one with --audio_track (1 'Guitar', 2 'DI')."),
        (("--audio_track", "Guitar"), "notes on several tracks. Choose one with --midi_track (3 'Notes', 4 'Drums')."),
        (("--audio_track", "DI", "--midi_track", "3"), "its recording 'gone.wav' is not found."),
        (("--audio_track", "1", "--midi_track", "Notes"), "train.clip_seconds is 60"),
    ):
        answer = run_command(*command, *choice)
        assert answer.status == 1
        assert problem in answer.error.splitlines()[-1]
        assert "Traceback" not in answer.error
    (folder,) = (session.parent / "data" / "midi_audio").glob("[!.]*/*")
    for example in tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset("train")):
        assert set(example["notes"][:, 2]) == {48.0}


def test_what_is_corrected_is_said_and_can_be_turned_off(trained, write_take, run_command, tmp_path):
    takes = tmp_path / "takes"
    write_take(takes / "take.wav")
    samples, sample_rate = read_audio(takes / "take.wav")
    write_audio(takes / "take.wav", np.pad(samples, (sample_rate // 4, 0)), sample_rate)
    answer = run_command(*arguments(trained, takes))
    told = re.search(
        r"^take: the sound is (.*) s later than annotated: corrected \(--align off .*\)\.$", answer.output, re.MULTILINE
    )
    assert float(told[1]) == pytest.approx(0.25, abs=0.003)
    answer = run_command(*arguments(trained, takes, "--align", "off", "--velocities", "annotated"))
    assert "corrected" not in answer.output and "moved" not in answer.output
    for choice in (("--align", "off"), ("--velocities", "from_audio")):
        answer = run_command("train", "--dataset", "midi_audio/default", "--save_dir", tmp_path / "run", *choice)
        assert answer.status == 2
        assert "--align and --velocities are for --source_dir" in answer.error


@gin.configurable(module="tests")
class WithMistake(FilteredNoise):
    """A processor whose author has made a mistake."""

    def initial_state(self, *arguments, **named):
        """Fails."""
        return {"state": {}["no such key"]}


def test_a_mistake_in_a_processor_is_one_line_or_a_traceback(trained, run_command, tmp_path):
    config = tmp_path / "own.gin"
    config.write_text(
        f"""include '{trained.arguments[1]}'
nms.ProcessorGroup.voices = [
    (@harmonic/nms.Harmonic(), ['amplitudes', 'harmonic_distribution', 'f0_hz']),
    (@tests.WithMistake(), ['magnitudes']),
    (@dry/Add(), ['harmonic/signal', 'filtered_noise/signal']),
]
tests.WithMistake.hop = %HOP
tests.WithMistake.n_bands = 65
"""
    )
    command = ["train", "--gin_file", config, *trained.arguments[2:], "--save_dir", tmp_path / "run"]
    answer = run_command(*command)
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith("nms_train: gin: ")
    assert "Traceback" not in answer.error
    with pytest.raises(KeyError, match="no such key") as raised:  # As Python shows it to whoever runs the command.
        run_command(*command, "--debug")
    assert "initial_state" in {entry.name for entry in raised.traceback}
    assert not (tmp_path / "run").exists()
