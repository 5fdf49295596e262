"""A stream of one voice plays what a rendering plays, however it is cut and however events come, and never grows."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import loading
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi
from neural_midi_synth.playing.engines import GraphEngine, _packed_events, _unpacked_events
from neural_midi_synth.playing.stream import Stream

SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.FilteredNoise.initial_bias = 0.0",
    "nms.Reverb.reverb_length = 3000",
]
VOICE = Voice(
    np.array([[0.05, 0.31, 40, 100], [0.3, 0.613, 47, 60], [0.7, 0.7005, 50, 90], [0.9, 1.2, 36, 127]]),
    np.array([[0.1, 55, 127], [0.4, 55, 30], [0.2, 56, 127], [0.2, 7, 99]]),
    np.array([[0.5, 1.0], [0.6, 0.0]]),
)
KINDS = ("notes", "control_changes", "pitch_bends")
# The promise: the network's matrix products round differently in blocks, and the oscillators pass that on.
PROMISED = 1e-4


def _build(model, *bindings):
    """A small instrument of the model, with random weights that can be heard and a room that rings."""
    tf.random.set_seed(0)
    loading.configure([configs.find(f"models/{model}.gin")], [*SMALL, *bindings], skip_unknown=True)
    built = loading.build()
    reverb = built.processor_group.reverb
    length = reverb._ir.shape[0]
    response = np.random.default_rng(0).normal(size=length) * np.exp(-np.arange(length) / 300.0)
    reverb._ir.assign(0.05 * response)
    return built


@pytest.fixture(scope="module")
def live():
    return _build("guitar_live")


@pytest.fixture(scope="module")
def strided():
    return _build("guitar_live", "Decoder.stride = 2")


@pytest.fixture(scope="module")
def guitar():
    return _build("guitar")


class _RecordingEngine(GraphEngine):
    """Keeps the control frames that it plays."""

    played = ()

    def play(self, voices, first_frame):
        rows, first = _unpacked_events(tf.constant(_packed_events(voices, first_frame)))
        frames = self._instrument.controls(**rows, n_frames=self._block_frames, first_frame=first)
        self.played = (*self.played, frames)
        return super().play(voices, first_frame)

    def _checked(self, control_frames):
        frames = super()._checked(control_frames)
        self.played = (*self.played, frames)
        return frames


class _Recorder(Stream):
    """A stream that keeps the control frames it plays."""

    def __init__(self, instrument, block_frames, voices):
        super().__init__(instrument, block_frames, voices)
        self._engine = _RecordingEngine(instrument, block_frames, voices)

    @property
    def played(self):
        return self._engine.played

    def reset(self):
        super().reset()
        self._engine.played = ()


@pytest.fixture(scope="module")
def future(guitar):
    """A stream of an instrument that needs the future; blocks of seven frames divide nothing."""
    return Stream(guitar, 7, voices=1)


@pytest.fixture(scope="module")
def traced(live):
    """Four frames are 16 ms; tests share one stream, since each has to be traced."""
    return _Recorder(live, 4, voices=1)


@pytest.fixture
def stream(traced):
    traced.reset()
    return traced


def _frames(stream):
    """Channel name to all the control frames that were played."""
    channels = stream.played[0]
    return {channel: np.concatenate([frames[channel][0, :, 0] for frames in stream.played]) for channel in channels}


def _events(voice, instrument):
    """Events as a keyboard sends them, in order: (frame, method of the stream, its arguments)."""
    events = [(start, "note_on", (pitch, velocity)) for start, _, pitch, velocity in voice.notes]
    events += [(end, "note_off", (pitch,)) for _, end, pitch, _ in voice.notes]
    events += [(time, "control_change", (int(number), value)) for time, number, value in voice.control_changes]
    events += [(time, "pitch_bend", (semitones,)) for time, semitones in voice.pitch_bends]
    return [
        (time * instrument.frame_rate, what, values)
        for time, what, values in sorted(events, key=lambda event: event[0])
    ]


def _play_live(stream, events, n_frames):
    """Pushes each event just before its block, and pulls blocks."""
    events, blocks = list(events), []
    while stream.frame < n_frames:
        while events and events[0][0] < stream.frame + stream.block_frames:
            frame, what, values = events.pop(0)
            getattr(stream, what)(*values, frame=frame)
        blocks.append(stream.block())
    return np.concatenate(blocks)


@pytest.mark.parametrize("block_frames", [1, 4, 64, 384])
def test_live_events_in_blocks_of_any_size_are_the_rendering(live, block_frames):
    stream = Stream(live, block_frames, voices=1)
    played = _play_live(stream, _events(VOICE, live), 384)
    assert (played.dtype, played.shape) == (np.float32, (384 * live.hop,))
    rendering = live.render(VOICE, n_samples=len(played) - stream.latency)
    np.testing.assert_allclose(played[stream.latency :], rendering, atol=PROMISED)
    assert np.abs(played).max() > 0.01


def test_a_stream_of_a_decoder_with_a_stride_is_the_rendering(strided):
    stream = Stream(strided, 2, voices=1)
    played = _play_live(stream, _events(VOICE, strided), 256)
    rendering = strided.render(VOICE, n_samples=len(played) - stream.latency)
    np.testing.assert_allclose(played[stream.latency :], rendering, atol=PROMISED)


@pytest.mark.parametrize("which", ["live", "strided"])
def test_the_latency_is_as_stated(which, request):
    played = request.getfixturevalue(which)
    stream = Stream(played, 4, voices=1)
    signal = _play_live(stream, _events(VOICE, played), 256)
    rendering = played.render(VOICE, n_samples=8000)
    errors = [np.abs(signal[lag : lag + 8000] - rendering).max() for lag in range(8 * played.hop)]
    assert np.argmin(errors) == stream.latency == (1 if which == "live" else 3) * played.hop
    assert errors[stream.latency] < PROMISED < 100 * PROMISED < np.partition(errors, 1)[1]


@pytest.mark.slow
def test_control_frames_of_live_events_are_those_of_a_clip_to_the_last_bit(live, stream):
    random = np.random.default_rng(0)
    starts = np.cumsum(random.choice([0.0031, 0.02, 0.11, 0.4], 60))
    notes = np.stack(
        [starts, starts + random.uniform(0.001, 0.3, 60), random.integers(30, 90, 60), random.integers(1, 128, 60)], 1
    )
    notes[:, 2] += np.arange(60) / 64  # No two of one pitch, so that a note-off means one note.
    times = random.uniform(0.0, starts[-1], [2, 80])
    changes = np.stack([times[0], random.choice([55, 56, 1], 80), random.integers(0, 128, 80)], 1)
    voice = Voice(notes, changes, np.stack([times[1], random.normal(size=80)], 1))
    n_frames = 4 * (int(voice.duration * live.frame_rate) // 4 + 8)
    _play_live(stream, _events(voice, live), n_frames)
    rows = {name: tf.constant(getattr(voice, name)[np.newaxis]) for name in KINDS}
    expected = tf.function(live.controls)(**rows, n_frames=n_frames)  # In graph, as it is rendered and trained.
    for channel, frames in _frames(stream).items():
        np.testing.assert_array_equal(frames, expected[channel][0, :, 0], err_msg=channel)


def test_the_pedal_holds_notes_as_in_a_file(live, stream, tmp_path):
    notes = np.array([[0.1, 0.2, 40, 100], [0.3, 0.4, 45, 90], [0.9, 0.95, 47, 90]])
    pedal = np.array([[0.05, 64, 127], [0.6, 64, 0]])
    write_midi(Voice(notes, pedal), tmp_path / "held.mid")
    played = _play_live(stream, _events(Voice(notes, pedal), live), 300)
    held = read_midi(tmp_path / "held.mid", most_voices=1)
    rendering = live.render(held, n_samples=16000)
    np.testing.assert_allclose(played[stream.latency :][:16000], rendering, atol=PROMISED)
    assert held.notes[1, 1] == pytest.approx(0.6, abs=1e-3)


def test_events_may_come_early_and_late_and_in_any_order(live, stream):
    events = _events(VOICE, live)
    expected = _play_live(stream, events, 320)
    stream.reset()
    for i in np.random.default_rng(0).permutation(len(events)):
        frame, what, values = events[i]
        getattr(stream, what)(*values, frame=frame)
    np.testing.assert_array_equal(_play_live(stream, [], 320), expected)
    stream.reset()
    _play_live(stream, [], 8)
    stream.note_on(40, 100, frame=3)  # Too late, so it happens now.
    late = _play_live(stream, [], 40)
    stream.reset()
    _play_live(stream, [], 8)
    stream.note_on(40, 100)
    np.testing.assert_array_equal(_play_live(stream, [], 40), late)


def test_the_same_note_again_sounds_until_it_is_let_go(stream):
    for frame, what, values in [
        (4, "note_on", (40, 100)),
        (12, "note_on", (40, 90)),  # The note-off of the first comes after it.
        (12, "note_off", (40,)),
        (20, "note_off", (40,)),
        (24, "note_on", (40, 0)),  # As a note-off, and there is nothing to end.
    ]:
        getattr(stream, what)(*values, frame=frame)
    _play_live(stream, [], 32)
    gate = _frames(stream)["gate"]
    np.testing.assert_array_equal(np.flatnonzero(gate), np.arange(5, 21))  # A note begins and ends after its frame.


def test_control_frames_may_be_given(live, stream):
    rows = {name: tf.constant(getattr(VOICE, name)[np.newaxis]) for name in KINDS}
    frames = live.controls(**rows, n_frames=160)
    blocks = [
        stream.block({channel: value[0, i : i + 4, 0].numpy() for channel, value in frames.items()})
        for i in range(0, 160, 4)
    ]
    rendering = live.render(VOICE, n_samples=160 * live.hop - stream.latency)
    np.testing.assert_allclose(np.concatenate(blocks)[stream.latency :], rendering, atol=PROMISED)
    with pytest.raises(DataError, match="'f0_midi' is missing"):
        stream.block({})
    with pytest.raises(DataError, match="'f0_midi' has 7 values, not 4"):
        stream.block({"f0_midi": np.zeros(7)})


def test_panic_silences_until_the_next_note(stream):
    stream.control_change(55, 90)
    stream.note_on(40, 127)
    before = _play_live(stream, [], 40)
    stream.note_on(52, 127, frame=60)  # Forgotten.
    stream.panic()
    stream.control_change(56, 1)
    assert np.abs(before).max() > 0.01
    assert not np.any(_play_live(stream, [], 80))
    stream.note_on(45, 100, frame=82)
    after = _play_live(stream, [], 120)
    assert stream.frame == 120
    assert np.abs(after).max() > 0.01
    assert np.all(np.isfinite(after))


def test_reset_starts_as_the_first_time(live, stream):
    events = _events(VOICE, live)
    first = _play_live(stream, events, 200)
    for disturb in (lambda: None, stream.panic, lambda: stream.note_on(99, 3, frame=10**6)):
        disturb()
        stream.reset()
        np.testing.assert_array_equal(_play_live(stream, events, 200), first)


def test_two_streams_of_an_instrument_do_not_hear_each_other(live, stream):
    one, two = stream, Stream(live, 4, voices=1)
    one.note_on(40, 100)
    alone = [one.block() for _ in range(10)]
    one.reset()
    one.note_on(40, 100)
    for expected in alone:
        two.note_on(60, 20)
        two.block()
        np.testing.assert_array_equal(one.block(), expected)


def test_events_from_another_thread_are_not_lost(stream):
    def push():
        for i in range(1000):
            stream.control_change(55, i % 128, frame=10**6 + i)

    pushing = threading.Thread(target=push)
    pushing.start()
    while pushing.is_alive():
        stream.block()
    stream.block()
    assert [event[0] for event in stream._queue] == list(range(10**6, 10**6 + 1000))


def test_an_endless_stream_does_not_grow(live):
    stream = Stream(live, 1, voices=1)
    random = np.random.default_rng(0)
    for i in range(2000):
        if i % 3 == 0:
            stream.note_on(40 + i % 17, 100)
        if i % 5 == 0:
            stream.note_off(40 + i % 17)
        stream.control_change(int(random.integers(0, 128)), i % 128)
        stream.pitch_bend(random.normal())
        block = stream.block()
        sizes = {name: len(rows) for name, rows in stream._voices.rows(live.frame_rate)[0].items()}
        # The one in force and the one that came: a note, a bend, and of each of the two controllers. Reset all
        # controllers, which may be among them, is a bend too.
        assert sizes["notes"] <= 2 and sizes["pitch_bends"] <= 3 and sizes["control_changes"] <= 4
        assert not stream._queue
    assert np.all(np.isfinite(block))


def test_an_instrument_that_needs_the_future_refuses_live_events(guitar, future):
    for push in (
        lambda: future.note_on(40, 100),
        lambda: future.note_off(40),
        lambda: future.control_change(55, 1),
        lambda: future.pitch_bend(0.5),
    ):
        with pytest.raises(DataError, match="cannot be played live: its channel 'distance_to_offset' must know"):
            push()
    assert future.block().shape == (7 * guitar.hop,)


def test_files_are_played_in_blocks_even_by_an_instrument_that_needs_the_future(guitar, future):
    for n_samples in (1, 448, 10_001):
        blocks = list(future.blocks(VOICE, n_samples=n_samples))
        assert all(len(block) == future.block_samples for block in blocks[:-1])
        rendering = guitar.render(VOICE, n_samples=n_samples)
        np.testing.assert_allclose(np.concatenate(blocks), rendering, atol=PROMISED)


def test_a_file_may_have_styles_of_its_own(guitar, future, tmp_path):
    write_midi(VOICE, tmp_path / "riff.mid")
    blocks = list(future.blocks(tmp_path / "riff.mid", styles={"openness": 100}))
    rendering = guitar.render(tmp_path / "riff.mid", styles={"openness": 100})
    np.testing.assert_allclose(np.concatenate(blocks), rendering, atol=PROMISED)
    with pytest.raises(DataError, match="not a style"):
        next(future.blocks(VOICE, styles={"openess": 100}))


@pytest.mark.parametrize("block_frames", [0, -2, 1, 3, 2.5])
def test_blocks_that_the_decoder_cannot_take_are_refused(strided, block_frames):
    with pytest.raises(ValueError, match="multiple of 2"):
        Stream(strided, block_frames)


@pytest.mark.parametrize(
    ("what", "values", "message"),
    [
        ("note_on", (128, 1), "note_on: pitch=128 is not 0 to 127."),
        ("note_on", (float("nan"), 1), "note_on: pitch=nan is not 0 to 127."),
        ("note_on", (40, -1), "note_on: velocity=-1 is not 0 to 127."),
        ("control_change", (55, 200), "control_change: value=200 is not 0 to 127."),
        ("pitch_bend", (float("inf"),), "pitch_bend: semitones=inf is not a number."),
        ("note_off", (40, float("nan")), "note_off: frame=nan is not a number."),
    ],
)
def test_events_that_are_none_are_told(stream, what, values, message):
    with pytest.raises(DataError) as caught:
        getattr(stream, what)(*values)
    assert str(caught.value) == message
