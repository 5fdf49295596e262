"""The benchmarks: what is timed, beside what, and that both are the same."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ddsp
import gin
import measuring
import numpy as np
import stock
import tensorflow as tf

from neural_midi_synth import configs, processors
from neural_midi_synth.audio import read_audio_info, write_audio
from neural_midi_synth.instrument import RENDER_BLOCK_SECONDS, Instrument, build, configure
from neural_midi_synth.losses import SpectralLoss
from neural_midi_synth.notes import Voice
from neural_midi_synth.stream import Stream

SAMPLE_RATE, HOP = 16000, 64
# Later on stock is not exact to 1e-4: it adds up the phase of each harmonic in float32.
_EXACT_FRAMES = 1
_STREAM_FRAMES = 4  # 16 ms
_REAL_TIME = {"guitar": "60 × real time", "lineage": "15 × real time", "guitar_48k": "20 × real time"}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the benchmarks are.

    Attributes:
        batch: Clips in a batch.
        clip_seconds: Length of a clip.
        network: Units and layers of the MLPs, units of the recurrent layer, in the lineage's decoder.
        bindings: gin's, for all instruments.
        lengths: Of renderings, s; the first as long as a clip.
        stream_seconds: How long a stream is played.
        seconds: How long a measurement is repeated.
        steps: How many steps of training are taken to see whether they slow down.
    """

    batch: int = 12
    clip_seconds: float = 4.0
    network: tuple[int, int, int] = (512, 3, 512)
    bindings: tuple[str, ...] = ()
    lengths: tuple[float, ...] = (4.0, 60.0, 360.0, 600.0, 3600.0)
    stream_seconds: float = 600.0
    seconds: float = 5.0
    steps: int = 2100


QUICK = Sizes(
    batch=2,
    clip_seconds=0.512,
    network=(8, 1, 8),
    bindings=("Decoder.units = 8", "Decoder.layers = 1", "Decoder.rnn_units = 8"),
    lengths=(0.512, 1.0, 3.0, 5.0, 30.0),
    stream_seconds=1.0,
    seconds=0.0,
    steps=300,
)


@dataclasses.dataclass
class Row:
    """A row of the table.

    Attributes:
        name: What was measured.
        ours: Seconds it takes.
        stock: Seconds stock takes.
        audio: Seconds of audio that are made, or gone through, in that time.
        stock_audio: The same for stock; as `audio` unless given.
        memory: Peak memory, MB.
        stock_memory: Stock's.
        aim: What was aimed at.
        call: What was timed, for a profile.
    """

    name: str
    ours: float
    stock: float | None = None
    audio: float | None = None
    stock_audio: float | None = None
    memory: float | None = None
    stock_memory: float | None = None
    aim: str = ""
    call: Callable[[], Any] | None = None

    @property
    def speed(self) -> float | None:
        """Seconds of audio a second."""
        return self.audio / self.ours if self.audio else None

    @property
    def stock_speed(self) -> float | None:
        """Seconds of audio a second, of stock."""
        audio = self.stock_audio or self.audio
        return audio / self.stock if self.stock and audio else None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as stock: by audio a second, so that batches need not be equal."""
        return self.speed / self.stock_speed if self.stock_speed else None


class Benchmarks:
    """All benchmarks of one size, with what several of them need."""

    def __init__(self, quick: bool) -> None:
        self._quick = quick
        self._sizes = sizes = QUICK if quick else Sizes()
        self._n_frames = round(sizes.clip_seconds * SAMPLE_RATE) // HOP
        self._n_samples = self._n_frames * HOP
        self._batch_audio = sizes.batch * sizes.clip_seconds

    def catalogue(self, long: bool) -> dict[str, Callable[[], list[Row]]]:
        """Name of each benchmark → what runs it and returns its rows; with `long` also the one that takes minutes."""
        benchmarks = {
            "harmonic forward": functools.partial(self._harmonic, with_gradient=False),
            "harmonic with gradient": functools.partial(self._harmonic, with_gradient=True),
            "noise with gradient": self._noise,
            "reverb with gradient": self._reverb,
            "processor group with gradient": self._group,
            "decoder with gradient": self._decoder,
            "spectral loss with gradient": self._loss,
            "training step": self._training_step,
        }
        clip, minute = self._sizes.lengths[:2]
        renderings = [("guitar", seconds) for seconds in self._sizes.lengths]
        for config, seconds in [*renderings, ("lineage", clip), ("lineage", minute), ("guitar_48k", minute)]:
            name = f"rendering {_length(seconds)}, {config}.gin"
            benchmarks[name] = functools.partial(self._rendering, name, config, seconds)
        benchmarks["stream"] = self._stream
        benchmarks["data set"] = self._data_set
        if long:
            benchmarks["steps"] = self._steps
        return benchmarks

    def measure(self, of: str, **what: Any) -> dict[str, float]:
        """Measures one thing in a process that does nothing else; see `measuring.in_a_process`.

        Returns:
            What the measurement returns, and `memory`: its peak, without what importing took, MB.
        """
        before, _ = measuring.memory()
        facts = getattr(self, f"_measure_{of}")(**what)
        _, peak = measuring.memory()
        return {**facts, "memory": peak - before}

    def _measured(self, of: str, **what: Any) -> dict[str, float]:
        return measuring.in_a_process({"of": of, **what}, self._quick)

    # What is compared.

    def _built(self, config: str) -> Instrument:
        configure([configs.find(f"models/{config}.gin")], self._sizes.bindings)
        return build()

    @functools.cached_property
    def _ours(self) -> Instrument:
        return self._built("lineage")

    @functools.cached_property
    def _stock(self) -> stock.Instrument:
        """The original with the weights of ours."""
        instrument = stock.Instrument(self._n_samples, SAMPLE_RATE, *self._sizes.network)
        instrument({name: value[:1] for name, value in self._stock_features.items()})  # Makes its variables.
        *shared, kernel, bias = self._ours.decoder.get_weights()
        ends = np.cumsum(list(stock.HEADS.values()))[:-1]
        heads = zip(np.split(kernel, ends, axis=1), np.split(bias, ends))
        instrument.decoder.set_weights([*shared, *(weights for head in heads for weights in head)])
        instrument.processor_group.reverb.set_weights(self._ours.processor_group.reverb.get_weights())
        return instrument

    @functools.cached_property
    def _groups(self) -> list[tf.keras.layers.Layer]:
        """Our processors and stock's, with one impulse response that rings for a second."""
        groups = [self._ours.processor_group, self._stock_group()]
        n_samples = 4 * SAMPLE_RATE
        response = 0.02 * np.random.default_rng(1).normal(size=n_samples) * np.exp(-np.arange(n_samples) / 4000)
        for group in groups:
            group.reverb.set_weights([response])
        return groups

    def _stock_group(self) -> tf.keras.layers.Layer:
        group = stock.processor_group(self._n_samples, SAMPLE_RATE)
        group.reverb.build(None)
        return group

    @functools.cached_property
    def _parameters(self) -> dict[str, tf.Tensor]:
        """What a decoder might give, `[batch, n_frames, size]` each, without much noise."""
        random = np.random.default_rng(0)
        shape = [self._sizes.batch, self._n_frames]
        return {name: tf.constant(random.normal(size=[*shape, n]), tf.float32) for name, n in stock.HEADS.items()}

    @functools.cached_property
    def _f0_hz(self) -> tf.Tensor:
        """A steady pitch for each voice, `[batch, n_frames, 1]`; of most, 100 harmonics pass half the sample rate."""
        pitches = np.linspace(62.0, 116.0, self._sizes.batch)[:, np.newaxis, np.newaxis]
        return tf.constant(np.repeat(pitches, self._n_frames, axis=1), tf.float32)

    @functools.cached_property
    def _audio(self) -> tf.Tensor:
        audio = 0.1 * np.random.default_rng(2).normal(size=[self._sizes.batch, self._n_samples])
        return tf.constant(audio, tf.float32)

    @functools.cached_property
    def _features(self) -> dict[str, tf.Tensor]:
        return _training_features(self._sizes.batch, self._audio.shape[1], SAMPLE_RATE)

    @functools.cached_property
    def _stock_features(self) -> dict[str, tf.Tensor]:
        """As `_features` for stock: frames, which the original's data set has ready, so that they cost nothing."""
        rows = (self._features[name] for name in ("notes", "control_changes", "pitch_bends"))
        frames = self._ours.controls(*rows, self._n_frames)
        f0_hz = ddsp.core.midi_to_hz(frames["f0_midi"])
        return {**self._ours.preprocessor(frames), "f0_hz": f0_hz, "audio": self._features["audio"]}

    # Parts.

    def _beside(self, name: str, calls: list[Callable[[], Any]], aim: str = "") -> Row:
        times = measuring.interleaved(dict(zip(("ours", "stock"), calls)), self._sizes.seconds)
        return Row(name, times["ours"], times["stock"], self._batch_audio, aim=aim, call=calls[0])

    def _harmonic(self, with_gradient: bool) -> list[Row]:
        pair = [group.harmonic for group in self._groups]
        network = [self._parameters[name] for name in ("amplitudes", "harmonic_distribution")]
        if with_gradient:
            name = "harmonic with gradient"
            calls = [measuring.gradient(each, network, [self._f0_hz]) for each in pair]
            first = [[gradient[:, :_EXACT_FRAMES] for gradient in call()] for call in calls]
        else:
            name = "harmonic forward"
            calls = [functools.partial(tf.function(each), *network, self._f0_hz) for each in pair]
            first = [call()[:, : _EXACT_FRAMES * HOP] for call in calls]
        measuring.check_same(name, *first)
        return [self._beside(name, calls)]

    def _noise(self) -> list[Row]:
        ours, theirs = (group.filtered_noise for group in self._groups)
        magnitudes = 10.0 + self._parameters["magnitudes"]
        # Stock's own noise is another one each time: here it filters ours.
        samples = tf.range(self._n_samples, dtype=tf.int64)
        white = processors._white_noise(tf.tile(samples[tf.newaxis], [self._sizes.batch, 1]), ours.seed)

        def filtered(magnitudes: tf.Tensor) -> tf.Tensor:
            return ddsp.core.frequency_filter(white, theirs.get_controls(magnitudes)["magnitudes"], window_size=0)

        name = "noise with gradient"
        measuring.check_same(name, ours(magnitudes), filtered(magnitudes))
        measuring.check_same(name, *(measuring.gradient(each, [magnitudes])() for each in (ours, filtered)))
        return [self._beside(name, [measuring.gradient(each, [magnitudes]) for each in (ours, theirs)])]

    def _reverb(self) -> list[Row]:
        pair = [group.reverb for group in self._groups]
        measuring.check_same("reverb", *(each(self._audio) for each in pair))
        calls = [measuring.gradient(each, [self._audio], variables=each.trainable_variables) for each in pair]
        measuring.check_same("reverb with gradient", *(call() for call in calls))
        return [self._beside("reverb with gradient", calls)]

    def _group_call(self, group: tf.keras.layers.Layer) -> Callable[[], list[tf.Tensor]]:
        def play(*parameters: tf.Tensor) -> tf.Tensor:
            f0_hz = {"f0_hz": self._f0_hz, "fifth_f0_hz": 1.5 * self._f0_hz}  # Ours has no use for the second.
            return group({**dict(zip(stock.HEADS, parameters)), **f0_hz})

        return measuring.gradient(play, list(self._parameters.values()), variables=group.trainable_variables)

    def _group(self) -> list[Row]:
        name = "processor group with gradient"
        f0_hz = {"f0_hz": self._f0_hz, "fifth_f0_hz": 1.5 * self._f0_hz}
        quiet = {**self._parameters, **f0_hz, "magnitudes": self._parameters["magnitudes"] - 100.0}
        first = [group(quiet)[:, : _EXACT_FRAMES * HOP] for group in self._groups]
        measuring.check_same(name, *first)
        row = self._beside(name, [self._group_call(group) for group in self._groups], "15 ×; 1/4 of the memory")
        row.memory, row.stock_memory = (self._measured("group", whose=whose)["memory"] for whose in ("ours", "stock"))
        return [row]

    def _measure_group(self, whose: str) -> dict[str, float]:
        group = self._built("lineage").processor_group if whose == "ours" else self._stock_group()
        call = self._group_call(group)
        for _ in range(2):
            call()
        return {}

    def _decoder(self) -> list[Row]:
        ours, theirs = self._ours.decoder, self._stock.decoder
        channels = [self._stock_features[channel] for channel in stock.CHANNELS]

        def decode(*channels: tf.Tensor) -> dict[str, tf.Tensor]:
            frames = dict(zip(stock.CHANNELS, channels))
            return ours(frames, state=ours.initial_state(self._sizes.batch))[0]

        def stock_decode(*channels: tf.Tensor) -> dict[str, tf.Tensor]:
            return theirs(dict(zip(stock.CHANNELS, channels)))

        # Ours is a stride behind, so that it can stream; the last stride of stock's is held.
        behind = ours.latency_frames
        decoded = {name: value[:, behind:] for name, value in decode(*channels).items()}
        expected = {name: value[:, :-behind] for name, value in stock_decode(*channels).items()}
        measuring.check_same("decoder", decoded, expected)
        calls = [
            measuring.gradient(decode, [], channels, ours.trainable_variables),
            measuring.gradient(stock_decode, [], channels, theirs.trainable_variables),
        ]
        return [self._beside("decoder with gradient", calls)]

    def _loss(self) -> list[Row]:
        target, audio = self._features["audio"], self._audio
        plain = [ddsp.losses.SpectralLoss(), SpectralLoss(sample_rate=SAMPLE_RATE, logmag_weight=0.0, mel_weight=0.0)]
        measuring.check_same("spectral loss of magnitudes", *(loss(target, audio) for loss in plain))
        pair = (self._built("guitar").spectral_loss, stock.spectral_loss())
        calls = [measuring.gradient(functools.partial(loss, target), [audio]) for loss in pair]
        return [self._beside("spectral loss with gradient", calls)]

    # The whole.

    def _training_step(self) -> list[Row]:
        import neural_midi_synth.training  # noqa: F401  (gin reads of it how an instrument is trained)

        ours, theirs = self._ours, self._stock
        played = [tf.function(ours)(self._features), tf.function(theirs)(self._stock_features)]
        measuring.check_same("instrument", *(audio[:, : _EXACT_FRAMES * HOP] for audio in played))
        loss = ours.spectral_loss
        # The noise is another one, and stock's phase drifts, which magnitudes hardly tell.
        measuring.check_same("loss of the instrument", *(loss(self._audio, audio) for audio in played), tolerance=0.01)
        calls = {"lineage": _step(ours, self._features, 1e-3), "stock": _step(theirs, self._stock_features, 1e-3)}
        default = self._built("guitar")
        own_batch, own_seconds = (gin.query_parameter(f"nms.train.{name}") for name in ("batch_size", "clip_seconds"))
        if self._quick:
            own_batch, own_seconds = 1, self._sizes.clip_seconds
        calls["guitar"] = _step(default, self._features, 2e-3)
        own = _training_features(own_batch, round(own_seconds * SAMPLE_RATE), SAMPLE_RATE)
        calls["own"] = _step(self._built("guitar"), own, 2e-3)
        times = measuring.interleaved(calls, self._sizes.seconds)
        batches = {name: (self._sizes.batch, self._sizes.clip_seconds) for name in ("lineage", "guitar")}
        batches["own"] = (own_batch, own_seconds)
        rows = []
        for name, (batch, seconds) in batches.items():
            config, aim = ("lineage", "8 ×") if name == "lineage" else ("guitar", "30 ×")
            title = f"training step, {config}.gin, {batch} × {seconds:g} s"
            audio = (batch * seconds, self._batch_audio)
            rows.append(Row(title, times[name], times["stock"], *audio, aim=aim, call=calls[name]))
        return rows

    def _render_call(self, config: str, seconds: float) -> Callable[..., None]:
        """A call that renders as `nms_render` does, from notes to a file."""
        instrument, voice = self._built(config), _voice(seconds)

        def render(seconds: float = seconds) -> None:
            blocks = instrument.render_blocks(voice, n_samples=round(seconds * instrument.sample_rate))
            with tempfile.TemporaryDirectory() as folder:
                write_audio(pathlib.Path(folder) / "rendering.wav", blocks, instrument.sample_rate)

        return render

    def _rendering(self, name: str, config: str, seconds: float) -> list[Row]:
        measured = self._measured("rendering", config=config, seconds=seconds)
        row = Row(name, measured["seconds"], audio=seconds, memory=measured["memory"], aim=_REAL_TIME[config])
        if seconds == self._sizes.clip_seconds:  # All that stock can render.
            row.call = self._render_call(config, seconds)
            one = {name: value[:1] for name, value in self._stock_features.items()}
            theirs = functools.partial(tf.function(self._stock), one)
            times = measuring.interleaved({"ours": row.call, "stock": theirs}, self._sizes.seconds)
            row.ours, row.stock = times["ours"], times["stock"]
            row.stock_memory = self._measured("stock_clip")["memory"]
        return [row]

    def _measure_rendering(self, config: str, seconds: float) -> dict[str, float]:
        render = self._render_call(config, seconds)
        render(2.0 * RENDER_BLOCK_SECONDS)  # Traces the graph.
        return {"seconds": measuring.median_time(render, 3 if seconds <= 360.0 else 1)}

    def _measure_stock_clip(self) -> dict[str, float]:
        frames = {channel: tf.zeros([1, self._n_frames, 1]) for channel in (*stock.CHANNELS, "f0_hz")}
        play = tf.function(stock.Instrument(self._n_samples, SAMPLE_RATE, *self._sizes.network))
        for _ in range(2):
            play(frames)
        return {}

    def _stream(self) -> list[Row]:
        measured = self._measured("stream")
        audio, aims = measured["audio"], ("", "8 ms", "16 ms")
        rows = [
            Row(
                f"stream, guitar_live.gin, block of {audio * 1000:g} ms: {which}", measured[which], audio=audio, aim=aim
            )
            for which, aim in zip(("median", "p99", "worst"), aims)
        ]
        rows[0].memory = measured["memory"]
        rows[0].call = lambda: Stream(self._built("guitar_live"), _STREAM_FRAMES).block()
        return rows

    def _measure_stream(self) -> dict[str, float]:
        stream = Stream(self._built("guitar_live"), _STREAM_FRAMES)
        times = []
        events = collections.deque(_events(_voice(self._sizes.stream_seconds), stream.instrument.frame_rate))
        for _ in range(math.ceil(self._sizes.stream_seconds * SAMPLE_RATE / stream.block_samples)):
            began = time.perf_counter()
            while events and events[0][0] < stream.frame + stream.block_frames:
                frame, kind, values = events.popleft()
                getattr(stream, kind)(*values, frame=frame)
            stream.block()
            times.append(time.perf_counter() - began)
        p99 = float(np.percentile(times, 99.0))
        median = float(np.median(times))
        return {"median": median, "p99": p99, "worst": max(times), "audio": stream.block_samples / SAMPLE_RATE}

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
            self._built("guitar")  # Whose configuration that of the data set is.
            began = time.perf_counter()
            midi_audio.build(takes, pathlib.Path(folder) / "data")
            seconds = time.perf_counter() - began
            audio = sum(read_audio_info(path)[0] for path in takes.glob("*.mp3"))
        return [Row("data set, the demo guitar's takes", seconds, audio=audio)]

    def _steps(self) -> list[Row]:
        from neural_midi_synth import training
        from neural_midi_synth.data_prep import midi_audio

        instrument = self._built("guitar")
        batch, clip_seconds = (gin.query_parameter(f"nms.train.{name}") for name in ("batch_size", "clip_seconds"))
        steps = self._sizes.steps
        with tempfile.TemporaryDirectory() as folder:
            builder = midi_audio.build(data_dir=folder)
            clip = round(clip_seconds * SAMPLE_RATE)
            instrument.compile(optimizer=tf.keras.optimizers.Adam(2e-3, global_clipnorm=1.0))
            ends: list[float] = []
            tell = tf.keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: ends.append(time.perf_counter()))
            batches = training.training_batches(builder, batch, clip, SAMPLE_RATE, seed=0, first_step=0)
            instrument.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[tell], verbose=0)
        times = np.diff(ends)
        return [
            Row(f"training step, guitar.gin, step {first} to {first + 100}", float(median), audio=batch * clip_seconds)
            for first in (100, steps - 100)
            for median in [np.median(times[first - 1 : first + 99])]
        ]

    # Cost against length, number of harmonics and sample rate.

    def cost(self) -> dict[str, list[tuple[float, float, float]]]:
        """Of a harmonic synthesizer forward and backward.

        Returns:
            Name of an axis → its points: the value, and seconds for a second of audio, ours and stock's.
        """
        if self._quick:
            lengths, harmonics, rates, usual = (0.2, 0.4), (10, 20), (16000, 32000), (0.2, 10, 16000)
        else:
            lengths, harmonics, rates = (1.0, 2.0, 4.0, 8.0, 16.0), (25, 50, 100, 200), (16000, 32000, 48000)
            usual = (4.0, 100, 16000)
        return {
            "length (s)": [(each, *self._cost(each, *usual[1:])) for each in lengths],
            "harmonics": [(each, *self._cost(usual[0], each, usual[2])) for each in harmonics],
            "sample rate (kHz)": [(each / 1000.0, *self._cost(*usual[:2], each)) for each in rates],
        }

    def _cost(self, seconds: float, n_harmonics: int, sample_rate: int) -> tuple[float, float]:
        hop, batch, n_frames = sample_rate // 250, 2, round(250 * seconds)
        network = [tf.random.normal([batch, n_frames, n]) for n in (1, n_harmonics)]
        ours = processors.Harmonic(sample_rate, hop, n_harmonics)
        theirs = ddsp.synths.Harmonic(n_frames * hop, sample_rate)
        f0_hz = [tf.fill([batch, n_frames, 1], 70.0)]
        calls = [measuring.gradient(each, network, f0_hz) for each in (ours, theirs)]
        times = measuring.interleaved(dict(zip(("ours", "stock"), calls)), 0.0)
        return times["ours"] / (batch * seconds), times["stock"] / (batch * seconds)


def remarks(rows: Sequence[Row]) -> list[str]:
    """What several rows say together."""
    named = {row.name: row for row in rows}
    long, short = (named.get(f"rendering {length}, guitar.gin") for length in ("60 min", "6 min"))
    if not (long and short):
        return []
    time, more = long.ours / (10.0 * short.ours), long.memory - short.memory
    return [f"Sixty minutes take {time:.2f} times as long as ten times six minutes, and {more:.0f} MB more."]


def _length(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60.0 else f"{seconds / 60.0:g} min"


def _voice(seconds: float, seed: int = 0) -> Voice:
    """Somebody plays: 2.5 notes a second, a style changes every two seconds, now and then a bend."""
    random = np.random.default_rng(seed)
    onsets = np.arange(0.0, seconds, 0.4)
    lengths = random.uniform(0.1, 0.4, len(onsets))
    pitches, velocities = random.integers(36, 60, len(onsets)), random.integers(30, 127, len(onsets))
    notes = np.stack([onsets, np.minimum(onsets + lengths, seconds), pitches, velocities], axis=1)
    changes = np.arange(0.0, seconds, 2.0)
    numbers, values = random.choice([55, 56], len(changes)), random.choice([0, 127], len(changes))
    bends = np.arange(0.0, seconds, 5.0)
    return Voice(
        notes,
        np.stack([changes, numbers, values], axis=1),
        np.stack([bends, random.uniform(-1.0, 1.0, len(bends))], axis=1),
    )


def _events(voice: Voice, frame_rate: int) -> list[tuple[int, str, tuple[float, ...]]]:
    """The voice as a player gives it to a stream: frame, method and its arguments, in the order of time."""
    events = [(onset, "note_on", (pitch, velocity)) for onset, _, pitch, velocity in voice.notes]
    events += [(offset, "note_off", (pitch,)) for _, offset, pitch, _ in voice.notes]
    events += [(at, "control_change", (number, value)) for at, number, value in voice.control_changes]
    events += [(at, "pitch_bend", (semitones,)) for at, semitones in voice.pitch_bends]
    return sorted((round(at * frame_rate), kind, values) for at, kind, values in events)


def _training_features(batch: int, n_samples: int, sample_rate: int) -> dict[str, tf.Tensor]:
    """A batch as the data set gives it: noise for the recordings, since what is heard costs nothing."""
    voices = [_voice(n_samples / sample_rate, seed) for seed in range(batch)]
    features = {
        name: tf.constant(np.stack([getattr(voice, name) for voice in voices]), tf.float32)
        for name in ("notes", "control_changes", "pitch_bends")
    }
    audio = 0.1 * np.random.default_rng(3).normal(size=[batch, n_samples])
    return {**features, "audio": tf.constant(audio, tf.float32), "first_sample": tf.zeros([batch], tf.int64)}


def _step(model: tf.keras.Model, features: Mapping[str, tf.Tensor], learning_rate: float) -> Callable[[], Any]:
    """A step of `fit` on the same batch again and again."""
    clip = {"global_clipnorm": 1.0} if isinstance(model, Instrument) else {}
    model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate, **clip))
    batches = iter(tf.data.Dataset.from_tensors(dict(features)).repeat())
    return functools.partial(model.make_train_function(), batches)
