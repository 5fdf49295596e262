"""A run that was stopped ends where one left alone ends, whatever stopped it; and what a run leaves is whole."""

import itertools
import json
import pathlib
import re
import shutil
import signal
import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow.core.util import event_pb2

import neural_midi_synth as nms
from neural_midi_synth.training import loop as training
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.loading import CONFIG_NAME

SAMPLE_RATE = 16000
STEPS = 40


def state(folder, name="last"):
    """Every variable of a checkpoint but those that count time and savings, and the sums of an epoch's losses."""
    reader = tf.train.load_checkpoint(str(folder / name))
    counters = ("seconds/", "save_counter/", "best/", "instrument/_loss/", "_CHECKPOINTABLE_OBJECT_GRAPH")
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if not key.startswith(counters)}


def step(folder, name="last"):
    return int(re.search(r"\d+$", tf.train.latest_checkpoint(str(folder / name)))[0])


def assert_same_state(folder, other):
    """The same operations in the same order on the same machine: not a bit may differ."""
    one, two = state(folder), state(other)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def builder_of(trained):
    return tfds.builder_from_directory(json.loads((trained.folder / "data_set.json").read_text())["folder"])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_one_left_alone(trained, start_command, tmp_path):
    folder = tmp_path / "instrument"
    killed = start_command("train", *trained.arguments, "--save_dir", folder)
    killed.wait_for(folder / "last" / "checkpoint")
    killed.send(signal.SIGKILL)
    assert killed.answer().status == -signal.SIGKILL
    reached = step(folder)
    assert 0 < reached < step(trained.folder) == STEPS
    again = start_command("train", *trained.arguments, "--save_dir", folder).answer()
    assert again.status == 0, again.error
    assert f"Going on from step {reached}, " in again.output
    assert_same_state(folder, trained.folder)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(trained, start_command, run_command, tmp_path):
    folder = tmp_path / "instrument"
    stopped = start_command("train", *trained.arguments, "--save_dir", folder)
    stopped.wait_for(folder / "last" / "checkpoint")
    stopped.send(signal.SIGINT)
    answer = stopped.answer()
    assert answer.status == 130, answer.error
    assert f"Stopped at step {step(folder)}; the same command goes on from there." in answer.output
    assert answer.error.splitlines()[-1].endswith(": stopped")
    assert "Traceback" not in answer.error
    assert step(folder) < STEPS
    again = run_command("train", *trained.arguments, "--save_dir", folder)
    assert again.status == 0, again.error
    assert_same_state(folder, trained.folder)
    nothing = run_command("train", *trained.arguments, "--save_dir", folder)
    assert nothing.status == 0
    assert "Nothing left to do: give more --steps" in nothing.output


def copy_of(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "instrument")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(trained, run_command, tmp_path):
    folder = copy_of(trained, tmp_path)
    more = ("--steps", "60", "--gin_param", "nms.train.learning_rate = 1e30")
    answer = run_command("train", *trained.arguments, "--save_dir", folder, *more)
    assert answer.status == 1
    assert answer.error.splitlines()[-1].startswith(f"nms_train: {folder}: the loss is not a number any more at step ")
    assert "Traceback" not in answer.error
    assert_same_state(folder, trained.folder)


def test_a_run_by_the_clock_stops_in_time_for_good(trained, run_command, tmp_path):
    folder = tmp_path / "instrument"
    arguments = (*trained.arguments, "--save_dir", folder, "--max_minutes", "0.02")
    answer = run_command("train", *arguments)
    assert answer.status == 0, answer.error
    # Making the graph alone takes longer than that, and the step begun is finished.
    assert step(folder) == 1
    assert tf.train.load_checkpoint(str(folder / "last")).get_tensor("seconds/.ATTRIBUTES/VARIABLE_VALUE") >= 1.2
    again = run_command("train", *arguments)
    assert again.status == 0
    assert "Going on from step 1, " in again.output
    assert "Nothing left to do" in again.output
    assert step(folder) == 1


def test_where_nothing_is_held_out_the_training_loss_chooses_the_best(trained, run_command, tmp_path):
    folder = tmp_path / "instrument"
    nothing = ("MidiAudioConfig.validation_fraction = 0.0", "MidiAudioConfig.test_fraction = 0.0")
    params = [word for param in nothing for word in ("--gin_param", param)]
    places = ("--save_dir", folder, "--data_dir", tmp_path / "data")
    answer = run_command("train", *trained.arguments, *places, "--steps", "2", *params)
    assert answer.status == 0, answer.error
    assert step(folder, "best") == step(folder, "last") == 2
    answer = run_command("evaluate", "--instrument", folder, "--output", tmp_path / "report")
    assert answer.status == 1
    assert answer.error.endswith("the test split is empty. Give recordings with --midi_dir.\n")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("first_step", [1, 17, 40])
def test_a_batch_is_the_same_wherever_the_run_began(trained, first_step):
    builder = builder_of(trained)
    per_epoch = builder.info.splits["train"].num_examples / 2
    assert first_step == 1 or first_step > per_epoch - 4  # Beyond an epoch's end, and just before one.
    batches = [
        training.training_batches(builder, 2, SAMPLE_RATE // 2, SAMPLE_RATE, seed=3, first_step=first)
        for first in (0, first_step)
    ]
    for one, two in itertools.islice(zip(batches[0].skip(first_step), batches[1]), 5):
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


def test_an_epoch_has_every_example_once_in_an_order_of_its_own(trained):
    builder = builder_of(trained)
    n_examples = builder.info.splits["train"].num_examples
    clips = training.training_batches(builder, 1, SAMPLE_RATE, SAMPLE_RATE, seed=0, first_step=0)  # Whole windows.
    sounds = [clip["audio"].numpy().tobytes() for clip in clips.take(2 * n_examples)]
    first, second = sounds[:n_examples], sounds[n_examples:]
    assert set(first) == set(second)
    assert len(set(first)) == n_examples
    assert first != second


def test_a_clip_has_the_sound_and_the_events_of_its_place(trained):
    builder = builder_of(trained)
    n_samples = SAMPLE_RATE // 2
    windows = list(tfds.as_numpy(builder.as_dataset("train")))
    clips = training.training_batches(builder, 1, n_samples, SAMPLE_RATE, seed=0, first_step=0)
    for clip in itertools.islice(clips.as_numpy_iterator(), 8):
        audio, notes = clip["audio"][0], clip["notes"][0]
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


def test_the_instrument_tells_what_it_was_trained_on(trained):
    facts = json.loads((trained.folder / "data_set.json").read_text())
    assert facts["takes"] == ["one", "two"]
    voices = [nms.read_midi(trained.takes / f"{take}.mid") for take in facts["takes"]]
    # Some notes are held out.
    for name, column in (("pitch", 2), ("velocity", 3)):
        played = np.concatenate([voice.notes[:, column] for voice in voices])
        low, high = facts[name]["minimum"], facts[name]["maximum"]
        assert played.min() <= low < high <= played.max()
        assert {low, high} <= set(played)
    assert facts["styles"] == {
        "openness": {"minimum": 0.0, "maximum": 127.0, "values": [0.0, 127.0]},
        "power_chord": {"minimum": 0.0, "maximum": 0.0, "values": [0.0]},
    }


def test_best_and_last_are_kept_and_the_configuration_alone_rebuilds_the_instrument(trained):
    assert step(trained.folder, "last") == STEPS
    assert 0 < step(trained.folder, "best") <= STEPS
    assert sorted(path.name for path in trained.folder.iterdir()) == [
        "best",
        "data_set.json",
        "last",
        "logs",
        CONFIG_NAME,
    ]
    config = (trained.folder / CONFIG_NAME).read_text()
    assert "include" not in config
    saved = state(trained.folder)
    instrument = nms.load(trained.folder, "last")
    assert len(instrument.variables) > 10
    for variable in instrument.trainable_variables:
        assert any(np.array_equal(variable, value) for value in saved.values()), variable.name


def test_tensorboard_gets_numbers_sounds_and_pictures(trained):
    found = {}
    for path in (trained.folder / "logs").iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                found.setdefault((value.tag, value.metadata.plugin_data.plugin_name), []).append(event.step)
    for name in ("loss", "val_loss", "gradient_norm", "learning_rate", "minutes"):
        assert found[name, "scalars"] == [8, 16, 24, 32, 40]
    for plugin in ("audio", "images"):
        assert sorted(set(found["riff", plugin])) == [16, 32, 40]


# Batches larger than the validation split, so that the second of two workers has nothing of it.
SHORT = ("--steps", "4", "--gin_param", "nms.train.batch_size = 4")


@pytest.fixture(scope="module")
def short_run(trained, tmp_path_factory, start_command):
    """Four steps on one device."""
    assert builder_of(trained).info.splits["validation"].num_examples == 2
    folder = tmp_path_factory.mktemp("short") / "instrument"
    answer = start_command("train", *trained.arguments, "--save_dir", folder, *SHORT).answer()
    assert answer.status == 0, answer.error
    return folder


@pytest.mark.slow
def test_a_mirrored_run_on_one_device_is_as_without(trained, short_run, run_command, tmp_path):
    folder = tmp_path / "instrument"
    answer = run_command("train", *trained.arguments, "--save_dir", folder, *SHORT, "--strategy", "mirrored")
    assert answer.status == 0, answer.error
    assert_same_state(folder, short_run)


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
def test_two_workers_train_what_one_would(trained, short_run, start_command, tmp_path):
    folder = tmp_path / "instrument"
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    workers = [
        start_command(
            "train",
            *trained.arguments,
            *("--save_dir", folder, *SHORT, "--strategy", "multi_worker"),
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index in (0, 1)
    ]
    answers = [worker.answer() for worker in workers]
    assert [answer.status for answer in answers] == [0, 0], answers
    assert sorted(path.name for path in folder.iterdir()) == ["best", "data_set.json", "last", "logs", CONFIG_NAME]
    alone, together = state(short_run), state(folder)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        # Sums over the batch are made in another order, and Adam's first steps are as long for a small gradient as for
        # a large one: 4 steps of at most 1e-3 * 4 / 50.
        np.testing.assert_allclose(together[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert np.isfinite(nms.load(folder).render(trained.takes / "examples" / "riff.mid")).all()


@pytest.mark.parametrize("name", ["midi_audio/never_built", "midi_audio/default", "never_heard_of", "mnist"])
def test_a_data_set_that_is_not_built_is_told(tmp_path, name):
    with pytest.raises(DataError, match=f"^{name}: no such data set is built"):
        training.built_data_set(name, tmp_path)


def test_a_built_data_set_is_found_by_its_name_and_by_its_folder(trained):
    folder = pathlib.Path(builder_of(trained).data_dir)
    name = "/".join(folder.relative_to(trained.data_dir).parts[:2])
    for given in (name, str(folder)):
        assert training.built_data_set(given, trained.data_dir).info.splits["train"].num_examples > 0


def test_schedules_rise_hold_and_fall():
    cosine = [training.cosine_decay(step, step / 1000) for step in range(1001)]
    assert cosine[0] == 1 / 50
    assert cosine[49:301] == [1.0] * 252
    assert cosine[650] == pytest.approx((1.0 + 0.01) / 2)
    assert cosine[1000] == pytest.approx(0.01)
    assert training.exponential_decay(9_999, 0.0) == 1.0
    assert training.exponential_decay(20_000, 0.5) == pytest.approx(0.98**2)
