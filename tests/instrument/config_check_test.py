"""The config of a stranger's instrument runs no code and makes nothing huge."""

import hypothesis
import pytest
from hypothesis import strategies as st

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import config_check
from neural_midi_synth.instrument.loading import CONFIG_NAME, PRETRAINED, configure, load

GOOD = (PRETRAINED / CONFIG_NAME).read_text(encoding="utf-8")


def _check(folder, text, modules=()):
    path = folder / CONFIG_NAME
    path.write_text(text, encoding="utf-8")
    config_check.check(path, modules)


def test_the_config_of_an_instrument_passes(tmp_path):
    _check(tmp_path, GOOD)


@pytest.mark.parametrize("path", sorted(configs.folder().glob("models/*.gin")), ids=lambda path: path.stem)
def test_every_model_of_the_package_may_be_a_strangers(path, tmp_path):
    _check(tmp_path, "".join(text for _, text in configs.parts(path)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import os", "imports os, which would run code"),
        ("from os import path", "imports os.path, which would run code"),
        ("import antigravity as gravity", "imports antigravity, which would run code"),
        ("include '/etc/passwd'", "includes /etc/passwd"),
        ("Controls.channels = @os.system()", "refers to 'os.system'"),
        ("Controls.channels = [{'a': (@tf.io.write_file(),)}]", "refers to 'tf.io.write_file'"),
        ("COMMAND = @subprocess.run()", "refers to 'subprocess.run'"),
        ("tf.io.write_file.filename = 'x'", "sets 'tf.io.write_file'"),
        ("Decoder.units = 1000000000", "sets units to 1e+09"),
        ("Decoder:\n    units = 1000000000", "sets units to 1e+09"),
        ("BIG = 1000000000\nDecoder.units = %BIG", "sets units to 1e+09"),
        ("BIG = 1000000000\nMORE = %BIG\nDecoder.units = %MORE", "sets units to 1e+09"),
        ("nms.SpectralLoss.fft_sizes = (512, 99999999)", "sets fft_sizes to 1e+08"),
        ("Decoder.units = 10 ** 9", "is no config"),
        ("Instrument.name = 'x' * 1000000000", "is no config"),
        ("a = [[[[[[", "is no config"),
        ("a = " + 5000 * "[" + 5000 * "]", "is no config"),
        ("a = " + str(list(range(5000))), "a list of 5000 values"),
        ("A = %B\nB = %A\nDecoder.units = %A", None),
    ],
)
def test_what_would_run_code_or_make_something_huge_is_refused(line, says, tmp_path):
    if says is None:  # gin tells of macros in a circle by itself.
        _check(tmp_path, f"{GOOD}\n{line}\n")
        return
    with pytest.raises(DataError, match=r"operative_config\.gin: ") as caught:
        _check(tmp_path, f"{GOOD}\n{line}\n")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_made_to_run_code_is_refused_before_it_does(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("import pathlib\npathlib.Path('ran').touch()\n", encoding="utf-8")
    (tmp_path / "best").symlink_to(PRETRAINED / "best")
    (tmp_path / CONFIG_NAME).write_text(f"import planted\n{GOOD}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="imports planted, which would run code"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()
    load(tmp_path, modules=["planted"])
    assert (tmp_path / "ran").exists()


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(st.data())
def test_a_damaged_config_is_one_line(tmp_path_factory, data):
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 30))] = data.draw(st.text(max_size=5))
    try:
        _check(tmp_path_factory.getbasetemp(), "".join(text))
    except DataError as error:
        assert "\n" not in str(error)


def test_configs_of_the_user_may_import(tmp_path, monkeypatch):
    (tmp_path / "own_module.py").write_text("LOADED = True\n", encoding="utf-8")
    (tmp_path / "own.gin").write_text("import own_module\ninclude 'models/guitar.gin'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    configure([tmp_path / "own.gin"])
