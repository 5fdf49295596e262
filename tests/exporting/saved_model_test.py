"""A SavedModel plays what its instrument plays, where there is TensorFlow alone, and has an answer to everything."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import neural_midi_synth as nms
from neural_midi_synth.exporting import saved_model
from neural_midi_synth.exporting.channels import channel_facts
from neural_midi_synth.exporting.facts import describe
from neural_midi_synth.instrument.controls import COLUMNS, PADDING
from neural_midi_synth.instrument.loading import build, configure
from neural_midi_synth.instrument.recurrent import flat_state
from neural_midi_synth.instrument.rendering import score_of
from neural_midi_synth.midi.allocation import divide
from neural_midi_synth.midi.pieces import Piece, Voice

CLIENT = pathlib.Path(__file__).with_name("plain_tensorflow.py")
TINY_GIN = pathlib.Path(__file__).resolve().parents[1] / "tiny_instrument.gin"
SAMPLE_RATE, HOP, FRAME_RATE = 16000, 128, 125
N_FRAMES = 5 * FRAME_RATE
SIGNATURES = ["control_frames", "initial_state", "serving_default", "stream"]

# Starts between two frames, which float32 blurs; bends and styles that change within notes.
STARTS = np.arange(0.05, 5.0, 0.35)
LONG = Voice(
    np.stack([STARTS, STARTS + 0.3, 40 + np.arange(len(STARTS)), 60 + 4 * np.arange(len(STARTS))], axis=1),
    np.array([[0.0, 55, 0], [1.1, 55, 127], [2.002, 55, 30]]),
    np.array([[0.1, 0.5], [2.3, -1.25], [3.0, 0.0]]),
)
SHORT = Voice(np.array([[0.0, 0.4, 45, 100], [0.398, 1.1, 52, 60]]), np.array([[0.2, 56, 127]]))
N_SAMPLES = (5 * SAMPLE_RATE + 17, 2 * SAMPLE_RATE)
# A chord, a note struck again while it lasts, legato above a bass, and what rings on alone.
CHORDS = Voice(
    np.array(
        [
            (0.1, 0.9, 40, 100),
            (0.1, 0.6, 47, 90),
            (0.12, 0.6, 52, 80),
            (0.5, 1.4, 40, 70),
            (0.95, 1.25, 55, 90),
            (1.2, 1.5, 57, 90),
        ]
    ),
    np.array([[0.0, 55, 100], [0.7, 56, 127]]),
    np.array([[0.3, 1.0], [1.0, 0.0]]),
)


def request(*voices, n_samples):
    """What `serving_default` takes: voices as rows of a batch, each with a row of padding at the front."""
    inputs = {"n_samples": np.array(n_samples, np.int32)}
    for name, n_columns in COLUMNS.items():
        rows = [np.asarray(getattr(voice, name), np.float32).reshape(-1, n_columns) for voice in voices]
        longest = max(map(len, rows))
        inputs[name] = np.stack(
            [
                np.concatenate([np.full([1 + longest - len(each), n_columns], PADDING, np.float32), each])
                for each in rows
            ]
        )
    return inputs


def tensors(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


@pytest.fixture(scope="module")
def instrument(trained):
    return nms.load(trained.folder)


@pytest.fixture(scope="module")
def folder(instrument, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    saved_model.save(instrument, folder)
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def clips(instrument):
    """What the instrument plays."""
    return [instrument.render(voice, n_samples=n) for voice, n in zip((LONG, SHORT), N_SAMPLES)]


@pytest.fixture(scope="module")
def frames(instrument):
    """The control frames of both voices: five seconds."""
    each = [
        instrument.controls(**score_of(instrument, Piece((voice,)), {}).rows(0, 10**6), n_frames=N_FRAMES)
        for voice in (LONG, SHORT)
    ]
    return {name: np.concatenate([of[name].numpy() for of in each]) for name in each[0]}


@pytest.mark.slow
def test_plain_tensorflow_plays_what_the_instrument_plays(folder, clips, frames, tmp_path):
    asked = {f"serving_default/{name}": value for name, value in request(LONG, SHORT, n_samples=N_SAMPLES).items()}
    asked |= {f"{signature}/{name}": value for name, value in frames.items() for signature in SIGNATURES[::3]}
    np.savez(tmp_path / "requests.npz", **asked, **{"stream/block_frames": 25})
    command = [sys.executable, str(CLIENT), str(folder), str(tmp_path / "requests.npz"), str(tmp_path / "answers.npz")]
    variables = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert "custom gradient" not in answer.stderr
    answers = np.load(tmp_path / "answers.npz")
    long, short = clips
    assert min(long.std(), short.std()) > 1e-4

    played = answers["serving_default"]
    assert (played.dtype, played.shape) == (np.float32, (2, N_SAMPLES[0]))
    np.testing.assert_allclose(played[0], long, rtol=0, atol=1e-4)
    np.testing.assert_allclose(played[1, : N_SAMPLES[1]], short, rtol=0, atol=1e-4)
    assert not played[1, N_SAMPLES[1] :].any()

    # The samples after the last frame are played with the frame held, so they are another music.
    drawn = answers["control_frames"]
    assert drawn.shape == (2, N_FRAMES * HOP)
    np.testing.assert_allclose(drawn[0, : (N_FRAMES - 1) * HOP], long[: (N_FRAMES - 1) * HOP], rtol=0, atol=1e-4)
    streamed = answers["stream"]
    np.testing.assert_allclose(streamed[0, HOP:], long[: (N_FRAMES - 1) * HOP], rtol=0, atol=1e-4)
    np.testing.assert_allclose(streamed[1, HOP:][: N_SAMPLES[1]], short, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_tool_of_tensorflow_shows_and_runs_it(folder, clips, tmp_path):
    inputs = request(SHORT, n_samples=N_SAMPLES[1:])
    np.savez(tmp_path / "request.npz", **inputs)
    given = ";".join(f"{name}={tmp_path}/request.npz[{name}]" for name in inputs)
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    run = ["run", "--tag_set", "serve", "--signature_def", "serving_default", "--inputs", given, "--outdir", tmp_path]
    commands = [[*tool, *map(str, command), "--dir", str(folder)] for command in (["show", "--all"], run)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    shown, ran = [subprocess.Popen(command, **pipes) for command in commands]
    output, error = shown.communicate(timeout=300)
    assert shown.returncode == 0, error
    for signature in SIGNATURES:
        assert f"signature_def['{signature}']" in output
    assert "shape: (-1, -1, 4)" in output
    _, error = ran.communicate(timeout=300)
    assert ran.returncode == 0, error
    np.testing.assert_allclose(np.load(tmp_path / "audio.npy")[0], clips[1], rtol=0, atol=1e-4)


def test_what_is_told_of_the_signatures_is_what_they_take_and_give(instrument, signatures):
    told = describe(instrument)
    assert sorted(told) == sorted(signatures) == SIGNATURES
    for name, signature in signatures.items():
        for kind, specs in (
            ("inputs", signature.structured_input_signature[1]),
            ("outputs", signature.structured_outputs),
        ):
            assert sorted(told[name][kind]) == sorted(specs)
            for key, spec in specs.items():
                facts = told[name][kind][key]
                assert facts["dtype"] == spec.dtype.name
                assert facts["meaning"]
                shape = facts["shape"].strip("[]").split(", ")
                assert len(shape) == spec.shape.rank, (name, key)
                numbers = [int(size) if size.isdecimal() else None for size in shape]
                # What flows out of a loop has lost its sizes.
                assert all(size in (None, number) for size, number in zip(spec.shape, numbers)), (name, key)


def test_padding_and_the_order_of_rows_change_nothing(signatures, clips):
    inputs = request(SHORT, n_samples=[N_SAMPLES[1]])
    padded = {}
    for name in COLUMNS:
        row = np.full_like(inputs[name][:, :1], PADDING)
        padded[name] = np.concatenate([inputs[name][:, ::-1], row, row], axis=1)
    audio = signatures["serving_default"](**tensors({**inputs, **padded}))["audio"]
    np.testing.assert_allclose(audio[0], clips[1], rtol=0, atol=1e-4)


def as_piece(voice):
    """The voices of a request, each with its control changes and bends."""
    voices = divide(voice.notes, saved_model.MAX_VOICES)
    return Piece(tuple(Voice(notes, voice.control_changes, voice.pitch_bends) for notes in voices))


def test_chords_play_as_voices_whatever_else_is_in_the_batch(instrument, signatures):
    play, n_samples = signatures["serving_default"], 2 * SAMPLE_RATE
    piece = as_piece(CHORDS)
    assert len(piece.voices) == 3
    expected = [instrument.render(each, n_samples=n_samples) for each in (piece, SHORT, Voice(np.zeros([0, 4])))]
    alone = play(**tensors(request(CHORDS, n_samples=[n_samples])))["audio"]
    np.testing.assert_allclose(alone[0], expected[0], rtol=0, atol=1e-4)
    # The row of one voice has no more noise for the voices of its neighbour, and the empty row none but its own.
    voices = (CHORDS, SHORT, Voice(np.zeros([0, 4])))
    together = play(**tensors(request(*voices, n_samples=[n_samples])))["audio"]
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-4)
    assert np.abs(expected[0] - instrument.render(Piece(piece.voices[:1]), n_samples=n_samples)).max() > 1e-2


def test_more_notes_than_there_may_be_voices_take_those_of_the_oldest(instrument, signatures):
    n_notes, n_samples = saved_model.MAX_VOICES + 4, SAMPLE_RATE // 2
    starts = 0.02 + 0.005 * np.arange(n_notes)
    crowd = Voice(np.stack([starts, starts + 0.4, 30 + np.arange(n_notes), np.full(n_notes, 80)], axis=1))
    piece = as_piece(crowd)
    assert len(piece.voices) == saved_model.MAX_VOICES
    audio = signatures["serving_default"](**tensors(request(crowd, n_samples=[n_samples])))["audio"]
    np.testing.assert_allclose(audio[0], instrument.render(piece, n_samples=n_samples), rtol=0, atol=1e-4)
    meaning = describe(instrument)["serving_default"]["inputs"]["notes"]["meaning"]
    assert f"up to {saved_model.MAX_VOICES} at once" in meaning


def rows(*each):
    return np.array([each], np.float32)


NOTE = (0.0, 0.1, 40, 100)
NOTHING = {name: np.zeros([1, 0, n], np.float32) for name, n in COLUMNS.items()}
MANY = np.random.default_rng(0).uniform([0, 0, 20, 0], [60, 60, 110, 127], [1, 10_000, 4]).astype(np.float32)


HOSTILE = {
    "no notes": {},
    "one note": {"notes": rows(NOTE)},
    "ten thousand notes": {"notes": MANY},
    "NaN": {"notes": rows((np.nan, 1, 40, 90), (0, np.nan, 40, 90), (0, np.inf, 40, 90), (0, 0.1, np.nan, 90), NOTE)},
    "a negative duration": {"notes": rows((0.1, 0.0, 40, 100))},
    "pitch 300": {"notes": rows((0, 0.1, 300, 1000), (0.1, 0.2, -50, -3), (0.2, 0.25, 3e38, 3e38))},
    "far away": {"notes": rows((-3e38, 3e38, 40, 100), (-5.0, 1e30, 40, 100), (2e37, 3e38, 40, 100))},
    "far bends": {"notes": rows(NOTE), "pitch_bends": rows((0, 3e38), (0.01, np.nan), (0.02, -3e38), (np.inf, 1))},
    "no controller": {"notes": rows(NOTE), "control_changes": rows((0, 55, 3e38), (0, 3e38, 1), (np.nan, 55, 1))},
    "no samples": {"notes": rows(NOTE), "n_samples": [0]},
}


@pytest.mark.parametrize("given", HOSTILE.values(), ids=HOSTILE)
def test_any_rows_have_an_answer(signatures, given):
    inputs = {**NOTHING, "n_samples": [4000], **given}
    audio = signatures["serving_default"](**tensors(inputs))["audio"].numpy()
    assert audio.shape == (1, inputs["n_samples"][0])
    assert np.isfinite(audio).all()
    assert np.abs(audio).max(initial=0.0) < 10.0


def test_what_is_ignored_plays_like_nothing(signatures):
    play = signatures["serving_default"]
    silence = play(**tensors({**NOTHING, "n_samples": [4000]}))["audio"]
    ignored = rows((np.nan, 1, 40, 90), (0.1, 0.0, 40, 100), (-np.inf, 0.2, 40, 100), (2 * PADDING, 1, 40, 100))
    np.testing.assert_array_equal(play(**tensors({**NOTHING, "notes": ignored, "n_samples": [4000]}))["audio"], silence)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_samples": [-1]}, "n_samples: is below 0"),
        ({"n_samples": [2**31 - 1]}, "longer than 3600 s"),
        ({"n_samples": [3600 * SAMPLE_RATE + 1]}, "longer than 3600 s"),
        ({"n_samples": [1, 2]}, "one number for each row of notes"),
        ({"n_samples": []}, "one number for each row of notes"),
        ({"n_samples": 1}, "Shape of tensor n_samples"),
        ({"notes": np.zeros([1, 1, 5], np.float32)}, "Shape of tensor notes"),
        ({"notes": np.zeros([1, 4], np.float32)}, "Shape of tensor notes"),
        ({"control_changes": np.zeros([2, 1, 3], np.float32)}, "differ in their shapes"),
        ({name: value[:0] for name, value in NOTHING.items()}, "the batch is empty"),
    ],
)
def test_what_cannot_be_played_is_told_in_a_sentence(signatures, given, message):
    inputs = {**NOTHING, "n_samples": [100], **given}
    inputs["n_samples"] = np.array(inputs["n_samples"], np.int32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_default"](**tensors(inputs))


def test_frames_are_clipped_to_their_ranges_or_refused(instrument, signatures):
    def at(value, batch=1, n_frames=20):
        return {name: np.full([batch, n_frames, 1], value, np.float32) for name in instrument.controls.channels}

    play = signatures["control_frames"]
    facts = channel_facts(instrument)
    for value, side in ((3e38, "maximum"), (-3e38, "minimum")):
        audio = play(**tensors(at(value)))["audio"].numpy()
        assert np.isfinite(audio).all()
        edge = {name: np.full([1, 20, 1], getattr(channel, side), np.float32) for name, channel in facts.items()}
        np.testing.assert_array_equal(audio, play(**tensors(edge))["audio"])
    for frames, message in (
        (at(np.nan), "a value is not finite"),
        (at(np.inf), "a value is not finite"),
        (at(0.5, n_frames=0), "there are none"),
        (at(0.5, batch=0), "there are none"),
        ({**at(0.5), "gate": np.zeros([1, 21, 1], np.float32)}, "differ in their shapes"),
        ({**at(0.5), "gate": np.zeros([2, 20, 1], np.float32)}, "differ in their shapes"),
        (at(0.5, n_frames=3600 * FRAME_RATE + 1), "longer than 3600 s"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            play(**tensors(frames))


def test_streams_begin_by_their_number_or_by_the_sum_of_several(signatures):
    begin = signatures["initial_state"]
    for batch in ([3], [1, 1, 1], [2, 1]):
        together = begin(batch=tf.constant(batch))
        alone = [begin(batch=tf.constant([each])) for each in batch]
        for name, value in together.items():
            np.testing.assert_array_equal(value, np.concatenate([each[name] for each in alone]))
            assert len(value) == 3
    for batch in ([0], [-1], [2, -1], [], [saved_model.MAX_STREAMS + 1], [1000, 1000], [2**31 - 1, 2**31 - 1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="give 1 to 1024 streams"):
            begin(batch=tf.constant(batch, tf.int32))


def test_the_sum_of_the_streams_of_one_number_is_a_chord(instrument, signatures):
    piece = as_piece(CHORDS)
    frames = instrument.controls(**score_of(instrument, piece, {}).rows(0, 10**6), n_frames=200)
    state = signatures["initial_state"](batch=tf.constant([len(piece.voices)]))
    audio = signatures["stream"](**frames, **state)["audio"].numpy()
    expected = instrument.render(piece, n_samples=200 * HOP)
    np.testing.assert_allclose(audio.sum(axis=0)[HOP:], expected[: 199 * HOP], rtol=0, atol=1e-4)
    # On its sample's index the noise depends, and on the frame's how harmonics move.
    of_voices = dict(flat_state(instrument.initial_state(1, len(piece.voices))))
    indices = [name for name in state if name.endswith(("_sample", "_frame"))]
    assert len(indices) == 3
    for index in indices:
        np.testing.assert_array_equal(state[index], of_voices[index])
        assert len(set(state[index].numpy())) == len(piece.voices)


def test_a_state_from_nowhere_is_refused_or_played(instrument, signatures):
    frames = {name: tf.fill([1, 10, 1], 0.5) for name in instrument.controls.channels}
    state = {name: value.numpy() for name, value in signatures["initial_state"](batch=tf.constant([1])).items()}
    for name, value in state.items():
        if value.dtype == np.int64:
            for number in (-(2**63), 2**63 - 1):
                audio = signatures["stream"](**frames, **tensors({**state, name: np.full_like(value, number)}))["audio"]
                assert np.isfinite(audio).all()
            continue
        audio = signatures["stream"](**frames, **tensors({**state, name: np.full_like(value, 1e5)}))["audio"]
        assert np.isfinite(audio).all()
        for bad, message in (
            (np.full_like(value, np.nan), f"{name}: is no state"),
            (np.full_like(value, 3e38), f"{name}: is no state"),
            (np.concatenate([value, value]), "batch is not that of the control frames"),
            (np.concatenate([value, value], axis=-1), f"Shape of tensor {name}"),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                signatures["stream"](**frames, **tensors({**state, name: bad}))
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than 60 s"):
        signatures["stream"](**{name: tf.zeros([1, 60 * FRAME_RATE + 1, 1]) for name in frames}, **tensors(state))
    with pytest.raises(TypeError):
        signatures["stream"](**frames)


def test_a_stride_is_kept_and_its_state_handed_on(tmp_path):
    configure([TINY_GIN], ["Decoder.stride = 4"])
    instrument = build()
    saved_model.save(instrument, tmp_path / "model")
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    score = score_of(instrument, Piece((SHORT,)), {})
    frames = {name: value for name, value in instrument.controls(**score.rows(0, 10**6), n_frames=240).items()}
    clip = instrument.render(SHORT, n_samples=241 * HOP)
    state = signatures["initial_state"](batch=tf.constant([1]))
    assert {"state_f0_hz", "state_decoder_outputs"} <= set(state)
    blocks = []
    for begin, end in ((0, 4), (4, 16), (16, 240)):
        block = {name: value[:, begin:end] for name, value in frames.items()}
        state = dict(signatures["stream"](**block, **state))
        blocks.append(state.pop("audio"))
    assert instrument.latency == 5 * HOP
    streamed = np.concatenate(blocks, axis=1)[0, instrument.latency :]
    assert streamed.std() > 1e-6
    np.testing.assert_allclose(streamed, clip[: len(streamed)], rtol=0, atol=1e-4)
    # Frames need not be a multiple of the stride where the whole is known; what comes after the last of them is held.
    first = {name: value[:, :239] for name, value in frames.items()}
    drawn = signatures["control_frames"](**first)["audio"][0]
    assert len(drawn) == 239 * HOP
    np.testing.assert_allclose(drawn[: 232 * HOP], clip[: 232 * HOP], rtol=0, atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a multiple of 4 frames"):
        signatures["stream"](**{name: value[:, :6] for name, value in frames.items()}, **state)
