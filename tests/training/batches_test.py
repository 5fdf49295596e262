"""Batches depend on seed and step alone, have what their clips have, and hold nothing else in memory."""

import itertools
import json
import pathlib
import shutil
import struct
import warnings

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.instrument.controls import PADDING
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import write_midi
from neural_midi_synth.training import batches as batches_lib
from neural_midi_synth.training.batches import check_clips, held_out_batches, training_batches

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

    from neural_midi_synth.data_prep import midi_audio

SAMPLE_RATE = 8000
WINDOW = 8000


def noise(seconds, seed):
    """A recording no stretch of which is like another."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


def melody(first, last, pitch, step=0.5, value=0.0):
    """Notes of one voice, and a control change that holds throughout."""
    starts = np.arange(first, last, step)
    notes = np.stack([starts, starts + 0.8 * step, pitch + np.arange(len(starts)) % 5, 60 + np.arange(len(starts))], 1)
    return Voice(notes, np.array([[0.0, 55, value]]))


def build(folder, pieces, **settings):
    """Builds a data set of takes: name → (seconds of recording, piece)."""
    for i, (name, (seconds, piece)) in enumerate(pieces.items()):
        folder.mkdir(parents=True, exist_ok=True)
        write_audio(folder / f"{name}.wav", noise(seconds, i), SAMPLE_RATE)
        write_midi(piece, folder / f"{name}.mid")
    settings = {"align": "off", "velocities": "annotated", **settings}  # No note is to be heard in noise.
    return midi_audio.build(
        folder, folder / "data", sample_rate=SAMPLE_RATE, window_seconds=1.0, hop_seconds=0.5, **settings
    )


@pytest.fixture(scope="module")
def one_voice(tmp_path_factory):
    pieces = {"a": (12.0, melody(0.1, 11.0, 40)), "b": (8.0, melody(0.3, 7.0, 50, step=0.3))}
    return build(tmp_path_factory.mktemp("one_voice") / "takes", pieces)


@pytest.fixture(scope="module")
def three_voices(tmp_path_factory):
    """A take of three strings, of which the highest is silent for a while, and one of two."""
    low, middle, high = melody(0.1, 11.0, 40), melody(0.2, 11.0, 50, 0.3, 64), melody(6.0, 11.0, 60, 0.2, 127)
    pieces = {"a": (12.0, Piece((low, middle, high))), "b": (8.0, Piece((melody(0.1, 7.0, 45), melody(0.4, 7.0, 55))))}
    return build(tmp_path_factory.mktemp("three_voices") / "takes", pieces, voices=6)


def examples(builder, split="train"):
    return list(tfds.as_numpy(builder.as_dataset(split)))


@pytest.mark.parametrize("first_step", [1, 12, 40])
@pytest.mark.parametrize("which", ["one_voice", "three_voices"])
def test_a_batch_is_the_same_wherever_the_run_began(which, first_step, request):
    builder = request.getfixturevalue(which)
    per_epoch = builder.info.splits["train"].num_examples / 2
    assert 12 < per_epoch < 16  # Just before an epoch's end, and beyond it.
    from_start, from_step = (training_batches(builder, 2, WINDOW // 2, seed=3, first_step=n) for n in (0, first_step))
    for one, two in itertools.islice(zip(from_start.skip(first_step), from_step), 5):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_an_epoch_has_every_example_once_in_an_order_of_its_own(one_voice):
    n_examples = one_voice.info.splits["train"].num_examples
    clips = training_batches(one_voice, 1, WINDOW, seed=0, first_step=0)  # Whole windows.
    sounds = [clip["audio"].numpy().tobytes() for clip in clips.take(2 * n_examples)]
    first, second = sounds[:n_examples], sounds[n_examples:]
    assert set(first) == set(second) == {example["audio"].tobytes() for example in examples(one_voice)}
    assert len(set(first)) == n_examples
    assert first != second


def test_another_seed_gives_other_batches(one_voice):
    one, two = (next(iter(training_batches(one_voice, 4, WINDOW // 2, seed, first_step=0))) for seed in (0, 1))
    assert not np.array_equal(one["audio"], two["audio"])
    assert not np.array_equal(one["first_sample"], two["first_sample"])


def test_a_clip_has_the_sound_and_the_events_of_its_place(one_voice):
    n_samples = WINDOW // 2
    windows = examples(one_voice)
    begins = set()
    for clip in itertools.islice(training_batches(one_voice, 1, n_samples, seed=0, first_step=0), 8):
        audio, notes = clip["audio"][0].numpy(), clip["notes"][0].numpy()
        # Windows overlap, so the same sound is in two of them, with other notes around it.
        places = [
            (window["notes"], begin)
            for window in windows
            for begin in np.flatnonzero(window["audio"][: n_samples + 1] == audio[0])
            if np.array_equal(window["audio"][begin : begin + n_samples], audio)
        ]
        moved = [expected - [begin / SAMPLE_RATE, begin / SAMPLE_RATE, 0, 0] for expected, begin in places]
        # Times of a window are below 2 s here, where float32 keeps 1e-7 s.
        assert any(each.shape == notes.shape and np.allclose(each, notes, rtol=0, atol=1e-6) for each in moved)
        begins.update(begin for _, begin in places)
    assert len(begins) > 4


def test_batches_of_one_voice_have_no_dimension_for_voices(one_voice):
    for batches in (
        training_batches(one_voice, 2, WINDOW // 2, seed=0, first_step=0),
        held_out_batches(one_voice, "validation", 2),
    ):
        for name, columns in (("notes", 4), ("control_changes", 3), ("pitch_bends", 2)):
            assert batches.element_spec[name].shape[1:].as_list() == [None, columns]


def test_each_voice_has_its_events(three_voices):
    n_examples = three_voices.info.splits["train"].num_examples
    of_sound = {example["audio"].tobytes(): example for example in examples(three_voices)}
    batches = training_batches(three_voices, 2, WINDOW, seed=0, first_step=0)  # Whole windows.
    assert batches.element_spec["notes"].shape.as_list() == [2, 3, None, 4]
    assert batches.element_spec["control_changes"].shape.as_list() == [2, 3, None, 3]
    assert batches.element_spec["pitch_bends"].shape.as_list() == [2, 3, None, 2]
    seen = set()
    for batch in batches.take(n_examples // 2).as_numpy_iterator():
        for i in range(2):
            example = of_sound[batch["audio"][i].tobytes()]
            for name, whose in (("notes", "note_voices"), ("control_changes", "control_change_voices")):
                for voice in range(3):
                    rows = batch[name][i, voice]
                    is_row = rows[:, 0] > PADDING
                    np.testing.assert_array_equal(rows[is_row], example[name][example[whose] == voice])
                    assert np.all(rows[~is_row] == PADDING)
                    seen.add((name, voice, bool(is_row.any())))
    # The highest string is silent in some windows, but never without a control change in its take.
    assert {("notes", 2, True), ("notes", 2, False), ("control_changes", 2, True)} <= seen


def test_what_is_held_out_comes_whole_and_in_order(three_voices):
    batches = list(held_out_batches(three_voices, "validation", 2).as_numpy_iterator())
    expected = examples(three_voices, "validation")
    np.testing.assert_array_equal(
        np.concatenate([batch["audio"] for batch in batches]), [each["audio"] for each in expected]
    )
    assert all(batch["notes"].shape[1] == 3 for batch in batches)
    assert held_out_batches(three_voices, "no such split", 2) is None


def test_no_batches_are_tuned(one_voice):
    """TensorFlow's tuner sleeps for up to a minute, and an iterator may wait for it when it is thrown away."""
    for batches in (training_batches(one_voice, 2, 400, 0, 0), held_out_batches(one_voice, "validation", 2)):
        assert batches.options().autotune.enabled is False


def test_clips_are_cut_from_what_is_recorded(tmp_path):
    """A take of 0.7 s in windows of 1 s: what follows it is not silence, but unknown."""
    builder = build(tmp_path / "takes", {"a": (8.0, melody(0.1, 7.0, 40)), "b": (0.7, melody(0.05, 0.6, 50, 0.2))})
    assert builder.info.metadata["shortest"] == round(0.7 * SAMPLE_RATE)
    (short,) = (example for example in examples(builder) if example["take"] == b"b")
    assert not short["audio"][short["n_samples"] :].any()
    n_samples = SAMPLE_RATE // 2
    n_examples = builder.info.splits["train"].num_examples
    clips = training_batches(builder, 1, n_samples, seed=0, first_step=0)
    from_short = 0
    for clip in clips.take(20 * n_examples):
        audio = clip["audio"].numpy()[0]
        assert audio[-100:].any()  # Noise has no hundred zeros.
        from_short += clip["notes"].numpy()[0, 0, 2] >= 50
    assert from_short == 20


@pytest.mark.parametrize(
    ("clip_samples", "sample_rate", "message"),
    [
        (4000, 16000, "is at 8000 Hz, the instrument at 16000 Hz. Build it anew."),
        (8001, 8000, "but the windows of the data set are 1 s long. Lower it, or raise MidiAudioConfig.window_seconds"),
        (5601, 8000, "but the shortest take of the data set lasts 0.70 s. Lower it, or take out takes that short."),
    ],
)
def test_clips_that_cannot_be_cut_are_told(tmp_path, clip_samples, sample_rate, message):
    builder = build(tmp_path / "takes", {"a": (8.0, melody(0.1, 7.0, 40)), "b": (0.7, melody(0.05, 0.6, 50, 0.2))})
    check_clips(builder, 5600, 8000)
    with pytest.raises(DataError) as raised:
        check_clips(builder, clip_samples, sample_rate)
    assert message in str(raised.value)


def test_only_the_examples_of_a_batch_are_read(one_voice, tmp_path):
    """Every other record is damaged, which whoever reads it finds out."""
    folder = pathlib.Path(shutil.copytree(one_voice.data_dir, tmp_path / "1.0.0"))
    expected = next(iter(training_batches(one_voice, 2, WINDOW, seed=0, first_step=7)))
    wanted = {sound.tobytes() for sound in expected["audio"].numpy()}
    (path,) = folder.glob("*-train.tfrecord*")
    content = bytearray(path.read_bytes())
    offset = n_damaged = 0
    while offset < len(content):
        (length,) = struct.unpack_from("<Q", content, offset)
        record = bytes(content[offset + 12 : offset + 12 + length])
        if one_voice.info.features.deserialize_example_np(record)["audio"].tobytes() not in wanted:
            content[offset + 12 + length // 2] ^= 255
            n_damaged += 1
        offset += 12 + length + 4
    path.write_bytes(content)
    assert n_damaged == one_voice.info.splits["train"].num_examples - 2
    damaged = tfds.builder_from_directory(folder)
    batch = next(iter(training_batches(damaged, 2, WINDOW, seed=0, first_step=7)))
    np.testing.assert_array_equal(batch["audio"], expected["audio"])
    with pytest.raises(tf.errors.DataLossError):
        next(iter(training_batches(damaged, 2, WINDOW, seed=0, first_step=8)))


@pytest.mark.parametrize("name", ["midi_audio/never_built", "midi_audio/default", "never_heard_of", "mnist"])
def test_a_data_set_that_is_not_built_is_told(tmp_path, name):
    with pytest.raises(DataError, match=f"^{name}: no such data set is built"):
        batches_lib.built_data_set(name, tmp_path)


def test_a_built_data_set_is_found_by_its_name_and_by_its_folder(one_voice):
    folder = pathlib.Path(one_voice.data_dir)
    name = "/".join(folder.relative_to(one_voice.data_dir_root).parts[:2])
    for given in (name, str(folder)):
        found = batches_lib.built_data_set(given, one_voice.data_dir_root)
        assert found.info.splits["train"].num_examples > 0


def test_a_data_set_of_an_earlier_version_is_told(one_voice, tmp_path):
    folder = pathlib.Path(shutil.copytree(one_voice.data_dir, tmp_path / "1.0.0"))
    for path in (folder / "features.json", folder / "dataset_info.json"):
        facts = json.loads(path.read_text())
        if "version" in facts:
            facts["version"] = "1.0.0"
        for name in ("n_samples", "note_voices", "control_change_voices", "pitch_bend_voices"):
            facts.get("featuresDict", {}).get("features", {}).pop(name, None)
        path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"was built by an earlier version \(1.0.0\). Build it anew"):
        batches_lib.built_data_set(str(folder), None)
