"""Parts, and the training step they make up: ours beside stock's, once it is known that both compute the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ddsp
import gin
import material
import measuring
import numpy as np
import stock
import tensorflow as tf
from rows import HOP, SAMPLE_RATE, Row, Sizes

from neural_midi_synth.instrument.harmonic import Harmonic
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.losses import SpectralLoss
from neural_midi_synth.instrument.processors import ProcessorGroup
from neural_midi_synth.instrument.white_noise import white_noise

# Later on stock is not exact to 1e-4: it adds up the phase of each harmonic in float32.
_EXACT_FRAMES = 1


class Parts:
    """Benchmarks that stock has a counterpart for."""

    def __init__(self, sizes: Sizes, quick: bool) -> None:
        self._sizes = sizes
        self._quick = quick
        self._n_frames = round(sizes.clip_seconds * SAMPLE_RATE) // HOP
        self._n_samples = self._n_frames * HOP
        self._batch_audio = sizes.batch * sizes.clip_seconds

    def catalogue(self) -> dict[str, Callable[[], list[Row]]]:
        """Name of each benchmark → what runs it and returns its rows."""
        return {
            "harmonic forward": functools.partial(self._harmonic, with_gradient=False),
            "harmonic with gradient": functools.partial(self._harmonic, with_gradient=True),
            "noise with gradient": self._noise,
            "reverb with gradient": self._reverb,
            "processor group with gradient": self._group,
            "decoder with gradient": self._decoder,
            "spectral loss with gradient": self._loss,
            "training step": self._training_step,
        }

    def measurements(self) -> dict[str, Callable[..., dict[str, float]]]:
        """Name → what is done in a process of its own, for its memory."""
        return {"group": self._measure_group, "stock clip": self._measure_stock_clip}

    # What is compared.

    @functools.cached_property
    def _ours(self) -> Instrument:
        """The lineage, in a room that rings for a second."""
        instrument = material.built("lineage", self._sizes.bindings)
        n_samples = 4 * SAMPLE_RATE
        response = 0.02 * np.random.default_rng(1).normal(size=n_samples) * np.exp(-np.arange(n_samples) / 4000)
        instrument.processor_group.reverb.set_weights([response])
        return instrument

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
        """Our processors and stock's, with one impulse response."""
        groups = [self._ours.processor_group, self._stock_group()]
        groups[1].reverb.set_weights(groups[0].reverb.get_weights())
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
        return material.training_features(self._sizes.batch, self._audio.shape[1], SAMPLE_RATE)

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

    def _gradients(self, pair: Sequence[Callable], *arguments: Sequence[tf.Tensor]) -> list[Callable[[], Any]]:
        """Forward and backward, ours as it is trained."""
        return [measuring.gradient(each, *arguments, as_trained=each is pair[0]) for each in pair]

    def _harmonic(self, with_gradient: bool) -> list[Row]:
        pair = [group.harmonic for group in self._groups]
        network = [self._parameters[name] for name in ("amplitudes", "harmonic_distribution")]
        if with_gradient:
            name = "harmonic with gradient"
            calls = self._gradients(pair, network, [self._f0_hz])
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
        white = white_noise(tf.tile(samples[tf.newaxis], [self._sizes.batch, 1]), ours.seed)

        def filtered(magnitudes: tf.Tensor) -> tf.Tensor:
            return ddsp.core.frequency_filter(white, theirs.get_controls(magnitudes)["magnitudes"], window_size=0)

        name = "noise with gradient"
        measuring.check_same(name, ours(magnitudes), filtered(magnitudes))
        measuring.check_same(name, *(measuring.gradient(each, [magnitudes])() for each in (ours, filtered)))
        return [self._beside(name, self._gradients((ours, theirs), [magnitudes]))]

    def _reverb(self) -> list[Row]:
        pair = [group.reverb for group in self._groups]
        measuring.check_same("reverb", *(each(self._audio) for each in pair))
        calls = [
            measuring.gradient(each, [self._audio], variables=each.trainable_variables, as_trained=each is pair[0])
            for each in pair
        ]
        measuring.check_same("reverb with gradient", *(call() for call in calls))
        return [self._beside("reverb with gradient", calls)]

    def _group_call(self, group: tf.keras.layers.Layer) -> Callable[[], list[tf.Tensor]]:
        def play(*parameters: tf.Tensor) -> tf.Tensor:
            f0_hz = {"f0_hz": self._f0_hz, "fifth_f0_hz": 1.5 * self._f0_hz}  # Ours has no use for the second.
            return group({**dict(zip(stock.HEADS, parameters)), **f0_hz})

        return measuring.gradient(
            play,
            list(self._parameters.values()),
            variables=group.trainable_variables,
            as_trained=isinstance(group, ProcessorGroup),
        )

    def _group(self) -> list[Row]:
        name = "processor group with gradient"
        f0_hz = {"f0_hz": self._f0_hz, "fifth_f0_hz": 1.5 * self._f0_hz}
        quiet = {**self._parameters, **f0_hz, "magnitudes": self._parameters["magnitudes"] - 100.0}
        first = [group(quiet)[:, : _EXACT_FRAMES * HOP] for group in self._groups]
        measuring.check_same(name, *first)
        row = self._beside(name, [self._group_call(group) for group in self._groups], "15 ×; 1/4 of the memory")
        row.memory, row.stock_memory = (
            measuring.in_a_process("group", self._quick, whose=whose)["memory"] for whose in ("ours", "stock")
        )
        return [row]

    def _measure_group(self, whose: str) -> dict[str, float]:
        call = self._group_call(self._ours.processor_group if whose == "ours" else self._stock_group())
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
        rows = []
        for name, ours in (("", stock.spectral_loss()), (" of guitar_16k.gin", self._own_loss())):
            pair = [functools.partial(loss, target) for loss in (ours, stock.spectral_loss())]
            rows.append(self._beside(f"spectral loss{name} with gradient", self._gradients(pair, [audio])))
        return rows

    def _own_loss(self) -> ddsp.losses.Loss:
        return material.built("guitar_16k", self._sizes.bindings).spectral_loss

    # The whole.

    def _training_step(self) -> list[Row]:
        import neural_midi_synth.training.loop  # noqa: F401  (gin reads of it how an instrument is trained)

        ours, theirs = self._ours, self._stock
        played = [tf.function(ours)(self._features), tf.function(theirs)(self._stock_features)]
        measuring.check_same("instrument", *(audio[:, : _EXACT_FRAMES * HOP] for audio in played))
        loss = ours.spectral_loss
        # The noise is another one, and stock's phase drifts, which magnitudes hardly tell.
        measuring.check_same("loss of the instrument", *(loss(self._audio, audio) for audio in played), tolerance=0.02)
        calls = {"lineage": _step(ours, self._features, 1e-3), "stock": _step(theirs, self._stock_features, 1e-3)}
        small = material.built("guitar_16k", self._sizes.bindings)
        own_batch, own_seconds = (gin.query_parameter(f"nms.train.{name}") for name in ("batch_size", "clip_seconds"))
        if self._quick:
            own_batch, own_seconds = 1, self._sizes.clip_seconds
        calls["guitar_16k"] = _step(small, self._features, 2e-3)
        for config in ("guitar_16k", "guitar"):  # In batches of their own.
            instrument = material.built(config, self._sizes.bindings)
            own = material.training_features(
                own_batch, round(own_seconds * instrument.sample_rate), instrument.sample_rate
            )
            calls[f"own {config}"] = _step(instrument, own, 2e-3)
        times = measuring.interleaved(calls, self._sizes.seconds)
        batches = {name: (self._sizes.batch, self._sizes.clip_seconds) for name in ("lineage", "guitar_16k")}
        batches |= {name: (own_batch, own_seconds) for name in ("own guitar_16k", "own guitar")}
        aims = {"lineage": "8 ×", "guitar_16k": "30 ×", "guitar": "20 ×"}
        rows = []
        for name, (batch, seconds) in batches.items():
            config = name.removeprefix("own ")
            title, aim = f"training step, {config}.gin, {batch} × {seconds:g} s", aims[config]
            audio = (batch * seconds, self._batch_audio)
            rows.append(Row(title, times[name], times["stock"], *audio, aim=aim, call=calls[name]))
        return rows

    def stock_clip(self) -> Callable[[], tf.Tensor]:
        """A call of stock's that plays a clip: all that it can render."""
        one = {name: value[:1] for name, value in self._stock_features.items()}
        return functools.partial(tf.function(self._stock), one)

    def _measure_stock_clip(self) -> dict[str, float]:
        frames = {channel: tf.zeros([1, self._n_frames, 1]) for channel in (*stock.CHANNELS, "f0_hz")}
        play = tf.function(stock.Instrument(self._n_samples, SAMPLE_RATE, *self._sizes.network))
        for _ in range(2):
            play(frames)
        return {}

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
        ours = Harmonic(sample_rate, hop, n_harmonics)
        theirs = ddsp.synths.Harmonic(n_frames * hop, sample_rate)
        f0_hz = [tf.fill([batch, n_frames, 1], 70.0)]
        calls = self._gradients((ours, theirs), network, f0_hz)
        times = measuring.interleaved(dict(zip(("ours", "stock"), calls)), 0.0)
        return times["ours"] / (batch * seconds), times["stock"] / (batch * seconds)


def _step(model: tf.keras.Model, features: Mapping[str, tf.Tensor], learning_rate: float) -> Callable[[], Any]:
    """A step of `fit` on the same batch again and again."""
    clip = {"global_clipnorm": 1.0} if isinstance(model, Instrument) else {}
    model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate, **clip))
    batches = iter(tf.data.Dataset.from_tensors(dict(features)).repeat())
    return functools.partial(model.make_train_function(), batches)
