"""Live play without devices: events with times go in, a device's blocks come out when and as it was said."""

import threading
import time

import mido
import numpy as np
import pytest

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.playing.keyboard import Keyboard
from neural_midi_synth.playing.live import Live
from neural_midi_synth.playing.output import Resampler
from neural_midi_synth.playing.recording import Recording
from neural_midi_synth.playing.session import Session

COMPUTING = 0.005
CHORD = (40, 45, 50, 55, 59, 64)


@pytest.fixture(scope="module")
def guitar():
    return nms.load()


class Device:
    """A sound device in a time of its own: blocks are computed when they are due, and take as long as it is told."""

    def __init__(self, live, rate=48000, buffer=256, latency=0.01, takes=0.0):
        self.live, self.rate, self.buffer, self._takes = live, rate, buffer, takes
        live.connect(rate, buffer, latency)
        self.now, self._next = 100.0, 100.0
        self.heard, self.blocks = [], []
        live.on_block = lambda frame, block: self.blocks.append(block)

    def run(self, seconds, events=(), stall=None):
        """Goes on for some time; `events` are times from now and what is called then; no block comes in `stall`."""
        begin = self.now
        events = sorted(events, key=lambda event: event[0])
        while self.now < begin + seconds:
            stalls = stall is not None and begin + stall[0] <= self.now < begin + stall[1]
            due = self.live.due(self.now) if not stalls else np.inf
            event = begin + events[0][0] if events else np.inf
            self.now = max(min(due, event, self._next), self.now)
            if event <= min(due, self._next):
                events.pop(0)[1](event)
            elif due <= self._next:
                began = self.now
                while self._next < began + self._takes:
                    self._ask()
                self.live.compute(began)
                self.now = began + self._takes
            else:
                self._ask()
        return np.concatenate(self.heard)

    def _ask(self):
        self.heard.append(self.live.read(self.buffer, self._next))
        self._next += self.buffer / self.rate


def _note(live, pitch, velocity=100):
    return lambda when: live.happen("note_on", (pitch, velocity), when)


def _off(live, pitch):
    return lambda when: live.happen("note_off", (pitch,), when)


def _shift(heard, played):
    """By how many samples what was heard is behind what was played, and how well it is the same then."""
    n = 1 << (len(heard) + len(played)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(played, n)), n)
    shift = int(np.argmax(correlation))
    both = min(len(heard) - shift, len(played))
    return shift, np.corrcoef(heard[shift : shift + both], played[:both])[0, 1]


# JACK's usual buffers, at the instrument's own rate, which fit three into a block of 16 ms; some that fit no block.
@pytest.mark.parametrize(("rate", "buffer"), [(48000, 256), (48000, 240), (44100, 256), (16000, 128), (48000, 1024)])
@pytest.mark.parametrize("block_frames", [1, 4])
def test_every_event_is_heard_after_the_latency_that_is_told(guitar, rate, buffer, block_frames):
    live = Live(guitar, block_frames, voices=2, computing=COMPUTING)
    device = Device(live, rate, buffer)
    device.run(0.2)
    begin, frames, times = device.now, [], []

    def happens(when):
        times.append(when)
        frames.append(live.happen("note_on", (45 + len(frames) % 7, 100), when))

    # At every phase of frames, blocks and buffers.
    heard = device.run(2.2, [(0.05 * i + 0.0007 * i, happens) for i in range(40)])
    played = Resampler(guitar.sample_rate, rate)(np.concatenate(device.blocks))
    shift, same = _shift(heard, played)
    assert same > 0.999  # All that was played is heard, as it was played.
    assert live.gaps == 0
    assert live.late == 0
    # A frame's sound begins where the stream has it, made later by the resampler.
    delay = (guitar.latency + Resampler(guitar.sample_rate, rate).delay) / guitar.sample_rate
    sounds = 100.0 + shift / rate + np.array(frames) / guitar.frame_rate + delay
    assert begin > 100.0
    late = sounds - np.array(times) - (live.latency.total - 0.01)
    assert abs(late.mean()) < 0.001
    assert np.abs(late).max() < live.tolerance + 0.0005


# Of 4 and 8 ms for buffers of 5.3 and 21.3: up to six are asked for at once.
@pytest.mark.parametrize(("block_frames", "buffer"), [(1, 256), (1, 1024), (2, 256), (2, 1024), (4, 256)])
def test_blocks_that_take_the_time_they_have_are_not_late(guitar, block_frames, buffer):
    computing = 0.0025
    live = Live(guitar, block_frames, voices=2, computing=computing)
    device = Device(live, buffer=buffer, takes=0.98 * computing)
    device.run(1.5, [(0.2 + 0.1 * i, _note(live, 45 + i)) for i in range(10)])
    assert live.late == 0
    assert live.gaps == 0


def test_the_latency_is_the_sum_of_its_parts(guitar):
    live = Live(guitar, 4, computing=COMPUTING)
    live.connect(48000, 256, 0.0053)
    latency = live.latency
    assert latency.block == pytest.approx(0.01575)  # 16 ms, less half the way between two places for events.
    assert latency.computing == COMPUTING
    assert latency.network == pytest.approx(0.004)  # A hop.
    assert latency.device == pytest.approx(0.0053)  # Three buffers fit into a block.
    assert latency.total == pytest.approx(0.03005)
    live.connect(44100, 256, 0.0053)
    delay = Resampler(48000, 44100).delay / 48000
    assert 0.0001 < delay < 0.001
    assert live.latency.network == pytest.approx(0.004 + delay)  # A hop, and the resampler.


def test_the_block_is_the_shortest_that_the_machine_holds(guitar):
    live = Live(guitar)
    seconds = live.stream.block_samples / guitar.sample_rate
    assert seconds in (0.004, 0.008, 0.016, 0.032)
    assert 0.001 < live.latency.computing
    assert live.stream.frame == 0


def test_an_instrument_that_must_know_the_future_is_refused(trained):
    with pytest.raises(DataError, match="cannot be played live.*guitar_live"):
        Live(nms.load(trained.folder))


# Clicks: the highest second difference beside the level of the 20 ms around it. A click of a thousandth of full scale
# in a loud note is far above the note's own.


def _clicks(samples, rate):
    bent = np.abs(np.diff(samples, 2))
    n = round(0.02 * rate)
    level = np.sqrt(np.convolve(samples**2, np.ones(n) / n, "same"))[1:-1]
    return float((bent / (level + 0.01)).max())


def test_the_measure_finds_clicks():
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(9600) / 48000)
    clicked = tone.copy()
    clicked[5000:] += 0.01
    assert _clicks(clicked, 48000) > 10 * _clicks(tone, 48000)


def _chord_events(live, seconds, pitches=CHORD):
    events = []
    for i, pitch in enumerate(pitches):
        events += [(0.1 + 0.08 * i, _note(live, pitch)), (seconds - 0.3, _off(live, pitch))]
    return events


@pytest.fixture(scope="module")
def undisturbed(guitar):
    live = Live(guitar, 4, computing=COMPUTING)
    return _clicks(Device(live).run(2.0, _chord_events(live, 2.0)), 48000)


def _set(live, number, value):
    return lambda when: live.happen("control_change", (number, value), when)


@pytest.mark.parametrize("style", ["openness", "power_chord"])
def test_sweeping_a_knob_clicks_no_more_than_the_notes(guitar, style):
    number = guitar.styles[style]

    def heard(events):
        live = Live(guitar, 4, computing=COMPUTING)
        turns = [(at, _set(live, number, value)) for at, value in events]
        return Device(live).run(2.0, _chord_events(live, 2.0) + turns)

    still = max(_clicks(heard([(0.02, value)]), 48000) for value in (0, 64, 127))
    sweep = [(0.3 + 0.002 * i, 127 * (i // 100 % 2)) for i in range(300)]  # There and back at once,
    sweep += [(0.9 + 0.002 * i, abs(i % 254 - 127)) for i in range(400)]  # and step by step.
    assert _clicks(heard(sweep), 48000) < 1.5 * still


def test_stealing_notes_clicks_no_more_than_the_notes(guitar):
    pitches = [CHORD[i % 6] + i // 6 % 3 for i in range(36)]

    live = Live(guitar, 4, voices=2, computing=COMPUTING)
    stolen = Device(live).run(2.0, [(0.1 + 0.05 * i, _note(live, pitch)) for i, pitch in enumerate(pitches)])
    live = Live(guitar, 4, voices=2, computing=COMPUTING)
    one_by_one = []
    for i, pitch in enumerate(sorted(set(pitches))):
        one_by_one += [(0.1 + 0.3 * i, _note(live, pitch)), (0.3 + 0.3 * i, _off(live, pitch))]
    alone = Device(live).run(0.3 * len(one_by_one) / 2 + 0.2, one_by_one)
    assert _clicks(stolen, 48000) < _clicks(alone, 48000)


@pytest.mark.parametrize("seconds", [0.025, 0.05, 0.3])
def test_late_blocks_fade_and_play_goes_on_in_time(guitar, undisturbed, seconds):
    live = Live(guitar, 4, computing=COMPUTING)
    device = Device(live)
    heard = device.run(2.0, _chord_events(live, 2.0), stall=(1.0, 1.0 + seconds))
    assert live.gaps >= 1
    assert _clicks(heard, 48000) < 1.5 * undisturbed
    assert np.abs(heard[round(1.4 * 48000) : round(1.6 * 48000)]).max() > 0.01  # The chord still sounds.
    gaps, times, frames = live.gaps, [], []

    def happens(when):
        times.append(when)
        frames.append(live.happen("note_on", (45, 100), when))

    before = len(device.blocks)
    heard = device.run(1.0, [(0.3, happens)])
    assert live.gaps == gaps
    played = np.concatenate(device.blocks[before:])
    since = heard[-round(0.9 * 48000) :]
    shift, _ = _shift(played, since)
    first_frame = live.stream.frame - (len(device.blocks) - before) * live.stream.block_frames
    begin = len(heard) - len(since) - shift  # Where the first of these blocks was heard.
    sound = 100.0 + begin / 48000 + (frames[0] - first_frame) / guitar.frame_rate + 0.004
    assert sound - times[0] == pytest.approx(live.latency.total - 0.01, abs=live.tolerance + 0.0005)


@pytest.mark.slow
def test_after_late_blocks_latency_grows_and_comes_back_when_it_is_calm(guitar):
    least = 1e-4  # No block is computed in so short a time, so late ones make it grow.
    live = Live(guitar, 8, voices=1, computing=least)
    device = Device(live)
    device.run(1.0, [(0.1, _note(live, 40))])
    assert live.latency.computing == least
    device.run(0.5, stall=(0.1, 0.125))
    assert live.late == 1
    assert live.latency.computing == least  # Once may be chance.
    device.run(0.5, stall=(0.1, 0.13))
    assert live.late == 2
    grown = live.latency.computing
    assert grown > least
    device.run(58.0)
    assert live.latency.computing == grown
    device.run(1.4, [(time, _note(live, 40)) for time in np.arange(0.5, 1.4, 0.05)])  # Not while events come.
    assert live.latency.computing == grown
    device.run(60.0)
    assert least <= live.latency.computing < grown


def test_panic_is_silence_without_a_click(guitar, undisturbed):
    live = Live(guitar, 4, computing=COMPUTING)
    device = Device(live)
    heard = device.run(1.5, [*_chord_events(live, 9.0), (1.0, lambda when: live.panic())])
    assert live.gaps == 0
    assert _clicks(heard, 48000) < 1.5 * undisturbed
    assert not heard[round(1.03 * 48000) :].any()
    assert np.abs(device.run(0.5, [(0.1, _note(live, 45))])[-9600:]).max() > 0.01


def test_a_device_that_goes_and_comes_back_at_another_rate_plays_on(guitar, undisturbed):
    live = Live(guitar, 4, computing=COMPUTING)
    device = Device(live)
    heard = device.run(1.0, _chord_events(live, 9.0))
    assert live.due(device.now + 1.0) == np.inf  # Nothing is computed for nobody.
    other = Device(live, 44100, 512)
    other_heard = other.run(1.0)
    assert np.abs(other_heard[-22050:]).max() > 0.01
    assert _clicks(heard, 48000) < 1.5 * undisturbed
    assert _clicks(other_heard, 48000) < 1.5 * undisturbed
    assert live.gaps == 0


def test_a_thread_computes_in_time_and_stops_with_its_error(guitar):
    live = Live(guitar, 8, computing=0.03)
    live.connect(48000, 480)
    heard, done = [], threading.Event()

    def device():
        begin = time.perf_counter()
        for i in range(150):
            time.sleep(max(begin + 0.01 * i - time.perf_counter(), 0.0))
            heard.append(live.read(480, time.perf_counter()))
        done.set()

    with live.running():
        thread = threading.Thread(target=device)
        thread.start()
        time.sleep(0.2)
        for pitch in CHORD:
            live.happen("note_on", (pitch, 100), time.perf_counter())
        assert done.wait(20.0)
        thread.join()
        assert live.failure is None
        assert np.abs(np.concatenate(heard)[24000:]).max() > 0.05
        assert live.load > 0.0

        def fails(frame, block):
            raise OSError("no room")

        live.on_block = fails
        live.read(480, time.perf_counter())
        until = time.perf_counter() + 5.0
        while live.failure is None and time.perf_counter() < until:
            live.read(480, time.perf_counter())
            time.sleep(0.005)
    assert str(live.failure) == "no room"


def _session(guitar, path, piece=None, mpe=False):
    live = Live(guitar, 4, computing=COMPUTING)
    take = Recording(path, guitar.sample_rate, guitar.hop, guitar.latency)
    device = Device(live)
    keyboard = Keyboard("keyboard", guitar.styles, mpe=mpe)
    session = Session(live, keyboard, piece, take)

    def played(frame, block):
        take.played(frame, block)
        device.blocks.append(block)

    live.on_block = played
    return session, device, take


def _receive(session, *messages):
    return lambda when: [session.receive(message, when) for message in messages]


def test_a_take_is_the_rendering_of_its_midi(guitar, tmp_path):
    session, device, take = _session(guitar, tmp_path / "take.wav")
    on, off = (lambda note, name=name: mido.Message(name, note=note, velocity=90) for name in ("note_on", "note_off"))
    events = [
        (0.2, _receive(session, mido.Message("control_change", control=1, value=100), on(45))),
        (0.5, _receive(session, mido.Message("pitchwheel", pitch=4080))),
        (0.7, _receive(session, off(45), mido.Message("pitchwheel", pitch=0))),
        (0.9, _receive(session, on(52))),
        (1.2, _receive(session, off(52))),
    ]
    with take:
        device.run(2.0, events)
    samples, rate = read_audio(tmp_path / "take.wav")
    assert rate == guitar.sample_rate
    assert len(samples) == pytest.approx(2.0 * rate, abs=800)
    rendered = guitar.render(tmp_path / "take.mid", n_samples=len(samples))
    assert np.abs(rendered).max() > 0.05
    # The file has 24 bits. It has bends in steps of 0.6 cents, of which this one is a multiple.
    np.testing.assert_allclose(samples, rendered, atol=1e-4)
    piece = nms.read_midi(tmp_path / "take.mid")
    assert [(round(note[0], 1), note[2]) for note in piece.notes] == [(0.2, 45), (0.9, 52)]
    assert session.values["openness"] == 100


def test_a_file_plays_as_it_is_rendered_and_the_keyboard_along_with_it(guitar, tmp_path):
    notes = np.array([[0.1, 0.5, 45, 100], [0.5, 0.9, 47, 80]])
    piece = Piece((Voice(notes, np.array([[0.0, 55, 20]]), np.array([[0.3, 1.5], [0.6, 0.0]])),))
    session, device, take = _session(guitar, tmp_path / "take.wav", piece)
    with take:
        device.run(0.8)
        alone = len(np.concatenate(device.blocks)) - guitar.latency
        device.run(1.6, [(0.1, _receive(session, mido.Message("note_on", note=64, velocity=90)))])
    assert session.is_over
    tracks = mido.MidiFile(tmp_path / "take.mid").tracks
    assert [track[0].name for track in tracks] == ["file", "keyboard"]
    pitches = [[message.note for message in track if message.type == "note_on"] for track in tracks]
    assert pitches == [[45, 47], [64]]
    played = nms.read_midi(tmp_path / "take.mid", track="file")
    begin = played.notes[0, 0] - 0.1
    # At the frames that they have in the file: 250 a second.
    np.testing.assert_allclose(played.notes[:, :2] - begin, notes[:, :2], atol=0.002)
    rendered = guitar.render(played, n_samples=alone)
    assert np.abs(rendered).max() > 0.05
    # The network hears of the style with the first note, in a rendering a tenth of a second before.
    np.testing.assert_allclose(read_audio(tmp_path / "take.wav")[0][:alone], rendered, atol=0.01)


def test_nothing_that_was_played_is_a_take_of_silence(guitar, tmp_path):
    with Recording(tmp_path / "take.wav", guitar.sample_rate, guitar.hop, guitar.latency):
        assert not (tmp_path / "take.wav").exists()
    assert not read_audio(tmp_path / "take.wav")[0].any()
    assert mido.MidiFile(tmp_path / "take.mid").length == 0


def test_a_take_that_can_not_be_written_leaves_nothing(guitar, tmp_path):
    take = Recording(tmp_path / "take.wav", 16000, guitar.hop, guitar.latency)
    with pytest.raises(DataError, match="NaN"), take:
        take.played(0, np.full(256, np.nan, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_members_of_mpe_bend_their_own_notes_and_the_take_keeps_it(guitar, tmp_path):
    session, device, take = _session(guitar, tmp_path / "take.wav", mpe=True)
    notes = [mido.Message("note_on", note=note, channel=channel) for note, channel in ((45, 1), (52, 2))]
    bend = mido.Message("pitchwheel", pitch=round(8192 * 3 / 48), channel=2)
    with take:
        device.run(1.5, [(0.1, _receive(session, *notes)), (0.5, _receive(session, bend))])
    piece = nms.read_midi(tmp_path / "take.mid")
    bends = {voice.notes[0, 2]: voice.pitch_bends[:, 1].round(2).tolist() for voice in piece.voices}
    assert bends == {45: [], 52: [3.0]}
