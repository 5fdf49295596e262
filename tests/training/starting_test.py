"""A training that begins with another instrument begins with what that one plays."""

import numpy as np
import pytest
import tensorflow as tf
from made_runs import configure_tiny

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.decoder import Decoder
from neural_midi_synth.instrument.loading import build
from neural_midi_synth.training.loop import train
from neural_midi_synth.training.starting import start_from

OUTPUTS = (("amplitudes", 1), ("harmonic_distribution", 5), ("magnitudes", 3))


class OfDecoder:
    """As much of an instrument as a decoder needs."""

    def __init__(self, decoder):
        self.decoder = decoder


def decoder(channels, outputs=OUTPUTS, seed=0, **settings):
    settings = {"units": 8, "layers": 2, "rnn_units": 6, **settings}
    made = Decoder(channels, outputs, **settings)
    made({channel: tf.zeros([1, 2, 1]) for channel in channels}, state=made.initial_state(1))
    numbers = np.random.default_rng(seed)
    for variable in made.trainable_variables:
        variable.assign(numbers.normal(0.0, 0.5, variable.shape))
    return made


def decoded(made, seed=5):
    inputs = {name: tf.random.stateless_uniform([2, 12, 1], [seed, i]) for i, name in enumerate(sorted(made.channels))}
    return made(inputs, state=made.initial_state(2))[0]


@pytest.mark.parametrize("mlp_per_channel", [False, True])
def test_what_both_decoders_see_and_make_is_as_the_first_one_makes_it(mlp_per_channel):
    settings = {"mlp_per_channel": mlp_per_channel}
    first = decoder(("f0_midi", "velocity"), fourier_features={"f0_midi": 3, "velocity": 2}, **settings)
    larger = (("magnitudes", 3), ("harmonic_distribution", 7), ("amplitudes", 1), ("fifth_amplitudes", 1))
    more = {"fourier_features": {"f0_midi": 4, "velocity": 2, "zz_new": 3}, **settings}
    second = decoder(("velocity", "f0_midi", "zz_new"), larger, seed=1, **more)
    before = decoded(second)
    start_from(OfDecoder(second), OfDecoder(first))
    expected, found = decoded(first), decoded(second)
    for name in ("amplitudes", "magnitudes"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)
    harmonics, known = found["harmonic_distribution"], expected["harmonic_distribution"]
    np.testing.assert_allclose(harmonics[..., :5], known, atol=2e-5)
    np.testing.assert_allclose(harmonics[..., 5:], tf.repeat(known[..., -1:], 2, axis=-1), atol=2e-5)
    assert np.abs(before["amplitudes"] - found["amplitudes"]).max() > 0.1


def test_what_only_the_first_decoder_sees_is_taken_to_be_halfway_and_a_switch_to_be_off():
    more = {"fourier_features": {"f0_midi": 2, "openness": 3}, "mlp_per_channel": False}
    first = decoder(("openness", "f0_midi", "switch"), **more)
    second = decoder(("f0_midi",), seed=1, **{**more, "fourier_features": {"f0_midi": 2}})
    start_from(OfDecoder(second), OfDecoder(first))
    # Of a channel that both have, Fourier features that only the first one has are left out.
    coarser = decoder(("f0_midi",), seed=1, **{**more, "fourier_features": {"f0_midi": 1}})
    start_from(OfDecoder(coarser), OfDecoder(first))
    biases = (each.weights_by_name()["all/0/bias"][0] for each in (coarser, second))
    np.testing.assert_array_equal(*biases)
    pitch = tf.random.stateless_uniform([2, 12, 1], [5, 5])
    halfway = {"f0_midi": pitch, "openness": tf.fill([2, 12, 1], 0.5), "switch": tf.zeros([2, 12, 1])}
    expected = first(halfway, state=first.initial_state(2))[0]
    found = second({"f0_midi": pitch}, state=second.initial_state(2))[0]
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)


def test_layers_of_other_sizes_and_kinds_are_refused():
    first = OfDecoder(decoder(("f0_midi",)))
    for settings, message in (
        ({"units": 9}, "layers of other sizes"),
        ({"rnn_units": 7}, "layers of other sizes"),
        ({"layers": 3}, "another number of layers"),
        ({"mlp_per_channel": False}, "one for each channel"),
    ):
        with pytest.raises(DataError, match=message):
            start_from(OfDecoder(decoder(("f0_midi",), **settings)), first)


def test_a_training_begins_with_another_instrument(trained, tmp_path):
    other = nms.load(trained.folder)
    builder = configure_tiny(trained, "nms.train.steps = 1", "nms.train.learning_rate = 0.0")
    instrument = train(builder, tmp_path / "instrument", start=other)
    fresh = build()
    layers = (each.decoder.trainable_variables for each in (instrument, other, fresh))
    for ours, theirs, new in zip(*layers):
        np.testing.assert_array_equal(ours, theirs)
        assert np.abs(theirs - new).max() > 0.0
    (ours,), (theirs,) = (each.processor_group.trainable_variables for each in (instrument, other))
    assert np.abs(theirs).max() > 10.0 * np.abs(ours).max()  # The room is that of the other's recordings.
