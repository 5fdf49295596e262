"""Each export is a version of its own, whole or absent, and tells what it is."""

import json
import math
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import saved_model, versions
from neural_midi_synth.exporting.facts import INSTRUMENT_NAME, instrument_facts
from neural_midi_synth.exporting.versions import TFLITE_NAME, export
from neural_midi_synth.instrument.controls import PADDING, frame_of
from neural_midi_synth.instrument.loading import CONFIG_NAME, PRETRAINED, VERDICT_NAME, keep_verdict, kept_verdict


@pytest.fixture(scope="module")
def instrument(trained):
    return nms.load(trained.folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_the_command_exports_version_after_version(trained, run_command, instrument, tmp_path):
    folder = tmp_path / "exported"
    answer = run_command("export", "--instrument", trained.folder, "--output", folder)
    assert (answer.status, answer.output.strip()) == (0, str(folder / "1")), answer.error
    assert answer.error == ""
    assert names(folder) == ["1", INSTRUMENT_NAME]
    first = (folder / "1" / "saved_model.pb").read_bytes()
    (folder / "7").mkdir()
    (folder / "notes").mkdir()

    assert export(instrument, folder, tflite=True, block_frames=2, voices=2) == folder / "8"
    assert names(folder) == ["1", "7", "8", INSTRUMENT_NAME, "notes", TFLITE_NAME]
    assert (folder / "1" / "saved_model.pb").read_bytes() == first
    facts = {version: json.loads((folder / version / "assets.extra" / INSTRUMENT_NAME).read_text()) for version in "18"}
    newest = json.loads((folder / INSTRUMENT_NAME).read_text())
    assert newest == facts["8"]
    assert newest["tflite"] == {"file": TFLITE_NAME, "block_frames": 2, "voices": 2}
    assert facts["1"]["version"] == 1 and "tflite" not in facts["1"]
    config = (folder / "1" / "assets.extra" / CONFIG_NAME).read_text()
    assert config == (trained.folder / CONFIG_NAME).read_text()
    for version in "18":
        signatures = tf.saved_model.load(str(folder / version)).signatures
        assert sorted(signatures) == sorted(newest["signatures"])


def test_the_facts_are_those_of_the_instrument(trained, instrument):
    facts = json.loads(json.dumps(instrument_facts(instrument, trained.folder), allow_nan=False))
    assert (facts["sample_rate"], facts["hop"], facts["frame_rate"]) == (16000, 128, 125)
    assert (facts["latency"], facts["stride"], facts["live"]) == (instrument.latency, 1, False)
    assert tuple(facts["channels"]) == instrument.controls.channels
    for channel in facts["channels"].values():
        assert channel["minimum"] <= channel["default"] <= channel["maximum"]
        assert channel["meaning"]
    assert facts["styles"] == {"openness": 55, "power_chord": 56}
    assert facts["defaults"] == {"openness": 0.0, "power_chord": 0.0}
    assert facts["padding"] == PADDING
    assert facts["voices"] == saved_model.MAX_VOICES
    assert facts["packages"]["tensorflow"] == tf.__version__
    assert facts["trained_on"]["takes"] == ["one", "two"]
    assert {"pitch", "velocity", "styles"} < set(facts["trained_on"])
    assert "folder" not in facts["trained_on"]
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(trained.folder / "best")))
    training = facts["training"]
    assert training["checkpoint"] == "best"
    assert 0 < training["steps"] <= 40
    assert training["minutes"] > 0
    np.testing.assert_allclose(training["validation_loss"], reader.get_tensor("best/.ATTRIBUTES/VARIABLE_VALUE"), 1e-3)


def test_the_verdict_is_told_until_the_instrument_is_trained_on(own_instrument, instrument):
    folder = own_instrument
    assert "verdict" not in instrument_facts(instrument, folder)
    verdict = {"verdict": "near", "message": "Near: attacks are blurred.", "faults": {"rise": 3.6}}
    keep_verdict(folder, verdict)
    assert instrument_facts(instrument, folder)["verdict"] == verdict
    shutil.rmtree(folder / "best")  # Then the last checkpoint is loaded, which was not evaluated.
    assert kept_verdict(folder) == {}
    (folder / VERDICT_NAME).write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="damaged. Delete it, or evaluate again"):
        kept_verdict(folder)


def test_the_frame_of_an_event_is_told_as_the_featurizer_computes_it(instrument):
    formula = instrument_facts(instrument)["event_frame"]
    for frame_rate in (125, 250):
        for seconds in np.arange(0.0, 2.0, 0.0005).tolist():
            names = {"floor": math.floor, "seconds": seconds, "frame_rate": frame_rate}
            assert eval(formula, names) == frame_of(seconds, frame_rate)


def test_an_instrument_that_tells_nothing_of_its_training_is_exported_without(instrument):
    facts = instrument_facts(instrument)
    assert not {"training", "trained_on"} & set(facts)
    assert instrument_facts(instrument, PRETRAINED)["training"]["checkpoint"] == "best"


def test_what_cannot_be_exported_leaves_nothing_behind(trained, run_command, instrument, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    folder = tmp_path / "exported"
    for arguments, status, words in (
        (("--instrument", trained.folder, "--output", taken), 1, "not a folder"),
        (("--instrument", tmp_path, "--output", folder), 1, "no instrument here"),
        (("--instrument", trained.folder), 2, "output"),
        (("--instrument", trained.folder, "--output", folder, "--block_frames", 4), 2, "--tflite"),
        (("--instrument", trained.folder, "--output", folder, "--voices", 6), 2, "--tflite"),
        (("--instrument", trained.folder, "--output", folder, "--tflite", "--voices", 0), 2, "voices"),
    ):
        answer = run_command("export", *arguments)
        assert answer.status == status
        assert words in answer.error
        assert answer.error.count("\n") == 1
    configured = instrument.decoder
    monkeypatch.setattr(configured, "stride", 4)
    with pytest.raises(DataError, match="needs a multiple of 4"):
        export(instrument, folder, tflite=True, block_frames=6)
    assert names(tmp_path) == ["taken"]


@pytest.mark.slow
def test_a_full_disk_ends_an_export_in_one_line(instrument, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # No file may be longer: the weights are.
    try:
        with pytest.raises(DataError, match="can't be written"):
            export(instrument, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_a_number_that_another_export_takes_first_is_left_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "exported"
    made = folder / ".made"
    (made / "assets.extra").mkdir(parents=True)
    (made / "saved_model.pb").write_text("mine")

    def dumps(*arguments, **options):  # Between the look at the numbers and the rename.
        if not (folder / "1").exists():
            (folder / "1").mkdir()
            (folder / "1" / "saved_model.pb").write_text("theirs")
        return "{}"

    monkeypatch.setattr(versions.json, "dumps", dumps)
    assert versions._place(made, folder, {}) == folder / "2"
    assert [(folder / version / "saved_model.pb").read_text() for version in "12"] == ["theirs", "mine"]
