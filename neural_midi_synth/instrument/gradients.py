"""The loss of a batch and its gradients, as a step of training computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from neural_midi_synth.instrument.controls import voices_of
from neural_midi_synth.instrument.oscillators import polynomial_sines
from neural_midi_synth.instrument.recurrent import State, on_gpu

if TYPE_CHECKING:
    from neural_midi_synth.instrument.instrument import Instrument


def loss_and_gradients(instrument: Instrument, features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The loss, and this replica's share of the gradient of each variable.

    What comes after the decoder goes over every sample many times; on processor cores it is one program of XLA's.

    Args:
        instrument: What is trained.
        features: As for `Instrument.call`, with the recorded `audio`.

    Returns:
        The loss, with what layers have added to it by Keras' `add_loss`, and a gradient for each of
        `instrument.trainable_variables`.
    """
    audio = features["audio"] / instrument.level
    after_decoder = [
        *instrument.processor_group.trainable_variables,
        *instrument.spectral_loss.trainable_variables,
    ]
    references = {variable.ref() for variable in after_decoder}
    before = [variable for variable in instrument.trainable_variables if variable.ref() not in references]
    with tf.GradientTape() as tape:
        instrument._clear_losses()
        parameters, group_state = instrument.decode_clips(features, tf.shape(audio)[1])
        added = sum_of(instrument.decoder.losses)
        shared = added / tf.distribute.get_strategy().num_replicas_in_sync
    # MIDI and measurements tell these: they take no gradient.
    given = {name: parameters.pop(name) for name in instrument.processor_group.given}

    def play(
        parameters: dict[str, tf.Tensor], given: dict[str, tf.Tensor], state: State, audio: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], list[tf.Tensor]]:
        with contextlib.nullcontext() if on_gpu() else polynomial_sines(), tf.GradientTape() as tape:
            tape.watch(parameters)
            instrument._clear_losses()
            inputs = {**parameters, **given}
            played = instrument.play_clips(inputs, state, tf.shape(audio)[1], voices_of(features))
            loss = loss_of(instrument, audio, played)
            shared = loss / tf.distribute.get_strategy().num_replicas_in_sync
        zero = tf.UnconnectedGradients.ZERO
        return loss, *tape.gradient(shared, [parameters, after_decoder], unconnected_gradients=zero)

    compiled = tf.function(play, autograph=False, jit_compile=not on_gpu())
    loss, upstream, gradients = compiled(parameters, given, group_state, audio)
    gradients += tape.gradient(
        [parameters, shared],
        before,
        output_gradients=[upstream, tf.ones_like(shared)],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    by_variable = {variable.ref(): gradient for variable, gradient in zip([*after_decoder, *before], gradients)}
    return loss + added, [by_variable[variable.ref()] for variable in instrument.trainable_variables]


def loss_of(instrument: Instrument, audio: tf.Tensor, played: tf.Tensor) -> tf.Tensor:
    """How far what is played is from the recording.

    Args:
        instrument: What is trained.
        audio: Recorded clips `[batch, n_samples]`.
        played: What the instrument makes of their notes, shaped as the clips.

    Returns:
        The loss, with what processors and losses have added to it by Keras' `add_loss`, once.
    """
    loss = instrument.spectral_loss(audio, played)
    return loss + sum_of([*instrument.processor_group.losses, *instrument.spectral_loss.losses])


def sum_of(losses: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of what layers gave to Keras' `add_loss`; 0 where they gave nothing."""
    return tf.add_n(list(losses)) if losses else tf.constant(0.0)
