"""Audio files in and out: wav, aiff, flac, mp3, ogg and opus by libsndfile, resampling by soxr; no ffmpeg."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from neural_midi_synth.environment import silent_stderr
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import write_aside

if TYPE_CHECKING:
    import soundfile

# libsndfile's name of the format and the encoding that `write_audio` chooses, by suffix. mp3 is of variable bit rate
# at the best quality.
_FORMATS = {
    ".wav": {"format": "WAV", "subtype": "PCM_24"},
    ".flac": {"format": "FLAC", "subtype": "PCM_24"},
    ".mp3": {
        "format": "MP3",
        "subtype": "MPEG_LAYER_III",
        "bitrate_mode": "VARIABLE",
        "compression_level": 0.0,
    },
    ".ogg": {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.2},
}
AUDIO_SUFFIXES = tuple(_FORMATS)
# Those of files that are read, but not written here.
RECORDING_SUFFIXES = (*AUDIO_SUFFIXES, ".aiff", ".aif", ".opus")
# libsndfile crashes when it is asked for Vorbis at a rate that Vorbis does not have, such as 0 or above 200 kHz.
MAX_SAMPLE_RATE = 192_000
# libsndfile's Vorbis encoder keeps a whole write on the stack, and overflows it with minutes of audio at once.
_BLOCK_FRAMES = 65536
# Bits per second of the sparsest mp3 (MPEG-2, layer III): no mp3 holds more sound than its size at this rate.
_LOWEST_MP3_BIT_RATE = 8000


def read_audio(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
) -> tuple[np.ndarray, int]:
    """Reads an audio file, or a part of it, as mono: the mean of its channels.

    The encoder's delay of an mp3 is taken off where the file tells it, as those that LAME or this module wrote do. An
    mp3 of variable bit rate that does not tell its length is read as far as its first frames let expect.

    The samples are kept in a temporary file that is mapped into memory, so that hours of them don't fill it.

    Args:
        path: A file that ends in one of `RECORDING_SUFFIXES`, of any sample rate and channel count.
        sample_rate: Resampled to this many samples per second with soxr's best quality; None keeps the file's.
        start: Where to begin in the file, s.
        duration: How many seconds to read; None reads to the end, as do more than there are.
        channel: The channel to read, from 0, in place of the mean of all.

    Returns:
        `[n]` float32 samples, at least one, where full scale is [-1, 1] (float files and decoders may go a little
        beyond), and their sample rate. Resampling n samples from rate a to b gives n * b / a, rounded half up.

    Raises:
        DataError: The file is missing, empty, damaged or of another kind, contains NaN or infinite samples, has no
            such channel, or ends before `start`.
    """
    path = pathlib.Path(path)
    with _open(path) as file:
        file_rate = file.samplerate
        if channel is not None and channel >= file.channels:
            raise DataError(
                f"{path}: has no channel {channel + 1}, only {file.channels}. Choose another one in Reaper."
            )
        samples = _gathered(_blocks(file, path, start, duration, channel))
    if not len(samples):
        if start > 0.0:
            raise DataError(f"{path}: ends before {start:.2f} s, from where on it should be read. Export it again.")
        raise DataError(f"{path}: has no samples. Export it again.")
    if sample_rate is None:
        return samples, file_rate
    return resample(samples, file_rate, sample_rate), sample_rate


def _blocks(
    file: soundfile.SoundFile, path: pathlib.Path, start: float, duration: float | None, channel: int | None
) -> Iterator[np.ndarray]:
    """Yields blocks of mono samples. What comes before `start` is decoded too, since mp3 can't be entered exactly."""
    import soundfile

    first = round(start * file.samplerate)
    end = math.inf if duration is None else first + round(duration * file.samplerate)
    position = 0
    try:
        # Block after block: a header is not believed before the sound has come.
        while position < end and len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            mono = block.mean(axis=1) if channel is None else block[:, channel]
            before = position
            position += len(mono)
            mono = mono[max(first - before, 0) : min(end - before, len(mono))]
            _check_finite(mono, path, max(before, first), file.samplerate)
            if len(mono):
                yield mono
    except soundfile.LibsndfileError as error:
        where = f" after {position / file.samplerate:.1f} s" if position else ""
        raise DataError(f"{path}: is damaged{where}. Export or copy it again.") from error


def _gathered(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Joins blocks of float32 samples on disk; the file goes away with the array."""
    try:
        with tempfile.TemporaryFile() as file:
            n_samples = 0
            for block in blocks:
                file.write(np.ascontiguousarray(block, np.float32).data)
                n_samples += len(block)
            if not n_samples:
                return np.zeros(0, np.float32)
            file.flush()
            return np.asarray(np.memmap(file, np.float32, "r+", shape=(n_samples,)))
    except OSError as error:
        raise DataError(
            f"{tempfile.gettempdir()}: has no room for the samples of a recording ({error.strerror or error}). "
            "Make room there, or set TMPDIR to another folder."
        ) from error


def resample(samples: np.ndarray, from_rate: float, to_rate: float) -> np.ndarray:
    """Resamples with soxr's best quality; nothing happens where the rates are equal.

    Args:
        samples: `[n]` float32, at least one.
        from_rate: Samples per second; need not be whole.
        to_rate: Samples per second; need not be whole.

    Returns:
        float32 `[n * to_rate / from_rate]`, rounded half up, at least one; kept on disk as those of `read_audio`.
    """
    if from_rate == to_rate:
        return samples
    n_samples = max(math.floor(len(samples) * to_rate / from_rate + 0.5), 1)
    return _gathered(_resampled_blocks(samples, from_rate, to_rate, n_samples))


def _resampled_blocks(samples: np.ndarray, from_rate: float, to_rate: float, n_samples: int) -> Iterator[np.ndarray]:
    """Yields blocks of resampled audio, `n_samples` in all."""
    import soxr

    stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="VHQ")
    for start in range(0, len(samples), _BLOCK_FRAMES):
        end = start + _BLOCK_FRAMES
        block = stream.resample_chunk(np.ascontiguousarray(samples[start:end]), last=end >= len(samples))[:n_samples]
        n_samples -= len(block)
        yield block
    yield np.zeros(n_samples, np.float32)


def read_audio_info(path: str | os.PathLike) -> tuple[float, int, int]:
    """Reads what an audio file's header says, without decoding the file.

    Args:
        path: A file that ends in one of `RECORDING_SUFFIXES`.

    Returns:
        Duration in seconds, samples per second, and number of channels. An mp3 without a header of its encoder's has
        its duration estimated.

    Raises:
        DataError: The file is missing, empty, damaged or of another kind.
    """
    with _open(pathlib.Path(path)) as file:
        return file.frames / file.samplerate, file.samplerate, file.channels


def write_audio(path: str | os.PathLike, samples: np.ndarray | Iterable[np.ndarray], sample_rate: int) -> None:
    """Writes mono audio in the format of the suffix; the file is there whole or not at all.

    Files of .wav and .flac have 24 bits, those of .mp3 and .ogg a variable bit rate at high quality. Samples
    beyond full scale are not clipped: the whole is lowered until its peak fits, and a warning is logged. Memory does
    not grow with the length of what comes in blocks; they wait on disk until the peak is known.

    Args:
        path: Ends in .wav, .flac, .mp3 or .ogg.
        samples: `[n]` float, at least one, where full scale is [-1, 1]; or blocks of them, as `render_blocks` gives.
        sample_rate: Samples per second.

    Raises:
        DataError: The suffix is another, the format does not have this sample rate, samples are NaN or infinite, or
            the file can't be written.
    """
    import soundfile
    from absl import logging

    path = pathlib.Path(path)
    encoding = _FORMATS.get(path.suffix.lower())
    if encoding is None:
        raise DataError(
            f"{path}: audio can't be written as {path.suffix or 'a file without suffix'}. Use {_choices()}."
        )
    if not 1 <= sample_rate <= MAX_SAMPLE_RATE:
        raise DataError(f"{path}: can't be written at {sample_rate} Hz. Choose 1 to {MAX_SAMPLE_RATE} Hz.")
    blocks = [samples] if isinstance(samples, np.ndarray) else samples
    with write_aside(path) as aside:
        try:
            with tempfile.TemporaryFile(dir=path.parent) as waiting:
                peak = _write_waiting(waiting, blocks, path, sample_rate)
                if peak > 1.0:
                    logging.warning(
                        "%s: peaks at %+.1f dB, so all of it is lowered by that.", path, 20.0 * np.log10(peak)
                    )
                aside.touch()
                with soundfile.SoundFile(aside, "w", sample_rate, channels=1, **encoding) as file:
                    while part := waiting.read(_BLOCK_FRAMES * np.dtype(np.float32).itemsize):
                        file.write(np.frombuffer(part, np.float32) / np.float32(max(peak, 1.0)))
        except soundfile.LibsndfileError as error:
            reason = error.error_string.removeprefix("Error : ").rstrip(".")
            raise DataError(
                f"{path}: can't be written at {sample_rate} Hz ({reason}). Choose another sample rate or .wav."
            ) from error
        except OSError as error:
            raise DataError(f"{path}: can't be written ({error.strerror}). Choose another output.") from error


def _write_waiting(waiting: BinaryIO, blocks: Iterable[np.ndarray], path: pathlib.Path, sample_rate: int) -> float:
    """Writes raw samples to a file, from whose beginning they can then be read; returns their peak."""
    peak = n_samples = 0
    for block in blocks:
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 1:
            raise ValueError(f"samples must be mono, of shape [n], not {list(block.shape)}.")
        _check_finite(block, path, n_samples, sample_rate)
        peak = max(peak, np.abs(block).max(initial=0.0))
        n_samples += len(block)
        waiting.write(block.tobytes())
    if not n_samples:
        raise ValueError("There are no samples to write.")
    waiting.seek(0)
    return float(peak)


def _choices() -> str:
    return f"{', '.join(AUDIO_SUFFIXES[:-1])} or {AUDIO_SUFFIXES[-1]}"


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file for reading from its beginning to its end, or says why that can't be done."""
    import soundfile

    class Sequential(soundfile.SoundFile):
        """Reads without the seek that soundfile makes after each block: after one, mp3 samples are not exact."""

        def seekable(self) -> bool:
            return False

    if path.is_dir():
        raise DataError(f"{path}: is a folder. Give an audio file.")
    if not path.exists():
        raise DataError(f"{path}: no such file. Check its name.")
    if path.suffix.lower() not in RECORDING_SUFFIXES:
        raise DataError(f"{path}: is not an audio file of a known kind. Export it as {_choices()}.")
    if not path.stat().st_size:
        raise DataError(f"{path}: is empty (0 bytes). Export the audio again.")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: not allowed to read this file. Change its permissions.")
    with contextlib.ExitStack() as stack:
        if path.suffix.lower() == ".mp3":
            stack.enter_context(silent_stderr())
        try:
            file = stack.enter_context(Sequential(path))
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"{path}: is not audio, whatever its name, or is damaged. Export it again as {_choices()}."
            ) from error
        longest = path.stat().st_size * 8 / _LOWEST_MP3_BIT_RATE
        if file.format == "MP3" and file.frames > longest * file.samplerate:
            raise DataError(
                f"{path}: its header tells of {file.frames / file.samplerate:.0f} s of sound, but a file of this size "
                f"holds {longest:.0f} s at most. Export it again."
            )
        yield file


def _check_finite(samples: np.ndarray, path: pathlib.Path, position: int, sample_rate: int) -> None:
    """Raises at the first sample that is not a number; `position` is that of the first sample in the file."""
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        what = "NaN" if np.isnan(samples[first]) else "an infinite value"
        raise DataError(f"{path}: contains {what} at {(position + first) / sample_rate:.1f} s; export it again.")
