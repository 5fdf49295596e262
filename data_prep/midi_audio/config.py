"""How takes become examples: the configuration of the data set."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from neural_midi_synth.data_prep import corrections
from neural_midi_synth.errors import DataError

DEMO_GUITAR = pathlib.Path(__file__).resolve().parents[1] / "demo_guitar"
"""The takes that come with the package."""


@dataclasses.dataclass(eq=False)
class MidiAudioConfig(tfds.core.BuilderConfig):
    """How takes become examples.

    Attributes:
        source_dir: Folder of recordings and MIDI files or Reaper projects, or one project; None for the demo guitar.
            `--manual_dir` goes before it.
        sample_rate: Hz.
        window_seconds: Length of an example.
        hop_seconds: From one training example to the next. Held-out examples don't overlap.
        voices: The most voices that a take may have. With 1, polyphonic takes are refused.
        track: Number (from 1) or name of the track that annotates the recordings, where their MIDI files have several
            tracks with notes.
        midi_channel: The MIDI channel (1 to 16) that annotates the recordings, likewise.
        audio_track: Number (from 1) or name of the track of Reaper projects that has the recordings, where several do.
        midi_track: Number or name of the track of Reaper projects that annotates them, where several have notes.
        align: `notes` moves annotations to where they are heard, single notes too; `take` corrects an offset and a
            drift of each take only; `off` trains on them as they are. See `alignment`.
        velocities: `auto` tells velocities from the sound where those annotated carry no information, `from_audio`
            always, `annotated` never. See `velocities`.
        pitch_shifts: Semitones by which copies of the training examples are moved, sound and annotation alike. They are
            made by resampling, which is free of artefacts: a copy that is a semitone higher is 6 % faster too, in its
            sound and in its annotation, as a tape would be. A phase vocoder would keep the tempo but blur every attack,
            and the instrument would learn that.
        validation_fraction: Share of the time, 0..1, held out to watch the training.
        test_fraction: Share of the time held out for the evaluation.
        normalise: Scale every take so that its highest peak is 1. Levels then differ between takes played alike.
    """

    source_dir: str | os.PathLike | None = None
    sample_rate: int = 16000
    window_seconds: float = 4.0
    hop_seconds: float = 1.0
    voices: int = 1
    track: int | str | None = None
    midi_channel: int | None = None
    audio_track: int | str | None = None
    midi_track: int | str | None = None
    align: str = "notes"
    velocities: str = "auto"
    pitch_shifts: Sequence[float] = ()
    validation_fraction: float = 0.05
    test_fraction: float = 0.05
    normalise: bool = False

    def __post_init__(self) -> None:
        self.pitch_shifts = tuple(float(shift) for shift in self.pitch_shifts)

    def check(self) -> None:
        """Raises DataError if no data set can be made like this.

        Not done when it is made, since gin would add to the message where that was.
        """
        if self.sample_rate < 1 or self.window < 1 or self.hop < 1:
            raise DataError("sample_rate, window_seconds and hop_seconds of a data set must be above 0.")
        if self.hop > self.window:
            raise DataError(
                "hop_seconds of a data set must not be longer than window_seconds: music would be left out."
            )
        if self.voices != int(self.voices) or self.voices < 1:
            raise DataError(f"voices of a data set must be a whole number from 1, not {self.voices!r}.")
        for name, value, choices in (
            ("align", self.align, corrections.ALIGN),
            ("velocities", self.velocities, corrections.VELOCITIES),
        ):
            if value not in choices:
                raise DataError(f"{name} of a data set must be one of {', '.join(choices)}, not {value!r}.")
        held_out = (self.validation_fraction, self.test_fraction)
        if min(held_out) < 0 or sum(held_out) > 0.8:
            raise DataError("validation_fraction and test_fraction must not be below 0, nor 0.8 together.")
        if len(set(self.pitch_shifts) - {0.0}) != len(self.pitch_shifts) or any(abs(s) > 24 for s in self.pitch_shifts):
            raise DataError("pitch_shifts must be different numbers of semitones from -24 to 24, without 0.")

    @property
    def window(self) -> int:
        """Samples in an example."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def hop(self) -> int:
        """Samples from one training example to the next."""
        return round(self.hop_seconds * self.sample_rate)

    def facts(self) -> dict[str, Any]:
        """Returns all that makes a difference to the examples of given takes."""
        own = {field.name for field in dataclasses.fields(MidiAudioConfig)}
        own -= {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        facts = {name: getattr(self, name) for name in sorted(own - {"source_dir"})}
        return {**facts, "corrections": corrections.VERSION}
