"""A corpus is the same whoever makes it: on this machine, on Dask, with workers that are killed on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import mido
import numpy as np
import psutil
import pytest
import tensorflow as tf
from tensorflow_datasets import builder_from_directory

from neural_midi_synth import configs
from neural_midi_synth.corpus import jobs as jobs_lib
from neural_midi_synth.corpus import pipeline, playing
from neural_midi_synth.corpus.jobs import Settings
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.instrument.loading import CONFIG_NAME, build, configure, load
from neural_midi_synth.instrument.rendering import as_piece
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi

N_FILES = 12
"""That can be played."""


@pytest.fixture(scope="module")
def instrument(tmp_path_factory):
    """The folder of a small instrument that has learnt nothing."""
    import gin

    folder = tmp_path_factory.mktemp("instrument") / "small"
    configure(
        [configs.find("models/guitar_16k.gin")], ["Decoder.units = 16", "Decoder.rnn_units = 16", "Decoder.layers = 1"]
    )
    made = build()
    (folder / "best").mkdir(parents=True)
    tf.train.CheckpointManager(tf.train.Checkpoint(instrument=made), str(folder / "best"), 1).save(1)
    (folder / CONFIG_NAME).write_text(gin.operative_config_str())
    return folder


@pytest.fixture(scope="module")
def midi_dir(tmp_path_factory):
    """Files of one and of several voices in folders, and four that can't be played."""
    folder = tmp_path_factory.mktemp("corpus") / "midi"
    for number in range(N_FILES):
        starts = np.arange(0.0, 10.0 + number, 0.25)
        notes = np.stack([starts, starts + 0.2, 40 + (7 * number + np.arange(len(starts))) % 30, 60 + starts], axis=1)
        voices = [Voice(notes, [[0.0, 55, number]]), Voice(notes + [0, 0, 12, 0])][: 1 + number % 2]
        write_midi(Piece(tuple(voices)), folder / f"{number % 3}" / f"{number}.mid")
    good = (folder / "0" / "0.mid").read_bytes()
    (folder / "cut.mid").write_bytes(good[:-9])
    (folder / "nö\nline.MID").write_bytes(b"")
    (folder / "not_midi.mid").write_text("<html>")
    hours = mido.MidiFile(ticks_per_beat=480)
    hours.tracks.append([mido.Message("note_on", note=60, time=0), mido.Message("note_off", note=60, time=10**7)])
    hours.save(folder / "hours.mid")
    (folder / "readme.txt").write_text("no MIDI")
    return folder


def settings_of(midi_dir, output, instrument, **others):
    return Settings(str(midi_dir), str(output), {"small": str(instrument)}, vary={"openness": (20, 90)}, **others)


def contents(output):
    """Every file of a corpus but the lock."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != ".lock" and "data_set" not in path.parts
    }


@pytest.fixture(scope="module")
def alone(midi_dir, instrument, tmp_path_factory):
    """The corpus as one process makes it, in another order, without Beam."""
    output = tmp_path_factory.mktemp("alone") / "corpus"
    settings = settings_of(midi_dir, output, instrument)
    output.mkdir()
    pipeline._keep_settings(settings)
    files = jobs_lib.find_files(settings)
    for number in reversed(range(len(files))):
        assert playing.play_all(settings, [number], files) == 1
    assert playing.play_all(settings, range(len(files)), files) == 0
    assert pipeline._list(settings, files) == (N_FILES, 4)
    return output


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_file_has_a_line_that_tells_what_is_there(alone, midi_dir, instrument):
    played = lines(alone / "manifest.jsonl")
    assert len({line["midi"] for line in played}) == N_FILES
    loaded = load(instrument)
    for line in played[:3]:
        piece = as_piece(midi_dir / line["midi"], loaded)
        samples, rate = read_audio(alone / line["sound"])
        expected = loaded.render(piece, styles=line["styles"])
        expected /= max(np.abs(expected).max(), 1.0)
        assert (rate, len(samples)) == (16000, len(expected)) == (line["sample_rate"], round(16000 * line["seconds"]))
        np.testing.assert_allclose(samples, expected, atol=1e-5)  # 24 bits, and other threads.
        with np.load(alone / line["notes"]) as notes:
            assert len(notes["notes"]) == line["n_notes"] == len(piece.notes)
            assert notes["note_voices"].max() + 1 == line["n_voices"] == len(piece.voices)
            frames = notes["control_frames/cc_55"]
            assert frames.shape == (line["n_voices"], loaded.frames_for(len(samples)))
            np.testing.assert_allclose(frames, line["styles"]["openness"] / 127, rtol=1e-6)
            pitch = notes["control_frames/f0_midi"]
            first = round((piece.voices[0].notes[1, 0] + 0.1) * notes["frame_rate"])
            assert pitch[0, first] == piece.voices[0].notes[1, 2]


def test_what_cannot_be_played_costs_its_line_and_tells_why(alone, midi_dir):
    reasons = {line["midi"]: line["reason"] for line in lines(alone / "not_played.jsonl")}
    assert set(reasons) == {"cut.mid", "hours.mid", "not_midi.mid", "nö\nline.MID"}
    assert "is cut short" in reasons["cut.mid"]
    assert "lasts 174 minutes, more than the 20" in reasons["hours.mid"]
    assert "is empty" in reasons["nö\nline.MID"]
    assert not any(str(midi_dir) in reason for reason in reasons.values())


def test_what_is_drawn_depends_on_seed_and_name_alone(midi_dir):
    def of(**others):
        vary = {"openness": (3, 5), "power_chord": (0, 127)}
        return Settings(str(midi_dir), "out", {"a": "a", "b": "b"}, vary=vary, **others)

    names = [f"{number}.mid" for number in range(200)]
    both = [job for name in names for job in of().jobs(name)]
    assert [job.instrument for job in both] == ["a", "b"] * 200
    assert {job.styles["openness"] for job in both} == {3, 4, 5}
    assert len({job.styles["power_chord"] for job in both}) > 100
    drawn = {job.midi: job for name in names for job in of(draws_instrument=True).jobs(name)}
    assert {name: of(draws_instrument=True).jobs(name)[0] for name in reversed(names)} == drawn
    assert 60 < sum(job.instrument == "a" for job in drawn.values()) < 140
    other = {name: of(draws_instrument=True, seed=1).jobs(name)[0] for name in names}
    assert sum(other[name] != drawn[name] for name in names) > 150


def kill_one(process, output, killed):
    """Kills one of the local runner's workers as soon as something of the corpus is there."""
    workers = []
    while len(workers) < 2 and process.is_running():
        workers = local_workers(process)
    while process.is_running():
        there = list((output / "lines").rglob("*.json"))
        if len(there) > 1:
            killed.append({path: path.stat().st_mtime_ns for path in there})
            workers[0].send_signal(signal.SIGKILL)
            return
        time.sleep(0.005)


def render(arguments, output, kills=False):
    """Runs nms_render_corpus, and kills a worker if that is wanted; returns what it says, and what was there."""
    command = [sys.executable, "-m", "neural_midi_synth.commands.render_corpus", *map(str, arguments)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = []
    if kills:
        threading.Thread(target=kill_one, args=(process, output, killed), daemon=True).start()
    try:
        said, error = process.communicate(timeout=400)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, said, error, killed


def local_workers(process):
    """Those of Beam's local runner."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "apache_beam.runners.worker.sdk_worker_main" in child.cmdline() and "python" in child.name():
                found.append(child)
        except psutil.Error:
            continue
    return found


def assert_untouched(output, killed):
    """What was there when a worker was killed was not written again."""
    (before,) = killed
    assert 1 < len(before) < N_FILES + 4
    for path, when in before.items():
        assert path.stat().st_mtime_ns == when


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_make_the_same_corpus(alone, midi_dir, instrument, tmp_path):
    output = tmp_path / "corpus"
    arguments = ["--midi_dir", midi_dir, "--instrument", instrument, "--output", output, "--vary", "openness=20..90"]
    status, said, error, killed = render([*arguments, "--", "--direct_num_workers=2"], output, kills=True)
    assert status == 0, error
    assert "since a worker has ended: going on." in said
    assert_untouched(output, killed)
    assert contents(output) == contents(alone)


@pytest.fixture
def dask():
    """The address of a Dask cluster with two workers."""
    script = os.path.join(os.path.dirname(__file__), "dask_cluster.py")
    process = psutil.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    for each in [process, *process.children(recursive=True)]:  # The first starts workers anew that are killed.
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.communicate()


@pytest.mark.slow
def test_dask_makes_the_same_corpus_and_a_data_set(alone, midi_dir, instrument, dask, tmp_path):
    output = tmp_path / "corpus"
    status, said, error, _ = render(
        [
            *("--midi_dir", midi_dir, "--instrument", instrument, "--output", output, "--vary", "openness=20..90"),
            *("--sound", "tfds"),
            *("--", "--runner=apache_beam.runners.dask.dask_runner.DaskRunner", f"--dask_client_address={dask}"),
        ],
        output,
    )
    assert status == 0, (said, error)
    theirs, ours = contents(output), contents(alone)
    for each in (theirs, ours):
        each.pop("corpus.json")
    assert theirs == ours
    builder = builder_from_directory(output / "data_set")
    examples = list(builder.as_dataset(split="train").as_numpy_iterator())
    played = lines(output / "manifest.jsonl")
    assert sorted(example["midi"].decode() for example in examples) == sorted(line["midi"] for line in played)
    for example, line in list(zip(examples, played))[:3]:
        assert example["midi"].decode() == line["midi"]
        samples, _ = read_audio(output / line["sound"])
        np.testing.assert_array_equal(example["audio"], samples)
        with np.load(output / line["notes"]) as notes:
            np.testing.assert_array_equal(example["notes"], notes["notes"])
            for name, frames in example["control_frames"].items():
                np.testing.assert_array_equal(frames, notes[f"control_frames/{name}"])
        assert json.loads(example["styles"]) == line["styles"]


def test_a_runner_that_loses_files_and_says_done_is_found_out(midi_dir, instrument, tmp_path, monkeypatch):
    settings = settings_of(midi_dir, tmp_path / "corpus", instrument)
    monkeypatch.setattr(pipeline, "_run", lambda *_: None)
    with pytest.raises(DataError, match=r"16 files have not come from the runner, although it says so"):
        pipeline.make_corpus(settings)


def test_what_is_half_written_is_swept_away_and_strange_folders_are_left_alone(midi_dir, instrument, tmp_path):
    output = tmp_path / "corpus"
    (output / "sound").mkdir(parents=True)
    (output / "sound" / ".a.mid.0123abcd.flac").write_bytes(b"half")
    (output / "sound" / "mine.flac").write_bytes(b"whole")
    with pytest.raises(DataError, match="has other files in it, such as sound"):
        pipeline.make_corpus(settings_of(midi_dir, output, instrument))
    pipeline._sweep(output)
    assert [path.name for path in (output / "sound").iterdir()] == ["mine.flac"]


def test_an_output_that_cannot_be_written_is_no_fault_of_the_file(midi_dir, instrument, tmp_path, monkeypatch):
    settings = settings_of(midi_dir, tmp_path / "corpus", instrument)
    (tmp_path / "corpus").mkdir()
    (job,) = settings.jobs("0/0.mid")
    (tmp_path / "corpus" / "sound").write_text("in the way")
    with pytest.raises(DataError, match="Choose another output"):
        playing.play(settings, job)
    assert not jobs_lib.line_path(settings, job).exists()


def test_another_corpus_does_not_get_among_it(alone, midi_dir, instrument):
    with pytest.raises(DataError, match=r"made with other seed\. Choose another --output"):
        pipeline.make_corpus(settings_of(midi_dir, alone, instrument, seed=1))


def test_two_instruments_of_one_name_are_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "guitar").mkdir(parents=True)
    with pytest.raises(DataError, match="is called guitar, too"):
        jobs_lib.instruments_by_name([str(tmp_path / name / "guitar") for name in ("a", "b")])


def test_the_midi_of_the_fixture_is_read_as_meant(midi_dir):
    assert [len(read_midi(midi_dir / f"{n % 3}" / f"{n}.mid").voices) for n in range(4)] == [1, 2, 1, 2]
