"""Control frames equal those of a slow and obvious reference, wherever a block begins and however long the music."""

import math

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from neural_midi_synth.instrument.controls import ATTACK, LONG_AGO, PADDING, Controls, Score

CHANNELS = (
    "f0_midi",
    "velocity",
    "gate",
    "distance_from_onset",
    "distance_to_offset",
    "distance_from_offset",
    "cc_55",
    "cc_1",
)
TO_THE_SAMPLE = (*CHANNELS, "onset")
STYLES = {"openness": 55, "vibrato": 1}
DEFAULTS = {"openness": 40.0}
DEFAULT_PITCH = 52.0
N_COLUMNS = {"notes": 4, "control_changes": 3, "pitch_bends": 2}

# TensorFlow takes some milliseconds an example, so there are few of them, and the first takes longest.
thorough = hypothesis.settings(max_examples=40, deadline=None, derandomize=True)


def _controls(frame_rate, channels=CHANNELS):
    return Controls(channels, frame_rate, STYLES, DEFAULTS, DEFAULT_PITCH)


def _frame(time, frame_rate):
    return math.floor(time * frame_rate + 0.5 + 1 / 64)


def _onset_frame(time, frame_rate, channels):
    return math.floor(time * frame_rate + 0.0794) + 1 if "onset" in channels else _frame(time, frame_rate)


def _usable(row):
    return all(math.isfinite(value) for value in row) and row[0] > PADDING


def _in_force(events, frame, frame_of):
    """The event last in time of those at or before the frame; of those at one time the one given last."""
    before = [(row[0], place, row) for place, row in enumerate(events) if frame_of(row[0]) <= frame]
    return max(before)[2] if before else None


def _reference_frame(frame, frame_rate, channels, notes, control_changes, pitch_bends):
    """Every channel at one frame, by looking at every event."""

    def nearest(time):
        return _frame(time, frame_rate)

    def onset_of(time):
        return _onset_frame(time, frame_rate, channels)

    notes = [row for row in notes if _usable(row) and row[1] > row[0]]
    bend = _in_force([row for row in pitch_bends if _usable(row)], frame, nearest)
    semitones = bend[1] if bend else 0.0
    values = {
        "f0_midi": DEFAULT_PITCH + semitones,
        "velocity": 0.0,
        "gate": 0.0,
        "distance_from_onset": 0.0,
        "distance_to_offset": 0.0,
        "distance_from_offset": LONG_AGO,
        "onset": -1.0,
    }
    newest = _in_force(notes, frame, onset_of)
    if newest:
        start, end, pitch, velocity = newest
        onset = onset_of(start)
        offset = max(onset_of(end), onset + 1)
        later_onsets = [onset_of(row[0]) for row in notes if onset_of(row[0]) > frame]
        lasts = frame < offset
        values["f0_midi"] = pitch + semitones
        values["velocity"] = min(max(velocity / 127.0, 0.0), 1.0)
        values["gate"] = float(lasts)
        begins = start * frame_rate if "onset" in channels else onset
        values["distance_from_onset"] = (frame - begins) / frame_rate if lasts else 0.0
        if frame == onset:
            values["onset"] = min(
                max(math.floor(64 * (start * frame_rate - (onset - 1)) + 0.56) / 64, 0.0), 1.0 - ATTACK
            )
        values["distance_to_offset"] = (min([offset, *later_onsets]) - frame) / frame_rate if lasts else 0.0
        values["distance_from_offset"] = 0.0 if lasts else (frame - offset) / frame_rate
    values["f0_midi"] = min(max(values["f0_midi"], 0.0), 127.0)
    for number, default in ((55, DEFAULTS["openness"]), (1, 0.0)):
        change = _in_force([row for row in control_changes if _usable(row) and row[1] == number], frame, nearest)
        values[f"cc_{number}"] = min(max((change[2] if change else default) / 127.0, 0.0), 1.0)
    return values


def _reference(voice, frame_rate, channels, n_frames, first_frame):
    frames = [_reference_frame(first_frame + i, frame_rate, channels, *voice) for i in range(n_frames)]
    return {name: np.array([frame[name] for frame in frames], np.float32) for name in channels}


def _batched(voices, dtype=np.float64):
    """Rows of voices of unequal length, `[batch, n, columns]` each, filled up with padding."""
    tensors = []
    for kind, n_columns in enumerate(N_COLUMNS.values()):
        rows = np.full([len(voices), max(len(voice[kind]) for voice in voices), n_columns], PADDING, dtype)
        for voice, padded in zip(voices, rows):
            padded[: len(voice[kind])] = np.array(voice[kind], dtype).reshape([-1, n_columns])
        tensors.append(tf.constant(rows))
    return tensors


@st.composite
def _rows(draw, frame_rate, *values, note=False):
    """Rows in any order whose times often meet, fall between two frames, or are no times at all."""
    odd_number = st.sampled_from([math.nan, math.inf, -math.inf, PADDING])
    time = st.one_of(
        st.integers(-20, 60).map(lambda half_frames: half_frames / (2 * frame_rate)),
        # TensorFlow takes numbers below 1e-307 for 0.
        st.floats(-10.0 / frame_rate, 30.0 / frame_rate, allow_subnormal=False),
    )
    length = st.one_of(
        st.sampled_from([0.0, -0.1, 1e-6, 1.0 / frame_rate]), st.floats(0.0, 20.0 / frame_rate, allow_subnormal=False)
    )
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(time)
        row = [start, start + draw(length)] if note else [start]
        row += [draw(value) for value in values]
        kind = draw(st.integers(0, 9))
        if kind == 0:
            row = [PADDING] * len(row)
        elif kind == 1:
            row[draw(st.integers(0, len(row) - 1))] = draw(odd_number)
        rows.append(tuple(row))
    return rows


@st.composite
def _voices(draw, max_voices=3):
    frame_rate = draw(st.sampled_from([1, 50, 250, 344]))
    voice = st.tuples(
        _rows(frame_rate, st.integers(0, 127), st.integers(0, 127), note=True),
        _rows(frame_rate, st.sampled_from([1, 55, 56]), st.floats(-10.0, 140.0)),
        _rows(frame_rate, st.floats(-12.0, 12.0)),
    )
    return frame_rate, draw(st.lists(voice, min_size=1, max_size=max_voices))


# Times are whole frames over the frame rate, which a graph may multiply by its reciprocal; the rest is exact,
# but for numbers too small for float32.
ONE_ROUNDING = dict(rtol=2.0**-22, atol=1e-30)


@pytest.mark.parametrize("channels", [CHANNELS, TO_THE_SAMPLE])
@thorough
@hypothesis.given(_voices(), st.integers(0, 40), st.data())
def test_frames_equal_the_reference(channels, rate_and_voices, n_frames, data):
    frame_rate, voices = rate_and_voices
    batch = len(voices)
    first = data.draw(st.one_of(st.integers(-25, 40), st.lists(st.integers(-25, 40), min_size=batch, max_size=batch)))
    result = _controls(frame_rate, channels)(*_batched(voices), n_frames, first)
    assert list(result) == list(channels)
    for i, (voice, first_frame) in enumerate(zip(voices, np.broadcast_to(first, [batch]))):
        expected = _reference(voice, frame_rate, channels, n_frames, int(first_frame))
        for name, value in result.items():
            assert value.dtype == tf.float32
            assert value.shape == (batch, n_frames, 1)
            # The time since an onset is a small difference of large times.
            rounding = dict(atol=1e-9) if "onset" in channels and "onset" in name else ONE_ROUNDING
            np.testing.assert_allclose(value[i, :, 0], expected[name], err_msg=name, **rounding)


@pytest.mark.parametrize("channels", [CHANNELS, TO_THE_SAMPLE])
@thorough
@hypothesis.given(_voices(), st.lists(st.integers(0, 15), min_size=1, max_size=5), st.integers(-25, 25))
def test_blocks_equal_the_whole_to_the_last_bit(channels, rate_and_voices, lengths, first_frame):
    frame_rate, voices = rate_and_voices
    controls, rows = _controls(frame_rate, channels), _batched(voices)
    whole = controls(*rows, sum(lengths), first_frame)
    begins = first_frame + np.cumsum([0, *lengths[:-1]])
    blocks = [controls(*rows, length, int(begin)) for length, begin in zip(lengths, begins)]
    for name in channels:
        np.testing.assert_array_equal(np.concatenate([block[name] for block in blocks], axis=1), whole[name])


@thorough
@hypothesis.given(_voices(), st.randoms(use_true_random=False))
def test_order_of_rows_at_different_times_is_of_no_matter(rate_and_voices, random):
    frame_rate, voices = rate_and_voices
    unique = [tuple(list({row[0]: row for row in rows}.values()) for rows in voice) for voice in voices]
    shuffled = [tuple(random.sample(rows, len(rows)) for rows in voice) for voice in unique]
    expected, result = (_controls(frame_rate)(*_batched(each), 30) for each in (unique, shuffled))
    for name in CHANNELS:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


@pytest.mark.parametrize("channels", [CHANNELS, TO_THE_SAMPLE])
@thorough
@hypothesis.given(_voices(max_voices=1), st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(-10, 40))
def test_a_score_gives_a_block_all_that_matters_to_it(channels, rate_and_voices, lengths, first_frame):
    frame_rate, voices = rate_and_voices
    rows = _batched(voices)
    score = Score([{name: each.numpy()[0] for name, each in zip(N_COLUMNS, rows)}], frame_rate)
    whole = _controls(frame_rate, channels)(*rows, sum(lengths), first_frame)
    for length in lengths:
        block = _controls(frame_rate, channels)(
            **score.rows(first_frame, first_frame + length), n_frames=length, first_frame=first_frame
        )
        for name, value in block.items():
            np.testing.assert_array_equal(value, whole[name][:, :length], err_msg=name)
        whole = {name: value[:, length:] for name, value in whole.items()}
        first_frame += length


@thorough
@hypothesis.given(_voices())
def test_float32_rows_are_taken_at_their_word(rate_and_voices):
    frame_rate, voices = rate_and_voices
    rows = _batched(voices, np.float32)
    expected = _controls(frame_rate)(*[tf.cast(each, tf.float64) for each in rows], 30)
    for name, value in _controls(frame_rate)(*rows, 30).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@thorough
@hypothesis.given(st.sampled_from([50, 100, 250, 344, 441, 1000]), st.integers(0, 2**31), st.integers(1, 2**20))
def test_a_note_begins_and_ends_at_its_exact_frame_after_any_time(frame_rate, onset, length):
    notes = tf.constant([[[onset / frame_rate, (onset + length) / frame_rate, 40.0, 127.0]]], tf.float64)
    rows = (notes, tf.zeros([1, 0, 3]), tf.zeros([1, 0, 2]))
    begin = _controls(frame_rate)(*rows, 4, onset - 2)
    np.testing.assert_array_equal(begin["gate"][0, :, 0], [0, 0, 1, float(length > 1)])
    end = _controls(frame_rate)(*rows, 3, onset + length - 1)
    np.testing.assert_array_equal(end["gate"][0, :, 0], [1, 0, 0])
    np.testing.assert_array_equal(end["distance_from_offset"][0, :, 0], np.float32([0, 0, 1]) / np.float32(frame_rate))


def test_float32_finds_the_frames_of_float64_for_a_quarter_of_an_hour():
    # Times in quarter milliseconds, as MIDI has them: every sixteenth of them lies between two frames.
    random = np.random.default_rng(0)
    starts = np.sort(random.choice(900 * 4000, 4000, replace=False)) / 4000.0
    notes = np.stack([starts, starts + random.integers(1, 400, 4000) / 4000.0, starts % 127.0, starts % 127.0], axis=1)
    rows = (notes[np.newaxis], np.zeros([1, 0, 3]), np.zeros([1, 0, 2]))
    controls = _controls(250, ("gate", "distance_from_onset", "distance_to_offset"))
    exact = controls(*(tf.constant(each, tf.float64) for each in rows), 900 * 250)
    for name, value in controls(*(tf.constant(each, tf.float32) for each in rows), 900 * 250).items():
        np.testing.assert_array_equal(value, exact[name], err_msg=name)


def test_five_hours_of_notes():
    frame_rate, hours = 250, 5
    onsets = np.arange(0, hours * 3600 * frame_rate + 1, 111, dtype=np.int64)
    notes = np.stack([onsets / frame_rate, (onsets + 70) / frame_rate, 40 + onsets % 24, onsets % 127 + 1], axis=-1)
    rows = (tf.constant(notes)[tf.newaxis], tf.zeros([1, 0, 3]), tf.zeros([1, 0, 2]))
    first = hours * 3600 * frame_rate - 500
    result = _controls(frame_rate)(*rows, 1000, first)
    frames = first + np.arange(1000)
    newest = onsets[np.searchsorted(onsets, frames, side="right") - 1]
    np.testing.assert_array_equal(result["gate"][0, :, 0], frames < newest + 70)
    np.testing.assert_array_equal(result["f0_midi"][0, :, 0], 40 + newest % 24)


def test_without_events_every_channel_has_its_default():
    result = _controls(250)(tf.zeros([2, 0, 4]), tf.zeros([2, 0, 3]), tf.zeros([2, 0, 2]), 3)
    expected = {"f0_midi": DEFAULT_PITCH, "distance_from_offset": LONG_AGO, "cc_55": np.float32(40.0 / 127.0)}
    for name, value in result.items():
        np.testing.assert_array_equal(value, np.full([2, 3, 1], expected.get(name, 0.0), np.float32), err_msg=name)


def test_a_default_holds_until_the_first_change_of_its_own_number():
    changes = tf.constant([[[0.0, 1, 127], [0.5, 55, 0], [0.25, 56, 3]]], tf.float64)
    result = _controls(4)(tf.zeros([1, 0, 4]), changes, tf.zeros([1, 0, 2]), 4)
    np.testing.assert_array_equal(result["cc_55"][0, :, 0], np.float32([40 / 127, 40 / 127, 0, 0]))
    np.testing.assert_array_equal(result["cc_1"][0, :, 0], np.ones(4))


def test_the_newest_note_wins_and_does_not_give_back():
    notes = tf.constant([[[0.0, 10.0, 40, 127], [2.0, 4.0, 45, 127]]])
    result = _controls(1)(notes, tf.zeros([1, 0, 3]), tf.zeros([1, 0, 2]), 7)
    np.testing.assert_array_equal(result["f0_midi"][0, :, 0], [40, 40, 45, 45, 45, 45, 45])
    np.testing.assert_array_equal(result["gate"][0, :, 0], [1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(result["distance_to_offset"][0, :, 0], [2, 1, 2, 1, 0, 0, 0])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_shapes_may_be_unknown_in_a_graph(dtype):
    controls = _controls(250)
    signature = [tf.TensorSpec([None, None, n], dtype) for n in N_COLUMNS.values()]
    signature += [tf.TensorSpec([], tf.int32), tf.TensorSpec([None], tf.int64)]
    graph = tf.function(controls, input_signature=signature)
    random = np.random.default_rng(0)
    for batch, n, n_frames in ((1, 0, 5), (3, 4, 50), (2, 1, 0), (0, 2, 3)):
        rows = [tf.constant(random.uniform(0.0, 0.2, [batch, n, columns]), dtype) for columns in N_COLUMNS.values()]
        first = tf.constant(random.integers(0, 9, batch))
        expected = controls(*rows, n_frames, first)
        for name, value in graph(*rows, n_frames, first).items():
            assert value.shape == (batch, n_frames, 1)
            np.testing.assert_allclose(value, expected[name], err_msg=name, **ONE_ROUNDING)
    assert graph.experimental_get_tracing_count() == 1


def test_only_what_is_asked_for_is_computed_and_in_order():
    controls = _controls(250, ("cc_55", "gate"))
    assert list(controls(tf.zeros([1, 0, 4]), tf.zeros([1, 0, 3]), tf.zeros([1, 0, 2]), 1)) == ["cc_55", "gate"]
    assert controls.needs_future == ()
    assert _controls(250).needs_future == ("distance_to_offset",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(channels=("pan",)), "unknown channel 'pan'"),
        (dict(channels=("cc_",)), "unknown channel 'cc_'"),
        (dict(channels=("cc_1x",)), "unknown channel 'cc_1x'"),
        (dict(channels=("gate",), defaults={"openness": 1}), "'openness' is not one of the styles"),
    ],
)
def test_what_is_unknown_is_told_by_name(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Controls(frame_rate=250, **settings)
    assert "\n" not in str(caught.value).split("In call to configurable")[0].strip()
