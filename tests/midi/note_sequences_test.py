"""NoteSequences are read as MIDI is, and hold what a piece holds."""

import hypothesis
import hypothesis.strategies as st
import note_seq
import numpy as np
import pytest

from midi.strategies import voices
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.note_sequences import to_note_sequence
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, read_parts


def sequence_of(*notes, changes=(), bends=()):
    """Notes (start, end, pitch, instrument), control changes (time, number, value), bends (time, value)."""
    sequence = note_seq.NoteSequence(filename="song.mid")
    for start, end, pitch, instrument in notes:
        sequence.notes.add(start_time=start, end_time=end, pitch=pitch, instrument=instrument, velocity=90)
    for time, number, value in changes:
        sequence.control_changes.add(time=time, control_number=number, control_value=value)
    for time, value in bends:
        sequence.pitch_bends.add(time=time, bend=value)
    return sequence


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(written=st.lists(voices(), min_size=1, max_size=20))
def test_a_piece_comes_back_from_a_note_sequence(written):
    read = read_midi(to_note_sequence(Piece(written))).voices
    assert len(read) == len(written)
    for a, b in zip(read, written):
        np.testing.assert_array_equal(a.notes, b.notes)
        kept = a.control_changes[~np.isin(a.control_changes[:, 1], [6, 38, 100, 101])]
        np.testing.assert_array_equal(kept, b.control_changes)
        np.testing.assert_array_equal(a.pitch_bends[:, 0], b.pitch_bends[:, 0])
        # Half a step of the widest range, and a whole one at its upper end, which MIDI does not reach.
        np.testing.assert_allclose(a.pitch_bends[:, 1], b.pitch_bends[:, 1], rtol=0.0, atol=25.0 / 8192.0)


def test_note_seq_writes_what_was_given_to_it(tmp_path):
    piece = Piece([Voice([[0, 1, 40, 90], [1, 2, 43, 80]], [[0.5, 55, 9]]), Voice([[0.5, 2, 60, 70]])])
    note_seq.note_sequence_to_midi_file(to_note_sequence(piece), tmp_path / "song.mid")
    for a, b in zip(read_midi(tmp_path / "song.mid").voices, piece.voices, strict=True):
        np.testing.assert_allclose(a.notes, b.notes, atol=2e-3)  # note_seq writes 220 ticks a beat.


def test_the_pedal_the_bends_and_the_pairing_are_those_of_midi():
    changes = [(0.5, 64, 127), (3.0, 64, 0), (0, 101, 0), (0, 100, 0), (0, 6, 12)]
    sequence = sequence_of((0, 1, 40, 0), (4, 5, 40, 0), (4.5, 6, 40, 0), changes=changes, bends=[(1, 4096)])
    (voice,) = read_midi(sequence).voices
    np.testing.assert_array_equal(voice.notes[:, :2], [[0, 3], [4, 4.5], [4.5, 6]])
    np.testing.assert_array_equal(voice.pitch_bends, [[1, 6.0]])
    assert len(voice.control_changes) == 5


def test_a_pedal_that_never_rises_holds_to_the_end_of_the_sequence():
    sequence = sequence_of((0, 1, 40, 0), changes=[(0.5, 64, 127)])
    assert read_midi(sequence).duration == 1.0
    sequence.total_time = 7.0
    assert read_midi(sequence).duration == 7.0


def test_instruments_are_chosen_as_tracks():
    sequence = sequence_of((0, 1, 40, 0), (0, 1, 60, 3), (0, 1, 64, 3), (0, 1, 36, 9))
    sequence.notes[-1].is_drum = True
    sequence.notes[0].program = 33
    sequence.instrument_infos.add(instrument=3, name="Piano")
    with pytest.raises(DataError, match="song.mid: has several instruments.*track 4 'Piano' MIDI channel 4: 2 notes"):
        read_midi(sequence)
    for choice in ({"track": 4}, {"track": "Piano"}, {"midi_channel": 4}):
        assert [voice.notes[0, 2] for voice in read_midi(sequence, **choice).voices] == [60, 64]
    assert len(read_midi(sequence, all_tracks=True).voices) == 3
    assert [(part.program, part.is_drums) for part in read_parts(sequence)] == [(33, False), (0, False), (0, True)]


def test_a_note_sequence_without_notes_is_told():
    for sequence, what in (
        (sequence_of(), "song.mid: has no notes"),
        (note_seq.NoteSequence(), "NoteSequence: has no notes"),
        (sequence_of((1, 1, 40, 0)), "song.mid: all its notes have no length"),
    ):
        with pytest.raises(DataError, match=what):
            read_midi(sequence)


def test_a_note_without_velocity_gets_that_of_keyboards_without():
    sequence = sequence_of((0, 1, 40, 0))
    sequence.notes[0].ClearField("velocity")
    assert read_midi(sequence).notes[0, 3] == 64


def test_what_began_before_time_0_begins_there_and_pitches_must_be_whole():
    sequence = to_note_sequence(Voice([[-2, -1, 38, 90], [-1, 1, 40, 90]], [[-3, 55, 9]]))
    np.testing.assert_array_equal(read_midi(sequence).notes, [[0, 1, 40, 90]])
    np.testing.assert_array_equal(read_midi(sequence).voices[0].control_changes, [[0, 55, 9]])
    with pytest.raises(ValueError, match="whole pitches"):
        to_note_sequence(Voice([[0, 1, 60.5, 90]]))
