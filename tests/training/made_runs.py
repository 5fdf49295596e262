"""What tests of training ask of a finished run, and how they configure one of their own."""

import json
import pathlib
import re
import warnings

import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.loading import configure

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

TINY_GIN = pathlib.Path(__file__).parents[1] / "tiny_instrument.gin"
STEPS = 40


def state(folder, name="last"):
    """Every variable of a checkpoint but those that count time and savings, and the sums of an epoch's losses."""
    reader = tf.train.load_checkpoint(str(folder / name))
    counters = ("seconds/", "save_counter/", "best/", "instrument/_loss/", "_CHECKPOINTABLE_OBJECT_GRAPH")
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if not key.startswith(counters)}


def step(folder, name="last"):
    """The step at which a checkpoint was saved."""
    return int(re.search(r"\d+$", tf.train.latest_checkpoint(str(folder / name)))[0])


def assert_same_state(folder, other, name="last"):
    """The same operations in the same order on the same machine: not a bit may differ."""
    assert step(folder, name) == step(other, name)
    one, two = state(folder, name), state(other, name)
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def contents(folder):
    """Name → bytes of the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def builder_of(trained):
    """The data set that a run was trained on."""
    return tfds.builder_from_directory(json.loads((trained.folder / "data_set.json").read_text())["folder"])


def configure_tiny(trained, *bindings):
    """Configures what `trained` was trained with; returns its data set."""
    configure([trained.arguments[trained.arguments.index("--gin_file") + 1]], bindings)
    return builder_of(trained)
