"""Plays examples with an instrument, compares them with their recordings, and writes a report (nms_evaluate)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from absl import flags
from tqdm import tqdm

from neural_midi_synth import command_line, environment, metrics, pictures, report
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.notes import MIDI_SUFFIXES, Voice, read_midi
from neural_midi_synth.files.outputs import write_aside

USAGE = """Measures how close an instrument comes to recordings of what it plays.

nms_evaluate --instrument runs/my_guitar --output report/
    on the test split of the takes the instrument was trained on
nms_evaluate --instrument runs/my_guitar --midi_dir riffs/ --output report/
    on a folder of MIDI files with recordings of the same names

Writes report.html (open it in a browser), report.json, and the sounds and pictures as files."""

REPORT_PAGE = "report.html"
REPORT_NUMBERS = "report.json"
# In the folder of an instrument: what it was trained on, as `training` wrote it.
DATA_SET_NAME = "data_set.json"
# Beyond this many, examples are measured but not pictured, so that the page stays one that a phone can open.
MAX_PICTURED = 24
# Windows of the test split that follow each other are joined up to this length: longer is nicer to listen to.
MAX_JOINED_SECONDS = 20.0

# Recordings that may stand beside a MIDI file, the best first.
_REFERENCE_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")

# Several commands have these flags, and tests import several commands.
_INSTRUMENT = flags.DEFINE_string(
    "instrument", None, "Folder of a trained instrument.", required=True, allow_override=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder the report is written to.", required=True, allow_override=True)
_MIDI_DIR = flags.DEFINE_string(
    "midi_dir", None, "Folder of MIDI files, each with a recording of the same name beside it.", allow_override=True
)
_DATA_SET = flags.DEFINE_string(
    "data_set",
    None,
    "Folder of a built data set whose test split is played; unless given, the one trained on.",
    allow_override=True,
)


class Player(Protocol):
    """What is asked of an instrument here."""

    sample_rate: int
    styles: Mapping[str, int]

    def render(self, voice: Voice, *, n_samples: int | None = None) -> np.ndarray:
        """Plays a voice, to its end or `n_samples` of it: float32 `[n]`, full scale ±1."""
        ...


@dataclasses.dataclass(frozen=True)
class Example:
    """Something to play and what it should sound like.

    Attributes:
      name: What it is called in the report and in file names.
      voice: What is played.
      reference: Its recording at the instrument's sample rate, float32 `[n]`; None where there is none.
      is_excerpt: Whether the reference is a stretch of a longer recording, so that sound after its end has nothing to
        be compared with: the instrument plays just as long.
    """

    name: str
    voice: Voice
    reference: np.ndarray | None
    is_excerpt: bool = False


def evaluate(
    instrument: Player, examples: Iterable[Example], output_dir: str | os.PathLike, title: str = "Instrument"
) -> dict[str, Any]:
    """Plays and measures the examples, and writes the report.

    Files of the output folder: `report.html` (one portable page), `report.json`, `sounds/` (wav) and `pictures/`
    (png). They are put there when all is done, and replace those of an earlier report; other files stay as they are.

    Args:
      instrument: What plays.
      examples: At least one. They are taken one at a time.
      output_dir: Folder of the report; made where it does not exist.
      title: What the instrument is called in the report.

    Returns:
      What `report.json` holds: `instrument` (the title), `sample_rate`, `examples` (a list of dicts with `name`,
      `seconds` and the numbers of `report.MEASURES`) and `mean`; None stands where there is no such number.

    Raises:
      DataError: There is no example, the instrument plays NaN, or the output folder can't be written.
    """
    output_dir = pathlib.Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise DataError(f"{output_dir}: is a file. Choose a folder for the report.")
    with _files_aside(output_dir) as aside:
        results, stems = [], set()
        for example in tqdm(examples, desc="Evaluating", unit="example", disable=None):
            if not results:
                _play(instrument, example)  # Warm-up: the first time is spent on tracing and compiling.
            result = _play_and_measure(instrument, example, is_pictured=len(results) < MAX_PICTURED)
            _write_files(result, aside, _file_stem(result.name, stems), instrument.sample_rate)
            results.append(result)
        if not results:
            raise DataError("There is no example to evaluate on. Give a folder of MIDI files with --midi_dir.")
        summary = _summary(results, instrument.sample_rate, title)
        (aside / REPORT_NUMBERS).write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
        page = report.page(title, results, instrument.sample_rate)
        (aside / REPORT_PAGE).write_text(page, encoding="utf-8")
    print(report.table(results))
    return summary


def examples_in(folder: str | os.PathLike, sample_rate: int) -> list[Example]:
    """Reads the MIDI files of a folder and the recordings of the same names beside them.

    Args:
      folder: Has .mid files, each with a .flac, .wav, .ogg or .mp3 file of the same stem. A MIDI file without a
        recording is played, but not measured.
      sample_rate: What recordings are resampled to.

    Returns:
      The examples, sorted by name.

    Raises:
      DataError: The folder or its MIDI files are missing, no MIDI file has a recording, or a file can't be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give a folder of MIDI files with recordings beside them.")
    files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    midi_files = [path for path in files.values() if path.suffix.lower() in MIDI_SUFFIXES]
    if not midi_files:
        raise DataError(f"{folder}: has no MIDI file. Put .mid files and their recordings there.")
    references = {path: _reference_of(path, files) for path in midi_files}
    if not any(references.values()):
        raise DataError(
            f"{folder}: no MIDI file has a recording beside it. Name each recording like its MIDI file "
            f"({midi_files[0].stem}.wav), or use nms_render to play without comparing."
        )
    return [_read_example(midi, reference, sample_rate) for midi, reference in references.items()]


def examples_of_test_split(data_set: str | os.PathLike, sample_rate: int) -> Iterator[Example]:
    """Reads the test split of a built data set.

    Args:
      data_set: Its folder.
      sample_rate: Of the instrument, for which the data set was built.

    Yields:
      Adjoining windows as one example each.

    Raises:
      DataError: There is no such data set, it is of another sample rate, or its test split is empty.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(data_set))
    except (OSError, ValueError) as error:
        raise DataError(f"{data_set}: no data set here. Name one with --data_set, or give --midi_dir.") from error
    built_for = (builder.info.metadata or {}).get("sample_rate", sample_rate)
    if built_for != sample_rate:
        raise DataError(f"{data_set}: is at {built_for} Hz, the instrument at {sample_rate} Hz. Give --midi_dir.")
    if "test" not in builder.info.splits or not builder.info.splits["test"].num_examples:
        raise DataError(f"{builder.data_path}: the test split is empty. Give recordings with --midi_dir.")
    yield from joined_windows(tfds.as_numpy(builder.as_dataset(split="test")), sample_rate)


def joined_windows(windows: Iterable[Mapping[str, Any]], sample_rate: int) -> Iterator[Example]:
    """Joins windows of a split that follow each other in their take to examples of up to 20 s.

    Args:
      windows: Examples of the TFDS builder as NumPy values: `audio` `[n]`, `notes`, `control_changes`, `pitch_bends`
        (times relative to the window's start), `take` and `start` (s); in any order.
      sample_rate: Samples per second of `audio`.

    Yields:
      Examples named after their take and where they begin in it.
    """
    run: list[Mapping[str, Any]] = []
    n_samples = 0
    for window in sorted(windows, key=lambda window: (window["take"], float(window["start"]))):
        follows = run and (
            window["take"] == run[0]["take"]
            and abs(float(window["start"]) - float(run[0]["start"]) - n_samples / sample_rate) < 0.5 / sample_rate
            and n_samples + len(window["audio"]) <= MAX_JOINED_SECONDS * sample_rate
        )
        if run and not follows:
            yield _join(run)
            run, n_samples = [], 0
        run.append(window)
        n_samples += len(window["audio"])
    if run:
        yield _join(run)


def _join(run: list[Mapping[str, Any]]) -> Example:
    """Makes one example of adjoining windows; what two windows both tell of is taken once."""
    take, first = run[0]["take"], float(run[0]["start"])
    take = take.decode() if isinstance(take, bytes) else str(take)
    events = {}
    for kind in ("notes", "control_changes", "pitch_bends"):
        distinct = {}
        for window in run:
            for event in np.array(window[kind], np.float64):
                offset = float(window["start"]) - first
                event[: 2 if kind == "notes" else 1] += offset
                # Windows store float32, so the same event differs by microseconds from window to window.
                distinct.setdefault(tuple(np.round(event, 3)), event)
        events[kind] = np.array(list(distinct.values()))
    minutes, seconds = divmod(first, 60.0)
    return Example(
        name=f"{take} {int(minutes)}:{seconds:04.1f}",
        voice=Voice(**events),
        reference=np.concatenate([np.asarray(window["audio"], np.float32) for window in run]),
        is_excerpt=True,
    )


def _play(instrument: Player, example: Example) -> np.ndarray:
    n_samples = len(example.reference) if example.is_excerpt and example.reference is not None else None
    samples = instrument.render(example.voice, n_samples=n_samples)
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples))) / instrument.sample_rate
        raise DataError(f"{example.name}: the instrument plays NaN at {first:.1f} s. Train it again.")
    return samples


def _play_and_measure(instrument: Player, example: Example, is_pictured: bool) -> report.Result:
    begun = time.perf_counter()
    rendering = _play(instrument, example)
    numbers = {"real_time_factor": len(rendering) / instrument.sample_rate / (time.perf_counter() - begun)}
    sounds = {"instrument": rendering}
    if example.reference is not None:
        sounds = {"reference": example.reference, "instrument": rendering}
        numbers |= metrics.compare(example.reference, rendering, instrument.sample_rate)
    themes = {"light": pictures.LIGHT, "dark": pictures.DARK} if is_pictured else {}
    return report.Result(
        name=example.name,
        seconds=len(rendering) / instrument.sample_rate,
        numbers=numbers,
        sounds=sounds if is_pictured else {},
        pictures={
            theme_name: pictures.example_picture(
                example.voice, rendering, example.reference, instrument.sample_rate, instrument.styles, theme
            )
            for theme_name, theme in themes.items()
        },
    )


def _write_files(result: report.Result, folder: pathlib.Path, stem: str, sample_rate: int) -> None:
    for name, samples in result.sounds.items():
        suffix = "" if name == "instrument" else f"_{name}"
        write_audio(folder / "sounds" / f"{stem}{suffix}.wav", samples, sample_rate)
    for name, picture in result.pictures.items():
        suffix = "" if name == "light" else f"_{name}"
        path = folder / "pictures" / f"{stem}{suffix}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)


def _summary(results: list[report.Result], sample_rate: int, title: str) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return round(float(value), 6) if math.isfinite(value) else None

    return {
        "instrument": title,
        "sample_rate": sample_rate,
        "mean": {key: number(value) for key, value in report.mean(results).items()},
        "examples": [
            {"name": result.name, "seconds": round(result.seconds, 6)}
            | {key: number(result.numbers.get(key, math.nan)) for key in report.MEASURES}
            for result in results
        ],
    }


def _file_stem(name: str, taken: set[str]) -> str:
    """Returns a name for files that no file system minds, and adds it to those taken."""
    plain = "".join(character if character.isalnum() or character in "._-" else "_" for character in name).strip(".")
    stem, count = plain, 1
    while stem.lower() in taken or not stem:
        count += 1
        stem = f"{plain}_{count}"
    taken.add(stem.lower())
    return stem


@contextlib.contextmanager
def _files_aside(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder; its files are moved to `folder`, each in one step, if the block ends well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror}). Choose another output.") from error
    with made as aside:
        yield pathlib.Path(aside)
        # The page comes last: where it is, all that belongs to it is.
        files = [path for path in sorted(pathlib.Path(aside).rglob("*")) if path.is_file()]
        for path in sorted(files, key=lambda path: path.name == REPORT_PAGE):
            with write_aside(folder / path.relative_to(aside)) as beside:
                os.replace(path, beside)


def _reference_of(midi: pathlib.Path, files: Mapping[str, pathlib.Path]) -> pathlib.Path | None:
    """Returns the recording of a MIDI file, or None; `files` has the folder's files by their names in lower case."""
    names = [f"{midi.stem.lower()}{suffix}" for suffix in _REFERENCE_SUFFIXES]
    return next((files[name] for name in names if name in files), None)


def _read_example(midi: pathlib.Path, reference: pathlib.Path | None, sample_rate: int) -> Example:
    samples = None if reference is None else read_audio(reference, sample_rate)[0]
    return Example(midi.stem, read_midi(midi), samples)


def _data_set(instrument: pathlib.Path) -> str:
    """Returns the folder of the data set that the flags name, or else that the instrument was trained on."""
    if _DATA_SET.value:
        return _DATA_SET.value
    path = instrument / DATA_SET_NAME
    try:
        return json.loads(path.read_text(encoding="utf-8"))["folder"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: does not tell what it was trained on. Give --data_set or --midi_dir.") from error


def main() -> None:
    """Evaluates the instrument that the flags name."""
    if _MIDI_DIR.value and _DATA_SET.value:
        raise command_line.UsageError("give either --midi_dir or --data_set")
    environment.import_tensorflow_quietly()
    from neural_midi_synth.instrument.loading import load

    instrument = load(_INSTRUMENT.value)
    if _MIDI_DIR.value:
        examples = examples_in(_MIDI_DIR.value, instrument.sample_rate)
    else:
        examples = list(examples_of_test_split(_data_set(pathlib.Path(_INSTRUMENT.value)), instrument.sample_rate))
    evaluate(instrument, examples, _OUTPUT.value, title=pathlib.Path(_INSTRUMENT.value).resolve().name)
    print(f"\nThe report: {pathlib.Path(_OUTPUT.value) / REPORT_PAGE}")


def run() -> None:
    """The console script nms_evaluate."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
