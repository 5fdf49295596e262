"""Data sets are made of corrected takes, tell what was corrected, and refuse annotations of other recordings."""

import warnings

import numpy as np
import pytest
from made_takes import SAMPLE_RATE, make_take

from neural_midi_synth.data_prep import corrections
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

    from neural_midi_synth.data_prep.midi_audio import build

OFFSET = 0.4


@pytest.fixture
def folder(tmp_path):
    """An exact take, and one whose sound is later than its annotation."""
    folder = tmp_path / "takes"
    make_take(folder / "exact.wav", seed=0)
    make_take(folder / "late.wav", seed=1)
    samples, _ = read_audio(folder / "late.wav")
    write_audio(folder / "late.wav", np.pad(samples, (round(OFFSET * SAMPLE_RATE), 0)), SAMPLE_RATE)
    return folder


def built(folder, **settings):
    return build(folder, folder.parent / "data", sample_rate=SAMPLE_RATE, **settings)


def notes_of(builder, take):
    """Start and velocity of each whole note of a take, as its examples have them."""
    found = {}
    for example in tfds.as_numpy(builder.as_dataset("train")):
        if example["take"].decode() == take:
            for start, _, _, velocity in example["notes"][example["notes"][:, 0] > 0.0]:
                found[round(float(start + example["start"]), 3)] = float(velocity)
    return found


def set_velocities(path, velocity):
    (voice,) = read_midi(path).voices
    notes = voice.notes.copy()
    notes[:, 3] = velocity
    write_midi(Voice(notes, voice.control_changes), path)


def test_takes_are_aligned_and_it_is_told(folder):
    corrected, as_annotated = built(folder), built(folder, align="off")
    assert corrected.data_dir != as_annotated.data_dir
    assert corrected.info.metadata["fingerprint"] != as_annotated.info.metadata["fingerprint"]
    facts = corrected.info.metadata["corrections"]["alignments"]
    assert list(facts) == ["late"]
    assert facts["late"]["offset"] == pytest.approx(OFFSET, abs=0.002)  # Sines that are switched on have exact onsets.
    (line,) = corrections.told(corrected.info.metadata)
    assert line == "late: the sound is 0.400 s later than annotated: corrected (--align off leaves it)."
    assert corrections.told(as_annotated.info.metadata) == []
    annotated = read_midi(folder / "late.mid").notes[:, 0]
    for builder, offset in ((corrected, OFFSET), (as_annotated, 0.0)):
        for start in notes_of(builder, "late"):
            assert np.abs(annotated + offset - start).min() < 0.003
    assert set(notes_of(corrected, "exact")) == set(notes_of(as_annotated, "exact"))


def test_velocities_that_say_nothing_are_told_from_the_sound(folder):
    (folder / "late.wav").unlink()
    (folder / "late.mid").unlink()
    played = {round(start, 3): velocity for start, _, _, velocity in read_midi(folder / "exact.mid").notes}
    assert set(notes_of(built(folder), "exact").values()) <= set(played.values())
    set_velocities(folder / "exact.mid", 64)
    told = built(folder)
    (line,) = corrections.told(told.info.metadata)
    assert line.startswith("Velocities are told from the sound: those annotated are all 64")
    velocities = notes_of(told, "exact")
    pairs = np.array([[velocity, played[start]] for start, velocity in velocities.items()])
    assert np.corrcoef(np.argsort(np.argsort(pairs, axis=0), axis=0).T)[0, 1] > 0.8  # Of 38 notes of twenty pitches.
    assert set(notes_of(built(folder, velocities="annotated"), "exact").values()) == {64.0}


def test_the_annotation_of_another_take_is_refused_with_a_picture(folder):
    make_take(folder.parent / "other.wav", seed=5)
    (folder.parent / "other.mid").rename(folder / "exact.mid")
    with pytest.raises(DataError, match=r"exact\.mid: only \d+% of its notes are to be heard in exact\.wav") as raised:
        built(folder)
    assert "\n" not in str(raised.value)
    picture = folder.parent / "data" / "exact_alignment.png"
    assert str(picture) in str(raised.value)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    assert "told" not in built(folder, align="off").info.metadata["corrections"]


@pytest.mark.parametrize("settings", [{"align": "maybe"}, {"velocities": "loud"}])
def test_other_words_are_refused(folder, settings):
    with pytest.raises(DataError, match="must be one of"):
        built(folder, **settings)
