"""What takes have in them, and what to record next: pitches, velocities, lengths and styles together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.data_prep.played_notes import styles_of
from neural_midi_synth.evaluation.pictures import note_name
from neural_midi_synth.midi.pieces import Piece

FEW_MINUTES = 3.0
"""Instruments of less sound than this are poor."""
FEWEST_NOTES = 3
"""What is played less often is not learnt."""

_LENGTHS = (("short", 0.0, 0.25), ("long", 0.8, np.inf))
_LOUDNESSES = (("soft", 0.0, 55.0), ("loud", 90.0, 128.0))
_REGISTERS = 3
_MOST_ADVICE = 6


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What takes have in them.

    Attributes:
        minutes: In which at least one note lasts.
        notes: How many.
        pitches: MIDI note number → how many notes of it.
        lowest: MIDI note number.
        highest: MIDI note number.
        missing: MIDI note numbers between the two that are hardly played.
        cells: For each combination of style, register, loudness and length that was looked for, how many notes it has.
        advice: What to record next, the most important first.
    """

    minutes: float
    notes: int
    pitches: dict[int, int]
    lowest: int
    highest: int
    missing: list[int]
    cells: list[dict[str, Any]]
    advice: list[str]

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return dataclasses.asdict(self)


def cover(pieces: Sequence[Piece], styles: Mapping[str, int]) -> Coverage:
    """Counts what takes have in them.

    Args:
        pieces: The annotation of each take, as it is trained on.
        styles: Style name → control change number.
    """
    voices = [voice for piece in pieces for voice in piece.voices]
    notes = np.concatenate([voice.notes for voice in voices]) if voices else np.zeros([0, 4])
    if not len(notes):
        return Coverage(0.0, 0, {}, 0, 0, [], [], [])
    pitches = np.round(notes[:, 2]).astype(int)
    counts = {int(pitch): int(n) for pitch, n in zip(*np.unique(pitches, return_counts=True), strict=True)}
    lowest, highest = int(pitches.min()), int(pitches.max())
    missing = [pitch for pitch in range(lowest, highest + 1) if counts.get(pitch, 0) < FEWEST_NOTES]
    minutes = sum(_seconds_under_notes(piece) for piece in pieces) / 60.0
    high = np.concatenate([styles_of(voice, list(styles.values())) for voice in voices])
    cells = _cells(notes, pitches, dict(zip(styles, high.T, strict=True)))
    advice = _advice(minutes, missing, cells, lowest, highest)
    return Coverage(minutes, len(notes), counts, lowest, highest, missing, cells, advice)


def _seconds_under_notes(piece: Piece) -> float:
    """Returns how long at least one note lasts."""
    if not len(piece.notes):
        return 0.0
    starts, ends = piece.notes[:, 0], np.maximum.accumulate(piece.notes[:, 1])
    before = np.append(starts[0], ends[:-1])
    return float(np.sum(ends - np.maximum(starts, before)))


def _cells(notes: np.ndarray, pitches: np.ndarray, styles: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Counts the notes of each style, high and low, in each register, soft and loud, short and long.

    Args:
        notes: `[n, 4]`.
        pitches: `[n]` int.
        styles: Style name → whether it is above its middle, bool `[n]`.
    """
    ways = {
        f"{name} {'high' if value else 'low'}": high == value
        for name, high in styles.items()
        for value in (True, False)
        if 0.02 < high.mean() < 0.98
    } or {"": np.ones(len(pitches), bool)}
    edges = np.linspace(pitches.min(), pitches.max() + 1, _REGISTERS + 1).round().astype(int)
    lengths = notes[:, 1] - notes[:, 0]
    cells = []
    for way, of_way in ways.items():
        for low, end in zip(edges[:-1], edges[1:], strict=True):
            of_register = of_way & (pitches >= low) & (pitches < end)
            for what, low_value, high_value, values in (
                *((name, least, most, notes[:, 3]) for name, least, most in _LOUDNESSES),
                *((name, least, most, lengths) for name, least, most in _LENGTHS),
            ):
                n = int(np.sum(of_register & (values >= low_value) & (values < high_value)))
                cells.append({"style": way, "low": int(low), "high": int(end - 1), "what": what, "notes": n})
    return cells


def _advice(
    minutes: float, missing: Sequence[int], cells: Sequence[Mapping[str, Any]], lowest: int, highest: int
) -> list[str]:
    advice = []
    if minutes < FEW_MINUTES:
        advice.append(f"{minutes:.1f} minutes of notes are few; ten make a good instrument.")
    if missing:
        names = ", ".join(note_name(pitch) for pitch in missing[:8]) + (" and others" if len(missing) > 8 else "")
        advice.append(f"Hardly played between {note_name(lowest)} and {note_name(highest)}: {names}.")
    for cell in sorted(cells, key=lambda cell: cell["notes"]):
        if cell["notes"] >= FEWEST_NOTES:
            break
        how_many = "No" if not cell["notes"] else f"Only {cell['notes']}"
        style = f" with {cell['style'].replace('_', ' ')}" if cell["style"] else ""
        notes = f"{cell['what']} note{'s' * (cell['notes'] != 1)}"
        advice.append(f"{how_many} {notes}{style} from {note_name(cell['low'])} to {note_name(cell['high'])}.")
    return advice[:_MOST_ADVICE]
