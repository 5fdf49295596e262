"""nms_inspect writes its report whole, and its exit status says whether training may begin."""

import json
import shutil

import pytest

from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR


@pytest.fixture
def takes(tmp_path):
    folder = tmp_path / "takes"
    folder.mkdir()
    for suffix in (".mid", ".mp3"):
        shutil.copy(DEMO_GUITAR / f"take_04{suffix}", folder)
    return folder


def test_good_takes_have_a_report_and_status_0(run_command, takes, tmp_path):
    answer = run_command("inspect", takes, "--output", tmp_path / "report")
    assert answer.status == 0, answer.error
    assert answer.output.startswith("Usable: ")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["inspection.html", "inspection.json"]
    assert json.loads((tmp_path / "report" / "inspection.json").read_text())["verdict"] == "usable"


def test_takes_that_do_not_fit_have_a_report_and_status_1(run_command, takes, tmp_path):
    shutil.copy(DEMO_GUITAR / "take_07.mid", takes / "take_04.mid")
    answer = run_command("inspect", takes, "--output", tmp_path / "report")
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith(f"nms_inspect: {takes}: unusable. ")
    assert (tmp_path / "report" / "inspection.html").exists()


def test_a_folder_without_takes_leaves_nothing(run_command, tmp_path):
    answer = run_command("inspect", tmp_path, "--output", tmp_path / "report")
    assert answer.status == 1
    assert "Traceback" not in answer.error
    assert not (tmp_path / "report").exists()
