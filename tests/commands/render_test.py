"""A rendering is as long as its MIDI file, in the format, at the rate and with the style that were asked for."""

import pathlib

import numpy as np
import pytest

import neural_midi_synth as nms
from neural_midi_synth.commands import render
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import AUDIO_SUFFIXES, read_audio
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

SAMPLE_RATE = 16000
NOTES = np.array([[0.0, 0.4, 45, 100], [0.5, 0.9, 52, 60], [0.9, 1.3, 57, 127]])


@pytest.fixture(scope="module")
def instrument(trained):
    return nms.load(trained.folder)


@pytest.fixture
def riff(tmp_path):
    path = tmp_path / "riff.mid"
    write_midi(Voice(NOTES, np.array([[0.0, 55, 0], [0.5, 55, 127]])), path)
    return path


@pytest.mark.slow
def test_the_command_plays_what_python_plays(trained, start_command, instrument, riff, tmp_path):
    arguments = ("--instrument", trained.folder, "--midi", riff, "--output", tmp_path / "riff.wav")
    answer = start_command("render", *arguments).answer()
    assert (answer.status, answer.output.strip()) == (0, str(tmp_path / "riff.wav")), answer.error
    assert answer.error == ""
    samples, sample_rate = read_audio(tmp_path / "riff.wav")
    assert sample_rate == instrument.sample_rate == SAMPLE_RATE
    rendered = instrument.render(riff)
    assert rendered.dtype == np.float32
    assert rendered.std() > 1e-4
    np.testing.assert_allclose(samples, rendered, rtol=0, atol=2.0**-22)  # The file has 24 bits.


# Shorter than a block of 2 s, a block and a sample beside it, and more than two blocks.
@pytest.mark.parametrize("seconds", [0.05, 1.0, 1.0001, 3.7])
def test_any_length_is_rendered_to_a_second_after_the_last_note(instrument, seconds):
    samples = instrument.render(Voice(np.array([[0.0, seconds, 50, 90]])))
    assert len(samples) == round((seconds + 1.0) * SAMPLE_RATE)
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_the_suffix_chooses_the_format_and_a_flag_the_rate(trained, run_command, instrument, riff, tmp_path, suffix):
    output = tmp_path / f"riff{suffix}"
    arguments = ("--instrument", trained.folder, "--midi", riff, "--output", output, "--sample_rate", 44100)
    answer = run_command("render", *arguments)
    assert answer.status == 0, answer.error
    samples, sample_rate = read_audio(output)
    assert sample_rate == 44100
    expected = instrument.render(riff, sample_rate=44100)
    assert len(expected) == round(2.3 * 44100)
    assert len(samples) == pytest.approx(len(expected), abs=1152)  # mp3 comes in frames of 1152 samples.
    n = min(len(samples), len(expected))
    similarity = np.corrcoef(samples[:n], expected[:n])[0, 1]
    assert similarity > 0.95  # Lossy formats change waves, but neither their place nor their shape.


def test_several_files_go_into_a_folder(trained, run_command, riff, tmp_path):
    other = tmp_path / "Other.MID"
    write_midi(Voice(NOTES[:1]), other)
    arguments = ("--instrument", trained.folder, "--midi", riff, "--midi", other, "--output", tmp_path / "new" / "song")
    answer = run_command("render", *arguments)
    assert answer.status == 0, answer.error
    folder = tmp_path / "new" / "song"
    assert answer.output.split() == [str(folder / "riff.wav"), str(folder / "Other.wav")]
    assert len(read_audio(folder / "riff.wav")[0]) == round(2.3 * SAMPLE_RATE)
    assert len(read_audio(folder / "Other.wav")[0]) == round(1.4 * SAMPLE_RATE)


def test_a_style_holds_throughout_whatever_the_file_says(trained, run_command, instrument, riff, tmp_path):
    arguments = ("--instrument", trained.folder, "--midi", riff, "--output", tmp_path / "riff.wav")
    answer = run_command("render", *arguments, "--style", "openness=127", "--style", "power_chord = 0")
    assert answer.status == 0, answer.error
    samples, _ = read_audio(tmp_path / "riff.wav")
    throughout = instrument.render(Voice(NOTES, np.array([[0.0, 55, 127], [0.0, 56, 0]])))
    np.testing.assert_allclose(samples, throughout, rtol=0, atol=2.0**-22)
    assert np.abs(throughout - instrument.render(riff)).max() > 1e-5
    np.testing.assert_array_equal(instrument.render(riff, {"openness": 127, "power_chord": 0}), throughout)


def test_a_track_is_chosen(trained, run_command, tmp_path):
    import mido

    midi = mido.MidiFile(type=1)
    for name, n_beats in (("Bass", 1), ("Lead", 4)):
        messages = [mido.MetaMessage("track_name", name=name), mido.Message("note_on", note=50, velocity=80)]
        midi.tracks.append(mido.MidiTrack([*messages, mido.Message("note_off", note=50, time=480 * n_beats)]))
    midi.save(tmp_path / "band.mid")
    arguments = ("--instrument", trained.folder, "--midi", tmp_path / "band.mid", "--output", tmp_path)
    for choice, seconds in ((("--track", "1"), 1.5), (("--track", "Lead"), 3.0), (("--all_tracks",), 3.0)):
        assert run_command("render", *arguments, *choice).status == 0
        assert len(read_audio(tmp_path / "band.wav")[0]) == round(seconds * SAMPLE_RATE)


def test_of_a_band_plays_what_lies_in_the_range_that_was_learnt_and_a_line_says_so(trained, run_command, tmp_path):
    import mido

    midi = mido.MidiFile(type=1)
    # The takes lie between 40 and 60. A flute lies above them, and drums are never played.
    for name, channel, pitch, n_notes in (("Flute", 0, 90, 9), ("Guitar", 1, 50, 4), ("Drums", 9, 45, 30)):
        messages = [mido.MetaMessage("track_name", name=name), mido.Message("program_change", program=channel)]
        for _ in range(n_notes):
            messages.append(mido.Message("note_on", note=pitch, velocity=80, channel=channel))
            messages.append(mido.Message("note_off", note=pitch, channel=channel, time=480))
        messages[1].channel = channel
        midi.tracks.append(mido.MidiTrack(messages))
    midi.save(tmp_path / "band.mid")
    arguments = ("--instrument", trained.folder, "--midi", tmp_path / "band.mid", "--output", tmp_path)
    answer = run_command("render", *arguments)
    assert answer.status == 0, answer.error
    (line,) = (line for line in answer.error.splitlines() if "instruments" in line)
    assert "track 2 'Guitar' MIDI channel 2 plays, which fits best of 3 instruments" in line
    assert "--track" in line and "--midi_channel" in line and "--all_tracks" in line
    assert len(read_audio(tmp_path / "band.wav")[0]) == round(3.0 * SAMPLE_RATE)


def test_chords_are_played(trained, run_command, instrument, tmp_path):
    chord = nms.Piece(tuple(Voice(np.array([[0.1, 0.8, pitch, 90]])) for pitch in (45, 52, 57)))
    write_midi(chord, tmp_path / "chord.mid")
    answer = run_command(
        "render", "--instrument", trained.folder, "--midi", tmp_path / "chord.mid", "--output", tmp_path
    )
    assert answer.status == 0, answer.error
    samples, _ = read_audio(tmp_path / "chord.wav")
    np.testing.assert_allclose(samples, instrument.render(chord), rtol=0, atol=1e-4)


def test_outputs_have_names_of_their_own(tmp_path):
    midi = [pathlib.Path("a/verse.mid"), pathlib.Path("b/chorus.MID")]
    assert render.output_paths(midi, None) == [pathlib.Path("verse.wav"), pathlib.Path("chorus.wav")]
    assert render.output_paths(midi, "song") == [pathlib.Path("song/verse.wav"), pathlib.Path("song/chorus.wav")]
    assert render.output_paths(midi[:1], "x/out.FLAC") == [pathlib.Path("x/out.FLAC")]
    dotted = tmp_path / "take.2"
    dotted.mkdir()
    assert render.output_paths(midi[:1], str(dotted)) == [dotted / "verse.wav"]
    with pytest.raises(DataError, match="two MIDI files"):
        render.output_paths([midi[0], pathlib.Path("b/verse.mid")], None)


def test_without_an_instrument_the_guitar_of_the_package_plays(run_command, riff, tmp_path):
    answer = run_command("render", "--midi", riff, "--output", tmp_path / "riff.wav")
    assert answer.status == 0, answer.error
    samples, sample_rate = read_audio(tmp_path / "riff.wav")
    guitar = nms.load()
    assert sample_rate == guitar.sample_rate
    assert not guitar.controls.needs_future  # It can be played live.
    np.testing.assert_allclose(samples, guitar.render(riff), rtol=0, atol=2.0**-22)
    assert np.abs(samples).max() > 0.01
