"""An instrument in one file is the instrument, for every command; and a stranger's file can do no harm."""

import io
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import card
from neural_midi_synth.exporting.facts import instrument_facts
from neural_midi_synth.exporting.portable import SECONDS, export_file, sample_piece
from neural_midi_synth.files.archives import write_zip
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.instrument import portable
from neural_midi_synth.instrument.loading import PRETRAINED, kept_verdict, load, trained_on
from neural_midi_synth.midi.pieces import Voice

WEIGHTS = tf.train.latest_checkpoint(str(PRETRAINED / "best")).replace("\\", "/").rpartition("/")[2]


@pytest.fixture(scope="module")
def guitar():
    return load()


@pytest.fixture(scope="module")
def file(guitar, tmp_path_factory):
    """The guitar of the package in one file."""
    return export_file(guitar, tmp_path_factory.mktemp("portable") / "guitar.nms", licence="CC BY 4.0\nBe kind.")


@pytest.fixture(scope="module")
def members(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_plays_what_the_folder_plays(file, guitar):
    piece = Voice([[0.1, 0.6, 45, 90], [0.7, 1.0, 52, 70]])
    np.testing.assert_array_equal(load(file).render(piece), guitar.render(piece))
    assert load(file).pitch_range == guitar.pitch_range


def test_it_tells_what_the_folder_tells(file):
    assert trained_on(file) == trained_on(PRETRAINED)
    assert kept_verdict(file) == kept_verdict(PRETRAINED) != {}


def test_the_same_instrument_gives_the_same_bytes_also_from_its_file(file, tmp_path):
    again = export_file(load(file), tmp_path / "again.nms", file)
    assert again.read_bytes() == file.read_bytes()


def test_its_sound_lasts_ten_seconds_and_goes_through_range_and_styles(file, guitar, members, tmp_path):
    (tmp_path / "sound.flac").write_bytes(members["sound.flac"])
    samples, rate = read_audio(tmp_path / "sound.flac")
    assert len(samples) == SECONDS * rate
    loud = np.abs(samples).reshape([SECONDS, -1]).max(axis=1)
    assert loud[: SECONDS - 1].min() > 0.01
    (voice,) = sample_piece(guitar, trained_on(PRETRAINED)).voices
    assert (voice.notes[:, 2].min(), voice.notes[:, 2].max()) == guitar.pitch_range
    assert len(voice.control_changes) == 18
    for number in (55, 56):
        assert set(voice.control_changes[voice.control_changes[:, 1] == number, 2]) == {0.0, 127.0}
    assert members["picture.png"].startswith(b"\x89PNG")


def test_commands_take_it_as_they_take_a_folder(file, run_command, tmp_path):
    nms.write_midi(Voice([[0.1, 0.5, 45, 90]]), tmp_path / "riff.mid")
    for source in (file, PRETRAINED):
        output = tmp_path / f"{source.stem}.wav"
        answer = run_command("render", "--instrument", source, "--midi", tmp_path / "riff.mid", "--output", output)
        assert answer.status == 0, answer.error
    assert (tmp_path / "guitar.wav").read_bytes() == (tmp_path / "demo_guitar.wav").read_bytes()
    facts = instrument_facts(load(file), file)
    assert facts["verdict"] == kept_verdict(PRETRAINED)
    assert facts["training"]["steps"] == int(WEIGHTS.rpartition("-")[2])


def test_its_card_is_that_of_the_folder(file, run_command, tmp_path):
    of_file = run_command("info", file).output.splitlines()
    of_folder = run_command("info", PRETRAINED).output.splitlines()
    assert of_file[0] == "guitar" and of_folder[0] == "demo_guitar"
    assert of_file[3:-1] == of_folder[3:-1]
    assert of_file[-1].endswith("CC BY 4.0")
    assert any("C2 to E4" in line for line in of_file)
    assert run_command("info", file, "--extract", tmp_path / "out").status == 0
    assert (tmp_path / "out" / "LICENSE.txt").read_text() == "CC BY 4.0\nBe kind.\n"
    assert run_command("info").status == 2


def test_a_card_tells_what_was_found_in_the_takes():
    inspection = {"verdict": "usable", "message": "One note sounds otherwise.", "ignored": True}
    lines = card.lines("a.nms", {"trained_on": {"inspection": inspection}})
    assert "  takes  usable: One note sounds otherwise. (warnings were ignored)" in [
        f"  {line.strip()}" for line in lines
    ]
    assert not any("takes" in line for line in card.lines("a.nms", {"trained_on": {}}))


def test_a_card_moves_no_cursor():
    lines = card.lines("a.nms", {"licence": "\x1b[2J\x07free\nnms", "verdict": {"message": "x" * 10_000}})
    assert all(line.isprintable() and len(line) <= 500 for line in lines)


def refused(path):
    """What loading says, in how many bytes of memory, and that it is one sentence or two."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and "/nms_" not in message
    return message, peak


def with_member(members, name, content, **attributes):
    """A zip file of the members and one more, with attributes of its own."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, text in members.items():
            if other != name:
                archive.writestr(other, text)
        member = zipfile.ZipInfo(name)
        member.compress_type = zipfile.ZIP_DEFLATED
        for attribute, value in attributes.items():
            setattr(member, attribute, value)
        archive.writestr(member, content)
    return written.getvalue()


def with_size(content, size):
    """The zip file with another size of its last member, as its directory tells it."""
    place = content.rindex(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


ZEROS = 600 * 2**20
HOSTILE = {
    "a path upwards": (lambda m: with_member(m, "../evil.txt", b""), "holds '../evil.txt', which does not belong"),
    "an absolute path": (lambda m: with_member(m, "/etc/passwd", b""), "holds '/etc/passwd', which does not belong"),
    "a path of Windows": (lambda m: with_member(m, "best\\..\\x", b""), "which does not belong"),
    "code": (lambda m: with_member(m, "instrument.py", b""), "holds 'instrument.py', which does not belong"),
    "a link": (
        lambda m: with_member(m, "verdict.json", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16),
        "which is a link or no file",
    ),
    "a device": (
        lambda m: with_member(m, "verdict.json", b"", external_attr=(stat.S_IFBLK | 0o777) << 16),
        "which is a link or no file",
    ),
    "a bomb": (
        lambda m: with_size(with_member(m, f"best/{WEIGHTS}.data-00000-of-00001", bytes(9)), ZEROS),
        f"with {ZEROS} bytes",
    ),
    "a bomb of text": (lambda m: with_member(m, "operative_config.gin", bytes(2**21)), "with 2097152 bytes"),
    "two instruments": (lambda m: with_member(m, "best/ckpt-1.index", b""), "the weights of 2 instruments"),
    "no weights": (lambda m: with_member({}, "instrument.json", b"{}"), "the weights of 0 instruments"),
    "a later layout": (lambda m: with_member(m, "instrument.json", b'{"layout": 2}'), "has layout 2"),
    "facts that are none": (lambda m: with_member(m, "instrument.json", b"[" * 9999), "instrument.json is damaged"),
    "a config that runs code": (lambda m: with_member(m, "operative_config.gin", b"import os\n"), "imports os"),
    "a huge decoder": (
        lambda m: with_member(
            m,
            "operative_config.gin",
            m["operative_config.gin"]
            .replace(b"Decoder.units = 256", b"Decoder.units = 4096")
            .replace(b"rs = 2", b"rs = 32"),
        ),
        "weights. More than",
    ),
    "weights of another config": (
        lambda m: with_member(
            m, "operative_config.gin", m["operative_config.gin"].replace(b"Decoder.units = 256", b"Decoder.units = 64")
        ),
        "which are of another instrument than its config",
    ),
    "many members": (lambda m: with_member({f"{i}": b"" for i in range(40)}, "x", b""), "more than the 32 it may"),
    "no zip": (lambda m: b"RIFF" + bytes(100), "is no such file"),
    "nothing": (lambda m: b"", "is no such file"),
    "a zip64 file": (lambda m: zip64(with_member(m, "x", b"")), "zip64"),
    "cut short": (lambda m: with_member(m, "verdict.json", b"{}")[:-100], "is no such file"),
}


def zip64(content):
    """A directory of any size that is told of where few readers look."""
    return content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence_before_anything_is_allocated(what, members, tmp_path):
    make, says = HOSTILE[what]
    path = tmp_path / "stranger.nms"
    path.write_bytes(make(members))
    message, peak = refused(path)
    assert says in message
    # The weights of the guitar have 2 MB, of which there may be a few copies; a bomb would have 600.
    assert peak < 30e6, f"{peak / 1e6:.0f} MB"


def test_a_member_that_is_longer_than_it_says_is_refused(members, tmp_path):
    path = tmp_path / "stranger.nms"
    path.write_bytes(with_size(with_member(members, "verdict.json", bytes(10**8)), 2))
    message, peak = refused(path)
    assert "verdict.json is damaged" in message or "not as long as it says" in message
    assert peak < 30e6


def test_the_weights_of_a_folder_lie_in_it(tmp_path, guitar):
    """A checkpoint's state may name any file of the machine."""
    folder = tmp_path / "stranger"
    (folder / "best").mkdir(parents=True)
    (folder / "operative_config.gin").write_bytes((PRETRAINED / "operative_config.gin").read_bytes())
    elsewhere = tmp_path / "elsewhere" / "ckpt"
    tf.train.Checkpoint(instrument=guitar).write(str(elsewhere))
    (folder / "best" / "checkpoint").write_text(f'model_checkpoint_path: "{elsewhere}"\n')
    with pytest.raises(DataError, match="its checkpoint lies elsewhere"):
        load(folder)


def test_a_file_is_whole_or_not_there(tmp_path, members, guitar):
    with pytest.raises(DataError, match=r"ends in \.nms"):
        export_file(guitar, tmp_path / "guitar.zip")
    path = tmp_path / "guitar.nms"
    with pytest.raises(TypeError):
        write_zip(path, {**members, "verdict.json": None})
    assert list(tmp_path.iterdir()) == []
    for name in portable._MOST_BYTES:
        assert name in members
