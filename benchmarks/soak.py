"""Whether a stream holds for days: hours of audio through `Stream`, faster than real time, six voices, without a rest.

    python benchmarks/soak.py --hours 24
    python benchmarks/soak.py --hours 1 --exported exported/    # through the stream of a SavedModel

Notes come at random, single and in bursts of more than there are voices, with pedal, bends, styles, and now and then a
panic. Every half hour of audio it plays one phrase a few times, each after a panic, and compares it with what it was in
the first minute: its loudness every few milliseconds, and its bands, averaged over the times, since its noise and its
motion are never twice the same. It prints a line for each half hour, and fails where a sample is no number, memory
grows by more than 64 MB after the first half hour, or the phrase drifts by more than half a dB.
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
import sys
import time

import numpy as np
import psutil

from neural_midi_synth import environment

LOOK_SECONDS = 1800.0
_MOST_GROWTH_MB, _MOST_DRIFT_DB = 64.0, 0.5
_BLOCK_SECONDS = 0.256  # Longer than live play has it: 24 hours shall not take half a day.
_BEFORE_SECONDS = 20.0  # Of random notes, before the phrase is heard first.
_REST_BLOCKS = 8  # Before the phrase, in which what rings dies away.
_LEVEL_SAMPLES, _LOUD_DB, _BANDS = 256, 30.0, 24
_PHRASE_BLOCKS, _PHRASE_TIMES = 24, 4


def main() -> None:
    """Plays, looks, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0, help="of audio")
    parser.add_argument("--instrument", help="folder or .nms file; the guitar of the package unless given")
    parser.add_argument("--exported", type=pathlib.Path, help="folder that nms_export wrote; plays its SavedModel")
    parser.add_argument("--look", type=float, default=LOOK_SECONDS, help="seconds of audio from one look to the next")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # As nms_play has it: blocks are too small to be shared out.
    environment.import_tensorflow_quietly()
    from neural_midi_synth.instrument.loading import load

    if options.exported:
        player: StreamPlayer | ModelPlayer = ModelPlayer(options.exported)
    else:
        player = StreamPlayer(load(options.instrument))
    faults = soak(player, options.hours * 3600.0, options.look, options.seed)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


class StreamPlayer:
    """Random events and their sound, through `Stream`."""

    def __init__(self, instrument: object) -> None:
        from neural_midi_synth.playing.stream import Stream

        frames = round(_BLOCK_SECONDS * instrument.frame_rate)
        stride = instrument.decoder.stride
        self._stream = Stream(instrument, -(-frames // stride) * stride, voices=6)
        self.block_seconds = self._stream.block_samples / self._stream.sample_rate
        self._low, self._high = (round(each) for each in instrument.pitch_range)
        self._numbers = list(instrument.styles.values())
        self._down: list[int] = []

    def random_block(self, numbers: np.random.Generator) -> np.ndarray:
        """Gives some events and plays a block; now and then a burst, a pedal, or a panic."""
        stream = self._stream
        count = 20 if numbers.random() < 0.04 else numbers.poisson(2.0)  # A burst steals voices.
        for _ in range(count):
            pitch = int(numbers.integers(self._low, self._high + 1))
            stream.note_on(pitch, int(numbers.integers(1, 128)))
            self._down.append(pitch)
        while self._down and (numbers.random() < 0.75 or len(self._down) > 30):
            stream.note_off(self._down.pop(int(numbers.integers(len(self._down)))))
        if numbers.random() < 0.2:
            number = int(numbers.choice([64, 123, *self._numbers]))
            stream.control_change(number, int(numbers.integers(0, 128)))
        if numbers.random() < 0.2:
            stream.pitch_bend(float(numbers.uniform(-2.0, 2.0)))
        if numbers.random() < 0.002:
            stream.panic()
            self._down.clear()
        return stream.block()

    def phrase(self) -> np.ndarray:
        """Plays a phrase after silence, in which everything is as at the beginning."""
        stream = self._stream
        stream.panic()
        self._down.clear()
        for number in (64, *self._numbers):
            stream.control_change(number, 0)
        stream.pitch_bend(0.0)
        for _ in range(_REST_BLOCKS):
            stream.block()
        middle = (self._low + self._high) // 2
        blocks = []
        for place in range(_PHRASE_BLOCKS):
            if place % 6 == 0:
                stream.note_on(middle + place // 6, 90)
            if place % 6 == 4:
                stream.note_off(middle + place // 6)
            blocks.append(stream.block())
        stream.panic()
        return np.concatenate(blocks)


class ModelPlayer:
    """Random control frames through the stream of a SavedModel."""

    def __init__(self, folder: pathlib.Path) -> None:
        import json

        import tensorflow as tf

        self._tf = tf
        facts = json.loads((folder / "instrument.json").read_text(encoding="utf-8"))
        self._model = tf.saved_model.load(str(folder / str(facts["version"])))
        self._stream = self._model.signatures["stream"]
        self._channels = {name: channel["default"] for name, channel in facts["channels"].items()}
        stride = facts["stride"]
        self._frames = -(-round(_BLOCK_SECONDS * facts["frame_rate"]) // stride) * stride
        self.block_seconds = self._frames / facts["frame_rate"]
        self._state = self._begin()
        self._pitch = 50.0

    def _begin(self) -> dict:
        return self._model.signatures["initial_state"](batch=self._tf.constant([6]))

    def _play(self, values: dict[str, np.ndarray]) -> np.ndarray:
        shape = [6, self._frames, 1]
        frames = {name: np.full(shape, default, np.float32) for name, default in self._channels.items()}
        frames.update({name: np.broadcast_to(value, shape).astype(np.float32) for name, value in values.items()})
        answer = dict(self._stream(**{k: self._tf.constant(v) for k, v in frames.items()}, **self._state))
        audio = answer.pop("audio").numpy()
        self._state = answer
        return audio.sum(axis=0)

    def random_block(self, numbers: np.random.Generator) -> np.ndarray:
        """Plays a block of random pitches, gates and velocities; now and then it begins anew."""
        if numbers.random() < 0.002:
            self._state = self._begin()
        values = {"f0_midi": numbers.uniform(36.0, 64.0, [6, 1, 1]), "gate": numbers.integers(0, 2, [6, 1, 1])}
        values["velocity"] = numbers.uniform(0.1, 1.0, [6, 1, 1])
        ramp = np.arange(self._frames)[:, np.newaxis] / self._frames * self.block_seconds
        values |= {name: ramp + numbers.uniform(0.0, 2.0) for name in self._channels if name.startswith("distance")}
        values |= {name: numbers.uniform(0.0, 1.0, [6, 1, 1]) for name in self._channels if name.startswith("cc_")}
        return self._play(values)

    def phrase(self) -> np.ndarray:
        """Plays a phrase from a new state."""
        self._state = self._begin()
        blocks = [
            self._play({"f0_midi": np.array(45.0 + place % 4), "gate": np.array(1.0), "velocity": np.array(0.7)})
            for place in range(_PHRASE_BLOCKS)
        ]
        return np.concatenate(blocks)


def levels(player: StreamPlayer | ModelPlayer) -> np.ndarray:
    """Plays the phrase a few times; returns its mean levels over time and frequency, dB, where near the loudest."""
    phrases = [player.phrase().astype(np.float64) for _ in range(_PHRASE_TIMES)]
    bins = len(phrases[0]) // 2 + 1
    edges = np.unique(np.geomspace(bins / 200, bins, _BANDS + 1).astype(int))[:-1]
    n_levels = len(phrases[0]) // _LEVEL_SAMPLES
    over_time = [np.mean(np.resize(phrase, [n_levels, _LEVEL_SAMPLES]) ** 2, axis=1) for phrase in phrases]
    over_frequency = [np.add.reduceat(np.abs(np.fft.rfft(phrase)) ** 2, edges) for phrase in phrases]
    found = []
    for powers in (over_time, over_frequency):
        decibels = 10.0 * np.log10(np.mean(powers, axis=0) + 1e-12)
        found.append(np.maximum(decibels, decibels.max() - _LOUD_DB))
    return np.concatenate(found)


def soak(player: StreamPlayer | ModelPlayer, seconds: float, look_seconds: float, seed: int) -> list[str]:
    """Plays so many seconds of audio; prints a line at each look, and returns what went wrong."""
    numbers, process = np.random.default_rng(seed), psutil.Process()
    for _ in range(round(_BEFORE_SECONDS / player.block_seconds)):
        player.random_block(numbers)
    first_phrase, first_memory, faults = levels(player), None, []
    played = looked = loudest = 0.0
    started, begun = time.monotonic(), time.process_time()
    print("| hours of audio | × real time | × a processor | peak | MB | drift of the phrase, dB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    while played < seconds and not faults:
        block = player.random_block(numbers)
        if not np.isfinite(block).all():
            faults.append(f"a sample that is no number, at {played:.2f} s")
        loudest = max(loudest, float(np.abs(block).max()))
        played += player.block_seconds
        if played - looked >= look_seconds or played >= seconds:
            looked = played
            drift = float(np.abs(levels(player) - first_phrase).max())
            gc.collect()
            memory = process.memory_info().rss / 1e6
            first_memory = memory if first_memory is None else first_memory
            rate, of_processor = played / (time.monotonic() - started), played / (time.process_time() - begun)
            row = f"{played / 3600:.2f} | {rate:.1f} | {of_processor:.1f} | {loudest:.2f} | {memory:.0f} | {drift:.2f}"
            print(f"| {row} |", flush=True)
            loudest = 0.0
            if not drift <= _MOST_DRIFT_DB:
                faults.append(f"the phrase sounds otherwise by {drift:.1f} dB after {played / 3600:.2f} hours")
            if memory - first_memory > _MOST_GROWTH_MB:
                faults.append(f"memory grew by {memory - first_memory:.0f} MB")
    return faults


if __name__ == "__main__":
    main()
