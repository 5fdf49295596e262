"""What log-mel does not hear: how a note sets in, where its partials lie, how it moves and dies away.

Everything here compares two clips of one note: a recording and a rendering of it, or two recordings, by which one
learns how alike a player plays the same note twice. A clip begins `LEAD_SECONDS` before the note's onset and ends
with the note; of two clips the longer one is cut to the length of the other. NumPy and librosa only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from neural_midi_synth.evaluation.metrics import envelope_difference, log_mel_difference, mel_filters

LEAD_SECONDS = 0.01
RISE_SECONDS = 0.15  # The peak that a rise is measured by lies within this time from the onset.
CLICK_SECONDS = 0.025
HELD_SECONDS = 0.6  # Notes at least as long have a held part, from 80 ms after the onset to 30 ms before the end.
_HELD_FROM, _HELD_UNTIL = 0.08, 0.03

PARTIALS = tuple(range(6, 17))
_PARTIAL_CENTS = (-60.0, 90.0)  # Where a partial is looked for, from a multiple of the pitch.
FLUX_BANDS = 40
DECAY_EDGES_HZ = (0.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
DECAY_RANGE_DB = (
    50.0  # Below the loudest moment of the loudest band by more than this, hiss is heard in place of a note.
)
_FEWEST_DECAY_FRAMES = 12  # 0.2 s


def compare_notes(
    references: Sequence[np.ndarray],
    renderings: Sequence[np.ndarray],
    pitches: npt.ArrayLike,
    sample_rate: int,
) -> dict[str, np.ndarray]:
    """Measures the clips of each note against each other.

    Args:
        references: A clip of each of n notes, float `[samples]`, full scale ±1, from 10 ms before its onset to its end.
        renderings: Another clip of each.
        pitches: `[n]`, MIDI note numbers; NaN for those whose partials are not looked for.
        sample_rate: Samples per second.

    Returns:
        Arrays of float64, NaN where a note does not have the number. `[n]`: `log_mel` and `envelope` (dB, over the
        note, as in `metrics`), `rise` and `reference_rise` (ms, see `rise_time`), `click` (dB), `flux` (the rendering's
        as a share of the reference's). `[n, 11]`: `stretch` and `reference_stretch` (cents, see `partial_stretch`).
        `[n, 7]`: `decay` and `reference_decay` (dB/s, see `decay_rates`).
    """
    rows = [
        _compare(reference, rendering, float(pitch), sample_rate)
        for reference, rendering, pitch in zip(references, renderings, np.asarray(pitches, np.float64), strict=True)
    ]
    shapes = {name: (len(PARTIALS),) for name in ("stretch", "reference_stretch")}
    shapes |= {name: (len(DECAY_EDGES_HZ) - 1,) for name in ("decay", "reference_decay")}
    names = ("log_mel", "envelope", "rise", "reference_rise", "click", "flux", *shapes)
    return {name: np.array([row[name] for row in rows]).reshape(-1, *shapes.get(name, ())) for name in names}


def _compare(reference: np.ndarray, rendering: np.ndarray, pitch: float, sample_rate: int) -> dict[str, np.ndarray]:
    n_samples = min(len(reference), len(rendering))
    clips = [np.asarray(clip[:n_samples], np.float64) for clip in (reference, rendering)]
    played = [clip[round(LEAD_SECONDS * sample_rate) :] for clip in clips]
    rises = [rise_time(clip, sample_rate) for clip in clips]
    held = [clip[round(_HELD_FROM * sample_rate) : len(clip) - round(_HELD_UNTIL * sample_rate)] for clip in played]
    if len(played[0]) < round(HELD_SECONDS * sample_rate):
        held = [np.zeros(0), np.zeros(0)]
    stretches = [partial_stretch(clip, pitch, sample_rate) for clip in held]
    decays = decay_rates(held, sample_rate)
    flux_of_reference, flux_of_rendering = (spectral_flux(clip, sample_rate) for clip in held)
    return {
        "log_mel": log_mel_difference(*played, sample_rate),
        "envelope": envelope_difference(*played, sample_rate),
        "reference_rise": rises[0],
        "rise": rises[1],
        "click": click_difference(*played, sample_rate),
        "flux": flux_of_rendering / flux_of_reference if flux_of_reference > 0 else np.nan,
        "reference_stretch": stretches[0],
        "stretch": stretches[1],
        "reference_decay": decays[0],
        "decay": decays[1],
    }


def rise_time(clip: np.ndarray, sample_rate: int) -> float:
    """Time from a note's onset until its level over 1 ms is first half of the highest within 150 ms.

    Args:
        clip: float `[n]`, from 10 ms before the onset.
        sample_rate: Samples per second.

    Returns:
        ms, from −10 on; NaN for silence.
    """
    clip = clip[: round((LEAD_SECONDS + RISE_SECONDS) * sample_rate)]
    width = max(1, round(0.001 * sample_rate))
    power = np.convolve(np.square(clip), np.ones(width), "same")
    if not power.size or power.max() <= 0.0:
        return np.nan
    return 1000.0 * (float(np.argmax(power >= 0.25 * power.max())) / sample_rate - LEAD_SECONDS)


def click_difference(reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> float:
    """How much the spectra of the first 25 ms of two clips differ when their levels are made equal.

    Args:
        reference: float `[n]`, from the onset.
        rendering: float `[n]`, likewise.
        sample_rate: Samples per second.

    Returns:
        Mean absolute difference in dB over the frequencies within 40 dB of the reference's strongest; NaN for notes
        that are shorter, and for silence.
    """
    n_samples = round(CLICK_SECONDS * sample_rate)
    if min(len(reference), len(rendering)) < n_samples or not np.any(reference[:n_samples]):
        return np.nan
    spectra = np.abs(np.fft.rfft(np.stack([reference[:n_samples], rendering[:n_samples]]) * np.hanning(n_samples)))
    smooth = [np.convolve(spectrum + 1e-6, np.ones(3) / 3.0, "same") for spectrum in spectra]
    difference = 20.0 * np.log10(smooth[0] / smooth[1])[smooth[0] > 1e-2 * smooth[0].max()]
    return float(np.mean(np.abs(difference - np.median(difference))))


def partial_stretch(held: np.ndarray, pitch: float, sample_rate: int) -> np.ndarray:
    """How far the partials of a note lie above multiples of its first one, as those of stiff strings do.

    Args:
        held: Held part of a note, float `[n]`.
        pitch: MIDI note number.
        sample_rate: Samples per second.

    Returns:
        Cents of partials 6 to 16, float64 `[11]`; NaN where a partial, or the first one, does not stand out.
    """
    stretch = np.full(len(PARTIALS), np.nan)
    if not held.size or not np.isfinite(pitch):
        return stretch
    n_fft = 2 ** round(np.log2(8.192 * sample_rate))
    held = held[:n_fft]
    spectrum = np.abs(np.fft.rfft(held * np.hanning(len(held)), n_fft))
    f0_hz, quietest = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), 1e-3 * spectrum.max()
    found = {}
    for partial in range(1, PARTIALS[-1] + 1):
        low, high = (partial * f0_hz * 2.0 ** (cents / 1200.0) * n_fft / sample_rate for cents in _PARTIAL_CENTS)
        if high > n_fft / 2:
            break
        first = int(low) + 1
        around = spectrum[first : int(np.ceil(high))]
        peak = int(np.argmax(around))
        if around[peak] > max(8.0 * np.median(around), quietest):
            found[partial] = first + peak
    if 1 in found:
        for column, partial in enumerate(PARTIALS):
            if partial in found:
                stretch[column] = 1200.0 * np.log2(found[partial] / (partial * found[1]))
    return stretch


def spectral_flux(held: np.ndarray, sample_rate: int) -> float:
    """How much the spectrum of a held note moves: the bend of each band's level from one 16 ms to the next.

    Args:
        held: Held part of a note, float `[n]`.
        sample_rate: Samples per second.

    Returns:
        Mean absolute second difference of 40 mel bands in dB; NaN for notes without a held part.
    """
    if not held.size:
        return np.nan
    n_fft = sample_rate // 16
    power = mel_filters(sample_rate, n_fft, FLUX_BANDS, "slaney") @ _power(held, n_fft, sample_rate // 62)
    level = 10.0 * np.log10(np.maximum(power, 1e-10))
    return float(np.mean(np.abs(np.diff(np.maximum(level, level.max() - 60.0), n=2))))


def decay_rates(held: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
    """How fast bands an octave wide die away in clips of one note, over the frames in which the band is heard in all.

    Args:
        held: Held parts of c clips, float `[n]` each.
        sample_rate: Samples per second.

    Returns:
        dB/s of seven bands (edges `DECAY_EDGES_HZ`), below 0 where they die away, float64 `[c, 7]`; NaN where a band is
        heard for less than 0.2 s or lies above half the sample rate. A level of −60 dB is reached after −60 / rate s.
    """
    rates = np.full([len(held), len(DECAY_EDGES_HZ) - 1], np.nan)
    n_fft = 2 ** round(np.log2(0.064 * sample_rate))
    hop = n_fft // 4
    if min(map(len, held)) < n_fft:
        return rates
    edges = np.searchsorted(np.fft.rfftfreq(n_fft, 1.0 / sample_rate), DECAY_EDGES_HZ)
    frames = np.stack([np.lib.stride_tricks.sliding_window_view(clip, n_fft)[::hop] for clip in held])
    power = np.abs(np.fft.rfft(frames * np.hanning(n_fft))) ** 2
    bands = np.stack([power[..., low:high].sum(-1) for low, high in zip(edges[:-1], edges[1:])], axis=-1)
    level = 10.0 * np.log10(np.maximum(bands, 1e-20))  # [c, frames, bands]
    heard = np.all(level > level.max(axis=(1, 2), keepdims=True) - DECAY_RANGE_DB, axis=0)
    times = np.arange(level.shape[1]) * hop / sample_rate
    for band in np.flatnonzero(heard.sum(axis=0) >= _FEWEST_DECAY_FRAMES):
        rates[:, band] = np.polyfit(times[heard[:, band]], level[:, heard[:, band], band].T, 1)[0]
    return rates


def _power(samples: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Returns the power spectrogram, `[n_fft / 2 + 1, frames]`; the first frame's middle is the first sample."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, n_fft // 2), n_fft)[::hop]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    return np.abs(np.fft.rfft(frames * window)).T ** 2
