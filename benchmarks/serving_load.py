"""What 64 clients at once do to the exported model, batched as examples/serving/batching.config says.

    python benchmarks/serving_load.py --seconds 60

TensorFlow Serving itself needs its docker image. The server of the tests (tests/exporting/serving_harness.py) stands
in for it: it plays requests in batches formed as Serving forms them, up to max_batch_size rows or batch_timeout_micros,
in num_batch_threads threads, and refuses what comes while max_enqueued_batches wait. Each client asks again as soon as
it is answered: for notes of mixed lengths, now and then for too much, for nonsense, or for whole minutes. It prints
latency by percentile, memory, and what became of each kind of request; nothing may be lost.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import queue
import re
import sys
import tempfile
import threading
import time

import numpy as np
import psutil

from neural_midi_synth import environment

ROOT = pathlib.Path(__file__).resolve().parents[1]
KINDS = {"short": 0.6, "long": 0.25, "a minute": 0.02, "too long": 0.05, "no numbers": 0.05, "no rows": 0.03}
PLAYED = ("short", "long", "a minute", "no numbers")


class Batcher:
    """Forms batches as TensorFlow Serving does."""

    def __init__(self, served: object, config: dict[str, int]) -> None:
        self._served, self._config = served, config
        self._waiting: queue.Queue = queue.Queue()
        for _ in range(config["num_batch_threads"]):
            threading.Thread(target=self._serve, daemon=True).start()

    def ask(self, inputs: dict[str, np.ndarray]) -> object:
        """Answers a request: with audio, or with the error that the client gets."""
        if self._waiting.qsize() >= self._config["max_enqueued_batches"] * self._config["max_batch_size"]:
            return RuntimeError("The batch scheduling queue is full.")
        answer: queue.Queue = queue.Queue(1)
        self._waiting.put((inputs, answer))
        return answer.get()

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            until = time.monotonic() + self._config["batch_timeout_micros"] / 1e6
            while len(batch) < self._config["max_batch_size"] and (left := until - time.monotonic()) > 0:
                try:
                    batch.append(self._waiting.get(timeout=left))
                except queue.Empty:
                    break
            try:
                answers = self._served.run_together("serving_default", [inputs for inputs, _ in batch])
            except Exception as error:  # Serving gives the error of a batch to all of its requests.
                if len(batch) == 1:
                    answers = [error]
                else:
                    answers = [self._alone(inputs) for inputs, _ in batch]
            for (_, answer), played in zip(batch, answers):
                answer.put(played)

    def _alone(self, inputs: dict[str, np.ndarray]) -> object:
        """A request whose batch was refused, asked again by its client."""
        try:
            return self._served.run("serving_default", inputs)
        except Exception as error:
            return error


def request(kind: str, numbers: np.random.Generator) -> dict[str, np.ndarray]:
    """The inputs of a request of a kind."""
    seconds = {"short": numbers.uniform(0.2, 2.0), "long": numbers.uniform(2.0, 10.0), "a minute": 60.0}.get(kind, 1.0)
    starts = np.arange(0.0, seconds, 0.25)
    pitches = numbers.integers(36, 64, len(starts))
    notes = np.stack([starts, starts + 0.2, pitches, np.full(len(starts), 90)], axis=1)
    n_samples = int(16000 * seconds)
    if kind == "too long":
        n_samples = 2**30
    if kind == "no numbers":
        notes = np.full_like(notes, np.nan)
    notes = np.concatenate([np.full([1, 4], -1e9), notes])  # Padding first, as the clients send it.
    if kind == "no rows":
        notes = notes[:, :3]
    return {
        "notes": notes[np.newaxis].astype(np.float32),
        "control_changes": np.full([1, 1, 3], -1e9, np.float32),
        "pitch_bends": np.full([1, 1, 2], -1e9, np.float32),
        "n_samples": np.array([n_samples], np.int32),
    }


def main() -> None:
    """Serves, asks, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    environment.import_tensorflow_quietly()
    sys.path.insert(0, str(ROOT / "tests" / "exporting"))
    from serving_harness import Served

    from neural_midi_synth.exporting.versions import export
    from neural_midi_synth.instrument.loading import load

    text = re.sub("#.*", "", (ROOT / "examples" / "serving" / "batching.config").read_text())
    config = {name: int(value) for name, value in re.findall(r"(\w+) \{ value: (\d+) \}", text)}
    with tempfile.TemporaryDirectory() as folder:
        export(load(), folder)
        batcher = Batcher(Served(pathlib.Path(folder)), config)
        batcher.ask(request("short", np.random.default_rng(0)))
        load_it(batcher, options.clients, options.seconds)


def load_it(batcher: Batcher, clients: int, seconds: float) -> None:
    """Lets clients ask for so long, and prints a table."""
    process, until = psutil.Process(), time.monotonic() + seconds
    before = process.memory_info().rss
    latencies = collections.defaultdict(list)
    became: collections.Counter = collections.Counter()
    lock = threading.Lock()

    def client(number: int) -> None:
        numbers = np.random.default_rng(number)
        while time.monotonic() < until:
            kind = str(numbers.choice(list(KINDS), p=list(KINDS.values())))
            inputs = request(kind, numbers)
            asked = time.monotonic()
            with lock:
                became[kind, "asked"] += 1
            answer = batcher.ask(inputs)
            if isinstance(answer, Exception):
                what = "refused"
            else:
                audio = answer["audio"]
                whole = audio.shape[1] >= inputs["n_samples"][0] and np.isfinite(audio).all()
                what = "played" if whole else "WRONG"
            with lock:
                became[kind, what] += 1
                latencies[kind].append(time.monotonic() - asked)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    peak = before
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.2)
    print("| request | asked | played | refused | wrong | lost | p50 s | p90 s | p99 s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    failed = False
    for kind, times in latencies.items():
        asked, played, refused, wrong = (became[kind, what] for what in ("asked", "played", "refused", "WRONG"))
        lost = asked - played - refused - wrong
        failed = failed or bool(lost or wrong) or (kind not in PLAYED and played)
        p50, p90, p99 = np.percentile(times, [50, 90, 99])
        print(f"| {kind} | {asked} | {played} | {refused} | {wrong} | {lost} | {p50:.2f} | {p90:.2f} | {p99:.2f} |")
    n_answers = sum(map(len, latencies.values()))
    print(
        f"\n{clients} clients, {n_answers / seconds:.1f} answers a second; memory {before / 1e6:.0f} MB before, ",
        end="",
    )
    print(f"{peak / 1e6:.0f} MB at most.")
    sys.exit(failed)


if __name__ == "__main__":
    main()
