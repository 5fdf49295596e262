"""Results of an evaluation: which numbers there are, what they mean, their mean, and their table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Measure:
    """How one number is called, written and explained.

    Attributes:
        title: What it is called in tables.
        unit: Written after the number.
        decimals: How many are written.
        scale: What the number is multiplied by before it is written.
        better: Which way is better, in words.
        explanation: What it says, for the page.
        of_reference: Name of the same measure of the recording itself, which is written beside it; or None.
        is_optional: Whether reports leave it out where no example has it, as those of one voice do what is of chords.
    """

    title: str
    unit: str
    decimals: int
    scale: float
    better: str
    explanation: str
    of_reference: str | None = None
    is_optional: bool = False

    def text(self, value: float | None) -> str:
        """Returns the value as it is printed in tables, a dash where there is none."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{self.scale * value:.{self.decimals}f}{self.unit}"


MEASURES = {
    "spectral_loss": Measure(
        "Spectral loss",
        "",
        2,
        1.0,
        "lower is better",
        "What training makes small: how much the two sounds' spectra differ, linearly and in logarithm, looked at "
        "through six window lengths. It has no unit; compare it between instruments on the same examples only.",
    ),
    "log_mel_db": Measure(
        "Log-mel difference",
        " dB",
        1,
        1.0,
        "lower is better",
        "How far the tone is off: the mean difference in level over time and 80 bands spaced as the ear hears pitch. "
        "Whatever is more than 80 dB below the reference's peak counts as silence.",
    ),
    "envelope_db": Measure(
        "Envelope difference",
        " dB",
        1,
        1.0,
        "lower is better",
        "How far the loudness is off from moment to moment. Whatever is more than 60 dB below the reference's loudest "
        "moment counts as silence.",
    ),
    "pitch_accuracy": Measure(
        "Pitch accuracy",
        " %",
        0,
        100.0,
        "higher is better",
        "Where the reference has a pitch, how often the instrument plays the same one, to within half a semitone "
        "either way, as the pitch tracker pYIN finds it in both. For examples of one voice only.",
    ),
    "multipitch_precision": Measure(
        "Multi-pitch precision",
        " %",
        0,
        100.0,
        "higher is better",
        "For chords: how many of the pitches that are found in the instrument's sound, every 32 ms, are within half a "
        "semitone of a note that lasts there. In brackets the same of the recording, which no instrument has to beat: "
        "octaves hide in each other, and strings ring on.",
        of_reference="reference_multipitch_precision",
        is_optional=True,
    ),
    "multipitch_recall": Measure(
        "Multi-pitch recall",
        " %",
        0,
        100.0,
        "higher is better",
        "For chords: how many of the notes, every 32 ms while they last, are found in the instrument's sound. In "
        "brackets the same of the recording.",
        of_reference="reference_multipitch_recall",
        is_optional=True,
    ),
    "multipitch_f": Measure(
        "Multi-pitch F",
        " %",
        0,
        100.0,
        "higher is better",
        "Both in one number, their harmonic mean. In brackets the same of the recording.",
        of_reference="reference_multipitch_f",
        is_optional=True,
    ),
    "multipitch_share": Measure(
        "F of the recording's",
        " %",
        0,
        100.0,
        "higher is better",
        "The instrument's F as a share of what the recording itself gets: at 100 % its chords are as "
        "clear as recorded.",
        is_optional=True,
    ),
    "perceived_quality": Measure(
        "Perceived quality",
        "",
        2,
        1.0,
        "higher is better",
        "What listeners would give the instrument beside the recording, from 1, bad, to about 4.7, the recording "
        "itself, as ViSQOL predicts it.",
        is_optional=True,
    ),
    "real_time_factor": Measure(
        "Speed",
        " ×",
        1,
        1.0,
        "higher is better",
        "Seconds of sound made in one second on the computer that made this page; above 1 is faster than real time.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One example as it was played and measured.

    Attributes:
        name: What the example is called.
        seconds: Its length.
        numbers: Key of `MEASURES`, or what one has as `of_reference` -> value; NaN, or no key, where there is no such
            number.
        sounds: "reference" and "instrument" -> mono samples, float32, full scale ±1. Empty: numbers only.
        pictures: "light" and "dark" -> PNG bytes. Empty: numbers only.
    """

    name: str
    seconds: float
    numbers: Mapping[str, float]
    sounds: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def keys(results: Sequence[Result]) -> list[str]:
    """Returns the names of the numbers that a report of these results has, in order.

    Those that are optional are among them where any result has them.
    """
    shown = []
    for key, measure in MEASURES.items():
        if not measure.is_optional or any(key in result.numbers for result in results):
            shown += [key] if measure.of_reference is None else [key, measure.of_reference]
    return shown


def mean(results: Sequence[Result]) -> dict[str, float]:
    """Returns the mean of each number over the results that have it; NaN where none has.

    Speed is not averaged but taken over all: seconds of sound over seconds of rendering.
    """
    means = {}
    for key in keys(results):
        weighted = [(result.numbers[key], result.seconds) for result in results if _has(result, key)]
        if not weighted:
            means[key] = math.nan
        elif key == "real_time_factor":
            means[key] = sum(seconds for _, seconds in weighted) / sum(seconds / speed for speed, seconds in weighted)
        else:
            means[key] = sum(value for value, _ in weighted) / len(weighted)
    return means


def columns(results: Sequence[Result]) -> dict[str, Measure]:
    """Returns the measures that any of the results has."""
    return {key: measure for key, measure in MEASURES.items() if any(_has(result, key) for result in results)}


def texts_of(measures: Mapping[str, Measure], numbers: Mapping[str, float]) -> list[str]:
    """Returns a row of a table; see `text_of`."""
    return [text_of(key, measure, numbers) for key, measure in measures.items()]


def text_of(key: str, measure: Measure, numbers: Mapping[str, float]) -> str:
    """Writes a number, and that of the recording itself in brackets where there is one."""
    text = measure.text(numbers.get(key))
    beside = numbers.get(measure.of_reference or "", math.nan)
    return f"{text} ({measure.text(beside)})" if math.isfinite(beside) else text


def table(results: Sequence[Result]) -> str:
    """Returns the numbers as lines of text, a row for each result and one for their mean."""
    measures = columns(results)
    rows = [["example", *(measure.title for measure in measures.values())]]
    rows += [[result.name, *texts_of(measures, result.numbers)] for result in results]
    rows += [["mean", *texts_of(measures, mean(results))]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    rule = "─" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _has(result: Result, key: str) -> bool:
    return math.isfinite(result.numbers.get(key, math.nan))
