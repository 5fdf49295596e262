"""What is changed in a LiteRT model leaves what it computes the same."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth.exporting import litert_graph

SHAPE = (3, 4, 5)


def _converted(function):
    graph = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(SHAPE, tf.float32))
    return tf.lite.TFLiteConverter.from_concrete_functions([graph]).convert()


def _operators(model):
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    (graph,) = model.subgraphs
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    return [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators]


def _played(model, x):
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize(
    "part",
    [
        np.s_[:, 1:],
        np.s_[:, :-1],
        np.s_[1:2, :, -3:],
        np.s_[-1],
        np.s_[:, -2, 1:4],
        np.s_[:, np.newaxis, 2:],
        np.s_[:, :, np.newaxis],
        np.s_[1, np.newaxis, :, -1],
        np.s_[..., 1:3],
    ],
    ids=str,
)
def test_slices_are_copied_at_once(part):
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    model = _converted(lambda x: (2.0 * x)[part])
    improved = litert_graph.improved(model)
    assert "STRIDED_SLICE" not in _operators(improved)
    np.testing.assert_array_equal(_played(improved, x), (2.0 * x)[part], strict=True)


@pytest.mark.parametrize("part", [np.s_[::2], np.s_[:, ::-1]], ids=str)
def test_slices_with_a_step_stay(part):
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    model = _converted(lambda x: (2.0 * x)[part])
    improved = litert_graph.improved(model)
    assert "STRIDED_SLICE" in _operators(improved)
    np.testing.assert_array_equal(_played(improved, x), (2.0 * x)[part])


def test_a_shape_is_changed_once():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)

    def function(x):
        wide = (2.0 * x)[:, tf.newaxis]  # By a slice: the converter merges those it sees as changes of shape.
        return tf.exp(tf.reshape(wide[:, 0], [-1]))

    model = _converted(function)
    improved = litert_graph.improved(model)
    assert _operators(improved).count("RESHAPE") == 1
    np.testing.assert_array_equal(_played(improved, x), _played(model, x))


def test_a_part_that_is_only_reshaped_may_be_what_the_model_returns():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    model = _converted(lambda x: (2.0 * x)[:, tf.newaxis][:, 0])
    np.testing.assert_array_equal(_played(litert_graph.improved(model), x), _played(model, x))
