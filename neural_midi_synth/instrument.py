"""The instrument: controls, decoder and processors in one Keras model that plays clips, streams and whole files."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ddsp
import gin
import numpy as np
import soxr
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.controls import COLUMNS, Controls, Score
from neural_midi_synth.decoders import Decoder, Preprocessor, on_gpu
from neural_midi_synth.errors import DataError
from neural_midi_synth.losses import SpectralLoss  # noqa: F401  (gin configures it)
from neural_midi_synth.notes import Voice, read_midi
from neural_midi_synth.processors import ProcessorGroup, for_xla

State = dict[str, Any]

CONFIG_NAME = "operative_config.gin"
PRETRAINED = pathlib.Path(__file__).resolve().parent / "pretrained" / "demo_guitar"
"""The instrument that comes with the package: the demo guitar, trained by `make pretrained`."""

gin.add_config_file_search_path(str(configs.folder()))
OF_TRAINING = ("nms.train", "cosine_decay", "exponential_decay", "MidiAudioConfig")
RENDER_BLOCK_SECONDS = 2
TAIL_SECONDS = 1.0


@gin.configurable(module="nms")
class Instrument(tf.keras.Model):
    """Plays MIDI with the sound of a recording.

    The road: notes → `controls` → `preprocessor` → `decoder` → `processor_group` → audio. `step` walks it for one
    block; a clip is a stream with one block.

    Attributes:
        sample_rate: Samples a second.
        hop: Samples a frame.
        latency: Samples by which a stream is behind its control frames.
        level: Variable: peak of the recordings. Networks and losses work at full scale; what is played is scaled by it.
    """

    def __init__(
        self,
        controls: Controls = gin.REQUIRED,
        preprocessor: Preprocessor = gin.REQUIRED,
        decoder: Decoder = gin.REQUIRED,
        processor_group: ProcessorGroup = gin.REQUIRED,
        spectral_loss: ddsp.losses.Loss = gin.REQUIRED,
        sample_rate: int = gin.REQUIRED,
        name: str = "instrument",
    ) -> None:
        """Puts an instrument together; gin gives the parts.

        Args:
            controls: From notes to control frames.
            preprocessor: Scales them.
            decoder: From them to synthesizer parameters.
            processor_group: From those and 'f0_hz' to audio.
            spectral_loss: Called with the recorded and the played audio.
            sample_rate: Samples a second, a multiple of the frame rate.
            name: Name of the model.

        Raises:
            ValueError: The frame rate does not divide the sample rate, a processor has another hop, or the decoder sees
                a channel that is not there.
        """
        super().__init__(name=name, autocast=False)  # Times stay float64.
        if controls.frame_rate < 1 or sample_rate % controls.frame_rate:
            raise ValueError(f"Instrument: the frame rate {controls.frame_rate} does not divide {sample_rate} Hz.")
        missing = sorted(set(decoder.channels) - set(controls.channels))
        if missing:
            raise ValueError(f"Decoder.channels: '{missing[0]}' is not one of Controls.channels.")
        self.controls = controls
        self.preprocessor = preprocessor
        self.decoder = decoder
        self.processor_group = processor_group
        self.spectral_loss = spectral_loss
        self.sample_rate = int(sample_rate)
        self.hop = self.sample_rate // controls.frame_rate
        for processor in processor_group.processors:
            if getattr(processor, "hop", self.hop) != self.hop:
                raise ValueError(
                    f"{processor.name}: its hop is {processor.hop}, but {sample_rate} samples in "
                    f"{controls.frame_rate} frames make a hop of {self.hop}."
                )
        self._latency_frames = decoder.latency_frames + 1
        self.latency = self._latency_frames * self.hop
        # The peak of the recordings: inside, all instruments are equally loud.
        self.level = self.add_weight("level", [], initializer="ones", trainable=False)
        self._loss = tf.keras.metrics.Mean("loss")

    @property
    def frame_rate(self) -> int:
        """Control frames a second."""
        return self.controls.frame_rate

    @property
    def styles(self) -> dict[str, int]:
        """Style name → controller number."""
        return dict(self.controls.styles)

    def initial_state(self, batch: int | tf.Tensor) -> State:
        """Silence: what a stream starts from."""
        return {
            "f0_hz": tf.zeros([batch, self.decoder.latency_frames, 1]),
            "decoder": self.decoder.initial_state(batch),
            "processor_group": self.processor_group.initial_state(batch),
        }

    def step(self, control_frames: dict[str, tf.Tensor], state: State) -> tuple[dict[str, Any], State]:
        """Plays one block.

        Args:
            control_frames: Channel name → `[batch, n_frames, 1]`; `n_frames` a multiple of the decoder's stride.
            state: Of the block before, or `initial_state`.

        Returns:
            The processor group's outputs, where `['out']['signal']` is audio `[batch, n_frames * hop]` before it is
            scaled by `level`, `latency` samples behind the frames; and the next state.
        """
        parameters, decoded = self._decode(control_frames, state)
        outputs, group_state = self.processor_group.step(parameters, state["processor_group"])
        return outputs, {**decoded, "processor_group": group_state}

    def _decode(self, control_frames: dict[str, tf.Tensor], state: State) -> tuple[dict[str, tf.Tensor], State]:
        """From control frames to what the processor group takes; the next state but for that group's."""
        parameters, decoder_state = self.decoder(self.preprocessor(control_frames), state=state["decoder"])
        f0_hz = tf.concat([state["f0_hz"], _midi_to_hz(control_frames["f0_midi"])], axis=1)
        n_frames = tf.shape(control_frames["f0_midi"])[1]
        parameters["f0_hz"], later_f0_hz = f0_hz[:, :n_frames], f0_hz[:, n_frames:]
        return parameters, {"f0_hz": later_f0_hz, "decoder": decoder_state}

    def call(self, features: Mapping[str, tf.Tensor], n_samples: int | tf.Tensor | None = None) -> tf.Tensor:
        """Plays clips from notes.

        Args:
            features: `notes`, `control_changes` and `pitch_bends` as `Controls` takes them, and `audio`
                `[batch, n_samples]`, of which only the length matters, unless `n_samples` is given. Where there is
                `first_sample` `[batch]`, the noise starts from that sample.
            n_samples: Length of the clips.

        Returns:
            Audio `[batch, n_samples]`.
        """
        if n_samples is None:
            n_samples = tf.shape(features["audio"])[1]
        parameters, group_state = self._decode_clips(features, n_samples)
        return self.level * self._play(parameters, group_state, n_samples)

    def _decode_clips(
        self, features: Mapping[str, tf.Tensor], n_samples: int | tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], State]:
        """What the processor group takes for clips, and the state it starts from."""
        state = self.initial_state(tf.shape(features["notes"])[0])
        if "first_sample" in features:
            for noise in state["processor_group"].values():
                if "sample" in noise:
                    noise["sample"] += features["first_sample"]
        notes = (features[name] for name in ("notes", "control_changes", "pitch_bends"))
        parameters, _ = self._decode(self.controls(*notes, self._frames_for(n_samples)), state)
        return parameters, state["processor_group"]

    def _play(self, parameters: dict[str, tf.Tensor], group_state: State, n_samples: int | tf.Tensor) -> tf.Tensor:
        """Clips `[batch, n_samples]` at full scale, from the first sample that is not late."""
        outputs, _ = self.processor_group.step(parameters, group_state)
        signal = outputs["out"]["signal"]
        rest = tf.shape(signal)[1] - self.latency - n_samples
        return tf.split(signal, [self.latency, n_samples, rest], axis=1)[1]

    def train_step(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of `fit`. Features as for `call`, with the recorded `audio`.

        On processor cores the halves of a batch go side by side: where one waits for the frame before, as the recurrent
        layer does, the other has something to do.
        """
        batch = features["audio"].shape[0]
        n_parts = 1 if on_gpu() or batch is None or batch % 2 else 2
        parts = zip(*(tf.split(value, n_parts) for value in features.values()))
        of_part = tf.function(self._loss_and_gradients)
        losses, gradients = zip(*(of_part(dict(zip(features, part))) for part in parts))
        gradients = [tf.add_n(each) / n_parts for each in zip(*gradients)]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        self._loss.update_state(tf.add_n(losses) / n_parts)
        return {"loss": self._loss.result(), "gradient_norm": tf.linalg.global_norm(gradients)}

    def _loss_and_gradients(self, features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The loss, and this replica's share of the gradient of each variable.

        What comes after the decoder goes over every sample many times; on processor cores it is one program of XLA's.
        """
        audio = features["audio"] / self.level
        of_group = self.processor_group.trainable_variables
        references = {variable.ref() for variable in of_group}
        others = [variable for variable in self.trainable_variables if variable.ref() not in references]
        with tf.GradientTape() as tape:
            parameters, group_state = self._decode_clips(features, tf.shape(audio)[1])
        f0_hz = parameters.pop("f0_hz")  # MIDI tells it: it takes no gradient.
        after_decoder = tf.function(self._loss_and_gradients_after_decoder, jit_compile=not on_gpu())
        loss, upstream, gradients = after_decoder(parameters, f0_hz, group_state, audio)
        zero = tf.UnconnectedGradients.ZERO
        gradients += tape.gradient(parameters, others, output_gradients=upstream, unconnected_gradients=zero)
        by_variable = {variable.ref(): gradient for variable, gradient in zip([*of_group, *others], gradients)}
        return loss, [by_variable[variable.ref()] for variable in self.trainable_variables]

    def _loss_and_gradients_after_decoder(
        self, parameters: dict[str, tf.Tensor], f0_hz: tf.Tensor, group_state: State, audio: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], list[tf.Tensor]]:
        """The loss, and its gradients with respect to parameters and to the group's variables."""
        variables = self.processor_group.trainable_variables
        with contextlib.nullcontext() if on_gpu() else for_xla(), tf.GradientTape() as tape:
            tape.watch(parameters)
            played = self._play({**parameters, "f0_hz": f0_hz}, group_state, tf.shape(audio)[1])
            loss = self.spectral_loss(audio, played)
            shared = loss / tf.distribute.get_strategy().num_replicas_in_sync
        zero = tf.UnconnectedGradients.ZERO
        return loss, *tape.gradient(shared, [parameters, variables], unconnected_gradients=zero)

    def test_step(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of `evaluate`."""
        self._loss.update_state(self.spectral_loss(features["audio"] / self.level, self(features) / self.level))
        return {"loss": self._loss.result()}

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The mean loss of an epoch, which Keras sets back."""
        return [self._loss]

    def build_variables(self) -> None:
        """Makes every variable, by playing nothing for a moment."""
        empty = {name: tf.zeros([1, 0, n]) for name, n in COLUMNS.items()}
        self(empty, n_samples=self.hop)

    def render(
        self,
        voice: Voice | str | os.PathLike,
        styles: Mapping[str, float] | None = None,
        sample_rate: int | None = None,
        n_samples: int | None = None,
    ) -> np.ndarray:
        """Plays a voice of any length, block by block.

        Args:
            voice: A voice or the path of a MIDI file.
            styles: Style name → control change value (0 to 127) that holds throughout, whatever the file says.
            sample_rate: Of the result; the instrument's own unless given.
            n_samples: Length of the result at the instrument's sample rate; unless given, to the end of the last note
                and a second more.

        Returns:
            Audio float32 `[n]`.

        Raises:
            DataError: The file cannot be used, or the instrument has no such style.
        """
        return np.concatenate(list(self.render_blocks(voice, styles, sample_rate, n_samples)))

    def render_blocks(
        self,
        voice: Voice | str | os.PathLike,
        styles: Mapping[str, float] | None = None,
        sample_rate: int | None = None,
        n_samples: int | None = None,
    ) -> Iterable[np.ndarray]:
        """As `render`, one block of audio after the other; memory does not grow with the length."""
        if not isinstance(voice, Voice):
            voice = read_midi(voice)
        if n_samples is None:
            n_samples = round((voice.duration + TAIL_SECONDS) * self.sample_rate)
        resampler = soxr.ResampleStream(self.sample_rate, sample_rate or self.sample_rate, 1, dtype="float32")
        score = self.score(voice, styles or {})
        state, skip, left = self.initial_state(1), self.latency, n_samples
        stride = self.decoder.stride
        block_frames = -(-RENDER_BLOCK_SECONDS * self.frame_rate // stride) * stride
        frame, frames_left = 0, self._frames_for(n_samples)
        while frames_left > 0:
            # A short rest goes with the block before it.
            n_frames = frames_left if frames_left <= 3 * block_frames // 2 else block_frames
            rows = score.rows(frame, frame + n_frames)
            signal, state = self._render_block(rows, tf.constant([frame, n_frames], tf.int64), state)
            signal = signal.numpy()[0, skip:][:left]
            frame, frames_left, skip, left = frame + n_frames, frames_left - n_frames, 0, left - len(signal)
            if sample_rate not in (None, self.sample_rate):
                signal = resampler.resample_chunk(signal, last=left == 0)
            yield signal

    @functools.cached_property
    def _render_block(self) -> Callable[..., tuple[tf.Tensor, State]]:
        """`step`, traced once: (rows, first frame and number of frames, state) to (signal, state)."""

        def block(rows: dict[str, tf.Tensor], place: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
            control_frames = self.controls(**rows, n_frames=place[1], first_frame=place[0])
            outputs, state = self.step(control_frames, state)
            return self.level * outputs["out"]["signal"], state

        rows = {name: tf.TensorSpec([1, None, n], tf.float64) for name, n in COLUMNS.items()}
        state = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), self.initial_state(1))
        signature = [rows, tf.TensorSpec([2], tf.int64), state]
        return tf.function(block, input_signature=signature)

    def _frames_for(self, n_samples: int | tf.Tensor) -> int | tf.Tensor:
        """How many control frames it takes to play so many samples, latency made up for."""
        n_frames = -(-n_samples // self.hop) + self._latency_frames
        return -(-n_frames // self.decoder.stride) * self.decoder.stride

    def score(self, voice: Voice, styles: Mapping[str, float]) -> Score:
        """A voice as it is played: with styles that hold throughout.

        Args:
            voice: What is played.
            styles: Style name → control change value (0 to 127).

        Returns:
            Its rows, by block.

        Raises:
            DataError: The instrument has no such style, or a value is out of its range.
        """
        control_changes = voice.control_changes
        for style, value in styles.items():
            if style not in self.styles:
                known = ", ".join(self.styles) or "none"
                raise DataError(f"'{style}' is not a style of this instrument; it has {known}.")
            if not 0 <= value <= 127:
                raise DataError(f"{style}={value}: a style's value is 0 to 127.")
            number = self.styles[style]
            control_changes = control_changes[control_changes[:, 1] != number]
            control_changes = np.concatenate([[[0.0, number, value]], control_changes])
        rows = {"notes": voice.notes, "control_changes": control_changes, "pitch_bends": voice.pitch_bends}
        return Score(rows, self.frame_rate)


def _midi_to_hz(pitch: tf.Tensor) -> tf.Tensor:
    """Hz, through float64: in float32 the last bit of a power depends on its place in the tensor, and phases add up."""
    return tf.cast(440.0 * 2.0 ** ((tf.cast(pitch, tf.float64) - 69.0) / 12.0), tf.float32)


def configure(
    gin_files: Iterable[str | os.PathLike],
    gin_params: Iterable[str] = (),
    skip_unknown: bool | tuple[str, ...] = OF_TRAINING,
) -> None:
    """Makes gin files and bindings the whole configuration.

    Args:
        gin_files: Paths of gin files.
        gin_params: Bindings that come after them, such as `'Decoder.units = 128'`.
        skip_unknown: What may be bound although it is not imported: names, or True for anything. The configs of models
            bring those of their training, which playing does without.

    Raises:
        DataError: A file or a binding that gin does not take.
    """
    logging.disable(logging.ERROR)  # gin logs an error for each place it looks for an included file in vain.
    try:
        with gin.unlock_config():
            gin.clear_config()
            gin.parse_config_files_and_bindings(
                [str(path) for path in gin_files], list(gin_params), skip_unknown=skip_unknown
            )
    except (ValueError, TypeError, SyntaxError, OSError, LookupError, AttributeError, ImportError) as error:
        raise DataError(f"gin: {_first_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)


def build() -> Instrument:
    """Builds the instrument that gin is configured for.

    Raises:
        DataError: The configuration does not describe an instrument; the message says which part.
    """
    try:
        instrument = Instrument()
        instrument.build_variables()
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise DataError(f"gin: {_first_line(error)}") from error
    return instrument


def _first_line(error: Exception) -> str:
    """The line that says something; Keras first says in which layer it is."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines()]
    telling = (line for line in lines if line and not line.startswith("Exception encountered when calling layer"))
    return next(telling, type(error).__name__)


def load(folder: str | os.PathLike | None = None, checkpoint: str | None = None) -> Instrument:
    """Loads a trained instrument.

    gin's configuration becomes that of the instrument.

    Args:
        folder: What `nms_train --save_dir` wrote; unless given, the guitar that comes with the package.
        checkpoint: 'best' (on validation) or 'last'; unless given the best, or the last of a run too young to have one.

    Returns:
        The instrument, ready to `render`.

    Raises:
        DataError: There is no instrument in the folder, or it is damaged.
    """
    folder = pathlib.Path(folder or PRETRAINED)
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise DataError(f"{folder}: no instrument here ({CONFIG_NAME} is missing). Name a folder that nms_train wrote.")
    if checkpoint is None:
        checkpoint = "best" if (folder / "best").is_dir() else "last"
    path = tf.train.latest_checkpoint(str(folder / checkpoint))
    if path is None:
        raise DataError(f"{folder}: no checkpoint in {checkpoint}/. Train it for a while first.")
    try:
        configure([config], skip_unknown=True)
        instrument = build()
    except DataError as error:
        raise DataError(f"{config}: damaged ({error}). Train again.") from error
    try:
        status = tf.train.Checkpoint(instrument=instrument).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        raise DataError(f"{path}: damaged checkpoint, or one of another instrument. Train again.") from error
    return instrument
