"""From takes to examples in two steps that can be done anywhere: a take is read and kept on disk, a stretch is cut.

Both need nothing but the configuration, the takes, and a folder that all who work see: so one process does them one
after the other, or those of Apache Beam share them.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.data_prep import takes as takes_lib
from neural_midi_synth.data_prep.corrections import Corrections
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import resample
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.midi.pieces import Piece

from . import examples, windows
from .config import MidiAudioConfig

# What is recorded after a note belongs to it for this many seconds, as in the lineage.
TAIL_SECONDS = 0.2
# Shorter silences between notes are part of the playing; longer ones are skipped.
MAX_SILENCE_SECONDS = 2.0
_BLOCK_SAMPLES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Cutter:
    """Reads takes, and cuts examples from them.

    Attributes:
        config: How.
        takes: Which.
        scratch: Folder in which samples and pieces are kept meanwhile.
        picture_folder: Where the picture goes of a take that can't be aligned.
    """

    config: MidiAudioConfig
    takes: Sequence[takes_lib.Take]
    scratch: pathlib.Path
    picture_folder: pathlib.Path

    def read(self, number: int) -> None:
        """Reads a take, and keeps its sound, the moved copies, and what is played: memory holds one take at a time.

        Copies are made from the sound as it was recorded: lowered from sound at the data set's sample rate they would
        have nothing in the highest of their octaves. What is wrong with a take is kept, too, for `told`.

        Args:
            number: Of the take.
        """
        try:
            kept = self._read(number)
        except DataError as error:
            kept = error
        with write_aside(self.scratch / f"{number}.pickle") as aside:
            aside.write_bytes(pickle.dumps(kept))

    def told(self, number: int) -> tuple[Piece, int, Corrections]:
        """Returns what is played in a take that was read, how many samples it has, and what was corrected of it.

        Raises:
            DataError: What is wrong with the take; or it was not read after all.
        """
        path = self.scratch / f"{number}.pickle"
        if not path.exists():
            raise DataError(f"{self.takes[number].audio_path}: was not read by the workers. Choose another runner.")
        kept = pickle.loads(path.read_bytes())  # Of our own making.
        if isinstance(kept, DataError):
            raise kept
        return kept

    def keep_piece(self, number: int, piece: Piece) -> None:
        """Keeps what examples of a take are to have as annotation."""
        with write_aside(self.scratch / f"{number}.piece") as aside:
            aside.write_bytes(pickle.dumps(piece))

    def samples(self, stretch: windows.Stretch, shift: float = 0.0) -> np.ndarray:
        """Returns the samples of a stretch, or what is left of its copy between the same two moments."""
        first, last = _moved(stretch, shift)
        return np.load(self._path(stretch.take, shift), mmap_mode="r")[first:last]

    def regions(self, piece: Piece, n_samples: int) -> np.ndarray:
        """Returns where a piece is played, as `windows.playing_regions` does."""
        sample_rate = self.config.sample_rate
        return windows.playing_regions(piece.notes, n_samples, sample_rate, TAIL_SECONDS, MAX_SILENCE_SECONDS)

    def shifts(self, split: str) -> tuple[float, ...]:
        """Returns by how many semitones copies of a split's stretches are moved."""
        return (0.0, *self.config.pitch_shifts) if split == "train" else (0.0,)

    def examples(self, split: str, stretch: windows.Stretch, shift: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the examples of a stretch, with their keys.

        Args:
            split: That it is of.
            stretch: Part of a take whose piece was kept.
            shift: Semitones by which they are moved.
        """
        config = self.config
        samples, take = self.samples(stretch, shift), self.takes[stretch.take]
        seconds = _speed(shift) / config.sample_rate  # Of a sample, in the recording.
        first = _moved(stretch, shift)[0]
        piece, starts = self._windows(split, stretch, shift)
        for start in starts:
            end = start + config.window
            example = examples.audio_and_events(
                samples[start:end],
                piece.window(start / config.sample_rate, end / config.sample_rate),
                config.window,
            )
            example.update({"take": take.name, "start": (first + start) * seconds, "pitch_shift": shift})
            yield f"{take.name}@{stretch.start}+{start}" + (f" moved {shift:+g}" if shift else ""), example

    def count(self, split: str, stretch: windows.Stretch, shift: float) -> int:
        """Returns how many examples `examples` yields."""
        return len(self._windows(split, stretch, shift)[1])

    def _windows(self, split: str, stretch: windows.Stretch, shift: float) -> tuple[Piece, list[int]]:
        """Returns the piece of a stretch, moved, and where its examples begin."""
        config = self.config
        first, _ = _moved(stretch, shift)
        n_samples = len(self.samples(stretch, shift))
        piece = pickle.loads((self.scratch / f"{stretch.take}.piece").read_bytes())
        piece = examples.on_tape(piece, first * _speed(shift) / config.sample_rate, _speed(shift)).transpose(shift)
        if n_samples < min(config.window, stretch.end - stretch.start):
            return piece, []  # A copy that moving up has made shorter than a window.
        hop = config.hop if split == "train" else config.window
        return piece, windows.window_starts(self.regions(piece, n_samples), 0, n_samples, config.window, hop)

    def _read(self, number: int) -> tuple[Piece, int, Corrections]:
        config = self.config
        recorded, recorded_rate, piece = takes_lib.read_take(
            self.takes[number], config.voices, config.track, config.midi_channel, longest_excess=math.inf
        )
        corrections = Corrections(config.align, config.velocities, self.picture_folder)
        piece = corrections.align(self.takes[number], recorded, recorded_rate, piece)
        n_samples, gain = 0, 1.0
        for shift in (0.0, *config.pitch_shifts):
            samples = resample(recorded, recorded_rate * _speed(shift), config.sample_rate)
            if not shift:
                n_samples = len(samples)
                gain = 1.0 / peak_of(samples) if config.normalise else 1.0
            with write_aside(self._path(number, shift)) as aside:
                _save(aside, samples, gain)
        return piece, n_samples, corrections

    def _path(self, take: int, shift: float) -> pathlib.Path:
        return self.scratch / f"{take}_{shift:+g}.npy"


def peak_of(samples: np.ndarray) -> float:
    """Returns the highest magnitude, without a copy of the samples."""
    return float(max(samples.max(), -samples.min()))


def _save(path: pathlib.Path, samples: np.ndarray, gain: float) -> None:
    """Saves samples times a factor, a block at a time."""
    saved = np.lib.format.open_memmap(path, "w+", np.float32, samples.shape)
    for start in range(0, len(samples), _BLOCK_SAMPLES):
        block = slice(start, start + _BLOCK_SAMPLES)
        saved[block] = samples[block] * np.float32(gain)


def _speed(shift: float) -> float:
    """Returns how many times as fast a copy is that is so many semitones higher."""
    return 2.0 ** (shift / 12.0)


def _moved(stretch: windows.Stretch, shift: float) -> tuple[int, int]:
    """Returns the first sample of a stretch in a copy of its take, and the one after its last."""
    return math.ceil(stretch.start / _speed(shift)), math.floor(stretch.end / _speed(shift))
