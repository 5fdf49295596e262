"""Rendering, streams, data sets and long trainings: what stock cannot do, but for a clip of one length."""

from __future__ import annotations

import collections
import functools
import math
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import gin
import material
import measuring
import numpy as np
import tensorflow as tf
from parts import Parts
from rows import Row, Sizes, length

from neural_midi_synth.files.audio import read_audio_info, write_audio
from neural_midi_synth.instrument.rendering import BLOCK_SECONDS
from neural_midi_synth.playing.stream import Stream

_BLOCK_SECONDS = 0.016  # Of a stream.
_REAL_TIME = {"guitar": "40 × real time", "lineage": "15 × real time", "guitar_16k": "60 × real time"}
# On so many voices, by config: of 48 kHz, which the package's guitar has, no more than 1.5 times the time of 16 kHz.
_REAL_TIME_OF_VOICES = {"guitar_live_16k": {1: "80 ×", 6: "25 ×", 16: "10 ×"}, "guitar_live": {1: "53 ×", 6: "17 ×"}}
_P99 = {"guitar_live_16k": "8 ms", "guitar_live": "10 ms"}  # Of a block of six voices.


class Playing:
    """Benchmarks of what instruments are for."""

    def __init__(self, sizes: Sizes, quick: bool, parts: Parts) -> None:
        self._sizes = sizes
        self._quick = quick
        self._parts = parts

    def catalogue(self, long: bool) -> dict[str, Callable[[], list[Row]]]:
        """Name of each benchmark → what runs it and returns its rows; with `long` also the one that takes minutes."""
        benchmarks = {}
        clip, minute = self._sizes.lengths[:2]
        renderings = [("guitar", seconds) for seconds in self._sizes.lengths]
        for config, seconds in [*renderings, ("lineage", clip), ("lineage", minute), ("guitar_16k", minute)]:
            name = f"rendering {length(seconds)}, {config}.gin"
            benchmarks[name] = functools.partial(self._rendering, name, config, seconds)
        for config, aims in _REAL_TIME_OF_VOICES.items():
            for voices, aim in aims.items():
                name = f"rendering {length(minute)}, {config}.gin, {voices} voice{'s' if voices > 1 else ''}"
                benchmarks[name] = functools.partial(self._rendering, name, config, minute, voices, f"{aim} real time")
        for config in _P99:
            benchmarks[f"stream, {config}.gin"] = functools.partial(self._stream, config)
        benchmarks["data set"] = self._data_set
        if long:
            benchmarks["steps"] = self._steps
        return benchmarks

    def measurements(self) -> dict[str, Callable[..., dict[str, float]]]:
        """Name → what is done in a process of its own, for its memory."""
        return {"rendering": self._measure_rendering, "stream": self._measure_stream}

    def _render_call(self, config: str, seconds: float, voices: int = 1) -> Callable[..., None]:
        """A call that renders as `nms_render` does, from notes to a file."""
        instrument, piece = material.built(config, self._sizes.bindings), material.piece(seconds, voices)

        def render(seconds: float = seconds) -> None:
            blocks = instrument.render_blocks(piece, n_samples=round(seconds * instrument.sample_rate))
            with tempfile.TemporaryDirectory() as folder:
                write_audio(pathlib.Path(folder) / "rendering.wav", blocks, instrument.sample_rate)

        return render

    def _rendering(self, name: str, config: str, seconds: float, voices: int = 1, aim: str | None = None) -> list[Row]:
        measured = measuring.in_a_process("rendering", self._quick, config=config, seconds=seconds, voices=voices)
        aim = aim or _REAL_TIME[config]
        row = Row(name, measured["seconds"], audio=seconds, memory=measured["memory"], aim=aim)
        if seconds == self._sizes.clip_seconds:  # All that stock can render.
            row.call = self._render_call(config, seconds)
            times = measuring.interleaved({"ours": row.call, "stock": self._parts.stock_clip()}, self._sizes.seconds)
            row.ours, row.stock = times["ours"], times["stock"]
            row.stock_memory = measuring.in_a_process("stock clip", self._quick)["memory"]
        return [row]

    def _measure_rendering(self, config: str, seconds: float, voices: int) -> dict[str, float]:
        render = self._render_call(config, seconds, voices)
        render(2.0 * BLOCK_SECONDS)  # Traces the graph.
        return {"seconds": measuring.median_time(render, 3 if seconds <= 360.0 else 1)}

    def _stream(self, config: str) -> list[Row]:
        rows = []
        for voices, of_voices in ((1, "one voice"), (6, "six voices")):
            measured = measuring.in_a_process("stream", self._quick, config=config, voices=voices)
            audio, aims = measured["audio"], ("", _P99[config], "16 ms")
            name = f"stream, {config}.gin, {of_voices}, block of {audio * 1000:g} ms"
            first, *others = (
                Row(f"{name}: {which}", measured[which], audio=audio, aim=aim)
                for which, aim in zip(("median", "p99", "worst"), aims)
            )
            first.memory = measured["memory"]
            first.call = self._live(config, voices).block
            rows += [first, *others]
        return rows

    def _live(self, config: str, voices: int) -> Stream:
        live = material.built(config, self._sizes.bindings)
        return Stream(live, round(_BLOCK_SECONDS * live.frame_rate), voices)

    def _measure_stream(self, config: str, voices: int) -> dict[str, float]:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # As nms_play has it; the process plays nothing else.
        stream = self._live(config, voices)
        sample_rate = stream.instrument.sample_rate
        times = []
        # As many players as there are voices, on one MIDI channel.
        played = material.piece(self._sizes.stream_seconds, voices).voices
        all_events = (each for voice in played for each in material.events(voice, stream.instrument.frame_rate))
        events = collections.deque(sorted(all_events))
        for _ in range(math.ceil(self._sizes.stream_seconds * sample_rate / stream.block_samples)):
            began = time.perf_counter()
            while events and events[0][0] < stream.frame + stream.block_frames:
                frame, kind, values = events.popleft()
                getattr(stream, kind)(*values, frame=frame)
            stream.block()
            times.append(time.perf_counter() - began)
        p99 = float(np.percentile(times, 99.0))
        median = float(np.median(times))
        return {"median": median, "p99": p99, "worst": max(times), "audio": stream.block_samples / sample_rate}

    def _data_set(self) -> list[Row]:
        import tensorflow_datasets as tfds

        from neural_midi_synth.data_prep import midi_audio

        tfds.display_progress_bar(False)
        with tempfile.TemporaryDirectory() as folder:
            takes = midi_audio.DEMO_GUITAR
            if self._quick:
                takes = pathlib.Path(folder) / "takes"
                takes.mkdir()
                for path in midi_audio.DEMO_GUITAR.glob("take_01.m*"):
                    shutil.copy(path, takes)
            material.built("guitar", self._sizes.bindings)  # Whose configuration that of the data set is.
            began = time.perf_counter()
            midi_audio.build(takes, pathlib.Path(folder) / "data")
            seconds = time.perf_counter() - began
            audio = sum(read_audio_info(path)[0] for path in takes.glob("*.mp3"))
        return [Row("data set, the demo guitar's takes", seconds, audio=audio)]

    def _steps(self) -> list[Row]:
        from neural_midi_synth.data_prep import midi_audio
        from neural_midi_synth.training.batches import training_batches

        instrument = material.built("guitar", self._sizes.bindings)
        batch, clip_seconds = (gin.query_parameter(f"nms.train.{name}") for name in ("batch_size", "clip_seconds"))
        steps = self._sizes.steps
        with tempfile.TemporaryDirectory() as folder:
            builder = midi_audio.build(data_dir=folder)
            clip = round(clip_seconds * instrument.sample_rate)
            instrument.compile(optimizer=tf.keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
            ends: list[float] = []
            tell = tf.keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: ends.append(time.perf_counter()))
            batches = training_batches(builder, batch, clip, seed=0, first_step=0)
            instrument.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[tell], verbose=0)
        times = np.diff(ends)
        return [
            Row(f"training step, guitar.gin, step {first} to {first + 100}", float(median), audio=batch * clip_seconds)
            for first in (100, steps - 100)
            for median in [np.median(times[first - 1 : first + 99])]
        ]
