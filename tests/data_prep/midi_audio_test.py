"""The data set: takes are paired or refused, held out before all else, and windowed to the sample."""

import errno
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import gin
import mido
import numpy as np
import pytest
import tensorflow as tf
from made_takes import SAMPLE_RATE, make_take

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

    from neural_midi_synth.data_prep import takes
    from neural_midi_synth.data_prep.midi_audio import MidiAudio, MidiAudioConfig, build
    from neural_midi_synth.data_prep.midi_audio.cutting import Cutter

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


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
    pieces = {take.name: read_midi(take.midi_path) for take in takes.find_takes(folder)}
    for split in ("train", "validation", "test"):
        for example in examples(builder, split):
            if example["pitch_shift"] != 0:
                continue
            (expected,) = pieces[example["take"].decode()].window(example["start"], example["start"] + 4.0).voices
            # float32 keeps 30 s to 2e-6 s.
            np.testing.assert_allclose(example["notes"], expected.notes, atol=4e-6)
            np.testing.assert_allclose(example["control_changes"], expected.control_changes, atol=4e-6)
            assert example["control_changes"][0, 0] <= 0  # The value in force at the start.
            assert example["pitch_bends"].shape == (0, 2)
            for name in ("note_voices", "control_change_voices", "pitch_bend_voices"):
                assert not example[name].any()


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


def built_on_beam(folder, builder, data_dir):
    """Builds a data set as `builder` is, on Beam's local runner."""
    from apache_beam.options.pipeline_options import PipelineOptions

    config = MidiAudioConfig(
        name="on_beam", source_dir=folder, sample_rate=SAMPLE_RATE, pitch_shifts=builder.builder_config.pitch_shifts
    )
    on_beam = MidiAudio(config=config, data_dir=data_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of Beam's own.
        options = PipelineOptions(["--direct_running_mode=in_memory"])
        on_beam.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=options))
    return on_beam


@pytest.mark.slow
def test_beam_makes_the_same_data_set(folder, builder, tmp_path):
    """The same examples in the same order, and the same fingerprint."""
    on_beam = built_on_beam(folder, builder, tmp_path)
    assert on_beam.info.metadata == builder.info.metadata
    for split in ("train", "validation", "test"):
        assert on_beam.info.splits[split].shard_lengths == builder.info.splits[split].shard_lengths
        ours, theirs = (sorted(pathlib.Path(each.data_dir).glob(f"*-{split}.tfrecord*")) for each in (builder, on_beam))
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs] != []


@pytest.mark.slow
def test_examples_that_beam_loses_are_missed(folder, builder, tmp_path, monkeypatch):
    whole = Cutter.examples

    def all_but_one(cutter, split, stretch, shift):
        for number, each in enumerate(whole(cutter, split, stretch, shift)):
            if (split, stretch.take, shift, number) != ("train", 1, -2.0, 0):
                yield each

    monkeypatch.setattr(Cutter, "examples", all_but_one)
    with pytest.raises(DataError, match=r"of \d+ examples for train have come from Beam's workers"):
        built_on_beam(folder, builder, tmp_path)
    assert not list(tmp_path.rglob("*.tfrecord*"))


def test_a_built_data_set_loads_by_name(builder):
    name = f"midi_audio/{builder.builder_config.name}"
    loaded = tfds.load(name, split="validation", data_dir=builder.data_dir_root, download=False)
    assert len(list(loaded)) == builder.info.splits["validation"].num_examples


def test_lowered_copies_keep_their_treble(tmp_path):
    """10 kHz are beyond what a data set at 16 kHz can hold, but an octave lower they are 5 kHz."""
    rate, seconds = 44100, 12.0
    notes = np.array([[start, start + 1.5, 60, 99] for start in np.arange(0.5, seconds - 2.0, 2.0)])
    make_take(tmp_path / "takes" / "one.wav", seconds, notes=notes)
    sound = 0.5 * np.sin(2 * np.pi * 10_000 * np.arange(round(seconds * rate)) / rate)
    write_audio(tmp_path / "takes" / "one.wav", sound, rate)
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=16000, pitch_shifts=[-12])
    found = set()
    for example in examples(built, "train"):
        spectrum = np.abs(np.fft.rfft(example["audio"] * np.hanning(64000))) / 16000  # A sine's peak is its amplitude.
        found.add(float(example["pitch_shift"]))
        if example["pitch_shift"] == 0:
            assert spectrum.max() < 1e-3
        else:
            assert np.argmax(spectrum) * 16000 / 64000 == pytest.approx(5_000, abs=1)
            assert spectrum.max() == pytest.approx(0.5, rel=0.05)
    assert found == {0.0, -12.0}


def test_a_take_shorter_than_a_window_tells_how_much_of_it_is_recorded(tmp_path):
    make_take(tmp_path / "takes" / "long.wav", seconds=20.0)
    make_take(tmp_path / "takes" / "short.wav", seconds=3.0, seed=1)
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, pitch_shifts=(-1, 1))
    assert built.info.metadata["shortest"] == 3 * SAMPLE_RATE
    for split in ("validation", "test"):  # What is compared is recorded from beginning to end.
        for example in examples(built, split):
            assert (example["take"], example["n_samples"]) == (b"long", 4 * SAMPLE_RATE)
    short = {example["pitch_shift"]: example for example in examples(built, "train") if example["take"] == b"short"}
    # Moved up it would be shorter still.
    assert {shift: each["n_samples"] for shift, each in short.items()} == {
        0.0: 3 * SAMPLE_RATE,
        -1.0: int(3 * SAMPLE_RATE * 2 ** (1 / 12)),
    }
    samples, _ = read_audio(tmp_path / "takes" / "short.wav")
    np.testing.assert_array_equal(short[0.0]["audio"][: 3 * SAMPLE_RATE], samples)
    assert all(
        example["n_samples"] == 4 * SAMPLE_RATE for example in examples(built, "train") if example["take"] == b"long"
    )


def test_where_all_takes_are_shorter_than_a_window_nothing_can_be_held_out(tmp_path):
    for i in range(3):
        make_take(tmp_path / "takes" / f"{i}.wav", seconds=3.0, seed=i)
    with pytest.raises(DataError, match="too little playing: it fills 0 windows"):
        build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE)
    nothing = {"validation_fraction": 0.0, "test_fraction": 0.0}
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, **nothing)
    assert sorted(example["n_samples"] for example in examples(built, "train")) == [3 * SAMPLE_RATE] * 3
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, window_seconds=2.0)
    assert list(built.info.splits) == ["train", "validation", "test"]


def string_wise(seconds=20.0):
    """Two strings, a MIDI channel each, of which the second begins late and is bent."""
    low = np.array([[start, start + 0.9, 40, 99] for start in np.arange(0.5, seconds - 1.0, 1.0)])
    high = np.array([[start, start + 0.4, 59, 77] for start in np.arange(6.25, seconds - 1.0, 0.5)])
    bend = np.array([[7.0, 1.0], [8.0, 0.0]])
    return Piece((Voice(low, np.array([[0.0, 55, 1]])), Voice(high, np.array([[0.0, 55, 2]]), bend)))


def test_each_row_of_a_piece_of_voices_has_its_voice(tmp_path):
    piece = string_wise()
    make_take(tmp_path / "takes" / "one.wav", 20.0, notes=piece.notes)
    write_midi(piece, tmp_path / "takes" / "one.mid")
    make_take(tmp_path / "takes" / "two.wav", 20.0)
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, voices=6, pitch_shifts=[1])
    assert built.info.metadata["voices"] == 2
    voices = {take.name: read_midi(take.midi_path) for take in takes.find_takes(tmp_path / "takes")}
    checked = 0
    for example in examples(built, "train"):
        if example["pitch_shift"] == 0:
            expected = voices[example["take"].decode()].window(example["start"], example["start"] + 4.0).voices
            for name, whose in (
                ("notes", "note_voices"),
                ("control_changes", "control_change_voices"),
                ("pitch_bends", "pitch_bend_voices"),
            ):
                assert np.all(np.diff(example[whose]) >= 0)
                assert set(example[whose]) <= set(range(len(expected)))
                for i, voice in enumerate(expected):
                    np.testing.assert_allclose(example[name][example[whose] == i], getattr(voice, name), atol=4e-6)
                    checked += len(getattr(voice, name)) > 0 and i > 0
        elif example["take"] == b"one":
            assert set(example["notes"][example["note_voices"] == 0, 2]) == {41}
            assert set(example["notes"][example["note_voices"] == 1, 2]) <= {60}
    assert checked > 10


def test_windows_are_laid_over_the_notes_of_all_voices(tmp_path):
    low, high = string_wise(40.0).voices
    low = Voice(low.notes[low.notes[:, 0] < 10.0])
    high = Voice(high.notes[high.notes[:, 0] > 25.0])
    piece = Piece((low, high))
    make_take(tmp_path / "takes" / "one.wav", 40.0, notes=piece.notes)
    write_midi(piece, tmp_path / "takes" / "one.mid")
    nothing = {"validation_fraction": 0.0, "test_fraction": 0.0}
    built = build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, voices=2, **nothing)
    starts = np.array([example["start"] for example in examples(built, "train")])
    assert (starts < 9).sum() > 5 and (starts > 24).sum() > 5
    assert not ((starts > 11) & (starts < 20)).any()  # The silence between.


@pytest.mark.parametrize(("voices", "message"), [(1, "is polyphonic"), (2, "is of more than 2 voices")])
def test_more_voices_than_are_trained_on_are_refused(tmp_path, voices, message):
    chord = np.array([[1.0, 9.0, pitch, 99] for pitch in (40, 52, 64)[: voices + 1]])
    make_take(tmp_path / "takes" / "one.wav", 20.0, notes=chord)
    with pytest.raises(DataError, match=message) as raised:
        build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, voices=voices)
    assert str(raised.value).startswith(str(tmp_path / "takes" / "one.mid"))


def test_one_track_of_several_is_chosen(tmp_path):
    make_take(tmp_path / "takes" / "one.wav", 20.0)
    midi = mido.MidiFile(tmp_path / "takes" / "one.mid")
    guitar, strings = (mido.Message("program_change", program=n, channel=c) for n, c in ((27, 0), (90, 1)))
    lead = mido.MidiTrack([mido.MetaMessage("track_name", name="Lead"), guitar, *midi.tracks[0]])
    pad = mido.MidiTrack([mido.MetaMessage("track_name", name="Pad"), strings])
    pad += [mido.Message("note_on", note=80, channel=1), mido.Message("note_off", note=80, channel=1, time=5000)]
    mido.MidiFile(type=1, ticks_per_beat=midi.ticks_per_beat, tracks=[lead, pad]).save(tmp_path / "takes" / "one.mid")
    with pytest.raises(DataError, match="has several instruments"):
        build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE)
    chosen = [
        build(tmp_path / "takes", tmp_path / "data", sample_rate=SAMPLE_RATE, **choice)
        for choice in ({"track": "Lead"}, {"track": "1"}, {"midi_channel": 1})
    ]
    for built in chosen:
        assert max(example["notes"][:, 2].max() for example in examples(built, "train")) < 70
    assert chosen[0].data_dir != chosen[2].data_dir


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
        {"voices": 0},
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


@pytest.mark.parametrize("in_tensorflow", [True, False])
def test_a_disk_that_is_full_is_told_in_a_sentence(folder, tmp_path, monkeypatch, in_tensorflow):
    def write(self, record):
        if in_tensorflow:
            raise tf.errors.ResourceExhaustedError(None, None, "takes.tfrecord; No space left on device")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", write)
    with pytest.raises(DataError, match=r"can't be written \(No space left on device\)\. Make room there"):
        build(folder, tmp_path)


def test_what_is_wrong_besides_the_disk_is_not_told_as_its_fault(folder, tmp_path, monkeypatch):
    def write(self, record):
        raise RuntimeError("something else")

    monkeypatch.setattr(tf.io.TFRecordWriter, "write", write)
    with pytest.raises(RuntimeError, match="something else"):
        build(folder, tmp_path)


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
    built = tfds.builder_from_directory(tmp_path / "data" / "midi_audio" / "shifted" / "2.0.0")
    assert {example["pitch_shift"] for example in examples(built, "train")} == {-1.0, 0.0, 1.0}

    (tmp_path / "empty").mkdir()
    failed = tfds_build(tmp_path / "empty")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert re.search(rf"{tmp_path / 'empty'}: has neither recordings", failed.stderr.splitlines()[-1])
