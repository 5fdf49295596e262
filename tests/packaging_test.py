"""What is installed from the wheel is complete: configs, the data set builder, the demo guitar, the commands."""

import ast
import email
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import packaging.requirements
import pytest
import soundfile
from packaging.utils import canonicalize_name

from neural_midi_synth import DataError, configs, environment

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


def test_scripts_of_data_prep_find_the_packages_they_use():
    # Their folder comes first where Python looks for modules; numba asks for one called coverage.
    program = f"import sys; sys.path.insert(0, {str(ROOT / 'data_prep')!r}); import librosa, numba, soundfile, soxr"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_gin_folder_does_not_shadow_the_gin_library():
    assert not (ROOT / "gin" / "__init__.py").exists()
    code = "import gin; print(gin.config_str() == '')"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "True"


PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
COMMANDS = ("nms_annotate", "nms_inspect", "nms_train", "nms_render", "nms_play", "nms_evaluate", "nms_export")


def make_wheel(source, folder):
    """Makes the wheel of a folder or an archive of sources in another folder; returns its path."""
    subprocess.check_call([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)])
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, which is beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    names = ("out", "runs", "build", "dist", "*.egg-info", "tests", "colab", "__pycache__", "node_modules")
    skipped = shutil.ignore_patterns(".*", *names)
    shutil.copytree(ROOT, folder / "copy", ignore=skipped)
    return make_wheel(folder / "copy", folder)


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder with the wheel installed into it, without dependencies."""
    folder = wheel.parent / "site"
    subprocess.check_call([*PIP, "install", "--no-deps", "--target", str(folder), str(wheel)])
    return folder


def in_installed(installed):
    return {**os.environ, "PYTHONPATH": str(installed)}


@pytest.mark.slow
def test_source_distribution_makes_the_same_wheel(wheel, tmp_path):
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=wheel.parent / "copy", check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    again = make_wheel(archive, tmp_path)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.mark.slow
def test_wheel_holds_every_config_and_the_demo_guitar(installed):
    package = installed / "neural_midi_synth"
    for config in ROOT.glob("gin/*/*.gin"):
        assert (package / "gin" / config.relative_to(ROOT / "gin")).read_bytes() == config.read_bytes()
    guitar = ROOT / "data_prep" / "demo_guitar"
    for kind in ("mp3", "mid", "flac", "txt"):
        for path in guitar.rglob(f"*.{kind}"):
            assert (
                package / "data_prep" / "demo_guitar" / path.relative_to(guitar)
            ).stat().st_size == path.stat().st_size
    assert not list(installed.rglob("*_test.py"))


@pytest.mark.slow
def test_the_wheel_has_the_web_page_that_was_built(installed):
    page = ROOT / "neural_midi_synth" / "exporting" / "web" / "built"
    if not page.is_dir():
        pytest.skip("left out: the web page is not built (make web, with Node.js 20)")
    in_wheel = installed / "neural_midi_synth" / "exporting" / "web" / "built"
    built, there = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        for folder in (page, in_wheel)
    )
    assert "litert/litert_wasm_internal.wasm" in built and there == built


@pytest.mark.slow
def test_every_module_of_the_wheel_is_the_checkouts_and_can_be_imported(wheel, installed, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".py")}
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("neural_midi_synth/**/*.py")}
    sources |= {f"neural_midi_synth/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("data_prep/**/*.py")}
    left_out = sources - names
    assert not names - sources
    assert left_out == {
        f"neural_midi_synth/data_prep/{name}.py" for name in ("guitar_session", "make_demo_guitar", "make_pretrained")
    }
    modules = sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names)
    assert len(modules) > 50
    code = f"import importlib\nfor name in {modules}:\n    print(importlib.import_module(name).__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=in_installed(installed), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = [pathlib.Path(path).relative_to(installed).as_posix() for path in done.stdout.splitlines()]
    assert sorted(imported) == sorted(names)


@pytest.mark.slow
def test_the_wheel_makes_music_before_anyone_trains(installed, tmp_path):
    guitar = installed / "neural_midi_synth" / "pretrained" / "demo_guitar"
    assert sum(path.stat().st_size for path in guitar.rglob("*")) < 5e6
    report = json.loads((guitar / "report.json").read_text())
    assert {example["name"] for example in report["examples"]} > {"riff", "test_midi_long_short"}
    assert str(ROOT) not in "".join(path.read_text() for path in guitar.rglob("*") if path.suffix in (".gin", ".json"))
    shutil.copy(ROOT / "data_prep" / "demo_guitar" / "examples" / "riff.mid", tmp_path)
    command = [str(installed / "bin" / "nms_render"), "--midi", "riff.mid", "--output", "riff.wav"]
    subprocess.check_call([sys.executable, *command], cwd=tmp_path, env=in_installed(installed))
    assert soundfile.info(str(tmp_path / "riff.wav")).duration > 5.0


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
    out = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=in_installed(installed), text=True)
    assert all(path.startswith(str(installed)) for path in out.split())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_flag_errors_do_not_wait_for_tensorflow(installed, tmp_path, command):
    def run(flag):
        script = [sys.executable, "-X", "importtime", str(installed / "bin" / command)]
        done = subprocess.run(
            [*script, flag], cwd=tmp_path, env=in_installed(installed), capture_output=True, text=True
        )
        imported = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
        assert "neural_midi_synth" in imported and not {"tensorflow", "ddsp", "librosa", "numba"} & set(imported)
        return done

    done = run("--help")
    assert done.returncode == 0 and done.stdout, done.stderr
    done = run("--no_such_flag")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"{command}: ") and not done.stdout


def requirements(wheel, extra=""):
    """What the wheel asks for, with one extra or without: parsed requirements."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist")
    parsed = map(packaging.requirements.Requirement, lines)
    return [one for one in parsed if one.marker is None or one.marker.evaluate({"extra": extra})]


@pytest.mark.slow
def test_lock_meets_what_the_wheel_asks_for(wheel):
    pins = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = packaging.requirements.Requirement(line)
            if pin.marker is None or pin.marker.evaluate():
                pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    for needed in requirements(wheel, "live"):
        assert needed.specifier.contains(pins[canonicalize_name(needed.name)]), needed
    assert pins["ddsp"] == environment.DDSP_VERSION


@pytest.mark.slow
def test_wheel_asks_for_all_that_it_imports(wheel):
    imported = set()
    with zipfile.ZipFile(wheel) as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    # ddsp: see setup.py; visqol is an extra.
    imported -= {*sys.stdlib_module_names, "neural_midi_synth", "data_prep", "ddsp", "visqol"}
    needed = {one.name for extra in ("live", "corpus") for one in requirements(wheel, extra)}
    files = [file for name in needed for file in importlib.metadata.files(name)]
    assert imported <= {file.parts[0].removesuffix(".py") for file in files}
