"""What is corrected of takes before they become examples: when their notes are played, and how hard."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.data_prep import alignment, velocities
from neural_midi_synth.data_prep.takes import LONGEST_EXCESS, Take, check_length
from neural_midi_synth.data_prep.velocities import Attacks
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.pieces import Piece

ALIGN = ("notes", "take", "off")
"""Offset, drift and single notes are corrected; or offset and drift; or nothing."""
VELOCITIES = ("auto", "annotated", "from_audio")
"""Velocities are the annotation's, or told from the sound; `auto` takes those that carry information."""
VERSION = 1
"""Rises when takes come to be corrected otherwise, so that data sets are built again."""


class Corrections:
    """Corrects the takes of a data set one after the other, then the velocities of all, and keeps what was done.

    Args:
        align: One of `ALIGN`.
        from_where: One of `VELOCITIES`.
        picture_folder: Where the picture goes of a take that can't be aligned; it is made if it is not there.
    """

    def __init__(self, align: str, from_where: str, picture_folder: pathlib.Path) -> None:
        self._align = align
        self._velocities = from_where
        self._picture_folder = picture_folder
        self._attacks: list[Attacks] = []
        self._facts: dict[str, Any] = {"alignments": {}, "velocities": "annotated"}

    def align(self, take: Take, samples: np.ndarray, sample_rate: int, piece: Piece) -> Piece:
        """Moves the annotation of a take to where it is heard.

        Args:
            take: Which take it is.
            samples: float32 `[n]`, mono.
            sample_rate: Samples per second.
            piece: Its annotation.

        Returns:
            The annotation as it is trained on, but for its velocities.

        Raises:
            DataError: It does not fit the recording, or ends after it.
        """
        duration = len(samples) / sample_rate
        if self._align != "off":
            most = alignment.MAX_OFFSET + alignment.MAX_DRIFT * duration
            check_length(take, piece, duration, LONGEST_EXCESS + most)
            found = alignment.align(samples, sample_rate, piece)
            if found.confidence < alignment.LEAST_CONFIDENCE:
                raise DataError(self._refusal(take, samples, sample_rate, piece, found))
            found = found.limited_to(self._align)
            piece = alignment.apply(piece, found)
            if told := found.told():
                self._facts["alignments"][take.name] = {
                    "told": told,
                    "offset": found.offset,
                    "drift": found.drift,
                    "notes_moved": int(np.count_nonzero(found.moves)),
                    "scatter": found.scatter,
                    "confidence": found.confidence,
                }
        check_length(take, piece, duration)
        if self._velocities != "annotated":
            self._attacks.append(velocities.measure(samples, sample_rate, piece))
        return piece

    def join(self, others: Corrections) -> None:
        """Adds what others have done to takes that come after these."""
        self._attacks += others._attacks
        self._facts["alignments"].update(others._facts["alignments"])

    def with_velocities(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Returns the annotations of all takes, in the order they were aligned in, with the velocities trained on."""
        if self._velocities == "annotated" or not any(len(attacks.levels) for attacks in self._attacks):
            return list(pieces)
        if self._velocities == "auto" and velocities.carry_information(self._attacks):
            return list(pieces)
        annotated = np.concatenate([attacks.velocities for attacks in self._attacks])
        louder = np.concatenate(velocities.loudness(self._attacks))
        self._facts["velocities"] = "from_audio"
        self._facts["annotated_velocities"] = [float(annotated.min()), float(annotated.max())]
        self._facts["rank_correlation"] = velocities.correlation(annotated, louder)
        inferred = velocities.infer(self._attacks)
        return [velocities.apply(piece, each) for piece, each in zip(pieces, inferred, strict=True)]

    def facts(self) -> dict[str, Any]:
        """Returns what was corrected, for the metadata of the data set: `told` reads it."""
        return self._facts

    def _refusal(
        self, take: Take, samples: np.ndarray, sample_rate: int, piece: Piece, found: alignment.Alignment
    ) -> str:
        """Draws the picture of a take that does not fit its annotation, and says so in a sentence."""
        from neural_midi_synth.data_prep import alignment_pictures

        path = self._picture_folder / f"{take.name}_alignment.png"
        picture = alignment_pictures.picture(samples, sample_rate, piece, found)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            shown = f" {path} shows the two."
        except OSError:  # The sentence is what matters.
            shown = ""
        return (
            f"{take.midi_path}: only {found.confidence:.0%} of its notes are to be heard in {take.audio_path.name}, "
            f"even if all are moved by up to {alignment.MAX_OFFSET:g} s.{shown} Check that the two belong together; if "
            "they do, train with --align off."
        )


def told(metadata: Mapping[str, Any]) -> list[str]:
    """Returns a line on each correction that a data set was made with.

    Args:
        metadata: Of the data set.
    """
    facts = metadata.get("corrections") or {}
    lines = [
        f"{name}: {each['told']}: corrected (--align off leaves it)."
        for name, each in facts.get("alignments", {}).items()
    ]
    if facts.get("velocities") == "from_audio":
        lowest, highest = facts["annotated_velocities"]
        why = f"have a rank correlation of {facts['rank_correlation']:.2f} with it"
        why = f"those annotated {why if lowest < highest else f'are all {lowest:.0f}'}"
        lines.append(f"Velocities are told from the sound: {why} (--velocities annotated keeps them).")
    return lines
