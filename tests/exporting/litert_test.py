"""The LiteRT model plays what the instrument plays, with nothing but LiteRT, and stays in phase with it."""

import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import litert, litert_steps
from neural_midi_synth.exporting.litert_convolution import PartitionedConvolution
from neural_midi_synth.instrument.controls import COLUMNS
from neural_midi_synth.instrument.loading import build, configure, load
from neural_midi_synth.instrument.noise import FilteredNoise
from neural_midi_synth.playing.stream import Stream

# The promise: what float16 weights cost, of full scale.
PROMISED = 1e-3
N_FRAMES = 1000
SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.FilteredNoise.initial_bias = -1.0",
    "nms.Reverb.reverb_length = 3001",
]


@gin.configurable
class Hiss(FilteredNoise):
    """A processor of one's own, of which the conversion knows nothing."""


# What a program without TensorFlow does: of the rows of a piece, those that matter to a block go in, and numbers come
# out.
PLAY = """
import sys
sys.modules["tensorflow"] = None  # Importing it fails.
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model, rows, played = sys.argv[1:]
runner = Interpreter(model_path=model, num_threads=1).get_signature_runner("stream")
piece = dict(np.load(rows))
rate, block_frames, n_frames = (int(piece.pop(name)) for name in ("frame_rate", "block_frames", "n_frames"))
of_pitches = slice(*piece.pop("of_pitches"))
inputs = runner.get_input_details()
state = {name: np.zeros(of["shape"], of["dtype"]) for name, of in inputs.items() if name not in piece}

def matter(rows, first):
    # By frame: the last at or before the frame before the block, and those in it.
    frames = np.floor(rows[:, 0] * rate + 0.5)
    begin = max(np.searchsorted(frames, first - 1, side="right") - 1, 0)
    rows = rows[begin : np.searchsorted(frames, first + block_frames)].copy()
    rows[:, 0] -= first / rate
    if rows.shape[1] == 4:
        rows[:, 1] -= first / rate
    return rows

def block(first):
    for name, voices in piece.items():
        filled = np.full(inputs[name]["shape"], -1e9, np.float32)
        for row, voice in zip(filled, voices):
            kinds = voice[:, 1] if name == "control_changes" else np.zeros(len(voice))
            for found in (matter(voice[kinds == kind], first) for kind in np.unique(kinds)):
                row[(row[:, 0] <= -1e9).argmax() :][: len(found)] = found
        yield name, filled

audio, pitches = [], []
for first in range(0, n_frames, block_frames):
    state = runner(**dict(block(first)), **state)
    audio.append(state.pop("audio")[0])
    pitches.append(state["state_float32"][of_pitches])
np.savez(played, audio=np.concatenate(audio), pitches=np.stack(pitches, axis=1), **state)
"""


def _rows(built, voices=1):
    """Quick notes with vibrato and styles that wander: float64 `[voices, n, columns]` by name."""
    random, seconds = np.random.default_rng(0), N_FRAMES / built.frame_rate
    starts = np.arange(0.0, seconds, 0.23)
    pitches = random.integers(30, 90, [voices, len(starts)])
    ends, velocities = starts + 0.2, 30.0 + 90.0 * (starts % 1)
    notes = np.stack([np.stack([starts, ends, pitch, velocities], axis=1) for pitch in pitches])
    times = np.arange(0.0, seconds, 0.011)
    # As a pitch wheel of 2 semitones bends: such bends lose nothing as float32.
    wheel = np.round(4096 * np.where(times < seconds / 2, np.sin(5 * times), 0.37))
    bends = np.stack([times, wheel / 4096], axis=1)
    changes = np.stack([times, np.where(np.arange(len(times)) % 2, 55, 56), 64 + 60 * np.sin(times)], axis=1)
    rows = {"notes": notes, "control_changes": changes, "pitch_bends": bends}
    return {name: np.broadcast_to(value, [voices, *value.shape[-2:]]) for name, value in rows.items()}


def _expected(built, rows, n_frames=N_FRAMES):
    """What the instrument plays, the state it ends in, and the control frames."""
    voices = len(rows["notes"])
    frames = built.controls(**{name: tf.constant(value) for name, value in rows.items()}, n_frames=n_frames)
    outputs, state = tf.function(built.step)(frames, built.initial_state(1, voices), voices)
    return (built.level * outputs["out"]["signal"][0]).numpy(), state, frames


def _played(folder, built, model, rows, block_frames, n_frames=N_FRAMES):
    """What the model plays in a Python without TensorFlow."""
    (folder / "stream.tflite").write_bytes(model)
    places = litert.packing(built, block_frames, len(rows["notes"])).places
    _, *of_pitches = places["state_processor_group_harmonic_f0_hz"]
    facts = {"frame_rate": built.frame_rate, "block_frames": block_frames, "n_frames": n_frames}
    np.savez(folder / "rows.npz", **rows, **facts, of_pitches=of_pitches)
    names = (folder / name for name in ("stream.tflite", "rows.npz", "played.npz"))
    answer = subprocess.run([sys.executable, "-c", PLAY, *map(str, names)], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    played = dict(np.load(folder / "played.npz"))
    return played | {name: played[f"state_{of.name}"][begin:end] for name, (of, begin, end) in places.items()}


def _loud(model, *bindings):
    """A small instrument with random weights that can be heard, stiff strings and a room that rings."""
    tf.random.set_seed(0)
    configure([configs.find(f"models/{model}.gin")], [*SMALL, *bindings], skip_unknown=True)
    built = build()
    if built.strings is not None:
        built.strings.coefficients.assign(np.full(128, 2e-4, np.float32))
    if built.tuning is not None:
        built.tuning.semitones.assign(0.1 * np.sin(np.arange(128, dtype=np.float32)))
    reverb = built.processor_group.reverb
    length = reverb._ir.shape[0]
    reverb._ir.assign(0.05 * np.random.default_rng(0).normal(size=length) * np.exp(-np.arange(length) / 300.0))
    return built


def _check(built, block_frames, folder, model=None, voices=1):
    """That the model is the instrument; returns what both play."""
    rows = _rows(built, voices)
    expected, state, frames = _expected(built, rows)
    played = _played(folder, built, model or litert.convert(built, block_frames, voices), rows, block_frames)
    np.testing.assert_allclose(played["audio"], expected, rtol=0.0, atol=PROMISED)
    for name, of in state["processor_group"].items():
        if "phase" in of:
            # Of 2³² steps a cycle, after 1000 hops: after ten minutes the 100th harmonic is 1e-5 cycles off.
            apart = played[f"state_processor_group_{name}_phase"].astype(np.int64) - of["phase"].numpy()
            assert (np.abs((apart + 2**31) % 2**32 - 2**31) <= 2).all()
        if "sample" in of:
            np.testing.assert_array_equal(played[f"state_processor_group_{name}_sample"], [len(expected)] * voices)
    if built.decoder.stride == 1:
        sounding = frames["f0_midi"] if built.tuning is None else built.tuning(frames["f0_midi"])
        last = sounding.numpy()[:, block_frames - 1 :: block_frames, 0].astype(np.float64)
        np.testing.assert_array_equal(played["pitches"], (440.0 * 2.0 ** ((last - 69.0) / 12.0)).astype(np.float32))
    return expected, played["audio"]


@pytest.fixture(scope="module")
def loud():
    return _loud("guitar_live")


@pytest.fixture(scope="module")
def of_four(loud):
    """Its model for blocks of four frames."""
    return litert.convert(loud, 4)


def test_a_trained_instrument_plays_in_litert_alone(trained, tmp_path):
    expected, _ = _check(load(trained.folder), 1, tmp_path)
    assert np.abs(expected).max() > 0.01  # Silence would prove nothing.


@pytest.mark.slow
def test_blocks_of_another_size_are_the_same(loud, of_four, tmp_path):
    for folder in ("one", "four"):
        (tmp_path / folder).mkdir()
    expected, one = _check(loud, 1, tmp_path / "one")
    _, four = _check(loud, 4, tmp_path / "four", of_four)
    assert np.abs(expected).max() > 0.1
    # Matrix products of another shape add up in another order; at full scale that is well below 1e-5.
    np.testing.assert_allclose(four, one, rtol=0.0, atol=1e-5)


def test_six_voices_play_each_with_its_own_noise(loud, tmp_path):
    expected, _ = _check(loud, 4, tmp_path, voices=6)
    assert np.abs(expected).max() > 0.1
    state = loud.initial_state(1, 6)
    noise = state["processor_group"]["filtered_noise"]
    assert noise["sample"].numpy().max() > 2**31  # More than an int32 holds.
    # It is loud enough for a voice with the noise of other samples to be noticed.
    noise["sample"] += [0, 0, 0, 0, 0, 1]
    _, _, frames = _expected(loud, _rows(loud, 6))
    outputs, _ = tf.function(loud.step)(frames, state, 6)
    assert np.abs(loud.level * outputs["out"]["signal"][0] - expected).max() > 10 * PROMISED


def test_a_room_is_left_out_where_it_is_too_soft_to_be_heard(loud, tmp_path):
    built = _loud("guitar_live")
    for variable, of_loud in zip(built.variables, loud.variables):
        variable.assign(of_loud)
    length = built.processor_group.reverb._ir.shape[0]
    softer = np.where(np.arange(length) < 600, 1.0, 1e-6)
    built.processor_group.reverb._ir.assign(loud.processor_group.reverb._ir * softer)
    whole, *_ = _expected(built, _rows(built))
    built.processor_group.reverb.leave_out_the_inaudible()
    model = litert.convert(built, 1)
    assert len(model) < len(litert.convert(loud, 1)) - 4 * 1500  # 1500 and more numbers of the response are missing.
    expected, _ = _check(built, 1, tmp_path, model)
    np.testing.assert_allclose(expected, whole, rtol=0.0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


@pytest.mark.slow
def test_each_voice_may_have_a_room_of_its_own(tmp_path):
    voices = (
        "nms.ProcessorGroup.voices = [(@harmonic/nms.Harmonic(), ['amplitudes', 'harmonic_distribution', 'f0_hz']),"
        " (@nms.FilteredNoise(), ['magnitudes']), (@dry/Add(), ['harmonic/signal', 'filtered_noise/signal']),"
        " (@nms.Reverb(), ['dry/signal'])]"
    )
    expected, _ = _check(_loud("guitar_live", voices, "nms.ProcessorGroup.bus = []"), 2, tmp_path, voices=2)
    assert np.abs(expected).max() > 0.1


@pytest.mark.slow
def test_the_lineage_plays_too(tmp_path):
    """A stride, one MLP for each channel, a state that does not begin with zeros, a fixed response."""
    expected, _ = _check(_loud("lineage", "nms.Harmonic.amp_resample_method = 'linear'"), 8, tmp_path)
    assert np.abs(expected).max() > 0.1


@pytest.mark.slow
def test_a_hop_that_is_no_power_of_two(tmp_path):
    expected, _ = _check(_loud("guitar"), 1, tmp_path)
    assert np.abs(expected).max() > 0.1


def test_only_builtin_operators_and_half_weights():
    guitar = load()
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(litert.convert(guitar, 4)))
    assert all(code.builtinCode != schema.BuiltinOperator.CUSTOM for code in model.operatorCodes)
    (graph,) = model.subgraphs
    used = {model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators}
    assert schema.BuiltinOperator.STRIDED_SLICE not in used  # It copies number by number.
    sizes = {schema.TensorType.FLOAT16: [], schema.TensorType.FLOAT32: []}
    for tensor in graph.tensors:
        if tensor.type in sizes and tensor.buffer and model.buffers[tensor.buffer].data is not None:
            sizes[tensor.type].append(int(np.prod(tensor.shape)))
    weights = {variable.shape.num_elements() for variable in guitar.decoder.trainable_variables}
    spectra = litert_steps.initial_state(guitar, 4, 1)["processor_group"]["reverb"]["latest"]
    room = [spectra.shape.num_elements() // 2] * 2  # Real and imaginary parts.
    halves = sizes[schema.TensorType.FLOAT16]
    assert {size for size in halves if size >= 16384} == {size for size in [*weights, *room] if size >= 16384}
    biases = {variable.shape[-1] for variable in guitar.decoder.trainable_variables}
    assert {size for size in halves if size < 16384} <= biases
    assert sum(halves) > 0.9 * (sum(weights) + sum(room))
    assert max(sizes[schema.TensorType.FLOAT32]) < 16384


@pytest.mark.parametrize(
    "n_samples, size",
    [(768, 21239), (64, 3000), (96, 96), (96, 97), (7, 5), (1, 4), (1920, 2)],
)
def test_a_long_response_is_convolved_block_by_block(n_samples, size):
    random = np.random.default_rng(0)
    response, signal = random.normal(size=size), random.normal(size=[2, 5 * n_samples]).astype(np.float32)
    convolution = PartitionedConvolution(response, n_samples)
    latest, blocks = tf.zeros([2, *convolution.shape]), []
    for block in np.split(signal, 5, axis=1):
        sound, latest = convolution(tf.constant(block), latest)
        blocks.append(sound)
    expected = np.stack([np.convolve(each.astype(np.float64), response)[: signal.shape[1]] for each in signal])
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), expected, rtol=0.0, atol=1e-6 * np.abs(expected).max())


def test_rows_are_read_as_those_of_the_saved_model(loud, of_four, tmp_path):
    """Values are clipped to their ranges; notes that do not last and rows that are no numbers are left out."""
    nothing = {name: np.zeros([1, 0, columns]) for name, columns in COLUMNS.items()}
    tame = {**nothing, "notes": np.array([[[0.0, 0.1, 127.0, 127.0]]])}
    wild = [[-0.3, 0.2, np.nan, 100.0], [0.0, 0.0, 60.0, 100.0], [0.0, 0.1, 300.0, 900.0]]
    wild = {**nothing, "notes": np.array([wild]), "control_changes": np.array([[[0.0, 55.0, -50.0]]])}
    expected, *_ = _expected(loud, tame, 24)
    assert np.abs(expected).max() > 0.01
    played = _played(tmp_path, loud, of_four, wild, 4, 24)
    np.testing.assert_allclose(played["audio"], expected, rtol=0.0, atol=PROMISED)


@pytest.fixture(scope="module")
def in_threes(loud):
    """Its model for three voices and blocks of four frames."""
    return litert.convert(loud, 4, 3)


def _happens(random):
    """Some events of a player who hurries."""
    happens = [
        ("note_on", (float(random.integers(40, 60)), 100.0)),
        ("note_off", (float(random.integers(40, 60)),)),
        ("control_change", (int(random.choice([55, 56, 64])), float(random.integers(0, 128)))),
        ("pitch_bend", (random.integers(-4096, 4096) / 4096,)),
    ]
    return happens[random.integers(0, 4) :]


def test_a_stream_plays_with_a_model_what_it_plays_without(loud, in_threes):
    """Live, from more notes than voices, bends, styles and the pedal: each voice is heard from its first note on."""
    streams = Stream(loud, 4, voices=3), Stream(loud, 4, 3, in_threes)
    random, loudest = np.random.default_rng(0), 0.0
    for first in range(0, 800, 4):
        frame = first + float(random.integers(0, 4)) + 0.25
        happens = _happens(random)
        for stream in streams:
            for what, values in happens:
                getattr(stream, what)(*values, frame=frame)
            if first == 400:
                stream.panic()  # Noise goes on where it was.
        expected, played = (stream.block() for stream in streams)
        np.testing.assert_allclose(played, expected, rtol=0.0, atol=PROMISED)
        loudest = max(loudest, np.abs(expected).max())
    assert loudest > 0.1
    for stream in streams:
        stream.reset()
    np.testing.assert_allclose(streams[1].block(), streams[0].block(), rtol=0.0, atol=PROMISED)


def test_more_events_than_a_model_has_room_for_play_the_last_of_each_frame(loud, in_threes):
    streams = Stream(loud, 4, voices=3), Stream(loud, 4, 3, in_threes)
    random, loudest = np.random.default_rng(0), 0.0
    for first in range(0, 200, 4):
        for place in range(40):
            happens = [
                ("control_change", (55, float(random.integers(0, 128)))),
                ("control_change", (56, float(random.integers(0, 128)))),
                ("pitch_bend", (random.integers(-4096, 4096) / 4096,)),
                ("note_on", (float(random.integers(40, 60)), 100.0)),
            ]
            for what, values in happens if place % 13 == 0 else happens[:3]:
                for stream in streams:
                    getattr(stream, what)(*values, frame=first + place / 10)
        expected, played = (stream.block() for stream in streams)
        np.testing.assert_allclose(played, expected, rtol=0.0, atol=PROMISED)
        loudest = max(loudest, np.abs(expected).max())
    assert loudest > 0.1


def test_a_stream_takes_a_model_for_its_blocks_and_voices_only(loud, in_threes):
    with pytest.raises(ValueError, match="for 3 voices and blocks of 4 frames, not for 6 and 4"):
        Stream(loud, 4, 6, in_threes)
    frames = {channel: np.zeros(4) for channel in loud.controls.channels}
    with pytest.raises(DataError, match="Make a Stream without one"):
        Stream(loud, 4, 3, in_threes).block(frames)


def test_what_cannot_be_converted_is_told(loud):
    with pytest.raises(ValueError, match="multiple of 1"):
        litert.convert(loud, 0)
    with pytest.raises(DataError, match="up to 10 control frames, not 11"):
        litert.convert(loud, 11)
    with pytest.raises(ValueError, match="voices is 0"):
        litert.convert(loud, 1, voices=0)
    hiss = ["Hiss.hop = %HOP", "Hiss.n_bands = 65", "nms.ProcessorGroup.voices = [(@Hiss(), ['magnitudes'])]"]
    configure([configs.find("models/guitar_live.gin")], [*SMALL, *hiss, "nms.ProcessorGroup.bus = []"])
    with pytest.raises(DataError, match="'filtered_noise' \\(Hiss\\) cannot be converted"):
        litert.convert(build(), 1)
