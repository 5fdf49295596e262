"""How near the sound of an instrument comes, beside how near the player comes to himself, and beside the last table.

    python benchmarks/sound.py --minutes 10
    python benchmarks/sound.py my_takes/ my_takes/examples/ --steps 2000 --gin_param Decoder.units=128
    python benchmarks/sound.py --instrument runs/my_guitar my_takes/ my_takes/examples/

Trains on the takes (the demo guitar's unless given) and measures on the examples, MIDI files each with a recording of
the same name, or measures an instrument that is there. Tables, reports and instruments are kept in out/sound/.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from neural_midi_synth import configs, environment
from neural_midi_synth.errors import DataError

OUT = pathlib.Path(__file__).resolve().parents[1] / "out" / "sound"
TABLES = "tables.json"
_COLUMNS = ("measure", "instrument", "90 %", "the player", "multiple", "last", "last multiple")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("takes", nargs="?", help="Folder of takes or a Reaper project; the demo guitar's unless given.")
    parser.add_argument("examples", nargs="?", help="Folder of MIDI files with recordings; examples/ of the takes.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="How long to train; 10 unless given.")
    length.add_argument("--steps", type=int, help="How many steps to train, so that busy machines compare.")
    length.add_argument("--instrument", help="Folder of an instrument that is measured, without training.")
    parser.add_argument("--gin_file", action="append", help="As of nms_train; may be repeated.")
    parser.add_argument("--gin_param", action="append", default=[], help="As of nms_train; may be repeated.")
    parser.add_argument("--name", help="What the table is called; unless given, by the day and time.")
    parser.add_argument("--last", help="Table to compare with; unless given, the last one of the same examples.")
    parser.add_argument("--perceived", action="store_true", help="Measure the perceived quality too, as nms_evaluate.")
    parser.add_argument("--out", default=str(OUT), help="Where tables, reports and instruments are kept.")
    return parser.parse_args(words)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains, unless there is an instrument, and measures; returns what the table is made of."""
    environment.import_tensorflow_quietly()
    from neural_midi_synth.commands.train import DEFAULT_CONFIG
    from neural_midi_synth.data_prep import midi_audio
    from neural_midi_synth.evaluation.comparing import evaluate
    from neural_midi_synth.evaluation.examples import examples_in
    from neural_midi_synth.instrument.loading import configure, load
    from neural_midi_synth.training.loop import train

    out = pathlib.Path(options.out)
    takes = pathlib.Path(options.takes or midi_audio.DEMO_GUITAR)
    examples = pathlib.Path(options.examples or takes / "examples")
    folder = out / options.name
    files = [configs.find(name) for name in options.gin_file or [DEFAULT_CONFIG]]
    facts: dict[str, Any] = {"name": options.name, "measured_on": str(examples.resolve())}
    if options.instrument:
        instrument = load(options.instrument)
        builder = midi_audio.build(takes, out / "data")  # As gin has it now: as the instrument was trained.
    else:
        params = [*options.gin_param, *([f"nms.train.steps = {options.steps}"] if options.steps else [])]
        configure(files, params)
        builder = midi_audio.build(takes, out / "data")
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        train(builder, folder / "instrument", max_minutes=None if options.steps else options.minutes or 10.0)
        facts |= {"minutes": round((time.perf_counter() - begun) / 60.0, 2), "gin": [*map(str, files), *params]}
        instrument = load(folder / "instrument")
    facts["parameters"] = instrument.count_params()
    played = examples_in(examples, instrument.sample_rate)
    report = folder / "report"
    return facts | evaluate(instrument, played, report, options.name, builder.data_dir, options.perceived)


def rows(now: Mapping[str, Any], last: Mapping[str, Any] | None) -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table: first those of whole examples, then those of notes."""
    from neural_midi_synth.evaluation.likeness import NOTE_MEASURES
    from neural_midi_synth.evaluation.results import MEASURES

    for name, of in MEASURES.items():
        values = [(table or {}).get("mean", {}).get(name) for table in (now, last)]
        if values[0] is not None:
            yield of.title, of.text(values[0]), "", "", "", of.text(values[1]), ""
    for name, of in NOTE_MEASURES.items():
        ours, before = ((table or {}).get("notes", {}).get("measures", {}).get(name, {}) for table in (now, last))
        texts = [of.text(ours.get(key)) for key in ("median", "p90", "player_median")]
        yield (
            of.title,
            *texts,
            _times(ours.get("multiple")),
            of.text(before.get("median")),
            _times(before.get("multiple")),
        )
    for name, title, unit in (
        ("stretch_cents", "Stretch itself", " cents"),
        ("decay_seconds", "Decay of 60 dB", " s"),
        ("flux_share", "Movement as a share", " ×"),
        ("rise_later_ms", "Rises later by", " ms"),
    ):
        ours, before = ((table or {}).get("notes", {}).get(name) for table in (now, last))
        yield (
            title,
            _plain(ours, "instrument", unit),
            "",
            _plain(ours, "recording", unit),
            "",
            _plain(before, "instrument", unit),
            "",
        )


def _plain(value: Any, key: str, unit: str) -> str:
    """Writes a number that stands in a dict for instrument and recording, or by itself for the instrument alone."""
    if isinstance(value, Mapping):
        value = value[key]["median"] if isinstance(value[key], Mapping) else value[key]
    elif key == "recording":
        return ""
    return "–" if value is None else f"{value:.2f}{unit}"


def _times(multiple: float | None) -> str:
    return "–" if multiple is None else f"{multiple:.2f} ×"


def table(now: Mapping[str, Any], last: Mapping[str, Any] | None) -> str:
    """Returns the table as lines of text."""
    cells = [_COLUMNS, *rows(now, last)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def main(words: list[str] | None = None) -> None:
    """Measures, prints the table, and keeps it."""
    options = arguments(words)
    options.name = options.name or time.strftime("%Y-%m-%d_%H-%M-%S")
    kept = pathlib.Path(options.out) / TABLES
    tables = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if options.last and options.last not in tables:
        raise DataError(f"{kept}: has no table {options.last}, only {', '.join(tables) or 'none'}.")
    now = measure(options)
    of_same = [
        each for each in tables.values() if each["measured_on"] == now["measured_on"] and each["name"] != now["name"]
    ]
    last = tables[options.last] if options.last else (of_same[-1] if of_same else None)
    print(f"\n{table(now, last)}\n\nlast: {last['name'] if last else 'none'}")
    tables.pop(options.name, None)
    kept.write_text(json.dumps({**tables, options.name: now}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"sound.py: {error}")
