"""The recurrent layer is Keras' own, only faster; a decoder's blocks join without a seam."""

import math

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.instrument.decoder import SILENT, Decoder, Preprocessor, Recurrent

CHANNELS = ("f0_midi", "velocity", "cc_55")
OUTPUTS = (("amplitudes", 1), ("harmonic_distribution", 7), ("magnitudes", 5))


def _random(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def _pair_of_layers(n_inputs, units):
    """Ours and Keras' with the same random weights."""
    ours = Recurrent(units)
    theirs = tf.keras.layers.GRU(units, reset_after=True, return_sequences=True, return_state=True)
    ours.build(tf.TensorShape([None, None, n_inputs]))
    theirs.build(tf.TensorShape([None, None, n_inputs]))
    for i, (our, their) in enumerate(zip(ours.trainable_variables, theirs.trainable_variables)):
        assert our.shape == their.shape
        our.assign(0.4 * _random(*our.shape, seed=i))
        their.assign(our)
    return ours, theirs


# The sums are the same in another order: float32 rounds at 1e-7, and the recursion keeps errors from growing.
@pytest.mark.parametrize(("batch", "n_frames"), [(1, 1), (1, 40), (3, 25)])
def test_recurrent_outputs_and_state_are_those_of_keras(batch, n_frames):
    ours, theirs = _pair_of_layers(9, 12)
    inputs, state = _random(batch, n_frames, 9), tf.tanh(_random(batch, 12, seed=1))
    outputs, last = ours(inputs, state=state)
    expected, expected_last = theirs(inputs, initial_state=state)
    np.testing.assert_allclose(outputs, expected, atol=2e-6)
    np.testing.assert_allclose(last, expected_last, atol=2e-6)
    # What a machine with a GPU does.
    outputs, last = tf.keras.layers.GRU.call(ours, inputs, initial_state=[state])
    np.testing.assert_allclose(outputs, expected, atol=2e-6)
    np.testing.assert_allclose(last, expected_last, atol=2e-6)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(("batch", "n_frames"), [(1, 1), (3, 30)])
def test_recurrent_gradients_are_those_of_keras(batch, n_frames, in_graph):
    pair = _pair_of_layers(9, 12)
    inputs, state = _random(batch, n_frames, 9), tf.tanh(_random(batch, 12, seed=1))
    upstream, upstream_last = _random(batch, n_frames, 12, seed=2), _random(batch, 12, seed=3)

    def gradients(layer, name):
        with tf.GradientTape() as tape:
            tape.watch([inputs, state])
            outputs, last = layer(inputs, **{name: state})
            loss = tf.reduce_sum(outputs * upstream) + tf.reduce_sum(last * upstream_last)
        return tape.gradient(loss, [inputs, state, *layer.trainable_variables])

    run = tf.function(gradients) if in_graph else gradients
    for ours, theirs in zip(run(pair[0], "state"), run(pair[1], "initial_state")):
        # Relative to the largest: each is a sum over all frames, in float32, in another order.
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-5 * np.abs(theirs).max())


def test_recurrent_blocks_equal_the_whole():
    layer, _ = _pair_of_layers(9, 12)
    inputs, state = _random(2, 50, 9), tf.zeros([2, 12])
    whole, whole_last = layer(inputs, state=state)
    blocks = []
    for length in np.split(np.arange(50), [1, 2, 20, 45]):
        outputs, state = layer(tf.gather(inputs, length, axis=1), state=state)
        blocks.append(outputs)
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=2e-6)
    np.testing.assert_allclose(state, whole_last, atol=2e-6)


def test_recurrent_shapes_may_be_unknown_in_a_graph():
    layer, _ = _pair_of_layers(9, 12)

    @tf.function(input_signature=[tf.TensorSpec([None, None, 9]), tf.TensorSpec([None, 12])])
    def gradient(inputs, state):
        with tf.GradientTape() as tape:
            outputs, last = layer(inputs, state=state)
            loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(last)
        return outputs, tape.gradient(loss, layer.trainable_variables)

    for batch, n_frames in ((1, 1), (3, 20)):
        inputs, state = _random(batch, n_frames, 9), tf.zeros([batch, 12])
        outputs, gradients = gradient(inputs, state)
        np.testing.assert_allclose(outputs, layer(inputs, state=state)[0], atol=2e-6)
        assert all(np.all(np.isfinite(each)) for each in gradients)
    assert gradient.experimental_get_tracing_count() == 1


def _decoder(stride=1, **settings):
    settings = dict(units=16, layers=2, rnn_units=10) | settings
    return Decoder(CHANNELS, OUTPUTS, stride=stride, **settings)


def _channels(batch, n_frames):
    values = tf.sigmoid(_random(batch, n_frames, len(CHANNELS)))
    return {channel: values[:, :, i : i + 1] for i, channel in enumerate(CHANNELS)}


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("mlp_per_channel", [True, False])
def test_decoded_blocks_equal_the_whole(stride, mlp_per_channel):
    decoder = _decoder(stride, mlp_per_channel=mlp_per_channel, fourier_features={"f0_midi": 3})
    n_frames = 12 * stride
    inputs, state = _channels(2, n_frames), decoder.initial_state(2)
    whole, whole_state = decoder(inputs, state=state)
    assert {name: tuple(value.shape) for name, value in whole.items()} == {
        name: (2, n_frames, size) for name, size in OUTPUTS
    }
    blocks = []
    for begin, end in ((0, 1), (1, 3), (3, 12)):
        block = {channel: value[:, begin * stride : end * stride] for channel, value in inputs.items()}
        outputs, state = decoder(block, state=state)
        blocks.append(outputs)
    for name, expected in whole.items():
        np.testing.assert_allclose(np.concatenate([block[name] for block in blocks], axis=1), expected, atol=1e-5)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, whole_state)


@pytest.mark.parametrize("n_values", [1, 5, 1000])
def test_values_that_repeat_are_computed_once_with_the_same_result(n_values):
    decoder = _decoder(fourier_features={"f0_midi": 3})
    inputs = {channel: tf.round(n_values * value) / n_values for channel, value in _channels(3, 24).items()}
    initial = decoder.initial_state(3)
    results = []
    for length in (8, 24):  # Blocks so short are computed frame by frame.
        with tf.GradientTape() as tape:
            state, outputs = initial, []
            for begin in range(0, 24, length):
                block = {channel: value[:, begin : begin + length] for channel, value in inputs.items()}
                block, state = decoder(block, state=state)
                outputs.append(tf.concat(list(block.values()), axis=-1))
            outputs = tf.concat(outputs, axis=1)
            loss = tf.reduce_sum(outputs**2)
        results.append([outputs, *tape.gradient(loss, decoder.trainable_variables)])
    for frame_by_frame, at_once in zip(*results):
        np.testing.assert_allclose(at_once, frame_by_frame, rtol=0, atol=1e-5 * np.abs(frame_by_frame).max())


@pytest.mark.parametrize("stride", [2, 4])
def test_a_stride_joins_what_the_network_says_by_ddsps_windows(stride):
    import ddsp

    strided, plain = _decoder(stride), _decoder()
    n_frames = 9 * stride
    inputs = _channels(2, n_frames)
    outputs, _ = strided(inputs, state=strided.initial_state(2))
    seen = {channel: value[:, ::stride] for channel, value in inputs.items()}
    plain(seen, state=plain.initial_state(2))
    plain.set_weights(strided.get_weights())
    expected, _ = plain(seen, state=plain.initial_state(2))
    assert (strided.latency_frames, plain.latency_frames) == (stride, 0)
    for name, value in outputs.items():
        np.testing.assert_allclose(value[:, 0], np.full_like(value[:, 0], SILENT))
        resampled = ddsp.core.resample(expected[name], n_frames, method="window")
        np.testing.assert_allclose(value[:, stride:], resampled[:, :-stride], atol=1e-5)


def test_a_stride_ignores_the_frames_between():
    decoder = _decoder(4)
    inputs = _channels(1, 16)
    decoder(inputs, state=decoder.initial_state(1))
    held = {channel: tf.repeat(value[:, ::4], 4, axis=1) for channel, value in inputs.items()}
    for name, value in decoder(held, state=decoder.initial_state(1))[0].items():
        np.testing.assert_array_equal(value, decoder(inputs, state=decoder.initial_state(1))[0][name])


def test_silence_is_silent():
    import ddsp

    assert ddsp.core.exp_sigmoid(SILENT) < 2e-7


def test_every_channel_is_heard_and_every_weight_learns():
    decoder = _decoder()
    inputs = _channels(2, 20)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, _ = decoder(inputs, state=decoder.initial_state(2))
        loss = tf.add_n([tf.reduce_sum(value**2) for value in outputs.values()])
    gradients = tape.gradient(loss, [*inputs.values(), *decoder.trainable_variables])
    assert all(np.any(gradient) for gradient in gradients)


def test_fourier_features_tell_near_values_apart():
    decoder = _decoder(mlp_per_channel=False, fourier_features={"f0_midi": 5, "cc_55": 2})
    decoder(_channels(1, 1), state=decoder.initial_state(1))
    first_kernel = decoder.trainable_variables[0]
    assert first_kernel.shape == (len(CHANNELS) + 2 * 5 + 2 * 2, 16)
    value = tf.constant([[[0.3]]])
    expected = [0.3]
    expected += [math.sin(math.pi * 2**i * 0.3) for i in range(5)] + [math.cos(math.pi * 2**i * 0.3) for i in range(5)]
    np.testing.assert_allclose(decoder._with_fourier_features("f0_midi", value)[0, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(decoder._with_fourier_features("velocity", value), value)


def test_channels_are_scaled_to_what_a_network_sees():
    preprocessor = Preprocessor(
        {"f0_midi": ("linear", 24.0, 96.0), "distance_from_onset": ("log", 0.01, 4.0), "pan": ("linear", -1, 1)}
    )
    frames = {
        "f0_midi": tf.constant([24.0, 60.0, 96.0]),
        "distance_from_onset": tf.constant([0.0, 4.0, 100.0]),
        "pan": tf.constant([-1.0, 0.0, 1.0]),
        "velocity": tf.constant([0.1, 0.5, 1.0]),
    }
    scaled = preprocessor({name: value[tf.newaxis, :, tf.newaxis] for name, value in frames.items()})
    expected = {"distance_from_onset": [0.0, 1.0, 1.0], "velocity": [0.1, 0.5, 1.0]}
    for name, value in scaled.items():
        assert value.shape == (1, 3, 1)
        np.testing.assert_allclose(value[0, :, 0], expected.get(name, [0.0, 0.5, 1.0]), atol=1e-6)


def test_times_are_scaled_steeply_below_the_knee_and_slowly_above():
    preprocessor = Preprocessor({"distance_from_onset": ("log", 0.01, 4.0)})
    times = np.array([0.0, 0.004, 0.01, 0.02, 0.04, 0.08, 1.0, 2.0, 4.0], np.float32)
    scaled = preprocessor({"distance_from_onset": tf.constant(times[np.newaxis, :, np.newaxis])})
    scaled = scaled["distance_from_onset"][0, :, 0].numpy()
    np.testing.assert_allclose(scaled, np.log1p(times / 0.01) / np.log1p(400.0), atol=1e-6)
    assert np.all(np.diff(scaled) > 0.0)
    assert scaled[-1] - scaled[-2] == pytest.approx(scaled[-2] - scaled[-3], abs=0.01)  # an octave is an octave


@pytest.mark.parametrize(
    "scale", [("cubic", 0.0, 1.0), ("linear", 1.0, 1.0), ("linear", 2.0, 1.0), ("log", 0.0, 1.0), ("log", -1.0, 1.0)]
)
def test_a_scale_that_maps_nothing_is_told_by_its_channel(scale):
    with pytest.raises(ValueError, match="Preprocessor.scales: 'f0_midi' needs"):
        Preprocessor({"f0_midi": scale})


@pytest.mark.parametrize(("mlp_per_channel", "count"), [(False, 2 + 1 + 2), (True, 3 * 2 + 1 + 2)])
def test_hidden_kernels_are_all_matrices_but_those_of_the_heads_and_the_recurrence(mlp_per_channel, count):
    decoder = Decoder(CHANNELS, OUTPUTS, units=8, layers=2, rnn_units=6, mlp_per_channel=mlp_per_channel)
    decoder({name: _random(1, 3, 1) for name in CHANNELS}, state=decoder.initial_state(1))
    hidden = {variable.ref() for variable in decoder.hidden_kernels()}
    others = [variable for variable in decoder.trainable_variables if variable.ref() not in hidden]
    assert len(hidden) == count
    assert {tuple(each.shape) for each in others} == {
        (8,),
        (2, 3 * 6),
        (6, 3 * 6),
        (8, 1 + 7 + 5),
        (1 + 7 + 5,),
    }
