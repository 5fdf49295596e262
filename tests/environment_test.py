"""The environment is made ready before TensorFlow, or one sentence says what to do."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(code, *options, **variables):
    """Runs `code` in a new Python from the checkout; returns its exit status, output and last error line."""
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def test_import_is_cheap_and_switches_to_legacy_keras():
    code = "import os, sys, neural_midi_synth; print(os.environ['TF_USE_LEGACY_KERAS'], 'tensorflow' in sys.modules)"
    assert run(code) == (0, "1 False", "")
    assert run(code, TF_USE_LEGACY_KERAS="0") == (0, "1 False", "")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", "--xla_cpu_prefer_vector_width=512"),
        ("--xla_dump_to=there", "--xla_dump_to=there --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("file_of_flags", "file_of_flags"),
    ],
)
def test_xla_has_wide_vectors_unless_told_otherwise(flags, expected):
    code = "import os, neural_midi_synth, neural_midi_synth as again; print(os.environ['XLA_FLAGS'])"
    assert run(code, XLA_FLAGS=flags) == (0, expected, "")


def test_public_names_are_listed_before_they_are_imported():
    code = "import neural_midi_synth as nms; print(set(nms.__all__) <= set(dir(nms)), 'load' in vars(nms))"
    assert run(code) == (0, "True False", "")
    status, _, error = run("import neural_midi_synth as nms; nms.lode")
    assert status == 1 and error == "AttributeError: module 'neural_midi_synth' has no attribute 'lode'"


@pytest.mark.slow
def test_every_public_name_is_there():
    code = """
import neural_midi_synth as nms
assert {"Instrument", "Piece", "Stream", "Voice", "load", "read_midi", "write_midi"} <= set(nms.__all__)
print(all(getattr(nms, name) is vars(nms)[name] for name in nms.__all__))
"""
    assert run(code)[:2] == (0, "True")


@pytest.mark.slow
def test_an_app_of_ones_own_has_its_own_flags_whatever_it_imports():
    rooms = ROOT / "neural_midi_synth"
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(rooms.rglob("*.py"))
        if rooms / "commands" not in path.parents
    ]
    modules += ["neural_midi_synth.data_prep.midi_audio", "neural_midi_synth.data_prep.takes"]
    imports = "".join(f"import {module}\n" for module in modules)
    assert len(modules) > 40
    # Flags of the commands under their very names, one of them of another type.
    code = f"""{imports}
from absl import app, flags
output = flags.DEFINE_integer("output", None, "", required=True)
midi = flags.DEFINE_string("midi", "mine.mid", "")
ours = [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith("neural_midi_synth")]
app.run(lambda arguments: print(output.value, midi.value, ours), ["app", "--output", "3"])
"""
    status, output, error = run(code)
    assert (status, output) == (0, "3 mine.mid []"), error


def test_missing_ddsp_is_told_with_its_remedy():
    hidden = "import sys; sys.modules['ddsp'] = None; "
    sentence = "ddsp is not installed: run `pip install --no-deps ddsp==3.7.0`."
    assert run(hidden + "import neural_midi_synth") == (1, "", f"ImportError: {sentence}")
    assert run(hidden + "sys.argv = ['/bin/nms_render']; import neural_midi_synth") == (
        1,
        "",
        f"nms_render: {sentence}",
    )


def test_missing_tensorflow_is_told_with_its_remedy():
    status, _, error = run("import neural_midi_synth", "-S")
    assert status == 1
    assert error == 'ImportError: TensorFlow is not installed: run `pip install "tensorflow>=2.20,<2.22"`.'


def test_tf_keras_of_another_minor_is_told_with_its_remedy(tmp_path):
    metadata = tmp_path / "tf_keras-2.15.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: tf-keras\nVersion: 2.15.0\n")
    status, _, error = run("import neural_midi_synth", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert status == 1
    assert error.startswith("ImportError: tf-keras 2.15.0 does not fit") and 'pip install "tf-keras==2.' in error


def test_crepe_placeholder_raises_only_when_used():
    code = """
import importlib.util, inspect, sys
find = importlib.util.find_spec
# Where crepe itself is installed, it is hidden.
importlib.util.find_spec = lambda name: None if name == "crepe" and name not in sys.modules else find(name)
import neural_midi_synth, crepe
inspect.getmodule(crepe), hasattr(crepe, "__file__"), importlib.util.find_spec("crepe")
crepe.predict
"""
    status, _, error = run(code)
    assert status == 1
    assert error == "ImportError: crepe.predict was asked for, but crepe is not installed: run `pip install crepe`."


@pytest.mark.slow
@pytest.mark.parametrize("touch", ["tf.keras.Model", "v2.keras.Model"])
def test_keras_3_already_in_use_is_told_with_its_remedy(touch):
    code = f"import tensorflow as tf, tensorflow.compat.v2 as v2; {touch}; import neural_midi_synth"
    status, _, error = run(code)
    assert status == 1
    assert error.startswith("ImportError: tf.keras is already Keras 3") and "TF_USE_LEGACY_KERAS=1" in error


@pytest.mark.slow
def test_tensorflow_imported_first_but_keras_untouched_works():
    code = """
import tensorflow as tf
import neural_midi_synth
import ddsp
import numpy as np
import tensorflow.compat.v2 as v2
assert tf.keras.Model.__module__.startswith("tf_keras."), tf.keras.Model.__module__
assert v2.keras.layers.Layer is tf.keras.layers.Layer
assert issubclass(ddsp.processors.Processor, tf.keras.layers.Layer)
group = ddsp.processors.ProcessorGroup(
    dag=[(ddsp.synths.Harmonic(n_samples=640, name="harmonic"), ["amplitudes", "harmonics", "f0_hz"])]
)
ones = np.ones([1, 10, 1], np.float32)
print(group({"amplitudes": ones, "harmonics": ones, "f0_hz": 440 * ones}).shape)
"""
    assert run(code)[:2] == (0, "(1, 640)")
