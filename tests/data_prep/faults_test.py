"""Errors that are planted into an exact annotation are found where they are, and an exact one has none."""

import numpy as np
import pytest

from neural_midi_synth.data_prep import alignment, faults, hearing
from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE, hertz
from neural_midi_synth.files.audio import read_audio, resample
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi


@pytest.fixture(scope="module")
def sound():
    samples, sample_rate = read_audio(DEMO_GUITAR / "take_04.mp3")
    return resample(samples, sample_rate, SAMPLE_RATE)


@pytest.fixture(scope="module")
def voice():
    return read_midi(DEMO_GUITAR / "take_04.mid").voices[0]


def found(sound, voice, notes=None):
    piece = Piece((voice if notes is None else Voice(notes, voice.control_changes, voice.pitch_bends),))
    return faults.find(sound, hearing.frame_levels(sound), piece, alignment.align(sound, SAMPLE_RATE, piece))[0]


def kinds_at(all_faults, time):
    return {fault.kind for fault in all_faults if abs(fault.start - time) < 0.15}


def test_an_exact_annotation_has_no_faults(sound, voice):
    assert found(sound, voice) == []


def test_notes_at_another_pitch_are_found(sound, voice):
    notes, planted = voice.notes.copy(), [20, 50, 80, 110]
    notes[planted, 2] += [12, -12, 1, -1]
    all_faults = found(sound, voice, notes)
    assert [fault.kind for fault in all_faults] == ["wrong_pitch"] * 4
    np.testing.assert_allclose([fault.start for fault in all_faults], notes[planted, 0])
    assert "an octave lower" in all_faults[0].message and "an octave higher" in all_faults[1].message


def test_a_note_that_was_not_played_is_found(sound, voice):
    notes = voice.notes
    gaps = notes[1:, 0] - notes[:-1, 1]
    i = int(np.argmax(gaps))
    start = notes[i, 1] + 0.3 * gaps[i]
    more = [start, start + 0.3 * gaps[i], notes[i, 2] + 4, 90]
    all_faults = found(sound, voice, np.vstack([notes, more]))
    assert [fault.kind for fault in all_faults] == ["silent_note"]
    assert all_faults[0].start == pytest.approx(start)


def test_a_sound_that_was_not_annotated_is_found(sound, voice):
    notes = voice.notes
    after_rest = np.flatnonzero((notes[1:, 0] - notes[:-1, 1] > 0.1) & (notes[1:, 1] - notes[1:, 0] > 0.3)) + 1
    i = after_rest[len(after_rest) // 2]
    all_faults = found(sound, voice, np.delete(notes, i, axis=0))
    assert [fault.kind for fault in all_faults] == ["unannotated_sound"]
    assert all_faults[0].start == pytest.approx(notes[i, 0], abs=0.1)


def test_a_legato_note_that_was_not_annotated_is_found_by_the_rest_that_sounds(sound, voice):
    notes = voice.notes
    slurred = (notes[1:, 0] - notes[:-1, 1] < 0.02) & (np.abs(np.diff(notes[:, 2])) == 1)
    slurred &= notes[1:, 1] - notes[1:, 0] > 0.3
    i = np.flatnonzero(slurred)[0] + 1
    all_faults = found(sound, voice, np.delete(notes, i, axis=0))
    assert [fault.kind for fault in all_faults] == ["unannotated_sound"]
    assert all_faults[0].start == pytest.approx(notes[i, 0], abs=0.05)


def test_a_string_that_is_struck_again_while_it_sounds_is_found(sound, voice):
    notes = voice.notes
    again = (np.diff(notes[:, 2]) == 0) & (notes[1:, 0] - notes[:-1, 1] < 0.1) & (np.diff(notes[:, 3]) > 0)
    i = np.flatnonzero(again)[-1]
    fewer = np.delete(notes, i + 1, axis=0)
    fewer[i, 1] = notes[i + 1, 1]
    all_faults = found(sound, voice, fewer)
    assert [fault.kind for fault in all_faults] == ["unannotated_sound"]
    assert all_faults[0].start == pytest.approx(notes[i + 1, 0], abs=0.05)


def test_a_bowed_note_that_swells_is_no_stroke():
    """Vibrato of a violin has the level go up and down by as much as a stroke does."""
    pitches = [61, 64, 76, 71, 68]
    notes = np.array([[0.5 + 2.1 * i, 2.5 + 2.1 * i, pitch, 90] for i, pitch in enumerate(pitches)])
    sound = np.zeros(12 * SAMPLE_RATE, np.float32)
    time = np.arange(round(2.05 * SAMPLE_RATE)) / SAMPLE_RATE
    turns = 2.0 * np.pi * 4.0 * time
    shape = np.minimum(time / 0.03, 1.0) * np.clip((2.05 - time) / 0.05, 0.0, 1.0)
    swell = 10.0 ** (-0.25 * (1.0 - np.cos(turns)))
    for start, _, pitch, _ in notes:
        phase = 2.0 * np.pi * hertz(pitch) * (time + 3e-4 * np.sin(turns))
        tone = sum(np.sin(k * phase) / k for k in range(1, 9))
        begin = round(start * SAMPLE_RATE)
        sound[begin : begin + len(time)] = 0.1 * shape * swell * tone
    strokes, _ = hearing.rises(hearing.frame_levels(sound), 5.5, -40.0)
    assert len(strokes) > 3 * len(notes)
    assert found(sound, Voice(notes)) == []


def test_notes_that_all_ring_on_after_their_end_are_no_faults(sound, voice):
    notes = voice.notes.copy()
    notes[:, 1] = notes[:, 0] + 0.5 * (notes[:, 1] - notes[:, 0])
    assert found(sound, voice, notes) == []


def test_what_is_written_badly_is_found_without_listening(sound, voice):
    notes = voice.notes.copy()
    long = np.flatnonzero((notes[1:, 0] - notes[:-1, 0] > 0.4) & (notes[1:, 1] - notes[1:, 0] > 0.4))[:2]
    notes[long[0], 1] = notes[long[0] + 1, 0] + 0.25
    notes[long[1] + 1, 1] = notes[long[1] + 1, 0] + 0.001
    all_faults = found(sound, voice, notes)
    assert "overlap" in kinds_at(all_faults, notes[long[0] + 1, 0])
    assert "zero_length" in kinds_at(all_faults, notes[long[1] + 1, 0])


def test_takes_of_few_notes_are_looked_at(sound, voice):
    for n in (0, 1, 2, 9):  # From the first attacks on, all of which are clear.
        part = voice.window(0.0, voice.notes[n, 0])
        seconds = voice.notes[max(n, 1), 0]
        assert found(sound[: round(seconds * SAMPLE_RATE)], part, part.notes[part.notes[:, 0] >= 0.0]) == []


def test_pitches_of_tones_are_heard():
    """Of tones with twelve harmonics, from a bass's low E on."""
    pitches = np.array([28, 40, 52, 64, 76])
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    tones = [
        sum(np.sin(2 * np.pi * k * 440 * 2 ** ((pitch - 69) / 12) * time) / k for k in range(1, 13))
        for pitch in pitches
    ]
    samples = np.concatenate(tones).astype(np.float32)
    starts = np.arange(len(pitches)) * 0.5
    heard = hearing.listen(samples, hearing.frame_levels(samples), starts, starts + 0.5)
    np.testing.assert_array_equal(heard.pitches(), pitches)
