"""How fast a corpus is made, how that grows with workers, and whether it survives being killed.

    python benchmarks/corpus.py material midi/ --files 2000    # makes MIDI files, every third of them damaged
    python benchmarks/corpus.py material midi/ --files 2000 --from lakh/    # of files there are
    python benchmarks/corpus.py scaling midi/ --files 96       # with 1, 2 and 4 workers
    python benchmarks/corpus.py kill midi/ --times 2           # all of them, killed on the way

`scaling` prints a table, and what a million files take by it. `kill` ends nms_render_corpus and all of its workers
(SIGKILL) twice, runs it to its end, and counts: each file has one line, and each sound is what its line says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil
import soundfile

from neural_midi_synth.corpus.pipeline import MANIFEST_NAME, NOT_PLAYED_NAME
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES, write_midi

DAMAGED = 3  # One file of so many.
_MILLION = 1_000_000


def main() -> None:
    """Does what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["material", "scaling", "kill"])
    parser.add_argument("folder", type=pathlib.Path, help="of MIDI files")
    parser.add_argument("--files", type=int, default=96, help="how many")
    parser.add_argument("--from", dest="source", type=pathlib.Path, help="folder of MIDI files to take")
    parser.add_argument("--times", type=int, default=2, help="how often it is killed")
    parser.add_argument(
        "--after", type=float, default=90.0, help="seconds from the start to when it is killed, at most"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=pathlib.Path, help="of kill; kept")
    options = parser.parse_args()
    if options.what == "material":
        make_material(options.folder, options.files, options.source)
    elif options.what == "scaling":
        print(scaling(options.folder, options.files, options.workers))
    else:
        print(killed(options.folder, options.times, options.after, options.output))


def make_material(folder: pathlib.Path, n_files: int, source: pathlib.Path | None = None) -> None:
    """Writes MIDI files: melodies, chords and songs of several tracks, or those of a folder; some of them damaged."""
    found = sorted(each for each in source.rglob("*") if each.suffix.lower() in MIDI_SUFFIXES) if source else []
    for number in range(n_files):
        random_numbers = np.random.default_rng(number)
        path = folder / f"{number % 100:02}" / f"{number:05}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        if found:
            shutil.copyfile(found[number % len(found)], path)
        else:
            write_midi(made_piece(random_numbers), path, tempo=float(random_numbers.integers(60, 180)))
        if number % DAMAGED == 0:
            path.write_bytes(damaged(path.read_bytes(), random.Random(number)))
    print(f"{n_files} files in {folder}, {len(range(0, n_files, DAMAGED))} of them damaged.")


def made_piece(random_numbers: np.random.Generator) -> Piece:
    """A piece of one to four voices, 5 to 30 s long."""
    seconds = random_numbers.uniform(5.0, 30.0)
    voices = []
    for _ in range(random_numbers.choice([1, 1, 1, 2, 3, 4])):
        starts = np.cumsum(random_numbers.choice([0.125, 0.25, 0.5, 1.0], 400))
        starts = starts[starts < seconds]
        pitches = np.clip(52 + np.cumsum(random_numbers.integers(-4, 5, len(starts))), 30, 80)
        velocities = random_numbers.integers(30, 127, len(starts))
        ends = starts + np.diff(starts, append=seconds) * random_numbers.uniform(0.5, 1.0)
        bends = np.stack([starts, random_numbers.choice([0.0, 0.0, 0.0, 0.5, -1.0], len(starts))], axis=1)
        voices.append(Voice(np.stack([starts, ends, pitches, velocities], axis=1), pitch_bends=bends))
    return Piece(tuple(voices))


def damaged(content: bytes, random_numbers: random.Random) -> bytes:
    """The bytes of a file that were cut, overwritten or repeated somewhere."""
    content = bytearray(content)
    for _ in range(random_numbers.choice([1, 1, 4, 16])):
        place = random_numbers.randrange(max(len(content), 1))
        kind = random_numbers.randrange(4)
        if kind == 0:
            content[place : place + 1] = bytes([random_numbers.randrange(256)])
        elif kind == 1:
            del content[place : place + random_numbers.randrange(1, 64)]
        elif kind == 2:
            content[place:place] = content[place : place + random_numbers.randrange(1, 64)]
        elif random_numbers.random() < 0.3:
            del content[place:]
    return bytes(content)


def command(folder: pathlib.Path, output: pathlib.Path, workers: int) -> list[str]:
    """nms_render_corpus, as a command."""
    module = "neural_midi_synth.commands.render_corpus"
    flags = ["--midi_dir", os.fspath(folder), "--output", os.fspath(output)]
    return [sys.executable, "-m", module, *flags, "--", f"--direct_num_workers={workers}"]


def scaling(folder: pathlib.Path, n_files: int, workers: list[int]) -> str:
    """Renders the first files with each number of workers, in turn; returns a table in Markdown."""
    rows, rates = [], {}
    with tempfile.TemporaryDirectory() as name:
        some = pathlib.Path(name) / "midi"
        for path in sorted(folder.rglob("*.mid"))[:n_files]:
            target = some / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        few = pathlib.Path(name) / "few"
        few.mkdir()
        write_midi(Voice([[0.0, 0.2, 45, 90]]), few / "a.mid")
        same = set()
        for count in workers:
            # Starting takes a while that has nothing to do with how many files there are.
            started, _, _ = timed(command(few, pathlib.Path(name) / f"few{count}", count))
            output = pathlib.Path(name) / f"out{count}"
            seconds, cpu, memory = timed(command(some, output, count))
            lines = [json.loads(line) for line in (output / MANIFEST_NAME).read_text().splitlines()]
            same.add((output / MANIFEST_NAME).read_bytes())
            sound = sum(line["seconds"] for line in lines)
            voices = sum(line["seconds"] * line["n_voices"] for line in lines)
            playing = max(seconds - started, 1e-3)
            rates[count] = n_files / playing * 3600.0
            rows.append(
                f"| {count} | {started:.0f} | {playing:.0f} | {rates[count]:.0f} | {sound / playing:.0f} | "
                f"{voices / playing:.0f} | {cpu:.0f} | {memory:.0f} |"
            )
    head = "| workers | start s | playing s | files an hour | × real time | voices × real time | CPU s | MB a worker |"
    per_worker = rates[workers[0]] / workers[0]
    mean = sound / max(len(lines), 1)
    return "\n".join(
        [
            head,
            "| ---: " * 8 + "|",
            *rows,
            "",
            f"The same files with each number of workers: {'yes' if len(same) == 1 else 'NO'}.",
            f"A million files of {mean:.0f} s: {_MILLION / per_worker:.0f} hours of one worker, "
            f"{_MILLION / per_worker / 100:.1f} hours of a hundred.",
        ]
    )


def timed(arguments: list[str]) -> tuple[float, float, float]:
    """Runs a command; returns its seconds, those of processors, and MB of its largest worker at the end."""
    before = time.monotonic()
    process = psutil.Popen(arguments, stdout=subprocess.DEVNULL)
    cpu: dict[int, float] = {}
    memory: dict[int, float] = {}
    while process.poll() is None:
        for each in [process, *process.children(recursive=True)]:
            try:
                times = each.cpu_times()
                cpu[each.pid] = times.user + times.system
                memory[each.pid] = each.memory_info().rss / 1e6
            except psutil.Error:
                continue
        time.sleep(0.5)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)}: exit status {process.returncode}")
    return time.monotonic() - before, sum(cpu.values()), max(memory.values())


def killed(folder: pathlib.Path, times: int, after: float, output: pathlib.Path | None) -> str:
    """Makes a corpus, killed so many times on the way; returns what was counted."""
    report = []
    with tempfile.TemporaryDirectory() as name:
        output = output or pathlib.Path(name) / "out"
        for turn in range(times):
            wait = random.Random(turn).uniform(0.4, 1.0) * after
            process = psutil.Popen(command(folder, output, os.cpu_count() or 1), stdout=subprocess.DEVNULL)
            end = time.monotonic() + wait
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.5)
            family = [*process.children(recursive=True), process] if process.poll() is None else []
            for each in family:
                each.send_signal(signal.SIGKILL)
            process.wait()
            done = sum(1 for _ in (output / "lines").rglob("*.json"))
            report.append(f"Killed after {wait:.0f} s, with {len(family)} processes: {done} files were done.")
        before = time.monotonic()
        subprocess.run(command(folder, output, os.cpu_count() or 1), check=True)
        report.append(f"Run to its end in {time.monotonic() - before:.0f} s.")
        report.append(counted(folder, output))
    return "\n".join(report)


def counted(folder: pathlib.Path, output: pathlib.Path) -> str:
    """Counts the lines on files and looks at each sound."""
    played = [json.loads(line) for line in (output / MANIFEST_NAME).read_text(encoding="utf-8").splitlines()]
    refused = [json.loads(line) for line in (output / NOT_PLAYED_NAME).read_text(encoding="utf-8").splitlines()]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in MIDI_SUFFIXES}
    told = [line["midi"] for line in played + refused]
    wrong = [
        line["sound"]
        for line in played
        if hashlib.sha256((output / line["sound"]).read_bytes()).hexdigest() != line["sha256"]
        or abs(soundfile.info(output / line["sound"]).duration - line["seconds"]) > 1e-3
    ]
    beside = {path.relative_to(output).as_posix() for path in (output / "sound").rglob("*.*") if path.is_file()}
    strange = beside - {line["sound"] for line in played}
    accounted = len(told) == len(set(told)) == len(files) and set(told) == files
    return (
        f"{len(files)} files: {len(played)} played ({sum(line['seconds'] for line in played) / 3600:.1f} hours), "
        f"{len(refused)} not; each has one line: {'yes' if accounted else 'NO'}; sounds that are not as their line "
        f"says: {len(wrong)}; sounds without a line: {len(strange)}."
    )


if __name__ == "__main__":
    main()
