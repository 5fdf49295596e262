"""Reaper projects: what an item plays, in seconds of its recording, and what is refused in one line."""

import pathlib
import random
import re
import time

import mido
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midi import midi_files
from midi.reaper_projects import audio, item, midi, pooled, project, track, write
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi import reaper_shapes
from neural_midi_synth.midi.parts import choose_piece
from neural_midi_synth.midi.reaper import recorded_items
from neural_midi_synth.midi.standard_midi_file import read_midi

DEMO_GUITAR = pathlib.Path(__file__).resolve().parents[2] / "data_prep" / "demo_guitar"
# Two quarter notes at 960 ticks, each held for half of its time, and the marker of the end.
TWO_NOTES = ("E 0 90 3c 60", "E 480 80 3c 00", "E 480 90 3e 50", "E 480 80 3e 00", "E 480 b0 7b 00")


def read(folder, text, *, number=0, files=("guitar.wav",), **tracks):
    """What is played in a project's recording of this number."""
    items = recorded_items(write(folder, text, files=files), **tracks)
    return choose_piece(items[number].play(), "session.RPP", None, None, False, None)


def notes(folder, *midi_items, recording=None, **options):
    """The notes that MIDI items play on a recording, one by default that lasts a minute."""
    recording = recording or item(audio("guitar.wav"), length=60)
    tempo = {name: options.pop(name) for name in ("tempo", "envelope") if name in options}
    return read(folder, project(track("Guitar", recording), track("MIDI", *midi_items), **tempo), **options).notes


def starts_and_ends(*arguments, **options):
    return notes(*arguments, **options)[:, :2].tolist()


def error_of(path, **tracks):
    return midi_files.error_of(path, recorded_items, **tracks)


@pytest.mark.parametrize("number", range(1, 11))
def test_the_demo_guitar_reads_as_its_midi_files_do(number):
    path = DEMO_GUITAR / f"take_{number:02d}.RPP"
    (recorded,) = recorded_items(path)
    assert recorded.audio_path == path.with_suffix(".mp3")
    (voice,) = choose_piece(recorded.play(), str(path), None, None, False, 1).voices
    (expected,) = read_midi(path.with_suffix(".mid"), most_voices=1).voices
    for name in ("notes", "control_changes", "pitch_bends"):
        np.testing.assert_array_equal(getattr(voice, name), getattr(expected, name))


def test_events_follow_position_and_tempo(tmp_path):
    played = notes(tmp_path, item(midi(*TWO_NOTES), position=10, length=4), tempo="TEMPO 60 4 4 0")
    np.testing.assert_allclose(played, [[10.0, 10.5, 60, 96], [11.0, 11.5, 62, 80]])


def test_times_count_from_the_beginning_of_the_recording(tmp_path):
    recording = item(audio("guitar.wav"), position=9.5, length=60)
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES), position=10), recording=recording)
    np.testing.assert_allclose(played, [[0.5, 0.75], [1.0, 1.25]])


def test_a_gradual_tempo_moves_notes_by_its_closed_form(tmp_path):
    """From 60 to 120 in 8 s, n quarter notes last 8 (sqrt(1 + n / 4) - 1) s; the item begins with the third."""
    envelope = ("PT 0 60 0", "PT 8 120 1 262148 0 1")
    begin = 8.0 * (np.sqrt(1.0 + 3.0 / 4.0) - 1.0)
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES), position=begin), envelope=envelope)
    beats = 3.0 + np.array([[0.0, 0.5], [1.0, 1.5]])
    np.testing.assert_allclose(played, 8.0 * (np.sqrt(1.0 + beats / 4.0) - 1.0), atol=1e-9)


def test_a_time_signature_alone_does_not_change_the_tempo(tmp_path):
    envelope = ("PT 0 60 1", "PT 0.25 120 1 393220 0 3")
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES)), envelope=envelope)
    np.testing.assert_allclose(played, [[0.0, 0.5], [1.0, 1.5]])


def test_before_the_first_point_of_the_envelope_the_project_has_its_tempo(tmp_path):
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES)), tempo="TEMPO 60 4 4", envelope=("PT 1 120 1",))
    np.testing.assert_allclose(played, [[0.0, 0.5], [1.0, 1.25]])


def test_an_item_may_have_a_tempo_of_its_own(tmp_path):
    own = midi(*TWO_NOTES, ignore_tempo="1 60 4 4")
    np.testing.assert_allclose(starts_and_ends(tmp_path, item(own)), [[0.0, 0.5], [1.0, 1.5]])


def test_start_offset_cuts_notes_that_began_before_and_keeps_controls(tmp_path):
    events = ("E 0 b0 37 7f", "E 0 90 3c 60", "E 960 80 3c 00", "E 0 90 3e 50", "E 960 80 3e 00", "E 0 b0 7b 00")
    piece = read(
        tmp_path,
        project(track("Guitar", item(audio("guitar.wav"))), track("MIDI", item(midi(*events), offset="0.25 0.5"))),
    )
    np.testing.assert_allclose(piece.notes[:, :3], [[0.25, 0.75, 62]])
    np.testing.assert_allclose(piece.voices[0].control_changes, [[0.0, 55, 127]])


def test_play_rate_of_midi_items(tmp_path):
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES), position=1, rate=2, offset=0.5))
    np.testing.assert_allclose(played, [[1.0, 1.125]])  # The source's second 0.5 is its second note.


def test_items_end_their_notes(tmp_path):
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES), length=0.6))
    np.testing.assert_allclose(played, [[0.0, 0.25], [0.5, 0.6]])


def test_an_item_ends_what_its_pedal_holds(tmp_path):
    held = midi("E 0 b0 40 7f", "E 0 90 3c 60", "E 480 80 3c 00", "E 1440 b0 7b 00")
    np.testing.assert_allclose(starts_and_ends(tmp_path, item(held, length=1)), [[0.0, 1.0]])


def test_looped_items_repeat_their_source(tmp_path):
    played = starts_and_ends(tmp_path, item(midi(*TWO_NOTES), length=2.6, loop=1))
    begins = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    np.testing.assert_allclose(played, [[begin, min(begin + 0.25, 2.6)] for begin in begins], atol=1e-9)
    np.testing.assert_allclose(starts_and_ends(tmp_path, item(midi(*TWO_NOTES), length=2.6)), played[:2])


def test_muted_items_notes_and_takes_that_are_not_active_are_silent(tmp_path):
    events = ("Em 0 90 3c 60", "Em 480 80 3c 00", "e 480 90 3e 50", "e 480 80 3e 00", "E 480 b0 7b 00")
    second = f"      TAKE\n      NAME other\n{midi('E 0 90 24 60', 'E 960 80 24 00')}"
    played = notes(
        tmp_path,
        item(midi(*events), takes=second),
        item(midi(*TWO_NOTES), position=2, mute=1),
        item(midi(*TWO_NOTES), position=3, takes=second.replace("TAKE", "TAKE SEL")),
    )
    np.testing.assert_allclose(played[:, [0, 2]], [[0.5, 62], [3.0, 36]])


def test_pooled_items_share_their_events(tmp_path):
    pool = "{6D3C5A3E-5C1A-4A33-8C45-F4D7DBA5D5A0}"
    shared = (item(midi(*TWO_NOTES, pool=pool, kind="MIDIPOOL")), item(pooled(pool), position=8))
    np.testing.assert_allclose(notes(tmp_path, *shared)[:, 0], [0.0, 0.5, 8.0, 8.5])


def test_texts_and_system_exclusive_messages_take_their_time(tmp_path):
    text = '<X 960 0 0 0 3 "a name"\n          /wNhIG5hbWU=\n        >'
    np.testing.assert_allclose(notes(tmp_path, item(midi(text, *TWO_NOTES)))[:, 0], [0.5, 1.0])


def test_items_that_touch_are_one_annotation(tmp_path):
    held = midi("E 0 b0 37 05", "E 0 90 3c 60", "E 1920 80 3c 00", "E 0 b0 7b 00")
    piece = read(
        tmp_path,
        project(
            track("Guitar", item(audio("guitar.wav"), length=9)),
            track("MIDI", item(midi(*TWO_NOTES), position=1, length=3), item(held, length=1)),
        ),
    )
    np.testing.assert_allclose(piece.notes[:, :3], [[0.0, 1.0, 60], [1.0, 1.25, 60], [1.5, 1.75, 62]])
    assert len(piece.voices) == 1


def test_one_midi_item_over_several_recordings_is_several_takes(tmp_path):
    """The second begins within the first note, and so knows its onset; what is before or after a take is not in it."""
    events = ("E 0 b0 37 01", "E 0 90 3c 60", "E 3840 80 3c 00", "E 0 b0 37 02", *TWO_NOTES)
    recordings = [item(audio("guitar.wav"), position=start, length=1.5) for start in (0, 1.5, 20)]
    text = project(track("Guitar", *recordings), track("MIDI", item(midi(*events), length=30)))
    items = recorded_items(write(tmp_path, text))
    assert [each.position for each in items] == [0.0, 1.5]
    (first,), (second,) = items[0].play(), items[1].play()
    np.testing.assert_allclose(first.notes[:, :3], [[0.0, 1.5, 60]])
    np.testing.assert_allclose(second.notes[:, :3], [[-1.5, 0.5, 60], [0.5, 0.75, 60], [1.0, 1.25, 62]])
    np.testing.assert_allclose(second.control_changes, [[-1.5, 55, 1], [0.5, 55, 2]])


def test_midi_files_are_played_in_the_tempo_of_the_project(tmp_path):
    message = mido.Message
    messages = [mido.MetaMessage("set_tempo", tempo=250_000), message("note_on", note=60, time=480)]
    mido.MidiFile(
        ticks_per_beat=480, tracks=[mido.MidiTrack([*messages, message("note_off", note=60, time=240)])]
    ).save(tmp_path / "Riff.MID")
    source = '      <SOURCE MIDI\n        FILE "C:\\old disk\\riff.mid" 1\n      >\n'
    np.testing.assert_allclose(starts_and_ends(tmp_path, item(source)), [[0.5, 0.75]])


def test_strings_on_midi_channels_are_voices(tmp_path):
    events = ("E 0 90 28 60", "E 0 91 2f 60", "E 480 80 28 00", "E 480 81 2f 00", "E 0 b0 7b 00")
    piece = read(tmp_path, project(track("Guitar", item(audio("guitar.wav"))), track("MIDI", item(midi(*events)))))
    assert [voice.notes[:, :3].tolist() for voice in piece.voices] == [[[0.0, 0.25, 40]], [[0.0, 0.5, 47]]]


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        (1, lambda x: x),
        (2, lambda x: x * x * (3 - 2 * x)),
        (3, lambda x: 1 - (1 - x) ** 3),
        (4, lambda x: x**3),
    ],
)
def test_shapes_of_control_changes_are_sampled_into_steps(tmp_path, shape, formula):
    """32 steps in a quarter note, as the project says: at 120 beats a minute one every 15.6 ms."""
    events = ("E 0 90 3c 60", "E 0 b0 37 0a", f"ENV {shape} 0 0", "E 1920 b0 37 6e", "E 0 80 3c 00", "E 0 b0 7b 00")
    piece = read(tmp_path, project(track("Guitar", item(audio("guitar.wav"))), track("MIDI", item(midi(*events)))))
    changes = piece.voices[0].control_changes
    times = np.arange(64) / 64.0
    held = changes[np.searchsorted(changes[:, 0], times + 1e-9, side="right") - 1, 2]
    np.testing.assert_allclose(held, 10 + 100 * formula(times), atol=0.5 + 1e-9)  # Rounded to whole values.
    assert np.all(np.diff(changes[:, 2]) > 0)


def test_bends_move_along_their_shape(tmp_path):
    events = ("E 0 e0 00 40", "ENV 1 0 0", "E 0 90 3c 60", "E 960 e0 7f 7f", "E 0 80 3c 00", "E 0 b0 7b 00")
    piece = read(tmp_path, project(track("Guitar", item(audio("guitar.wav"))), track("MIDI", item(midi(*events)))))
    bends = piece.voices[0].pitch_bends
    assert len(bends) > 30
    np.testing.assert_allclose(bends[:, 1], 2.0 * bends[:, 0] / 0.5, atol=2.0 / 8192 + 1e-9)  # A step of the wheel.


@pytest.mark.parametrize("tension", [-1.0, -0.5, 0.0, 0.3, 1.0])
def test_a_bezier_curve_has_the_control_points_that_cockos_tells(tension):
    x1, x2, y1, y2 = {  # In its forum; those of 0.3 lie between those of 0 and 1.
        -1.0: (0, 0, 1, 1),
        -0.5: (0.125, 0.375, 0.625, 0.875),
        0.0: (0.25, 0.75, 0.25, 0.75),
        0.3: (0.475, 0.825, 0.175, 0.525),
        1.0: (1, 1, 0, 0),
    }[tension]
    t = np.linspace(0.0, 1.0, 101)
    x, y = (3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 for a, b in ((x1, x2), (y1, y2)))
    inside = (x > 0.001) & (x < 0.999)  # At the ends the curves of -1 and 1 are vertical.
    curve = reaper_shapes.curve(reaper_shapes.BEZIER, tension, x[inside])
    np.testing.assert_allclose(curve, y[inside], atol=2e-5)


def test_audio_items_tell_which_part_of_the_recording_they_play(tmp_path):
    values = {"position": 2, "length": 3, "offset": 1.5, "rate": 2, "keep_pitch": 0, "volume": 0.5, "take_volume": 0.5}
    recording = item(audio("guitar.wav"), chanmode=4, **values)
    text = project(track("Guitar", recording), track("MIDI", item(midi(*TWO_NOTES), position=3)))
    (recorded,) = recorded_items(write(tmp_path, text))
    assert (recorded.offset, recorded.duration, recorded.rate) == (1.5, 6.0, 2.0)
    assert (recorded.gain, recorded.channel, recorded.position) == (0.25, 1, 2.0)


def test_a_section_is_a_part_of_a_recording(tmp_path):
    inner = audio("guitar.wav").replace("      ", "        ")
    section = f"      <SOURCE SECTION\n        LENGTH 5\n        STARTPOS 7\n        OVERLAP 0.01\n{inner}      >\n"
    text = project(track("Guitar", item(section, offset=1, length=60)), track("MIDI", item(midi(*TWO_NOTES))))
    (recorded,) = recorded_items(write(tmp_path, text))
    assert (recorded.offset, recorded.duration) == (8.0, 4.0)


def test_silence_before_a_recording_is_left_out(tmp_path):
    recording = item(audio("guitar.wav"), offset=-0.5, length=3)
    text = project(track("Guitar", recording), track("MIDI", item(midi(*TWO_NOTES))))
    (recorded,) = recorded_items(write(tmp_path, text))
    assert (recorded.offset, recorded.position, recorded.duration) == (0.0, 0.5, 2.5)


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("Media\\guitar.wav", "Media/guitar.wav"),
        ("Media/guitar.wav", "Media/guitar.wav"),
        ("D:\\Songs\\Riff\\Guitar 1.wav", "Guitar 1.wav"),
        ("D:\\Songs\\Riff\\guitar.WAV", "Media/Guitar.wav"),
        ("../guitar.wav", "guitar.wav"),
        ("/home/somebody/guitar é.wav", "guitar é.wav"),
    ],
)
def test_recordings_are_found_where_the_project_has_gone(tmp_path, named, there):
    text = project(track("Guitar", item(audio(named))), track("MIDI", item(midi(*TWO_NOTES))))
    (recorded,) = recorded_items(write(tmp_path, text, files=[there]))
    assert recorded.audio_path.resolve() == (tmp_path / there).resolve()


SESSION = (
    track("Guitar", item(audio("guitar.wav"))),
    track("Guitar DI", item(audio("di.wav"))),
    track("Drums", item(midi("E 0 99 24 60", "E 960 89 24 00"))),
    track("Notes", item(midi(*TWO_NOTES))),
)


def test_tracks_are_asked_for_where_there_are_several(tmp_path):
    path = write(tmp_path, project(*SESSION), files=["guitar.wav", "di.wav"])
    assert "Choose one with --audio_track (1 'Guitar', 2 'Guitar DI')" in error_of(path)
    assert "Choose one with --midi_track (3 'Drums', 4 'Notes')" in error_of(path, audio_track=1)
    assert "has no track 'Bass'" in error_of(path, audio_track="Bass")
    assert "track Notes has no recordings" in error_of(path, audio_track="Notes")
    for chosen in ((2, 4), ("2", "4"), ("Guitar DI", "Notes")):
        (recorded,) = recorded_items(path, *chosen)
        assert recorded.audio_path.name == "di.wav"
        assert [channel.name for channel in recorded.play()] == ["Notes"]


def test_of_several_tracks_those_that_are_heard_count(tmp_path):
    muted = [text.replace("MUTESOLO 0", "MUTESOLO 1") for text in SESSION[1:3]]
    (recorded,) = recorded_items(write(tmp_path, project(SESSION[0], *muted, SESSION[3])))
    assert (recorded.audio_path.name, recorded.midi_name) == ("guitar.wav", "Notes")
    annotation = SESSION[3].replace("MUTESOLO 0", "MUTESOLO 1")  # As musicians do whose synthesizer plays it else.
    assert recorded_items(write(tmp_path, project(SESSION[0], annotation)))


def _one(recording, midi_item=None):
    return project(track("Guitar", recording), track("MIDI", midi_item or item(midi(*TWO_NOTES))))


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("", "is not a Reaper project", "Save it in Reaper again"),
        ("MThd", "is not a Reaper project", "Save it in Reaper again"),
        (_one(item(audio("guitar.wav")))[:-40], "is cut short", "copy it again"),
        (project(), "has no track with recordings", "Add one"),
        (project(SESSION[0]), "has no track with notes", "Add one"),
        (_one(item(audio("gone.wav"))), "its recording 'gone.wav' is not found", "Copy it beside the project"),
        (_one(item(audio("guitar.wav"), rate=0.9)), "rate 0.9 with its pitch preserved", "Glue the item"),
        (_one(item(audio("guitar.wav"), pitch=-2)), "has its pitch shifted", "Glue the item"),
        (_one(item(audio("guitar.wav"), takes="      SM 0 0 + 1 1.5\n")), "has stretch markers", "Glue the item"),
        (_one(item(audio("guitar.wav"), rate=0)), "has a play rate of 0", "Glue the item"),
        (_one(item(audio("guitar.wav"), position=50)), "no notes of track 2 'MIDI' lie at", "--midi_track"),
        (_one(item(audio("guitar.wav"), length="long")), "has 'long' where a number should be", "Save the project"),
        (_one(item(audio("guitar.wav")), item(midi("E 0 90 3c zz"))), "a MIDI event that is damaged", "Save"),
        (_one(item(audio("guitar.wav")), item(midi("E -9 90 3c 60"))), "at impossible times", "Save"),
        (_one(item(audio("guitar.wav")), item(midi("E 0 90 3c 60", "E 9 b0 37 0", "ENV 9 0 0"))), "shape", "Square"),
        (
            _one(item(audio("guitar.wav"), length=9e5), item(midi(*TWO_NOTES[:-1], "E 1 b0 7b 0"), loop=1, length=9e5)),
            "repeats its MIDI too often",
            "Turn off Loop source",
        ),
        (project(*SESSION, tempo="TEMPO 0 4 4"), "has a tempo of 0", "Correct it in Reaper"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_a_remedy(tmp_path, text, problem, remedy):
    message = error_of(write(tmp_path, text))
    assert re.search(problem, message)
    assert remedy in message


def test_a_section_played_backwards_is_refused(tmp_path):
    section = f"      <SOURCE SECTION\n        LENGTH 5\n        MODE 2\n{audio('guitar.wav')}      >\n"
    assert "is played backwards. Glue the item" in error_of(write(tmp_path, _one(item(section))))


def test_a_large_project_is_read_in_a_moment(tmp_path):
    """200,000 lines of events, two hours of dense playing, take seconds, not minutes as with rpp's own parser."""
    events = [
        line for _ in range(50_000) for line in ("E 60 90 3c 60", "E 60 80 3c 00", "E 0 b0 37 10", "E 0 b0 37 11")
    ]
    text = _one(item(audio("guitar.wav"), length=9000), item(midi(*events), length=9000))
    path = write(tmp_path, text)
    began = time.monotonic()
    (recorded,) = recorded_items(path)
    assert len(recorded.play()[0].notes) == 50_000
    assert time.monotonic() - began < 60.0


MUTATED = (
    _one(item(audio("guitar.wav"), length=60), item(midi(*TWO_NOTES, pool="{6D3C5A3E}"), loop=1, length=3)),
    project(SESSION[0], SESSION[3], envelope=("PT 0 60 0", "PT 1 120 1 262148 0 1", "PT 2 80 0")),
    project(*SESSION),
    _one(
        item(f"      <SOURCE SECTION\n        LENGTH 5\n{audio('guitar.wav')}      >\n"),
        item(midi("E 0 b0 37 0a", "ENV 5 0 0.5", *TWO_NOTES, '<X 9 0 0 0 3 "t"', "/wN0", ">")),
    ),
)


def mutate(text, dice):
    """Changes a project in a few places: lines, words, characters and numbers."""
    lines = text.split("\n")
    for _ in range(dice.randint(1, 4)):
        i = dice.randrange(len(lines))
        words = lines[i].split(" ")
        kind = dice.randrange(8)
        if kind == 0:
            del lines[i : i + dice.randint(1, 3)]
        elif kind == 1:
            lines.insert(i, lines[dice.randrange(len(lines))])
        elif kind == 2:
            j = dice.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 3:
            number = ["nan", "inf", "-1", "1e308", "1e-308", "99999999999999999999", "0", "-0.0", '"', "''", "é\0", ""]
            words[dice.randrange(len(words))] = dice.choice(number)
            lines[i] = " ".join(words)
        elif kind == 4:
            place = dice.randrange(len(lines[i]) + 1)
            lines[i] = (
                lines[i][:place] + chr(dice.choice([0, 9, 34, 39, 60, 62, 96, 124, 233, 0x2028])) + lines[i][place:]
            )
        elif kind == 5:
            lines[i] = re.sub(r"\d+", lambda found: str(int(found[0]) * dice.choice([0, 7, -3, 10**6])), lines[i])
        elif kind == 6:
            lines[i] = lines[i][: dice.randrange(len(lines[i]) + 1)]
        else:
            lines[i:i] = [lines[i]] * dice.choice([2, 50])
        lines = lines or [""]
    return "\n".join(lines)


def check_mutation(folder, text):
    path = folder / "session.RPP"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        for recorded in recorded_items(path):
            for channel in recorded.play():
                assert np.all(np.isfinite(channel.notes))
            assert recorded.duration > 0.0
            repr(recorded.facts())
    except DataError as error:
        assert str(path.parent) in str(error)
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def folder_of_mutations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutations")
    write(folder, "", files=["guitar.wav", "di.wav"])
    return folder


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MUTATED), st.integers(0, 2**32))
def test_mutated_projects_are_read_or_refused_in_one_line(folder_of_mutations, text, seed):
    check_mutation(folder_of_mutations, mutate(text, random.Random(seed)))


@pytest.mark.slow
def test_ten_thousand_mutations(folder_of_mutations):
    dice = random.Random("mutations")
    slowest = 0.0
    for i in range(10_000):
        began = time.monotonic()
        check_mutation(folder_of_mutations, mutate(MUTATED[i % len(MUTATED)], dice))
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 30.0
