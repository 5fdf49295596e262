"""An evaluation measures what was played, and leaves a whole report or none."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import comparing, pictures, results
from neural_midi_synth.evaluation.examples import Example, examples_in
from neural_midi_synth.evaluation.likeness import Attack
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

PNG = b"\x89PNG\r\n\x1a\n"


class SineInstrument:
    """A small instrument that plays decaying harmonics, out of tune by `cents`, and 0.25 s beyond the last note."""

    sample_rate = 16000
    styles = {"openness": 55, "power_chord": 56}

    def __init__(self, cents=0.0):
        self.cents = cents

    def render(self, piece, n_samples=None):
        """Plays a piece to 0.25 s beyond its last note."""
        samples = np.zeros(round((piece.duration + 0.25) * self.sample_rate), np.float32)
        for start, end, pitch, velocity in piece.notes:
            first, last = (max(0, round(time * self.sample_rate)) for time in (start, end))
            times = np.arange(first, last) / self.sample_rate - start
            frequency = 440.0 * 2.0 ** ((pitch - 69 + self.cents / 100) / 12)
            sound = sum(np.sin(2 * np.pi * k * frequency * times) / k for k in range(1, 8))
            samples[first:last] += 0.2 * velocity / 127 * np.exp(-times) * sound
        return samples[:n_samples]


def voice():
    return Voice(
        notes=np.array([[0.1, 0.6, 40, 100], [0.7, 1.0, 43, 60], [1.0, 1.4, 47, 127]]),
        control_changes=np.array([[0.0, 55, 0], [0.7, 55, 127]]),
        pitch_bends=np.array([[0.8, 0.5], [1.1, 0.0]]),
    )


@pytest.fixture
def instrument():
    return SineInstrument()


@pytest.fixture
def folder(tmp_path, instrument):
    """Two MIDI files with recordings, one without."""
    folder = tmp_path / "riffs"
    folder.mkdir()
    write_midi(voice(), folder / "Riff one.mid")
    write_midi(voice().transpose(12), folder / "b.MID")
    write_midi(voice(), folder / "no recording.midi")
    write_audio(folder / "riff ONE.wav", instrument.render(voice()), instrument.sample_rate)
    write_audio(folder / "b.flac", instrument.render(voice()), instrument.sample_rate)  # An octave too low.
    return folder


def test_an_instrument_that_plays_its_own_recordings_is_perfect(tmp_path, instrument, capsys):
    examples = [Example("first", voice(), instrument.render(voice()))]
    summary = comparing.evaluate(instrument, examples, tmp_path / "report", title="Sines")
    (numbers,) = summary["examples"]
    assert numbers["seconds"] == pytest.approx(1.65)
    assert {key: numbers[key] for key in ("spectral_loss", "log_mel_db", "envelope_db", "pitch_accuracy")} == {
        "spectral_loss": 0.0,
        "log_mel_db": 0.0,
        "envelope_db": 0.0,
        "pitch_accuracy": 1.0,
    }
    assert numbers["real_time_factor"] > 1.0
    assert summary["instrument"] == "Sines"
    table = capsys.readouterr().out
    assert re.search(r"^first +0\.00 +0\.0 dB +0\.0 dB +100 % +[\d.]+ ×$", table, re.MULTILINE)
    assert re.search(r"^mean +0\.00 ", table, re.MULTILINE)


def test_an_instrument_out_of_tune_is_told_by_its_pitch(tmp_path, instrument):
    examples = [Example("first", voice(), instrument.render(voice()))]
    summary = comparing.evaluate(SineInstrument(cents=100.0), examples, tmp_path / "report")
    assert summary["mean"]["pitch_accuracy"] <= 0.05
    assert summary["mean"]["log_mel_db"] > 2.0


def test_a_folder_of_midi_files_and_recordings_makes_a_whole_report(tmp_path, folder, instrument):
    examples = examples_in(folder, instrument.sample_rate)
    output = tmp_path / "out" / "report"
    summary = comparing.evaluate(instrument, examples, output)
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()) == [
        "pictures/Riff_one.png",
        "pictures/Riff_one_dark.png",
        "pictures/attacks.png",
        "pictures/attacks_dark.png",
        "pictures/b.png",
        "pictures/b_dark.png",
        "pictures/no_recording.png",
        "pictures/no_recording_dark.png",
        "report.html",
        "report.json",
        "sounds/Riff_one.wav",
        "sounds/Riff_one_reference.wav",
        "sounds/b.wav",
        "sounds/b_reference.wav",
        "sounds/no_recording.wav",
    ]
    assert json.loads((output / "report.json").read_text()) == summary
    numbers = {example["name"]: example for example in summary["examples"]}
    assert numbers["Riff one"]["pitch_accuracy"] >= 0.95
    assert numbers["b"]["pitch_accuracy"] <= 0.05
    assert numbers["no recording"]["pitch_accuracy"] is None
    assert summary["mean"]["log_mel_db"] == pytest.approx(
        (numbers["Riff one"]["log_mel_db"] + numbers["b"]["log_mel_db"]) / 2, abs=1e-6
    )
    samples, sample_rate = read_audio(output / "sounds" / "b.wav")
    assert sample_rate == instrument.sample_rate
    np.testing.assert_allclose(samples, instrument.render(examples[1].piece), atol=2.0**-22)  # 24 bits
    assert [path.name for path in output.parent.iterdir()] == ["report"]


def test_the_page_holds_every_sound_and_picture_and_needs_no_other_file(tmp_path, folder, instrument):
    comparing.evaluate(instrument, examples_in(folder, instrument.sample_rate), tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    embedded = [source for source in sources if source.startswith("data:")]
    assert len(embedded) == 5 + 8  # sounds, and pictures in two themes, with that of attacks
    assert all(source.startswith("#example-") for source in sources if source not in embedded)
    for source in embedded:
        kind, content = re.fullmatch(r"data:(image/png|audio/flac);base64,(.*)", source).groups()
        content = base64.b64decode(content)
        assert content.startswith(PNG if kind == "image/png" else b"fLaC")
    assert "$" not in re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)


def test_names_are_escaped_and_files_never_collide(tmp_path, instrument):
    examples = [Example(name, voice(), None) for name in ("<b>/..", "<b>/..", "...", "A b", "a_B")]
    comparing.evaluate(instrument, examples, tmp_path / "report", title="Tom & <Jerry>")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<b>/" not in page
    assert "<h1>Tom &amp; &lt;Jerry&gt;</h1>" in page
    assert len(list((tmp_path / "report" / "sounds").iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def chords():
    """Two voices: fifths, then a fourth."""
    upper = Voice(np.array([[0.1, 0.7, 47, 100], [0.7, 1.4, 48, 100]]), np.array([[0.0, 55, 127]]))
    return Piece((Voice(np.array([[0.1, 0.7, 40, 100], [0.7, 1.4, 43, 100]])), upper))


def test_chords_are_measured_beside_their_recording(tmp_path, instrument, capsys):
    both = [
        Example("chords", chords(), instrument.render(chords())),
        Example("line", voice(), instrument.render(voice())),
    ]
    summary = comparing.evaluate(SineInstrument(cents=100.0), both, tmp_path / "report")
    of_chords, of_line = summary["examples"]
    # The recording has the notes and the instrument is off by a semitone, out of tolerance.
    for name in ("precision", "recall", "f"):
        assert of_chords[f"reference_multipitch_{name}"] >= 0.85
        assert of_chords[f"multipitch_{name}"] <= 0.1
        assert of_line[f"multipitch_{name}"] is None
        assert summary["mean"][f"multipitch_{name}"] == of_chords[f"multipitch_{name}"]
    assert of_chords["multipitch_share"] == pytest.approx(
        of_chords["multipitch_f"] / of_chords["reference_multipitch_f"], abs=1e-5
    )
    # A tracker of one pitch can't follow chords.
    assert of_chords["pitch_accuracy"] is None
    assert of_line["pitch_accuracy"] <= 0.05
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert header.index("Multi-pitch precision") > header.index("Pitch accuracy")
    assert re.search(r" – +\d+ % \(\d+ %\) +\d+ % \(\d+ %\) +\d+ % \(\d+ %\) +\d+ % ", row)
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert html.count("<dt>Multi-pitch F ") == 1


def test_reports_of_single_voices_have_no_columns_for_chords(tmp_path, instrument, capsys):
    silent = Voice(np.zeros([0, 4]))
    example = Example("line", Piece((voice(), silent)), instrument.render(voice()))
    summary = comparing.evaluate(instrument, [example], tmp_path / "report")
    assert not any("multipitch" in name for name in summary["examples"][0])
    assert "Multi-pitch" not in capsys.readouterr().out
    assert "Multi-pitch" not in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_an_excerpt_is_not_compared_beyond_its_end(tmp_path, instrument):
    reference = instrument.render(voice())[: 12 * 1600]
    whole = Example("excerpt", voice(), reference, is_excerpt=True)
    summary = comparing.evaluate(instrument, [whole], tmp_path / "report")
    assert summary["mean"]["spectral_loss"] == 0.0
    assert summary["examples"][0]["seconds"] == pytest.approx(1.2)


def test_an_interrupted_evaluation_leaves_the_output_as_it_was(tmp_path, instrument):
    output = tmp_path / "report"
    output.mkdir()
    (output / "mine.txt").write_text("keep")

    def examples():
        yield Example("first", voice(), None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comparing.evaluate(instrument, examples(), output)
    assert [path.name for path in output.iterdir()] == ["mine.txt"]
    comparing.evaluate(instrument, [Example("first", voice(), None)], output)
    assert (output / "mine.txt").read_text() == "keep"
    assert (output / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_only_the_first_examples_are_pictured_but_all_are_measured(tmp_path, instrument, monkeypatch):
    monkeypatch.setattr(comparing, "MAX_PICTURED", 1)
    examples = [Example(name, voice(), instrument.render(voice())) for name in "ab"]
    summary = comparing.evaluate(instrument, examples, tmp_path / "report")
    assert [example["pitch_accuracy"] for example in summary["examples"]] == [1.0, 1.0]
    assert len(re.findall("<article", (tmp_path / "report" / "report.html").read_text(encoding="utf-8"))) == 1


def test_nothing_to_evaluate_and_nowhere_to_write_are_told(tmp_path, instrument):
    with pytest.raises(DataError, match="no example"):
        comparing.evaluate(instrument, [], tmp_path / "report")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        comparing.evaluate(instrument, [Example("a", voice(), None)], tmp_path / "file")


def test_an_instrument_that_plays_nan_is_told_with_the_time(tmp_path):
    class Broken(SineInstrument):
        def render(self, piece, n_samples=None):
            samples = super().render(piece, n_samples)
            samples[8000:] = np.nan
            return samples

    with pytest.raises(DataError, match=r"first: the instrument plays NaN at 0\.5 s"):
        comparing.evaluate(Broken(), [Example("first", voice(), None)], tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_the_mean_speed_is_all_sound_over_all_time():
    both = [
        results.Result("slow", 10.0, {"real_time_factor": 1.0, "pitch_accuracy": 0.5}),
        results.Result("fast", 10.0, {"real_time_factor": 10.0, "pitch_accuracy": math.nan}),
    ]
    means = results.mean(both)
    assert means["real_time_factor"] == pytest.approx(20.0 / 11.0)
    assert means["pitch_accuracy"] == 0.5
    assert math.isnan(means["log_mel_db"])


@pytest.mark.parametrize("theme", [pictures.LIGHT, pictures.DARK])
def test_pictures_are_drawn_of_empty_and_silent_input_too(theme):
    nothing = Voice(notes=np.zeros([0, 4]))
    silence = np.zeros(4000, np.float32)
    styles = {"openness": 55}
    assert pictures.example_picture(nothing, silence, None, 16000, styles, theme).startswith(PNG)
    assert pictures.spectrogram_pair(silence, silence[:100], 16000, theme).startswith(PNG)
    assert pictures.attacks([Attack(36.0, silence[:500], silence[:500])], 16000, theme).startswith(PNG)
    assert pictures.piano_roll(voice(), {}, 2.0, theme).startswith(PNG)
    assert pictures.piano_roll(Piece((nothing, nothing)), styles, 0.0, theme).startswith(PNG)


def changed_rows(picture, other):
    """Rows of pixels where two pictures differ by more than the palette of 256 colours does."""
    both = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), int) for each in (picture, other)]
    return (np.abs(both[0] - both[1]) > 24).any(axis=(1, 2))


def test_a_picture_has_notes_bends_and_styles_of_every_voice():
    lower, upper = chords().voices
    styles = {"openness": 55}
    bent = Voice(upper.notes, upper.control_changes, np.array([[0.3, 1.0]]))
    styled = Voice(lower.notes, np.array([[0.0, 55, 40], [0.7, 55, 90]]))
    plain = pictures.piano_roll(chords(), styles, 1.5)
    rows = changed_rows(plain, pictures.piano_roll(Piece((lower, bent)), styles, 1.5))
    # The panel of the notes is above that of the style.
    edge = round(0.65 * len(rows))
    assert rows[:edge].sum() > 5 and not rows[edge:].any()
    rows = changed_rows(plain, pictures.piano_roll(Piece((styled, upper)), styles, 1.5))
    assert rows[edge:].sum() > 5 and not rows[:edge].any()
    rows = changed_rows(plain, pictures.piano_roll(Piece((lower, Voice(np.zeros([0, 4])))), styles, 1.5))
    assert rows[:edge].sum() > 5


def test_one_voice_and_a_piece_of_it_look_alike():
    styles = {"openness": 55}
    assert pictures.piano_roll(voice(), styles, 2.0) == pictures.piano_roll(Piece((voice(),)), styles, 2.0)


def test_attacks_show_the_recording_above_the_instrument():
    seconds = np.arange(960) / 16000
    recorded, played = np.sin(2.0 * np.pi * 300.0 * seconds), np.sin(2.0 * np.pi * 300.0 * seconds + 1.0)
    notes = [Attack(pitch, recorded, played) for pitch in (40.0, 45.0)]
    plain = pictures.attacks(notes, 16000)
    upper, lower = (
        np.flatnonzero(changed_rows(plain, pictures.attacks([Attack(40.0, *both), notes[1]], 16000)))
        for both in ((played, played), (recorded, recorded))
    )
    assert upper.max() < lower.min()
    many = [Attack(float(pitch), recorded, played) for pitch in range(40, 60)]
    assert Image.open(io.BytesIO(pictures.attacks(many, 16000))).height > 2 * Image.open(io.BytesIO(plain)).height
