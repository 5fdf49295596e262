"""What a run leaves: an instrument, what it was trained on, and a log; however it was distributed."""

import json
import signal
import socket
import warnings

import numpy as np
import pytest
import tensorflow as tf
from made_runs import STEPS, TINY_GIN, assert_same_state, builder_of, configure_tiny, state, step
from tensorflow.core.util import event_pb2

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.files.locks import LOCK_NAME
from neural_midi_synth.instrument.loading import CONFIG_NAME, build, configure
from neural_midi_synth.midi.pieces import Piece
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi
from neural_midi_synth.training.batches import held_out_batches
from neural_midi_synth.training.loop import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    from neural_midi_synth.data_prep import midi_audio

IN_FOLDER = sorted([LOCK_NAME, "best", "data_set.json", "last", "logs", CONFIG_NAME])


def test_what_cannot_be_trained_on_leaves_no_folder(trained, tmp_path):
    folder = tmp_path / "instrument"
    for binding, examples, message in (
        ("nms.train.clip_seconds = 1.5", None, "train.clip_seconds is 1.5, but the windows of the data set are 1 s"),
        ("nms.train.clip_seconds = -1", None, "train.clip_seconds is -1"),
        ("nms.train.batch_size = 0", None, "train.batch_size is 0. Make it a whole number from 1."),
        ("nms.train.steps = 4", tmp_path / "none", "none: no such folder. Give a folder of MIDI files"),
    ):
        builder = configure_tiny(trained, binding)
        with pytest.raises(DataError, match=message):
            train(builder, folder, examples)
        assert not folder.exists()


@pytest.mark.slow
def test_an_instrument_is_trained_on_voices(write_take, tmp_path):
    """A take of two strings, whose sound is the sum of two takes, and one of a single string."""
    samples, voices = [], []
    for i in range(2):
        write_take(tmp_path / f"{i}.wav", seconds=8.0, seed=i)
        samples.append(read_audio(tmp_path / f"{i}.wav")[0])
        voices += read_midi(tmp_path / f"{i}.mid").voices
    takes = tmp_path / "takes"
    write_take(takes / "one.wav", seconds=8.0, seed=3)
    write_audio(takes / "two.wav", sum(samples), 16000)
    write_midi(Piece(tuple(voices)), takes / "two.mid")
    configure([TINY_GIN], ["MidiAudioConfig.voices = 6", "nms.train.steps = 16"])
    builder = midi_audio.build(takes, tmp_path / "data")
    assert builder.info.metadata["voices"] == 2
    losses = []
    watch = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append((epoch, logs["val_loss"])))
    train(builder, tmp_path / "instrument", callbacks=[watch])
    assert [epoch for epoch, _ in losses] == [0, 1]
    assert losses[1][1] < losses[0][1] < np.inf
    facts = json.loads((tmp_path / "instrument" / "data_set.json").read_text())
    pitches = np.concatenate([voice.notes[:, 2] for voice in voices])
    assert facts["pitch"]["minimum"] <= pitches.min() and facts["pitch"]["maximum"] >= pitches.max()
    played = nms.load(tmp_path / "instrument").render(takes / "two.mid")
    assert np.isfinite(played).all() and played.any()


@pytest.mark.slow
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


def test_the_validation_loss_weighs_examples_alike(trained):
    """Whatever the batches: here the last one has one example of 36, where the others have seven."""
    builder = configure_tiny(trained)
    n_examples = builder.info.splits["train"].num_examples
    assert n_examples % 7 == 1
    instrument = build()
    instrument.compile()
    losses = [instrument.evaluate(held_out_batches(builder, "train", n), verbose=0) for n in (7, n_examples)]
    # float32 adds in another order. A mean over batches would be nearer to the last example by an eighth.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_instrument_tells_what_it_was_trained_on(trained):
    facts = json.loads((trained.folder / "data_set.json").read_text())
    assert facts["takes"] == ["one", "two"]
    assert facts["inspection"] == builder_of(trained).info.metadata["inspection"]
    assert facts["inspection"]["verdict"] in ("good", "usable")
    assert f"{facts['inspection']['verdict'].capitalize()}: {facts['inspection']['message']}" in trained.answer.output
    assert not facts["inspection"]["ignored"]
    pieces = [nms.read_midi(trained.takes / f"{take}.mid") for take in facts["takes"]]
    # Some notes are held out.
    for name, column in (("pitch", 2), ("velocity", 3)):
        played = np.concatenate([piece.notes[:, column] for piece in pieces])
        low, high = facts[name]["minimum"], facts[name]["maximum"]
        assert played.min() <= low < high <= played.max()
        assert {low, high} <= set(played)
    assert facts["styles"] == {
        "openness": {"minimum": 0.0, "maximum": 127.0, "values": [0.0, 127.0]},
        "power_chord": {"minimum": 0.0, "maximum": 127.0, "values": [0.0, 127.0]},
    }


def test_best_and_last_are_kept_and_the_configuration_alone_rebuilds_the_instrument(trained):
    assert step(trained.folder, "last") == STEPS
    assert 0 < step(trained.folder, "best") <= STEPS
    assert sorted(path.name for path in trained.folder.iterdir()) == IN_FOLDER
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


WORKER_GONE = (
    "another worker has ended, and none can go on without it. Start the same command on all of them again; they go on "
    "from the last checkpoint."
)


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_train_what_one_would(trained, short_run, start_command, tmp_path):
    folder = tmp_path / "instrument"

    def start():
        cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
        return [
            start_command(
                "train",
                *(*trained.arguments, "--save_dir", folder, *SHORT),
                *("--gin_param", "nms.train.steps_per_epoch = 1", "--strategy", "multi_worker"),
                TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            )
            for index in (0, 1)
        ]

    chief, other = start()
    chief.wait_for(folder / "last" / "checkpoint")
    other.send(signal.SIGKILL)
    assert other.answer().status == -signal.SIGKILL
    left = chief.answer()
    assert left.status == 1
    assert left.error.endswith(f": {WORKER_GONE}\n")
    assert "Traceback" not in left.error
    reached = step(folder)
    assert 0 < reached < 4
    answers = [worker.answer() for worker in start()]
    assert [answer.status for answer in answers] == [0, 0], answers
    assert f"Going on from step {reached}, " in answers[0].output
    assert sorted(path.name for path in folder.iterdir()) == IN_FOLDER
    alone, together = state(short_run), state(folder)
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        # Sums over the batch are made in another order, and Adam's first steps are as long for a small gradient as for
        # a large one: 4 steps of at most 1e-3 * 4 / 50.
        np.testing.assert_allclose(together[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert np.isfinite(nms.load(folder).render(trained.takes / "examples" / "riff.mid")).all()
