"""The notes of a take and what is known of each: when it is heard, how it is bent, which styles it is played with."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from neural_midi_synth.data_prep.alignment import Alignment
from neural_midi_synth.midi.pieces import Piece, Voice, in_force

_BEFORE = 0.02  # s: so early a note may be and still belong to the beginning of the recording.
_SURE_ONSET = 0.4  # From this sureness of the alignment on, the sound tells when a note sets in.


@dataclasses.dataclass(frozen=True, eq=False)
class PlayedNotes:
    """The notes of a take in the order of `Piece.notes`, with what is known of them.

    Notes that would be heard before the recording begins are not there.

    Attributes:
        notes: `[n, 4]` as those of a voice.
        starts: `[n]`: when they are to be heard by the alignment, single notes not moved, s of the recording.
        sure: `[n]` bool: whether the sound tells when they set in.
        off_by: `[n]`: how much later than at `starts` they set in, s; 0 where that is not sure.
        ends: `[n]`: when they end, s of the recording.
        pitches: `[n]`: as bent soon after the onset.
        styles: `[n, m]` bool: whether each control change that the take has is above its middle.
    """

    notes: np.ndarray
    starts: np.ndarray
    sure: np.ndarray
    off_by: np.ndarray
    ends: np.ndarray
    pitches: np.ndarray
    styles: np.ndarray

    @property
    def onsets(self) -> np.ndarray:
        """When they set in, `[n]`, s of the recording."""
        return self.starts + self.off_by


def played_notes(piece: Piece, alignment: Alignment) -> PlayedNotes:
    """Gathers what is known of the notes of a take.

    Args:
        piece: The annotation, as it is.
        alignment: Where it lies in the recording.
    """
    numbers = np.unique(np.concatenate([voice.control_changes[:, 1] for voice in piece.voices]))
    notes = np.concatenate([voice.notes for voice in piece.voices])
    order = np.argsort(notes[:, 0], kind="stable")
    pitches = np.concatenate([voice.notes[:, 2] + _bends(voice) for voice in piece.voices])[order]
    styles = np.concatenate([styles_of(voice, numbers) for voice in piece.voices])[order]
    notes = notes[order]
    starts, ends = alignment.heard(notes[:, 0]), alignment.heard(notes[:, 1])
    sure = alignment.sureness > _SURE_ONSET
    off_by = np.where(sure, alignment.residuals, 0.0)
    ends = np.maximum(ends, starts + off_by + 0.02)
    inside = starts > -_BEFORE
    return PlayedNotes(*(each[inside] for each in (notes, starts, sure, off_by, ends, pitches, styles)))


def _bends(voice: Voice) -> np.ndarray:
    """Returns the bend in force a moment after the onset of each note, semitones."""
    starts, ends = voice.notes[:, 0], voice.notes[:, 1]
    held = in_force(voice.pitch_bends[:, 0], np.minimum(starts + 0.15, 0.5 * (starts + ends)))
    return np.where(held >= 0, np.append(voice.pitch_bends[:, 1], 0.0)[held], 0.0)


def styles_of(voice: Voice, numbers: npt.ArrayLike) -> np.ndarray:
    """Returns whether control changes are above their middle at the onsets of a voice's notes.

    Args:
        voice: n notes and their control changes.
        numbers: m controller numbers.

    Returns:
        bool `[n, m]`.
    """
    numbers = np.asarray(numbers)
    high = np.zeros([len(voice.notes), len(numbers)], bool)
    for column, number in enumerate(numbers):
        changes = voice.control_changes[voice.control_changes[:, 1] == number]
        held = in_force(changes[:, 0], voice.notes[:, 0] + 1e-3)
        high[:, column] = np.where(held >= 0, np.append(changes[:, 2], 0.0)[held], 0.0) >= 64.0
    return high
