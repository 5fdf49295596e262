"""The verdict: in words, how near an instrument comes to its player, by what one hears it, and what to record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neural_midi_synth.evaluation.likeness import NOTE_MEASURES, Likeness, distances
from neural_midi_synth.evaluation.pictures import note_name

# The instrument's difference from the recording as a multiple of the player's own difference from himself.
HEARD = 1.5
"""From here on a difference is named: it is larger than what the player himself makes of the same note."""
NEAR, RECOGNISED = 2.5, 5.0
"""Up to which multiple of tone and loudness an instrument is near, and up to which it is recognised."""
LOWEST_PITCH_ACCURACY = 0.9
_MOST_FAULTS = 3
_MOST_ADVICE = 4
# Notes of one kind are asked for if there are so many of them, and they are this much worse than all notes.
_FEWEST_OF_A_KIND = 8
_WORSE = 1.4
_REGISTERS = 3

# What is wrong with what, where the instrument has less of it than the recording, and where it has more.
_FAULTS = {
    "log_mel": ("the tone", ("is off",) * 2),
    "envelope": ("the loudness", ("is off",) * 2),
    "rise": ("attacks", ("are harder than recorded", "are blurred")),
    "click": ("attacks", ("have another colour",) * 2),
    "stretch": ("high partials", ("lie too low", "lie too high")),
    "flux": ("held notes", ("are too still", "are too restless")),
    "decay": ("held notes", ("die away too soon", "ring too long")),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be thought of an instrument.

    Attributes:
        verdict: "taken for the recording", "near", "recognised", "far off"; "unknown" where there is nothing to tell.
        message: The same as a sentence, with what gives it away, the worst first.
        faults: The measures that give it away -> the instrument's difference as a multiple of the player's, or of a
            usual player's in what this one does not play twice.
        against: "the player" where notes are played twice; "a usual player" where none is.
        record: What to record more of, the most important first.
    """

    verdict: str
    message: str
    faults: dict[str, float]
    against: str
    record: list[str]

    def facts(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return dataclasses.asdict(self)


def judge(
    notes: Likeness, styles: Sequence[str], pitch_accuracy: float = math.nan, advice: Sequence[str] = ()
) -> Verdict:
    """Tells from the measures how near an instrument comes.

    Args:
        notes: What was measured.
        styles: Names of the instrument's styles, in the order of its notes.
        pitch_accuracy: 0 to 1; NaN where there is none.
        advice: What the takes lack, whatever the instrument sounds like.
    """
    figures = notes.facts()["measures"]
    multiples = {}
    for name, measure in NOTE_MEASURES.items():
        if figures[name].get("multiple") is not None:
            multiples[name] = figures[name]["multiple"]
        elif figures[name]["median"] is not None:
            multiples[name] = max(figures[name]["median"], measure.resolution) / measure.usual
    against = "the player" if figures["log_mel"].get("multiple") is not None else "a usual player"
    if not multiples:
        return Verdict("unknown", "No note was compared with a recording of it.", {}, against, list(advice))
    faults = dict(
        sorted(((name, each) for name, each in multiples.items() if each > HEARD), key=lambda fault: -fault[1])
    )
    out_of_tune = pitch_accuracy < LOWEST_PITCH_ACCURACY
    said: dict[str, list[str]] = {}  # of what → what is wrong with it
    for name in list(faults)[: _MOST_FAULTS - out_of_tune]:
        subject, ways = _FAULTS[name]
        said.setdefault(subject, []).append(ways[int(_has_more(name, notes))])
    phrases = ["the pitch is off"] if out_of_tune else []
    phrases += [f"{subject} {' and '.join(ways)}" for subject, ways in said.items()]
    worst = max(multiples.get("log_mel", 0.0), multiples.get("envelope", 0.0))
    if worst > RECOGNISED or pitch_accuracy < 0.5:
        verdict = "far off"
    elif worst > NEAR or out_of_tune:
        verdict = "recognised"
    else:
        verdict = "near" if faults else "taken for the recording"
    message = verdict.capitalize() + (f": {_and(phrases)}." if phrases else ".")
    if against != "the player":
        message += " (Beside a usual player: no note is played twice.)"
    record = [*_worst_notes(notes, faults, styles), *advice][:_MOST_ADVICE]
    return Verdict(verdict, message, {name: round(each, 3) for name, each in faults.items()}, against, record)


def _has_more(name: str, notes: Likeness) -> bool:
    """Tells whether the instrument has more of something than the recording."""
    measured = notes.instrument
    if name == "flux":
        return bool(np.nanmedian(measured["flux"]) > 1.0)
    if name in ("rise", "stretch", "decay"):
        return bool(np.nanmedian(measured[name] - measured[f"reference_{name}"]) > 0.0)
    return True


def _worst_notes(notes: Likeness, faults: Mapping[str, float], styles: Sequence[str]) -> Iterator[str]:
    """Tells for each fault which kind of notes has most of it, where one stands out."""
    apart, told = distances(notes.instrument), set()
    kinds = dict(_kinds(notes, styles))
    for name in faults:
        values = apart[name]
        least = _WORSE * max(float(np.nanmedian(values)), NOTE_MEASURES[name].resolution)
        medians = {
            kind: float(np.nanmedian(values[inside]))
            for kind, inside in kinds.items()
            if np.isfinite(values[inside]).sum() >= _FEWEST_OF_A_KIND
        }
        kind = max(medians, key=medians.__getitem__, default=None)
        if kind is not None and medians[kind] > least and kind not in told:
            told.add(kind)
            subject, ways = _FAULTS[name]
            yield f"Record more {kind}: {subject} {ways[int(_has_more(name, notes))]} there above all."


def _kinds(notes: Likeness, styles: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields kinds of notes in words, and which notes are of that kind, bool `[n]`."""
    pitches, velocities, lengths, values = (
        np.concatenate([getattr(each, name) for each in notes.notes])
        for name in ("pitches", "velocities", "lengths", "styles")
    )
    everything = np.ones(len(pitches), bool)
    edges = np.linspace(pitches.min(), pitches.max() + 1.0, _REGISTERS + 1).round().astype(int)
    registers = [
        (f" from {note_name(low)} to {note_name(high - 1)}", (pitches >= low) & (pitches < high))
        for low, high in zip(edges[:-1], edges[1:])
        if high > low
    ]
    kinds = [("soft notes", velocities < 64.0), ("loud notes", velocities >= 90.0)]
    kinds += [("short notes", lengths < 0.25), ("long notes", lengths >= 0.8)]
    for name, value in zip(styles, values.T):
        style = name.replace("_", " ")
        kinds += [(f"notes with low {style}", value < 64.0), (f"notes with high {style}", value > 64.0)]
    for register, inside in registers:
        yield f"notes{register}", inside
    for kind, of_kind in kinds:
        for register, of_register in [("", everything), *registers]:
            yield f"{kind}{register}", of_kind & of_register


def _and(phrases: Sequence[str]) -> str:
    *before, last = phrases
    if not before:
        return last
    return f"{', '.join(before)}{',' * any(' and ' in phrase for phrase in phrases)} and {last}"
