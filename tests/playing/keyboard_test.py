"""Messages of keyboards: notes, wheels and ranges, knobs that are mapped and learnt, and MPE."""

import mido
import pytest

from neural_midi_synth.playing.keyboard import Event, Keyboard

STYLES = {"openness": 55, "power_chord": 56}
ONE = ("keyboard", None)


@pytest.fixture
def keyboard():
    return Keyboard("keyboard", STYLES)


def _control(number, value, channel=0):
    return mido.Message("control_change", control=number, value=value, channel=channel)


def _wheel(value, channel=0):
    return mido.Message("pitchwheel", pitch=value, channel=channel)


def _zone(members, channel=0):
    return [_control(101, 0, channel), _control(100, 6, channel), _control(6, members, channel)]


def _read(keyboard, *messages):
    return [event for message in messages for event in keyboard.read(message)]


def test_keys_of_every_channel_are_one_instrument(keyboard):
    first, second = mido.Message("note_on", note=60, velocity=90), mido.Message("note_on", note=62, channel=4)
    released = mido.Message("note_on", note=60, velocity=0, channel=9)
    assert _read(keyboard, first, second, released) == [
        Event("note_on", (60, 90), ONE),
        Event("note_on", (62, 64), ONE),
        Event("note_off", (60,), ONE),
    ]


def test_what_means_nothing_does_nothing(keyboard):
    assert _read(keyboard, mido.Message("program_change"), mido.Message("aftertouch"), mido.Message("clock")) == []


def test_the_wheel_bends_by_its_range(keyboard):
    assert _read(keyboard, _wheel(4096))[-1] == Event("pitch_bend", (1.0,), ONE)
    twelve = [_control(101, 0), _control(100, 0), _control(6, 12)]
    assert _read(keyboard, *twelve)[-1] == Event("pitch_bend", (6.0,), ONE)  # What is held moves, too.
    assert _read(keyboard, _wheel(-8192))[-1] == Event("pitch_bend", (-12.0,), ONE)


def test_the_modulation_wheel_is_for_the_first_style_unless_it_is_mapped(keyboard):
    assert _read(keyboard, _control(1, 30)) == [Event("control_change", (55, 30), None)]
    mapped = Keyboard("keyboard", STYLES, {74: "power_chord"})
    assert _read(mapped, _control(74, 100)) == [Event("control_change", (56, 100), None)]
    assert _read(mapped, _control(1, 30)) == [Event("control_change", (1, 30), ONE)]
    assert Keyboard("keyboard", {}).knobs == {}


def test_a_knob_is_learnt_by_moving_it_but_a_pedal_is_no_knob(keyboard):
    keyboard.learning = "power_chord"
    _read(keyboard, _control(64, 127), *_zone(0))
    assert keyboard.learning == "power_chord"
    assert _read(keyboard, _control(21, 5)) == [Event("control_change", (56, 5), None)]
    assert keyboard.learning is None
    assert _read(keyboard, _control(21, 6), _control(22, 6))[0] == Event("control_change", (56, 6), None)


def test_members_of_a_zone_bend_by_themselves_and_with_their_master(keyboard):
    _read(keyboard, *_zone(3))
    assert keyboard.has_mpe
    assert _read(keyboard, mido.Message("note_on", note=60, velocity=90, channel=1))[0].midi_channel == ("keyboard", 1)
    # Members bend by 48 semitones, and the master by 2.
    assert _read(keyboard, _wheel(4096, 1)) == [Event("pitch_bend", (24.0,), ("keyboard", 1))]
    of_master = _read(keyboard, _wheel(4096, 0))
    bends = {event.midi_channel[1]: event.values[0] for event in of_master}
    assert bends == {0: 1.0, 1: 25.0, 2: 1.0, 3: 1.0}
    # A channel outside the zone is what it was.
    assert _read(keyboard, mido.Message("note_on", note=60, channel=8))[0].midi_channel == ONE


def test_the_pedal_of_a_master_is_for_all_members_and_that_of_a_member_for_its_own(keyboard):
    _read(keyboard, *_zone(2))
    of_master = _read(keyboard, _control(64, 127))
    assert [event.midi_channel[1] for event in of_master] == [0, 1, 2]
    assert _read(keyboard, _control(64, 127, 2)) == [Event("control_change", (64, 127), ("keyboard", 2))]


def test_a_knob_of_a_member_shapes_its_own_note(keyboard):
    keyboard.knobs[74] = "openness"
    _read(keyboard, *_zone(5))
    assert _read(keyboard, _control(74, 9, 3)) == [Event("control_change", (55, 9), ("keyboard", 3))]
    assert _read(keyboard, _control(74, 9, 0)) == [Event("control_change", (55, 9), None)]


def test_the_upper_zone_counts_downward_and_a_newer_zone_takes_what_it_needs(keyboard):
    _read(keyboard, *_zone(15))
    _read(keyboard, *_zone(4, channel=15))
    of_upper = _read(keyboard, _control(64, 0, 15))
    assert [event.midi_channel[1] for event in of_upper] == [11, 12, 13, 14, 15]
    of_lower = _read(keyboard, _control(64, 0, 0))
    assert [event.midi_channel[1] for event in of_lower] == list(range(11))
    _read(keyboard, *_zone(0), *_zone(0, channel=15))
    assert not keyboard.has_mpe


def test_mpe_may_be_told_instead():
    keyboard = Keyboard("keyboard", STYLES, mpe=True)
    ranges = [event for event in keyboard.begin() if event.values == (6, 48)]
    assert [event.midi_channel[1] for event in ranges] == list(range(1, 16))
    assert _read(keyboard, _wheel(-8192, 15)) == [Event("pitch_bend", (-48.0,), ("keyboard", 15))]


def test_channels_of_a_file_are_each_by_themselves():
    file = Keyboard("file", STYLES, knobs={}, separate=True)
    assert _read(file, _control(55, 3, 6)) == [Event("control_change", (55, 3), ("file", 6))]
    assert _read(file, _wheel(8191, 2))[0].midi_channel == ("file", 2)


def test_a_keyboard_that_is_taken_away_lets_everything_go(keyboard):
    assert keyboard.released() == [Event("control_change", (64, 0), ONE), Event("control_change", (120, 0), ONE)]
    _read(keyboard, *_zone(2))
    channels = {event.midi_channel for event in keyboard.released()}
    assert channels == {ONE, *(("keyboard", channel) for channel in range(3))}
