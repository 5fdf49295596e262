"""The benchmarks run, compare what is the same, and tell what they found in one table."""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from neural_midi_synth.errors import DataError

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"


def _module(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(BENCHMARKS))  # As where it is run: benchmarks import each other.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def bench():
    return _module("bench")


@pytest.fixture(scope="module")
def measuring():
    return _module("measuring")


def _cells(table):
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    return [dict(zip(header, line)) for line in lines]


def _seconds(text):
    number, unit = text.split()
    return float(number) * {"s": 1.0, "ms": 1e-3}[unit]


@pytest.mark.slow
def test_the_table_has_what_was_asked_for_and_goes_into_the_page(tmp_path):
    page = tmp_path / "README.md"
    page.write_text((BENCHMARKS / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, BENCHMARKS / "bench.py", "--quick", "--markdown", page]
    # What is slow to trace is left out; the memory of the group is taken in processes of their own.
    answer = subprocess.run(
        [*command, "--only", "^harmonic with|^noise|^reverb|^stream"], capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    rows = _cells([line for line in lines if line.startswith("|")])
    names = [row["what"] for row in rows]
    assert names[:3] == ["harmonic with gradient", "noise with gradient", "reverb with gradient"]
    assert [name.rpartition(": ")[2] for name in names[3:]] == ["median", "p99", "worst"] * 4
    assert ["one voice" in name for name in names[3:]] == ["six voices" not in name for name in names[3:]]
    for row in rows:
        ours, speed = _seconds(row["ours"]), float(row["audio s / s"])
        assert ours > 0.0 and speed > 0.0
        if row["stock"]:
            # Each is rounded to three digits.
            ratio = float(row["ratio"].removesuffix(" ×"))
            assert ratio == pytest.approx(_seconds(row["stock"]) / ours, rel=0.02)
            assert speed / float(row["stock audio s / s"]) == pytest.approx(ratio, rel=0.02)
    for first in range(3, len(rows), 3):
        median, p99, worst = rows[first : first + 3]
        assert _seconds(median["ours"]) <= _seconds(p99["ours"]) <= _seconds(worst["ours"])
        assert float(median["peak MB"]) > 1.0

    assert re.match(
        r".+, \d+ cores, \d+ GB, .+ GPU; .+, Python 3\.\d+\.\d+, TensorFlow [\d.]+; \d{4}-\d\d-\d\d\.$", lines[0]
    )
    text = page.read_text(encoding="utf-8")
    before, _, after = (BENCHMARKS / "README.md").read_text(encoding="utf-8").partition("<!-- table -->")
    assert text.startswith(before) and text.endswith(after.partition("<!-- end of table -->")[2])
    assert answer.stdout.strip() in text


def test_a_page_is_renewed_again_and_again(bench, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end of table -->\nafter\n", encoding="utf-8")
    for result in ("one", "two"):
        bench.renew(page, result)
    assert page.read_text(encoding="utf-8") == "before\n<!-- table -->\ntwo\n<!-- end of table -->\nafter\n"


def test_a_page_without_a_place_for_the_table_is_left_as_it_is(bench, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a page", encoding="utf-8")
    with pytest.raises(SystemExit, match=re.escape(f"{page}: mark the place")):
        bench.renew(page, "table")
    assert page.read_text(encoding="utf-8") == "a page"


@pytest.mark.parametrize("wrong", [2e-4, float("nan")])
def test_what_is_not_the_same_is_not_timed(measuring, wrong):
    stock = {"signal": np.array([0.5, -2.0, 1.0], np.float32)}
    measuring.check_same("synth", {"signal": stock["signal"] + np.float32(1e-4)}, stock)
    with pytest.raises(measuring.DifferentError, match="synth: ours differs from stock"):
        measuring.check_same("synth", {"signal": stock["signal"] + np.float32(2.0 * wrong)}, stock)


def test_calls_take_turns(measuring):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in ("ours", "stock")}
    times = measuring.interleaved(calls, seconds=0.0)
    # Once to trace; then three turns, of two calls each.
    assert order == ["ours", "stock"] + ["ours", "ours", "stock", "stock"] * 3
    assert set(times) == {"ours", "stock"} and min(times.values()) >= 0.0


def test_a_gradient_is_that_of_a_weighted_sum(measuring):
    import tensorflow as tf

    inputs, factor = tf.random.stateless_normal([2, 5, 3], [1, 2]), tf.Variable(2.0)
    run = measuring.gradient(lambda x, fixed: x**2 * factor * fixed, [inputs], [tf.constant(3.0)], [factor])
    weights = np.cos(0.3 * np.arange(5))[:, np.newaxis]
    to_inputs, to_factor = run()
    np.testing.assert_allclose(to_inputs, 12.0 * inputs * weights, rtol=1e-5)
    np.testing.assert_allclose(to_factor, np.sum(3.0 * inputs**2 * weights), rtol=1e-4)


def test_a_profile_tells_the_operations(measuring):
    import tensorflow as tf

    matrix = tf.random.stateless_normal([500, 500], [1, 2])
    operations = dict(measuring.profile(tf.function(lambda: tf.linalg.matmul(matrix, matrix) + 1.0)))
    assert any("MatMul" in kind for kind in operations)
    assert all(seconds > 0.0 for seconds in operations.values())


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="Other systems tell the peak only.")
def test_memory_is_that_of_this_process(measuring):
    page = os.sysconf("SC_PAGE_SIZE")
    resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * page / 2**20
    now, peak = measuring.memory()
    assert now == pytest.approx(resident, rel=0.05)
    assert peak >= now
    held = np.ones(2**25)  # 256 MB
    assert measuring.memory()[1] >= now + 200.0
    del held


@pytest.mark.slow
def test_curves_are_drawn_of_what_is_trained_already(tmp_path, write_take, capsys):
    curves = _module("curves")
    for name in ("one", "two"):
        write_take(tmp_path / "takes" / f"{name}.wav", seconds=3.0)
    kept, out = {}, tmp_path / "out"
    for takes, steps, log_mel in ((1, 20, 4.0), (2, 20, 3.0), (2, 40, 2.0)):
        notes = {"measures": {"rise": {"median": 0.5, "p90": 2.0}}, "flux_share": 0.9}
        mean = {"log_mel_db": log_mel, "envelope_db": 1.0, "pitch_accuracy": 0.95}
        kept[f"{takes}_takes_{steps}_steps"] = {"mean": mean, "notes": notes}
    out.mkdir()
    (out / "tables.json").write_text(json.dumps(kept))
    words = ["--steps", "20", "40", "--takes", "1", "2", "--takes_steps", "20"]
    curves.main([str(tmp_path / "takes"), *words, "--out", str(out), "--plot", str(tmp_path / "curves.png")])
    rows = _cells(capsys.readouterr().out.splitlines())
    assert [(row["minutes of takes"], row["steps"], row["log-mel"]) for row in rows] == [
        ("0.1", "20", "4.0 dB"),
        ("0.1", "20", "3.0 dB"),
        ("0.1", "40", "2.0 dB"),
    ]
    assert rows[0]["rise, median / 90 %"] == "0.5 / 2.0 ms" and rows[0]["movement"] == "90 %"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_sound_of_an_instrument_is_told_beside_the_last_table(trained, tmp_path, capsys):
    sound = _module("sound")
    words = [str(trained.takes), "--instrument", str(trained.folder), "--out", str(tmp_path)]
    with pytest.raises(DataError, match="has no table before, only none"):
        sound.main([*words, "--last", "before"])
    tables = []
    for name in ("before", "now"):
        sound.main([*words, "--name", name])
        tables.append(capsys.readouterr().out.partition("\nmeasure ")[2])
    assert tables[0].endswith("last: none\n") and tables[1].endswith("last: before\n")
    rows = {line[:20].strip(): line.split("  ") for line in tables[1].splitlines()}
    for title in ("Log-mel difference", "Tone", "Loudness", "Rise", "Click", "Stretch", "Movement", "Decay"):
        assert title in rows
    # The same instrument plays the same examples: it is as far off as before.
    cells = [cell.strip() for cell in rows["Tone"] if cell.strip()]
    assert cells[1] == cells[-2 if cells[-1].endswith(("×", "–")) else -1]
    kept = json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))
    assert list(kept) == ["before", "now"]
    assert kept["now"]["notes"] == kept["before"]["notes"]


def test_training_or_an_instrument_is_measured_not_both():
    sound = _module("sound")
    options = sound.arguments(["takes", "--steps", "20", "--gin_param", "a=1", "--gin_param", "b=2"])
    assert (options.takes, options.steps, options.gin_param, options.minutes) == ("takes", 20, ["a=1", "b=2"], None)
    with pytest.raises(SystemExit):
        sound.arguments(["--steps", "20", "--instrument", "runs/guitar"])


@pytest.mark.slow
def test_live_play_goes_on_for_as_long_as_it_was_asked_to(tmp_path):
    if shutil.which("jackd") is None:
        pytest.skip("left out: jackd is not installed (Debian: apt install jackd2 libportaudio2)")
    pytest.importorskip("sounddevice", exc_type=OSError, reason="PortAudio is not installed (libportaudio2)")
    command = [sys.executable, BENCHMARKS / "live.py", "--seconds", "8", "--busy", "1", "--block", "32"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    (row,) = _cells([line for line in answer.stdout.splitlines() if line.startswith("|")])
    # From the first block to a second after the last note.
    assert 8.0 <= float(row["seconds"]) < 9.0
    assert 0.0 < float(row["load"].rstrip(" %"))
    assert float(row["latency ms"]) < 100.0
    # Nothing piles up: what loading needed is even given back.
    assert float(row["MB at the end"]) < float(row["MB at first"]) + 20.0


@pytest.mark.slow
def test_the_page_is_measured_in_a_browser(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "tests" / "exporting"))
    web_browser = importlib.import_module("web_browser")
    if web_browser.why_not() is not None:
        pytest.skip(f"left out: {web_browser.why_not()}")
    command = [sys.executable, BENCHMARKS / "web.py", "--seconds", "4", "--voices", "2"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    (row,) = _cells([line for line in answer.stdout.splitlines() if line.startswith("|")])
    assert 3.0 < float(row["page MB"]) < 6.0
    assert 0.0 < float(row["median ms"]) <= float(row["p99 ms"])
    assert 0.0 < float(row["key to sound ms"]) < 1000.0
