"""The data set: takes are paired or refused, held out before all else, and windowed to the sample."""

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import gin
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from neural_midi_synth import configs
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.notes import Voice, read_midi, write_midi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

    from neural_midi_synth.data_prep.midi_audio import MidiAudio, MidiAudioConfig, build, takes, windows

SAMPLE_RATE = 8000
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def make_take(path, seconds=30.0, seed=0, midi_suffix=".mid", notes=None, sample_rate=SAMPLE_RATE):
    """Writes a recording of sines and its annotation; returns the notes."""
    rng = np.random.default_rng(seed)
    if notes is None:
        starts = np.arange(0.25, seconds - 1.0, 0.75)
        pitches, velocities = rng.integers(50, 70, len(starts)), rng.integers(40, 127, len(starts))
        notes = np.stack([starts, starts + 0.5, pitches, velocities], axis=1).astype(np.float64)
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    for start, end, pitch, velocity in notes:
        first, last = round(start * sample_rate), min(round(end * sample_rate), len(samples))
        time = np.arange(last - first) / sample_rate
        samples[first:last] = velocity / 254 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, samples, sample_rate)
    control_changes = np.array([[0.0, 55, 0], [seconds / 2, 55, 127]])
    write_midi(Voice(notes, control_changes), path.with_suffix(midi_suffix))
    return notes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings") / "my takes"
    for i, name in enumerate(("b.wav", "A.FLAC", "c.mp3", "d.ogg")):
        make_take(folder / name.lower(), seed=i, midi_suffix=(".mid", ".MID", ".MIDI", ".mid")[i])
    (folder / "a.flac").rename(folder / "A.FLAC")
    (folder / "c.RPP").write_text("<REAPER_PROJECT\n>\n")
    (folder / "._b.wav").write_bytes(b"what macOS leaves on foreign disks")
    make_take(folder / "examples" / "never_trained_on.wav", seconds=5.0)
    return folder


@pytest.fixture(scope="module")
def builder(folder, tmp_path_factory):
    return build(folder, tmp_path_factory.mktemp("data"), sample_rate=SAMPLE_RATE, pitch_shifts=(-2, 1))


def examples(builder, split):
    return list(tfds.as_numpy(builder.as_dataset(split)))


def test_example_is_the_recording_from_its_start(folder, builder):
    train = [example for example in examples(builder, "train") if example["pitch_shift"] == 0]
    assert {example["take"] for example in train} == {b"A", b"b", b"c", b"d"}
    for example in train:
        path = next(path for path in folder.glob(f"{example['take'].decode()}.*") if path.suffix != ".RPP")
        samples, _ = read_audio({t.name: t for t in takes.find_takes(folder)}[path.stem].audio_path)
        start = round(example["start"] * SAMPLE_RATE)
        np.testing.assert_array_equal(example["audio"], samples[start : start + 4 * SAMPLE_RATE])


def test_example_has_what_sounds_in_it(folder, builder):
    voices = {take.name: read_midi(take.midi_path) for take in takes.find_takes(folder)}
    for split in ("train", "validation", "test"):
        for example in examples(builder, split):
            if example["pitch_shift"] != 0:
                continue
            expected = voices[example["take"].decode()].window(example["start"], example["start"] + 4.0)
            # float32 keeps 30 s to 2e-6 s.
            np.testing.assert_allclose(example["notes"], expected.notes, atol=4e-6)
            np.testing.assert_allclose(example["control_changes"], expected.control_changes, atol=4e-6)
            assert example["control_changes"][0, 0] <= 0  # The value in force at the start.
            assert example["pitch_bends"].shape == (0, 2)


def test_splits_share_no_sample(builder):
    taken = {}
    for split in ("train", "validation", "test"):
        for example in examples(builder, split):
            speed = 2.0 ** (example["pitch_shift"] / 12)
            n_samples = int(4 * SAMPLE_RATE * speed)
            used = taken.setdefault(example["take"], np.full(30 * SAMPLE_RATE, "", dtype="U10"))
            start = round(example["start"] * SAMPLE_RATE)
            assert set(used[start : start + n_samples]) <= {"", split}
            used[start : start + n_samples] = split
    assert all(builder.info.splits[split].num_examples for split in ("train", "validation", "test"))


def test_held_out_windows_neither_overlap_nor_are_moved(builder):
    for split in ("validation", "test"):
        by_take = {}
        for example in examples(builder, split):
            assert example["pitch_shift"] == 0
            by_take.setdefault(example["take"], []).append(example["start"])
        for starts in by_take.values():
            assert np.all(np.diff(sorted(starts)) >= 4.0 - 1e-9)


def test_sound_and_annotation_are_moved_together(builder):
    train = examples(builder, "train")
    for shift in (-2, 0, 1):
        moved = [example for example in train if example["pitch_shift"] == shift]
        assert len(moved) > 5
        for example in moved:
            start, end, pitch, _ = example["notes"][len(example["notes"]) // 2]
            sound = example["audio"][round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
            spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 16))
            measured = 69 + 12 * np.log2(np.argmax(spectrum) * SAMPLE_RATE / (1 << 16) / 440)
            assert abs(measured - pitch) < 0.1  # Semitones; a bin is 0.12 Hz wide and the lobe symmetric.
            # The note's edges are where the annotation has them: 10 ms outside it there is nothing.
            before = example["audio"][max(round((start - 0.1) * SAMPLE_RATE), 0) : round((start - 0.01) * SAMPLE_RATE)]
            assert np.abs(before).max(initial=0) < 0.05 * np.abs(sound).max()


def test_built_once_for_the_same_takes_and_configuration(folder, builder, tmp_path):
    def modified(builder):
        return {path: path.stat().st_mtime_ns for path in pathlib.Path(builder.data_dir).iterdir()}

    before = modified(builder)
    again = build(folder, builder.data_dir_root, sample_rate=SAMPLE_RATE, pitch_shifts=(-2, 1))
    assert modified(again) == before
    elsewhere = tmp_path / "my takes"
    shutil.copytree(folder, elsewhere)
    moved = build(elsewhere, builder.data_dir_root, sample_rate=SAMPLE_RATE, pitch_shifts=(-2, 1))
    assert moved.data_dir == builder.data_dir
    make_take(elsewhere / "b.wav", seed=99)
    changed = build(elsewhere, builder.data_dir_root, sample_rate=SAMPLE_RATE, pitch_shifts=(-2, 1))
    assert changed.data_dir != builder.data_dir
    assert build(folder, builder.data_dir_root, sample_rate=SAMPLE_RATE).data_dir != builder.data_dir


def test_two_builds_are_alike(folder, builder, tmp_path):
    again = build(folder, tmp_path, sample_rate=SAMPLE_RATE, pitch_shifts=(-2, 1))
    files = sorted(path.name for path in pathlib.Path(builder.data_dir).glob("*.tfrecord*"))
    assert files
    for name in files:
        assert (pathlib.Path(again.data_dir) / name).read_bytes() == (
            pathlib.Path(builder.data_dir) / name
        ).read_bytes()


def test_a_built_data_set_loads_by_name(builder):
    name = f"midi_audio/{builder.builder_config.name}"
    loaded = tfds.load(name, split="validation", data_dir=builder.data_dir_root, download=False)
    assert len(list(loaded)) == builder.info.splits["validation"].num_examples


def test_take_shorter_than_a_window_ends_in_silence(tmp_path):
    for i in range(3):
        make_take(tmp_path / "takes" / f"{i}.wav", seconds=3.0, seed=i)
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE)
    for split in ("train", "validation", "test"):
        (example,) = examples(built, split)
        samples, _ = read_audio(tmp_path / "takes" / f"{example['take'].decode()}.wav")
        start = round(example["start"] * SAMPLE_RATE)
        np.testing.assert_array_equal(example["audio"][: len(samples) - start], samples[start:])
        assert not example["audio"][len(samples) - start :].any()


def test_normalised_takes_peak_at_one(tmp_path):
    make_take(tmp_path / "takes" / "one.wav", seconds=12.0)
    built = build(
        tmp_path / "takes",
        tmp_path / "data",
        sample_rate=SAMPLE_RATE,
        normalise=True,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    assert list(built.info.splits) == ["train"]
    assert max(np.abs(example["audio"]).max() for example in examples(built, "train")) == 1.0


def short_midi(path):
    write_midi(Voice(np.array([[0.0, 1.0, 60, 100]])), path)


BROKEN = {
    "a folder that is not there": (lambda folder: folder.rmdir(), "no such folder"),
    "an empty folder": (lambda folder: None, "neither recordings"),
    "a recording alone": (lambda folder: (folder / "take.mid").unlink(), r"take\.wav: no MIDI file"),
    "an annotation alone": (lambda folder: (folder / "take.wav").unlink(), r"take\.mid: no recording"),
    "two recordings of a name": (lambda folder: make_take(folder / "Take.flac", 20.0), "same name"),
    "an empty recording": (lambda folder: (folder / "take.wav").write_bytes(b""), r"take\.wav: "),
    "a damaged recording": (lambda folder: (folder / "take.wav").write_bytes(b"RIFF" * 50), r"take\.wav: "),
    "an empty annotation": (lambda folder: (folder / "take.mid").write_bytes(b""), r"take\.mid: is empty"),
    "text called MIDI": (lambda folder: (folder / "take.mid").write_text("C4 quarter"), r"take\.mid: is not"),
    "a cut annotation": (
        lambda folder: (folder / "take.mid").write_bytes((folder / "take.mid").read_bytes()[:60]),
        r"take\.mid: is cut short",
    ),
    "an annotation longer than the recording": (
        lambda folder: write_audio(folder / "take.wav", np.full(5 * SAMPLE_RATE, 0.1), SAMPLE_RATE),
        r"take\.mid: its last note ends at 18\.75 s, after the end of take\.wav \(5\.00 s\)",
    ),
    "chords": (
        lambda folder: write_midi(Voice(np.array([[0, 2.0, 60, 99], [0.5, 2.0, 64, 99]])), folder / "take.mid"),
        r"take\.mid: is polyphonic.* 0\.50 s",
    ),
    "silence": (
        lambda folder: write_audio(folder / "take.wav", np.zeros(20 * SAMPLE_RATE), SAMPLE_RATE),
        r"take\.wav: is silent",
    ),
    "too little": (lambda folder: short_midi(folder / "take.mid"), "too little playing"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_bad_takes_end_in_one_line_and_leave_nothing(tmp_path, what):
    break_it, message = BROKEN[what]
    folder = tmp_path / "takes"
    folder.mkdir()
    if "folder" not in what:
        make_take(folder / "take.wav", seconds=20.0)
    break_it(folder)
    with pytest.raises(DataError, match=message) as raised:
        build(folder, tmp_path / "data" / "sets", sample_rate=SAMPLE_RATE)
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["takes"] if folder.exists() else [])


def test_a_failed_build_leaves_others_alone(builder, tmp_path):
    make_take(tmp_path / "take.wav", seconds=20.0)
    (tmp_path / "take.mid").write_bytes(b"")
    root = pathlib.Path(builder.data_dir_root)
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError):
        build(tmp_path, root, sample_rate=SAMPLE_RATE)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_rate": 0},
        {"window_seconds": -1.0},
        {"hop_seconds": 5.0},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
        {"pitch_shifts": [1, 1]},
        {"pitch_shifts": [0]},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(DataError):
        MidiAudioConfig(name="impossible", **settings).check()


@pytest.mark.parametrize("config", ["takes", "pitch_shifted"])
def test_gin_says_what_is_built(folder, tmp_path, config):
    gin.parse_config_file(configs.find(f"datasets/{config}"))
    gin.bind_parameter("MidiAudioConfig.window_seconds", 0.0)
    try:
        with pytest.raises(DataError, match="must be above 0.$"):
            build(folder, tmp_path)
        gin.bind_parameter("MidiAudioConfig.window_seconds", 2.0)
        built = build(folder, tmp_path, sample_rate=4000)
    finally:
        gin.clear_config()
    assert built.info.features["audio"].shape == (8000,)
    assert built.builder_config.pitch_shifts == ((-2, -1, 1, 2) if config == "pitch_shifted" else ())


def test_built_data_set_is_not_taken_for_another(folder, tmp_path):
    config = MidiAudioConfig(name="mine", sample_rate=SAMPLE_RATE)
    MidiAudio(config=config, data_dir=tmp_path / "data").download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=folder)
    )
    make_take(tmp_path / "other" / "take.wav", seconds=20.0)
    with pytest.raises(DataError, match="built from other takes"):
        MidiAudio(config=config, data_dir=tmp_path / "data").download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "other")
        )


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("apache_beam", "mlcroissant")),
    reason="the tfds command of tensorflow-datasets 4.9.10 imports apache_beam and mlcroissant",
)
def test_tfds_build(folder, tmp_path):
    def tfds_build(source, *arguments):
        command = [sys.executable, "-m", "tensorflow_datasets.scripts.cli.main", "build", "data_prep/midi_audio"]
        command += [f"--manual_dir={source}", f"--data_dir={tmp_path / 'data'}", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    config = '{"name": "shifted", "sample_rate": 8000, "pitch_shifts": [-1, 1]}'
    done = tfds_build(folder, f"--config={config}")
    assert done.returncode == 0, done.stderr
    built = tfds.builder_from_directory(tmp_path / "data" / "midi_audio" / "shifted" / "1.0.0")
    assert {example["pitch_shift"] for example in examples(built, "train")} == {-1.0, 0.0, 1.0}

    (tmp_path / "empty").mkdir()
    failed = tfds_build(tmp_path / "empty")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert re.search(rf"{tmp_path / 'empty'}: has neither recordings", failed.stderr.splitlines()[-1])


def test_long_silences_are_skipped_and_short_ones_kept():
    notes = np.array([[1.0, 2, 60, 99], [3.5, 4, 60, 99], [20, 22, 60, 99]], np.float64)
    regions = windows.playing_regions(notes, 25 * 100, 100, tail=0.2, max_silence=2.0)
    np.testing.assert_array_equal(regions, [[100, 420], [2000, 2220]])
    starts = windows.window_starts(regions, 0, 2500, window=400, hop=100)
    assert starts == [100, 2000]
    assert windows.window_starts(regions, 0, 2100, window=400, hop=100) == [100, 1700]


region_lists = st.lists(st.integers(1, 400), max_size=12).map(
    lambda steps: np.cumsum(steps)[: len(steps) // 2 * 2].reshape([-1, 2])
)


@hypothesis.given(regions=region_lists, stretch=st.tuples(st.integers(0, 1500), st.integers(1, 1500)), data=st.data())
def test_windows_hold_playing_and_stay_in_their_stretch(regions, stretch, data):
    start, end = stretch[0], stretch[0] + stretch[1]
    window = data.draw(st.integers(1, 300))
    hop = data.draw(st.integers(1, window))
    starts = windows.window_starts(regions, start, end, window, hop)
    assert all(start <= at and (at + window <= end or at == start) for at in starts)
    assert all(later > earlier for earlier, later in zip(starts, starts[1:], strict=False))
    if hop == window:
        assert all(later - earlier >= window for earlier, later in zip(starts, starts[1:], strict=False))
    else:
        played = np.zeros(end + window, bool)
        covered = np.zeros(end + window, bool)
        for region_start, region_end in regions:
            played[max(region_start, start) : max(min(region_end, end), start)] = True
        for at in starts:
            covered[at : at + window] = True
        assert np.all(covered[played])  # Training leaves no playing out.


@hypothesis.given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    validation=st.sampled_from([0.0, 0.05, 0.3]),
    test=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_splits_take_all_the_time_once(lengths, validation, test):
    regions = [np.array([[0, length]]) for length in lengths]
    try:
        stretches = windows.split_stretches(lengths, regions, 100, {"validation": validation, "test": test})
    except DataError:
        assert sum(max(length // 100, 1) for length in lengths) < 3
        return
    assert list(stretches) == ["train", *["validation"] * (validation > 0), *["test"] * (test > 0)]
    assert all(stretches.values())
    used = [np.zeros(length, int) for length in lengths]
    for stretch in sum(stretches.values(), []):
        used[stretch.take][stretch.start : stretch.end] += 1
    assert all(np.all(each == 1) for each in used)


def test_held_out_time_is_spread_and_as_much_as_asked_for():
    lengths = [7200] * 10
    regions = [np.array([[0, 7200]])] * 10
    stretches = windows.split_stretches(lengths, regions, 400, {"validation": 0.05, "test": 0.1})
    for split, fraction in (("validation", 0.05), ("test", 0.1)):
        total = sum(each.end - each.start for each in stretches[split])
        assert total == pytest.approx(fraction * 72000, rel=0.2)  # Blocks are whole.
        assert len({each.take for each in stretches[split]}) >= 4
        assert len({each.start for each in stretches[split]}) >= 3
