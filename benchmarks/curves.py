"""How near the sound comes by how long it is trained, and by how many takes there are: two curves, a picture, a table.

    python benchmarks/curves.py --plot docs/curves.png
    python benchmarks/curves.py my_takes/ my_takes/examples/ --steps 300 3000 --takes 1 10

Each point is a training of its own, measured as `sound.py` measures it, on the same examples; what is in out/curves/
already is not trained again. The six of the demo guitar take forty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import librosa
import matplotlib.pyplot as plt
import sound

from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR
from neural_midi_synth.files.audio import RECORDING_SUFFIXES

OUT = sound.OUT.parent / "curves"
_STEPS, _TAKES = (300, 600, 1500, 3000), (1, 3)
_COLUMNS = ("minutes of takes", "steps", "log-mel", "envelope", "pitch", "rise, median / 90 %", "movement")


def main(words: list[str] | None = None) -> None:
    """Trains what is not there yet, prints the table, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=pathlib.Path, default=DEMO_GUITAR, help="folder of takes")
    parser.add_argument("examples", nargs="?", type=pathlib.Path, help="examples/ of the takes unless given")
    parser.add_argument("--steps", type=int, nargs="+", default=_STEPS, help="how long it is trained on all takes")
    parser.add_argument("--takes", type=int, nargs="+", default=_TAKES, help="with how many it is trained, besides all")
    parser.add_argument("--takes_steps", type=int, default=1500, help="how long with these")
    parser.add_argument("--gin_file", action="append", default=[], help="as of nms_train")
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="where instruments and tables are kept")
    parser.add_argument("--plot", type=pathlib.Path, help="draw the curves as this picture")
    options = parser.parse_args(words)
    recordings = sorted(path for path in options.source.iterdir() if path.suffix.lower() in RECORDING_SUFFIXES)
    every = len(recordings)
    points = sorted(
        {(every, steps) for steps in (*options.steps, options.takes_steps)}
        | {(takes, options.takes_steps) for takes in options.takes if takes < every}
    )
    measured = [measure(recordings[:takes], steps, options) for takes, steps in points]
    print("\n".join(table(measured)))
    if options.plot:
        draw(measured, every, options.takes_steps, options.plot)


def measure(recordings: Sequence[pathlib.Path], steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Trains on some takes for so many steps, unless that was done before; returns what sound.py measured."""
    name = f"{len(recordings)}_takes_{steps}_steps"
    kept = options.out / sound.TABLES
    if not kept.exists() or name not in json.loads(kept.read_text(encoding="utf-8")):
        takes = options.out / f"{len(recordings)}_takes"
        shutil.rmtree(takes, ignore_errors=True)
        takes.mkdir(parents=True)
        for recording in recordings:
            for path in options.source.glob(f"{recording.stem}.*"):
                shutil.copy(path, takes)
        command = [sys.executable, sound.__file__, takes, options.examples or options.source / "examples"]
        command += ["--steps", steps, "--name", name, "--out", options.out]
        command += [word for file in options.gin_file for word in ("--gin_file", file)]
        subprocess.run(list(map(str, command)), check=True)
    facts = json.loads(kept.read_text(encoding="utf-8"))[name]
    minutes = sum(librosa.get_duration(path=recording) for recording in recordings) / 60.0
    return {**facts, "takes": len(recordings), "takes_minutes": minutes, "steps": steps}


def table(points: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the rows of a Markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "| ---: " * len(_COLUMNS) + "|"]
    for point in points:
        mean, notes = point["mean"], point["notes"]
        rise = notes["measures"]["rise"]
        pitch = mean.get("pitch_accuracy")
        cells = [
            f"{point['takes_minutes']:.1f}",
            f"{point['steps']:,}",
            f"{mean['log_mel_db']:.1f} dB",
            f"{mean['envelope_db']:.1f} dB",
            "–" if pitch is None else f"{100.0 * pitch:.0f} %",
            f"{rise['median']:.1f} / {rise['p90']:.1f} ms",
            f"{100.0 * notes['flux_share']:.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw(points: Sequence[dict[str, Any]], every: int, takes_steps: int, path: pathlib.Path) -> None:
    """Draws log-mel and envelope differences over steps and over minutes of takes."""
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.0), sharey=True, layout="constrained")
    by_steps = [point for point in points if point["takes"] == every]
    by_takes = [point for point in points if point["steps"] == takes_steps]
    for axis, line, key, label in (
        (axes[0], by_steps, "steps", f"steps of training, on {by_steps[0]['takes_minutes']:.0f} minutes of takes"),
        (axes[1], by_takes, "takes_minutes", f"minutes of takes, {takes_steps:,} steps of training"),
    ):
        places = [point[key] for point in line]
        for measure_name, title in (("log_mel_db", "log-mel"), ("envelope_db", "envelope")):
            axis.plot(places, [point["mean"][measure_name] for point in line], marker="o", label=title)
        axis.set_xscale("log")
        axis.set_xticks(places, [f"{place:,.0f}" if key == "steps" else f"{place:.1f}" for place in places])
        axis.minorticks_off()
        axis.set_xlabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0.0)
    axes[0].set_ylabel("dB from the recording")
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


if __name__ == "__main__":
    main()
