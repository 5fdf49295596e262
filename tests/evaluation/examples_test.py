"""Examples are read from folders and from data sets, with all that shapes their sound."""

import json

import mido
import numpy as np
import pytest

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import examples
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import write_midi


def voice():
    return Voice(
        notes=np.array([[0.1, 0.6, 40, 100], [0.7, 1.0, 43, 60], [1.0, 1.4, 47, 127]]),
        control_changes=np.array([[0.0, 55, 0], [0.7, 55, 127]]),
        pitch_bends=np.array([[0.8, 0.5], [1.1, 0.0]]),
    )


def chords():
    """Three voices, the last one silent at first, with styles and bends that differ."""
    return Piece(
        (
            voice(),
            Voice(np.array([[0.1, 1.4, 52, 90]]), np.array([[0.0, 55, 127]])),
            Voice(np.array([[0.8, 1.2, 59, 80], [1.2, 1.45, 59, 80]]), pitch_bends=np.array([[0.9, -0.25]])),
        )
    )


def assert_same(piece, expected):
    """Both have the same voices, within the precision of float32."""
    for voice_of_piece, voice_expected in zip(piece.voices, expected.voices, strict=True):
        for kind in ("notes", "control_changes", "pitch_bends"):
            np.testing.assert_allclose(getattr(voice_of_piece, kind), getattr(voice_expected, kind), atol=1e-5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder"),
        ([], "has no MIDI file"),
        (["riff.mid"], r"no MIDI file has a recording beside it. .*riff\.wav"),
    ],
)
def test_a_folder_without_what_is_needed_is_told(tmp_path, files, message):
    folder = tmp_path / "riffs"
    if files is not None:
        folder.mkdir()
        for name in files:
            write_midi(voice(), folder / name)
    with pytest.raises(DataError, match=message):
        examples.examples_in(folder, 16000)


def test_a_folder_is_read_with_all_voices_of_its_pieces(tmp_path):
    write_midi(chords(), tmp_path / "b.mid")
    write_audio(tmp_path / "B.wav", np.full(8000, 0.25, np.float32), 8000)
    write_midi(voice(), tmp_path / "a.MID")
    first, second = examples.examples_in(tmp_path, 16000)
    assert (first.name, second.name) == ("a", "b")
    assert first.reference is None
    assert len(second.reference) == 16000
    assert not first.is_polyphonic
    assert second.is_polyphonic
    for read, written in zip(second.piece.voices, chords().voices, strict=True):
        np.testing.assert_allclose(read.notes, written.notes, atol=1e-3)  # A tick is half a millisecond.


def test_of_several_instruments_one_can_be_chosen(tmp_path):
    midi = mido.MidiFile()
    for name, pitch in (("Lead", 60), ("Bass", 40)):
        track = midi.add_track(name)
        track.append(mido.Message("program_change", channel=len(midi.tracks), program=len(midi.tracks)))
        track.append(mido.Message("note_on", channel=len(midi.tracks), note=pitch, velocity=99))
        track.append(mido.Message("note_off", channel=len(midi.tracks), note=pitch, time=480))
    midi.save(tmp_path / "song.mid")
    write_audio(tmp_path / "song.wav", np.zeros(16000, np.float32), 16000)
    with pytest.raises(DataError, match="song.mid: has several instruments"):
        examples.examples_in(tmp_path, 16000)
    (bass,) = examples.examples_in(tmp_path, 16000, track="Bass")
    assert bass.piece.notes[:, 2].tolist() == [40]
    (lead,) = examples.examples_in(tmp_path, 16000, midi_channel=2)
    assert lead.piece.notes[:, 2].tolist() == [60]
    (both,) = examples.examples_in(tmp_path, 16000, all_tracks=True)
    assert sorted(both.piece.notes[:, 2].tolist()) == [40, 60]


def windows_of(piece, samples, starts, seconds=1.0, take=b"take_01", with_voices=True):
    """Windows as the data set's builder stores them, in float32; without voices as those of older data sets."""
    for start in starts:
        voices = Piece.of(piece).window(start, start + seconds).voices
        window = {
            "audio": samples[round(start * 16000) : round((start + seconds) * 16000)],
            "take": take,
            "start": np.float64(start),
        }
        for kind, name in (
            ("notes", "note_voices"),
            ("control_changes", "control_change_voices"),
            ("pitch_bends", "pitch_bend_voices"),
        ):
            events = [getattr(voice, kind) for voice in voices]
            window[kind] = np.concatenate(events).astype(np.float32)
            if with_voices:
                window[name] = np.repeat(np.arange(len(events), dtype=np.int32), [len(each) for each in events])
        yield window


@pytest.mark.parametrize("with_voices", [True, False])
def test_adjoining_windows_become_one_example_with_each_event_once(with_voices):
    samples = np.arange(2 * 16000, dtype=np.float32)
    windows = windows_of(voice(), samples, [0.0, 0.5, 1.0], seconds=0.5, with_voices=with_voices)
    (example,) = examples.joined_windows(windows, 16000)
    np.testing.assert_array_equal(example.reference, samples[:24000])
    assert example.is_excerpt
    assert example.name == "take_01 0:00.0"
    assert_same(example.piece, Piece.of(voice()))


def test_joined_windows_have_the_voices_of_their_take():
    windows = windows_of(chords(), np.zeros(2 * 16000, np.float32), [0.0, 0.5, 1.0], seconds=0.5)
    (example,) = examples.joined_windows(windows, 16000)
    assert example.is_polyphonic
    assert_same(example.piece, chords())


def test_what_fills_up_a_window_after_the_end_of_a_take_is_no_reference():
    samples = np.arange(2 * 16000, dtype=np.float32)
    first, last = windows_of(voice(), samples, [0.0, 1.0])
    last["n_samples"] = np.int32(4000)
    (example,) = examples.joined_windows([first | {"n_samples": np.int32(16000)}, last], 16000)
    np.testing.assert_array_equal(example.reference, samples[:20000])


def test_windows_apart_stay_apart(monkeypatch):
    samples = np.zeros(3 * 16000, np.float32)
    windows = [
        *windows_of(voice(), samples, [0.0, 1.0, 2.0], take=b"take_02"),
        *windows_of(voice(), samples, [1.5, 0.0]),
    ]
    assert [len(example.reference) for example in examples.joined_windows(windows, 16000)] == [16000, 16000, 48000]
    monkeypatch.setattr(examples, "MAX_JOINED_SECONDS", 2.0)
    names = [example.name for example in examples.joined_windows(windows, 16000)]
    assert names == ["take_01 0:00.0", "take_01 0:01.5", "take_02 0:00.0", "take_02 0:02.0"]


def test_the_test_split_is_read_from_its_folder(trained):
    facts = json.loads((trained.folder / "data_set.json").read_text())
    found = list(examples.examples_of_test_split(facts["folder"], 16000))
    assert found
    for example in found:
        take, place = example.name.split()
        minutes, seconds = place.split(":")
        (path,) = (path for path in trained.takes.glob(f"{take}.*") if path.suffix != ".mid")
        recorded, _ = read_audio(path, 16000)
        start = round((60 * int(minutes) + float(seconds)) * 16000)
        # The name has tenths of seconds: the recording is there within 0.05 s.
        shifts = range(max(start - 800, 0), start + 801)
        n = len(example.reference)
        assert any(np.array_equal(recorded[shift : shift + n], example.reference) for shift in shifts)
        assert len(example.piece.notes)
    with pytest.raises(DataError, match="is at 16000 Hz, the instrument at 8000 Hz"):
        list(examples.examples_of_test_split(facts["folder"], 8000))


def test_a_folder_without_a_data_set_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=f"^{folder}: no data set here"):
            list(examples.examples_of_test_split(folder, 16000))
