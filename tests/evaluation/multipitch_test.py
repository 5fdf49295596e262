"""The pitches of chords whose notes are known are found, and agree with the right notes only."""

import numpy as np
import pytest

from neural_midi_synth.evaluation import multipitch
from neural_midi_synth.midi.pieces import Piece, Voice

SAMPLE_RATE = 16000
SECONDS = 1.5
FRAMES_PER_SECOND = multipitch.SAMPLE_RATE / multipitch.HOP


def chord(*pitches, seconds=SECONDS):
    """A voice for each pitch, all as long as the sound."""
    return Piece(tuple(Voice(np.array([[0.0, seconds, pitch, 100]])) for pitch in pitches))


def sound(*pitches, seconds=SECONDS, sample_rate=SAMPLE_RATE, level=0.3):
    """The sum of tones of ten falling harmonics, each begun at a phase of its own."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    samples = np.zeros(len(times))
    for number, pitch in enumerate(pitches):
        frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
        for k in range(1, 11):
            if k * frequency < sample_rate / 2:
                samples += np.sin(2 * np.pi * k * frequency * times + number + k) / k
    return (level / np.abs(samples).max() * samples).astype(np.float32)


CHORDS = {
    "a note": [52],
    "a fifth": [40, 47],
    "a major triad": [48, 52, 55],
    "a minor seventh chord": [57, 60, 64, 67],
    "E major on six strings, with its octaves": [40, 47, 52, 56, 59, 64],
    "a whole tone": [60, 62],
    "an octave": [45, 57],
    "low E of a bass": [28],
    "the highest C": [96],
    "out of tune by a quarter of a semitone": [48.25, 52.25, 55.25],
}


@pytest.mark.parametrize("name", CHORDS)
def test_all_notes_of_a_chord_are_found_and_no_others(name):
    pitches = CHORDS[name]
    precision, recall, f = multipitch.agreement(chord(*pitches), sound(*pitches), SAMPLE_RATE)
    assert min(precision, recall, f) >= 0.9


def test_the_sample_rate_does_not_matter():
    pitches = CHORDS["a minor seventh chord"]
    numbers = multipitch.agreement(chord(*pitches), sound(*pitches, sample_rate=44100), 44100)
    assert min(numbers) >= 0.9


@pytest.mark.parametrize(
    ("played", "precision", "recall"),
    [
        ([48, 52, 55], 1.0, 1.0),
        ([48, 52, 57], 2 / 3, 2 / 3),  # One of three is wrong: it is one too many, and one is missing.
        ([48, 55], 1.0, 2 / 3),
        ([48, 52, 55, 58], 3 / 4, 1.0),
        ([49, 53, 56], 0.0, 0.0),
    ],
)
def test_wrong_missing_and_additional_notes_count_as_such(played, precision, recall):
    found = multipitch.agreement(chord(48, 52, 55), sound(*played), SAMPLE_RATE)
    # Frames at both ends are half in silence, which costs a few of the 47 frames.
    assert found[0] == pytest.approx(precision, abs=0.06)
    assert found[1] == pytest.approx(recall, abs=0.06)
    assert found[2] == pytest.approx(2 * precision * recall / max(precision + recall, 1e-9), abs=0.06)


def test_a_rendering_is_measured_by_what_the_recording_gets():
    piece, right, wrong = chord(48, 52, 55), sound(48, 52, 55), sound(48, 52, 57)
    same = multipitch.compare(piece, right, right, SAMPLE_RATE)
    assert same["multipitch_share"] == 1.0
    numbers = multipitch.compare(piece, right, wrong, SAMPLE_RATE)
    assert numbers["multipitch_precision"] == pytest.approx(2 / 3, abs=0.06)
    assert numbers["multipitch_recall"] == pytest.approx(2 / 3, abs=0.06)
    for name in ("precision", "recall", "f"):
        assert numbers[f"reference_multipitch_{name}"] == same[f"multipitch_{name}"] >= 0.9
    assert numbers["multipitch_share"] == pytest.approx(
        numbers["multipitch_f"] / numbers["reference_multipitch_f"], abs=1e-9
    )


def test_a_rendering_that_stops_early_misses_the_rest():
    piece, samples = chord(48, 52, 55), sound(48, 52, 55)
    numbers = multipitch.compare(piece, samples, samples[: len(samples) // 2], SAMPLE_RATE)
    assert numbers["multipitch_precision"] >= 0.9
    assert numbers["multipitch_recall"] == pytest.approx(0.5, abs=0.07)  # A frame is 128 ms of the 1.5 s.


def test_silence_has_no_pitch():
    silence = np.zeros(SAMPLE_RATE, np.float32)
    assert all(frame.size == 0 for frame in multipitch.estimate(silence, SAMPLE_RATE))
    assert multipitch.agreement(chord(48, 52), silence, SAMPLE_RATE) == (0.0, 0.0, 0.0)
    assert np.isnan(multipitch.compare(chord(48, 52), silence, sound(48, 52), SAMPLE_RATE)["multipitch_share"])


def test_without_notes_there_is_nothing_to_agree_with():
    nothing = Piece((Voice(np.zeros([0, 4])), Voice(np.zeros([0, 4]))))
    assert np.isnan(multipitch.agreement(nothing, sound(48), SAMPLE_RATE)).all()


def test_hiss_far_below_the_notes_has_no_pitch():
    hiss = 3e-4 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE).astype(np.float32)
    hiss[: round(SECONDS * SAMPLE_RATE)] += sound(48, 55)
    frames = multipitch.estimate(hiss, SAMPLE_RATE)
    assert all(frame.size == 0 for frame in frames[round(1.7 * FRAMES_PER_SECOND) :])
    assert min(multipitch.agreement(chord(48, 55), hiss, SAMPLE_RATE)) >= 0.9


def test_voices_in_unison_are_one_pitch():
    piece = chord(48, 48, 55)
    assert [frame.tolist() for frame in multipitch.pitches_of(piece, 3)] == [[48.0, 55.0]] * 3
    assert min(multipitch.agreement(piece, sound(48, 48, 55), SAMPLE_RATE)) >= 0.9


def test_notes_count_from_onset_to_end_and_the_newest_of_a_voice_wins():
    voice = Voice(np.array([[0.1, 0.55, 48, 100], [0.5, 1.0, 50, 100]]))
    other = Voice(np.array([[0.5, 2.0, 60, 100]]))
    frames = multipitch.pitches_of(Piece((voice, other)), 70)
    at = {time: frames[round(time * FRAMES_PER_SECOND)].tolist() for time in (0.03, 0.2, 0.52, 0.9, 1.1, 2.1)}
    assert at == {0.03: [], 0.2: [48.0], 0.52: [50.0, 60.0], 0.9: [50.0, 60.0], 1.1: [60.0], 2.1: []}


def test_pitch_bends_move_the_pitches_of_their_voice():
    bent = Voice(np.array([[0.0, 1.5, 48, 100]]), pitch_bends=np.array([[0.75, 1.0]]))
    piece = Piece((bent, *chord(55).voices))
    half = round(0.75 * SAMPLE_RATE)
    samples = np.concatenate([sound(48, 55)[:half], sound(49, 55)[half:]])
    assert min(multipitch.agreement(piece, samples, SAMPLE_RATE)) >= 0.9
    assert multipitch.agreement(piece, sound(48, 55), SAMPLE_RATE)[1] == pytest.approx(0.75, abs=0.06)


def test_the_same_sound_gives_the_same_pitches_whatever_its_level_and_blocks(monkeypatch):
    samples = np.concatenate([sound(40, 47, 52), sound(45, 52, 57, 61)])
    first = multipitch.estimate(samples, SAMPLE_RATE)
    again, quiet = multipitch.estimate(samples, SAMPLE_RATE), multipitch.estimate(0.01 * samples, SAMPLE_RATE)
    monkeypatch.setattr(multipitch, "_BLOCK", 40)
    in_blocks = multipitch.estimate(samples, SAMPLE_RATE)
    assert sum(frame.size for frame in first) > 300
    for other in (again, quiet, in_blocks):
        assert [frame.tolist() for frame in other] == [frame.tolist() for frame in first]


@pytest.mark.parametrize("n_samples", [1, 100, 3000])
def test_a_sound_may_be_shorter_than_a_frame(n_samples):
    numbers = multipitch.compare(chord(48, 55), sound(48, 55)[:n_samples], sound(48, 55)[:n_samples], SAMPLE_RATE)
    assert 0.0 <= numbers["multipitch_f"] <= 1.0
