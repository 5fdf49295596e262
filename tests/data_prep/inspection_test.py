"""Takes are told apart: those that can be trained on, those that should be mended, and those that can't be used."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from neural_midi_synth.data_prep import inspection, inspection_page
from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR, MidiAudioConfig
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import read_midi, write_midi

STYLES = {"openness": 55, "power_chord": 56}


def inspect(folder, **settings):
    steps = []
    config = MidiAudioConfig(name="t", source_dir=folder, **settings)
    found = inspection.inspect(config, STYLES, lambda *step: steps.append(step))
    assert steps == [(i, len(found.takes)) for i in range(1, len(found.takes) + 1)]
    return found


@pytest.fixture
def takes(tmp_path):
    """A folder with a take of the demo guitar."""
    for suffix in (".mid", ".mp3"):
        shutil.copy(DEMO_GUITAR / f"take_04{suffix}", tmp_path)
    return tmp_path


def faults(found):
    return {fault.kind: fault for take in found.takes for fault in take.faults}


def rewrite(takes, change):
    """Writes the recording again, as a function of samples and sample rate gives it."""
    samples, sample_rate = read_audio(takes / "take_04.mp3")
    (takes / "take_04.mp3").unlink()
    soundfile.write(takes / "take_04.wav", change(samples, sample_rate), sample_rate)


def test_a_good_take_is_short_of_minutes_alone(takes):
    found = inspect(takes)
    assert (found.verdict, faults(found)) == ("usable", {})
    assert "few" in found.message
    facts = json.loads(json.dumps(found.facts(), default=float))
    (take,) = facts["takes"]
    assert take == {
        "name": "take_04",
        "offset_seconds": 0.0,
        "drift": 0.0,
        "confidence": pytest.approx(1.0, abs=0.05),
        "velocities": "annotated",
        "faults": [],
    }
    assert facts["coverage"]["notes"] == len(read_midi(takes / "take_04.mid").notes)


def test_an_offset_is_told_and_is_no_fault(takes):
    rewrite(takes, lambda samples, rate: samples[round(0.5 * rate) :])
    found = inspect(takes)
    # Sound that comes half a second early; 3 ms is what an offset is found to.
    assert found.takes[0].alignment.offset == pytest.approx(-0.5, abs=3e-3)
    assert found.may_train and "moved to the sound" in found.message


def test_notes_from_before_the_recording_are_no_faults(takes):
    """Where the recorder was started late, the first notes can't be heard, and are not trained on."""
    rewrite(takes, lambda samples, rate: samples[round(1.9 * rate) :])
    found = inspect(takes)
    assert found.takes[0].alignment.offset == pytest.approx(-1.9, abs=3e-3)
    assert faults(found) == {}
    n_heard = np.sum(read_midi(takes / "take_04.mid").notes[:, 1] > 1.9)
    assert found.coverage.notes == n_heard


def test_the_annotation_of_another_take_stops(takes):
    shutil.copy(DEMO_GUITAR / "take_07.mid", takes / "take_04.mid")
    found = inspect(takes)
    assert (found.verdict, list(faults(found))) == ("unusable", ["does_not_fit"])
    assert not found.may_train


def test_another_tempo_is_told(takes):
    piece = read_midi(takes / "take_04.mid")
    write_midi(Piece((Voice(piece.notes / [1.25, 1.25, 1, 1]),)), takes / "take_04.mid")
    found = inspect(takes)
    assert (found.verdict, list(faults(found))) == ("unusable", ["other_tempo"])
    assert "0.8 times" in found.message


def test_one_bad_take_of_two_is_to_be_mended(takes):
    write_audio(takes / "other.wav", np.zeros(16000, np.float32), 16000)
    shutil.copy(takes / "take_04.mid", takes / "other.mid")
    found = inspect(takes)
    assert (found.verdict, list(faults(found))) == ("mend first", ["unreadable"])
    assert "silent throughout" in found.message or "ends at" in found.message


def test_chords_for_a_config_of_one_voice_stop(takes):
    piece = read_midi(takes / "take_04.mid")
    write_midi(Piece((piece.voices[0], Voice(piece.notes + [0.0, 0.0, 7, 0]))), takes / "take_04.mid")
    found = inspect(takes)
    assert (found.verdict, list(faults(found))) == ("unusable", ["polyphonic"])
    found = inspect(takes, voices=2)
    assert found.may_train
    # Two notes at once last no longer than one.
    assert found.coverage.minutes * 60 < piece.duration


def test_a_recording_that_is_overloaded_is_told(takes):
    rewrite(takes, lambda samples, rate: np.clip(3.0 * samples / np.abs(samples).max(), -1.0, 1.0))
    assert "clipping" in faults(inspect(takes))


def test_a_take_that_is_quieter_than_the_others_is_told(tmp_path):
    for name in ("take_04", "take_06", "take_08"):
        shutil.copy(DEMO_GUITAR / f"{name}.mid", tmp_path)
        samples, sample_rate = read_audio(DEMO_GUITAR / f"{name}.mp3")
        write_audio(tmp_path / f"{name}.wav", samples * (0.25 if name == "take_06" else 1.0), sample_rate)
    found = inspect(tmp_path)
    assert [[fault.kind for fault in take.faults].count("level_differs") for take in found.takes] == [0, 1, 0]
    (fault,) = (fault for fault in found.takes[1].faults if fault.kind == "level_differs")
    assert any(f"{level} dB quieter" in fault.message for level in (11, 12))  # A quarter of the amplitude.


def test_hum_is_told(takes):
    def hum(samples, rate):
        time = np.arange(len(samples)) / rate
        return samples + sum(0.002 / k * np.sin(2 * np.pi * 50 * k * time) for k in (1, 2, 3)).astype(np.float32)

    rewrite(takes, hum)
    assert "50 Hz" in faults(inspect(takes))["hum"].message


def test_a_channel_that_is_missing_is_told(takes):
    rewrite(takes, lambda samples, rate: np.column_stack([samples, np.zeros_like(samples)]))
    assert "left" in faults(inspect(takes))["one_sided"].message


def test_a_style_that_was_forgotten_is_told(takes):
    piece = read_midi(takes / "take_04.mid")
    write_midi(Piece((Voice(piece.notes, [[0, 55, 64]], piece.voices[0].pitch_bends),)), takes / "take_04.mid")
    assert "openness (CC55)" in faults(inspect(takes))["flat_style"].message


@pytest.mark.parametrize(("fast", "is_told"), [(20.0, False), (45.0, True)])
def test_bowed_notes_are_not_taken_for_muted_ones(fast, is_told):
    decays = np.tile([3.0, 4.0, fast, 1.1 * fast], 10)
    piece = Piece((Voice([[i, i + 1, 60 + i % 7, 90] for i in range(len(decays))]),))
    told = inspection._flat_styles(piece, piece.voices[0].notes[:, 2], decays, STYLES)
    assert [fault.kind for fault in told] == ["flat_style"] * is_told


def test_constant_velocities_are_told_from_the_sound(takes):
    piece = read_midi(takes / "take_04.mid")
    voice = piece.voices[0]
    notes = voice.notes.copy()
    notes[:, 3] = 64
    write_midi(Piece((Voice(notes, voice.control_changes, voice.pitch_bends),)), takes / "take_04.mid")
    assert inspect(takes).takes[0].velocities == "from_audio"


def test_the_page_has_everything_in_it(takes):
    config = MidiAudioConfig(name="t", source_dir=takes)
    found = inspect(takes)
    page = inspection_page.page("my <takes>", found, STYLES, config)
    assert "my &lt;takes&gt;" in page and found.message.split(":")[0] in page
    assert page.count("data:image/png;base64,") == page.count("data:audio/mpeg;base64,") == 1
    # Twelve minutes have to stay below 15 MB; this is a tenth of them.
    assert len(page) < 1_500_000


@pytest.mark.parametrize(("align", "is_corrected"), [("notes", True), ("off", False)])
def test_the_page_draws_what_training_corrects(takes, align, is_corrected, monkeypatch):
    """Where notes are heard before and after, and the annotation as it is trained on."""
    rewrite(takes, lambda samples, rate: samples[round(0.5 * rate) :])
    drawn = {}

    def picture(piece, samples, sample_rate, styles, marks, lateness):
        drawn.update(first=piece.notes[0, 0], lateness=lateness)
        return b""

    monkeypatch.setattr(inspection_page, "take_picture", picture)
    config = MidiAudioConfig(name="t", source_dir=takes, align=align)
    page = inspection_page.page("takes", inspect(takes, align=align), STYLES, config)
    annotated = read_midi(takes / "take_04.mid").notes[0, 0]
    assert drawn["first"] == pytest.approx(annotated - 0.5 * is_corrected, abs=5e-3)
    assert ("The sound is 0.50" in page) == is_corrected
    medians = {name: np.median(late[:, 1]) for name, late in drawn["lateness"].items()}
    expected = {"as annotated": pytest.approx(-0.5, abs=5e-3), "as trained on": pytest.approx(0.0, abs=5e-3)}
    assert medians == (expected if is_corrected else {})
