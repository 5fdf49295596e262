"""A folder has one writer at a time, and is free again when its writer ends, however that is."""

import signal
import subprocess
import sys

import pytest

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.locks import LOCK_NAME, only_writer

HOLD = """
import sys, time
from neural_midi_synth.files.locks import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    folder = tmp_path / "new" / "run"
    with only_writer(folder):
        with pytest.raises(DataError, match=f"^{folder}: another training is writing there") as raised:
            with only_writer(folder):
                pytest.fail("There are two.")
        assert "\n" not in str(raised.value)
        with only_writer(tmp_path / "another"):
            pass
    with only_writer(folder):
        pass
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]


def test_what_ends_in_an_error_is_free_again(tmp_path):
    with pytest.raises(OSError, match="full"):
        with only_writer(tmp_path):
            raise OSError("disk full")
    with only_writer(tmp_path):
        pass


def test_a_killed_writer_leaves_the_folder_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another training"):
            with only_writer(tmp_path):
                pytest.fail("There are two.")
        process.send_signal(signal.SIGKILL)
    with only_writer(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        with only_writer(tmp_path / "file"):
            pytest.fail("It is a file.")
