"""The page of an inspection: what was found of each take, to look at and to listen to."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_midi_synth.data_prep.alignment import Alignment, apply
from neural_midi_synth.data_prep.inspection import InspectedTake, Inspection
from neural_midi_synth.data_prep.onsets import SAMPLE_RATE, hertz
from neural_midi_synth.data_prep.takes import read_take
from neural_midi_synth.evaluation.page import embedded, fill
from neural_midi_synth.evaluation.pictures import take_picture
from neural_midi_synth.files.audio import resample
from neural_midi_synth.midi.pieces import Piece

if TYPE_CHECKING:
    from neural_midi_synth.data_prep.midi_audio import MidiAudioConfig

_MOST_SECONDS = 900.0
"""Of sound and pictures on a page, all takes together: it must be small enough to be sent by mail."""
_MOST_LISTED = 40
_TONE, _FADE = 0.12, 0.008  # Full scale; s
_COMPRESSION = 0.75  # Of libsndfile, from 0 to 1: 40 kbit/s here.


def page(
    title: str,
    inspection: Inspection,
    styles: Mapping[str, int],
    config: MidiAudioConfig,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> str:
    """Builds the page.

    Args:
        title: What the takes are called.
        inspection: What was found.
        styles: Style name → control change number; each gets a lane.
        config: As they were inspected with.
        progress: Is told how many takes are drawn, and how many there are.

    Returns:
        HTML with everything in it: pictures as PNG, sounds as MP3.
    """
    left, takes = _MOST_SECONDS, []
    for i, take in enumerate(inspection.takes, start=1):
        shown = min(take.seconds, left)
        takes.append(_take(take, shown, styles, config))
        left -= shown
        progress(i, len(inspection.takes))
    coverage = inspection.coverage
    n_faults = sum(len(take.faults) for take in inspection.takes)
    tiles = [
        ("Sound", f"{coverage.minutes:.1f} min", "under notes"),
        ("Notes", str(coverage.notes), f"{len(coverage.pitches)} pitches"),
        ("Takes", str(len(takes)), f"{sum(take.is_critical for take in inspection.takes)} can't be used"),
        ("Faults", str(n_faults), "listed with each take"),
    ]
    return fill("inspection.html", title=title, inspection=inspection, tiles=tiles, takes=takes)


def _take(take: InspectedTake, shown: float, styles: Mapping[str, int], config: MidiAudioConfig) -> dict[str, Any]:
    """Returns what the template has to know of a take."""
    found = take.alignment and take.alignment.limited_to("off" if take.is_critical else config.align)
    corrected = found.told() if found is not None else ""
    facts = {
        "name": take.name,
        "seconds": max(shown, 1e-3),
        "cells": _cells(take),
        "corrected": f"{corrected[0].upper()}{corrected[1:]}. Training corrects that." if corrected else "",
        "faults": [
            {**dataclasses.asdict(fault), "heard": float(found.heard(np.float64(fault.start))) if found else 0.0}
            for fault in take.faults[:_MOST_LISTED]
        ],
        "more": f"And {len(take.faults) - _MOST_LISTED} more." if len(take.faults) > _MOST_LISTED else "",
        "sound": "",
        "picture": "",
    }
    if found is None or take.piece is None or shown < 1.0:
        return facts
    recorded, rate, _ = read_take(take.take, config.voices, config.track, config.midi_channel, longest_excess=np.inf)
    samples = resample(recorded, rate, SAMPLE_RATE)[: round(shown * SAMPLE_RATE)]
    piece = apply(take.piece, found)
    marks = [
        (float(found.heard(np.float64(fault.start))), float(found.heard(np.float64(fault.end))), fault.pitch)
        for fault in take.faults
        if fault.pitch is not None and fault.start < shown
    ]
    lateness = _lateness(take.piece, take.alignment, found) if corrected else {}
    picture = take_picture(piece.window(0.0, shown), samples, SAMPLE_RATE, _lanes(take.piece, styles), marks, lateness)
    facts["picture"] = embedded("image/png", picture)
    facts["sound"] = embedded("audio/mpeg", _in_two_ears(samples, piece))
    return facts


def _lateness(piece: Piece, measured: Alignment, corrected: Alignment) -> dict[str, np.ndarray]:
    """Returns how much later than annotated each note is heard, before and after training corrects it: `[n, 2]`, s."""
    starts = piece.notes[measured.is_sure, 0]
    moved = corrected.heard(starts) - starts + corrected.moves[measured.is_sure]
    late = measured.heard(starts) - starts + measured.residuals[measured.is_sure]
    before, after = "as annotated", "as trained on"
    return {name: np.column_stack([starts + moved, each]) for name, each in ((before, late), (after, late - moved))}


def _cells(take: InspectedTake) -> list[str]:
    found = take.alignment
    length = f"{take.seconds:.0f} s" if take.seconds else "–"
    if found is None:
        return [length, "–", "–", "–", "–", str(len(take.faults))]
    offset = f"{1e3 * found.offset:.0f} ms" if found.offset else "0"
    drift = f"{found.drift:.2%}" if found.drift else "0"
    told = "from the sound" if take.velocities == "from_audio" else "annotated"
    return [length, offset, drift, f"{found.confidence:.0%}", told, str(len(take.faults))]


def _lanes(piece: Piece, styles: Mapping[str, int]) -> dict[str, int]:
    """Returns the styles that the annotation has, or all where it has none."""
    used = {int(number) for voice in piece.voices for number in np.unique(voice.control_changes[:, 1])}
    return {name: number for name, number in styles.items() if number in used} or dict(styles)


def _in_two_ears(samples: np.ndarray, piece: Piece) -> bytes:
    """Returns an MP3 with the recording on the left and the annotation as sines on the right."""
    import soundfile

    tone = np.zeros(len(samples), np.float32)
    fade = np.linspace(0.0, 1.0, round(_FADE * SAMPLE_RATE), dtype=np.float32)
    for start, end, pitch, velocity in piece.notes:
        first, last = (int(np.clip(round(time * SAMPLE_RATE), 0, len(samples))) for time in (start, end))
        if last - first <= 2 * len(fade):
            continue
        time = np.arange(last - first, dtype=np.float32) / SAMPLE_RATE
        note = np.sin(np.float32(2.0 * np.pi * hertz(pitch)) * time) * np.float32(_TONE * (0.3 + velocity / 127.0))
        note[: len(fade)] *= fade
        note[-len(fade) :] *= fade[::-1]
        tone[first:last] += note
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-9)
    both = np.column_stack([samples * np.float32(min(0.9 / peak, 8.0)), np.clip(tone, -1.0, 1.0)])
    file = io.BytesIO()
    soundfile.write(file, both, SAMPLE_RATE, format="MP3", compression_level=_COMPRESSION)
    return file.getvalue()
