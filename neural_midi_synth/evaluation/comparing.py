"""Plays examples with an instrument, compares them with their recordings, and writes a report."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from neural_midi_synth.errors import DataError
from neural_midi_synth.evaluation import metrics, multipitch, pictures
from neural_midi_synth.evaluation.examples import Example
from neural_midi_synth.evaluation.likeness import Attack, likeness, table_of_notes
from neural_midi_synth.evaluation.page import page
from neural_midi_synth.evaluation.results import Result, keys, mean, table
from neural_midi_synth.evaluation.verdict import judge
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.midi.pieces import Piece

REPORT_PAGE = "report.html"
REPORT_NUMBERS = "report.json"
# Beyond this many, examples are measured but not pictured, so that the page stays one that a phone can open.
MAX_PICTURED = 24

_THEMES = {"light": pictures.LIGHT, "dark": pictures.DARK}


class Player(Protocol):
    """What is asked of an instrument here."""

    sample_rate: int
    styles: Mapping[str, int]

    def render(self, piece: Piece, *, n_samples: int | None = None) -> np.ndarray:
        """Plays a piece, to its end or `n_samples` of it: float32 `[n]`, full scale ±1."""
        ...


def evaluate(
    instrument: Player,
    examples: Iterable[Example],
    output_dir: str | os.PathLike,
    title: str = "Instrument",
    takes: str | os.PathLike | None = None,
    perceived: bool = False,
    advice: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays and measures the examples, writes the report, and prints its numbers as a table.

    Files of the output folder: `report.html` (one portable page), `report.json`, `sounds/` (wav) and `pictures/`
    (png). They are put there when all is done, and replace those of an earlier report; other files stay as they are.

    Args:
        instrument: What plays.
        examples: At least one. They are taken one at a time.
        output_dir: Folder of the report; made where it does not exist.
        title: What the instrument is called in the report.
        takes: Folder of the data set that has the player's takes, which tell how alike he plays a note twice; unless
            given, the recordings of the examples do.
        perceived: Whether the perceived quality is measured too, which takes several times as long as all the rest.
        advice: What the takes lack, to be told with the verdict.

    Returns:
        What `report.json` holds: `instrument` (the title), `sample_rate`, `examples` (a list of dicts with `name`,
        `seconds` and the numbers of `results.keys`), `mean`, `notes` (`Likeness.facts`) and `verdict`
        (`Verdict.facts`); None stands where there is no such number.

    Raises:
        DataError: There is no example, the instrument plays NaN, ViSQOL is wanted and not installed, or the output
            folder can't be written.
    """
    if perceived:
        metrics.visqol()
    output_dir = pathlib.Path(output_dir)
    if output_dir.exists() and not output_dir.is_dir():
        raise DataError(f"{output_dir}: is a file. Choose a folder for the report.")
    with _files_aside(output_dir) as aside:
        results, stems, played, renderings = [], set(), [], []
        for example in tqdm(examples, desc="Evaluating", unit="example", disable=None):
            if not results:
                _play(instrument, example)  # Warm-up: the first time is spent on tracing and compiling.
            result, rendering = _play_and_measure(instrument, example, len(results) < MAX_PICTURED, perceived)
            played.append(example)
            renderings.append(rendering)
            _write_files(result, aside, _file_stem(result.name, stems), instrument.sample_rate)
            results.append(result)
        if not results:
            raise DataError("There is no example to evaluate on. Give a folder of MIDI files with --midi_dir.")
        notes = likeness(played, renderings, instrument.sample_rate, instrument.styles, takes)
        verdict = judge(notes, list(instrument.styles), mean(results).get("pitch_accuracy", math.nan), advice)
        facts = {"notes": notes.facts(), "verdict": verdict.facts()}
        summary = _summary(results, instrument.sample_rate, title) | facts
        (aside / REPORT_NUMBERS).write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
        attacks = _write_attacks(notes.attacks, aside, _file_stem("attacks", stems), instrument.sample_rate)
        html = page(title, results, instrument.sample_rate, facts["notes"], verdict, attacks)
        (aside / REPORT_PAGE).write_text(html, encoding="utf-8")
    print(table(results))
    if facts["notes"]["notes"]:
        print(f"\n{table_of_notes(facts['notes'])}")
    print("\n" + "\n".join([verdict.message, *verdict.record]))
    return summary


def measure(example: Example, rendering: np.ndarray, sample_rate: int) -> dict[str, float]:
    """Measures how close a rendering comes to the recording of an example.

    Args:
        example: What was played, with its recording.
        rendering: Its rendering, float `[n]`, full scale ±1.
        sample_rate: Samples per second of both.

    Returns:
        The numbers of `metrics.compare`, with those of `multipitch.compare` in place of the pitch accuracy where the
        example is polyphonic, since that is told by a tracker of one pitch. Empty where there is no recording.
    """
    if example.reference is None:
        return {}
    if not example.is_polyphonic:
        return metrics.compare(example.reference, rendering, sample_rate)
    numbers = metrics.compare(example.reference, rendering, sample_rate, is_monophonic=False)
    return numbers | multipitch.compare(example.piece, example.reference, rendering, sample_rate)


def _play(instrument: Player, example: Example) -> np.ndarray:
    n_samples = len(example.reference) if example.is_excerpt and example.reference is not None else None
    samples = instrument.render(example.piece, n_samples=n_samples)
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples))) / instrument.sample_rate
        raise DataError(f"{example.name}: the instrument plays NaN at {first:.1f} s. Train it again.")
    return samples


def _play_and_measure(
    instrument: Player, example: Example, is_pictured: bool, perceived: bool
) -> tuple[Result, np.ndarray]:
    begun = time.perf_counter()
    rendering = _play(instrument, example)
    numbers = {"real_time_factor": len(rendering) / instrument.sample_rate / (time.perf_counter() - begun)}
    numbers |= measure(example, rendering, instrument.sample_rate)
    if perceived and example.reference is not None:
        quality = metrics.perceived_quality(example.reference, rendering, instrument.sample_rate)
        numbers["perceived_quality"] = quality
    sounds = {"instrument": rendering}
    if example.reference is not None:
        sounds = {"reference": example.reference, "instrument": rendering}
    themes = _THEMES if is_pictured else {}
    result = Result(
        name=example.name,
        seconds=len(rendering) / instrument.sample_rate,
        numbers=numbers,
        sounds=sounds if is_pictured else {},
        pictures={
            theme_name: pictures.example_picture(
                example.piece, rendering, example.reference, instrument.sample_rate, instrument.styles, theme
            )
            for theme_name, theme in themes.items()
        },
    )
    return result, rendering


def _write_files(result: Result, folder: pathlib.Path, stem: str, sample_rate: int) -> None:
    for name, samples in result.sounds.items():
        suffix = "" if name == "instrument" else f"_{name}"
        write_audio(folder / "sounds" / f"{stem}{suffix}.wav", samples, sample_rate)
    _write_pictures(result.pictures, folder, stem)


def _write_attacks(attacks: Sequence[Attack], folder: pathlib.Path, stem: str, sample_rate: int) -> dict[str, bytes]:
    """Draws them, and returns name of the theme → picture; nothing where there are none."""
    themes = _THEMES if attacks else {}
    drawn = {name: pictures.attacks(attacks, sample_rate, theme) for name, theme in themes.items()}
    _write_pictures(drawn, folder, stem)
    return drawn


def _write_pictures(drawn: Mapping[str, bytes], folder: pathlib.Path, stem: str) -> None:
    for name, picture in drawn.items():
        suffix = "" if name == "light" else f"_{name}"
        path = folder / "pictures" / f"{stem}{suffix}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)


def _summary(results: list[Result], sample_rate: int, title: str) -> dict[str, Any]:
    """Returns what `report.json` holds; JSON has no NaN."""

    def number(value: float) -> float | None:
        return round(float(value), 6) if math.isfinite(value) else None

    names, means = keys(results), mean(results)
    return {
        "instrument": title,
        "sample_rate": sample_rate,
        "mean": {key: number(means[key]) for key in names},
        "examples": [
            {"name": result.name, "seconds": round(result.seconds, 6)}
            | {key: number(result.numbers.get(key, math.nan)) for key in names}
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
