"""Audio files keep their samples, length and alignment, and unusable ones end in one line."""

import logging
import pathlib
import tracemalloc

import numpy as np
import pytest
import soundfile

from neural_midi_synth.errors import DataError
from neural_midi_synth.files import audio

SAMPLE_RATE = 44_100


def _plucks(n_samples: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Decaying tones with sharp onsets, whose alignment shows in a cross-correlation."""
    time = np.arange(n_samples) / sample_rate
    return (0.5 * np.exp(-8.0 * (time % 0.31)) * np.sin(2.0 * np.pi * 330.0 * (1.0 + 0.1 * time) * time)).astype(
        np.float32
    )


def _lag(samples: np.ndarray, reference: np.ndarray) -> int:
    n = len(samples) + len(reference)
    correlation = np.fft.irfft(np.fft.rfft(samples, n) * np.conj(np.fft.rfft(reference, n)), n)
    lag = int(np.argmax(correlation))
    return lag - n if lag > n // 2 else lag


def _error(path: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        audio.read_audio(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# 24 bits round to 2^-24 and libsndfile scales by 2^23 - 1; the lossy formats are judged by their error's level, 30 dB
# below the signal. Two seconds are more than a block of either reading or writing.
@pytest.mark.parametrize("suffix", audio.AUDIO_SUFFIXES)
@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000])
def test_a_written_file_reads_back_in_place(tmp_path, suffix, sample_rate):
    path = tmp_path / f"take{suffix.upper()}"
    samples = _plucks(2 * sample_rate + 7, sample_rate)
    audio.write_audio(path, samples, sample_rate)
    read, read_rate = audio.read_audio(path)
    assert (read.dtype, read_rate) == (np.float32, sample_rate)
    assert len(read) == len(samples)
    assert _lag(read, samples) == 0
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(read, samples, rtol=0.0, atol=2.0**-22)
    else:
        assert np.sqrt(np.mean((read - samples) ** 2) / np.mean(samples**2)) < 10.0 ** (-30.0 / 20.0)
    assert audio.read_audio_info(path) == (len(samples) / sample_rate, sample_rate, 1)


@pytest.mark.parametrize("to_rate", [8_000, 16_000, 22_050, 48_000])
def test_resampling_keeps_time_and_level(tmp_path, to_rate):
    # Below every Nyquist frequency here, so the resampled tone can be computed.
    n_samples, frequency = SAMPLE_RATE + 13, 1_000.0
    path = tmp_path / "tone.wav"
    audio.write_audio(path, 0.5 * np.sin(2.0 * np.pi * frequency * np.arange(n_samples) / SAMPLE_RATE), SAMPLE_RATE)
    samples, sample_rate = audio.read_audio(path, to_rate)
    assert sample_rate == to_rate
    assert samples.dtype == np.float32
    assert len(samples) == int(np.floor(n_samples * to_rate / SAMPLE_RATE + 0.5))
    expected = 0.5 * np.sin(2.0 * np.pi * frequency * np.arange(len(samples)) / to_rate)
    # The filter rings at the ends, where the tone breaks off. float32 keeps 24 bits.
    middle = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(samples[middle], expected[middle], rtol=0.0, atol=1e-5)


def test_resampling_removes_what_the_new_rate_cannot_hold(tmp_path):
    path = tmp_path / "high.wav"
    audio.write_audio(path, 0.5 * np.sin(2.0 * np.pi * 9_000.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE), SAMPLE_RATE)
    samples, _ = audio.read_audio(path, 16_000)
    assert np.abs(samples[1_600:-1_600]).max() < 1e-5


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    left, right = _plucks(1_000), np.linspace(-0.5, 0.5, 1_000, dtype=np.float32)
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    samples, _ = audio.read_audio(path)
    np.testing.assert_allclose(samples, (left + right) / 2.0, rtol=0.0, atol=1e-7)
    assert audio.read_audio_info(path) == (1_000 / SAMPLE_RATE, SAMPLE_RATE, 2)


@pytest.mark.parametrize("suffix", audio.AUDIO_SUFFIXES)
def test_a_single_sample_is_audio(tmp_path, suffix):
    path = tmp_path / f"click{suffix}"
    audio.write_audio(path, np.ones(1), SAMPLE_RATE)
    assert len(audio.read_audio(path)[0]) == 1
    assert len(audio.read_audio(path, 16_000)[0]) == 1


def test_minutes_of_ogg_are_written(tmp_path):
    path = tmp_path / "long.ogg"
    samples = _plucks(180 * 16_000, 16_000)
    audio.write_audio(path, samples, 16_000)
    assert len(audio.read_audio(path)[0]) == len(samples)


def test_a_sound_beyond_full_scale_is_lowered_whole(tmp_path, caplog):
    path = tmp_path / "loud.wav"
    samples = 8.0 * _plucks(SAMPLE_RATE)
    with caplog.at_level(logging.WARNING, logger="absl"):
        audio.write_audio(path, samples, SAMPLE_RATE)
    read, _ = audio.read_audio(path)
    np.testing.assert_allclose(read, samples / np.abs(samples).max(), rtol=0.0, atol=2.0**-22)
    assert f"{20.0 * np.log10(np.abs(samples).max()):+.1f} dB" in caplog.text


def test_tags_around_an_mp3_are_no_damage(tmp_path):
    path = tmp_path / "tagged.mp3"
    samples = _plucks(SAMPLE_RATE)
    audio.write_audio(path, samples, SAMPLE_RATE)
    picture = b"APIC" + (2_000).to_bytes(4, "big") + bytes(2) + bytes(2_000)
    head = b"ID3\x03\x00\x00" + bytes([0, 0, len(picture) >> 7, len(picture) & 127]) + picture
    path.write_bytes(head + path.read_bytes() + b"TAG" + b"riff".ljust(125, b"\0"))
    read, _ = audio.read_audio(path)
    assert len(read) == len(samples)
    assert _lag(read, samples) == 0


def _claim_frames(path: pathlib.Path, n_frames: int) -> None:
    """Writes another number of frames (of 1152 samples) into the header that the encoder of an mp3 left."""
    content = bytearray(path.read_bytes())
    header = max(content.find(b"Xing"), content.find(b"Info"))
    assert header > 0 and content[header + 7] & 1  # The flag that says that frames are counted.
    content[header + 8 : header + 12] = n_frames.to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_an_mp3_header_is_not_believed_beyond_the_size_of_the_file(tmp_path, mode, capfd):
    path = tmp_path / "take.mp3"
    samples = _plucks(3 * SAMPLE_RATE)
    soundfile.write(path, samples, SAMPLE_RATE, format="MP3", bitrate_mode=mode, compression_level=0.2)
    assert len(audio.read_audio(path)[0]) == len(samples)
    _claim_frames(path, 2**32 - 1)
    assert "its header tells of 11219506" in _error(path)
    with pytest.raises(DataError, match="Export it again"):
        audio.read_audio_info(path)
    assert capfd.readouterr() == ("", "")


def test_an_mp3_that_is_shorter_than_its_header_says_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "take.mp3"
    samples = _plucks(3 * SAMPLE_RATE)
    soundfile.write(path, samples, SAMPLE_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.2)
    _claim_frames(path, 1_000)  # 26 s.
    read, _ = audio.read_audio(path)
    assert 0 <= len(read) - len(samples) < 2 * 1152  # What the encoder appended to fill its last frames.
    assert _lag(read, samples) == 0


@pytest.mark.parametrize("suffix", audio.AUDIO_SUFFIXES)
def test_what_is_not_audio_ends_in_one_line(tmp_path, suffix, capfd):
    path = tmp_path / f"take{suffix}"
    assert "no such file" in _error(path)
    path.mkdir()
    assert "folder" in _error(path)
    path.rmdir()
    path.write_bytes(b"")
    assert "empty (0 bytes)" in _error(path)
    for content in (b"x", b"not a recording at all\n" * 200, np.random.default_rng(0).bytes(50_000)):
        path.write_bytes(content)
        assert "is not audio, whatever its name" in _error(path)
        with pytest.raises(DataError):
            audio.read_audio_info(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_damage_is_told(tmp_path, suffix, capfd):
    path = tmp_path / f"take{suffix}"
    audio.write_audio(path, np.random.default_rng(0).normal(0.0, 0.1, 20 * SAMPLE_RATE), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4_000] = np.random.default_rng(1).bytes(4_000)
    path.write_bytes(content)
    message = _error(path)
    assert "is damaged" in message
    if suffix == ".flac":
        time = float(message.split("damaged after ")[1].split(" s")[0])
        assert 8.0 <= time <= 10.0  # It is read in blocks of 1.5 s.
    assert capfd.readouterr() == ("", "")


def test_stderr_is_whole_again_after_an_mp3(tmp_path, capfd):
    path = tmp_path / "take.mp3"
    audio.write_audio(path, _plucks(SAMPLE_RATE), SAMPLE_RATE)
    audio.read_audio(path)
    pathlib.Path("/dev/stderr").write_text("heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (-np.inf, "an infinite value")])
def test_samples_that_are_no_numbers_are_told_with_their_time(tmp_path, value, name):
    path = tmp_path / "take.wav"
    samples = np.stack([_plucks(5 * SAMPLE_RATE)] * 2, axis=1)
    samples[int(3.2 * SAMPLE_RATE) + 3 :, 1] = value
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    assert _error(path) == f"{path}: contains {name} at 3.2 s; export it again."
    with pytest.raises(DataError, match="at 3.2 s"):
        audio.write_audio(tmp_path / "copy.wav", samples[:, 1], SAMPLE_RATE)
    assert not (tmp_path / "copy.wav").exists()


def test_a_file_without_samples_is_told(tmp_path):
    path = tmp_path / "take.wav"
    soundfile.write(path, np.zeros([0, 1]), SAMPLE_RATE)
    assert "no samples" in _error(path)


def test_other_suffixes_are_told_with_those_there_are(tmp_path):
    path = tmp_path / "take.m4a"
    path.write_bytes(b"1234")
    assert ".wav, .flac, .mp3 or .ogg" in _error(path)
    for name in ("take.m4a", "take"):
        with pytest.raises(DataError, match=r"\.wav, \.flac, \.mp3 or \.ogg"):
            audio.write_audio(tmp_path / name, np.zeros(10), SAMPLE_RATE)


@pytest.mark.parametrize(
    ("suffix", "sample_rate"),
    [(".mp3", 96_000), (".ogg", 0), (".wav", -1), (".ogg", 1_000_000), (".flac", 1_000_000)],
)
def test_a_sample_rate_the_format_lacks_leaves_no_file(tmp_path, suffix, sample_rate):
    with pytest.raises(DataError, match=f"at {sample_rate} Hz"):
        audio.write_audio(tmp_path / f"take{suffix}", np.zeros(10), sample_rate)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Choose another output"):
        audio.write_audio(tmp_path / "file" / "take.wav", np.zeros(10), SAMPLE_RATE)


@pytest.mark.parametrize("samples", [np.zeros([10, 2]), np.zeros(0)])
def test_only_mono_samples_are_written(tmp_path, samples):
    with pytest.raises(ValueError, match="samples"):
        audio.write_audio(tmp_path / "take.wav", samples, SAMPLE_RATE)


@pytest.mark.parametrize("peak", [0.5, 1.7])
def test_blocks_are_written_as_the_whole(tmp_path, peak):
    whole = peak * np.sin(np.arange(10_000) / 10.0).astype(np.float32)
    audio.write_audio(tmp_path / "whole.wav", whole, SAMPLE_RATE)
    audio.write_audio(tmp_path / "blocks.wav", iter(np.split(whole, [0, 1, 4000, 4000])), SAMPLE_RATE)
    assert (tmp_path / "blocks.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks.wav", "whole.wav"]


def test_a_block_that_fails_leaves_no_file(tmp_path):
    def blocks():
        yield np.zeros(100, np.float32)
        yield np.full(10, np.nan, np.float32)

    with pytest.raises(DataError, match="contains NaN at 0.0 s"):
        audio.write_audio(tmp_path / "take.wav", blocks(), SAMPLE_RATE)
    assert not list(tmp_path.iterdir())


# 16 bits round to 2^-16 of full scale; Opus is lossy, and 20 dB below the signal is its error at its own bit rate.
@pytest.mark.parametrize(
    ("suffix", "format", "subtype", "sample_rate"),
    [
        (".aiff", "AIFF", "PCM_16", 44_100),
        (".AIF", "AIFF", "PCM_24", 96_000),
        (".aif", "AIFF", "FLOAT", 192_000),
        (".opus", "OGG", "OPUS", 48_000),
        (".wav", "WAV", "PCM_32", 192_000),
        (".wav", "WAV", "DOUBLE", 8_000),
        (".flac", "FLAC", "PCM_16", 96_000),
        (".ogg", "OGG", "VORBIS", 8_000),
    ],
)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_recordings_of_many_kinds_are_read(tmp_path, suffix, format, subtype, sample_rate, n_channels):
    path = tmp_path / f"take{suffix}"
    samples = _plucks(sample_rate, sample_rate)
    soundfile.write(path, np.stack([samples] * n_channels, axis=1), sample_rate, subtype, format=format)
    read, read_rate = audio.read_audio(path)
    assert read_rate == sample_rate
    assert len(read) == len(samples)
    if subtype in ("OPUS", "VORBIS"):
        assert np.sqrt(np.mean((read - samples) ** 2) / np.mean(samples**2)) < 10.0 ** (-20.0 / 20.0)
    else:
        np.testing.assert_allclose(read, samples, rtol=0.0, atol=2.0**-15)


@pytest.mark.parametrize("suffix", audio.AUDIO_SUFFIXES)
def test_a_part_of_a_file_is_that_part_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"take{suffix}"
    audio.write_audio(path, _plucks(3 * SAMPLE_RATE + 11), SAMPLE_RATE)
    whole, _ = audio.read_audio(path)
    part, _ = audio.read_audio(path, start=1.25, duration=0.5)
    np.testing.assert_array_equal(part, whole[round(1.25 * SAMPLE_RATE) : round(1.75 * SAMPLE_RATE)])
    rest, _ = audio.read_audio(path, start=2.0, duration=100.0)
    np.testing.assert_array_equal(rest, whole[2 * SAMPLE_RATE :])


def test_one_channel_is_read_by_itself(tmp_path):
    left, right = _plucks(1000), -0.5 * _plucks(1000)
    soundfile.write(tmp_path / "take.wav", np.stack([left, right], axis=1), SAMPLE_RATE, "FLOAT")
    np.testing.assert_array_equal(audio.read_audio(tmp_path / "take.wav", channel=0)[0], left)
    np.testing.assert_array_equal(audio.read_audio(tmp_path / "take.wav", channel=1)[0], right)
    with pytest.raises(DataError, match="has no channel 3, only 2"):
        audio.read_audio(tmp_path / "take.wav", channel=2)


def test_a_part_behind_the_end_is_refused(tmp_path):
    audio.write_audio(tmp_path / "take.wav", _plucks(SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(DataError, match=r"take.wav: ends before 2.00 s"):
        audio.read_audio(tmp_path / "take.wav", start=2.0)


def test_long_sound_is_not_held_in_memory(tmp_path):
    """20 million samples are 80 MB; reading and resampling them takes blocks, and files that are mapped."""
    path, n_samples = tmp_path / "take.wav", 20_000_000
    soundfile.write(path, np.zeros(n_samples, np.int16), 96_000, "PCM_16")
    tracemalloc.start()
    try:
        samples, _ = audio.read_audio(path, 48_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) == n_samples // 2
    assert peak < 8_000_000
