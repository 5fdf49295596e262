"""What the documentation says works: code runs, commands are understood, the site builds and fetches nothing."""

import copy
import dataclasses
import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import gin
import mido
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from absl import flags

import neural_midi_synth as nms
import neural_midi_synth.training.loop  # noqa: F401  (gin configures it)
from neural_midi_synth import configs, environment
from neural_midi_synth.data_prep import takes
from neural_midi_synth.data_prep.midi_audio import build as build_data_set
from neural_midi_synth.exporting import web_page
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.instrument.loading import CONFIG_NAME, build, configure
from neural_midi_synth.playing.stream import Stream

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))}
TINY_GIN = pathlib.Path(__file__).with_name("tiny_instrument.gin")
COMMANDS = (
    *("nms_annotate", "nms_inspect", "nms_train", "nms_render", "nms_render_corpus", "nms_play", "nms_evaluate"),
    *("nms_export", "nms_info"),
)

# These command lines really run; those of other commands of ours are only understood, with files and gin looked at.
RUN = ("nms_render", "nms_export", "nms_info")
HAVE_RUN = set()  # All pages are run in one place: what stands in several of them is run once.
NOT_RUN = {
    "pip install": "changes the environment that the tests run in; packaging_test.py installs the wheel",
    "python3 -m venv": "the same",
    "!pip install": "the same, in Colab",
    "!git clone": "needs the address of a repository",
    "make ": "is what runs the tests; its demo and benchmarks take minutes, and the site is built below",
    "tensorboard ": "a server that does not end",
    "tfds build": "midi_audio_test.py runs it",
    "docker ": "there is no docker here; serving_test.py plays the server's part",
    "python examples/serving/rest_client.py": "needs the server; serving_test.py runs it",
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: where it is, in which language, and the code, with the files that it includes."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self):
        """Page and line."""
        return f"{self.page}:{self.line}"


def _blocks(page):
    """The code blocks of a page in order: fenced ones, and in the README also indented ones, which are commands."""
    text = PAGES[page].read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        code = textwrap.dedent(match[3])
        included = re.fullmatch(r'--8<-- "(.+)"\n', code)
        code = (ROOT / included[1]).read_text(encoding="utf-8") if included else code
        found.append((match.start(), match.end(), match[2], code))
    if page == "README.md":
        for match in re.finditer(r"(?:^ {4}\S.*\n)+", text, re.MULTILINE):
            if not any(start < match.start() < end for start, end, *_ in found):
                found.append((match.start(), match.end(), "sh", textwrap.dedent(match[0])))
    return [Block(page, text.count("\n", 0, start) + 1, *rest) for start, _, *rest in sorted(found)]


BLOCKS = {page: _blocks(page) for page in PAGES}
ALL_BLOCKS = [block for blocks in BLOCKS.values() for block in blocks]


def test_every_block_is_of_a_kind_that_is_tested():
    assert len(ALL_BLOCKS) > 40
    for block in ALL_BLOCKS:
        assert block.language in {"python", "sh", "gin", "json", "text"}, block.name


@pytest.fixture(scope="module")
def workplace(trained, tmp_path_factory):
    """A folder with what the pages name: takes, MIDI files, and tiny instruments where trained ones would be."""
    folder = tmp_path_factory.mktemp("docs")
    riff = trained.takes / "examples" / "riff.mid"
    for name in ("riff", "verse", "chorus", "your"):
        shutil.copy(riff, folder / f"{name}.mid")
    _save_song(riff, folder / "song.mid")
    for path in trained.takes.glob("*.*"):
        name = {"one": "take_01", "two": "take_02"}[path.stem]
        (folder / "my_takes").mkdir(exist_ok=True)
        shutil.copy(path, folder / "my_takes" / f"{name}{path.suffix}")
    shutil.copytree(trained.takes / "examples", folder / "my_examples")
    shutil.copytree(trained.folder, folder / "runs" / "my_guitar")
    _save_live_instrument(folder / "runs" / "my_live_guitar")
    # A file of the user's own goes before one of the package: training in these pages is a matter of seconds.
    own = folder / "models" / "guitar.gin"
    own.parent.mkdir()
    config = (trained.folder / CONFIG_NAME).read_text(encoding="utf-8")
    own.write_text(re.sub(r"^(nms\.)?train\.steps = .*$", "nms.train.steps = 2", config, flags=re.MULTILINE))
    return folder


def _save_song(riff, path):
    """Saves a song for two instruments: a guitar on MIDI channel 3, and far above it a flute on MIDI channel 1."""
    song = mido.MidiFile(riff)
    song.type = 1
    (guitar,) = song.tracks
    guitar.insert(0, mido.MetaMessage("track_name", name="Guitar"))
    for message in guitar:
        if not message.is_meta:
            message.channel = 2
    notes = [mido.Message("note_on", note=100, velocity=80), mido.Message("note_off", note=100, time=960)]
    song.tracks.append(mido.MidiTrack([mido.MetaMessage("track_name", name="Flute"), *notes]))
    song.tracks[1].insert(1, mido.Message("program_change", program=73))
    song.save(path)


def _save_live_instrument(folder):
    live = ("f0_midi", "velocity", "gate", "cc_55", "cc_56", "distance_from_onset", "distance_from_offset")
    configure([TINY_GIN], [f"CHANNELS = {live}"])
    instrument = build()
    folder.mkdir(parents=True)
    (folder / CONFIG_NAME).write_text(gin.operative_config_str(), encoding="utf-8")
    tf.train.CheckpointManager(tf.train.Checkpoint(instrument=instrument), str(folder / "best"), 1).save()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_page_runs_from_top_to_bottom(page, workplace, run_command, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(workplace)
    namespace = {"__name__": page}
    for block in BLOCKS[page]:
        if _write_named(block):
            continue
        if block.language == "python":
            exec(compile(block.text, block.name, "exec"), namespace)
        elif block.language == "sh":
            for line in block.text.splitlines():
                _do(shlex.split(line, comments=True), run_command, block)
        elif block.language == "json":
            _predict(block)


def _write_named(block):
    """Writes a block that begins with the name of its file into that file; returns whether it does."""
    named = re.match(r"# (\w+\.(?:py|gin))\n", block.text)
    if named:
        pathlib.Path(named[1]).write_text(block.text, encoding="utf-8")
    return named is not None


def _do(words, run_command, block):
    if words and re.fullmatch(r"[A-Z]+=\S+", words[0]):
        assert words.pop(0) == "PYTHONPATH=.", "The Python of the tests has its variables already."
    line = " ".join(words)
    if not words or any(line.startswith(prefix.strip()) for prefix in NOT_RUN):
        return
    command, *arguments = words
    assert command in COMMANDS, f"{block.name}: '{line}' is neither a command of ours nor listed as not run"
    _understand(command, arguments)
    if "--web" in arguments and not (web_page.PAGE / "index.html").is_file():
        return  # web_page_test.py says that it is left out.
    if command in RUN and line not in HAVE_RUN:
        HAVE_RUN.add(line)
        answer = run_command(command.removeprefix("nms_"), *arguments)
        assert answer.status == 0, f"{block.name}: {line}\n{answer.error}"


def _understand(command, arguments, left_over=()):
    """Parses a command line by the flags of the command, and reads the gin it names.

    What is `left_over` may be no part of a flag.
    """
    module = f"neural_midi_synth.commands.{command.removeprefix('nms_')}"
    command_module = importlib.import_module(module)
    for flag in list(flags.FLAGS.flags_by_module_dict().get(module, [])):
        delattr(flags.FLAGS, flag.name)
    importlib.reload(command_module)  # Its flags may have been forgotten for another command's.
    own = flags.FlagValues()
    for flag in flags.FLAGS.flags_by_module_dict()[module]:
        own[flag.name] = copy.deepcopy(flag)
    takes_one = command in ("nms_annotate", "nms_inspect", "nms_info")
    files = [arguments[0]] if takes_one else []  # It comes first, and without a flag.
    if "--" in arguments:
        files = arguments[arguments.index("--") + 1 :]  # Those of Apache Beam.
    assert own([command, *arguments])[1:] in (files, [*files, *left_over])
    if command == "nms_train":
        configure([configs.find(name) for name in own["gin_file"].value], own["gin_param"].value)


def _predict(block):
    """Sends a REST request's body through the model that the page has exported."""
    from serving_harness import Served, predict_json

    answer = predict_json(Served(pathlib.Path("exported")), block.text)
    assert ("predictions" if '"instances"' in block.text else "outputs") in answer


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_the_text_are_understood(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    text = re.sub(r"^( *)```.*?^\1```$", "", PAGES[page].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(?:PYTHONPATH=\. )?(nms_\w+ [^`]+)`", text):
        command, *arguments = shlex.split(line)
        assert command in COMMANDS
        if arguments == ["--help"]:
            continue
        # Where the text speaks of a flag alone, it has no value, or is a switch that takes none.
        value = ["value"] if arguments[-1].startswith("--") and "=" not in arguments[-1] else []
        required = ["--save_dir", "x"] if command == "nms_train" else []
        _understand(command, [*arguments, *value, *required], value)


@pytest.mark.parametrize("block", [each for each in ALL_BLOCKS if each.language == "gin"], ids=lambda block: block.name)
def test_gin_describes_an_instrument(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for other in BLOCKS[block.page]:
        _write_named(other)  # What it imports.
    pathlib.Path("block.gin").write_text(block.text, encoding="utf-8")
    is_model = "models/guitar" in block.text or "Instrument.decoder" in block.text
    configure([*([] if is_model else [configs.find("models/guitar.gin")]), "block.gin"], skip_unknown=False)
    if is_model and "rnn_units = 512" not in block.text:  # The lineage's 11 million weights are made elsewhere.
        instrument = build()
        assert set(instrument.styles.values()) <= {
            int(channel[3:]) for channel in instrument.controls.channels if channel.startswith("cc_")
        }


def _messages(folder):
    """Each message of the page on troubles, brought about."""

    def take(name, notes, tracks=1):
        """A MIDI file with (start, end, pitch) notes; in turn on each of its tracks, if there are several."""
        midi = mido.MidiFile(ticks_per_beat=480)
        for track in range(tracks):
            events = []
            for start, end, pitch in notes[track::tracks]:
                events += [
                    (round(960 * start), mido.Message("note_on", note=pitch, channel=track)),
                    (round(960 * end), mido.Message("note_off", note=pitch, channel=track)),
                ]
            midi.tracks.append(mido.MidiTrack([mido.MetaMessage("track_name", name=("Guitar", "Bass")[track])]))
            now = 0
            for tick, message in sorted(events, key=lambda event: event[0]):
                midi.tracks[-1].append(message.copy(time=tick - now))
                now = tick
        midi.save(name)

    def message_of(action, *arguments, **options):
        with pytest.raises((nms.DataError, ImportError)) as caught:
            action(*arguments, **options)
        return str(caught.value)

    configure([configs.find("models/guitar.gin")])  # With other settings, other takes would be refused.
    recording, annotation = folder / "take_01.wav", folder / "take_01.mid"
    folder.mkdir()
    yield message_of(takes.find_takes, folder)
    write_audio(recording, np.sin(np.arange(12 * 16000) / 20), 16000)
    shutil.copy(recording, folder / "take_02.wav")
    annotation.write_text("<REAPER_PROJECT")
    yield message_of(takes.find_takes, folder)
    (folder / "take_02.wav").unlink()
    yield message_of(nms.read_midi, annotation)
    take(annotation, [(0, 1, 40), (0, 1, 28), (0.5, 2, 47)], tracks=2)
    yield message_of(nms.read_midi, annotation)
    take(annotation, [(0, 1, 40), (0.5, 2, 47)])
    yield message_of(takes.read_take, takes.find_takes(folder)[0])
    take(annotation, [(0, 31.4, 40)])
    yield message_of(takes.read_take, takes.find_takes(folder)[0])
    take(annotation, [(start, start + 0.5, 60) for start in range(8)])
    yield message_of(build_data_set, folder, data_dir=folder / "data")
    take(annotation, [(0, 1, 40)])
    yield message_of(build_data_set, folder, data_dir=folder / "data")

    yield message_of(configs.find, "guitarr")
    configure([TINY_GIN], ["Decoder.channels = ('f0_midi', 'cc_20')"])
    yield message_of(build)
    yield message_of(nms.load, "runs/nothing")
    instrument = nms.load("runs/my_guitar")
    yield message_of(instrument.render, "riff.mid", styles={"opennes": 0})
    yield message_of(Stream(instrument, 4).note_on, 40, 100)


def test_messages_of_the_page_on_troubles_are_those_that_users_get(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(workplace / "runs")
    shutil.copy(workplace / "riff.mid", tmp_path)
    real = set(_messages(pathlib.Path("my_takes")))
    with monkeypatch.context() as without_ddsp:
        without_ddsp.setitem(sys.modules, "ddsp", None)
        with pytest.raises(ImportError) as caught:
            environment.check_packages()
        real.add(str(caught.value))
    told = {block.text.strip() for block in BLOCKS["docs/troubleshooting.md"] if block.language == "text"}
    keras = {message for message in told if message.startswith("tf.keras is already Keras 3")}
    source = re.sub(r'"\n\s+"', "", pathlib.Path(environment.__file__).read_text(encoding="utf-8"))
    assert len(keras) == 1 and all(message in source for message in keras)  # environment_test.py brings it about.
    assert told - keras == real


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    answer = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")  # --strict turns warnings into failure.
    return folder


@pytest.mark.slow
def test_site_fetches_nothing(site):
    for path in [*site.rglob("*.html"), *site.glob("*.css")]:
        content = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe|audio)[^>]+src=[\"']?(?:https?:)?//", content), path
        assert not re.findall(r"<link[^>]+stylesheet[^>]+href=[\"']?(?:https?:)?//", content), path
        assert "@import" not in content and "url(http" not in content, path


def test_every_player_has_a_sound_that_can_be_heard(site):
    players = re.findall(r'<audio[^>]+src="([^"]+)"', (site / "listen.html").read_text(encoding="utf-8"))
    assert len(players) > 10
    assert sum((site / player).stat().st_size for player in players) < 5e6
    for player in players:
        samples, _ = soundfile.read(site / player)
        assert len(samples) > 3 * 16_000 and np.max(np.abs(samples)) > 0.05, player
    assert {path.name for path in (site / "listening").iterdir()} == {pathlib.Path(player).name for player in players}


def test_every_formula_has_become_mathml(site):
    source = (ROOT / "docs" / "how_it_works.md").read_text(encoding="utf-8")
    page = (site / "how_it_works.html").read_text(encoding="utf-8")
    n_displayed = source.count("$$") // 2
    assert page.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == n_displayed > 5
    assert page.count("<math") == n_displayed + len(re.findall(r"\$[^$\n]+\$", source.replace("$$", "")))
    for path in site.rglob("*.html"):
        assert "arithmatex" not in path.read_text(encoding="utf-8"), path


def test_reference_has_every_public_module_and_name(site):
    pages = "".join(path.read_text(encoding="utf-8") for path in site.glob("api/*.html"))
    modules = [*ROOT.glob("neural_midi_synth/**/[!_]*.py"), *ROOT.glob("data_prep/**/[!_]*.py")]
    assert len(modules) > 40
    for path in sorted(modules):
        is_script = path.stem.startswith(("make_", "guitar_session"))  # Not installed.
        is_command = path.parent.name == "commands" and path.stem != "command_line"  # Which --help tells of.
        if is_script or is_command:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names = re.findall(r"^(?:class|def) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert names, module
        for name in names:
            assert f'id="{module}.{name}"' in pages, f"{module}.{name}"


def test_pictures_are_small(site):
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".svg", ".jpg")]
    assert pictures and sum(path.stat().st_size for path in pictures) < 600_000
