"""The instrument: controls, decoder and processors in one Keras model that plays clips, streams and whole pieces."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ddsp
import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument import rendering
from neural_midi_synth.instrument.controls import COLUMNS, ONSET, VELOCITY, Controls, voices_of
from neural_midi_synth.instrument.decoder import Decoder, Preprocessor
from neural_midi_synth.instrument.gradients import loss_and_gradients, loss_of, sum_of
from neural_midi_synth.instrument.processors import AUDIBLE, F0, INHARMONICITY, ProcessorGroup
from neural_midi_synth.instrument.recurrent import State, on_gpu
from neural_midi_synth.instrument.strings import Strings, Tuning
from neural_midi_synth.midi.pieces import Piece, Voice

if TYPE_CHECKING:
    from note_seq.protobuf import music_pb2


@gin.configurable(module="nms")
class Instrument(tf.keras.Model):
    """Plays MIDI with the sound of a recording.

    The road: notes → `controls` → `preprocessor` → `decoder` → `processor_group` → audio. `step` walks it for one
    block; a clip is a stream with one block. A piece has one voice or several: up to the sum in the processor group
    each voice is a row of the batch, and the voices of a piece follow each other.

    Attributes:
        sample_rate: Samples a second.
        hop: Samples a frame.
        latency: Samples by which a stream is behind its control frames.
        level: Variable: peak of the recordings. Networks and losses work at full scale; what is played is scaled by it.
        pitch_range: Lowest and highest MIDI note number it has learnt, as far as its folder tells.
    """

    def __init__(
        self,
        controls: Controls = gin.REQUIRED,
        preprocessor: Preprocessor = gin.REQUIRED,
        decoder: Decoder = gin.REQUIRED,
        processor_group: ProcessorGroup = gin.REQUIRED,
        spectral_loss: ddsp.losses.Loss = gin.REQUIRED,
        sample_rate: int = gin.REQUIRED,
        strings: Strings | None = None,
        tuning: Tuning | None = None,
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
            strings: How stiff its strings are, for processors that take their 'inharmonicity'.
            tuning: How it is tuned; in equal temperament with A at 440 Hz unless given.
            name: Name of the model.

        Raises:
            ValueError: The frame rate does not divide the sample rate, a processor has another hop or sample rate, the
                decoder sees a channel that is not there, or processors take what it has not.
        """
        super().__init__(name=name, autocast=False)  # Times stay float64.
        if controls.frame_rate < 1 or sample_rate % controls.frame_rate:
            raise ValueError(f"Instrument: the frame rate {controls.frame_rate} does not divide {sample_rate} Hz.")
        missing = sorted(set(decoder.channels) - set(controls.channels))
        if missing:
            raise ValueError(f"Decoder.channels: '{missing[0]}' is not one of Controls.channels.")
        controls.add(VELOCITY)
        if ONSET in processor_group.given:
            controls.add(ONSET)
        if INHARMONICITY in processor_group.given and strings is None:
            raise ValueError(
                "ProcessorGroup: its processors take 'inharmonicity'. Set Instrument.strings = @Strings()."
            )
        self.controls = controls
        self.strings = strings
        self.tuning = tuning
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
            if getattr(processor, "sample_rate", self.sample_rate) != self.sample_rate:
                raise ValueError(
                    f"{processor.name}: its sample rate is {processor.sample_rate}, the instrument's {sample_rate} Hz."
                )
        decoder.set_outputs(processor_group.heads)
        self.pitch_range = (0.0, 127.0)
        self._latency_frames = decoder.latency_frames + processor_group.lag
        self.latency = self._latency_frames * self.hop
        # The peak of the recordings: inside, all instruments are equally loud.
        self.level = self.add_weight("level", [], initializer="ones", trainable=False)
        self._loss = tf.keras.metrics.Mean("loss")
        # Past Keras, which would track graphs as parts of the model and save them with it.
        object.__setattr__(self, "_graphs", {})
        object.__setattr__(self, "_tracing", threading.Lock())

    @property
    def frame_rate(self) -> int:
        """Control frames a second."""
        return self.controls.frame_rate

    @property
    def styles(self) -> dict[str, int]:
        """Style name → controller number."""
        return dict(self.controls.styles)

    def initial_state(
        self, batch: int | tf.Tensor, voices: int | tf.Tensor = 1, first_sample: int | tf.Tensor = 0
    ) -> State:
        """Silence: what a stream starts from.

        Args:
            batch: Number of pieces.
            voices: Voices of each piece.
            first_sample: Index of the first sample, on which the noise depends, a scalar or `[batch]`.
        """
        return {
            **{name: tf.zeros([batch * voices, self.decoder.latency_frames, 1]) for name in self.processor_group.given},
            "decoder": self.decoder.initial_state(batch * voices),
            "processor_group": self.processor_group.initial_state(batch, voices, first_sample),
        }

    def step(
        self,
        control_frames: dict[str, tf.Tensor],
        state: State,
        voices: int | tf.Tensor = 1,
    ) -> tuple[dict[str, Any], State]:
        """Plays one block.

        Args:
            control_frames: Channel name → `[batch * voices, n_frames, 1]`; `n_frames` a multiple of the decoder's
                stride.
            state: Of the block before, or `initial_state`.
            voices: Voices of each piece.

        Returns:
            The processor group's outputs, where `['out']['signal']` is audio `[batch, n_frames * hop]` before it is
            scaled by `level`, `latency` samples behind the frames; and the next state.
        """
        parameters, decoded = self.decode(control_frames, state)
        outputs, group_state = self.processor_group.step(parameters, state["processor_group"], voices)
        return outputs, {**decoded, "processor_group": group_state}

    def decode(self, control_frames: dict[str, tf.Tensor], state: State) -> tuple[dict[str, tf.Tensor], State]:
        """From control frames to what the processor group takes: the first half of `step`.

        Args:
            control_frames: As for `step`.
            state: As for `step`; that of the processor group is not looked at.

        Returns:
            Network outputs and what is given besides, by name, `[batch * voices, n_frames, size]`, equally late; and
            the next state without the processor group's.
        """
        parameters, decoder_state = self.decoder(self.preprocessor(control_frames), state=state["decoder"])
        given, given_state = self.given(control_frames, state, midi_to_hz)
        return {**parameters, **given}, {**given_state, "decoder": decoder_state}

    def given(
        self, control_frames: dict[str, tf.Tensor], state: State, to_hz: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], State]:
        """What processors take that is no network output, as late as the network's outputs are.

        Args:
            control_frames: As for `step`.
            state: As for `step`.
            to_hz: From MIDI note numbers to Hz.

        Returns:
            What the processor group is `given`, by name, `[batch * voices, n_frames, 1]`; and their next state.
        """
        f0_midi = control_frames["f0_midi"]
        make = {
            F0: lambda: to_hz(f0_midi if self.tuning is None else self.tuning(f0_midi)),
            INHARMONICITY: lambda: self.strings(f0_midi),
            ONSET: lambda: control_frames[ONSET],
            AUDIBLE: lambda: tf.cast(control_frames[VELOCITY] > 0.0, tf.float32),
        }
        n_frames = tf.shape(f0_midi)[1]
        given, later = {}, {}
        for name in self.processor_group.given:
            values = tf.concat([state[name], make[name]()], axis=1)
            given[name], later[name] = values[:, :n_frames], values[:, n_frames:]
        return given, later

    def call(self, features: Mapping[str, tf.Tensor], n_samples: int | tf.Tensor | None = None) -> tf.Tensor:
        """Plays clips from notes.

        Args:
            features: `notes`, `control_changes` and `pitch_bends` as `Controls` takes them, for pieces of one voice
                `[batch, n, columns]`, for several `[batch, voices, n, columns]`; and `audio` `[batch, n_samples]`, of
                which only the length matters, unless `n_samples` is given. Where there is `first_sample` `[batch]`,
                the noise starts from that sample.
            n_samples: Length of the clips.

        Returns:
            Audio `[batch, n_samples]`.
        """
        if n_samples is None:
            n_samples = tf.shape(features["audio"])[1]
        return self.level * self.play_clips(*self.decode_clips(features, n_samples), n_samples, voices_of(features))

    def decode_clips(
        self, features: Mapping[str, tf.Tensor], n_samples: int | tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], State]:
        """From notes to what the processor group takes: the first half of `call`.

        Args:
            features: As for `call`.
            n_samples: Length of the clips.

        Returns:
            Network outputs and what is given besides, and the state that the processor group begins with.
        """
        voices = voices_of(features)
        batch = tf.shape(features["notes"])[0]
        first_sample = features.get("first_sample", tf.zeros([], tf.int64))
        state = self.initial_state(batch, voices, first_sample)
        rows = [tf.reshape(features[name], [batch * voices, -1, columns]) for name, columns in COLUMNS.items()]
        parameters, _ = self.decode(self.controls(*rows, self.frames_for(n_samples)), state)
        return parameters, state["processor_group"]

    def play_clips(
        self,
        parameters: dict[str, tf.Tensor],
        group_state: State,
        n_samples: int | tf.Tensor,
        voices: int,
    ) -> tf.Tensor:
        """From what the processor group takes to sound: the second half of `call`.

        Args:
            parameters: As `decode_clips` returns them.
            group_state: Likewise.
            n_samples: Length of the clips.
            voices: Voices of each piece.

        Returns:
            Clips `[batch, n_samples]` before they are scaled by `level`; the latency is cut off.
        """
        outputs, _ = self.processor_group(parameters, state=group_state, voices=voices)
        signal = outputs["out"]["signal"]
        rest = tf.shape(signal)[1] - self.latency - n_samples
        return tf.split(signal, [self.latency, n_samples, rest], axis=1)[1]

    @tf.autograph.experimental.do_not_convert
    def train_step(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of `fit`. Features as for `call`, with the recorded `audio`.

        On processor cores the halves of a batch go side by side: where one waits for the frame before, as the recurrent
        layer does, the other has something to do.
        """
        batch = features["audio"].shape[0]
        n_parts = 1 if on_gpu() or batch is None or batch % 2 else 2
        parts = zip(*(tf.split(value, n_parts) for value in features.values()))
        of_part = tf.function(functools.partial(loss_and_gradients, self), autograph=False)
        losses, gradients = zip(*(of_part(dict(zip(features, part))) for part in parts))
        gradients = [tf.add_n(each) / n_parts for each in zip(*gradients)]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        self._loss.update_state(tf.add_n(losses) / n_parts)
        return {"loss": self._loss.result(), "gradient_norm": tf.linalg.global_norm(gradients)}

    @tf.autograph.experimental.do_not_convert
    def test_step(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of `evaluate`: the loss is a mean over examples, however many there are in each batch."""
        self._clear_losses()
        audio = features["audio"] / self.level
        n_samples = tf.shape(audio)[1]
        played = self.play_clips(*self.decode_clips(features, n_samples), n_samples, voices_of(features))
        loss = loss_of(self, audio, played)
        self._loss.update_state(loss + sum_of(self.decoder.losses), sample_weight=tf.shape(audio)[0])
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
        piece: Piece | Voice | music_pb2.NoteSequence | str | os.PathLike,
        styles: Mapping[str, float] | None = None,
        sample_rate: int | None = None,
        n_samples: int | None = None,
    ) -> np.ndarray:
        """Plays a piece of any length and any number of voices, block by block.

        Args:
            piece: A piece, a voice, a `NoteSequence`, or the path of a MIDI file. Of several instruments in a file the
                one plays whose notes lie best in `pitch_range`; `read_midi` chooses others.
            styles: Style name → control change value (0 to 127) that holds throughout, whatever the file says.
            sample_rate: Of the result; the instrument's own unless given.
            n_samples: Length of the result at the instrument's sample rate; unless given, to the end of the last note
                and a second more.

        Returns:
            Audio float32 `[n]`.

        Raises:
            DataError: The file cannot be used, or the instrument has no such style.
        """
        return np.concatenate(list(self.render_blocks(piece, styles, sample_rate, n_samples)))

    def render_blocks(
        self,
        piece: Piece | Voice | music_pb2.NoteSequence | str | os.PathLike,
        styles: Mapping[str, float] | None = None,
        sample_rate: int | None = None,
        n_samples: int | None = None,
    ) -> Iterator[np.ndarray]:
        """As `render`, one block of audio after the other; memory does not grow with the length."""
        return rendering.render_blocks(self, piece, styles, sample_rate, n_samples)

    def traced(
        self, key: Hashable, trace: Callable[[], Sequence[tf.types.experimental.ConcreteFunction]]
    ) -> Sequence[Callable[..., Any]]:
        """Graphs of this instrument, traced when they are first asked for, and shared by all that play it.

        Without a GPU the operations of a graph run one after the other in the thread that calls it: they are small, and
        handing them from thread to thread takes as long as some of them do.

        Args:
            key: What graphs they are.
            trace: Traces them.

        Returns:
            The graphs, to be called as concrete functions are.
        """
        with self._tracing:
            if key not in self._graphs:
                with _executor():
                    self._graphs[key] = [functools.partial(_call, graph) for graph in trace()]
            return self._graphs[key]

    def frames_for(self, n_samples: int | tf.Tensor) -> int | tf.Tensor:
        """How many control frames it takes to play so many samples, latency made up for; a multiple of the stride."""
        n_frames = -(-n_samples // self.hop) + self._latency_frames
        return -(-n_frames // self.decoder.stride) * self.decoder.stride


def _executor() -> contextlib.AbstractContextManager[None]:
    """Chooses what runs the operations of graphs that this thread traces or calls."""
    return tf.experimental.function_executor_type("" if on_gpu() else "SINGLE_THREADED_EXECUTOR")


def _call(graph: tf.types.experimental.ConcreteFunction, *inputs: Any) -> Any:
    with _executor():
        return graph(*inputs)


def midi_to_hz(pitch: tf.Tensor) -> tf.Tensor:
    """Hz, through float64: in float32 the last bit of a power depends on its place in the tensor, and phases add up."""
    return tf.cast(440.0 * 2.0 ** ((tf.cast(pitch, tf.float64) - 69.0) / 12.0), tf.float32)
