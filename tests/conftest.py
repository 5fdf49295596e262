"""A tiny instrument, trained as users train theirs, and ways to run the commands; shared by several test files."""

import contextlib
import dataclasses
import importlib
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest
from absl import flags

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.files.locks import only_writer
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

# As the commands set it, before TensorFlow is imported: here they run in a Python that has it already.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests run side by side and play little, each with graphs of its own: one thread each is enough, and what XLA compiles
# need not be fast.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

TINY_GIN = pathlib.Path(__file__).with_name("tiny_instrument.gin")
PACKAGE = "neural_midi_synth"


def _write_take(path, seconds=12.0, seed=0):
    """Writes a recording of decaying harmonics and its annotation beside it; returns the voice."""
    random = np.random.default_rng(seed)
    starts = np.arange(0.1, seconds - 0.5, 0.4)
    pitches, velocities = random.integers(40, 60, len(starts)), random.integers(50, 127, len(starts))
    voice = Voice(
        np.stack([starts, starts + 0.35, pitches, velocities], axis=1),
        np.array([[0.0, 55, 0], [0.0, 56, 0], [seconds / 2, 55, 127], [seconds * 3 / 4, 56, 127]]),
    )
    samples = np.zeros(round(seconds * 16000), np.float32)
    for start, end, pitch, velocity in voice.notes:
        first, last = round(start * 16000), round(end * 16000)
        phase = np.arange(last - first) / 16000 * 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12)
        sound = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.exp(-phase / 200)
        samples[first:last] = 0.3 * velocity / 127 * sound
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, samples, 16000)
    write_midi(voice, path.with_suffix(".mid"))
    return voice


@pytest.fixture(scope="session")
def write_take():
    """Writes a take: `write_take(path_of_recording, seconds, seed)`."""
    return _write_take


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command answered: exit status, standard output and standard error."""

    status: int
    output: str
    error: str


class RunningCommand:
    """A command of the package in a Python of its own."""

    def __init__(self, module, *arguments, files=None, **variables):
        # Where it is to be looked into while it runs, it writes into files: the paths of `output` and `error`.
        streams = {name: path.open("w") for name, path in (files or {}).items()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.commands.{module}", *map(str, arguments)],
            env={**os.environ, **variables},
            # Where the tests run in the background of a shell, what they start would ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=streams.get("output", subprocess.PIPE),
            stderr=streams.get("error", subprocess.PIPE),
            text=True,
        )
        for stream in streams.values():
            stream.close()

    @property
    def has_ended(self):
        """Whether it has."""
        return self._process.poll() is not None

    def wait_for(self, path, seconds=240.0):
        """Waits until a file is there; the command ending without it fails the test."""
        until = time.monotonic() + seconds
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                self._process.kill()
                pytest.fail(f"{path} never came: {self._process.communicate()}")
            time.sleep(0.005)

    def send(self, number: signal.Signals):
        """Sends a signal."""
        self._process.send_signal(number)

    def answer(self, seconds=480.0):
        """Waits for the end; what takes longer than `seconds` is stopped and fails."""
        try:
            output, error = self._process.communicate(timeout=seconds)
        finally:
            self._process.kill()
        return Answer(self._process.returncode, output, error)


@pytest.fixture(scope="session")
def start_command():
    """Starts a command in a Python of its own: `start_command("render", "--midi", path, NAME=variable)`."""
    return RunningCommand


@pytest.fixture
def run_command(monkeypatch, capfd):
    """Runs a command in this Python, where TensorFlow is awake: `run_command("render", "--midi", path)`."""

    def forget_flags():
        for module, defined in flags.FLAGS.flags_by_module_dict().items():
            for flag in list(defined) if module.startswith(PACKAGE) else []:
                delattr(flags.FLAGS, flag.name)

    # Set and taken away, so that what a command sets does not outlast the test.
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "0")
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")

    def run(module, *arguments):
        command = importlib.import_module(f"{PACKAGE}.commands.{module}")
        forget_flags()  # Of other commands, which require their own.
        importlib.reload(command)
        monkeypatch.setattr(sys, "argv", [f"nms_{module}", *map(str, arguments)])
        capfd.readouterr()
        try:
            command.run()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            flags.FLAGS.unparse_flags()
        return Answer(status, *capfd.readouterr())

    return run


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that nobody interrupted.

    Attributes:
        folder: Of the instrument.
        takes: Folder of its takes, with `examples/`.
        data_dir: Where its data set is.
        arguments: Of `nms_train`, without `--save_dir`.
        answer: What `nms_train` answered.
    """

    folder: pathlib.Path
    takes: pathlib.Path
    data_dir: pathlib.Path
    arguments: tuple[str, ...]
    answer: Answer


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tiny instrument that `nms_train` trained in one go, once for all processes that run tests side by side."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _trained(tmp_path_factory.mktemp("trained"))
    root = tmp_path_factory.getbasetemp().parent / "trained"
    result = root / "result.pickle"
    while True:
        with contextlib.suppress(DataError), only_writer(root):  # Refused while another process trains.
            if not result.exists():
                result.write_bytes(pickle.dumps(_trained(root)))
            return pickle.loads(result.read_bytes())
        time.sleep(0.1)


@pytest.fixture
def own_instrument(trained, tmp_path):
    """A copy of its folder for tests that write into it, as evaluating does."""
    return shutil.copytree(trained.folder, tmp_path / "own_instrument")


def _trained(root):
    takes = root / "takes"
    for i, name in enumerate(("one.wav", "two.mp3")):
        _write_take(takes / name, seed=i)
    _write_take(takes / "examples" / "riff.wav", seconds=2.0, seed=7)
    arguments = ("--gin_file", str(TINY_GIN), "--source_dir", str(takes), "--data_dir", str(root / "data"))
    folder = root / "instrument"
    answer = RunningCommand("train", *arguments, "--save_dir", folder).answer()
    assert answer.status == 0, answer.error
    return Trained(folder, takes, root / "data", arguments, answer)


@pytest.fixture(autouse=True)
def _forget_gin():
    """What one test configures is not the configuration of the next; module fixtures keep what they have built."""
    yield
    with gin.unlock_config():
        gin.clear_config()
