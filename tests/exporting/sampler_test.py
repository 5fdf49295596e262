"""An SFZ of an instrument, played by a sampler, sounds as the instrument does, and is there whole or not at all."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation.metrics import envelope_difference, log_mel_difference, openness_decay
from neural_midi_synth.exporting import samples
from neural_midi_synth.exporting.sampler import SIZES, Sampler, Size
from neural_midi_synth.exporting.samples import Loop, Note
from neural_midi_synth.exporting.sfz import Region, Style, sfz, velocity_zones, zone
from neural_midi_synth.instrument.loading import PRETRAINED
from neural_midi_synth.midi.pieces import Piece, Voice

RATE = 48000
OPENNESS, POWER_CHORD = 55, 56
# The promise, beside the instrument itself.
LOG_MEL_DB, ENVELOPE_DB, OPENNESS_DB = 4.0, 1.5, 3.0


@pytest.fixture(scope="module")
def guitar():
    instrument = nms.load()
    instrument.pitch_range = (40.0, 43.0)  # Less takes less time.
    return instrument


@pytest.fixture(scope="module")
def sampler(guitar):
    return Sampler(guitar, "guitar", Size(pitches=4, velocities=2, values=3, round_robins=1), PRETRAINED)


@pytest.fixture(scope="module")
def exported(sampler, tmp_path_factory):
    return sampler.write(tmp_path_factory.mktemp("exported"))


def regions(sfz):
    """The regions of an SFZ, each with the opcodes of its groups: name → value."""
    found, above, group = [], {}, {}
    for header, body in re.findall(r"<(\w+)>([^<]*)", re.sub(r"//.*", "", sfz.read_text())):
        opcodes = dict(re.findall(r"(\w+)=(.*?)(?=\s+\w+=|\s*$)", body))
        if header == "global":
            above = opcodes
        elif header == "group":
            group = opcodes
        elif header == "region":
            found.append({**above, **group, **opcodes})
    return found


# As the demo's riff: short closed notes with accents, power chords half open, then a long one that is opened and shut.
# Before it is a rest: in a sampler the note before rings on into the next one, where in one voice of the instrument it
# ends, and the first tenth of a second is what the decay of a note is measured against.
RIFF = Voice(
    np.array(
        [
            *((time, time + 0.1, 40, 88) for time in (0.0, 0.125, 0.5, 1.0)),
            *((time, time + 0.2, pitch, 108) for time, pitch in ((0.25, 43), (0.75, 42), (1.25, 41))),
            *((1.5 + time, 1.7 + time, pitch, 92) for time, pitch in ((0.0, 40), (0.25, 43), (0.5, 42))),
            (2.5, 4.3, 40, 120),
            (4.5, 6.0, 43, 70),
        ]
    ),
    np.array(
        [
            (0.0, OPENNESS, 0),
            (1.5, OPENNESS, 40),
            (1.5, POWER_CHORD, 127),
            (2.4, OPENNESS, 127),
            (2.4, POWER_CHORD, 0),
            *((4.6 + time, OPENNESS, 127 * np.cos(6 * time) ** 2) for time in np.arange(0.0, 1.3, 0.02)),
        ]
    ),
)
# A note longer than its sample, which goes on in its loop, and one bent up by a semitone and back.
LONG = Voice(
    np.array([(0.1, 8.0, 43, 100), (8.2, 9.7, 41, 100)]),
    np.array([(0.0, OPENNESS, 127)]),
    np.array([(8.4 + time, np.sin(3 * time)) for time in np.arange(0.0, 1.05, 0.02)]),
)
CHORDS = [(40, 43), (41, 43), (40, 42)]


def chord_progression():
    """Three chords, shut while the second one sounds and opened while the third one does."""
    seconds = np.arange(0.0, 0.8, 0.02)
    shut = [(1.2 + time, OPENNESS, 127 - 127 * time / 0.8) for time in seconds]
    opened = [(2.2 + time, OPENNESS, 127 * time / 0.8) for time in seconds]
    controls = np.array([(0.0, OPENNESS, 127), *shut, *opened])
    starts = 0.1 + np.arange(len(CHORDS))
    return Piece(
        tuple(
            Voice(
                np.array([(start, start + 1.0, chord[i], 90 + 10 * i) for start, chord in zip(starts, CHORDS)]),
                controls,
            )
            for i in range(2)
        )
    )


@pytest.mark.slow
def test_a_sampler_plays_what_the_instrument_plays(guitar, exported, tmp_path):
    player = pytest.importorskip("sfz_player")
    pytest.importorskip("pysfizz", reason="There is no sfizz for this machine.")
    gain = player.gain(tmp_path, RATE)
    for piece in (Piece((RIFF,)), Piece((LONG,)), chord_progression()):
        expected = guitar.render(piece)
        played = player.play(exported, piece, RATE, len(expected)) / gain
        assert log_mel_difference(expected, played, RATE) <= LOG_MEL_DB
        assert envelope_difference(expected, played, RATE) <= ENVELOPE_DB
        for start, end, *_ in piece.notes:
            if end - start >= 1.5:
                decays = [openness_decay(each, start, RATE) for each in (expected, played)]
                assert decays[1] == pytest.approx(decays[0], abs=OPENNESS_DB)


@pytest.mark.slow
def test_the_linter_of_sfz_finds_nothing(exported):
    # In a Python of its own, since its parser imports what Python is about to drop.
    command = [sys.executable, "-W", "ignore", "-m", "sfzlint.lint", "--no-pickle", str(exported)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.slow
def test_every_sample_is_there_and_none_more(sampler, exported):
    found = regions(exported)
    assert len(found) == sampler.n_samples == 4 * 2 * 3 * 2
    files = {region["sample"] for region in found}
    assert files == {f"samples/{path.name}" for path in (exported.parent / "samples").iterdir()}
    assert len(files) == len(found)
    for region in found:
        info = soundfile.info(exported.parent / region["sample"])
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 32_000, 1)
        if region["loop_mode"] == "loop_continuous":
            assert int(region["loop_end"]) == info.frames - 1
    assert {region["loop_mode"] for region in found} >= {"loop_continuous"}
    n_bytes = sum(path.stat().st_size for path in (exported.parent / "samples").iterdir())
    assert sampler.megabytes == pytest.approx(n_bytes / 1e6, rel=0.1)


@pytest.mark.slow
def test_every_key_and_velocity_plays_one_layer_of_each_style(exported):
    found = regions(exported)
    for key, velocity in ((0, 1), (40, 40), (42, 83), (43, 84), (41, 127), (127, 100)):
        layers = [
            each
            for each in found
            if int(each["lokey"]) <= key <= int(each["hikey"]) and int(each["lovel"]) <= velocity <= int(each["hivel"])
        ]
        assert len({each["sample"] for each in layers}) == len(layers) == 3 * 2
        assert len({each["pitch_keycenter"] for each in layers}) == 1


@pytest.mark.slow
def test_styles_are_what_the_instrument_says(exported):
    text = exported.read_text()
    for line in ("label_cc55=openness", "label_cc56=power_chord", "set_cc55=0", "bend_up=200", "bend_down=-200"):
        assert f"\n{line}\n" in text


def test_round_robins_take_turns_and_an_instrument_may_have_no_styles(tmp_path):
    zones = velocity_zones((64, 100), np.linspace(-40.0, 0.0, 128))
    path = tmp_path / "plain.sfz"
    samples_of_it = [
        Region(f"{each.velocity}_{turn}.flac", 60, each, (), turn, 0.1, None) for each in zones for turn in (1, 2)
    ]
    path.write_text(sfz("plain", ["Two lines", "of comment."], (), samples_of_it))
    assert path.read_text().startswith("// Two lines\n// of comment.\n") and "<control>" not in path.read_text()
    found = regions(path)
    assert [each["seq_position"] for each in found] == ["1", "2", "1", "2"]
    assert {each["seq_length"] for each in found} == {"2"}
    assert {(each["lokey"], each["hikey"]) for each in found} == {("0", "127")}


@pytest.mark.slow
def test_silence_is_not_sampled(guitar):
    level = guitar.level.numpy()
    guitar.level.assign(0.0)
    try:
        with pytest.raises(DataError, match="silence"):
            Sampler(guitar, "guitar", Size(1, 1, 1, 1), PRETRAINED)
    finally:
        guitar.level.assign(level)


def test_layers_of_a_style_add_up_to_one():
    style = Style("openness", 55, (0, 40, 127))
    opcodes = [dict(re.findall(r"(\w+)=(\d+)", style.opcodes(value))) for value in style.values]

    def gain(of, value):
        rising = np.interp(value, [int(of.get("xfin_locc55", -2)), int(of.get("xfin_hicc55", -1))], [0.0, 1.0])
        return rising * np.interp(
            value, [int(of.get("xfout_locc55", 128)), int(of.get("xfout_hicc55", 129))], [1.0, 0.0]
        )

    for value in range(128):
        assert sum(gain(of, value) for of in opcodes) == pytest.approx(1.0)
    assert [gain(of, 20) for of in opcodes] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("velocities", [(40, 69, 98, 127), (1, 127), (102,), (20, 30, 120)])
def test_the_level_over_velocity_is_the_instruments(velocities):
    level = 40.0 * np.log10(np.maximum(np.arange(128), 1) / 127)  # The velocity's square.
    zones = velocity_zones(velocities, level, louder=2.0)
    assert zones[0].low == 1 and zones[-1].high == 127
    assert [each.low for each in zones[1:]] == [each.high + 1 for each in zones[:-1]]
    for each in zones:
        assert each.low <= each.velocity
        for velocity in range(max(each.low, 8), each.high + 1):
            curve = np.interp(velocity, list(each.curve), list(each.curve.values()))
            played = level[each.velocity] + each.volume + 20 * np.log10(curve)
            # A curve of straight lines, six velocities long: further off where the level rises fastest.
            assert played == pytest.approx(level[velocity] + 2.0, abs=1.2 if velocity < 20 else 0.2)
        assert max(each.curve.values()) <= 1.0
        assert each.volume <= 6.0  # An SFZ may not make a sample louder.


def test_numbers_go_to_the_nearest_of_several():
    assert [zone((36, 39, 52), place) for place in range(3)] == [(0, 37), (38, 45), (46, 127)]
    assert zone((64,), 0) == (0, 127)


def test_a_loop_goes_on_as_the_tone_does():
    seconds = np.arange(3 * RATE) / RATE
    # Neither period is a whole number of samples; the fifth comes again after two of the lower tone's.
    tone = [np.sin(2 * np.pi * 82.41 * ratio * seconds) for ratio in (1.0, 1.5)]
    n = 2 * RATE
    audio = np.stack([tone[0] + 0.5 * tone[1], 0.01 * tone[0]])
    loop = samples.find_loop(audio[:, :n], RATE)
    assert loop.end == n
    for each in audio:
        sample, its_loop = samples.cut(each[:n], RATE, loop)
        assert its_loop == loop and len(sample) == n
        looped = np.resize(sample[loop.start :], 3 * RATE - n)
        # A hundredth of a period off, after a second of loops; a click would be as large as the tone.
        assert np.abs(looped - each[n:]).max() < 0.1 * np.abs(each).max()


def test_notes_are_the_same_at_another_sample_rate(guitar):
    note = samples.Note(45, 100, {55: 127, 56: 0})
    own, other = (samples.play(guitar, [note], 0.5, 0.25, rate)[0] for rate in (None, 32_000))
    assert (len(own), len(other)) == (36_000, 24_000)
    expected = soxr.resample(own, 48_000, 32_000, "VHQ")
    # But for the ends, beyond which the one is shown silence.
    np.testing.assert_allclose(other[100:-100], expected[100:-100], atol=1e-3 * np.abs(own).max())
    assert np.argmax(np.abs(other)) / 32_000 == pytest.approx(np.argmax(np.abs(own)) / 48_000, abs=1e-4)


@pytest.mark.parametrize("bits", [13, 16])
def test_samples_have_as_many_bits_as_are_wanted(guitar, bits):
    sampler = Sampler(guitar, "guitar", Size(1, 1, 1, 1, bits), PRETRAINED)
    sample = np.clip(1.2 * np.sin(np.arange(3000) / 9.0), -1.1, 1.1)  # Louder than a file can hold.
    file = io.BytesIO()
    sampler._write_sample(file, sample)
    file.seek(0)
    numbers, rate = soundfile.read(file, dtype="int16")
    step = 2 ** (16 - bits)
    assert rate == 32_000 and len(numbers) == len(sample)
    assert not (numbers % step).any() and (numbers % (2 * step)).any()
    quiet = np.abs(sample) < 0.99
    assert np.abs(numbers[quiet] / 32768 - sample[quiet]).max() <= 0.501 * step / 32768
    assert np.all(np.sign(numbers[~quiet]) == np.sign(sample[~quiet]))


def test_what_dies_away_is_cut_and_not_looped():
    seconds = np.arange(4 * RATE) / RATE
    tone = np.sin(2 * np.pi * 220 * seconds) * 10 ** (-40 * seconds / 20)  # 40 dB/s: silent after two seconds.
    sample, loop = samples.cut(tone, RATE, Loop(3 * RATE, 4 * RATE))
    assert loop is None
    assert len(sample) / RATE == pytest.approx(2.0, abs=0.05)
    assert sample[-1] == 0.0
    np.testing.assert_allclose(sample[100:31000], tone[100:31000], atol=1e-6)


def test_notes_are_steady_once_all_of_them_are():
    seconds = np.arange(10 * RATE) / RATE
    tone = np.sin(2 * np.pi * 220 * seconds)
    falling = tone * 10 ** (-5 * np.minimum(seconds, 3.0) / 20)
    silent = tone * 10 ** (-40 * seconds / 20)
    assert samples.steady_after(np.stack([tone, falling]), RATE) == pytest.approx(2.7, abs=0.2)
    assert samples.steady_after(np.stack([tone, silent]), RATE) == pytest.approx(2.0, abs=0.3)
    assert samples.steady_after((tone * 10 ** (-3 * seconds / 20))[np.newaxis], RATE) is None


@pytest.mark.parametrize("slope", [200.0, 600.0])
def test_release_is_the_slope_after_a_notes_end(slope):
    seconds = np.arange(2 * RATE) / RATE
    random = np.random.default_rng(0)
    tone = random.standard_normal(len(seconds)) * 10 ** (-slope * np.maximum(seconds - 1.0, 0.0) / 20)
    # sfizz and others fall by e^-9, which is 78 dB, in the time that is given.
    assert samples.release_seconds(tone + 1e-6, RATE, 1.0) == pytest.approx(78.17 / slope, rel=0.1)
    silent = tone * np.where(seconds < 0.5, 1.0, 1e-6)
    assert samples.release_seconds(silent, RATE, 1.0) is None


@pytest.mark.slow
def test_a_sample_does_not_know_that_its_note_will_end(trained):
    instrument = nms.load(trained.folder)
    assert instrument.controls.needs_future
    note = Note(45, 100, {OPENNESS: 0})
    short, long = (samples.play(instrument, [note], seconds)[0] for seconds in (0.5, 2.0))
    assert np.abs(long).max() > 0.001
    np.testing.assert_allclose(short, long[: len(short)], atol=1e-5)
    ended = samples.play(instrument, [note], 0.5, tail=0.5)[0][: len(short)]
    assert np.abs(ended - short).max() > 1e-3 * np.abs(short).max()


def test_takes_differ_by_their_noise_and_how_harmonics_move_alone(guitar):
    notes = [Note(40, 100, {OPENNESS: 127}, take) for take in (0, 1, 0)]
    first, second, again = samples.play(guitar, notes, 0.5)
    np.testing.assert_allclose(first, again, atol=1e-6)  # Rows of a batch are not computed alike to the last bit.
    difference = np.std(first - second) / np.std(first)
    assert 1e-4 < difference < 0.3


@pytest.mark.slow
def test_it_is_replaced_whole_or_left_as_it_was(guitar, tmp_path):
    sampler = Sampler(guitar, "guitar", Size(1, 1, 1, 1), PRETRAINED)
    assert sampler.n_samples == 2  # Without and with the fifth of the power chord.
    old = tmp_path / "sampler" / "old.sfz"
    old.parent.mkdir()
    old.write_text("old")

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.write(tmp_path, stop)
    assert [path.name for path in tmp_path.rglob("*")] == ["sampler", "old.sfz"]
    told = []
    path = sampler.write(tmp_path, lambda *progress: told.append(progress))
    assert told == [(done, sampler.n_samples) for done in range(1, sampler.n_samples + 1)]
    assert not old.exists() and len(regions(path)) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Choose another output"):
        sampler.write(tmp_path / "file")


@pytest.mark.slow
def test_the_command_says_how_large_it_is(trained, run_command, tmp_path):
    answer = run_command("export", "--instrument", trained.folder, "--output", tmp_path, "--sampler")
    assert answer.status == 0, answer.error
    before, after = answer.output.strip().splitlines()
    n_samples, estimated = re.fullmatch(r"(\d+) samples, about (\d+) MB", before).groups()
    path = tmp_path / "sampler" / "instrument.sfz"
    assert re.fullmatch(rf"{re.escape(str(path))}: \d+\.\d MB", after)
    assert len(regions(path)) == int(n_samples) == 20 * 2 * 2 * 2  # Pitches, velocities, and two values of each style.
    # The takes have notes from 40 to 59, and openness 0 and 127 alone.
    assert {int(region["lokey"]) for region in regions(path)} >= {0}
    assert SIZES["small"].round_robins == 1 and "seq_length" not in path.read_text()
