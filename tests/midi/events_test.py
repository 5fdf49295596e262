"""A MIDI channel means what MIDI says: pairing of notes, pedal, parameters, resets."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from neural_midi_synth.midi.events import Bent, ControlChanged, MidiChannel, NoteBegan, NoteEnded, as_midi


def play(*events):
    """Plays (method, time, …) to a channel; returns notes as (start, end, pitch), control changes and bends."""
    channel, facts = MidiChannel(), []
    for method, *values in events:
        facts += getattr(channel, method)(*values)
    return facts


def notes_of(facts):
    return [(f.note.start, f.note.end, f.note.pitch) for f in facts if isinstance(f, NoteBegan)]


def controls_of(facts):
    return [(f.time, f.number, f.value) for f in facts if isinstance(f, ControlChanged)]


def bends_of(facts):
    return [(f.time, f.semitones) for f in facts if isinstance(f, Bent)]


def on(time, pitch=60, velocity=100):
    return "note_on", time, pitch, velocity


def off(time, pitch=60):
    return "note_off", time, pitch


def cc(time, number, value=0):
    return "control_change", time, number, value


def wheel(time, value):
    return "pitch_wheel", time, value


def select_range(time):
    return cc(time, 101, 0), cc(time, 100, 0)


def test_facts_come_with_the_events_that_cause_them():
    channel = MidiChannel()
    (began,) = channel.note_on(1, 60, 100)
    assert isinstance(began, NoteBegan)
    assert (began.note.start, began.note.end, began.note.pitch, began.note.velocity) == (1, None, 60, 100)
    assert began.note.key_down
    assert channel.control_change(2, 64, 127) == [ControlChanged(2, 64, 127)]
    assert channel.note_off(3, 60) == []
    assert not began.note.key_down
    assert channel.control_change(4, 64, 63) == [ControlChanged(4, 64, 63), NoteEnded(began.note)]
    assert (began.note.key_up, began.note.end) == (3, 4)
    assert channel.note_off(5, 60) == channel.end(6) == []


def test_notes_of_one_pitch_pair_first_in_first_out():
    facts = play(on(0.0), on(0.9), off(1.0), off(2.0))
    assert notes_of(facts) == [(0.0, 1.0, 60), (0.9, 2.0, 60)]


def test_velocity_0_is_a_note_off():
    assert notes_of(play(on(0), on(1, velocity=0))) == [(0, 1, 60)]


@pytest.mark.parametrize("value", [64, 127])
def test_the_pedal_holds_until_it_rises(value):
    facts = play(on(0), cc(1, 64, value), off(2), on(3, 62), off(4, 62), cc(5, 64, 63), on(6), off(7))
    assert notes_of(facts) == [(0, 5, 60), (3, 5, 62), (6, 7, 60)]


def test_a_pedal_that_goes_down_as_a_key_goes_up_holds_by_the_order_of_events():
    assert notes_of(play(on(0), cc(1, 64, 127), off(1), cc(2, 64, 0))) == [(0, 2, 60)]
    assert notes_of(play(on(0), off(1), cc(1, 64, 127), cc(2, 64, 0))) == [(0, 1, 60)]


def test_a_half_pedal_holds_nothing():
    assert notes_of(play(on(0), cc(1, 64, 63), off(2), cc(3, 64, 0))) == [(0, 2, 60)]


def test_striking_a_pitch_again_ends_what_only_the_pedal_holds():
    facts = play(cc(0, 64, 127), on(0), off(1), on(2, 62), on(3), on(4), off(5), cc(6, 64, 0), off(7), off(8, 62))
    assert notes_of(facts) == [(0, 3, 60), (2, 8, 62), (3, 6, 60), (4, 7, 60)]


def test_the_end_ends_all_and_no_note_before_it_began():
    facts = play(cc(0, 64, 127), on(1), off(2), on(3, 62), on(6, 64), ("end", 5))
    assert notes_of(facts) == [(1, 5, 60), (3, 5, 62), (6, 6, 64)]


def test_the_wheel_bends_by_its_range():
    assert bends_of(play(wheel(0, 4096), wheel(1, -8192))) == [(0, 1.0), (1, -2.0)]
    facts = play(*select_range(0), cc(0, 6, 12), cc(0, 38, 50), wheel(1, 4096))
    assert bends_of(facts) == [(1, 6.25)]


def test_a_new_range_moves_a_bend_that_is_held():
    facts = play(wheel(0, 4096), *select_range(1), cc(1, 6, 12), cc(1, 38, 50), wheel(2, 0), cc(3, 6, 24))
    assert bends_of(facts) == [(0, 1.0), (1, 6.0), (1, 6.25), (2, 0.0)]


def test_bends_in_semitones_do_not_depend_on_the_range():
    facts = play(("pitch_bend", 0, 1.5), *select_range(1), cc(1, 6, 12), ("pitch_bend", 2, -30.0))
    assert bends_of(facts) == [(0, 1.5), (2, -30.0)]


@pytest.mark.parametrize(
    "others",
    [
        [],
        [cc(0, 101, 0), cc(0, 100, 1)],  # fine tuning
        [*select_range(0), cc(0, 99, 0), cc(0, 98, 0)],  # a non-registered parameter
        [*select_range(0), cc(0, 98, 5)],
        [*select_range(0), cc(0, 101, 127), cc(0, 100, 127)],  # no parameter
        [*select_range(0), cc(0, 121)],  # a reset selects none
    ],
)
def test_other_parameters_leave_the_range_alone(others):
    data = [cc(0, 6, 24), cc(0, 38, 24), cc(0, 96), cc(0, 97)]
    assert bends_of(play(*others, *data, wheel(1, 4096))) == [(1, 1.0)]


def test_data_increment_and_decrement_move_the_range_by_a_cent():
    def range_after(*events):
        # The wheel's lower end is exactly one range down.
        ((_, semitones),) = bends_of(play(*select_range(0), *events, wheel(1, -8192)))
        return -semitones

    assert range_after(cc(0, 96)) == pytest.approx(2.01)
    assert range_after(cc(0, 97)) == pytest.approx(1.99)
    assert range_after(cc(0, 38, 99), cc(0, 96)) == pytest.approx(3.0)
    assert range_after(cc(0, 38, 99), cc(0, 96), cc(0, 6, 5)) == pytest.approx(5.0)
    assert range_after(cc(0, 6, 127), cc(0, 38, 0), cc(0, 96)) == pytest.approx(127.0)
    assert range_after(cc(0, 6, 0), cc(0, 97)) == 0.0
    held = play(*select_range(0), wheel(0, -8192), cc(1, 96))
    assert bends_of(held)[-1] == (1, pytest.approx(-2.01))


def test_all_sound_off_ends_notes_that_the_pedal_holds():
    facts = play(cc(0, 64, 127), on(0), off(1), on(2, 62), cc(3, 120), off(4, 62), on(5), off(6), cc(7, 64, 0))
    assert notes_of(facts) == [(0, 3, 60), (2, 3, 62), (5, 7, 60)]


@pytest.mark.parametrize("number", [123, 124, 125, 126, 127])
def test_all_notes_off_releases_keys_and_the_pedal_still_holds(number):
    assert notes_of(play(on(0), on(1, 62), cc(2, number), off(3))) == [(0, 2, 60), (1, 2, 62)]
    assert notes_of(play(on(0), cc(1, 64, 127), cc(2, number), cc(3, 64, 0))) == [(0, 3, 60)]


@pytest.mark.parametrize("number", [119, 122])
def test_other_controllers_leave_notes_alone(number):
    assert notes_of(play(on(0), cc(1, number), off(2))) == [(0, 2, 60)]


def test_reset_all_controllers_is_that_of_rp_015():
    facts = play(cc(0, 7, 90), cc(0, 55, 80), cc(0, 64, 127), on(0), off(1), on(1, 62), wheel(2, 8191), cc(3, 121))
    facts += play(cc(3, 121))
    assert notes_of(facts) == [(0, 3, 60), (1, None, 62)]
    assert bends_of(facts)[1:] == [(3, 0.0)]
    reset = [(3, 121, 0), (3, 1, 0), (3, 11, 127), (3, 64, 0), (3, 65, 0), (3, 66, 0), (3, 67, 0)]
    assert controls_of(facts) == [(0, 7, 90), (0, 55, 80), (0, 64, 127), *reset, *reset]


def test_a_reset_keeps_the_range_but_not_the_wheel():
    facts = play(*select_range(0), cc(0, 6, 12), wheel(1, 4096), cc(2, 121), *select_range(3), cc(3, 6, 24))
    assert bends_of(facts) == [(1, 6.0), (2, 0.0)]
    assert bends_of(play(*select_range(0), cc(0, 6, 12), cc(2, 121), wheel(3, 4096))) == [(3, 6.0)]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("note_on"), st.integers(60, 62), st.integers(0, 2)),
        st.tuples(st.just("note_off"), st.integers(60, 62)),
        st.tuples(st.just("control_change"), st.just(64), st.sampled_from([0, 127])),
    ),
    max_size=40,
)


def ends_by_definition(events):
    """End of each note, found for each by looking at all events: `MidiChannel` does it without looking back."""
    last = len(events)
    ons = [(i, e[1]) for i, e in enumerate(events) if e[0] == "note_on" and e[2] > 0]
    offs = [(i, e[1]) for i, e in enumerate(events) if e[0] == "note_off" or (e[0] == "note_on" and e[2] == 0)]
    releases = {}
    for i, pitch in offs:
        open_notes = [j for j, p in ons if p == pitch and j < i and j not in releases]
        if open_notes:
            releases[open_notes[0]] = i
    for j, pitch in ons:
        end = last
        if j in releases:
            pedal = [e[2] for e in events[: releases[j]] if e[0] == "control_change"]
            if pedal and pedal[-1] >= 64:
                lifts = [i for i, e in enumerate(events) if e[0] == "control_change" and e[2] < 64 and i > releases[j]]
                again = [i for i, p in ons if p == pitch and i > releases[j]]
                end = min([*lifts, *again, last])
            else:
                end = releases[j]
        yield (j, end, pitch)


@hypothesis.given(EVENTS)
def test_notes_end_where_the_definition_says(events):
    facts = play(*((e[0], i, *e[1:]) for i, e in enumerate(events)), ("end", len(events)))
    assert notes_of(facts) == list(ends_by_definition(events))


@hypothesis.given(EVENTS)
def test_every_note_that_begins_ends_once(events):
    facts = play(*((e[0], i, *e[1:]) for i, e in enumerate(events)), ("end", len(events)))
    began = [id(fact.note) for fact in facts if isinstance(fact, NoteBegan)]
    ended = [id(fact.note) for fact in facts if isinstance(fact, NoteEnded)]
    assert sorted(began) == sorted(ended)


def test_a_channel_does_not_grow():
    channel = MidiChannel()
    for i in range(200):
        channel.note_on(i, i % 128, 100)
        channel.control_change(i, 64, 127 * (i % 3 == 0))
        channel.note_off(i + 0.5, i % 128)
        channel.pitch_wheel(i, i)
    channel.control_change(200, 64, 0)
    sizes = [len(value) for value in vars(channel).values() if hasattr(value, "__len__")]
    assert sorted(sizes) == [0, 2]  # No note, and the two bytes of the parameter.


@hypothesis.given(
    st.lists(st.tuples(st.floats(0.0, 9.0), st.floats(-60.0, 60.0)), max_size=9),
    st.lists(
        st.tuples(st.floats(0.0, 9.0), st.sampled_from([1, 6, 38, 55, 101, 121]), st.integers(0, 127)), max_size=9
    ),
)
def test_what_is_said_as_midi_is_read_back(bends, changes):
    bends = np.array(sorted(bends)).reshape([-1, 2])
    changes = np.array(sorted(changes), np.float64).reshape([-1, 3])
    said, wheel_values = as_midi(changes, bends)
    events = [("control_change", *row) for row in said] + [("pitch_wheel", *row) for row in wheel_values]
    facts = play(*sorted(events, key=lambda event: event[1]))
    read = np.array(bends_of(facts)).reshape([-1, 2])
    np.testing.assert_array_equal(read[:, 0], bends[:, 0])
    # Half a step of the widest range, and a whole one at its upper end, which MIDI does not reach.
    np.testing.assert_allclose(read[:, 1], bends[:, 1], rtol=0.0, atol=61.0 / 8192.0)
    kept = [row for row in controls_of(facts) if row[1] in (1, 55)]
    assert kept == [tuple(row) for row in changes if row[1] in (1, 55)]


def test_bends_wider_than_midi_allows_are_refused():
    with pytest.raises(ValueError, match="wider than MIDI"):
        as_midi(np.zeros([0, 3]), np.array([[0.0, -128.0]]))


def test_notes_whose_note_offs_get_lost_do_not_pile_up():
    midi_channel, lasting = MidiChannel(), set()
    for time in range(1000):
        for fact in midi_channel.note_on(time, 60, 100):
            (lasting.add if isinstance(fact, NoteBegan) else lasting.remove)(fact.note.start)
    assert lasting == set(range(936, 1000))
