"""Streams of several voices: chords, allocation and stealing, the notes of a file, and calls from any thread."""

import threading

import hypothesis
import hypothesis.strategies as st
import mido
import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.instrument import loading
from neural_midi_synth.midi.events import Note
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi
from neural_midi_synth.playing.allocation import VoiceAllocator
from neural_midi_synth.playing.stream import Stream

SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.FilteredNoise.initial_bias = -60.0",  # Noise of other voices is other noise, and could not be compared.
    "nms.Harmonic.movement_bias = -60.0",
    "nms.Reverb.reverb_length = 3000",
]
# The promise: the network's matrix products round differently in blocks, and the oscillators pass that on.
PROMISED = 1e-4
CHORD = (40, 47, 52, 56, 59, 64)


@pytest.fixture(scope="module")
def live():
    tf.random.set_seed(0)
    loading.configure([configs.find("models/guitar_live.gin")], SMALL, skip_unknown=True)
    return loading.build()


def _played(stream, n_blocks):
    return np.concatenate([stream.block() for _ in range(n_blocks)])


def _chord(start, end):
    return Piece(tuple(Voice(np.array([[start, end, pitch, 100]])) for pitch in CHORD))


@pytest.mark.parametrize("block_frames", [1, 4, 50])
def test_a_chord_is_the_rendering_of_its_piece(live, block_frames):
    stream = Stream(live, block_frames)
    assert stream.voices == 6
    for pitch in CHORD:
        stream.note_on(pitch, 100, frame=0)
        stream.note_off(pitch, frame=100)
    played = _played(stream, 200 // block_frames)
    piece = _chord(0.0, 100 / live.frame_rate)
    rendering = live.render(piece, n_samples=len(played) - stream.latency)
    np.testing.assert_allclose(played[stream.latency :], rendering, atol=PROMISED)
    assert np.abs(rendering).max() > 0.01


def test_a_piece_in_blocks_is_its_rendering(live):
    blocks = list(Stream(live, 4, voices=2).blocks(_chord(0.1, 0.7), n_samples=12_001))
    np.testing.assert_allclose(np.concatenate(blocks), live.render(_chord(0.1, 0.7), n_samples=12_001), atol=PROMISED)


def test_voices_that_had_no_note_add_nothing(live):
    one, six = Stream(live, 4, voices=1), Stream(live, 4, voices=6)
    for stream in (one, six):
        stream.note_on(45, 90, frame=7)
        stream.note_off(45, frame=60)
        stream.note_on(47, 90, frame=70)  # Monophonic playing stays in one voice.
    np.testing.assert_allclose(_played(six, 40), _played(one, 40), atol=1e-5)


def test_streams_of_an_instrument_share_their_graphs(live):
    first, second, wider = (Stream(live, 4, voices=voices) for voices in (2, 2, 5))
    assert first._engine._step is second._engine._step
    assert first._engine._step is not wider._engine._step


def _note(start, pitch, key_up=None, end=None):
    return Note(start, pitch, 100, key_up, end)


def test_notes_take_free_voices_first_and_the_oldest_last():
    allocator = VoiceAllocator(3)
    first, second, third = (_note(i, 60 + i) for i in range(3))
    assert [allocator.voice_for(note) for note in (first, second, third)] == [0, 1, 2]
    assert allocator.voice_for(_note(3, 61)) == 1  # The same pitch again, on the same string.
    assert allocator.voice_for(_note(4, 70)) == 0  # All are taken: the oldest.
    third.key_up = 5  # Its key is up, and the pedal holds it: the first to be stolen.
    assert allocator.voice_for(_note(6, 71)) == 2


def test_a_voice_that_ended_is_used_again_the_one_of_that_pitch_before_the_earliest():
    allocator = VoiceAllocator(3)
    first, second = _note(0, 60), _note(0, 64)
    assert [allocator.voice_for(note) for note in (first, second)] == [0, 1]
    first.key_up = first.end = 10
    second.key_up = second.end = 5
    assert allocator.voice_for(_note(20, 60)) == 0
    assert allocator.voice_for(_note(21, 61)) == 1  # A voice that had a note goes before one that had none.
    assert allocator.voice_for(_note(22, 62)) == 2


@pytest.mark.parametrize("voices", [0, -1, 1.5])
def test_a_stream_has_voices(live, voices):
    with pytest.raises(ValueError, match="whole number from 1"):
        Stream(live, 4, voices)


class _Notes(Stream):
    """A stream that remembers every note of its voices."""

    def reset(self):
        super().reset()
        self.notes_played = {}

    def _happen(self, end_frame):
        super()._happen(end_frame)
        for notes in self._voices.notes:
            self.notes_played.update({id(note): note for note in notes})


@pytest.fixture(scope="module")
def recorder(live):
    return _Notes(live, 8, voices=64)  # As many as there may be notes, so that none is stolen.


_KEYS = st.tuples(st.just("note_on"), st.integers(60, 63), st.integers(0, 127))
_RELEASES = st.tuples(st.just("note_off"), st.integers(60, 63))
_NUMBERS = st.sampled_from([1, 55, 64, 64, 64, 100, 101, 6, 38, 96, 97, 98, 120, 121, 123])
_CONTROLS = st.tuples(st.just("control_change"), _NUMBERS, st.sampled_from([0, 1, 63, 64, 127]))
_EVENTS = st.lists(st.tuples(st.integers(0, 6), st.one_of(_KEYS, _KEYS, _RELEASES, _CONTROLS)), max_size=40)


@hypothesis.settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(events=_EVENTS)
def test_random_events_are_the_same_notes_in_a_file_and_in_a_stream(recorder, tmp_path, events):
    """A second of the file is a frame of the stream, so that no overlap is as short as legato's."""
    recorder.reset()
    track, frame = mido.MidiTrack(), 0
    midi = mido.MidiFile(type=0, ticks_per_beat=1)
    midi.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=1_000_000))
    for wait, (what, *values) in [*events, (8, ("control_change", 120, 0))]:
        frame += wait
        names = {"note_on": ("note", "velocity"), "note_off": ("note",), "control_change": ("control", "value")}[what]
        track.append(mido.Message(what, time=wait, **dict(zip(names, values))))
        getattr(recorder, what)(*values, frame=frame)
    while recorder.frame <= frame:
        recorder.block()
    streamed = sorted(
        (note.start, note.end, note.pitch, note.velocity)
        for note in recorder.notes_played.values()
        if note.end > note.start
    )
    midi.save(tmp_path / "events.mid")
    if not streamed:
        return
    notes = read_midi(tmp_path / "events.mid").notes
    # In a voice the newest wins, so a note of one pitch ends where the next begins: compared are starts and velocities
    # of all, and ends of those that nothing cut.
    read = sorted((round(start), round(end), pitch, velocity) for start, end, pitch, velocity in notes)
    begun = {(start, pitch) for start, _, pitch, _ in streamed}
    cut = [
        (start, min([end, *(other for other, same in begun if same == pitch and start < other)]), pitch, velocity)
        for start, end, pitch, velocity in streamed
    ]
    newest = {(start, pitch): (start, end, pitch, velocity) for start, end, pitch, velocity in cut if end > start}
    assert {(start, pitch) for start, _, pitch, _ in read} == set(newest)
    for start, end, pitch, velocity in read:
        same = [each for each in cut if each[0] == start and each[2] == pitch]
        assert (start, end, pitch, velocity) in same


def test_two_notes_of_a_pitch_that_overlap_end_first_in_first_out(live):
    stream = _Notes(live, 8)
    for frame, what, *values in ((0, "note_on", 60, 100), (225, "note_on", 60, 90), (250, "note_off", 60)):
        getattr(stream, what)(*values, frame=frame)
    stream.note_off(60, frame=500)
    while stream.frame <= 500:
        stream.block()
    ends = sorted((note.start, note.end) for note in stream.notes_played.values())
    assert ends == [(0, 250), (225, 500)]


@pytest.mark.parametrize("number", [120, 123])
def test_all_notes_off_ends_them(live, number):
    stream = _Notes(live, 8)
    for pitch in CHORD:
        stream.note_on(pitch, 100)
    stream.control_change(number, 0, frame=40)
    _played(stream, 8)
    assert {note.end for note in stream.notes_played.values()} == {40}


def test_an_event_at_a_sample_is_heard_as_at_that_time_in_a_file(live):
    stream = Stream(live, 4)
    for sample in (0, 31, 32, 33, 63, 64, 95, 96, 191, 192, 600):
        voice = Voice(np.array([[sample / live.sample_rate, 0.5, 60.0, 100.0]]))
        stream.reset()
        stream.note_on(60, 100, frame=stream.frame_of(sample))
        played = np.concatenate([stream.block() for _ in range(8)])[live.latency :]
        np.testing.assert_allclose(played, live.render(voice, n_samples=len(played)), atol=1e-4)
        assert np.abs(played).max() > 0.01


def test_panic_and_reset_may_come_from_any_thread_while_blocks_are_played(live):
    stream = Stream(live, 1)
    stop, failures = threading.Event(), []

    def disturb():
        while not stop.is_set():
            for call in (stream.panic, lambda: stream.note_on(45, 100), stream.reset, lambda: stream.note_on(50, 100)):
                try:
                    call()
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            block = stream.block()
            assert block.shape == (live.hop,) and np.all(np.isfinite(block))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    stream.reset()
    assert stream.frame == 0
    stream.panic()
    assert not np.any(_played(stream, 20))


def test_control_frames_are_for_the_first_voice_or_for_each(live):
    one, two = Stream(live, 4, voices=1), Stream(live, 4, voices=2)
    frames = {channel: np.linspace(0.1, 0.5, 4) for channel in live.controls.channels}
    alone = one.block(frames)
    np.testing.assert_allclose(two.block(frames), alone, atol=1e-6)
    two.reset()
    both = {channel: np.stack([value, value]) for channel, value in frames.items()}
    np.testing.assert_allclose(two.block(both), 2.0 * alone, atol=1e-5)


def test_a_midi_channel_bends_and_shapes_its_own_notes_only(live):
    stream = Stream(live, 4)
    low = Voice(np.array([[0.0, 0.6, 45, 100]]), np.array([[0.0, 55, 0], [0.2, 55, 127]]), np.array([[0.3, 1.5]]))
    high = Voice(np.array([[0.0, 0.6, 57, 90]]), np.array([[0.0, 55, 64]]), np.array([[0.1, -3.0], [0.4, 0.5]]))
    for player, voice in (("one", low), ("two", high)):
        for (start, end, pitch, velocity), changes, bends in [
            (voice.notes[0], voice.control_changes, voice.pitch_bends)
        ]:
            for time, number, value in changes:
                stream.control_change(number, value, time * live.frame_rate, player)
            for time, semitones in bends:
                stream.pitch_bend(semitones, time * live.frame_rate, player)
            stream.note_on(pitch, velocity, start * live.frame_rate, player)
            stream.note_off(pitch, end * live.frame_rate, player)
    played = _played(stream, 50)
    rendering = live.render(Piece((low, high)), n_samples=len(played) - stream.latency)
    np.testing.assert_allclose(played[stream.latency :], rendering, atol=PROMISED)


def test_what_is_for_all_is_for_those_that_come_later_too(live):
    stream = Stream(live, 4, voices=2)
    stream.control_change(64, 127)
    stream.control_change(55, 90)
    stream.pitch_bend(2.0)
    stream.block()
    stream.note_on(45, 100, midi_channel="late")
    stream.note_off(45, frame=6, midi_channel="late")
    stream.block()
    stream.block()
    assert stream.pitches == [45, None]  # The pedal holds it.
    (rows, _) = stream._voices.rows(live.frame_rate)
    values = {number: value for _, number, value in rows["control_changes"]}
    assert values == {55: 90, 56: 0}
    assert rows["pitch_bends"][-1][1] == 2.0
    stream.control_change(64, 0)
    stream.block()
    assert stream.pitches == [None, None]


def test_a_pedal_holds_the_notes_of_its_own_midi_channel(live):
    stream = Stream(live, 4, voices=2)
    for player, pitch in (("pedal", 45), ("none", 52)):
        stream.note_on(pitch, 100, midi_channel=player)
    stream.control_change(64, 127, midi_channel="pedal")
    for player, pitch in (("pedal", 45), ("none", 52)):
        stream.note_off(pitch, frame=2, midi_channel=player)
    stream.block()
    assert stream.pitches == [45, None]
    stream.panic()
    assert stream.pitches == [None, None]
