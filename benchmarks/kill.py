"""Whether work survives what happens to it: SIGKILL at random moments, and disks that fill up.

    python benchmarks/kill.py                     # twenty kills of each kind of work, some of an hour
    python benchmarks/kill.py --kills 3 --only 'train|export'
    python benchmarks/kill.py --full_disk         # needs the right to mount (root)

Each kind of work is done once undisturbed. Then it is started again and again, and killed with all its processes
after a random time, until it has been killed so often; then it runs to its end. What is there must be whole at every
moment, and the same at the end. With --full_disk it is run on a disk that has room for a random share of what it
writes: it must end in one sentence, and go on to the same end when there is room.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil

import neural_midi_synth as nms
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.instrument.loading import PRETRAINED
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

TINY = """
include 'models/guitar_16k.gin'
MidiAudioConfig.window_seconds = 1.0
MidiAudioConfig.hop_seconds = 0.25
Decoder.units = 16
Decoder.layers = 1
Decoder.rnn_units = 16
nms.SpectralLoss.fft_sizes = (512, 64)
nms.train.steps = 60
nms.train.batch_size = 2
nms.train.clip_seconds = 0.5
nms.train.steps_per_epoch = 10
nms.train.steps_per_example = 30
"""


class Work:
    """A kind of work: a command that writes into a folder, and what of it is to be the same however it was done."""

    def __init__(self, command: Callable[[pathlib.Path], list], result: Callable[[pathlib.Path], str]) -> None:
        self.command = command
        self.result = result


def main() -> None:
    """Does each kind of work, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of work")
    parser.add_argument("--only", default="", help="kinds of work, a regular expression")
    parser.add_argument("--full_disk", action="store_true", help="fill disks in place of killing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers = random.Random(options.seed)
    print("| work | undisturbed s | killed or full | whole at every moment | same end |")
    print("| --- | ---: | ---: | --- | --- |")
    failed = False
    with tempfile.TemporaryDirectory(prefix="nms_kill_") as name:
        root = pathlib.Path(name)
        for kind, work in works(root).items():
            if not re.search(options.only, kind):
                continue
            before = time.monotonic()
            run(work.command(root / kind / "alone"))
            seconds, expected = time.monotonic() - before, work.result(root / kind / "alone")
            folder = root / kind / "disturbed"
            if options.full_disk:
                times, told = fill(work, root / kind, options.kills, numbers)
            else:
                times, told = kill(work, folder, options.kills, seconds, numbers)
            same = work.result(folder) == expected
            failed = failed or bool(told) or not same
            print(f"| {kind} | {seconds:.0f} | {times} | {told or 'yes'} | {'yes' if same else 'NO'} |", flush=True)
    sys.exit(failed)


def works(root: pathlib.Path) -> dict[str, Work]:
    """The kinds of work, on a few takes made up for them."""
    guitar, takes = nms.load(), root / "takes"
    for number in range(4):
        write_take(guitar, takes / f"take_{number}.wav", 20.0, number)
    gin = root / "tiny.gin"
    gin.write_text(TINY)
    of_takes = ["--gin_file", gin, "--source_dir", takes, "--ignore_warnings"]
    data = root / "data"
    instrument = root / "instrument"
    run([*module("train"), *of_takes, "--data_dir", data, "--save_dir", instrument])
    midi = root / "midi"
    for number in range(12):
        write_midi(made_voice(4.0 + number, number), midi / f"{number}.mid")
    played = root / "played"
    for number in range(3):
        write_take(guitar, played / f"{number}.wav", 4.0, 10 + number)

    def data_set(folder: pathlib.Path) -> list:
        return [*module("train"), *of_takes, "--data_dir", folder, "--save_dir", folder / "unused", "--steps", 1]

    return {
        "data set": Work(data_set, examples),
        "train": Work(
            lambda folder: [*module("train"), *of_takes, "--data_dir", data, "--save_dir", folder], lambda f: weights(f)
        ),
        "export": Work(
            lambda folder: [*module("export"), "--instrument", instrument, "--file", folder / "small.nms"],
            lambda folder: digest([folder / "small.nms"]),
        ),
        "evaluate": Work(
            lambda folder: [*module("evaluate"), "--instrument", instrument, "--midi_dir", played, "--output", folder],
            lambda folder: report(folder),
        ),
        "corpus": Work(
            lambda folder: [
                *(*module("render_corpus"), "--instrument", PRETRAINED, "--midi_dir", midi, "--output", folder),
                *("--", "--direct_num_workers=2"),
            ],
            lambda folder: digest([folder / "manifest.jsonl", *sorted((folder / "sound").rglob("*.flac"))]),
        ),
    }


def module(name: str) -> list:
    """A command of the package."""
    return [sys.executable, "-m", f"neural_midi_synth.commands.{name}"]


def run(command: list) -> None:
    """Runs a command to its end, which must be a good one."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")


def kill(work: Work, folder: pathlib.Path, times: int, seconds: float, numbers: random.Random) -> tuple[int, str]:
    """Starts work, and kills it, so many times; then lets it end. Returns how often, and what was half-made."""
    killed, told = 0, ""
    for _ in range(3 * times):
        if killed == times:
            break
        process = psutil.Popen(list(map(str, work.command(folder))), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(numbers.uniform(0.05, 1.0) * seconds)
        if process.poll() is None:
            for each in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    each.send_signal(signal.SIGKILL)
            killed += 1
        elif process.returncode:
            told = process.stderr.read().decode().strip() or "failed"
        process.communicate()
        told = told or half_made(folder)
        if process.returncode == 0:  # It was done before it was killed: once more from the beginning.
            shutil.rmtree(folder)
    run(work.command(folder))
    return killed, told


def half_made(folder: pathlib.Path) -> str:
    """What can't be read of what is there under its own name; hidden files are those that were being written."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if "incomplete" in os.fspath(path) or "_temp" in os.fspath(path) or path.suffix == ".v2":
            continue  # As TFDS, Keras and TensorBoard call what they are writing.
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".flac":
                import soundfile

                assert soundfile.info(path).frames
            elif path.suffix == ".nms":
                from neural_midi_synth.instrument import portable

                portable.read_facts(path)
        except Exception as error:  # Whatever it is, the file is not whole.
            return f"{path.name}: {error}"
    return ""


def fill(work: Work, root: pathlib.Path, times: int, numbers: random.Random) -> tuple[int, str]:
    """Does work on disks of random sizes. Returns how often the disk was full, and what was not one sentence."""
    size = sum(path.stat().st_size for path in (root / "alone").rglob("*") if path.is_file())
    full, told = 0, ""
    for _ in range(times):
        room = int(numbers.uniform(0.05, 0.95) * size) // 4096 * 4096 + 65536
        with disk(root / "small", room) as small:
            done = subprocess.run(list(map(str, work.command(small / "here"))), capture_output=True, text=True)
            if done.returncode:
                full += 1
                lines = [
                    line for line in done.stderr.splitlines() if line.startswith(("nms_", "Traceback", "__main__"))
                ]
                last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "nothing"
                if done.returncode != 1 or any(line.startswith("Traceback") for line in lines):
                    told = told or f"exit status {done.returncode}: {last[:200]}"
            told = told or half_made(small / "here")
            if (small / "here").exists():
                shutil.rmtree(root / "disturbed", ignore_errors=True)
                shutil.copytree(small / "here", root / "disturbed")
    run(work.command(root / "disturbed"))
    return full, told


@contextlib.contextmanager
def disk(folder: pathlib.Path, n_bytes: int) -> Iterator[pathlib.Path]:
    """A disk with room for so many bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def made_voice(seconds: float, seed: int) -> Voice:
    """A melody."""
    random_numbers = np.random.default_rng(seed)
    starts = np.arange(0.1, seconds - 0.5, 0.4)
    pitches, velocities = random_numbers.integers(40, 60, len(starts)), random_numbers.integers(50, 127, len(starts))
    return Voice(np.stack([starts, starts + 0.35, pitches, velocities], axis=1))


def write_take(guitar: nms.Instrument, path: pathlib.Path, seconds: float, seed: int) -> None:
    """Writes a recording, played by an instrument, and its annotation."""
    voice = made_voice(seconds, seed)
    write_audio(path, guitar.render(voice, n_samples=round(seconds * guitar.sample_rate)), guitar.sample_rate)
    write_midi(voice, path.with_suffix(".mid"))


def digest(paths: list[pathlib.Path]) -> str:
    """A hash of files."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest() if paths else "nothing"


def examples(folder: pathlib.Path) -> str:
    """A hash of the examples of a data set, whose features are written in another order by each process."""
    import tensorflow as tf

    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.tfrecord*")):
        whole.update(path.name.encode())
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            whole.update(tf.train.Example.FromString(record).SerializeToString(deterministic=True))
    return whole.hexdigest()


def weights(folder: pathlib.Path) -> str:
    """A hash of the variables of both checkpoints, but for the seconds they took."""
    import tensorflow as tf

    whole = hashlib.sha256()
    for name in ("last", "best"):
        reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / name)))
        for variable in sorted(reader.get_variable_to_shape_map()):
            if variable.endswith("VARIABLE_VALUE") and not variable.startswith(("seconds", "save_counter")):
                whole.update(variable.encode() + np.asarray(reader.get_tensor(variable)).tobytes())
    return whole.hexdigest()


def report(folder: pathlib.Path) -> str:
    """The figures of a report, but for how fast it was."""
    text = (folder / "report.json").read_text()
    return re.sub(r'"(real_time_factor|seconds_to_render)": [0-9.]+', "", text)


if __name__ == "__main__":
    main()
