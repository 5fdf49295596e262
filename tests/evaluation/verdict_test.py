"""The verdict names what gives an instrument away, the worst first, and what to record."""

import numpy as np
import pytest

from neural_midi_synth.evaluation.examples import Example
from neural_midi_synth.evaluation.likeness import likeness
from neural_midi_synth.evaluation.verdict import judge
from neural_midi_synth.midi.pieces import Voice

SAMPLE_RATE = 16000
PITCHES = np.tile([40.0, 45.0, 52.0, 57.0], 6)
ONSETS = 0.5 + 0.5 * np.arange(len(PITCHES))
LENGTH = 0.4


def play(pitches=PITCHES, delay=0.0, colour=1.0, cents=0.0, only=None, lasts=LENGTH):
    """Decaying notes; what is told of their sound holds for all, or where `only` is."""
    samples = np.zeros(round((ONSETS[-1] + 1.0) * SAMPLE_RATE), np.float32)
    times = np.arange(round(lasts * SAMPLE_RATE)) / SAMPLE_RATE
    for index, (onset, pitch) in enumerate(zip(ONSETS, pitches)):
        changed = only is None or only[index]
        first = round((onset + delay * changed) * SAMPLE_RATE)
        f0_hz = 440.0 * 2.0 ** ((pitch - 69.0 + cents * changed / 100.0) / 12.0)
        partials = np.arange(1, 9)
        sound = np.cos(2.0 * np.pi * f0_hz * times[:, np.newaxis] * partials) @ (
            1.0 / partials ** (colour if changed else 1.0)
        )
        samples[first : first + len(times)] += 0.1 * np.exp(-3.0 * times) * sound
    return samples


def judged(rendering, n_notes=None, **kwargs):
    rows = np.stack([ONSETS, ONSETS + LENGTH, PITCHES, np.full(len(PITCHES), 100.0)], axis=1)[:n_notes]
    example = Example("a", Voice(rows), play())
    return judge(likeness([example], [rendering], SAMPLE_RATE, {"openness": 55}), ["openness"], **kwargs)


def test_the_recording_itself_is_taken_for_it():
    verdict = judged(play())
    assert verdict.message == "Taken for the recording."
    assert (verdict.faults, verdict.record, verdict.against) == ({}, [], "the player")


def test_late_attacks_are_named():
    verdict = judged(play(delay=0.003))
    assert verdict.verdict == "near"
    assert next(iter(verdict.faults)) == "rise"
    assert verdict.faults["rise"] == pytest.approx(3.0, abs=0.2)  # ms, of the 1 ms that the player may be off.
    assert verdict.message.startswith("Near: attacks are blurred")


def test_what_is_wrong_with_one_thing_is_said_of_it_together():
    wrong = play(delay=0.006, colour=2.5)
    assert "the tone is off, and attacks have another colour and are blurred." in judged(wrong).message
    assert (
        "the pitch is off, the tone is off and attacks have another colour."
        in judged(wrong, pitch_accuracy=0.8).message
    )


def test_what_has_another_tone_or_plays_other_notes_is_told_apart():
    dull = judged(play(colour=1.4))
    assert dull.verdict in ("near", "recognised") and "the tone is off" in dull.message
    other = judged(play(pitches=PITCHES + 3.0, colour=3.0), pitch_accuracy=0.0)
    assert other.verdict == "far off"
    assert other.message.startswith("Far off: the pitch is off")
    assert judged(play(), pitch_accuracy=0.8).message == "Recognised: the pitch is off."


def test_notes_that_are_worse_than_the_rest_are_to_be_recorded():
    low = judged(play(delay=0.02, only=PITCHES < 46.0))
    assert low.record[0] == "Record more notes from E2 to A2: attacks are blurred there above all."
    everywhere = judged(play(delay=0.02), advice=["No soft notes from E2 to A2."])
    assert everywhere.record == ["No soft notes from E2 to A2."]


def test_without_notes_played_twice_a_usual_player_stands_in():
    verdict = judged(play(delay=0.006), n_notes=6)
    assert verdict.against == "a usual player"
    assert "attacks are blurred" in verdict.message and "no note is played twice" in verdict.message


def test_without_notes_there_is_nothing_to_tell():
    assert judged(play(), n_notes=0).verdict == "unknown"
