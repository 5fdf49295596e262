"""Commands answer at once, with the right exit status, in one line, and leave nothing half-made behind."""

import errno
import re
import shutil
import subprocess
import sys

import mido
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from neural_midi_synth.commands import command_line
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

COMMANDS = ("annotate", "inspect", "train", "render", "render_corpus", "evaluate", "export", "info")


def answer_without_tensorflow(command, *arguments):
    """Runs a command in a new Python; returns exit status, output and error, and that TensorFlow was not imported."""
    code = f"""
import atexit, sys
sys.argv = ["nms_{command}", *{[str(argument) for argument in arguments]!r}]
atexit.register(lambda: print("TensorFlow!" if "tensorflow" in sys.modules else "quick"))
from neural_midi_synth.commands.{command} import run
run()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *output, last = done.stdout.splitlines()
    assert last == "quick"
    return done.returncode, "\n".join(output), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_shows_how_to_begin(command):
    status, output, error = answer_without_tensorflow(command, "--help")
    assert (status, error) == (0, "")
    assert f"\nnms_{command} " in output
    assert any(flag in output for flag in ("--instrument", "--save_dir", "--reaper", "--output", "--extract"))


TOGETHER = {
    "no flags": ("evaluate", [], "--instrument"),
    "no recording": ("annotate", ["--output", "a.mid"], "recording"),
    "no place for a draft": ("annotate", ["a.wav"], "--reaper"),
    "nothing to inspect": ("inspect", ["--output", "report"], "folder"),
    "no place for a report": ("inspect", ["takes"], "--output"),
    "a project that is none": ("annotate", ["a.wav", "--reaper", "a.mid"], ".RPP"),
    "no MIDI": ("render", ["--instrument", "here"], "--midi"),
    "no output": ("evaluate", ["--instrument", "here"], "--output"),
    "no folder": ("train", [], "--save_dir"),
    "an unknown flag": ("render", ["--loudness", "11"], "loudness"),
    "a stray word": ("render", ["--instrument", "here", "--midi", "a.mid", "b.mid"], "'b.mid'"),
    "a word for a number": ("train", ["--save_dir", "here", "--steps", "many"], "steps"),
    "no steps": ("train", ["--save_dir", "here", "--steps", "0"], "steps"),
    "no minutes": ("train", ["--save_dir", "here", "--max_minutes", "0"], "max_minutes"),
    "an unknown strategy": ("train", ["--save_dir", "here", "--strategy", "magic"], "magic"),
    "two data sets": ("train", ["--save_dir", "here", "--dataset", "a", "--source_dir", "b"], "--dataset"),
    "two ends": ("train", ["--save_dir", "here", "--steps", "9", "--max_minutes", "1"], "--max_minutes"),
    "workers without a name": ("train", ["--save_dir", "here", "--strategy", "multi_worker"], "TF_CONFIG"),
    "a style without a value": ("render", ["--instrument", "a", "--midi", "b", "--style", "openness"], "openness=127"),
    "a style that is a word": ("render", ["--instrument", "a", "--midi", "b", "--style", "openness=wide"], "wide"),
    "a rate nobody plays": ("render", ["--instrument", "a", "--midi", "b", "--sample_rate", "50"], "sample_rate"),
    "a channel MIDI lacks": ("render", ["--instrument", "a", "--midi", "b", "--midi_channel", "17"], "midi_channel"),
    "no place for an export": ("export", ["--instrument", "a"], "--web"),
    "a page and more": ("export", ["--web", "a", "--tflite"], "--web"),
    "several instruments in one export": ("export", ["--output", "a", *("--instrument", "b") * 2], "--web"),
    "a size of no samples": ("export", ["--output", "a", "--size", "small"], "--sampler"),
    "two exports": ("export", ["--output", "a", "--sampler", "--tflite"], "--sampler"),
    "a file and a folder": ("export", ["--output", "a", "--file", "b.nms"], "--file"),
    "nowhere to export to": ("export", ["--tflite"], "--output"),
    "a licence of nothing": ("export", ["--output", "a", "--licence", "CC0"], "--file"),
    "nothing to tell of": ("info", [], "folder"),
    "no corpus": ("render_corpus", ["--output", "a"], "--midi_dir"),
    "a range that is none": ("render_corpus", ["--midi_dir", "a", "--output", "b", "--vary", "openness=9"], "0..127"),
    "a range backwards": ("render_corpus", ["--midi_dir", "a", "--output", "b", "--vary", "openness=9..1"], "9..1"),
    "a stray word for Beam": ("render_corpus", ["--midi_dir", "a", "--output", "b", "c"], "'c'"),
    "an unknown size": ("export", ["--output", "a", "--sampler", "--size", "huge"], "size"),
    "a track of no file": ("evaluate", ["--instrument", "a", "--output", "b", "--track", "2"], "--midi_dir"),
}


@pytest.mark.parametrize("what", TOGETHER)
def test_flags_that_do_not_go_together_are_told_in_one_line(run_command, monkeypatch, tmp_path, what):
    command, arguments, named = TOGETHER[what]
    monkeypatch.chdir(tmp_path)
    answer = run_command(command, *arguments)
    assert answer.status == 2
    assert len(answer.error.splitlines()) == 1
    assert answer.error.startswith(f"nms_{command}: ")
    assert answer.error.endswith(f" (see nms_{command} --help)\n")
    assert named in answer.error
    assert not list(tmp_path.iterdir())


def test_wrong_flags_are_told_before_tensorflow_is_imported():
    status, output, error = answer_without_tensorflow("train", "--save_dir", "x", "--dataset", "a", "--source_dir", "b")
    assert (status, output) == (2, "")
    assert len(error.splitlines()) == 1


class Place:
    """A folder with good input, for a test to break one thing in.

    Attributes:
        folder: All of it.
        trained: Where its instrument comes from.
        instrument: A trained one.
        takes: Folder of take.wav and take.mid.
        riff: A MIDI file.
    """

    def __init__(self, folder, trained, write_take):
        self.folder = folder
        self.trained = trained
        self.instrument = folder / "instrument"
        self.takes = folder / "takes"
        self.riff = folder / "riff.mid"
        shutil.copytree(trained.folder, self.instrument)
        write_take(self.takes / "take.wav")
        write_midi(Voice(np.array([[0.0, 1.0, 60, 99], [1.0, 1.5, 64, 99]])), self.riff)

    def train(self, *arguments):
        """Trains on the takes of this place."""
        data = ("--source_dir", self.takes, "--data_dir", self.folder / "data")
        return ["train", *self.trained.arguments[:2], *data, "--save_dir", self.folder / "run", *arguments]

    def train_on_built(self, *arguments):
        """Trains on good takes, whose data set is built."""
        return ["train", *self.trained.arguments, "--save_dir", self.folder / "run", *arguments]

    def render(self, *arguments):
        """Renders the riff; later flags go before earlier ones, but MIDI files add up."""
        midi = () if "--midi" in arguments else ("--midi", self.riff)
        return ["render", "--instrument", self.instrument, "--output", self.folder / "riff.wav", *midi, *arguments]

    def evaluate(self, *arguments):
        """Evaluates into a new folder."""
        return ["evaluate", "--instrument", self.instrument, "--output", self.folder / "report", *arguments]

    def everything(self):
        """Every file with its contents, every folder."""
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(self.folder.rglob("*"))}


@pytest.fixture
def place(tmp_path, trained, write_take):
    return Place(tmp_path, trained, write_take)


def assert_refused(place, run_command, told, command):
    """Runs a command that must fail in one line about `told`, and must leave all as it was."""
    before = place.everything()
    answer = run_command(*command)
    assert answer.status == 1, answer
    (line,) = [line for line in answer.error.splitlines() if not PROGRESS.search(line) and line.strip()]
    assert line.startswith(f"nms_{command[0]}: ")
    assert str(told) in line
    assert "Traceback" not in answer.output + answer.error
    assert place.everything() == before


# What a progress bar writes, as "Reading takes:   0%|          | 0/1 [00:00<?, ? takes/s]".
PROGRESS = re.compile(r"\d+%\|")


def cut(path, n_bytes=None):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if n_bytes is None else n_bytes])
    return path


def text(path):
    path.write_text("C4 crotchet, D4 crotchet, E4 minim\n" * 50)
    return path


def sound(path, value=0.1, seconds=12.0):
    samples = np.full(round(seconds * 16000), 0.1, np.float32)
    samples[round(seconds * 8000)] = value
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return path


def as_mp3(path):
    return path.rename(path.with_suffix(".mp3"))


def chords(path):
    write_midi(Voice(np.array([[0.0, 1.0, 60, 99], [0.25, 1.0, 64, 99], [1.5, 9.0, 60, 99]])), path)
    return path


def no_notes(path):
    midi = mido.MidiFile(type=0)
    midi.tracks.append(mido.MidiTrack([mido.Message("control_change", control=55, value=127)]))
    midi.save(path)
    return path


def too_short(path):
    sound(path, seconds=6.0)
    return path.with_suffix(".mid")


def removed(path, other):
    path.unlink()
    return other


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def missing(folder):
    shutil.rmtree(folder)
    return folder


# What is wrong with the takes: breaks them and returns what must be told.
BROKEN_TAKES = {
    "an annotation cut short": lambda takes: cut(takes / "take.mid"),
    "text called .mid": lambda takes: text(takes / "take.mid"),
    "an annotation of zero bytes": lambda takes: cut(takes / "take.mid", 0),
    "an annotation without notes": lambda takes: no_notes(takes / "take.mid"),
    "a polyphonic annotation": lambda takes: chords(takes / "take.mid"),
    "an annotation longer than its recording": lambda takes: too_short(takes / "take.wav"),
    "an mp3 of zero bytes": lambda takes: cut(as_mp3(takes / "take.wav"), 0),
    "text called .mp3": lambda takes: text(as_mp3(takes / "take.wav")),
    "a recording cut in its header": lambda takes: cut(takes / "take.wav", 20),
    "a recording with NaN": lambda takes: sound(takes / "take.wav", np.nan),
    "a recording with infinity": lambda takes: sound(takes / "take.wav", np.inf),
    "a recording alone": lambda takes: removed(takes / "take.mid", takes / "take.wav"),
    "an annotation alone": lambda takes: removed(takes / "take.wav", takes / "take.mid"),
    "an empty folder": empty,
    "a folder that is not there": missing,
}


@pytest.mark.parametrize("what", BROKEN_TAKES)
def test_takes_that_cannot_be_used_are_told(place, run_command, what):
    told = BROKEN_TAKES[what](place.takes)
    assert_refused(place, run_command, told, place.train())


def test_a_disk_that_is_full_while_training_is_told(place, run_command, monkeypatch):
    def save(manager, checkpoint_number):
        raise tf.errors.ResourceExhaustedError(None, None, "ckpt-1_temp; No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", save)
    answer = run_command(*place.train_on_built("--steps", "1"))
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith("nms_train: the disk is full.")
    assert "Traceback" not in answer.error


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.ENOSPC, SystemExit), (errno.EDQUOT, SystemExit), (errno.EIO, OSError)]
)
def test_of_errors_of_the_system_a_full_disk_alone_is_told(monkeypatch, capsys, number, raised):
    def main():
        raise OSError(number, "what the system says", "a.wav")

    monkeypatch.setattr(sys, "argv", ["nms_any"])
    monkeypatch.setattr(command_line.flags, "FLAGS", list)  # Without those that other tests' commands have defined.
    with pytest.raises(raised):
        command_line.run(main, "")
    assert capsys.readouterr().err.startswith("nms_any: the disk is full.") == (raised is SystemExit)


def gin_file(place, content):
    path = place.folder / "mine.gin"
    path.write_text(content)
    return "mine.gin", ("--gin_file", path)


def gin_param(place, told, param):
    del place
    return told, ("--gin_param", param)


def broken_example(place):
    path = place.folder / "examples" / "riff.mid"
    path.parent.mkdir()
    return text(path), ("--example_dir", path.parent)


def file_called(place, name, flag):
    path = place.folder / name
    path.write_text("A file.")
    return path, (flag, path)


# What is wrong with how training is asked for: returns what must be told, and the flags.
BROKEN_SETTINGS = {
    "a gin file with an error in it": lambda place: gin_file(place, "Decoder.units = = 3"),
    "a gin file that is not there": lambda place: ("missing.gin", ("--gin_file", "missing.gin")),
    "a gin file that includes a missing one": lambda place: ("gone.gin", gin_file(place, "include 'gone.gin'")[1]),
    "an unknown channel": lambda place: gin_param(
        place, "'loudness'", "Controls.channels = ('f0_midi', 'velocity', 'loudness')"
    ),
    "a decoder that sees a channel that is not made": lambda place: gin_param(
        place, "'cc_55'", "Controls.channels = ('f0_midi', 'velocity')"
    ),
    "an unknown name in gin": lambda place: gin_param(place, "Decodder", "Decodder.units = 3"),
    "an unknown parameter in gin": lambda place: gin_param(place, "unitz", "Decoder.unitz = 3"),
    "a word where gin needs a number": lambda place: gin_param(place, "gin: ", "Decoder.units = 'many'"),
    "no batch": lambda place: gin_param(place, "train.batch_size", "nms.train.batch_size = 0"),
    "clips of no length": lambda place: gin_param(place, "train.clip_seconds", "nms.train.clip_seconds = 0.0"),
    "clips longer than windows": lambda place: gin_param(place, "train.clip_seconds", "nms.train.clip_seconds = 1.5"),
    "windows of no length": lambda place: gin_param(place, "window_seconds", "MidiAudioConfig.window_seconds = 0.0"),
    "a data set that is not built": lambda place: (
        "midi_audio/never",
        ("--source_dir=", "--dataset", "midi_audio/never"),
    ),
    "an example that is no MIDI": broken_example,
    "examples that are not there": lambda place: (place.folder / "gone", ("--example_dir", place.folder / "gone")),
    "a file for a save_dir": lambda place: file_called(place, "run", "--save_dir"),
    "a save_dir in a file": lambda place: (place.riff, ("--save_dir", place.riff / "run")),
    "a save_dir with another instrument": lambda place: (
        place.instrument,
        ("--save_dir", place.instrument, "--steps", "48", "--gin_param", "Decoder.units = 24"),
    ),
    "a save_dir whose checkpoint is damaged": lambda place: (
        damaged(place, "last/*.data*").parent,
        ("--save_dir", place.instrument, "--steps", "48"),
    ),
}


@pytest.mark.parametrize("what", BROKEN_SETTINGS)
def test_settings_that_cannot_be_used_are_told(place, run_command, what):
    told, arguments = BROKEN_SETTINGS[what](place)
    assert_refused(place, run_command, told, place.train_on_built(*arguments))


def test_a_data_dir_that_is_a_file_is_told(place, run_command):
    assert_refused(place, run_command, place.riff, place.train("--data_dir", place.riff))


def test_a_data_set_at_another_rate_is_told(place, run_command, trained):
    (built,) = trained.data_dir.glob("midi_audio/*/*.*.*")
    other = ("--source_dir=", "--dataset", built, "--gin_param", "SAMPLE_RATE = 32000", "--gin_param", "HOP = 256")
    assert_refused(place, run_command, built, place.train_on_built(*other))


def test_a_gin_file_that_describes_no_instrument_is_told(place, run_command, trained):
    (built,) = trained.data_dir.glob("midi_audio/*/*.*.*")
    path = place.folder / "mine.gin"
    path.write_text("# To be written.\n")
    command = ["train", "--gin_file", path, "--dataset", built, "--save_dir", place.folder / "run"]
    assert_refused(place, run_command, "Required bindings for `train`", command)


def damaged(place, pattern, how=cut):
    (path,) = place.instrument.glob(pattern)
    return how(path)


def drums(path):
    """Writes notes on MIDI channel 10 alone; returns the path."""
    midi = mido.MidiFile(type=0)
    on, off = (mido.Message(kind, note=40, channel=9, time=240) for kind in ("note_on", "note_off"))
    midi.tracks.append(mido.MidiTrack([on, off]))
    midi.save(path)
    return path


def in_another(folder, path):
    folder.mkdir()
    return shutil.copy(path, folder / path.name)


# What is wrong with a rendering: returns what must be told, and the flags.
BROKEN_RENDERINGS = {
    "a MIDI file cut short": lambda place: (cut(place.riff), ()),
    "text called .mid": lambda place: (text(place.riff), ()),
    "a MIDI file of zero bytes": lambda place: (cut(place.riff, 0), ()),
    "a MIDI file that is not there": lambda place: (removed(place.riff, place.riff), ()),
    "a MIDI file without notes": lambda place: (no_notes(place.riff), ()),
    "a MIDI file of drums": lambda place: (drums(place.riff), ()),
    "one bad file of two": lambda place: (
        text(place.folder / "bad.mid"),
        ("--midi", place.riff, "--midi", place.folder / "bad.mid", "--output", place.folder / "out"),
    ),
    "a track that is not there": lambda place: (place.riff, ("--track", "oboe")),
    "an unknown style": lambda place: ("'brightness'", ("--style", "brightness=3")),
    "a style beyond its range": lambda place: ("openness=300", ("--style", "openness=300")),
    "a style that is no number": lambda place: ("openness=nan", ("--style", "openness=nan")),
    "no instrument": lambda place: (missing(place.instrument), ()),
    "an instrument never trained": lambda place: (
        [missing(place.instrument / name) for name in ("best", "last")][0].parent,
        (),
    ),
    "a checkpoint cut short": lambda place: (damaged(place, "best/*.data*").with_suffix(""), ()),
    "a checkpoint of text": lambda place: (damaged(place, "best/*.index", text).with_suffix(""), ()),
    "a list of checkpoints that is text": lambda place: (damaged(place, "best/checkpoint", text).parents[1], ()),
    "a configuration that is text": lambda place: (damaged(place, "*.gin", text).name, ()),
    "a configuration of nothing": lambda place: (
        (damaged(place, "*.gin", lambda path: cut(path, 0)), "Required bindings for `Instrument`")[1],
        (),
    ),
    "a configuration of another instrument": lambda place: (
        other_units(place),
        (),
    ),
    "an unknown kind of sound": lambda place: (place.folder / "riff.aiff", ("--output", place.folder / "riff.aiff")),
    "an output in a file": lambda place: (place.riff, ("--output", place.riff / "riff.wav")),
    "two MIDI files to one sound": lambda place: (
        place.folder / "riff.wav",
        ("--midi", place.riff, "--midi", in_another(place.folder / "other", place.riff)),
    ),
    "two MIDI files of one name": lambda place: (
        place.folder / "out" / "riff.wav",
        (
            *("--midi", place.riff, "--midi", in_another(place.folder / "other", place.riff)),
            *("--output", place.folder / "out"),
        ),
    ),
}


def other_units(place):
    (path,) = place.instrument.glob("*.gin")
    path.write_text(path.read_text().replace("Decoder.units = 16", "Decoder.units = 24"))
    return place.instrument / "best"


@pytest.mark.parametrize("what", BROKEN_RENDERINGS)
def test_renderings_that_cannot_be_made_are_told(place, run_command, what):
    told, arguments = BROKEN_RENDERINGS[what](place)
    assert_refused(place, run_command, told, place.render(*arguments))


def recordings(place, how):
    folder = place.folder / "recordings"
    folder.mkdir()
    shutil.copy(place.riff, folder / "riff.mid")
    return how(folder), ("--midi_dir", folder)


# What is wrong with an evaluation: returns what must be told, and the flags.
BROKEN_EVALUATIONS = {
    "no instrument": lambda place: (missing(place.instrument), ()),
    "no such folder": lambda place: (place.folder / "gone", ("--midi_dir", place.folder / "gone")),
    "an empty folder": lambda place: recordings(place, empty),
    "no recordings": lambda place: recordings(place, lambda folder: folder),
    "a recording of text": lambda place: recordings(place, lambda folder: text(folder / "riff.wav")),
    "a recording with NaN": lambda place: recordings(place, lambda folder: sound(folder / "riff.wav", np.nan)),
    "no such data set": lambda place: (place.folder / "gone", ("--data_set", place.folder / "gone")),
    "a folder that is no data set": lambda place: (place.takes, ("--data_set", place.takes)),
    "nothing said of its data set": lambda place: (damaged(place, "data_set.json", text), ()),
    "a file for a report": lambda place: file_called(place, "report", "--output"),
}


@pytest.mark.parametrize("what", BROKEN_EVALUATIONS)
def test_evaluations_that_cannot_be_made_are_told(place, run_command, what):
    told, arguments = BROKEN_EVALUATIONS[what](place)
    assert_refused(place, run_command, told, place.evaluate(*arguments))


@pytest.mark.slow
def test_errors_are_one_line_in_a_python_of_its_own(place, start_command):
    """What TensorFlow prints when it wakes, and what a progress bar leaves, must not hide the line."""
    cut(place.takes / "take.mid")
    before = place.everything()
    answer = start_command(*place.train()).answer()
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith(f"train.py: {place.takes / 'take.mid'}: ")
    assert "Traceback" not in answer.error
    answer = start_command(*place.render("--midi", place.takes / "take.mid")).answer()
    assert answer.status == 1
    (line,) = answer.error.splitlines()
    assert line.startswith(f"render.py: {place.takes / 'take.mid'}: ")
    assert place.everything() == before
