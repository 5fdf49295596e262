"""make bench: how long everything takes, and how long the parts of ddsp and Keras as they come take for the same.

    python benchmarks/bench.py
    python benchmarks/bench.py --only 'harmonic|noise'
    python benchmarks/bench.py --markdown benchmarks/README.md --plot benchmarks/cost.png

Ours and stock take turns in one process, and the median counts. Before anything is timed it is checked that both
compute the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neural_midi_synth import environment

if TYPE_CHECKING:
    from rows import Row

TABLE_BEGIN, TABLE_END = "<!-- table -->", "<!-- end of table -->"
HEADER = (
    "what",
    "ours",
    "stock",
    "ratio",
    "audio s / s",
    "stock audio s / s",
    "peak MB",
    "stock peak MB",
    "aim",
)


def main() -> None:
    """Measures what was asked for, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="benchmarks whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether everything works, not how fast it is")
    parser.add_argument("--long", action="store_true", help="also train for 2100 steps, to see that none slows down")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="page in which the table is renewed")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="picture of cost against length and the like")
    parser.add_argument("--profile", action="store_true", help="also tell which operations take the time of ours")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # One thing, in a process of its own.
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.import_tensorflow_quietly()

    import measuring
    import tensorflow as tf
    from parts import Parts
    from playing import Playing
    from rows import QUICK, Sizes, remarks

    tf.keras.utils.set_random_seed(1)
    sizes = QUICK if options.quick else Sizes()
    parts = Parts(sizes, options.quick)
    playing = Playing(sizes, options.quick, parts)
    if options.measure:
        of, what = json.loads(options.measure)
        before, _ = measuring.memory()
        facts = {**parts.measurements(), **playing.measurements()}[of](**what)
        _, peak = measuring.memory()
        print(json.dumps({**facts, "memory": peak - before}))
        return
    catalogue = {**parts.catalogue(), **playing.catalogue(options.long)}
    chosen = {name: benchmark for name, benchmark in catalogue.items() if re.search(options.only, name)}
    if not chosen:
        parser.error(f"--only {options.only}: there is no such benchmark. There are: {'; '.join(catalogue)}.")
    rows: list[Row] = []
    for name, benchmark in chosen.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            more = benchmark()
        except measuring.DifferentError as error:
            sys.exit(f"bench.py: {error}")
        for row in more:
            beside = f", stock {_seconds(row.stock)}" if row.stock else ""
            print(f"  {row.name}: {_seconds(row.ours)}{beside}", file=sys.stderr, flush=True)
        rows += more
    result = "\n\n".join([machine(), table(rows), *remarks(rows)])
    print(result)
    if options.profile:
        operations, moved = measuring.bounds()
        print(f"\nMatrix products at {operations / 1e9:.0f} Gflop/s and memory at {moved / 1e9:.1f} GB/s at best.")
        for row in rows:
            if row.call:
                print(f"\n{row.name}\n{profile(measuring.profile(row.call))}")
    if options.markdown:
        renew(options.markdown, result)
    if options.plot:
        print("plot …", file=sys.stderr, flush=True)
        plot(parts.cost(), options.plot)


def machine() -> str:
    """What the numbers were measured on, in one sentence."""
    import tensorflow as tf

    cpuinfo = pathlib.Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    model = models[0] if models else platform.processor() or platform.machine()
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return (
        f"{model}, {os.cpu_count()} cores{memory}, {gpus or 'no'} GPU; {platform.system()}, Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}; {datetime.date.today().isoformat()}."
    )


def table(rows: Sequence[Row]) -> str:
    """A table in Markdown that also reads well on a terminal."""
    cells = [
        [
            row.name,
            _seconds(row.ours),
            _seconds(row.stock),
            _number(row.ratio, " ×"),
            _number(row.speed),
            _number(row.stock_speed),
            _number(row.memory),
            _number(row.stock_memory),
            row.aim,
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (HEADER, *cells)) for i in range(len(HEADER))]
    rule = ["-" * (width - 1) + (":" if 0 < i < len(HEADER) - 1 else "-") for i, width in enumerate(widths)]

    def line(texts: Sequence[str]) -> str:
        ends = (0, len(HEADER) - 1)
        aligned = (
            text.ljust(width) if i in ends else text.rjust(width) for i, (text, width) in enumerate(zip(texts, widths))
        )
        return f"| {' | '.join(aligned)} |"

    return "\n".join(map(line, [HEADER, rule, *cells]))


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{1000.0 * value:.3g} ms" if value < 0.1 else f"{_number(value)} s"


def _number(value: float | None, unit: str = "") -> str:
    """Three digits, and no exponent."""
    if value is None:
        return ""
    return (f"{value:.0f}" if abs(value) >= 100.0 else f"{value:.3g}") + unit


def profile(operations: Sequence[tuple[str, float]]) -> str:
    """The costliest kinds of operations and their share of the time of all."""
    total = sum(seconds for _, seconds in operations)
    return "\n".join(f"  {seconds / total:4.0%} {_seconds(seconds):>8} {kind}" for kind, seconds in operations[:12])


def renew(page: pathlib.Path, result: str) -> None:
    """Puts the result where the page's last one is; what else is on the page stays."""
    text = page.read_text(encoding="utf-8")
    if text.count(TABLE_BEGIN) != 1 or text.count(TABLE_END) != 1:
        sys.exit(f"bench.py: {page}: mark the place of the table by {TABLE_BEGIN} and {TABLE_END}.")
    before, _, rest = text.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    page.write_text(f"{before}{TABLE_BEGIN}\n{result}\n{TABLE_END}{after}", encoding="utf-8")


def plot(cost: Mapping[str, Sequence[tuple[float, float, float]]], path: pathlib.Path) -> None:
    """Draws seconds for a second of audio against each axis of `Parts.cost`, ours and stock's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    panels = figure.subplots(1, len(cost), sharey=True)
    for panel, (axis, points) in zip(panels, cost.items()):
        values, *curves = zip(*points)
        for curve, label in zip(curves, ("ours", "stock ddsp")):
            panel.plot(values, curve, "o-", label=label)
        panel.set_xlabel(axis)
        panel.set_yscale("log")
        panel.grid(True, which="both", alpha=0.3)
    panels[0].set_ylabel("seconds for a second of audio")
    panels[0].legend()
    figure.suptitle("Harmonic synthesizer, forward and backward")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
