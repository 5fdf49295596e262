"""Whether live play holds: nms_play on JACK's dummy driver, six voices that play without a rest.

    python benchmarks/live.py                     # ten minutes
    python benchmarks/live.py --busy 2            # the same while two processes take all they can get
    python benchmarks/live.py --seconds 5

It needs `jackd` (Debian: jackd2, libportaudio2) and what the extra `live` installs, no sound card. It prints a table of
one line: underruns, load, memory soon after the beginning and at the end, and the latency at the end. JACK's threads go
before others where the system allows it, as those of nms_play do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

PERIOD, SAMPLE_RATE = 256, 48000
_SETTLED_SECONDS = 3.0  # After so long memory is what playing needs.
_HEADER = ("seconds", "busy processes", "underruns", "load", "MB at first", "MB at the end", "latency ms")


def main() -> None:
    """Plays and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to play")
    parser.add_argument("--busy", type=int, default=0, help="so many processes compute meanwhile")
    parser.add_argument("--block", default="16", help="length of a block, ms")
    options = parser.parse_args()
    if shutil.which("jackd") is None:
        parser.exit(1, "live.py: there is no jackd; on Debian or Ubuntu, `apt install jackd2 libportaudio2`.\n")
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(jack_server())
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_dense_piece(folder / "dense.mid", options.seconds)
        stack.enter_context(busy(options.busy))
        row = played(folder / "dense.mid", folder / "take.wav", options.block, environment)
    print(f"| {' | '.join(_HEADER)} |\n|{' ---: |' * len(_HEADER)}")
    print(
        f"| {row['seconds']} | {options.busy} | {row['underruns']} | {row['load']} % | {row['first']:.0f} | "
        f"{row['last']:.0f} | {row['latency']} |"
    )


@contextlib.contextmanager
def jack_server(period: int = PERIOD, sample_rate: int = SAMPLE_RATE) -> Iterator[dict[str, str]]:
    """A JACK server with the dummy driver, and the environment in which programs find it."""
    name = f"nms_{os.getpid()}"
    environment = {**os.environ, "JACK_DEFAULT_SERVER": name}
    driver = ["-S", "-n", name, "-d", "dummy", "-r", str(sample_rate), "-p", str(period)]
    before = ["-R", "-P", "60"] if may_go_first() else ["-r"]
    server = subprocess.Popen(
        ["jackd", *before, *driver], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait = ["jack_wait", "-w", "-t", "10", "-s", name]
        subprocess.run(wait, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        yield environment
    finally:
        server.terminate()
        server.wait(10.0)


def may_go_first() -> bool:
    """Whether processes may go before all others here."""
    program = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(60))"
    return subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL).returncode == 0


def write_dense_piece(path: pathlib.Path, seconds: float, n_voices: int = 6) -> None:
    """Voices with four notes a second each, none of which ends before its next one begins."""
    import numpy as np

    from neural_midi_synth.midi.pieces import Piece, Voice
    from neural_midi_synth.midi.standard_midi_file import write_midi

    random = np.random.default_rng(0)
    voices = []
    for i in range(n_voices):
        starts = np.arange(i / (4.0 * n_voices), seconds - 1.0, 0.25)
        pitches, velocities = 40 + 4 * i + random.integers(0, 4, len(starts)), random.integers(40, 127, len(starts))
        notes = np.stack([starts, starts + 0.25, pitches, velocities], axis=1)
        styles = np.stack([starts, np.full(len(starts), 55), random.integers(0, 127, len(starts))], axis=1)
        voices.append(Voice(notes, styles))
    write_midi(Piece(tuple(voices)), path)


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes compute meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def played(midi: pathlib.Path, take: pathlib.Path, block: str, environment: dict[str, str]) -> dict[str, str | float]:
    """Has nms_play play a file, and watches its memory.

    Args:
        midi: The file.
        take: Where it records.
        block: Length of a block, ms.
        environment: Where it finds JACK.

    Returns:
        What the last lines of the program say: `seconds`, `underruns`, `load`, `latency`; and `first` and `last`, the
        memory soon after the beginning and at the end, MB.
    """
    command = [sys.executable, "-m", "neural_midi_synth.commands.play", "--midi", midi, "--record", take]
    program = subprocess.Popen(
        [*command, "--block", block], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    begun = threading.Event()

    def listen() -> None:
        for line in program.stdout:
            lines.append(line)
            if line.startswith("latency"):
                begun.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        if not begun.wait(180.0):
            raise RuntimeError("nms_play did not begin.")
        time.sleep(_SETTLED_SECONDS)
        first = last = _memory(program.pid)
        while program.poll() is None:
            last = _memory(program.pid) or last
            time.sleep(0.5)
    finally:
        program.kill()
        error = program.stderr.read()
        listener.join()
    summed_up = re.search(r"played ([\d.]+) s, (\d+) underruns?, load (\d+) %", "".join(lines))
    if summed_up is None:
        raise RuntimeError(f"nms_play ended early: {error}")
    seconds, underruns, load = summed_up.groups()
    latency = [line.split()[1] for line in lines if line.startswith("latency")][-1]
    return dict(seconds=seconds, underruns=underruns, load=load, latency=latency, first=first, last=last)


def _memory(process: int) -> float:
    """Resident memory of a process, MB; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 2**10 if found else 0.0


if __name__ == "__main__":
    main()
