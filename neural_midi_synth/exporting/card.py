"""What an instrument is, as a card in the terminal."""

from __future__ import annotations

import os
from typing import Any

from neural_midi_synth.evaluation.pictures import note_name
from neural_midi_synth.instrument.portable import name_of


def lines(source: str | os.PathLike, facts: dict[str, Any]) -> list[str]:
    """Says what an instrument is, for a terminal.

    Args:
        source: Its folder or file.
        facts: What `instrument.json` in a file tells, or `instrument_facts` of a folder.

    Returns:
        Lines of text. What somebody wrote into the facts is shown without control characters.
    """
    learnt, training, verdict = (_dict(facts.get(name)) for name in ("trained_on", "training", "verdict"))
    rows: list[tuple[str, str]] = [("file", os.fspath(source))]
    rate, hop = facts.get("sample_rate"), facts.get("hop")
    rows.append(("sound", f"{rate} Hz, {facts.get('frame_rate')} control frames a second (hop {hop})"))
    rows.append(("live", "yes" if facts.get("live") else "no: it is told notes beforehand"))
    pitch, velocity = _dict(learnt.get("pitch")), _dict(learnt.get("velocity"))
    if pitch:
        low, high = (note_name(round(float(pitch[end]))) for end in ("minimum", "maximum"))
        rows.append(("range", f"{low} to {high}"))
    if velocity:
        rows.append(("velocities", f"{velocity.get('minimum'):g} to {velocity.get('maximum'):g}"))
    of_styles = _dict(learnt.get("styles"))
    for style, number in _dict(facts.get("styles")).items():
        of = _dict(of_styles.get(style))
        heard = f", learnt from {of['minimum']:g} to {of['maximum']:g}" if of else ""
        rows.append((f"style {style}", f"CC{number}{heard}"))
    if facts.get("parameters"):
        rows.append(("weights", f"{facts['parameters']:,}"))
    if training:
        steps = f"{training.get('steps', '?')} steps, {training.get('minutes', '?')} minutes"
        rows.append(("training", f"{steps}, {len(learnt.get('takes', []))} takes"))
    inspection = _dict(learnt.get("inspection"))
    if inspection:
        ignored = " (warnings were ignored)" if inspection.get("ignored") else ""
        rows.append(("takes", f"{inspection.get('verdict')}: {inspection.get('message')}{ignored}"))
    rows.append(("verdict", str(verdict.get("message", "not evaluated: nms_evaluate tells how near it comes"))))
    rows.append(("licence", str(facts.get("licence") or "not stated")))
    title = name_of(source)
    width = max(len(name) for name, _ in rows)
    return [_plain(line) for line in (title, "", *(f"{name:>{width}}  {text}" for name, text in rows))]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _plain(text: str) -> str:
    """The text without what would move a terminal's cursor or colour it, and not longer than a few lines."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:500]
