"""How far a rendering is from its reference: spectral loss, log-mel, envelope, pitch, quality.

Every function takes two mono signals at one sample rate. Where their lengths differ, the shorter one is padded with
zeros: sound that is missing and sound that is too much both count.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.errors import DataError

if TYPE_CHECKING:
    from scipy import sparse
    from visqol import VisqolApi

# Multi-scale spectral loss, as ddsp's SpectralLoss(mag_weight=1, logmag_weight=1).
FFT_SIZES = (2048, 1024, 512, 256, 128, 64)
SILENT_MAGNITUDE = 1e-5  # What ddsp takes the logarithm of where a magnitude is zero.

# Levels below the reference's peak by more than this are taken as silence, equal to any other silence.
MEL_FLOOR_DB = -80.0
ENVELOPE_FLOOR_DB = -60.0
QUIETEST_PEAK_DB = -80.0  # The peak that stands in when the reference is silent: dB of full scale.
MEL_BANDS = 80
WINDOW_SECONDS = 0.064  # Of the mel spectrogram and of the envelope; the nearest power of two samples is used.

# pYIN runs at 16 kHz, whatever the sample rate: frames of 128 ms (five periods of 40 Hz) every 32 ms.
PITCH_SAMPLE_RATE = 16000
PITCH_FRAME = 2048
PITCH_HOP = 512
PITCH_RANGE_HZ = (40.0, 1200.0)
PITCH_TOLERANCE_CENTS = 50.0

VISQOL_SAMPLE_RATE = 48000

_BLOCK_SAMPLES = 1 << 20  # Samples a spectrum is computed for at once, so that hours of sound fit in memory.


def compare(
    reference: np.ndarray, rendering: np.ndarray, sample_rate: int, is_monophonic: bool = True
) -> dict[str, float]:
    """Measures a rendering against its reference.

    Args:
        reference: Recorded sound, float `[n]`, full scale ±1.
        rendering: Rendered sound, float `[m]`; the shorter of the two is padded with zeros.
        sample_rate: Samples per second of both.
        is_monophonic: Whether one note is played at a time, so that a tracker of one pitch can follow.

    Returns:
        `spectral_loss` (no unit), `log_mel_db` (dB), `envelope_db` (dB) and, where it is monophonic, `pitch_accuracy`
        (0 to 1, NaN where the reference has no voiced frame).

    Raises:
        ValueError: A signal is not one-dimensional, is empty, or holds NaN or infinity.
    """
    reference, rendering = equal_length(reference, rendering)
    numbers = {
        "spectral_loss": spectral_loss(reference, rendering),
        "log_mel_db": log_mel_difference(reference, rendering, sample_rate),
        "envelope_db": envelope_difference(reference, rendering, sample_rate),
    }
    if is_monophonic:
        numbers["pitch_accuracy"] = pitch_accuracy(reference, rendering, sample_rate)
    return numbers


def equal_length(reference: np.ndarray, rendering: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both signals as float32 `[max(n, m)]`, the shorter one padded with zeros at its end.

    Raises:
        ValueError: A signal is not one-dimensional, is empty, or holds NaN or infinity.
    """
    signals = []
    for name, samples in (("reference", reference), ("rendering", rendering)):
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not samples.size:
            raise ValueError(f"The {name} must be mono sound of at least one sample; its shape is {samples.shape}.")
        if not np.isfinite(samples).all():
            raise ValueError(f"The {name} holds NaN or infinity.")
        signals.append(samples)
    n_samples = max(samples.size for samples in signals)
    first, second = (np.pad(samples, (0, n_samples - samples.size)) for samples in signals)
    return first, second


def spectral_loss(reference: np.ndarray, rendering: np.ndarray) -> float:
    """Multi-scale spectral loss: mean |ΔS| + mean |Δlog S| of magnitude spectrograms, summed over the FFT sizes.

    The same number as `ddsp.losses.SpectralLoss(mag_weight=1, logmag_weight=1)` (Engel et al. 2020, equation 4)
    without waiting for TensorFlow: FFT sizes 2048…64, Hann window, 75 % overlap.

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.

    Returns:
        The loss, 0 or greater.
    """
    reference, rendering = equal_length(reference, rendering)
    return float(sum(_magnitude_difference(reference, rendering, size) for size in FFT_SIZES))


def log_mel_difference(reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> float:
    """Mean absolute difference of two mel spectrograms in dB, over time and 80 bands up to half the sample rate.

    Levels more than 80 dB below the reference's loudest mel cell are raised to that floor in both, so that silence
    equals silence whatever its noise.

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.
        sample_rate: Samples per second.

    Returns:
        dB, 0 or greater.
    """
    reference, rendering = equal_length(reference, rendering)
    return _floored_difference(
        mel_spectrogram(reference, sample_rate), mel_spectrogram(rendering, sample_rate), MEL_FLOOR_DB
    )


def mel_spectrogram(samples: np.ndarray, sample_rate: int, n_bands: int = MEL_BANDS) -> np.ndarray:
    """Returns mel power in dB, float32 `[n_bands, frames]`: 64 ms windows every 16 ms, 0 dB for a full-scale sine."""
    import librosa

    n_fft = _window_size(sample_rate)
    power = np.abs(librosa.stft(_at_least(n_fft, samples), n_fft=n_fft, hop_length=n_fft // 4)) ** 2
    full_scale = (n_fft / 4) ** 2  # A sine of amplitude 1 under a Hann window, in its own bin.
    return 10.0 * np.log10(np.maximum(mel_filters(sample_rate, n_fft, n_bands) @ power / full_scale, 1e-20))


@functools.lru_cache
def mel_filters(sample_rate: int, n_fft: int, n_bands: int, norm: str | None = None) -> sparse.csr_array:
    """Returns librosa's mel filters, float32 `[n_bands, n_fft / 2 + 1]`, most of which are 0."""
    import librosa
    from scipy import sparse

    return sparse.csr_array(librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_bands, norm=norm))


def envelope_difference(reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> float:
    """Mean absolute difference of two loudness envelopes in dB: levels of 64 ms windows every 16 ms.

    Levels more than 60 dB below the reference's loudest window are raised to that floor in both.

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.
        sample_rate: Samples per second.

    Returns:
        dB, 0 or greater.
    """
    reference, rendering = equal_length(reference, rendering)
    return _floored_difference(envelope(reference, sample_rate), envelope(rendering, sample_rate), ENVELOPE_FLOOR_DB)


def envelope(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the root mean square level of 64 ms windows every 16 ms, in dB of full scale, float32 `[frames]`."""
    import librosa

    size = _window_size(sample_rate)
    level = librosa.feature.rms(y=_at_least(size, samples), frame_length=size, hop_length=size // 4)[0]
    return 20.0 * np.log10(np.maximum(level, 1e-10))


def pitch_accuracy(reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> float:
    """Share of the reference's voiced frames in which the rendering is voiced and within 50 cents of its pitch.

    Pitch is found by pYIN (Mauch and Dixon, 2014) from 40 to 1200 Hz, however quiet the sound; it also takes much
    of plain noise for pitched, so that a reference with hiss between its notes keeps even a good rendering below 1.

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.
        sample_rate: Samples per second.

    Returns:
        0 to 1, or NaN where the reference has no voiced frame.
    """
    reference, rendering = equal_length(reference, rendering)
    pitch_of_reference = pitch_track(reference, sample_rate)
    voiced = np.isfinite(pitch_of_reference)
    if not voiced.any():
        return float("nan")
    pitch_of_rendering = pitch_track(rendering, sample_rate)
    cents = 1200.0 * np.abs(np.log2(pitch_of_rendering[voiced] / pitch_of_reference[voiced]))
    return float(np.mean(cents <= PITCH_TOLERANCE_CENTS))  # An unvoiced frame is NaN, which is not within.


def pitch_track(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the pitch in Hz of each 32 ms, NaN where the sound has none, float64 `[frames]`."""
    import librosa
    import soxr

    samples = np.asarray(samples, np.float32)
    if sample_rate != PITCH_SAMPLE_RATE:
        samples = soxr.resample(samples, sample_rate, PITCH_SAMPLE_RATE)
    samples = _at_least(PITCH_FRAME, samples)
    if not samples.any():
        return np.full(1 + samples.size // PITCH_HOP, np.nan)
    frequency, _, _ = librosa.pyin(
        samples,
        fmin=PITCH_RANGE_HZ[0],
        fmax=PITCH_RANGE_HZ[1],
        sr=PITCH_SAMPLE_RATE,
        frame_length=PITCH_FRAME,
        hop_length=PITCH_HOP,
    )
    return frequency


def perceived_quality(reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> float:
    """Quality that listeners would give the rendering beside its reference, as ViSQOL predicts it (audio mode, 48 kHz).

    Hines et al., "ViSQOLAudio: An objective audio quality metric for low bitrate codecs" (JASA 137, 2015).

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.
        sample_rate: Samples per second.

    Returns:
        1 (bad) to about 4.7 (the reference itself).

    Raises:
        DataError: ViSQOL is not installed, or the sound is too short or too quiet for it.
    """
    import soxr

    quality = visqol()
    both = equal_length(reference, rendering)
    first, second = (soxr.resample(samples, sample_rate, VISQOL_SAMPLE_RATE).astype(np.float64) for samples in both)
    try:
        return float(quality.measure_from_arrays(first, second, VISQOL_SAMPLE_RATE).moslqo)
    except ValueError as error:
        raise DataError(f"ViSQOL can't measure {len(first) / VISQOL_SAMPLE_RATE:.1f} s of sound ({error}).") from error


@functools.lru_cache
def visqol() -> VisqolApi:
    """Returns ViSQOL for audio, or raises DataError where it is not installed."""
    try:
        from visqol import VisqolApi
    except ImportError as error:
        raise DataError("--perceived needs ViSQOL. Install it: pip install visqol-python") from error
    quality = VisqolApi()
    quality.create(mode="audio")
    return quality


def openness_decay(samples: np.ndarray, onset: float, sample_rate: int) -> float:
    """How much of a note is left after its attack: its energy from 0.5 to 1.5 s over that of its first 0.1 s.

    A palm-muted ("closed") note gives a far lower ratio than an open one.

    Args:
        samples: float `[n]`, full scale ±1.
        onset: Where the note begins, in seconds.
        sample_rate: Samples per second.

    Returns:
        The ratio in dB. What lies beyond the end of the sound counts as silence; energies are at least 1e-12.
    """

    def energy(start: float, end: float) -> float:
        stretch = samples[max(0, round(start * sample_rate)) : max(0, round(end * sample_rate))]
        return max(float(np.sum(np.square(stretch, dtype=np.float64))), 1e-12)

    return float(10.0 * np.log10(energy(onset + 0.5, onset + 1.5) / energy(onset, onset + 0.1)))


def _magnitude_difference(reference: np.ndarray, rendering: np.ndarray, size: int) -> float:
    """One scale of the spectral loss, a block of frames at a time."""
    step = size // 4
    n_frames = -(-reference.size // step)
    missing = (n_frames - 1) * step + size - reference.size
    signals = [np.pad(samples, (0, missing)) for samples in (reference, rendering)]
    block = max(1, _BLOCK_SAMPLES // size)
    total = 0.0
    for first in range(0, n_frames, block):
        count = min(block, n_frames - first)
        spectra = [_magnitudes(samples[first * step :], size, step, count) for samples in signals]
        total += np.abs(spectra[0] - spectra[1]).sum(dtype=np.float64)
        total += np.abs(_log(spectra[0]) - _log(spectra[1])).sum(dtype=np.float64)
    return total / (n_frames * (size // 2 + 1))


def _magnitudes(samples: np.ndarray, size: int, step: int, count: int) -> np.ndarray:
    from scipy import fft

    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step][:count]
    return np.abs(fft.rfft(frames * _hann(size), axis=-1))


def _log(magnitudes: np.ndarray) -> np.ndarray:
    return np.log(np.where(magnitudes <= 0.0, np.float32(SILENT_MAGNITUDE), magnitudes))


@functools.lru_cache
def _hann(size: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)).astype(np.float32)


def _at_least(n_samples: int, samples: np.ndarray) -> np.ndarray:
    """Returns the samples as float32, padded with zeros to `n_samples` where they are fewer."""
    return np.pad(np.asarray(samples, np.float32), (0, max(0, n_samples - len(samples))))


def _window_size(sample_rate: int) -> int:
    return 2 ** round(np.log2(WINDOW_SECONDS * sample_rate))


def _floored_difference(reference_db: np.ndarray, rendering_db: np.ndarray, floor_db: float) -> float:
    floor = max(float(reference_db.max()), QUIETEST_PEAK_DB) + floor_db
    return float(np.mean(np.abs(np.maximum(reference_db, floor) - np.maximum(rendering_db, floor))))
