"""The notes of a take and what is known of each: when it is heard, how it is bent, which styles it is played with."""

from __future__ import annotations

import dataclasses

import numpy as np

from neural_midi_synth.data_prep.alignment import Alignment
from neural_midi_synth.midi.pieces import Piece, Voice, in_force

SURE_ONSET = 0.4
"""From this sureness of the alignment on, the sound tells when a note sets in."""


@dataclasses.dataclass(frozen=True, eq=False)
class PlayedNotes:
    """The notes of a take in the order of `Piece.notes`, with what is known of them.

    Attributes:
        notes: `[n, 4]` as those of a voice.
        starts: `[n]`: when they are to be heard by the alignment, single notes not moved, s of the recording.
        onsets: `[n]`: when they set in; as `starts` where the sound does not tell.
        ends: `[n]`: when they end, s of the recording.
        pitches: `[n]`: as bent soon after the onset.
        styles: `[n, m]` bool: whether each control change that the take has is above its middle.
        voices: `[n]` int: which voice plays it.
    """

    notes: np.ndarray
    starts: np.ndarray
    onsets: np.ndarray
    ends: np.ndarray
    pitches: np.ndarray
    styles: np.ndarray
    voices: np.ndarray


def played_notes(piece: Piece, alignment: Alignment) -> PlayedNotes:
    """Gathers what is known of the notes of a take."""
    numbers = np.unique(np.concatenate([voice.control_changes[:, 1] for voice in piece.voices]))
    notes = np.concatenate([voice.notes for voice in piece.voices])
    order = np.argsort(notes[:, 0], kind="stable")
    pitches = np.concatenate([voice.notes[:, 2] + _bends(voice) for voice in piece.voices])[order]
    styles = np.concatenate([_styles(voice, numbers) for voice in piece.voices])[order]
    voices = np.repeat(np.arange(len(piece.voices)), [len(voice.notes) for voice in piece.voices])[order]
    notes = notes[order]
    starts, ends = alignment.heard(notes[:, 0]), alignment.heard(notes[:, 1])
    onsets = starts + np.where(alignment.sureness > SURE_ONSET, alignment.residuals, 0.0)
    return PlayedNotes(notes, starts, onsets, np.maximum(ends, onsets + 0.02), pitches, styles, voices)


def _bends(voice: Voice) -> np.ndarray:
    """Returns the bend in force a moment after the onset of each note, semitones."""
    starts, ends = voice.notes[:, 0], voice.notes[:, 1]
    held = in_force(voice.pitch_bends[:, 0], np.minimum(starts + 0.15, 0.5 * (starts + ends)))
    return np.where(held >= 0, np.append(voice.pitch_bends[:, 1], 0.0)[held], 0.0)


def _styles(voice: Voice, numbers: np.ndarray) -> np.ndarray:
    """Returns for each note whether each control change is above its middle."""
    high = np.zeros([len(voice.notes), len(numbers)], bool)
    for column, number in enumerate(numbers):
        changes = voice.control_changes[voice.control_changes[:, 1] == number]
        held = in_force(changes[:, 0], voice.notes[:, 0] + 1e-3)
        high[:, column] = np.where(held >= 0, np.append(changes[:, 2], 0.0)[held], 0.0) >= 64.0
    return high
