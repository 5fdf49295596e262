"""Takes of Reaper projects: they give the examples that recordings and MIDI files give, and count once."""

import logging
import pathlib
import shutil
import warnings

import numpy as np
import pytest
from made_takes import SAMPLE_RATE, make_take

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio, resample
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds

    from neural_midi_synth.data_prep import takes
    from neural_midi_synth.data_prep.midi_audio import build

DEMO_GUITAR = pathlib.Path(__file__).resolve().parents[2] / "data_prep" / "demo_guitar"
TICKS_PER_SECOND = 1920  # 960 ticks a beat, 120 beats a minute.


def make_project(path, notes, recordings, tempo="TEMPO 120 4 4", envelope="", ticks=TICKS_PER_SECOND):
    """Writes a project: a MIDI item with notes `[n, 4]`, and items (lines of each) that play recordings."""
    events = [(round(end * ticks), f"80 {int(pitch):02x} 00") for _, end, pitch, _ in notes]
    events += [
        (round(start * ticks), f"90 {int(pitch):02x} {int(velocity):02x}") for start, _, pitch, velocity in notes
    ]
    lines, last = [], 0
    for tick, message in sorted(events):
        lines.append(f"        E {tick - last} {message}")
        last = tick
    events = "\n".join([*lines, "        E 960 b0 7b 00"])
    items = "\n".join(f"    <ITEM\n{lines}\n    >" for lines in recordings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"""<REAPER_PROJECT 0.1 "6.80/win64" 1690000000
  {tempo}
  <TEMPOENVEX
{envelope}
  >
  <TRACK {{2296AB9A-3C5D-4928-85F1-E1D1FE12BC95}}
    NAME Guitar
{items}
  >
  <TRACK {{33374A97-357A-460B-BF17-2DE20F29CF97}}
    NAME Annotation
    <ITEM
      POSITION 0
      LENGTH 1000
      LOOP 0
      SOFFS 0
      <SOURCE MIDI
        HASDATA 1 960 QN
{events}
      >
    >
  >
>
""")
    return path


def recording(file, position=0.0, length=1000.0, offset=0.0, more="", loop=1):
    """The lines of an item that plays a recording."""
    return (
        f"      POSITION {position}\n      LENGTH {length}\n      LOOP {loop}\n{more}"
        f'      SOFFS {offset}\n      <SOURCE WAVE\n        FILE "{file}"\n      >'
    )


def examples(source, data_dir, **settings):
    built = build(source, data_dir, sample_rate=SAMPLE_RATE, **settings)
    return {
        split: sorted(tfds.as_numpy(built.as_dataset(split)), key=lambda each: (each["take"], each["start"]))
        for split in ("train", "validation", "test")
    }


def assert_alike(ours, theirs):
    for split, of_split in theirs.items():
        assert len(ours[split]) == len(of_split) > 0
        for mine, other in zip(ours[split], of_split):
            assert mine.keys() == other.keys()
            for name, value in other.items():
                np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_the_demo_guitar_gives_the_same_examples_from_projects_alone(tmp_path):
    for i in (1, 2):
        for suffix in (".mp3", ".mid", ".RPP"):
            kinds = {"pairs": (".mp3", ".mid"), "projects": (".mp3", ".RPP"), "both": (".mp3", ".mid", ".RPP")}
            for folder, suffixes in kinds.items():
                if suffix in suffixes:
                    (tmp_path / folder).mkdir(exist_ok=True)
                    shutil.copy(DEMO_GUITAR / f"take_{i:02d}{suffix}", tmp_path / folder)
    pairs = examples(tmp_path / "pairs", tmp_path / "data")
    assert_alike(examples(tmp_path / "projects", tmp_path / "data"), pairs)
    assert_alike(examples(tmp_path / "both", tmp_path / "data"), pairs)
    found = takes.find_takes(tmp_path / "both")
    assert [(take.name, take.midi_path.suffix) for take in found] == [("take_01", ".mid"), ("take_02", ".mid")]


def test_a_gradual_tempo_agrees_with_the_pair(tmp_path):
    """From 60 to 120 beats a minute in 30 s, t seconds are t + t² / 60 quarter notes."""
    notes = make_take(tmp_path / "pair" / "take.wav")
    in_beats = notes.copy()
    in_beats[:, :2] += in_beats[:, :2] ** 2 / 60.0
    shutil.copytree(tmp_path / "pair", tmp_path / "project")
    (tmp_path / "project" / "take.mid").unlink()
    envelope = "    PT 0 60 0\n    PT 30 120 1"
    path = make_project(
        tmp_path / "project" / "take.RPP", in_beats, [recording("take.wav")], "TEMPO 60 4 4", envelope, ticks=960
    )
    _, _, piece = takes.read_take(takes.find_takes(path)[0])
    # Half a tick at 60 beats a minute is 0.5 ms.
    np.testing.assert_allclose(piece.notes, notes, atol=6e-4)
    assert [take.name for take in takes.find_takes(path.parent)] == ["take"]


def test_items_of_a_project_are_takes(tmp_path):
    """Both halves of a recording, the second as late in the project as it is in the recording, and once more alone."""
    notes = make_take(tmp_path / "take.wav")
    (tmp_path / "take.mid").unlink()
    halves = [recording("take.wav", 0, 15), recording("take.wav", 15, 15, 15), recording("take.wav", 500, 15)]
    path = make_project(tmp_path / "song.RPP", notes, halves)
    first, second = takes.find_takes(path)
    assert (first.name, second.name) == ("song 1", "song 2")
    whole, _ = read_audio(tmp_path / "take.wav")
    for take, start in ((first, 0.0), (second, 15.0)):
        samples, sample_rate, piece = takes.read_take(take)
        np.testing.assert_array_equal(samples, whole[round(start * sample_rate) :][: 15 * sample_rate])
        inside = notes[(notes[:, 1] > start) & (notes[:, 0] < start + 15)] - [start, start, 0, 0]
        inside[:, 1] = np.minimum(inside[:, 1], 15.0)
        np.testing.assert_allclose(piece.notes, inside, atol=3e-4)  # Half a tick.


def test_volume_and_play_rate_are_those_of_the_item(tmp_path):
    notes = make_take(tmp_path / "take.wav")
    (tmp_path / "take.mid").unlink()
    more = "      VOLPAN 0.5 0 0.5 -1\n      PLAYRATE 0.5 0 0 -1 0 0.0025\n"
    path = make_project(tmp_path / "song.RPP", notes, [recording("take.wav", 0, 20, 1, more)])
    samples, sample_rate, _ = takes.read_take(takes.find_takes(path)[0])
    whole, _ = read_audio(tmp_path / "take.wav")
    expected = 0.25 * resample(whole[SAMPLE_RATE : 11 * SAMPLE_RATE], SAMPLE_RATE / 2, SAMPLE_RATE)
    assert sample_rate == SAMPLE_RATE
    np.testing.assert_array_equal(samples, expected)


def test_a_take_rendered_from_a_project_counts_once(tmp_path):
    """A pair beside the project that it was exported from, a second later and with its recording elsewhere."""
    notes = make_take(tmp_path / "render.wav")
    write_midi(Voice(notes), tmp_path / "render.mid")
    (tmp_path / "Media").mkdir()
    shutil.copy(tmp_path / "render.wav", tmp_path / "Media" / "raw.wav")
    make_project(tmp_path / "song.RPP", notes + [1, 1, 0, 0], [recording("Media/raw.wav", 1)])
    text, (pair,) = (tmp_path / "song.RPP").read_text(), takes.find_takes(tmp_path)
    assert pair.name == "render"
    # The same notes in another style are another take.
    (tmp_path / "song.RPP").write_text(text.replace("QN\n", "QN\n        E 0 b0 37 33\n"))
    assert [take.name for take in takes.find_takes(tmp_path)] == ["render", "song"]
    other = make_take(tmp_path / "Media" / "other.wav", seed=5)
    make_project(tmp_path / "song.RPP", other, [recording("Media/other.wav")])
    assert [take.name for take in takes.find_takes(tmp_path)] == ["render", "song"]


def test_a_recording_that_loops_counts_once(tmp_path):
    """What is annotated after its end is not used."""
    notes = make_take(tmp_path / "take.wav", seconds=10.0)
    (tmp_path / "take.mid").unlink()
    path = make_project(tmp_path / "song.RPP", np.concatenate([notes, notes + [10, 10, 0, 0]]), [recording("take.wav")])
    samples, _, piece = takes.read_take(takes.find_takes(path)[0])
    assert len(samples) == 10 * SAMPLE_RATE
    np.testing.assert_allclose(piece.notes, notes, atol=3e-4)  # Half a tick.


def test_recordings_that_nothing_annotates_are_told_of_beside_projects(tmp_path, caplog):
    notes = make_take(tmp_path / "take.wav")
    (tmp_path / "take.mid").unlink()
    shutil.copy(tmp_path / "take.wav", tmp_path / "first try.wav")
    make_project(tmp_path / "song.RPP", notes, [recording("take.wav")])
    with caplog.at_level(logging.WARNING, "absl"):
        assert [take.name for take in takes.find_takes(tmp_path)] == ["song"]
    assert "first try.wav: not used" in caplog.text


def test_the_fingerprint_tells_takes_apart_and_not_where_they_are(tmp_path):
    notes = make_take(tmp_path / "a" / "take.wav")
    (tmp_path / "a" / "take.mid").unlink()
    path = make_project(tmp_path / "a" / "song.RPP", notes, [recording("take.wav")])
    first = takes.fingerprint(takes.find_takes(path))
    path.write_text(path.read_text().replace("  <TRACK", "  RIPPLE 2\n  <TRACK", 1))
    assert takes.fingerprint(takes.find_takes(path)) == first
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert takes.fingerprint(takes.find_takes(tmp_path / "b" / "song.RPP")) == first
    make_project(tmp_path / "b" / "song.RPP", notes + [0.01, 0.01, 0, 0], [recording("take.wav")])
    assert takes.fingerprint(takes.find_takes(tmp_path / "b" / "song.RPP")) != first
    make_project(tmp_path / "b" / "song.RPP", notes, [recording("take.wav", offset=0.1)])
    assert takes.fingerprint(takes.find_takes(tmp_path / "b" / "song.RPP")) != first


def test_two_takes_of_one_name_are_refused(tmp_path):
    notes = make_take(tmp_path / "song 1.wav")
    make_take(tmp_path / "Media" / "other.wav", seed=5)
    halves = [recording("Media/other.wav", 0, 10), recording("Media/other.wav", 10, 10, 10)]
    make_project(tmp_path / "song.RPP", notes + [0, 0, 1, 0], halves)
    with pytest.raises(DataError, match="has a take called like one of song"):
        takes.find_takes(tmp_path)


def test_notes_far_behind_the_end_of_a_recording_are_refused(tmp_path):
    notes = make_take(tmp_path / "take.wav")
    (tmp_path / "take.mid").unlink()
    path = make_project(tmp_path / "song.RPP", notes + [5, 5, 0, 0], [recording("take.wav", loop=0)])
    with pytest.raises(DataError, match="song.RPP: its last note ends at .* after the end of take.wav"):
        takes.read_take(takes.find_takes(path)[0])
