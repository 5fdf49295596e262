"""The TFDS builder: windows of recordings with the notes and controls that sound in them.

`tfds build data_prep/midi_audio` builds the demo guitar, `--manual_dir=my_takes` a folder of one's own, and
`--config='{"name": "shifted", "pitch_shifts": [-2, -1, 1, 2]}'` another configuration. Training calls `build`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from typing import Any

import gin
import numpy as np
import soxr
import tensorflow_datasets as tfds
from absl import app, logging
from tqdm.auto import tqdm

from neural_midi_synth.errors import DataError
from neural_midi_synth.notes import Voice

from . import takes as takes_lib
from . import windows

DEMO_GUITAR = pathlib.Path(__file__).resolve().parents[1] / "demo_guitar"
# What sounds after a note belongs to it for this many seconds, as in the lineage.
TAIL_SECONDS = 0.2
# Shorter silences between notes are part of the playing; longer ones are skipped.
MAX_SILENCE_SECONDS = 2.0


@dataclasses.dataclass(eq=False)
class MidiAudioConfig(tfds.core.BuilderConfig):
    """How takes become examples.

    Attributes:
      source_dir: Folder of recordings and MIDI files; None for the demo guitar. `--manual_dir` goes before it.
      sample_rate: Hz.
      window_seconds: Length of an example.
      hop_seconds: From one training example to the next. Held-out examples don't overlap.
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
        return {name: getattr(self, name) for name in sorted(own - {"source_dir"})}


class MidiAudio(tfds.core.GeneratorBasedBuilder):
    """Windows of takes: the sound, and the notes and controls in it, times relative to the window's start.

    The splits `train`, `validation` and `test` are stretches of time cut before anything else is done to the takes.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [MidiAudioConfig(name="default", description="4 s at 16 kHz, 1 s apart in training.")]

    def _info(self) -> tfds.core.DatasetInfo:
        self.builder_config.check()
        features = {
            "audio": tfds.features.Tensor(shape=[self.builder_config.window], dtype=np.float32),
            "notes": tfds.features.Tensor(shape=[None, 4], dtype=np.float32),
            "control_changes": tfds.features.Tensor(shape=[None, 3], dtype=np.float32),
            "pitch_bends": tfds.features.Tensor(shape=[None, 2], dtype=np.float32),
            "take": tfds.features.Text(),
            "start": tfds.features.Scalar(dtype=np.float64),
            "pitch_shift": tfds.features.Scalar(dtype=np.float32),
        }
        documentation = {
            "audio": "Mono; full scale is [-1, 1].",
            "notes": "Start s, end s, MIDI pitch, velocity 1..127; the one before the window too if none sounds there.",
            "control_changes": "Time s, controller number, value 0..127; those in force at the start have times <= 0.",
            "pitch_bends": "Time s, semitones; the one in force at the start has a time <= 0.",
            "take": "Name of the recording.",
            "start": "Where the window begins in the recording, s.",
            "pitch_shift": "Semitones by which the example was moved.",
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Windows of recordings with the notes, control changes and pitch bends that sound in them.",
            features=tfds.features.FeaturesDict(features, doc=documentation),
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
          download_config: Its `manual_dir` is the folder of takes, before `source_dir` of the configuration.
          **kwargs: As in `tfds.core.DatasetBuilder`.

        Raises:
          DataError: Takes can't be used, or the data set is there already but made from other ones.
        """
        download_config = download_config or tfds.download.DownloadConfig()
        mode = download_config.download_mode
        given = download_config.manual_dir or self.builder_config.source_dir
        if self.data_path.exists() and not mode.overwrite_dataset:
            if given and mode == tfds.download.GenerateMode.REUSE_DATASET_IF_EXISTS:
                self._check_same_takes(given)
            super().download_and_prepare(download_dir=download_dir, download_config=download_config, **kwargs)
            return
        self._takes = takes_lib.find_takes(given or DEMO_GUITAR)
        config = download_config.replace(try_download_gcs=False)
        with _nothing_left_behind(self.data_path), _own_progress_bar() as self._show_progress:
            with tempfile.TemporaryDirectory(prefix=".takes_", dir=self.data_dir_root) as scratch:
                self._scratch = pathlib.Path(scratch)
                super().download_and_prepare(download_dir=scratch, download_config=config, **kwargs)

    def _check_same_takes(self, folder: str | os.PathLike) -> None:
        found = takes_lib.fingerprint(takes_lib.find_takes(folder), self.builder_config.facts())
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
        self._voices: list[Voice] = []
        lengths, regions = [], []
        with tqdm(self._takes, "Reading takes", unit=" takes", disable=not self._show_progress) as progress:
            for i, take in enumerate(progress):
                progress.set_postfix_str(take.name)
                samples, voice = takes_lib.read_take(take, config.sample_rate, config.normalise)
                # Kept on disk, so that memory holds one take at a time however many there are.
                np.save(self._scratch / f"{i}.npy", samples)
                lengths.append(len(samples))
                self._voices.append(voice)
                regions.append(self._regions(voice, len(samples)))
        fractions = {"validation": config.validation_fraction, "test": config.test_fraction}
        try:
            stretches = windows.split_stretches(lengths, regions, config.window, fractions)
        except DataError as error:
            raise DataError(f"{self._takes[0].audio_path.parent}: {error}") from error
        self.info.metadata.update(
            fingerprint=takes_lib.fingerprint(self._takes, config.facts()),
            sample_rate=config.sample_rate,
            takes=[take.name for take in self._takes],
            stretches={
                split: [
                    [self._takes[each.take].name, each.start / config.sample_rate, each.end / config.sample_rate]
                    for each in of_split
                ]
                for split, of_split in stretches.items()
            },
        )
        return {split: self._generate_examples(split, of_split) for split, of_split in stretches.items()}

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
        take = self._takes[stretch.take]
        samples = np.load(self._scratch / f"{stretch.take}.npy", mmap_mode="r")[stretch.start : stretch.end]
        first = stretch.start / config.sample_rate
        voice = _on_tape(self._voices[stretch.take], first, 1.0)
        speed = 1.0
        if shift:
            speed = 2.0 ** (shift / 12.0)
            samples = soxr.resample(samples, config.sample_rate * speed, config.sample_rate, quality="VHQ")
            voice = _on_tape(voice, 0.0, speed).transpose(shift)
            if len(samples) < config.window:
                return
        regions = self._regions(voice, len(samples))
        for start in windows.window_starts(regions, 0, len(samples), config.window, hop):
            audio = samples[start : start + config.window]
            inside = voice.window(start / config.sample_rate, (start + config.window) / config.sample_rate)
            key = f"{take.name}@{stretch.start}+{start}" + (f" moved {shift:+g}" if shift else "")
            yield (
                key,
                {
                    "audio": np.pad(audio, [0, config.window - len(audio)]).astype(np.float32),
                    "notes": inside.notes.astype(np.float32),
                    "control_changes": inside.control_changes.astype(np.float32),
                    "pitch_bends": inside.pitch_bends.astype(np.float32),
                    "take": take.name,
                    "start": first + start / config.sample_rate * speed,
                    "pitch_shift": shift,
                },
            )

    def _regions(self, voice: Voice, n_samples: int) -> np.ndarray:
        sample_rate = self.builder_config.sample_rate
        return windows.playing_regions(voice.notes, n_samples, sample_rate, TAIL_SECONDS, MAX_SILENCE_SECONDS)


# Made in `build` only, so that gin is the configuration of training and `--config` that of `tfds build`.
_GinConfig = gin.external_configurable(MidiAudioConfig, module="midi_audio", denylist=["name", "source_dir"])


def build(
    source_dir: str | os.PathLike | None = None, data_dir: str | os.PathLike | None = None, **settings: Any
) -> MidiAudio:
    """Builds a data set, unless it is there from the same takes with the same configuration.

    The configuration's name has a hash of both in it, so that a data set is found again wherever the takes are, and
    takes that have changed are never mistaken for what they were.

    Args:
      source_dir: Folder of recordings and MIDI files; the demo guitar if None.
      data_dir: Where data sets are kept; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if None.
      **settings: Attributes of `MidiAudioConfig`; those not given are as gin binds them.

    Returns:
      The builder, ready for `as_dataset`.

    Raises:
      DataError: Takes can't be used, or the data set can't be written.
    """
    source_dir = pathlib.Path(source_dir or DEMO_GUITAR).expanduser()
    config = _GinConfig(name="unnamed", source_dir=source_dir, **settings)
    config.check()
    contents = takes_lib.fingerprint(takes_lib.find_takes(source_dir), config.facts())
    folder = re.sub("[^A-Za-z0-9]+", "_", source_dir.resolve().name).strip("_") or "takes"
    config.name = f"{folder}_{contents[:12]}"
    with _quiet():
        builder = MidiAudio(config=config, data_dir=data_dir)
        if not builder.is_prepared():
            try:
                builder.download_and_prepare()
            except OSError as error:
                builder = MidiAudio(config=config, data_dir=data_dir)
                if not builder.is_prepared():  # Else another process has built it meanwhile.
                    raise DataError(
                        f"{builder.data_dir}: the data set can't be written ({error.strerror or error}). "
                        "Make room there, or choose another --data_dir."
                    ) from error
    return builder


def _on_tape(voice: Voice, start: float, speed: float) -> Voice:
    """Returns a voice with times relative to `start` (s), played `speed` times as fast."""
    return Voice(
        (voice.notes - [start, start, 0.0, 0.0]) / [speed, speed, 1.0, 1.0],
        (voice.control_changes - [start, 0.0, 0.0]) / [speed, 1.0, 1.0],
        (voice.pitch_bends - [start, 0.0]) / [speed, 1.0],
    )


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
                with contextlib.suppress(OSError):  # Another process is building in it.
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps tfds from telling about downloads, of which there are none."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


class _OneLineError(app.ExceptionHandler):
    """Lets `tfds build`, which is an absl app, end in one line where the takes are at fault."""

    def wants(self, exc: Exception) -> bool:
        return isinstance(exc, DataError)

    def handle(self, exc: Exception) -> None:
        def say(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
            del kind, trace
            print(f"{pathlib.Path(sys.argv[0]).name}: {' '.join(str(error).split())}", file=sys.stderr)

        sys.excepthook = say


app.install_exception_handler(_OneLineError())
