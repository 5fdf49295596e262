"""The example clients against the exported model, behind a server that follows TensorFlow Serving's documentation."""

import json
import pathlib
import re
import runpy
import subprocess
import sys
import urllib.error
import urllib.request

import mido
import numpy as np
import pytest
import serving_harness
import soundfile
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

import neural_midi_synth as nms
from neural_midi_synth.exporting.versions import export
from neural_midi_synth.instrument.rendering import TAIL_SECONDS
from neural_midi_synth.midi.allocation import divide
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi
from neural_midi_synth.playing.stream import Stream

CLIENTS = pathlib.Path(__file__).parents[2] / "examples" / "serving"
PADDING = -1e9
# The graph's float32 differs by less than 1e-4 from what `render` plays, and 16 bits round by at most 2^-16, scaled by
# 32767 rather than 32768.
WAV_TOLERANCE = 1e-4 + 2**-15 + 2**-16


@pytest.fixture(scope="module")
def instrument(trained):
    return nms.load(trained.folder)


@pytest.fixture(scope="module")
def exported(instrument, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "exported"
    export(instrument, folder)
    return folder


@pytest.fixture(scope="module")
def served(exported):
    return serving_harness.Served(exported)


@pytest.fixture(scope="module")
def url(served):
    with serving_harness.rest_server(served) as url:
        yield url


@pytest.fixture
def riff(tmp_path):
    """Legato, a chord, a note struck again before it ends, the pedal, styles and bends, at times between the frames."""
    notes = [(0.013, 0.4, 40, 100), (0.37, 0.61, 47, 64), (0.703, 0.9, 40, 90), (0.703, 0.9, 52, 110)]
    notes += [(0.95, 1.2, 45, 90), (1.1, 1.4, 45, 100), (1.521, 1.6, 50, 80), (1.63, 1.7, 57, 80), (1.9, 2.0, 40, 70)]
    changes = [(0.0, 55, 20), (0.5, 55, 127), (0.7, 56, 127), (1.503, 64, 127), (1.801, 64, 0)]
    bends = [(0.1, 0.0), (0.21, 1.0), (0.45, -2.0), (0.6, 0.0)]
    path = tmp_path / "riff.mid"
    write_midi(Voice(np.array(notes), np.array(changes), np.array(bends)), path)
    return path


def ask(url, body):
    """Status and answer of a predict request."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{url}:predict", data) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def run_client(monkeypatch, name, *arguments):
    """Runs a client in this Python, which has TensorFlow awake."""
    monkeypatch.syspath_prepend(CLIENTS)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(CLIENTS / name), run_name="__main__")


def check_wav(path, instrument, expected):
    """The file is what was expected, as 16 bits, and is no silence."""
    audio, sample_rate = soundfile.read(path, dtype="float64")
    assert soundfile.info(path).subtype == "PCM_16"
    assert sample_rate == instrument.sample_rate
    assert np.abs(audio).max() > 0.01
    np.testing.assert_allclose(audio, expected[: len(audio)], rtol=0, atol=WAV_TOLERANCE)


def play(instrument, path, n_samples):
    return instrument.render(nms.read_midi(path), n_samples=n_samples)


def row(notes=((PADDING,) * 4,), changes=((PADDING,) * 3,), bends=((PADDING,) * 2,), n_samples=1600):
    return {"notes": notes, "control_changes": changes, "pitch_bends": bends, "n_samples": n_samples}


@pytest.mark.slow
def test_the_rest_client_plays_a_midi_file_with_python_and_mido_alone(instrument, exported, url, riff, tmp_path):
    wav = tmp_path / "rest.wav"
    command = [
        sys.executable,
        "-X",
        "importtime",
        CLIENTS / "rest_client.py",
        riff,
        wav,
        exported / "instrument.json",
        url,
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "mido" in imported
    assert not imported & {"numpy", "tensorflow", "neural_midi_synth"}

    n_samples = round((2.0 + TAIL_SECONDS) * instrument.sample_rate)
    assert soundfile.info(wav).frames == pytest.approx(n_samples, abs=instrument.sample_rate // 1000)
    check_wav(wav, instrument, play(instrument, riff, n_samples + instrument.sample_rate // 1000))


@pytest.mark.slow
def test_the_grpc_client_plays_what_is_longer_than_grpc_takes_unless_told(
    instrument, exported, served, tmp_path, monkeypatch
):
    # A note in the second minute, so that the answer is longer than 4 MiB.
    midi = tmp_path / "late.mid"
    write_midi(Voice(np.array([[0.05, 0.6, 45, 100], [65.0, 65.2, 50, 90]]), np.array([[0.0, 55, 90]])), midi)
    wav = tmp_path / "grpc.wav"
    with serving_harness.grpc_server(served) as address:
        run_client(monkeypatch, "grpc_client.py", midi, wav, exported / "instrument.json", address)
        with pytest.raises(SystemExit, match=r"Servable not found for request: Latest\(flute\)"):
            run_client(monkeypatch, "grpc_client.py", midi, wav, exported / "instrument.json", address, "flute")
    assert served.answers[-1] > 4 * 2**20
    assert soundfile.info(wav).frames >= 66 * instrument.sample_rate
    audio, _ = soundfile.read(wav)
    first = instrument.sample_rate
    np.testing.assert_allclose(audio[:first], play(instrument, midi, first), rtol=0, atol=WAV_TOLERANCE)


@pytest.mark.slow
def test_the_stream_client_plays_on_from_the_state_it_hands_back(
    instrument, exported, served, url, tmp_path, monkeypatch
):
    wav = tmp_path / "slide.wav"
    run_client(monkeypatch, "stream_client.py", wav, exported / "instrument.json", url)

    # The same control frames, as the client sent them, through the package's own stream.
    bodies = [json.loads(body) for body in served.requests[-4:]]
    stream = Stream(instrument, block_frames=instrument.frame_rate)
    channels = instrument.controls.channels
    blocks = [stream.block({channel: body["instances"][0][channel] for channel in channels}) for body in bodies]
    check_wav(wav, instrument, np.concatenate(blocks)[instrument.latency :])


def test_whole_numbers_of_a_state_come_through_json_undamaged(instrument, url):
    _, answer = ask(url, {"signature_name": "initial_state", "instances": [{"batch": 1}]})
    [state] = answer["predictions"]
    [counter] = [name for name in state if name.endswith("filtered_noise_sample")]
    state[counter] = 2**60 + 1  # A double would round it.
    frames = {channel: [[0.5]] for channel in instrument.controls.channels}
    status, answer = ask(url, {"signature_name": "stream", "instances": [{**frames, **state}]})
    assert status == 200
    assert answer["predictions"][0][counter] == 2**60 + 1 + instrument.hop


def test_rows_and_columns_say_the_same(url):
    notes = [[PADDING] * 4, [0.0, 0.05, 45, 100]]
    low, high = row(notes), row([notes[0], [0.02, 0.06, 57, 80]], n_samples=800)
    _, alone = ask(url, {"instances": [low]})
    status, both = ask(url, {"instances": [low, high]})
    assert (status, list(both)) == (200, ["predictions"])
    columns = {name: [low[name], high[name]] for name in low}
    status, by_column = ask(url, {"signature_name": "serving_default", "inputs": columns})
    assert (status, by_column) == (200, {"outputs": both["predictions"]})
    np.testing.assert_allclose(both["predictions"][0], alone["predictions"][0], rtol=0, atol=1e-4)
    assert np.shape(both["predictions"]) == (2, 1600)
    assert not np.any(both["predictions"][1][800:])


def test_requests_that_the_server_plays_as_one_batch_sound_as_they_do_alone(
    served, url, riff, exported, tmp_path, monkeypatch
):
    short = tmp_path / "short.mid"
    write_midi(Voice(np.array([[0.11, 0.3, 52, 70]]), pitch_bends=np.array([[0.05, 0.7]])), short)
    for midi in (riff, short):
        run_client(monkeypatch, "rest_client.py", midi, tmp_path / "out.wav", exported / "instrument.json", url)
    requests = []
    for body in served.requests[-2:]:
        signature, inputs = serving_harness.inputs_of_json(served, body)
        assert signature == "serving_default"
        requests.append(inputs)
    assert requests[0]["notes"].shape != requests[1]["notes"].shape
    together = served.run_together("serving_default", requests)
    for inputs, outputs in zip(requests, together):
        alone = served.run("serving_default", inputs)["audio"]
        np.testing.assert_allclose(outputs["audio"][:, : alone.shape[1]], alone, rtol=0, atol=1e-4)

    states = served.run_together("initial_state", [{"batch": np.array([1], np.int32)}] * 2)
    frames = {
        name: np.full([1, 2, 1], 0.5, np.float32)
        for name in json.loads((exported / "instrument.json").read_text())["channels"]
    }
    inputs = {**frames, **states[0]}
    for outputs in served.run_together("stream", [inputs, inputs]):
        np.testing.assert_allclose(outputs["audio"], served.run("stream", inputs)["audio"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "body, error",
    [
        ("{", "JSON Parse error"),
        ({"instances": []}, "not empty"),
        ({"instances": [row()], "inputs": {}}, "one of 'inputs' or 'instances'"),
        ({"instances": [row()], "signature_name": "sing"}, '"sing" not found'),
        ({"instances": [{"notes": [[0, 1, 40, 100]], "n_samples": 16}]}, "keys must be equal to"),
        ({"inputs": {"notes": [[[0, 1, 40, 100]]], "n_samples": [16]}}, "Missing named input"),
        ({"instances": [row(changes=[])]}, "control_changes"),
        ({"instances": [row([[0, 1, 40]])]}, "notes"),
        ({"instances": [row([[0, 1, 40, 100], [0, 1, 40]])]}, "unexpected size"),
        ({"instances": [row(), row([[0, 1, 40, 100], [1, 2, 40, 100]])]}, "Expecting shape"),
        ({"instances": [row([[-1000000000, 0, 0, 0]])]}, "without loss of precision"),
        ({"instances": [row([[{"b64": "AAAAAA=="}, 1, 40, 100]])]}, "not of expected type: float32"),
        ({"instances": [row(n_samples=1.5)]}, "not of expected type: int32"),
        ({"instances": [row(n_samples=-1)]}, "n_samples"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_as_the_server_says_it(url, body, error):
    status, answer = ask(url, body)
    assert (status, list(answer)) == (400, ["error"])
    assert error in answer["error"]


def test_rows_with_times_that_are_no_numbers_are_not_heard(url):
    # The documentation allows these words in place of numbers.
    notes = [[PADDING] * 4, [0.0, 0.05, 45, 100]]
    _, expected = ask(url, {"instances": [row([*notes, [PADDING] * 4, [PADDING] * 4])]})
    _, answer = ask(url, {"instances": [row([*notes, [float("nan"), 1, 50, 100], [0, float("inf"), 50, 100]])]})
    assert answer == expected


def test_a_client_tells_what_the_server_has_against_it(url, exported, riff, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"Servable not found for request: Latest\(flute\)"):
        run_client(
            monkeypatch,
            "rest_client.py",
            riff,
            tmp_path / "no.wav",
            exported / "instrument.json",
            url.replace("guitar", "flute"),
        )
    assert not (tmp_path / "no.wav").exists()


def test_the_clients_read_the_notes_that_the_package_reads(riff, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CLIENTS)
    read = runpy.run_path(str(CLIENTS / "midi_and_wav.py"))["read_midi"]
    rows, seconds = read(str(riff))
    notes = np.array(rows["notes"][1:])
    voices = divide(notes)
    for voice, expected in zip(voices, nms.read_midi(riff).voices, strict=True):
        np.testing.assert_allclose(voice, expected.notes, rtol=0, atol=1e-6)
    np.testing.assert_allclose(notes[-3:-1, 1], 1.801, rtol=0, atol=1e-3)  # Where the pedal goes up.
    assert len(voices) == 2

    endless = tmp_path / "endless.mid"
    track = [mido.Message("note_on", note=40), mido.MetaMessage("end_of_track", time=960)]
    mido.MidiFile(tracks=[mido.MidiTrack(track)], ticks_per_beat=480).save(endless)
    rows, seconds = read(str(endless))
    assert (rows["notes"][1:], seconds) == ([[0.0, 1.0, 40, 64]], 1.0)
    np.testing.assert_array_equal(nms.read_midi(endless).notes, rows["notes"][1:])


def test_a_midi_file_without_notes_is_a_second_of_rest(url, exported, tmp_path, monkeypatch):
    midi, wav = tmp_path / "rest.mid", tmp_path / "rest.wav"
    mido.MidiFile(tracks=[mido.MidiTrack()]).save(midi)
    run_client(monkeypatch, "rest_client.py", midi, wav, exported / "instrument.json", url)
    assert soundfile.info(wav).duration == 1.0


def test_the_request_of_the_readme_is_played(url):
    [body] = re.findall(r"-d '(.*?)'", (CLIENTS / "README.md").read_text(), re.DOTALL)
    status, answer = ask(url, body)
    assert status == 200
    assert np.shape(answer["predictions"]) == (1, 48000)
    assert np.abs(answer["predictions"]).max() > 0.01


def test_the_server_is_told_what_the_clients_ask_for(monkeypatch):
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((CLIENTS / "models.config").read_text(), config)
    [model] = config.model_config_list.config
    monkeypatch.syspath_prepend(CLIENTS)
    url = runpy.run_path(str(CLIENTS / "rest_client.py"))["URL"]
    assert url.endswith(f"/v1/models/{model.name}")
    assert (model.base_path, model.model_platform) == (f"/models/{model.name}", "tensorflow")
    assert f"exported:{model.base_path}:ro" in (CLIENTS / "README.md").read_text()


def test_the_batching_parameters_are_some_that_the_server_knows():
    # tensorflow_serving/servables/tensorflow/session_bundle_config.proto, which tensorflow-serving-api leaves out.
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", dependency=["google/protobuf/wrappers.proto"])
    message = file.message_type.add(name="BatchingParameters")
    wrapped = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(wrapped, start=1):
        message.field.add(name=name, number=number, type=11, label=1, type_name=".google.protobuf.Int64Value")
    message.field.add(name="pad_variable_length_inputs", number=7, type=8, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    parameters = message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
    text_format.Parse((CLIENTS / "batching.config").read_text(), parameters)
    assert parameters.pad_variable_length_inputs
    assert all(getattr(parameters, name).value > 0 for name in wrapped)
