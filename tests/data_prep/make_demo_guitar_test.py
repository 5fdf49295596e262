"""The demo guitar as it is committed: aligned, complete, small enough, and made by the script beside it."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import pathlib
import sys

import mido
import numpy as np
import pytest
import rpp
import soundfile

REPOSITORY = pathlib.Path(__file__).parents[2]
FOLDER = REPOSITORY / "data_prep" / "demo_guitar"
TAKES = sorted(path.stem for path in FOLDER.glob("take_*.mid"))
EXAMPLES = ("riff", "test_midi_extra_long_open_closed", "test_midi_long_short", "test_midi_longer_open_closed")
OPENNESS, POWER_CHORD = 55, 56


@pytest.fixture(scope="module")
def make_demo_guitar():
    specification = importlib.util.spec_from_file_location("make_demo_guitar", FOLDER.parent / "make_demo_guitar.py")
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(FOLDER.parent))  # as when the script is run: guitar_session.py stands beside it
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER.parent))
    return module


def read_midi(path: pathlib.Path) -> tuple[list[list[float]], dict[int, list[tuple[float, int]]]]:
    """Reads notes [start s, end s, pitch, velocity, openness, power chord] and control changes {number: (s, value)}."""
    notes, controls, in_force, now = [], collections.defaultdict(list), {}, 0.0
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "control_change":
            controls[message.control].append((now, message.value))
            in_force[message.control] = message.value
        elif message.type == "note_on":
            assert not notes or notes[-1][1] is not None, f"{path.name}: two notes at once at {now:.3f} s"
            notes.append([now, None, message.note, message.velocity, in_force[OPENNESS], in_force[POWER_CHORD]])
        elif message.type == "note_off":
            assert notes[-1][1] is None and notes[-1][2] == message.note
            notes[-1][1] = now
    return notes, controls


def all_notes() -> list[list[float]]:
    return [note for take in TAKES for note in read_midi(FOLDER / f"{take}.mid")[0]]


def style(note: list[float]) -> tuple[str, bool]:
    return "closed" if note[4] == 0 else "open" if note[4] == 127 else "between", note[5] >= 64


def onset_delays(take: str) -> list[float]:
    """Seconds from note to sound, for the notes after at least 0.2 s of rest."""
    samples, sample_rate = soundfile.read(FOLDER / f"{take}.mp3")
    level = np.sqrt(np.convolve(samples**2, np.full(132, 1 / 132), "same"))  # over 3 ms
    notes, _ = read_midi(FOLDER / f"{take}.mid")
    delays = []
    for before, note in itertools.pairwise(notes):
        if note[0] - before[1] < 0.2:
            continue
        onset = round(note[0] * sample_rate)
        around = level[onset - sample_rate // 20 : onset + sample_rate // 12]
        delays.append((np.argmax(around > 0.2 * around.max()) - sample_rate // 20) / sample_rate)
    return delays


def test_every_take_is_whole():
    assert len(TAKES) >= 8
    for take in TAKES:
        for suffix in (".mp3", ".mid", ".RPP"):
            assert (FOLDER / f"{take}{suffix}").is_file()


def test_the_whole_folder_is_at_most_nine_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 9e6


def test_there_are_twelve_minutes_in_mono_at_44100_hz_that_never_clip():
    seconds = 0.0
    for take in TAKES:
        samples, sample_rate = soundfile.read(FOLDER / f"{take}.mp3")
        assert sample_rate == 44100 and samples.ndim == 1
        assert 0.3 < np.abs(samples).max() < 1
        seconds += len(samples) / sample_rate
    assert 12 * 60 <= seconds <= 13 * 60


@pytest.mark.parametrize("take", TAKES)
def test_sound_begins_with_its_note(take):
    delays = np.array(onset_delays(take))
    assert len(delays) > 10
    # Half of the delay is the sampled string's own attack, up to 25 ms where a palm-muted pick scrapes first.
    assert 0 < np.median(delays) < 0.015
    assert delays.min() > -0.005 and delays.max() < 0.03


def test_takes_do_not_drift():
    early, late = [], []
    for take in TAKES:
        delays = onset_delays(take)
        early += delays[: len(delays) // 2]
        late += delays[len(delays) // 2 :]
    assert abs(np.mean(early) - np.mean(late)) < 0.005  # a drift of 100 ppm over a take would already be 4 ms


@pytest.mark.parametrize("take", TAKES)
def test_recording_is_as_long_as_its_annotation_and_a_tail(take):
    notes, _ = read_midi(FOLDER / f"{take}.mid")
    assert soundfile.info(FOLDER / f"{take}.mp3").duration == pytest.approx(notes[-1][1] + 1.0, abs=1e-3)


def test_notes_are_the_ones_a_training_set_needs():
    notes = np.array([note[:4] for note in all_notes()])
    lengths = notes[:, 1] - notes[:, 0]
    assert lengths.min() > 0.0999 and lengths.max() < 2.5001
    assert np.sum(lengths > 2.4) >= 20
    assert set(notes[:, 2]) == set(range(36, 65))
    assert notes[:, 3].min() == 40 and notes[:, 3].max() == 127


def test_every_pitch_is_heard_closed_open_and_between_in_short_and_long_notes():
    heard = collections.Counter((note[2], style(note)[0]) for note in all_notes())
    held = collections.Counter((note[2], style(note)[0]) for note in all_notes() if note[1] - note[0] >= 0.5)
    for pitch in range(36, 65):
        for openness in ("closed", "between", "open"):
            assert heard[pitch, openness] >= 2, (pitch, openness)
        assert held[pitch, "closed"] and held[pitch, "open"], pitch


@pytest.mark.parametrize("take", TAKES)
def test_every_take_holds_every_style_register_and_length(take):
    notes, _ = read_midi(FOLDER / f"{take}.mid")
    assert len({style(note) for note in notes}) == 6
    assert {int((note[2] - 36) // 10) for note in notes} == {0, 1, 2}
    assert min(note[1] - note[0] for note in notes) < 0.15 and max(note[1] - note[0] for note in notes) > 2


@pytest.mark.parametrize("take", TAKES)
def test_any_minute_holds_closed_and_open_single_notes_and_power_chords(take):
    notes, _ = read_midi(FOLDER / f"{take}.mid")
    for start in np.arange(0, notes[-1][1] - 60, 1.0):
        styles = {style(note) for note in notes if start <= note[0] < start + 60}
        assert {("closed", False), ("open", False)} <= styles
        assert any(power_chord for _, power_chord in styles)


def test_there_are_legato_notes_rests_and_bends():
    notes = [read_midi(FOLDER / f"{take}.mid")[0] for take in TAKES]
    gaps = np.concatenate([[after[0] - before[1] for before, after in itertools.pairwise(take)] for take in notes])
    assert np.mean(gaps < 1e-6) > 0.3 and np.mean(gaps > 0.2) > 0.1
    assert gaps.max() < 1.5
    for take in TAKES:
        wheel = [message.pitch for message in mido.MidiFile(FOLDER / f"{take}.mid") if message.type == "pitchwheel"]
        assert len(wheel) > 20 and max(wheel) > 4000 and wheel[-1] == 0


@pytest.mark.parametrize("take", TAKES)
def test_reaper_project_holds_recording_and_annotation_on_two_tracks(take):
    project = rpp.loads((FOLDER / f"{take}.RPP").read_text(encoding="utf-8"))
    midi = mido.MidiFile(FOLDER / f"{take}.mid")
    tempo = next(message.tempo for message in midi if message.type == "set_tempo")
    assert float(project.find("TEMPO")[1]) == pytest.approx(mido.tempo2bpm(tempo))
    audio_item, midi_item = (track.find("ITEM") for track in project.findall("TRACK"))
    for item in (audio_item, midi_item):
        assert float(item.find("POSITION")[1]) == 0
        length = soundfile.info(FOLDER / f"{take}.mp3").duration
        assert float(item.find("LENGTH")[1]) == pytest.approx(length, abs=1e-3)
    audio, events = audio_item.find("SOURCE"), midi_item.find("SOURCE")
    assert list(audio.attrib) == ["MP3"] and list(events.attrib) == ["MIDI"]
    assert (FOLDER / audio.find("FILE")[1]).is_file()
    assert events.find("HASDATA")[1:] == ["1", str(midi.ticks_per_beat), "QN"]
    written = [(int(line[1]), *(int(byte, 16) for byte in line[2:])) for line in events.findall("E")]
    played = [(message.time, *message.bytes()) for message in midi.tracks[0] if not message.is_meta]
    assert written[:-1] == played
    assert written[-1][1:] == (0xB0, 123, 0)


def test_examples_are_the_published_ones_and_a_riff():
    assert tuple(sorted(path.stem for path in (FOLDER / "examples").glob("*.mid"))) == EXAMPLES
    for example in EXAMPLES:
        _, controls = read_midi(FOLDER / "examples" / f"{example}.mid")
        assert controls[OPENNESS][0][0] == 0
        information = soundfile.info(FOLDER / "examples" / f"{example}.flac")
        assert (information.samplerate, information.channels, information.subtype) == (44100, 1, "PCM_16")


def test_extra_long_open_closed_is_as_published():
    notes, _ = read_midi(FOLDER / "examples" / "test_midi_extra_long_open_closed.mid")
    assert [note[2] for note in notes] == [36, 36]
    assert [note[4] for note in notes] == [0, 127]
    assert all(note[1] - note[0] == pytest.approx(2.0) for note in notes)


def triads(example: str) -> list[list[list[float]]]:
    notes, _ = read_midi(FOLDER / "examples" / f"{example}.mid")
    assert len(notes) == 12
    chords = [notes[i : i + 3] for i in range(0, 12, 3)]
    root = notes[0][2]
    for chord, octave in zip(chords, (0, 0, 12, 12), strict=True):
        assert [note[2] - root - octave for note in chord] == [0, 3, 7]
    return chords


def test_long_short_is_as_published():
    chords = triads("test_midi_long_short")
    _, controls = read_midi(FOLDER / "examples" / "test_midi_long_short.mid")
    assert {value for _, value in controls[OPENNESS]} == {0}
    lengths = [chord[0][1] - chord[0][0] for chord in chords]
    assert lengths[0] > 2 * lengths[1] and lengths[2] > 2 * lengths[3]


def test_longer_open_closed_is_as_published():
    chords = triads("test_midi_longer_open_closed")
    assert [[note[4] for note in chord] for chord in chords] == [[127] * 3, [0] * 3, [127] * 3, [0] * 3]
    longer = min(note[1] - note[0] for chord in chords for note in chord)
    assert longer > max(note[1] - note[0] for chord in triads("test_midi_long_short") for note in chord)


def test_riff_lasts_twenty_seconds_in_all_styles_with_a_bend():
    path = FOLDER / "examples" / "riff.mid"
    notes, _ = read_midi(path)
    assert soundfile.info(path.with_suffix(".flac")).duration == pytest.approx(20, abs=0.01)
    assert len({style(note) for note in notes}) >= 4
    assert any(message.type == "pitchwheel" for message in mido.MidiFile(path))


def test_examples_are_not_in_the_takes():
    takes = [[note[2] for note in read_midi(FOLDER / f"{take}.mid")[0]] for take in TAKES]

    def runs(pitches, length):
        return {tuple(pitches[i : i + length]) for i in range(len(pitches) - length + 1)}

    for example, length in (("riff", 8), ("test_midi_long_short", 3), ("test_midi_longer_open_closed", 3)):
        pitches = [note[2] for note in read_midi(FOLDER / "examples" / f"{example}.mid")[0]]
        assert not runs(pitches, length) & set().union(*(runs(take, length) for take in takes)), example


def test_openness_and_power_chord_are_heard_in_the_references():
    samples, rate = soundfile.read(FOLDER / "examples" / "test_midi_extra_long_open_closed.flac")

    def sustain(onset):  # dB, as the ratio of the energies
        held, attack = samples[int((onset + 0.5) * rate) : int((onset + 1.5) * rate)], samples[int(onset * rate) :]
        return 10 * np.log10(np.mean(held**2) / np.mean(attack[: rate // 10] ** 2))

    assert sustain(0.0) < -10 < 0 < sustain(2.0)  # a palm-muted string dies away, an overdriven one swells


def test_the_script_plays_what_is_committed(make_demo_guitar, tmp_path):
    written = 0
    for name, score in make_demo_guitar.record_session():
        make_demo_guitar.write_midi(make_demo_guitar.messages(score), score.tempo, name, tmp_path / "a.mid")
        assert (tmp_path / "a.mid").read_bytes() == (FOLDER / f"{name}.mid").read_bytes()
        make_demo_guitar.write_reaper_project(score, name, tmp_path / "a.RPP")
        assert (tmp_path / "a.RPP").read_bytes() == (FOLDER / f"{name}.RPP").read_bytes()
        written += 1
    assert written == len(TAKES)
    for name, write_score in make_demo_guitar.EXAMPLES.items():
        score = write_score()
        make_demo_guitar.write_midi(make_demo_guitar.messages(score), score.tempo, name, tmp_path / "a.mid")
        assert (tmp_path / "a.mid").read_bytes() == (FOLDER / "examples" / f"{name}.mid").read_bytes()


def test_the_licence_of_the_sound_is_said_beside_it():
    assert "FluidR3 GM" in (FOLDER / "README.md").read_text(encoding="utf-8")
    licence = (FOLDER / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in licence and "Frank Wen" in licence
