"""Velocities told from the sound agree with those it was played with, and good annotations are known to be good."""

import dataclasses

import numpy as np
import pytest

from neural_midi_synth.data_prep import velocities
from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi


@pytest.fixture(scope="module")
def takes():
    """All takes of the demo guitar, as they are annotated."""
    names = [f"take_{i:02d}" for i in range(1, 11)]
    return [
        velocities.measure(*read_audio(DEMO_GUITAR / f"{name}.mp3"), read_midi(DEMO_GUITAR / f"{name}.mid"))
        for name in names
    ]


def of_all(takes, name):
    return np.concatenate([getattr(take, name) for take in takes])


def with_velocities(takes, velocity_of):
    return [dataclasses.replace(take, velocities=velocity_of(take.velocities)) for take in takes]


def test_the_demo_guitars_velocities_are_told_from_its_sound(takes):
    played = of_all(takes, "velocities")
    all_alike = with_velocities(takes, lambda values: np.full_like(values, 64))
    assert not velocities.carry_information(all_alike)
    told = np.concatenate(velocities.infer(all_alike))
    assert velocities.correlation(told, played) > 0.93  # 0.96 is reached; with a quarter of the notes at random, 0.75.
    assert told.min() >= 1 and told.max() <= 127
    assert np.median(told) == velocities.MIDDLE_VELOCITY
    # Twice the velocity is twice the velocity: the demo guitar's law is the one of `DECIBELS_PER_DECADE`.
    slope = np.polyfit(np.log(played), np.log(told), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.15)


def test_good_annotations_carry_information_and_shuffled_ones_don_t(takes):
    assert velocities.carry_information(takes)
    random = np.random.default_rng(0)
    assert not velocities.carry_information(with_velocities(takes, random.permutation))


def test_style_and_pitch_don_t_count_as_dynamics():
    """Two notes of each kind played alike get alike, though open ones are 12 dB louder and high ones 6 dB."""
    random = np.random.default_rng(1)
    n_notes = 400
    style, pitches = random.integers(0, 2, n_notes).astype(float), random.choice([40.0, 52.0], n_notes)
    played = random.uniform(-10.0, 10.0, n_notes)
    levels = -30.0 + played + 12.0 * style + 6.0 * (pitches == 52.0)
    take = velocities.Attacks(levels, pitches, np.full(n_notes, 64.0), {55: style})
    (louder,) = velocities.loudness([take])
    # 2 dB: what ten notes of prior leave of 12, and the chance of 400 notes.
    np.testing.assert_allclose(louder - louder.mean(), played - played.mean(), atol=2.0)


def test_takes_recorded_at_other_levels_are_levelled(takes):
    gains = np.random.default_rng(2).uniform(-15.0, 15.0, len(takes))
    recorded = [dataclasses.replace(take, levels=take.levels + gain) for take, gain in zip(takes, gains, strict=True)]
    told = np.concatenate(velocities.infer(recorded))
    assert velocities.correlation(told, of_all(takes, "velocities")) > 0.85  # Unlevelled 0.6.


def burst(start, amplitude, sample_rate=16000, seconds=6.0):
    time = np.arange(round(seconds * sample_rate)) / sample_rate - start
    return np.where((time >= 0) & (time < 0.2), amplitude * np.sin(2 * np.pi * 220.0 * time), 0.0)


def test_equally_loud_notes_keep_the_velocity_they_have():
    starts = np.arange(0.1, 5.5, 0.25)
    samples = sum(burst(start, 0.3) for start in starts).astype(np.float32)
    notes = np.column_stack([starts, starts + 0.2, np.full(len(starts), 57), np.full(len(starts), 100)])
    assert velocities.carry_information([velocities.measure(samples, 16000, Piece((Voice(notes),)))])


def test_levels_are_those_of_the_sound():
    samples = (burst(1.0, 0.5) + burst(2.0, 0.05)).astype(np.float32)
    piece = Piece((Voice(np.array([[1.0, 1.2, 57, 64], [2.0, 2.2, 57, 64]])), Voice(np.array([[9.0, 9.5, 60, 64]]))))
    measured = velocities.measure(samples, 16000, piece)
    # A sine of amplitude a has the level 20 log10(a) - 3 dB; 20 ms of 220 Hz are 4.4 periods, so up to 0.5 dB off.
    np.testing.assert_allclose(measured.levels[:2], [-9.0, -29.0], atol=0.6)
    assert measured.levels[2] == -100.0  # After the end of the recording.


def test_velocities_are_put_into_the_notes_of_their_voices():
    piece = Piece((Voice(np.array([[0.0, 1.0, 40, 64], [1.0, 2.0, 41, 64]])), Voice(np.array([[0.5, 1.0, 60, 64]]))))
    first, second = velocities.apply(piece, np.array([10.0, 20.0, 30.0])).voices
    assert first.notes[:, 3].tolist() == [10, 20]
    assert second.notes[:, 3].tolist() == [30]


def test_nothing_is_told_of_nothing():
    silent = velocities.measure(np.zeros(16000, np.float32), 16000, Piece((Voice(np.zeros([0, 4])),)))
    assert velocities.carry_information([silent]) and velocities.carry_information([])
    assert [len(each) for each in velocities.infer([silent])] == [0]
