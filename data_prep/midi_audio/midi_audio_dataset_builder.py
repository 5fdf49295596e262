"""The TFDS builder: windows of recordings with the notes and controls in them.

`tfds build data_prep/midi_audio` builds the demo guitar, `--manual_dir=my_takes` a folder of one's own, and
`--config='{"name": "shifted", "pitch_shifts": [-2, -1, 1, 2]}'` another configuration. Training calls `build`.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import app
from tqdm.auto import tqdm

from neural_midi_synth.data_prep import takes as takes_lib
from neural_midi_synth.data_prep.corrections import Corrections
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import resample
from neural_midi_synth.midi.pieces import Piece

from . import examples, windows
from .config import DEMO_GUITAR, MidiAudioConfig

# What is recorded after a note belongs to it for this many seconds, as in the lineage.
TAIL_SECONDS = 0.2
# Shorter silences between notes are part of the playing; longer ones are skipped.
MAX_SILENCE_SECONDS = 2.0
_BLOCK_SAMPLES = 1 << 20


class MidiAudio(tfds.core.GeneratorBasedBuilder):
    """Windows of takes: the sound, and the notes and controls in it, times relative to the window's start.

    The splits `train`, `validation` and `test` are stretches of time cut before anything else is done to the takes.
    The metadata tell of what the data set is made: `fingerprint`, `sample_rate`, `takes` (names), `voices` (the most
    that a take has), `stretches` of each split, and of the train split `peak` (the highest sample) and `shortest` (the
    recorded samples of its shortest example), and `corrections` (what was corrected of the annotations).
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {
        "2.0.0": "Several voices; examples tell how much of them is recorded; copies that are moved keep their treble.",
        "1.0.0": "First release.",
    }
    BUILDER_CONFIGS = [MidiAudioConfig(name="default", description="4 s at 16 kHz, 1 s apart in training.")]

    def _info(self) -> tfds.core.DatasetInfo:
        self.builder_config.check()
        return tfds.core.DatasetInfo(
            builder=self,
            description="Windows of recordings with the notes, control changes and pitch bends in them.",
            features=examples.features(self.builder_config.window),
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(
        self,
        *,
        download_dir: os.PathLike | str | None = None,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Builds the data set; nothing is downloaded. It is there as a whole at the end, or not at all.

        Args:
            download_dir: Not used.
            download_config: Its `manual_dir` is the folder of takes or a Reaper project, before `source_dir` of the
                configuration.
            **kwargs: As in `tfds.core.DatasetBuilder`.

        Raises:
            DataError: Takes can't be used, or the data set is there already but made from other ones.
        """
        if "tensorflow_datasets.scripts.cli.build" in sys.modules:  # The command `tfds build`, an absl app.
            app.install_exception_handler(_OneLineError())
        download_config = download_config or tfds.download.DownloadConfig()
        mode = download_config.download_mode
        given = download_config.manual_dir or self.builder_config.source_dir
        if self.data_path.exists() and not mode.overwrite_dataset:
            if given and mode == tfds.download.GenerateMode.REUSE_DATASET_IF_EXISTS:
                self._check_same_takes(given)
            super().download_and_prepare(download_dir=download_dir, download_config=download_config, **kwargs)
            return
        self._source = pathlib.Path(given or DEMO_GUITAR)
        self._takes = self._find_takes(self._source)
        config = download_config.replace(try_download_gcs=False)
        with _nothing_left_behind(self.data_path), _own_progress_bar() as self._show_progress:
            with tempfile.TemporaryDirectory(prefix=".takes_", dir=self.data_dir_root) as scratch:
                self._scratch = pathlib.Path(scratch)
                super().download_and_prepare(download_dir=scratch, download_config=config, **kwargs)

    def _find_takes(self, source: str | os.PathLike) -> list[takes_lib.Take]:
        return takes_lib.find_takes(source, self.builder_config.audio_track, self.builder_config.midi_track)

    def _check_same_takes(self, folder: str | os.PathLike) -> None:
        found = takes_lib.fingerprint(self._find_takes(folder), self.builder_config.facts())
        if (self.info.metadata or {}).get("fingerprint") != found:
            raise DataError(
                f"{self.data_dir}: was built from other takes than those in {folder}. Build with --overwrite, "
                "choose another --data_dir, or give the configuration another name."
            )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # Nothing is downloaded.
        config = self.builder_config
        self._corrections = Corrections(config.align, config.velocities, pathlib.Path(self.data_dir_root))
        self._pieces: list[Piece] = []
        lengths, regions = [], []
        with tqdm(self._takes, "Reading takes", unit=" takes", disable=not self._show_progress) as progress:
            for i, take in enumerate(progress):
                progress.set_postfix_str(take.name)
                piece, n_samples = self._read(i)
                self._pieces.append(piece)
                lengths.append(n_samples)
                regions.append(self._regions(piece, n_samples))
        self._pieces = self._corrections.with_velocities(self._pieces)
        fractions = {"validation": config.validation_fraction, "test": config.test_fraction}
        try:
            stretches = windows.split_stretches(lengths, regions, config.window, fractions)
        except DataError as error:
            raise DataError(f"{self._source}: {error}") from error
        self.info.metadata.update(self._facts(stretches, regions))
        return {split: self._generate_examples(split, of_split) for split, of_split in stretches.items()}

    def _read(self, i: int) -> tuple[Piece, int]:
        """Reads a take, and keeps its sound and the moved copies on disk: memory holds one take at a time.

        Copies are made from the sound as it was recorded: lowered from sound at the data set's sample rate they would
        have nothing in the highest of their octaves.

        Args:
            i: Number of the take.

        Returns:
            What is played, and how many samples there are at the data set's sample rate.
        """
        config = self.builder_config
        recorded, recorded_rate, piece = takes_lib.read_take(
            self._takes[i], config.voices, config.track, config.midi_channel, longest_excess=math.inf
        )
        piece = self._corrections.align(self._takes[i], recorded, recorded_rate, piece)
        n_samples, gain = 0, 1.0
        for shift in (0.0, *config.pitch_shifts):
            samples = resample(recorded, recorded_rate * _speed(shift), config.sample_rate)
            if not shift:
                n_samples = len(samples)
                gain = 1.0 / _peak(samples) if config.normalise else 1.0
            _save(self._path(i, shift), samples, gain)
        return piece, n_samples

    def _path(self, take: int, shift: float) -> pathlib.Path:
        return self._scratch / f"{take}_{shift:+g}.npy"

    def _facts(self, stretches: Mapping[str, Sequence[windows.Stretch]], regions: Sequence[np.ndarray]) -> dict:
        """Returns the metadata of the data set."""
        config = self.builder_config
        played = [each for each in stretches["train"] if windows.playing(each, regions[each.take]) > 0]
        return {
            "fingerprint": takes_lib.fingerprint(self._takes, config.facts()),
            "sample_rate": config.sample_rate,
            "corrections": self._corrections.facts(),
            "voices": max(len(piece.voices) for piece in self._pieces),
            "takes": [take.name for take in self._takes],
            "stretches": {
                split: [
                    [self._takes[each.take].name, each.start / config.sample_rate, each.end / config.sample_rate]
                    for each in of_split
                ]
                for split, of_split in stretches.items()
            },
            "peak": max(_peak(self._samples(each)) for each in played),
            "shortest": min(config.window, *(each.end - each.start for each in played)),
        }

    def _samples(self, stretch: windows.Stretch, shift: float = 0.0) -> np.ndarray:
        """Returns the samples of a stretch, or what is left of its copy between the same two moments."""
        first, last = _moved(stretch, shift)
        return np.load(self._path(stretch.take, shift), mmap_mode="r")[first:last]

    def _generate_examples(
        self, split: str, stretches: Sequence[windows.Stretch]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        shifts = (0.0, *config.pitch_shifts) if split == "train" else (0.0,)
        hop = config.hop if split == "train" else config.window
        n_samples = len(shifts) * sum(each.end - each.start for each in stretches)
        with tqdm(
            total=n_samples,
            desc=f"Writing {split}",
            unit=" s",
            unit_scale=1.0 / config.sample_rate,
            disable=not self._show_progress,
        ) as progress:
            for stretch in stretches:
                progress.set_postfix_str(self._takes[stretch.take].name)
                for shift in shifts:
                    yield from self._examples(stretch, shift, hop)
                    progress.update(stretch.end - stretch.start)

    def _examples(self, stretch: windows.Stretch, shift: float, hop: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the examples of a stretch, moved by so many semitones."""
        config = self.builder_config
        samples = self._samples(stretch, shift)
        if len(samples) < min(config.window, stretch.end - stretch.start):
            return  # A copy that moving up has made shorter than a window.
        take = self._takes[stretch.take]
        seconds = _speed(shift) / config.sample_rate  # Of a sample, in the recording.
        first = _moved(stretch, shift)[0]
        piece = examples.on_tape(self._pieces[stretch.take], first * seconds, _speed(shift)).transpose(shift)
        for start in windows.window_starts(self._regions(piece, len(samples)), 0, len(samples), config.window, hop):
            end = start + config.window
            example = examples.audio_and_events(
                samples[start:end],
                piece.window(start / config.sample_rate, end / config.sample_rate),
                config.window,
            )
            example.update({"take": take.name, "start": (first + start) * seconds, "pitch_shift": shift})
            yield f"{take.name}@{stretch.start}+{start}" + (f" moved {shift:+g}" if shift else ""), example

    def _regions(self, piece: Piece, n_samples: int) -> np.ndarray:
        sample_rate = self.builder_config.sample_rate
        return windows.playing_regions(piece.notes, n_samples, sample_rate, TAIL_SECONDS, MAX_SILENCE_SECONDS)


def _peak(samples: np.ndarray) -> float:
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


@contextlib.contextmanager
def _nothing_left_behind(path: pathlib.Path) -> Iterator[None]:
    """Removes what tfds made on the way to a folder if the folder does not come to be."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not path.exists():
            name_folder = path.parent.parent  # Of all configurations; tfds puts a folder of metadata beside them.
            for folder in missing:
                if folder == name_folder and [each.name for each in folder.iterdir()] == [".config"]:
                    shutil.rmtree(folder / ".config")
                with contextlib.suppress(
                    OSError, ValueError
                ):  # Another process is building in it, or it has a picture.
                    folder.rmdir()


@contextlib.contextmanager
def _own_progress_bar() -> Iterator[bool]:
    """Turns the progress bars of tfds off, which know neither takes nor totals; yields whether bars are wanted."""
    wanted = getattr(tfds.core.utils.tqdm_utils, "_active", True)
    tfds.display_progress_bar(False)
    try:
        yield wanted
    finally:
        tfds.display_progress_bar(wanted)


class _OneLineError(app.ExceptionHandler):
    """Lets `tfds build`, which is an absl app, end in one line where the takes are at fault."""

    def wants(self, exc: Exception) -> bool:
        return isinstance(exc, DataError)

    def handle(self, exc: Exception) -> None:
        def say(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
            del kind, trace
            print(f"{pathlib.Path(sys.argv[0]).name}: {' '.join(str(error).split())}", file=sys.stderr)

        sys.excepthook = say
