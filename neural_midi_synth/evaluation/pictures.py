"""Pictures of pieces and their sounds: spectrograms, piano roll, style lanes. Matplotlib without a display."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_midi_synth.evaluation import metrics
from neural_midi_synth.evaluation.note_metrics import LEAD_SECONDS
from neural_midi_synth.midi.pieces import Piece, Voice, in_force

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from neural_midi_synth.evaluation.likeness import Attack

# Where the time axis lies in every picture, as a share of its width: a player can draw its position over the picture.
TIME_LEFT = 0.078
TIME_RIGHT = 0.978

_WIDTH = 9.0  # inches
_DOTS_PER_INCH = 150
_BANDS = 128
_RANGE_DB = 75.0  # Colours span this much below the reference's peak.
_LABELLED_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
_NOTE_NAMES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
_CONTROL_MAXIMUM = 127
_MOST_ATTACKS = 6


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one picture.

    Notes of the first voice have the colour `note`, those of the last `last_note`, voices between what lies between.
    `style_lanes` are taken in turn.
    """

    background: str
    panel: str
    ink: str
    quiet_ink: str
    grid: str
    note: str
    last_note: str
    bend: str
    style_lanes: tuple[str, ...]


LIGHT = Theme(
    background="#ffffff",
    panel="#f6f5f2",
    ink="#25221e",
    quiet_ink="#6d675f",
    grid="#e2dfd8",
    note="#b3401f",
    last_note="#7d2a6e",
    bend="#25221e",
    style_lanes=("#1c7c7d", "#7a4fb5", "#b07d12", "#3a6fb0"),
)
DARK = Theme(
    background="#1b1a1d",
    panel="#242327",
    ink="#ece8e1",
    quiet_ink="#a29c93",
    grid="#36343a",
    note="#ff9166",
    last_note="#de7fd0",
    bend="#ece8e1",
    style_lanes=("#4fc3c0", "#b798ec", "#e6b84f", "#7fb2ee"),
)


def example_picture(
    piece: Piece | Voice,
    rendering: np.ndarray,
    reference: np.ndarray | None,
    sample_rate: int,
    styles: Mapping[str, int],
    theme: Theme = LIGHT,
) -> bytes:
    """Draws one example: the spectrograms of reference and rendering, the piano roll and a lane for each style.

    All share one time axis; both spectrograms share one colour scale, from the reference's peak (the rendering's
    where there is no reference) to 75 dB below it.

    Args:
        piece: What was played.
        rendering: float `[m]`, full scale ±1.
        reference: float `[n]`, or None where there is none.
        sample_rate: Samples per second of both.
        styles: Style name -> control change number; each gets a lane.
        theme: Colours.

    Returns:
        A PNG file's bytes.
    """
    sounds = {"instrument": rendering} if reference is None else {"reference": reference, "instrument": rendering}
    seconds = max(len(samples) for samples in sounds.values()) / sample_rate
    heights = [1.9] * len(sounds) + [1.5] + [0.42] * len(styles)
    figure, panels = _stack(heights, seconds, theme)
    _draw_spectrograms(panels, sounds, sample_rate, theme)
    _draw_piece(panels[len(sounds) :], Piece.of(piece), styles, seconds, theme)
    return _png(figure)


def spectrogram_pair(reference: np.ndarray, rendering: np.ndarray, sample_rate: int, theme: Theme = LIGHT) -> bytes:
    """Draws the spectrograms of reference and rendering, one above the other, on one time axis and colour scale.

    Args:
        reference: float `[n]`, full scale ±1.
        rendering: float `[m]`.
        sample_rate: Samples per second of both.
        theme: Colours.

    Returns:
        A PNG file's bytes.
    """
    figure, panels = _stack([1.9, 1.9], max(len(reference), len(rendering)) / sample_rate, theme)
    _draw_spectrograms(panels, {"reference": reference, "instrument": rendering}, sample_rate, theme)
    return _png(figure)


def piano_roll(piece: Piece | Voice, styles: Mapping[str, int], seconds: float, theme: Theme = LIGHT) -> bytes:
    """Draws the notes of all voices, the stronger the louder, and a lane for each style.

    Args:
        piece: What was played.
        styles: Style name -> control change number; each gets a lane.
        seconds: Length of the time axis.
        theme: Colours.

    Returns:
        A PNG file's bytes.
    """
    figure, panels = _stack([1.5] + [0.42] * len(styles), seconds, theme)
    _draw_piece(panels, Piece.of(piece), styles, seconds, theme)
    return _png(figure)


def attacks(notes: Sequence[Attack], sample_rate: int, theme: Theme = LIGHT) -> bytes:
    """Draws how notes set in, the waveform of the recording above that of the instrument.

    Args:
        notes: At least one. Of these, six at most are drawn, spread over the pitches.
        sample_rate: Samples per second.
        theme: Colours.

    Returns:
        A PNG file's bytes.
    """
    from matplotlib.figure import Figure

    ordered = sorted(notes, key=lambda note: note.pitch)
    chosen = np.unique(np.round(np.linspace(0, len(ordered) - 1, _MOST_ATTACKS)).astype(int))
    n_rows = -(-len(chosen) // 2)
    figure = Figure(figsize=(_WIDTH, 1.55 * n_rows + 0.1), dpi=_DOTS_PER_INCH, facecolor=theme.background)
    panels = figure.subplots(n_rows, 2, squeeze=False).ravel()
    figure.subplots_adjust(0.02, 0.3 / (1.55 * n_rows), 0.98, 0.97, 0.05, 0.25)
    for panel in panels[len(chosen) :]:
        panel.set_visible(False)
    for panel, note in zip(panels, (ordered[index] for index in chosen)):
        milliseconds = 1e3 * (np.arange(len(note.recorded)) / sample_rate - LEAD_SECONDS)
        peak = max(float(np.abs(note.recorded).max()), float(np.abs(note.played).max()), 1e-9)
        for samples, place, colour in ((note.recorded, 1.1, theme.ink), (note.played, -1.1, theme.note)):
            panel.plot(milliseconds, place + samples / peak, color=colour, linewidth=0.9)
        panel.axvline(0.0, color=theme.quiet_ink, linewidth=0.8, linestyle=":")
        panel.set_facecolor(theme.panel)
        panel.set_xlim(milliseconds[0], milliseconds[-1])
        panel.set_ylim(-2.3, 2.5)
        panel.set_yticks([])
        panel.tick_params(length=3, pad=2, labelsize=8, colors=theme.quiet_ink)
        for edge in panel.spines.values():
            edge.set_visible(False)
        _label(panel, note_name(note.pitch), theme.ink)
    panels[len(chosen) - 1].set_xlabel("milliseconds from the onset", fontsize=8, color=theme.quiet_ink, labelpad=1)
    return _png(figure)


def take_picture(
    piece: Piece,
    samples: np.ndarray,
    sample_rate: int,
    styles: Mapping[str, int],
    marks: Sequence[tuple[float, float, float | None]],
    lateness: Mapping[str, np.ndarray],
    theme: Theme = LIGHT,
) -> bytes:
    """Draws a take: its waveform, its spectrogram, the notes with what is doubtful framed, and a lane for each style.

    If notes are heard at other times than annotated, that too.

    Args:
        piece: The annotation, times as in the sound.
        samples: float `[n]`, full scale ±1.
        sample_rate: Samples per second.
        styles: Style name -> control change number; each gets a lane.
        marks: Start (s), end (s) and MIDI note number (None for a stretch of time) of what is framed.
        lateness: Before correcting and after it, by what they are called: start of each note, and by how much later
            it is heard, `[n, 2]`, s; empty where nothing is corrected.
        theme: Colours.

    Returns:
        A PNG file's bytes.
    """
    seconds = len(samples) / sample_rate
    figure, panels = _stack([0.6, 1.9, 1.9] + [0.42] * len(styles) + [0.7] * bool(lateness), seconds, theme)
    wave, spectrogram, roll = panels[:3]
    edges = np.linspace(0, len(samples), 1600).astype(int)
    peaks = np.array([np.abs(samples[a:b]).max(initial=0.0) for a, b in zip(edges[:-1], edges[1:], strict=True)])
    wave.fill_between(edges[:-1] / sample_rate, -peaks, peaks, color=theme.quiet_ink, linewidth=0)
    wave.set_ylim(-1.05, 1.05)
    wave.set_yticks([])
    _label(wave, "recording", theme.ink)
    _draw_spectrograms([spectrogram], {"spectrogram": samples}, sample_rate, theme)
    _draw_piece([roll, *panels[3 : 3 + len(styles)]], piece, styles, seconds, theme)
    if lateness:
        _draw_lateness(panels[-1], lateness, theme)
    for start, end, pitch in marks:
        if pitch is None:
            roll.axvspan(start, end, color=theme.note, alpha=0.15, linewidth=0)
            continue
        low, high = roll.get_ylim()
        roll.set_ylim(min(low, pitch - 1.5), max(high, pitch + 1.5))
        width = max(end - start, 0.004 * seconds)
        roll.barh(pitch, width, 1.8, left=start, fill=False, edgecolor=theme.ink, linewidth=1.3)
    return _png(figure)


def note_name(pitch: float) -> str:
    """Returns what musicians call a MIDI note number, rounded: 60 is C4."""
    return f"{_NOTE_NAMES[round(pitch) % 12]}{round(pitch) // 12 - 1}"


def _stack(heights: list[float], seconds: float, theme: Theme) -> tuple[Figure, list[Axes]]:
    """Makes panels of the given heights (inches) below each other on one time axis."""
    from matplotlib.figure import Figure

    gap, top, bottom = 0.09, 0.08, 0.42
    total = sum(heights) + gap * (len(heights) - 1) + top + bottom
    figure = Figure(figsize=(_WIDTH, total), dpi=_DOTS_PER_INCH, facecolor=theme.background)
    panels, upper = [], total - top
    for height in heights:
        panel = figure.add_axes((TIME_LEFT, (upper - height) / total, TIME_RIGHT - TIME_LEFT, height / total))
        panel.set_facecolor(theme.panel)
        panel.set_xlim(0.0, max(seconds, 1e-3))
        panel.tick_params(length=0, labelsize=8, colors=theme.quiet_ink, labelbottom=False)
        for edge in panel.spines.values():
            edge.set_visible(False)
        panels.append(panel)
        upper -= height + gap
    panels[-1].tick_params(axis="x", labelbottom=True, length=3, pad=3)
    panels[-1].set_xlabel("seconds", fontsize=8, color=theme.quiet_ink, labelpad=1)
    return figure, panels


def _draw_spectrograms(panels: list[Axes], sounds: Mapping[str, np.ndarray], sample_rate: int, theme: Theme) -> None:
    """Draws each sound's mel spectrogram into its panel; the first sound's peak is the top of the colour scale."""
    import librosa

    levels = {name: metrics.mel_spectrogram(samples, sample_rate, _BANDS) for name, samples in sounds.items()}
    peak = max(float(next(iter(levels.values())).max()), metrics.QUIETEST_PEAK_DB)
    edges = librosa.hz_to_mel([0.0, sample_rate / 2])
    for panel, (name, level) in zip(panels, levels.items(), strict=False):
        panel.imshow(
            level,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=peak - _RANGE_DB,
            vmax=peak,
            extent=(0.0, len(sounds[name]) / sample_rate, *edges),
            interpolation="bilinear",
        )
        panel.set_facecolor("#000004")  # The scale's lowest colour: no sound beyond the end.
        panel.set_xlim(0.0, max(len(samples) for samples in sounds.values()) / sample_rate)
        panel.set_ylim(*edges)
        shown = [hertz for hertz in _LABELLED_HZ if hertz <= sample_rate / 2]
        panel.set_yticks(librosa.hz_to_mel(shown), [f"{h // 1000} kHz" if h >= 1000 else f"{h} Hz" for h in shown])
        _label(panel, name, "#ffffff")


def _draw_piece(panels: list[Axes], piece: Piece, styles: Mapping[str, int], seconds: float, theme: Theme) -> None:
    """Draws notes (and bent pitch) into the first panel and each style's control changes into the next ones."""
    roll, *lanes = panels
    pitches = piece.notes[:, 2] if len(piece.notes) else np.array([60.0])
    low, high = float(pitches.min()) - 2.0, float(pitches.max()) + 4.0  # Room for the name.
    roll.set_ylim(low, high)
    for voice, colour in zip(piece.voices, _voice_colours(len(piece.voices), theme), strict=True):
        for start, end, pitch, velocity in voice.notes:
            strength = 0.25 + 0.75 * velocity / _CONTROL_MAXIMUM
            roll.barh(pitch, end - start, 0.86, left=start, color=colour, alpha=strength, linewidth=0)
            roll.plot([start, start], [pitch - 0.43, pitch + 0.43], color=colour, linewidth=1.4)
        _draw_bends(roll, voice, theme)
    octaves = [pitch for pitch in range(int(np.ceil(low)), int(np.floor(high)) + 1) if pitch % 12 == 0]
    named = sorted({int(round(pitch)) for pitch in (*np.unique(pitches)[:: max(1, len(np.unique(pitches)) // 5)],)})
    ticks = named if len(named) + len(octaves) < 2 or high - low < 14 else octaves
    roll.set_yticks(ticks, [note_name(pitch) for pitch in ticks])
    roll.set_axisbelow(True)
    roll.grid(axis="y", color=theme.grid, linewidth=0.8)
    _label(roll, "notes", theme.ink)
    for index, (lane, (style, number)) in enumerate(zip(lanes, styles.items(), strict=True)):
        colour = theme.style_lanes[index % len(theme.style_lanes)]
        _draw_lane(lane, piece, style, number, seconds, colour, theme)


def _voice_colours(n_voices: int, theme: Theme) -> list[str]:
    """Returns a colour for each voice, evenly spaced from `theme.note` to `theme.last_note`."""
    from matplotlib.colors import to_hex, to_rgb

    first, last = np.array(to_rgb(theme.note)), np.array(to_rgb(theme.last_note))
    return [to_hex(first + (last - first) * index / max(n_voices - 1, 1)) for index in range(n_voices)]


def _draw_bends(roll: Axes, voice: Voice, theme: Theme) -> None:
    """Draws the bent pitch over each note that is bent."""
    times, semitones = voice.pitch_bends[:, 0], voice.pitch_bends[:, 1]
    for start, end, pitch, _ in voice.notes:
        inside = (times > start) & (times < end)
        at_start = in_force(times, start)
        first = semitones[at_start] if at_start >= 0 else 0.0
        if first or np.any(semitones[inside]):
            xs = np.concatenate([[start], times[inside], [end]])
            ys = np.concatenate([[first], semitones[inside]])
            roll.step(xs, pitch + np.append(ys, ys[-1]), where="post", color=theme.bend, linewidth=1.1)


def _draw_lane(lane: Axes, piece: Piece, style: str, number: int, seconds: float, colour: str, theme: Theme) -> None:
    """Draws one style's values, held from change to change; nothing before the first one.

    Voices whose changes differ have a line each.
    """
    lane.set_ylim(-0.06 * _CONTROL_MAXIMUM, 1.06 * _CONTROL_MAXIMUM)
    lane.set_yticks([0, _CONTROL_MAXIMUM])
    lane.tick_params(axis="y", labelsize=6.5)
    lines: list[np.ndarray] = []
    for voice in piece.voices:
        changes = voice.control_changes[voice.control_changes[:, 1] == number]
        if len(changes) and not any(np.array_equal(changes, line) for line in lines):
            lines.append(changes)
    label = f"{style.replace('_', ' ')} · CC{number}"
    for changes in lines:
        times = np.append(changes[:, 0], seconds)
        values = np.append(changes[:, 2], changes[-1, 2])
        shade = 0.3 / len(lines)
        lane.fill_between(times, values, -0.06 * _CONTROL_MAXIMUM, step="post", color=colour, alpha=shade, linewidth=0)
        lane.step(times, values, where="post", color=colour, linewidth=1.6)
    if not lines:
        label += " · not in the file"
    _label(lane, label, theme.ink)


def _draw_lateness(panel: Axes, lateness: Mapping[str, np.ndarray], theme: Theme) -> None:
    """Draws by how much later than annotated each note is heard, before and after it is corrected, a dot each."""
    for (name, late), colour in zip(lateness.items(), (theme.quiet_ink, theme.note), strict=True):
        panel.scatter(late[:, 0], 1e3 * late[:, 1], s=7.0, color=colour, linewidths=0, label=name)
    low, high = np.percentile(1e3 * np.concatenate([late[:, 1] for late in lateness.values()]), [1, 99])
    room = max(0.15 * (high - low), 5.0)
    panel.set_ylim(min(low, 0.0) - room, max(high, 0.0) + 4.0 * room)  # Room for the name.
    panel.set_ylabel("ms", fontsize=8, color=theme.quiet_ink)
    panel.set_axisbelow(True)
    panel.grid(axis="y", color=theme.grid, linewidth=0.8)
    panel.legend(
        loc="upper right", ncols=2, fontsize=7.5, frameon=False, labelcolor=theme.ink, borderpad=0.1, handletextpad=0.1
    )
    _label(panel, "heard later than annotated", theme.ink)


def _label(panel: Axes, text: str, colour: str) -> None:
    """Writes a panel's name into its upper left corner."""
    from matplotlib import patheffects

    height = panel.get_position().height * panel.figure.get_figheight()
    halo = "#000004" if colour == "#ffffff" else panel.get_facecolor()
    panel.text(
        0.008,
        1.0 - 0.06 / height,
        text,
        transform=panel.transAxes,
        va="top",
        fontsize=8.5,
        fontweight="bold",
        color=colour,
        path_effects=[patheffects.withStroke(linewidth=2.5, foreground=halo)],
    )


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # 256 colours are as many as the colour scale has, in a third of the bytes.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(
        256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    picture = io.BytesIO()
    image.save(picture, format="png", optimize=True)
    return picture.getvalue()
