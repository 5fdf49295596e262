"""Optimizers: what a step of Muon does to a matrix, and to what is none."""

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.training import optimizers


def _variables(seed=0):
    random = np.random.default_rng(seed)
    return [tf.Variable(random.normal(size=shape).astype(np.float32)) for shape in ([24, 40], [40, 24], [24, 24], [24])]


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (24, 24)])
def test_orthogonal_keeps_singular_vectors_and_makes_their_values_equal(shape):
    random = np.random.default_rng(1)
    left, _, right = np.linalg.svd(random.normal(size=shape), full_matrices=False)
    values = np.geomspace(1.0, 0.01, 24)
    found = optimizers.orthogonal(tf.constant(left * values @ right, tf.float32)).numpy()
    core = left.T @ found @ right.T
    assert (np.diag(core) > 0.6).all()
    assert (np.diag(core) < 1.3).all()
    assert np.abs(core - np.diag(np.diag(core))).max() < 1e-3
    assert not optimizers.orthogonal(tf.zeros(shape)).numpy().any()


def test_muon_steps_as_far_whatever_the_gradient_and_leaves_the_rest_to_adam():
    ours, adams = _variables(), _variables()
    muon = optimizers.muon(1e-2, ours[:2], clip_norm=1e9, matrix_rate=0.5, beta_2=0.999)
    adam = optimizers.adam(1e-2, adams[:2], clip_norm=1e9)
    before = [variable.numpy() for variable in ours]
    for scale in (1e-3, 1.0):
        gradients = [tf.constant(scale * variable.numpy()) for variable in _variables(2)]
        muon.apply_gradients(zip(gradients, ours))
        adam.apply_gradients(zip(gradients, adams))
        for variable, old in zip(ours[:2], before):
            change = variable.numpy() - old
            # 24 of 40 singular values, each about 1, in a matrix whose entries would have a mean square of 1.
            assert np.sqrt(np.mean(change**2)) == pytest.approx(1e-2 * 0.5, rel=0.3)
        for variable, other in zip(ours[2:], adams[2:]):
            np.testing.assert_array_equal(variable.numpy(), other.numpy())
        before = [variable.numpy() for variable in ours]


def test_muon_goes_on_where_adam_stopped(tmp_path):
    variables, others = _variables(), _variables(4)
    adam, muon = optimizers.adam(1e-2, [], clip_norm=1.0), optimizers.muon(1e-2, others[:2], clip_norm=1.0)
    adam.apply_gradients([(variable * 1.0, variable) for variable in variables])
    muon.build(others)
    path = tf.train.Checkpoint(optimizer=adam, variables=variables).save(str(tmp_path / "state"))
    tf.train.Checkpoint(optimizer=muon, variables=others).restore(path).assert_consumed()
    assert int(muon.iterations) == 1
    np.testing.assert_array_equal(others[0].numpy(), variables[0].numpy())


def test_adam_goes_on_where_muon_stopped():
    variables = _variables()
    muon = optimizers.muon(1e-2, variables[:2], clip_norm=1e9)
    gradients = [tf.constant(variable.numpy()) for variable in _variables(2)]
    for _ in range(50):
        muon.apply_gradients(zip(gradients, variables))
    adam = optimizers.adam(1e-2, [], clip_norm=1e9)
    adam.build(variables)
    for variable, other in zip(adam.variables, muon.variables):
        variable.assign(other)
    before = [variable.numpy() for variable in variables]
    adam.apply_gradients(zip(gradients, variables))
    for variable, old in zip(variables, before):
        # Adam's step is at most as long as its learning rate where the gradient stays what it was.
        assert np.abs(variable.numpy() - old).max() < 2e-2
