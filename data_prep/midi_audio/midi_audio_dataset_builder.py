"""The TFDS builder: windows of recordings with the notes and controls in them.

`tfds build data_prep/midi_audio` builds the demo guitar, `--manual_dir=my_takes` a folder of one's own, and
`--config='{"name": "shifted", "pitch_shifts": [-2, -1, 1, 2]}'` another configuration. Training calls `build`.

Takes by the hundred hours are shared out by Apache Beam: `tfds build data_prep/midi_audio
--beam_pipeline_options=direct_num_workers=8,direct_running_mode=multi_processing`, or `runner=` and what else a cluster
needs.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import app
from tqdm.auto import tqdm

from neural_midi_synth.data_prep import takes as takes_lib
from neural_midi_synth.data_prep.corrections import Corrections
from neural_midi_synth.errors import DataError

from . import examples, windows
from .config import DEMO_GUITAR, MidiAudioConfig
from .cutting import Cutter, peak_of


class MidiAudio(tfds.core.GeneratorBasedBuilder):
    """Windows of takes: the sound, and the notes and controls in it, times relative to the window's start.

    The splits `train`, `validation` and `test` are stretches of time cut before anything else is done to the takes.
    The metadata tell of what the data set is made: `fingerprint`, `sample_rate`, `takes` (names), `voices` (the most
    that a take has), `stretches` of each split, and of the train split `peak` (the highest sample) and `shortest` (the
    recorded samples of its shortest example), and `corrections` (what was corrected of the annotations).
    `inspection` tells what was found in the takes before, where somebody looked.

    Attributes:
        inspection: What the metadata will tell of that.
    """

    inspection: dict[str, Any] | None = None

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
                configuration. With its `beam_runner` or `beam_options`, Apache Beam reads the takes and makes the
                examples, in processes that all see the folders; the examples are the same.
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
        self._beam_runner, self._beam_options = download_config.beam_runner, download_config.beam_options
        self._expected: dict[str, int] = {}
        self._on_beam = bool(self._beam_runner or self._beam_options)
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

    def _download_and_prepare(self, dl_manager: Any, download_config: tfds.download.DownloadConfig) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        # Beam's threads were seen to lose examples (Beam 2.77, TFDS 4.9.10).
        for split, expected in self._expected.items():
            arrived = self.info.splits[split].num_examples if split in self.info.splits else 0
            if arrived != expected:
                raise DataError(
                    f"{self.data_dir}: {arrived} of {expected} examples for {split} have come from Beam's workers. "
                    "Build it again, with processes (direct_running_mode=multi_processing) or another runner."
                )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        config = self.builder_config
        picture_folder = pathlib.Path(self.data_dir_root)
        cutter = Cutter(config, self._takes, self._scratch, picture_folder)
        self._read_takes(cutter)
        corrections = Corrections(config.align, config.velocities, picture_folder)
        pieces, lengths, regions = [], [], []
        for number in range(len(self._takes)):
            piece, n_samples, of_take = cutter.told(number)
            corrections.join(of_take)
            pieces.append(piece)
            lengths.append(n_samples)
            regions.append(cutter.regions(piece, n_samples))
        for number, piece in enumerate(corrections.with_velocities(pieces)):
            cutter.keep_piece(number, piece)
        fractions = {"validation": config.validation_fraction, "test": config.test_fraction}
        try:
            stretches = windows.split_stretches(lengths, regions, config.window, fractions)
        except DataError as error:
            raise DataError(f"{self._source}: {error}") from error
        played = [each for each in stretches["train"] if windows.playing(each, regions[each.take]) > 0]
        self.info.metadata.update(
            {
                "fingerprint": takes_lib.fingerprint(self._takes, config.facts()),
                "sample_rate": config.sample_rate,
                "corrections": corrections.facts(),
                "inspection": self.inspection,
                "voices": max(len(piece.voices) for piece in pieces),
                "takes": [take.name for take in self._takes],
                "stretches": {
                    split: [
                        [self._takes[each.take].name, each.start / config.sample_rate, each.end / config.sample_rate]
                        for each in of_split
                    ]
                    for split, of_split in stretches.items()
                },
                "peak": max(peak_of(cutter.samples(each)) for each in played),
                "shortest": min(config.window, *(each.end - each.start for each in played)),
            }
        )
        if self._on_beam:
            self._expected = {
                split: sum(
                    cutter.count(split, stretch, shift) for stretch in of_split for shift in cutter.shifts(split)
                )
                for split, of_split in stretches.items()
            }
        return {split: self._generate_examples(cutter, split, of_split) for split, of_split in stretches.items()}

    def _read_takes(self, cutter: Cutter) -> None:
        """Reads the takes one after the other, or shares them out to those of Beam."""
        if self._on_beam:
            import apache_beam as beam

            with beam.Pipeline(runner=self._beam_runner, options=self._beam_options) as pipeline:
                _ = pipeline | beam.Create(range(len(self._takes))) | beam.Map(cutter.read)
            return
        with tqdm(self._takes, "Reading takes", unit=" takes", disable=not self._show_progress) as progress:
            for number, take in enumerate(progress):
                progress.set_postfix_str(take.name)
                cutter.read(number)
                cutter.told(number)  # Raises what is wrong with it before the next one is read.

    def _generate_examples(self, cutter: Cutter, split: str, stretches: Sequence[windows.Stretch]) -> Any:
        """Yields examples, or says how Beam makes them."""
        if self._on_beam:
            import apache_beam as beam

            parts = [(split, stretch, shift) for stretch in stretches for shift in cutter.shifts(split)]
            return beam.Create(parts) | beam.FlatMapTuple(cutter.examples)
        return self._one_after_the_other(cutter, split, stretches)

    def _one_after_the_other(
        self, cutter: Cutter, split: str, stretches: Sequence[windows.Stretch]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        shifts = cutter.shifts(split)
        with tqdm(
            total=len(shifts) * sum(each.end - each.start for each in stretches),
            desc=f"Writing {split}",
            unit=" s",
            unit_scale=1.0 / self.builder_config.sample_rate,
            disable=not self._show_progress,
        ) as progress:
            for stretch in stretches:
                progress.set_postfix_str(self._takes[stretch.take].name)
                for shift in shifts:
                    yield from cutter.examples(split, stretch, shift)
                    progress.update(stretch.end - stretch.start)


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
