"""The instrument and the player are measured on the same notes, alike."""

import json

import numpy as np
import pytest

from neural_midi_synth.evaluation.examples import Example
from neural_midi_synth.evaluation.likeness import FEWEST_PAIRS, NOTE_MEASURES, distances, likeness, table_of_notes
from neural_midi_synth.midi.pieces import Voice

SAMPLE_RATE = 16000
ONSETS = 0.5 + 2.0 * np.arange(9)


def play(decay=-20.0, delay=0.0, inharmonicity=0.0, colour=1.0, times=None):
    """Nine notes of 1 s, each a decaying string that sets in `delay` seconds late."""
    samples = np.zeros(round(19.0 * SAMPLE_RATE), np.float32)
    partials = np.arange(1, 17)
    frequencies = 110.0 * partials * np.sqrt(1.0 + inharmonicity * partials**2)
    for index, onset in enumerate(ONSETS):
        first = round((onset + (delay if np.isscalar(delay) else delay[index])) * SAMPLE_RATE)
        seconds = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        sound = np.cos(2.0 * np.pi * seconds[:, np.newaxis] * frequencies) @ (1.0 / partials**colour)
        samples[first : first + SAMPLE_RATE] += 0.1 * 10.0 ** (decay * seconds / 20.0) * sound
    return samples


@pytest.fixture
def voice():
    return Voice(np.stack([ONSETS, ONSETS + 1.0, np.full(9, 45.0), np.full(9, 100.0)], axis=1))


def test_what_plays_like_the_recording_is_as_near_as_the_player(voice):
    measured = likeness([Example("a", voice, play())], [play()], SAMPLE_RATE, {})
    facts = measured.facts()
    assert (facts["notes"], facts["played_twice"], facts["from_takes"]) == (9, 9, False)
    for name, figures in facts["measures"].items():
        assert figures["median"] == pytest.approx(0.0, abs=1e-6), name
        assert figures["multiple"] == 1.0, name
    assert facts["flux_share"] == 1.0
    json.dumps(facts, allow_nan=False)


def test_attacks_are_those_of_notes_that_follow_no_other(voice):
    recorded, played = play(), play(delay=0.004)
    rows = np.concatenate([voice.notes, [[ONSETS[0] + 1.01, ONSETS[0] + 1.5, 50.0, 100.0]]])
    attacks = likeness([Example("a", Voice(rows), recorded)], [played], SAMPLE_RATE, {}).attacks
    assert [attack.pitch for attack in attacks] == [45.0] * 9
    begin = round((ONSETS[0] - 0.01) * SAMPLE_RATE)
    np.testing.assert_array_equal(attacks[0].recorded, recorded[begin : begin + round(0.06 * SAMPLE_RATE)])
    assert np.abs(attacks[0].played[: round(0.0139 * SAMPLE_RATE)]).max() == 0.0


def test_a_player_who_is_late_now_and_then_is_the_measure_of_the_instrument(voice):
    # Every note's other rendition is 4 ms earlier or later, and the instrument 8 ms late.
    delays = 0.004 * (np.arange(9) % 2)
    one, other = play(delay=delays), play(delay=0.004 - delays)
    examples = [Example("a", voice, one)]
    measured = likeness(examples, [play(delay=delays + 0.008)], SAMPLE_RATE, {})
    figures = measured.facts()["measures"]["rise"]
    assert figures["median"] == pytest.approx(8.0, abs=0.1)
    # Nearest are renditions of one length and velocity: the first that is another note, late or not.
    assert figures["player_p90"] == pytest.approx(4.0, abs=0.1)
    same = likeness(examples, [other], SAMPLE_RATE, {}).facts()["measures"]["rise"]
    assert same["median"] == pytest.approx(4.0, abs=0.1)


def test_each_measure_tells_what_was_changed_in_its_unit(voice):
    examples = [Example("a", voice, play())]
    apart = {
        "decay": distances(likeness(examples, [play(decay=-32.0)], SAMPLE_RATE, {}).instrument)["decay"],
        "rise": distances(likeness(examples, [play(delay=0.02)], SAMPLE_RATE, {}).instrument)["rise"],
        "stretch": distances(likeness(examples, [play(inharmonicity=1e-4)], SAMPLE_RATE, {}).instrument)["stretch"],
    }
    np.testing.assert_allclose(apart["decay"], 12.0, atol=0.5)
    np.testing.assert_allclose(apart["rise"], 20.0, atol=0.5)
    # In the middle of partials 6 to 16 is the eleventh.
    np.testing.assert_allclose(apart["stretch"], 600.0 * np.log2((1.0 + 121e-4) / 1.0001), atol=1.0)
    facts = likeness(examples, [play(decay=-30.0)], SAMPLE_RATE, {}).facts()
    assert facts["decay_seconds"] == {
        "instrument": pytest.approx(2.0, rel=0.02),
        "recording": pytest.approx(3.0, rel=0.02),
    }


def test_the_multiple_is_over_the_notes_that_are_played_twice(voice):
    # A tenth note, played once, is missed altogether.
    rows = np.concatenate([voice.notes, [[18.6, 18.9, 50.0, 100.0]]])
    recorded = play()
    recorded[round(18.6 * SAMPLE_RATE) : round(18.9 * SAMPLE_RATE)] = 0.1 * np.sin(np.arange(round(0.3 * SAMPLE_RATE)))
    facts = likeness([Example("a", Voice(rows), recorded)], [play()], SAMPLE_RATE, {}).facts()
    assert (facts["notes"], facts["played_twice"]) == (10, 9)
    assert facts["measures"]["log_mel"]["multiple"] == 1.0
    assert facts["measures"]["log_mel"]["p90"] > 0.0


def test_too_few_pairs_are_no_player(voice):
    few = Voice(voice.notes[: FEWEST_PAIRS - 1])
    figures = likeness([Example("a", few, play())], [play()], SAMPLE_RATE, {}).facts()["measures"]["log_mel"]
    assert figures == {"median": 0.0, "p90": 0.0}


def test_attacks_that_the_note_before_covers_are_no_measure_of_the_player():
    # Quiet notes follow loud ones closely: what is loudest around their onset is the note before.
    starts = np.repeat(0.5 + 1.5 * np.arange(6), 2) + np.tile([0.0, 0.5], 6)
    rows = np.stack([starts, starts + 0.5, np.tile([52.0, 45.0], 6), np.tile([120.0, 20.0], 6)], axis=1)
    times = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    recorded = np.zeros(len(times))
    for start, end, _, velocity in rows:
        inside = (times >= start) & (times < end)
        recorded[inside] = (velocity / 127.0) ** 2 * np.sin(2.0 * np.pi * 500.0 * times[inside])
    example = Example("a", Voice(rows), recorded)
    figures = likeness([example], [recorded], SAMPLE_RATE, {})
    assert np.isfinite(figures.player["log_mel"]).all()
    np.testing.assert_array_equal(np.isfinite(figures.player["rise"]), rows[:, 3] > 100)
    np.testing.assert_array_equal(np.isfinite(figures.player["click"]), rows[:, 3] > 100)


def test_examples_without_recordings_and_without_notes_have_no_numbers(voice):
    facts = likeness([Example("a", voice, None)], [play()], SAMPLE_RATE, {}).facts()
    assert facts["notes"] == 0
    silent = Example("b", Voice(np.zeros([0, 4])), np.zeros(1000, np.float32))
    facts = likeness([silent], [np.zeros(1000, np.float32)], SAMPLE_RATE, {"openness": 55}).facts()
    assert facts["notes"] == 0
    assert table_of_notes(facts).count("\n") == 1 + len(NOTE_MEASURES)
