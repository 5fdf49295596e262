"""Whether an instrument holds in a browser: the page of nms_export --web in Chromium, voices that never rest.

    python benchmarks/web.py                      # five minutes of the guitar of the package, six voices
    python benchmarks/web.py --seconds 20 --instrument runs/my_guitar
    python benchmarks/web.py --messages           # from a server that does not allow shared memory

It needs Chromium, Playwright, and the page (`make web`), as the tests of the page do. It prints a table of one line:
what the page weighs (gzip), the seconds from opening it until it can be played, what a block takes, how many came late,
and, as the page itself measures it, the milliseconds from a key to its sound. The page tells what the last thousand
blocks took, 16 s of them; the table has the worst of what it told.
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import re
import sys
import tempfile
import time

from live import write_dense_piece

from neural_midi_synth import environment

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LOOK_SECONDS = 10.0
_REST_SECONDS = 3.0  # From key to key, and from the last one to the piece.
_HEADER = ("page MB", "open s", "seconds", "median ms", "p99 ms", "late blocks", "key to sound ms")


def main() -> None:
    """Plays and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to play")
    parser.add_argument("--instrument", help="folder or .nms file; the guitar of the package unless given")
    parser.add_argument("--voices", type=int, default=6)
    parser.add_argument("--messages", action="store_true", help="without shared memory")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "exporting"))
    from web_browser import ISOLATED, chromium, serve, why_not

    if why_not() is not None:
        parser.exit(1, f"web.py: {why_not()}.\n")
    environment.import_tensorflow_quietly()
    from neural_midi_synth.exporting.web_page import Exhibit, write
    from neural_midi_synth.instrument.loading import load

    with tempfile.TemporaryDirectory() as folder:
        site, piece = pathlib.Path(folder) / "site", pathlib.Path(folder) / "dense.mid"
        write([Exhibit(load(options.instrument), "instrument")], site, voices=options.voices)
        write_dense_piece(piece, options.seconds, options.voices)
        with chromium() as browser, serve(site, {} if options.messages else ISOLATED) as address:
            row = [_megabytes(site), *_played(browser, address, piece, options.seconds)]
    print(f"| {' | '.join(_HEADER)} |\n|{' ---: |' * len(_HEADER)}\n| {' | '.join(row)} |")


def _megabytes(site: pathlib.Path) -> str:
    """What a browser loads, compressed; of the two runtimes it takes one."""
    sizes = {path: len(gzip.compress(path.read_bytes())) for path in site.rglob("*") if path.is_file()}
    return f"{sum(size for path, size in sizes.items() if 'compat' not in path.name) / 1e6:.2f}"


def _played(browser: object, address: str, piece: pathlib.Path, seconds: float) -> list[str]:
    """Opens the page, presses a key, plays the piece; returns what the page tells."""
    page = browser.new_page()
    began = time.monotonic()
    page.goto(address)
    page.wait_for_selector("body.ready")
    opened = time.monotonic() - began
    for _ in range(2):  # The first key also starts the sound.
        page.locator('[data-pitch="45"]').click()
        page.wait_for_selector("#facts :text('measured at the last key')")
        page.wait_for_timeout(1000.0 * _REST_SECONDS)
    key_to_sound = _numbers(page, r"(\d+) ms measured")
    page.set_input_files("input[type=file]", piece)
    page.wait_for_function("!document.getElementById('start').disabled")
    page.click("#start")
    worst, end = [0.0, 0.0], time.monotonic() + seconds
    while time.monotonic() < end:
        page.wait_for_timeout(1000.0 * min(_LOOK_SECONDS, max(end - time.monotonic(), 0.0)))
        worst = max(worst, _numbers(page, r"takes ([\d.]+) ms, one in a hundred ([\d.]+) ms"), key=lambda each: each[1])
    late = _numbers(page, r"(\d+) blocks? came late") or [0.0]
    return [f"{opened:.1f}", f"{seconds:g}", *(f"{each:.1f}" for each in worst), f"{late[0]:g}", f"{key_to_sound[0]:g}"]


def _numbers(page: object, pattern: str) -> list[float]:
    """The numbers that the page's facts tell at a place; none if they don't."""
    found = re.search(pattern, page.inner_text("#facts"))
    return [float(each) for each in found.groups()] if found else []


if __name__ == "__main__":
    main()
