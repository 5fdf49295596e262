"""Pitches of chords: which notes are to be heard in a sound, and how well they agree with the notes of a piece.

The estimator explains the magnitude spectrum of every frame as a sum, with weights of zero or more, of fixed spectra
of harmonic tones: non-negative matrix factorisation with harmonic templates, with the Kullback-Leibler divergence
(Smaragdis and Brown 2003; Vincent, Bertin and Badeau 2010). Every pitch has several templates, whose weights add up, so
that no timbre has to be learnt; and as few pitches as explain the spectrum get weight, since each costs something
(group sparsity: Lefèvre, Bach and Févotte 2011). A pitch counts where its weight is large beside that of the strongest
pitch of the frame. Nothing is random: the same sound always gives the same pitches.

It is not free of errors. Chords in octaves share all partials of their upper notes, and strings ring on after their
notes have ended. Therefore the same estimator is asked about the recording and about the rendering, and the one's
agreement with the notes is the measure for the other's.
"""

from __future__ import annotations

import functools

import numpy as np

from neural_midi_synth.evaluation.metrics import equal_length
from neural_midi_synth.midi.pieces import Piece, Voice, in_force

SAMPLE_RATE = 16000
"""What the estimator works at, whatever the sample rate of the sound."""
FRAME = 2048
"""Samples of a frame: 128 ms, five periods of the lowest pitch."""
HOP = 512
"""Samples from frame to frame: 32 ms. Frame number i is centred on sample i · HOP."""
LOWEST_PITCH, HIGHEST_PITCH = 28, 96
"""E1 (41 Hz) to C7 (2093 Hz), MIDI note numbers. Notes beyond can't be found, and count as missed."""
STEPS_PER_SEMITONE = 2
"""Pitches are told apart by quarter tones, so that one of any tuning is off by an eighth of a tone at most."""
TOLERANCE_SEMITONES = 0.5
"""How far an estimated pitch may be from a note of the piece."""

_N_HARMONICS = 20
_INHARMONICITY = 5e-5
"""Of strings: partial h lies at h · f0 · √(1 + B · h²); B of guitars is between 1e-5 and 2e-4."""
_TONES = ((1.5, np.inf), (0.3, 8.0), (0.3, np.inf))
"""Templates of whole tones, mellow to bright, as (d, w): the amplitude of partial h is h^-d · exp(-(h / w)²)."""
_BANDS = (1.5, 4.0, 10.0)
"""Templates of what a tone may have more of: partials around these, as a Gaussian with a deviation of 0.7 octaves."""
_COST_OF_BANDS = 1.2
"""Explaining by bands is so much dearer than by tones; else they would explain any sound by any pitch."""
_COST_OF_PITCHES = 3e-3
"""What a pitch costs that has any weight, as a share of the magnitude of the frame."""
_N_TEMPLATES = len(_TONES) + len(_BANDS)
_ITERATIONS = 30
_BLOCK = 512
"""Frames that are explained at once, so that hours of sound fit in memory."""
# What counts as a pitch (see `estimate`). Templates, costs and these were found by trying on six minutes of chords of a
# six-string guitar, whose recordings get precision 0.94, recall 0.80 and F 0.87 (0.85 to 0.89 from minute to minute).
_BEGINS, _GOES_ON = 0.35, 0.21
_LOUDEST_TO_QUIETEST = 0.03
_SILENCE = 1e-4
_SMOOTHED_FRAMES = 5


def compare(piece: Piece | Voice, reference: np.ndarray, rendering: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Measures how well the pitches of a recording and of a rendering agree with the notes of what they play.

    Args:
        piece: What is played.
        reference: Recorded sound, float `[n]`, full scale ±1.
        rendering: Rendered sound, float `[m]`; the shorter of the two is padded with zeros.
        sample_rate: Samples per second of both.

    Returns:
        `multipitch_precision`, `multipitch_recall` and `multipitch_f` of the rendering (0 to 1, see `agreement`), the
        same of the recording with `reference_` before the name, and `multipitch_share`: F of the rendering over that of
        the recording (NaN where that is 0).

    Raises:
        ValueError: A signal is not one-dimensional, is empty, or holds NaN or infinity.
    """
    numbers = {}
    reference, rendering = equal_length(reference, rendering)
    for prefix, samples in (("", rendering), ("reference_", reference)):
        names = (f"{prefix}multipitch_{name}" for name in ("precision", "recall", "f"))
        numbers |= dict(zip(names, agreement(piece, samples, sample_rate), strict=True))
    best = numbers["reference_multipitch_f"]
    numbers["multipitch_share"] = numbers["multipitch_f"] / best if best > 0.0 else float("nan")
    return numbers


def agreement(piece: Piece | Voice, samples: np.ndarray, sample_rate: int) -> tuple[float, float, float]:
    """Measures how well the pitches of a sound agree with the notes of what it plays, frame by frame (mir_eval).

    A note counts from its onset to its end, whether it is still loud or has died away. What rings on after the ends of
    all notes counts as wrong. Both are the same for a recording and for what imitates it.

    Args:
        piece: What is played.
        samples: float `[n]`, full scale ±1. Notes that begin after its end do not count.
        sample_rate: Samples per second.

    Returns:
        Precision: the share of the estimated pitches that are within half a semitone of a note of their frame. Recall:
        the share of the notes' frames in which their pitch was estimated. F: the harmonic mean of the two. Each is 0 to
        1, or NaN where there is no note.
    """
    import mir_eval

    estimated = estimate(samples, sample_rate)
    annotated = pitches_of(piece, len(estimated))
    if not any(frame.size for frame in annotated):
        return float("nan"), float("nan"), float("nan")
    if not any(frame.size for frame in estimated):
        return 0.0, 0.0, 0.0
    times = np.arange(len(estimated)) * HOP / SAMPLE_RATE
    precision, recall, *_ = mir_eval.multipitch.metrics(
        times, _hertz(annotated), times, _hertz(estimated), window=TOLERANCE_SEMITONES
    )
    return float(precision), float(recall), float(2.0 * precision * recall / max(precision + recall, 1e-9))


def pitches_of(piece: Piece | Voice, n_frames: int) -> list[np.ndarray]:
    """Returns the pitches that notes have at the middle of each frame.

    Args:
        piece: Its pitch bends move the pitches; of notes of a voice that overlap, the newest counts. Voices in unison
            (within half a semitone) are one pitch, since no more than that can be told from a sound.
        n_frames: Number of frames.

    Returns:
        For each frame its pitches (MIDI note numbers, fractional where bent), float64 `[n]`, from low to high.
    """
    times = np.arange(n_frames) * HOP / SAMPLE_RATE
    pitches = np.full([len(Piece.of(piece).voices), n_frames], np.nan)
    for row, voice in zip(pitches, Piece.of(piece).voices, strict=True):
        if not len(voice.notes):
            continue
        newest = in_force(voice.notes[:, 0], times)
        lasts = (newest >= 0) & (voice.notes[newest, 1] > times)
        row[lasts] = voice.notes[newest[lasts], 2]
        if len(voice.pitch_bends):
            bend = in_force(voice.pitch_bends[:, 0], times)
            row += np.where(bend >= 0, voice.pitch_bends[bend, 1], 0.0)
    frames = []
    for column in pitches.T:
        frame = np.sort(column[np.isfinite(column)])
        frames.append(frame[np.diff(frame, prepend=-np.inf) > TOLERANCE_SEMITONES])
    return frames


def estimate(samples: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Estimates all pitches of a sound from E1 to C7, every 32 ms.

    A pitch begins where its amplitude is at least 0.35 of the strongest one's in the same frame, and goes on while it
    is at least 0.21. Amplitudes are medians over five frames; what is below 0.03 of those of the loudest moment, or
    below 0.0001 of full scale, does not count.

    Args:
        samples: float `[n]`, full scale ±1.
        sample_rate: Samples per second.

    Returns:
        For each frame (see `HOP`) its pitches (MIDI note numbers, to a quarter tone), float64 `[n]`, from low to high.
    """
    from scipy import ndimage

    amplitudes = ndimage.median_filter(pitch_amplitudes(samples, sample_rate), (1, _SMOOTHED_FRAMES))
    # The strongest pitch of each frame, or what is too quiet to count if that is more.
    strongest = np.maximum(amplitudes.max(axis=0), _LOUDEST_TO_QUIETEST * amplitudes.max() / _BEGINS)
    strongest = np.maximum(strongest, _SILENCE / _BEGINS)
    is_peak = amplitudes >= ndimage.maximum_filter1d(amplitudes, 3, axis=0)
    begins = is_peak & (amplitudes >= _BEGINS * strongest)
    may_go_on = is_peak & (amplitudes >= _GOES_ON * strongest)
    pitches = np.arange(LOWEST_PITCH, HIGHEST_PITCH + 0.25, 1.0 / STEPS_PER_SEMITONE)
    present, frames = np.zeros(len(pitches), bool), []
    for frame in range(amplitudes.shape[1]):
        # A pitch that glides goes on in the next step.
        present = begins[:, frame] | (may_go_on[:, frame] & ndimage.maximum_filter1d(present, 3))
        frames.append(pitches[present])
    return frames


def pitch_amplitudes(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the amplitude of each pitch in each frame, float32 `[n_pitches, n_frames]`.

    Pitches are `LOWEST_PITCH` to `HIGHEST_PITCH` in steps of a quarter tone. The amplitude is that of the strongest
    partials: 1 for a sine at full scale.
    """
    spectrum = _magnitudes(samples, sample_rate)
    templates = _templates()
    loudest = max(float(spectrum.max()), 1e-12)
    spectrum = spectrum / loudest
    weights = [_weights(spectrum[:, i : i + _BLOCK], templates) for i in range(0, spectrum.shape[1], _BLOCK)]
    # The templates of a pitch follow each other.
    return loudest * np.concatenate(weights, axis=1).reshape([-1, _N_TEMPLATES, spectrum.shape[1]]).sum(axis=1)


def _weights(spectrum: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """Explains spectra `[bins, frames]` by templates `[bins, n]`: weights `[n, frames]`, not negative.

    The multiplicative update of Lee and Seung (2001) from equal weights. It lowers the Kullback-Leibler divergence of
    each frame, plus a cost of each template in proportion to its weight, plus a cost of each pitch in proportion to
    the logarithm of the sum of its weights.
    """
    smallest = np.float32(1e-7)
    n_pitches, n_frames = templates.shape[1] // _N_TEMPLATES, spectrum.shape[1]
    weights = np.full([templates.shape[1], n_frames], 1e-2, np.float32)
    costs = np.repeat(np.array([1.0, _COST_OF_BANDS], np.float32), [len(_TONES), len(_BANDS)])
    costs = (templates.sum(axis=0) * np.tile(costs, n_pitches))[:, np.newaxis]
    cost_of_pitch = _COST_OF_PITCHES * spectrum.sum(axis=0)
    negligible = 1e-2 * spectrum.max(axis=0) + np.float32(1e-6)  # Below it the logarithm levels out.
    for _ in range(_ITERATIONS):
        of_pitches = weights.reshape([n_pitches, _N_TEMPLATES, n_frames]).sum(axis=1)
        rising = np.repeat(cost_of_pitch / (of_pitches + negligible), _N_TEMPLATES, axis=0)
        weights *= templates.T @ ((spectrum + smallest) / (templates @ weights + smallest)) / (costs + rising)
    return weights


def _magnitudes(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns the magnitude spectrum of each frame, float32 `[bins, n_frames]`; 1 for a sine at full scale."""
    import librosa
    import soxr

    samples = np.asarray(samples, np.float32)
    if sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    samples = np.pad(samples, FRAME // 2)  # Here and not by librosa, which warns of sounds shorter than a frame.
    return np.abs(librosa.stft(samples, n_fft=FRAME, hop_length=HOP, center=False)) * np.float32(4.0 / FRAME)


@functools.lru_cache
def _templates() -> np.ndarray:
    """Returns the spectra of harmonic tones, float32 `[bins, n_pitches · _N_TEMPLATES]`, the highest bin of each 1."""
    bins = np.arange(FRAME // 2 + 1)
    harmonics = np.arange(1, _N_HARMONICS + 1)
    stretch = harmonics * np.sqrt((1.0 + _INHARMONICITY * harmonics**2) / (1.0 + _INHARMONICITY))
    shapes = [harmonics**-decay * np.exp(-((harmonics / width) ** 2)) for decay, width in _TONES]
    shapes += [np.exp(-0.5 * (np.log2(harmonics / middle) / 0.7) ** 2) for middle in _BANDS]
    templates = []
    for pitch in np.arange(LOWEST_PITCH, HIGHEST_PITCH + 0.25, 1.0 / STEPS_PER_SEMITONE):
        frequencies = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0) * stretch
        partials = _hann_spectrum(bins[:, np.newaxis] - frequencies * FRAME / SAMPLE_RATE)
        partials[:, frequencies >= SAMPLE_RATE / 2] = 0.0
        templates += [partials @ shape for shape in shapes]
    templates = np.stack(templates, axis=1)
    return (templates / templates.max(axis=0)).astype(np.float32)


def _hann_spectrum(bins: np.ndarray) -> np.ndarray:
    """Returns the magnitude spectrum of a Hann window at a distance in bins; 1 at 0, and 0 from 4 bins on."""
    bins = np.where(np.isclose(np.abs(bins), 1.0), bins + 1e-5, bins)  # There the formula is 0 / 0.
    return np.where(np.abs(bins) < 4.0, np.abs(np.sinc(bins) / (1.0 - bins**2)), 0.0)


def _hertz(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Turns MIDI note numbers into Hz."""
    return [440.0 * 2.0 ** ((frame - 69.0) / 12.0) for frame in frames]
