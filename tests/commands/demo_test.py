"""The demo deletes what a demo has made, and nothing else."""

import pytest

from neural_midi_synth.commands import demo
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.loading import CONFIG_NAME, DATA_SET_NAME


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like that of an instrument."""
    folder = tmp_path / "demo" / "instrument"
    for name in ("last/checkpoint", "best/checkpoint", "logs/events", CONFIG_NAME, DATA_SET_NAME):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_instrument_of_somebody_else_is_left_alone(folder):
    (folder.parent / "report.html").write_text("of nms_evaluate")
    before = files(folder.parent)
    with pytest.raises(DataError, match=f"^{folder}: is not of an earlier demo. Move it away, or choose another"):
        demo.prepare(folder)
    assert files(folder.parent) == before


def test_a_demo_that_was_stopped_goes_on(folder):
    (folder / demo.MARK).write_text(demo.BEGUN)
    before = files(folder)
    demo.prepare(folder)
    assert files(folder) == before


def test_a_demo_that_was_done_begins_anew_and_leaves_what_it_did_not_make(folder):
    (folder / demo.MARK).write_text(demo.DONE)
    (folder / "notes.txt").write_text("how I like it")
    (folder / "takes").mkdir()
    (folder / "takes" / "my.wav").write_text("sound")
    demo.prepare(folder)
    assert files(folder) == {demo.MARK: demo.BEGUN, "notes.txt": "how I like it", "takes/my.wav": "sound"}


def test_a_first_demo_makes_its_folder(tmp_path):
    demo.prepare(tmp_path / "out" / "instrument")
    assert files(tmp_path) == {f"out/instrument/{demo.MARK}": demo.BEGUN}


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="can't be made"):
        demo.prepare(tmp_path / "out" / "instrument")
