"""Annotations are found where they are heard, exact ones are left alone, and those of other songs are refused."""

import numpy as np
import pytest

from neural_midi_synth.data_prep import alignment, alignment_pictures
from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR
from neural_midi_synth.files.audio import read_audio, resample, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi

SECONDS = 30.0


def beginning(name):
    """The first half minute of a demo take: samples, sample rate and annotation."""
    samples, sample_rate = read_audio(DEMO_GUITAR / f"{name}.mp3")
    (voice,) = read_midi(DEMO_GUITAR / f"{name}.mid").voices
    voice = voice.window(0.0, SECONDS)
    kept = voice.notes[voice.notes[:, 1] < SECONDS]
    return samples[: round(SECONDS * sample_rate)], sample_rate, Piece((Voice(kept, *controls(voice)),))


def controls(voice):
    return voice.control_changes, voice.pitch_bends


@pytest.fixture(scope="module")
def take():
    return beginning("take_06")


def moved(samples, sample_rate, offset, drift=0.0):
    """The same sound later by `offset`, and slower by `drift`."""
    samples = resample(samples, sample_rate, sample_rate * (1.0 + drift))
    n_samples = round(offset * sample_rate)
    return np.pad(samples, (n_samples, 0)) if n_samples >= 0 else samples[-n_samples:]


def loosened(piece, seconds, seed=0):
    """The annotation with every start off by up to so many seconds."""
    random = np.random.default_rng(seed)
    voices = []
    for voice in piece.voices:
        notes = voice.notes.copy()
        notes[:, 0] = np.maximum(notes[:, 0] + random.uniform(-seconds, seconds, len(notes)), 0.0)
        notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + 0.02)
        voices.append(Voice(notes, *controls(voice)))
    return Piece(tuple(voices))


@pytest.mark.parametrize("name", ["take_01", "take_06", "take_07"])
def test_an_exact_annotation_is_left_alone(name):
    samples, sample_rate, piece = beginning(name)
    found = alignment.align(samples, sample_rate, piece)
    assert (found.offset, found.drift, found.told()) == (0.0, 0.0, "")
    assert found.confidence > 0.9
    assert alignment.apply(piece, found) is piece


@pytest.mark.parametrize("offset", [-0.9, 0.045, 1.98])
def test_offsets_are_found_to_three_milliseconds(take, offset):
    samples, sample_rate, piece = take
    found = alignment.align(moved(samples, sample_rate, offset), sample_rate, piece)
    assert found.offset == pytest.approx(offset, abs=0.003)  # What the attacks of the guitar leave of doubt.
    assert found.drift == 0.0
    assert found.confidence > 0.9


@pytest.mark.parametrize("drift", [-0.005, 0.003])
def test_drift_is_found_with_an_offset(take, drift):
    samples, sample_rate, piece = take
    found = alignment.align(moved(samples, sample_rate, 0.5, drift), sample_rate, piece)
    expected = alignment.Alignment(0.5, drift, *[np.zeros(0)] * 3, 1.0, np.zeros(0))
    middle, end = piece.notes[len(piece.notes) // 2, 0], piece.duration
    assert found.heard(middle) == pytest.approx(expected.heard(middle), abs=0.003)
    assert found.heard(end) == pytest.approx(
        expected.heard(end), abs=0.008
    )  # The ends of half a minute hang on few notes.


def test_the_delay_of_an_mp3_counts_once(take, tmp_path):
    """The file tells of its delay, which `read_audio` takes off."""
    samples, sample_rate, piece = take
    write_audio(tmp_path / "take.mp3", samples, sample_rate)
    assert alignment.align(*read_audio(tmp_path / "take.mp3"), piece).offset == 0.0


@pytest.mark.parametrize("other", ["take_02", "take_03"])
def test_the_annotation_of_another_take_is_doubted(take, other):
    samples, sample_rate, _ = take
    piece = beginning(other)[2]
    found = alignment.align(samples, sample_rate, piece)
    assert found.confidence < alignment.LEAST_CONFIDENCE - 0.1
    picture = alignment_pictures.picture(samples, sample_rate, piece, found)
    assert picture.startswith(b"\x89PNG")


def test_noise_is_not_taken_for_notes(take):
    noise = np.random.default_rng(0).normal(size=16000 * 30).astype(np.float32)
    assert alignment.align(noise, 16000, take[2]).confidence < 0.4


def test_loose_notes_come_nearer_to_where_they_are_played(take):
    samples, sample_rate, piece = take
    loose = loosened(piece, 0.03)
    found = alignment.align(samples, sample_rate, loose)
    assert np.count_nonzero(found.moves) > len(loose.notes) / 2
    mended = alignment.apply(loose, found)

    def error(other):
        return np.sqrt(np.mean(np.square(other.notes[:, 0] - piece.notes[:, 0])))

    assert error(mended) < 0.75 * error(loose)  # Notes whose onset is not clear stay where they are.
    assert np.all(np.diff(mended.notes[:, 0]) >= 0.0)
    assert np.all(mended.notes[:, 1] > mended.notes[:, 0])
    assert np.all(np.abs(alignment.apply(loose, found.limited_to("take")).notes - loose.notes) < 0.01)


def test_one_note_far_off_is_moved_alone(take):
    samples, sample_rate, piece = take
    exact = alignment.align(samples, sample_rate, piece)
    gaps = np.minimum(np.diff(piece.notes[:-1, 0]), np.diff(piece.notes[1:, 0]))
    clear = np.flatnonzero((exact.sureness[1:-1] > 0.8) & (gaps > 0.2) & (np.abs(exact.residuals[1:-1]) < 0.005)) + 1
    (voice,) = piece.voices
    notes = voice.notes.copy()
    notes[clear[0], 0] += 0.06
    found = alignment.align(samples, sample_rate, Piece((Voice(notes, *controls(voice)),)))
    assert np.flatnonzero(found.moves).tolist() == [clear[0]]
    assert found.moves[clear[0]] == pytest.approx(-0.06, abs=0.01)


def test_everything_moves_along_the_same_line():
    """Control changes and bends stay where they were in their notes; voices stay apart."""
    notes = np.array([[1.0, 2.0, 40, 99], [2.0, 2.5, 43, 99]])
    low = Voice(notes, np.array([[0.0, 55, 1], [1.0, 55, 9]]), np.array([[2.0, 0.5]]))
    high = Voice(np.array([[1.5, 3.0, 60, 80]]))
    moves = np.array([0.02, 0.0, -0.01])  # In the order of their starts: 40, 60, 43.
    found = alignment.Alignment(0.5, 0.01, moves, np.ones(3), moves, 1.0, np.zeros(0))
    first, second = alignment.apply(Piece((low, high)), found).voices
    np.testing.assert_allclose(first.notes[:, 0], [1.53, 2.51])
    np.testing.assert_allclose(first.notes[:, 1], [2.51, 3.025])  # The first still ends where the second begins.
    np.testing.assert_allclose(first.control_changes[:, 0], [0.52, 1.53])
    np.testing.assert_allclose(first.pitch_bends, [[2.51, 0.5]])
    np.testing.assert_allclose(second.notes, [[2.015, 3.53, 60, 80]])


def test_what_was_played_before_the_recording_began_is_left_out():
    notes = np.array([[0.2, 0.4, 40, 99], [0.5, 2.0, 43, 99], [2.0, 2.5, 45, 99]])
    found = alignment.Alignment(-0.75, 0.0, *[np.zeros(3)] * 3, 1.0, np.zeros(0))
    left = alignment.apply(Piece((Voice(notes),)), found).notes
    np.testing.assert_allclose(left[:, :3], [[-0.25, 1.25, 43], [1.25, 1.75, 45]])


def test_notes_never_pass_each_other():
    notes = np.array([[1.0, 1.05, 40, 99], [1.05, 1.1, 43, 99], [1.1, 2.0, 45, 99]])
    moves = np.array([0.07, 0.0, -0.07])
    found = alignment.Alignment(0.0, 0.0, moves, np.ones(3), moves, 1.0, np.zeros(0))
    mended = alignment.apply(Piece((Voice(notes),)), found).notes
    assert np.all(np.diff(mended[:, 0]) > 0.0)
    assert np.all(mended[1:, 0] >= mended[:-1, 1])
    assert mended[:, 2].tolist() == [40, 43, 45]


def test_few_notes_are_left_alone():
    few = Piece((Voice(np.array([[1.0, 2.0, 40, 99]])),))
    for piece in (few, Piece((Voice(np.zeros([0, 4])),))):
        found = alignment.align(np.ones(16000, np.float32), 16000, piece)
        assert alignment.apply(piece, found) is piece
        assert found.confidence == 1.0
