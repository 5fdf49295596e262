"""Likeness: how near an instrument comes to each note of a recording, beside how near the player comes to himself."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.evaluation.examples import Example
from neural_midi_synth.evaluation.note_metrics import LEAD_SECONDS, compare_notes
from neural_midi_synth.evaluation.renditions import Notes, notes_of, renditions_among, renditions_in

FEWEST_PAIRS = 8
"""Of fewer notes that are played twice, nothing is concluded."""

ATTACK_SECONDS = 0.05
"""Of a note that are drawn."""

_COVERED_RISE = -5.0  # ms: a clip that is loud before this begins with the note before.


@dataclasses.dataclass(frozen=True)
class NoteMeasure:
    """How far two sounds of one note are apart in one respect.

    Attributes:
        title: What it is called in tables.
        unit: Written after the number.
        decimals: How many are written.
        resolution: Differences that are smaller count as this much: they are not heard, or not measured.
        usual: The median of a guitarist who plays a note twice, for comparison where nobody does.
        explanation: What it says, for the page.
    """

    title: str
    unit: str
    decimals: int
    resolution: float
    usual: float
    explanation: str

    def text(self, value: float | None) -> str:
        """Returns the value as it is printed in tables, a dash where there is none."""
        return "–" if value is None or not math.isfinite(value) else f"{value:.{self.decimals}f}{self.unit}"


NOTE_MEASURES = {
    "log_mel": NoteMeasure("Tone", " dB", 1, 0.5, 3.0, "Log-mel difference over the note, as for whole examples."),
    "envelope": NoteMeasure(
        "Loudness", " dB", 1, 0.3, 0.8, "Envelope difference over the note, as for whole examples."
    ),
    "rise": NoteMeasure(
        "Rise",
        " ms",
        1,
        1.0,
        1.0,
        "How much earlier or later the note has risen: the time from its onset until the level over 1 ms is half of "
        "the highest within 150 ms.",
    ),
    "click": NoteMeasure(
        "Click",
        " dB",
        1,
        0.5,
        3.0,
        "How much the spectra of the first 25 ms differ when their levels are made equal: the sound of the pick.",
    ),
    "stretch": NoteMeasure(
        "Stretch",
        " cents",
        1,
        2.0,
        2.0,
        "How far apart partials 6 to 16 of notes of 0.6 s and more are, each measured against multiples of the first. "
        "Those of stiff strings lie above them.",
    ),
    "flux": NoteMeasure(
        "Movement",
        " %",
        0,
        5.0,
        15.0,
        "How much more, or less, the spectrum moves while a note of 0.6 s and more is held, in 40 bands every 16 ms.",
    ),
    "decay": NoteMeasure(
        "Decay",
        " dB/s",
        1,
        1.0,
        3.0,
        "How much faster, or slower, bands an octave wide die away while a note of 0.6 s and more is held.",
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Attack:
    """How a note that sounds alone sets in.

    Attributes:
        pitch: MIDI note number.
        recorded: float `[n]`, from `LEAD_SECONDS` before the onset to `ATTACK_SECONDS` after it.
        played: The instrument's, likewise.
    """

    pitch: float
    recorded: np.ndarray
    played: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Likeness:
    """The notes of several examples, measured.

    Attributes:
        instrument: What `compare_notes` gives for the recording and the instrument, of n notes.
        player: The same for the recording and the player's nearest other rendition; NaN for notes that have none.
        beside_player: As `instrument`, of just those notes and stretches of them that `player` has.
        notes: What notes these are, one `Notes` for each example.
        from_takes: Whether the other renditions are from the takes, not from the examples themselves.
        attacks: Of those notes that have a pitch of their own and follow no other.
    """

    instrument: Mapping[str, np.ndarray]
    player: Mapping[str, np.ndarray]
    beside_player: Mapping[str, np.ndarray]
    notes: Sequence[Notes]
    from_takes: bool
    attacks: Sequence[Attack]

    def facts(self) -> dict[str, Any]:
        """Returns the figures as JSON has them: `notes`, `played_twice`, `from_takes` and `measures`.

        Of each measure there are `median` and `p90` of the instrument over all notes, `player_median` and `player_p90`
        of the player over the notes he plays twice, and `multiple`, the instrument's median as a multiple of the
        player's over just the same notes, cut alike. `flux_share` is the movement of the instrument as a share of the
        recording's; `stretch_cents` and `decay_seconds` (to fall by 60 dB) are told of both, as `instrument` and
        `recording`.
        """
        ours, theirs, beside = map(distances, (self.instrument, self.player, self.beside_player))
        measures = {name: _figures(ours[name], theirs[name], beside[name], of) for name, of in NOTE_MEASURES.items()}
        measured = self.instrument
        twice = int(np.isfinite(theirs["log_mel"]).sum())
        return {
            "notes": len(measured["rise"]),
            "played_twice": twice,
            "from_takes": self.from_takes,
            "measures": measures,
            "flux_share": _number(_median(measured["flux"])),
            "rise_later_ms": _number(_median(measured["rise"] - measured["reference_rise"])),
            "stretch_cents": {
                "instrument": _median_and_90(measured["stretch"]),
                "recording": _median_and_90(measured["reference_stretch"]),
            },
            "decay_seconds": {
                "instrument": _number(_seconds(measured["decay"])),
                "recording": _number(_seconds(measured["reference_decay"])),
            },
        }


def likeness(
    examples: Sequence[Example],
    renderings: Sequence[np.ndarray],
    sample_rate: int,
    styles: Mapping[str, int],
    takes: str | os.PathLike | None = None,
) -> Likeness:
    """Measures the notes of examples that have recordings.

    Args:
        examples: What was played.
        renderings: How the instrument played them, float `[n]` each.
        sample_rate: Samples per second.
        styles: Style name → control change number.
        takes: Folder of the data set that has the player's takes; unless given, other renditions of notes are looked
            for in the recordings of the examples themselves.
    """
    pairs = [
        (example, sound) for example, sound in zip(examples, renderings, strict=True) if example.reference is not None
    ]
    examples = [example for example, _ in pairs]
    notes = [notes_of(each.piece, len(each.reference) / sample_rate, styles) for each in examples]
    if takes is None:
        renditions = renditions_among(examples, notes, sample_rate)
    else:
        renditions = renditions_in(takes, notes, sample_rate, styles)
    instrument, player, beside, attacks = [], [], [], []
    size = round((LEAD_SECONDS + ATTACK_SECONDS) * sample_rate)
    for (example, rendering), found, twice in zip(pairs, notes, renditions):
        n_samples = len(example.reference)
        rendering = np.pad(rendering, (0, max(0, n_samples - len(rendering))))[:n_samples]
        recorded, played = (found.clips(sound, sample_rate) for sound in (example.reference, rendering))
        pitches = found.lone_pitches
        attacks += [
            Attack(float(pitch), clip[:size], ours[:size])
            for pitch, follows, clip, ours in zip(pitches, found.follows, recorded, played)
            if np.isfinite(pitch) and not follows and len(clip) >= size
        ]
        instrument.append(compare_notes(recorded, played, pitches, sample_rate))
        player.append(_clear(_compare_some(recorded, twice.clips, pitches, sample_rate)))
        cut = [None if other is None else clip[: len(other)] for clip, other in zip(played, twice.clips)]
        beside.append(_compare_some(recorded, cut, pitches, sample_rate))
    return Likeness(_joined(instrument), _joined(player), _joined(beside), notes, takes is not None, attacks)


def distances(measured: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns how far two renditions of each of n notes are apart, in the unit of each of `NOTE_MEASURES`, `[n]`."""
    apart = {name: measured[name] for name in ("log_mel", "envelope", "click")}
    apart["rise"] = np.abs(measured["rise"] - measured["reference_rise"])
    with np.errstate(divide="ignore"):
        apart["flux"] = 100.0 * np.expm1(np.abs(np.log(measured["flux"])))
    apart["stretch"] = _row_medians(np.abs(measured["stretch"] - measured["reference_stretch"]))
    apart["decay"] = _row_medians(np.abs(measured["decay"] - measured["reference_decay"]))
    return apart


def _compare_some(
    recorded: Sequence[np.ndarray], others: Sequence[np.ndarray | None], pitches: np.ndarray, sample_rate: int
) -> dict[str, np.ndarray]:
    """Compares the notes that have another clip; the numbers of the rest are NaN."""
    some = [index for index, other in enumerate(others) if other is not None]
    measured = compare_notes(
        [recorded[index] for index in some], [others[index] for index in some], pitches[some], sample_rate
    )
    filled = {}
    for name, values in measured.items():
        filled[name] = np.full([len(recorded), *values.shape[1:]], np.nan)
        filled[name][some] = values
    return filled


def _clear(measured: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes the attacks away that a note before them covers: in two renditions it is another note."""
    covered = ~(np.minimum(measured["rise"], measured["reference_rise"]) > _COVERED_RISE)
    return measured | {name: np.where(covered, np.nan, measured[name]) for name in ("rise", "click")}


def _joined(measured: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    measured = measured or [compare_notes([], [], [], 1)]
    return {name: np.concatenate([each[name] for each in measured]) for name in measured[0]}


def _figures(ours: np.ndarray, theirs: np.ndarray, beside: np.ndarray, measure: NoteMeasure) -> dict[str, float | None]:
    figures = {"median": _median(ours), "p90": _percentile(ours, 90)}
    both = np.isfinite(beside) & np.isfinite(theirs)
    if both.sum() < FEWEST_PAIRS:
        return {name: _number(value) for name, value in figures.items()}
    figures |= {"player_median": _median(theirs[both]), "player_p90": _percentile(theirs[both], 90)}
    least = measure.resolution
    figures["multiple"] = max(_median(beside[both]), least) / max(_median(theirs[both]), least)
    return {name: _number(value) for name, value in figures.items()}


def _median(values: np.ndarray) -> float:
    return _percentile(values, 50)


def _percentile(values: np.ndarray, percent: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.percentile(values, percent)) if values.size else math.nan


def _median_and_90(values: np.ndarray) -> dict[str, float | None]:
    return {"median": _number(_median(values)), "p90": _number(_percentile(values, 90))}


def _seconds(rates: np.ndarray) -> float:
    """Returns the median time to fall by 60 dB, s; what grows louder has none."""
    rate = _median(rates)
    return -60.0 / rate if rate < 0.0 else math.nan


def _row_medians(values: np.ndarray) -> np.ndarray:
    """Returns the median of the numbers in each row, NaN where there is none."""
    medians = np.full(len(values), np.nan)
    some = np.isfinite(values).any(axis=1)
    medians[some] = np.nanmedian(values[some], axis=1)
    return medians


def _number(value: float) -> float | None:
    """Returns a number for JSON, which has no NaN."""
    return round(value, 6) if math.isfinite(value) else None


def note_texts(facts: Mapping[str, Any], name: str) -> list[str]:
    """Writes a measure's figures: the instrument's median and 90 %, the player's, the multiple, and what is behind.

    Args:
        facts: What `Likeness.facts` tells.
        name: Key of `NOTE_MEASURES`.
    """
    figures, measure = facts["measures"][name], NOTE_MEASURES[name]
    multiple = figures.get("multiple")
    return [
        *(measure.text(figures.get(key)) for key in ("median", "p90", "player_median", "player_p90")),
        "–" if multiple is None else f"{multiple:.2f} ×",
        _behind(facts, name),
    ]


def _behind(facts: Mapping[str, Any], name: str) -> str:
    """Writes which way the instrument differs from the recording, where that is one number."""
    if name == "rise" and facts["rise_later_ms"] is not None:
        return f"{abs(facts['rise_later_ms']):.1f} ms {'later' if facts['rise_later_ms'] > 0.0 else 'earlier'}"
    if name == "flux" and facts["flux_share"] is not None:
        return f"{100.0 * facts['flux_share']:.0f} % of its movement"
    if name == "stretch":
        ours, theirs = (facts["stretch_cents"][whose]["median"] for whose in ("instrument", "recording"))
        return "" if ours is None or theirs is None else f"{ours:+.1f} cents, not {theirs:+.1f}"
    if name == "decay":
        ours, theirs = (facts["decay_seconds"][whose] for whose in ("instrument", "recording"))
        return "" if ours is None or theirs is None else f"60 dB in {ours:.1f} s, not {theirs:.1f} s"
    return ""


def table_of_notes(facts: Mapping[str, Any]) -> str:
    """Returns the figures of `Likeness.facts` as lines of text, a row for each measure."""
    rows = [["note by note", "instrument", "90 %", "the player", "90 %", "multiple", "beside the recording"]]
    rows += [[measure.title, *note_texts(facts, name)] for name, measure in NOTE_MEASURES.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])
