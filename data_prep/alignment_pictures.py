"""A picture of a recording with its annotation over it, for takes that don't fit. Matplotlib without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.data_prep import alignment, onsets
from neural_midi_synth.files.audio import resample
from neural_midi_synth.midi.pieces import Piece

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SECONDS = 15.0  # From the first note on.
_LOWEST_HERTZ, _HIGHEST_HERTZ = 40.0, 3000.0


def picture(samples: np.ndarray, sample_rate: int, piece: Piece, found: alignment.Alignment) -> bytes:
    """Draws the beginning of a take: its spectrogram, the annotation over it, and below the evidence for each offset.

    Args:
        samples: float32 `[n]`, mono.
        sample_rate: Samples per second.
        piece: The annotation as it was, at least one note.
        found: From `align`.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.5), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[3, 1])
    start = max(float(piece.notes[0, 0]) - 0.5, 0.0)
    _draw_sound(above, samples[round(start * sample_rate) :][: round(_SECONDS * sample_rate)], sample_rate, start)
    seen = piece.notes[piece.notes[:, 0] < start + _SECONDS]
    above.hlines(onsets.hertz(seen[:, 2]), seen[:, 0], seen[:, 1], colors="#e4572e", linewidth=2.5, label="annotation")
    above.set(xlim=(start, start + _SECONDS), xlabel="seconds", ylabel="Hz", yscale="log")
    above.set_ylim(_LOWEST_HERTZ, _HIGHEST_HERTZ)
    above.legend(loc="upper right", fontsize=8)
    lags = np.linspace(-alignment.MAX_OFFSET, alignment.MAX_OFFSET, len(found.evidence))
    below.plot(lags, found.evidence, color="#25221e", linewidth=1.0)
    below.set(xlim=(-alignment.MAX_OFFSET, alignment.MAX_OFFSET), xlabel="annotation moved by (s)")
    below.set_ylabel("evidence a note\n(above 4 where they fit)", fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _draw_sound(axes: Axes, samples: np.ndarray, sample_rate: int, start: float) -> None:
    """Draws the spectrogram of what begins at `start` (s), 60 dB from light to dark."""
    from scipy import signal

    samples = resample(np.pad(samples, (0, max(0, 4096 - len(samples)))), sample_rate, 8000)
    frequencies, times, power = signal.spectrogram(samples, 8000, nperseg=1024, noverlap=768)
    decibels = 10.0 * np.log10(power + 1e-12)
    highest = decibels.max()
    axes.pcolormesh(times + start, frequencies, decibels, cmap="Greys", vmin=highest - 60.0, vmax=highest)
