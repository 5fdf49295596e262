"""What is installed from the wheel is complete: configs, the data set builder, the demo guitar, the commands."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from neural_midi_synth import DataError, configs

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_configs_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    assert (
        configs.find("models/guitar.gin") == configs.find("models/guitar") == configs.folder() / "models" / "guitar.gin"
    )
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "models" / "guitar.gin"
    own.parent.mkdir()
    own.write_text("# mine\n")
    assert configs.find(own) == own
    assert configs.find("models/guitar.gin").samefile(own)


def test_unknown_config_names_those_that_exist():
    with pytest.raises(DataError, match=r"^models/banjo.gin: no such gin config.*models/guitar\.gin"):
        configs.find("models/banjo.gin")


def test_gin_folder_does_not_shadow_the_gin_library():
    assert not (ROOT / "gin" / "__init__.py").exists()
    code = "import gin; print(gin.config_str() == '')"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "True"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel of a copy of the checkout installed into it, without dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns(
        ".*", "out", "runs", "build", "dist", "*.egg-info", "tests", "colab", "__pycache__"
    )
    shutil.copytree(ROOT, folder / "copy", ignore=skipped)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.check_call(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "copy")]
    )
    (wheel,) = folder.glob("*.whl")
    subprocess.check_call([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)])
    return folder / "site"


@pytest.mark.slow
def test_wheel_holds_every_config_and_the_demo_guitar(installed):
    package = installed / "neural_midi_synth"
    for config in ROOT.glob("gin/*/*.gin"):
        assert (package / "gin" / config.relative_to(ROOT / "gin")).read_bytes() == config.read_bytes()
    guitar = ROOT / "data_prep" / "demo_guitar"
    for kind in ("mp3", "mid", "RPP", "flac"):
        for path in guitar.rglob(f"*.{kind}"):
            assert (
                package / "data_prep" / "demo_guitar" / path.relative_to(guitar)
            ).stat().st_size == path.stat().st_size
    assert not list(installed.rglob("*_test.py"))


@pytest.mark.slow
def test_wheel_finds_its_configs_builder_and_commands(installed, tmp_path):
    code = """
import sys
import gin
import neural_midi_synth as nms
from neural_midi_synth import configs
import neural_midi_synth.data_prep.midi_audio as builder
print(nms.__file__, configs.find("models/guitar.gin"), builder.__file__, sep="\\n")
assert "/neural_midi_synth/" not in gin.__file__
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    out = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True)
    assert all(path.startswith(str(installed)) for path in out.split())
    for command in ("nms_train", "nms_render", "nms_evaluate"):
        script = installed / "bin" / command
        run = subprocess.run(
            [sys.executable, str(script), "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0 and run.stdout, run.stderr
