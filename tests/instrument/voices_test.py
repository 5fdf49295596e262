"""Several voices: each is played by itself, the bus gets their sum, and one voice is what it was."""

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.instrument import loading
from neural_midi_synth.instrument.controls import PADDING
from neural_midi_synth.instrument.gradients import loss_and_gradients
from neural_midi_synth.instrument.rendering import render_blocks
from neural_midi_synth.midi.pieces import Piece, Voice

SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.Reverb.reverb_length = 3000",
]
WITHOUT_NOISE = ["nms.FilteredNoise.initial_bias = -60.0", "nms.Harmonic.movement_bias = -60.0"]
WITH_NOISE = ["nms.FilteredNoise.initial_bias = 0.0"]
# Six strings, each with a bend and a style of its own, that begin and end at different times.
STRINGS = tuple(
    Voice(
        np.array([[0.1 * i, 0.7 + 0.05 * i, 40 + 5 * i, 60 + 10 * i], [0.9, 1.1, 41 + 5 * i, 90]]),
        np.array([[0.2, 55, 20 * i]]),
        np.array([[0.3, 0.1 * i]]),
    )
    for i in range(6)
)
# What blocks and other ways of summing may round: a ten-thousandth of full scale.
PROMISED = 1e-4


def _build(*bindings):
    tf.random.set_seed(0)
    loading.configure([configs.find("models/guitar.gin")], [*SMALL, *bindings], skip_unknown=True)
    built = loading.build()
    reverb = built.processor_group.reverb
    length = reverb._ir.shape[0]
    reverb._ir.assign(0.05 * np.random.default_rng(0).normal(size=length) * np.exp(-np.arange(length) / 300.0))
    return built


@pytest.fixture(scope="module")
def linear():
    return _build(*WITHOUT_NOISE)


@pytest.fixture(scope="module")
def noisy():
    return _build(*WITH_NOISE)


def _features(*pieces):
    """Rows of pieces with equal numbers of voices, `[batch, voices, n, columns]`, padded."""
    features = {}
    for kind in ("notes", "control_changes", "pitch_bends"):
        rows = [[getattr(voice, kind) for voice in piece.voices] for piece in pieces]
        longest = max(len(of_voice) for of_piece in rows for of_voice in of_piece)
        padded = [
            [np.pad(each, [[0, longest - len(each)], [0, 0]], constant_values=PADDING) for each in piece]
            for piece in rows
        ]
        features[kind] = tf.constant(np.array(padded), tf.float64)
    return features


def test_a_chord_is_the_sum_of_its_notes_played_alone(linear):
    n_samples = 20_000
    alone = sum(linear.render(voice, n_samples=n_samples) for voice in STRINGS)
    chord = linear.render(Piece(STRINGS), n_samples=n_samples)
    np.testing.assert_allclose(chord, alone, atol=PROMISED)
    assert np.abs(chord).max() > 0.1


@pytest.mark.parametrize("block_frames", [3, 50, 1000])
def test_blocks_of_six_voices_are_the_whole(noisy, block_frames):
    n_samples = 20_001
    whole = noisy.render(Piece(STRINGS), n_samples=n_samples)
    blocks = list(render_blocks(noisy, Piece(STRINGS), n_samples=n_samples, block_frames=block_frames))
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=PROMISED)


def test_clips_of_pieces_are_their_renderings(noisy):
    pieces = Piece(STRINGS[:3]), Piece(STRINGS[3:])
    clips = noisy(_features(*pieces), n_samples=12_000)
    for clip, piece in zip(clips, pieces):
        np.testing.assert_allclose(clip, noisy.render(piece, n_samples=12_000), atol=PROMISED)


def test_a_voice_without_notes_adds_nothing(noisy):
    silent = Voice(np.zeros([0, 4]))
    one = noisy(_features(Piece(STRINGS[:1])), n_samples=4000)
    np.testing.assert_allclose(noisy(_features(Piece((*STRINGS[:1], silent, silent))), n_samples=4000), one, atol=1e-6)
    assert np.abs(noisy(_features(Piece((silent, silent))), n_samples=4000)).max() < 1e-7


@pytest.mark.parametrize("block_frames", [3, 50])
def test_voices_are_silent_before_their_first_notes(noisy, block_frames):
    n_samples = noisy.sample_rate
    late = Piece(tuple(Voice(np.array([[begin, 1.0, 52.0, 90.0]])) for begin in (0.3, 0.6)))
    played = np.concatenate(list(render_blocks(noisy, late, n_samples=n_samples, block_frames=block_frames)))
    first = round((0.3 - 1.0 / noisy.frame_rate) * noisy.sample_rate)
    assert np.abs(played[:first]).max() < 1e-7 < 1e-3 < np.abs(played[first : first + noisy.sample_rate // 5]).max()
    # The second adds its noise from its own first note on, not from that of the first.
    alone = noisy.render(Piece(late.voices[:1]), n_samples=n_samples)
    second = round((0.6 - 1.0 / noisy.frame_rate) * noisy.sample_rate)
    np.testing.assert_allclose(played[:second], alone[:second], atol=PROMISED)
    assert np.abs(played - alone)[second:].max() > 1e-3


def test_the_same_note_twice_is_twice_the_tone_and_different_noise(linear, noisy):
    twice = Piece((STRINGS[0], STRINGS[0]))
    np.testing.assert_allclose(linear.render(twice), 2.0 * linear.render(STRINGS[0]), atol=PROMISED)
    one, two = noisy.render(STRINGS[0]), noisy.render(twice)
    assert np.abs(two - 2.0 * one).max() > 0.01


def _slopes(built, features):
    """Loss and gradients of the whole in one tape, eagerly."""
    with tf.GradientTape() as tape:
        loss = built.spectral_loss(features["audio"] / built.level, built(features) / built.level)
    return loss, tape.gradient(loss, built.trainable_variables)


def test_training_on_voices_goes_down_the_slope_of_the_sum(noisy):
    pieces = Piece(STRINGS[:2]), Piece((STRINGS[2], Voice(np.zeros([0, 4]))))
    audio = tf.constant(np.random.default_rng(0).normal(size=[2, 6000]) * 0.1, tf.float32)
    features = {**_features(*pieces), "audio": audio}
    loss, gradients = tf.function(loss_and_gradients)(noisy, features)
    expected_loss, expected = _slopes(noisy, features)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)
    for ours, theirs in zip(gradients, expected):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * max(np.abs(theirs).max(), 1e-3))


def test_the_validation_loss_is_that_of_examples_whatever_the_batches(noisy):
    audio = np.random.default_rng(0).normal(size=[3, 4000]).astype(np.float32) * np.array([[0.01], [0.1], [0.5]])
    features = {**_features(*(Piece(STRINGS[i : i + 1]) for i in range(3))), "audio": audio.astype(np.float32)}
    examples = tf.data.Dataset.from_tensor_slices(features)
    noisy.compile(optimizer="sgd")
    losses = [noisy.evaluate(examples.batch(size), verbose=0) for size in (1, 2, 3)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
