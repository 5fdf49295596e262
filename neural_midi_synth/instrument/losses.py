"""ddsp's multi-scale spectral loss, with a floor under its logarithm and a term on a mel scale."""

from __future__ import annotations

from collections.abc import Sequence

import ddsp
import gin
import numpy as np
import tensorflow as tf

_TINY = 1e-14  # under a square root, whose slope at 0 is infinite
_MOVEMENT_FRAMES = 8  # for which movement is averaged
_STILL = 0.02  # nepers of movement that are as good as none: 0.2 dB
_BEGINS = 1.5  # By which factor the level must rise from window to window where a note is taken to begin.
_DELAY_SECONDS = 0.004  # by which what is played may be early or late where phases are compared


@gin.configurable(module="nms")
class SpectralLoss(ddsp.losses.SpectralLoss):
    """ddsp's `SpectralLoss` with a floor under the logarithm, and a term on a mel scale.

    ddsp takes the logarithm of magnitudes down to 1e-5, some 150 dB below full scale, so most of its loss is about bins
    nobody hears. And every bin counts alike, so the lowest partials, which carry pitch and loudness, count little. Here
    a small magnitude, the floor, is added before each logarithm, so that differences far below it count for nothing;
    and the mel term compares bands of equal width to the ear.

    What is random in a recording, the beats of partials or the noise of a bow, cannot be foretold. Bin by bin and band
    by band, nothing is nearer to it than a sound that stands still. So the movement term compares how much the bands
    move, whichever way.

    All these are blind to phase. The phase term compares the phases of bins in each window, of all bins together, but
    for the delay with which they agree best: recordings of one note have one waveform, and each begins a little earlier
    or later. Half of the term is about the windows in which notes begin, where a longer delay counts as less agreement.
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (2048, 1024, 512, 256, 128, 64),
        mag_weight: float = 1.0,
        logmag_weight: float = 1.0,
        mel_weight: float = 1.0,
        mel_fft_sizes: Sequence[int] = (2048, 512),
        mel_bands: Sequence[int] = (80, 40),
        floor_db: float = -80.0,
        overlap: float = 0.75,
        movement_weight: float = 0.0,
        phase_weight: float = 0.0,
        phase_fft_size: int = 1024,
        phases_up_to_hz: float = 5000.0,
        bins_up_to_hz: float | None = None,
        sample_rate: int = gin.REQUIRED,
        name: str = "spectral_loss",
    ) -> None:
        """Sets weights and scales.

        Args:
            fft_sizes: Of the spectrograms compared bin by bin.
            mag_weight: Of the L1 distance of magnitudes.
            logmag_weight: Of the L1 distance of their natural logarithms.
            mel_weight: Of the L1 distance of the logarithms of mel bands.
            mel_fft_sizes: Of the spectrograms the mel bands are made from.
            mel_bands: How many bands each has.
            floor_db: Level of a sine, in dB of full scale, whose magnitude is added before each logarithm.
            overlap: Of one window with the next, as a share of it.
            movement_weight: Of the L1 distance of the logarithms of how much the mel bands move.
            phase_weight: Of how much the phases of bins differ: from 0, where they are equal, to 1.
            phase_fft_size: Of the spectrogram whose phases are compared.
            phases_up_to_hz: Phases of higher bins are not.
            bins_up_to_hz: What is higher is compared in mel bands only; half the sample rate unless given.
            sample_rate: Samples a second.
            name: Name of the loss.

        Raises:
            ValueError: There are not as many numbers of bands as sizes.
        """
        if len(mel_fft_sizes) != len(mel_bands):
            raise ValueError(f"SpectralLoss.mel_bands: {len(mel_bands)} numbers for {len(mel_fft_sizes)} FFT sizes.")
        super().__init__(fft_sizes=tuple(fft_sizes), mag_weight=mag_weight, logmag_weight=logmag_weight, name=name)
        self._overlap = overlap
        self._share_of_bins = 1.0 if bins_up_to_hz is None else min(2.0 * bins_up_to_hz / sample_rate, 1.0)
        self.mel_weight = mel_weight
        self.movement_weight = movement_weight
        self.phase_weight = phase_weight
        self._phase_fft_size = phase_fft_size
        self._n_phases = round(min(phases_up_to_hz / sample_rate, 0.5) * phase_fft_size) + 1
        self._delay = min(round(_DELAY_SECONDS * sample_rate), phase_fft_size // 2 - 1)
        self._floor = 10.0 ** (floor_db / 20.0)
        self._mel = {
            size: tf.signal.linear_to_mel_weight_matrix(bands, size // 2 + 1, sample_rate, 30.0, sample_rate / 2)
            for size, bands in zip(mel_fft_sizes, mel_bands)
            if mel_weight or movement_weight
        }

    def call(self, target_audio: tf.Tensor, audio: tf.Tensor) -> tf.Tensor:
        """Compares audio `[batch, n_samples]` with the target's: a scalar."""
        loss = 0.0
        of_phases = {self._phase_fft_size} if self.phase_weight else set()
        for size in sorted({*self.fft_sizes, *self._mel, *of_phases}, reverse=True):
            spectra = [ddsp.spectral_ops.stft(each, size, self._overlap) for each in (target_audio, audio)]
            floor = self._floor * size / 4.0  # The magnitude of a sine of that amplitude under a Hann window.
            if size in of_phases:
                loss += self.phase_weight * self._phase_distance(*spectra, floor)
            target, value = map(_magnitudes, spectra)
            if size in self._mel:
                bands = [tf.matmul(each, self._mel[size]) for each in (target, value)]
                loss += self.mel_weight * _log_distance(*bands, floor)
                if self.movement_weight:
                    movements = (_movement(each, floor) for each in bands)
                    loss += self.movement_weight * _log_distance(*movements, _STILL)
            if size in self.fft_sizes:
                n_bins = round(self._share_of_bins * size / 2.0) + 1
                target, value = target[..., :n_bins], value[..., :n_bins]
                loss += self.mag_weight * tf.reduce_mean(tf.abs(target - value))
                loss += self.logmag_weight * _log_distance(target, value, floor)
        return loss

    def _phase_distance(self, target: tf.Tensor, value: tf.Tensor, floor: float) -> tf.Tensor:
        """How much phases differ, 0 to 1, a bin counting as the root of its magnitudes: of spectra `[batch, n, bins]`.

        The phase differences of a window, transformed back, tell how well the phases agree at each delay. Magnitudes
        have no slope but where they are near the floor: they are the other terms' matter.
        """
        products, magnitudes = [], []
        for spectrum in (target, value):
            real, imaginary = (part(spectrum[..., : self._n_phases]) for part in (tf.math.real, tf.math.imag))
            products.append((real, imaginary))
            magnitudes.append(tf.sqrt(real**2 + imaginary**2 + np.float32(floor**2)))
        (a, b), (c, d) = products
        weights = tf.stop_gradient(tf.sqrt(magnitudes[0] * magnitudes[1]))
        turned = [weights / (magnitudes[0] * magnitudes[1]) * each for each in (a * c + b * d, b * c - a * d)]
        rest = [[0, 0], [0, 0], [0, self._phase_fft_size // 2 + 1 - self._n_phases]]
        at_delays = tf.signal.irfft(tf.complex(*(tf.pad(each, rest) for each in turned)), [self._phase_fft_size])
        at_delays = tf.concat([at_delays[..., -self._delay :], at_delays[..., : self._delay + 1]], axis=-1)
        at_delays *= self._phase_fft_size / 2.0
        in_time = np.float32(1.0 - np.abs(np.arange(-self._delay, self._delay + 1)) / (self._delay + 1.0))
        most, begins = tf.reduce_sum(weights, axis=-1), _begins(magnitudes[0])
        anywhere = _share(tf.reduce_max(at_delays, axis=-1), most)
        at_onsets = _share(begins * tf.reduce_max(at_delays * in_time, axis=-1), begins * most)
        return 1.0 - 0.5 * (anywhere + at_onsets)


def _share(part: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    """Of the sums of each example, `[batch, n]`, 1 where both are nothing; the mean over the examples."""
    part, whole = (tf.reduce_sum(each, axis=1) + _TINY for each in (part, whole))
    return tf.reduce_mean(part / whole)


def _begins(magnitudes: tf.Tensor) -> tf.Tensor:
    """How much of what is heard in windows began in them, or in part in the one before: 0 to 1, `[batch, n]`.

    Args:
        magnitudes: Of a recording, above 0, `[batch, n, bins]`.
    """
    levels = tf.reduce_sum(magnitudes, axis=-1)
    new = tf.nn.relu(1.0 - _BEGINS * tf.concat([levels[:, :1], levels[:, :-1]], axis=1) / levels)
    return tf.maximum(new, 0.7 * tf.pad(new[:, :-1], [[0, 0], [1, 0]]))


def _magnitudes(spectrum: tf.Tensor) -> tf.Tensor:
    """By squares, with which XLA is quicker than with absolute values of complex numbers."""
    return tf.sqrt(tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2 + _TINY)


def _movement(bands: tf.Tensor, floor: float) -> tf.Tensor:
    """How much the levels of bands turn from frame to frame, nepers, averaged over some frames.

    Args:
        bands: `[batch, n_frames, n_bands]`.
        floor: Is added before the logarithm.

    Returns:
        The mean of the absolute second differences, `[batch, n, n_bands]`.
    """
    levels = tf.math.log(bands + np.float32(floor))
    turns = tf.abs(levels[:, 2:] - 2.0 * levels[:, 1:-1] + levels[:, :-2])
    turns = tf.pad(turns, [[0, 0], [1, 1], [0, 0]])  # So that the shortest clip has some.
    return tf.nn.avg_pool1d(turns, _MOVEMENT_FRAMES, _MOVEMENT_FRAMES // 2, "SAME")


def _log_distance(target: tf.Tensor, value: tf.Tensor, floor: float) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(tf.math.log(target + np.float32(floor)) - tf.math.log(value + np.float32(floor))))
