"""What *Listen* lets one hear, played by the guitar of the package when the site is built.

A hook of mkdocs, and the script that it runs: `python docs/listening.py FOLDER` writes the sounds into a folder.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_FOLDER = "listening"
_MARK = re.compile(r"<!-- hear (\w+) -->")
_SECONDS = 12.0
_EXAMPLES = {
    "riff": "riff",
    "open_and_muted": "test_midi_extra_long_open_closed",
    "long_and_short": "test_midi_long_short",
    "longer": "test_midi_longer_open_closed",
}
# E minor, D major, G major and C major as a guitar has them: MIDI note numbers, the lowest string first.
_CHORDS = ([40, 47, 52, 55, 59, 64], [50, 57, 62], [43, 47, 50, 55, 59], [48, 52, 55, 60, 64])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts a player where a page has the mark of a sound.

    Args:
        markdown: Of any page.

    Returns:
        The same with players.
    """
    return _MARK.sub(rf'<audio controls preload="none" src="{_FOLDER}/\1.mp3"></audio>', markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """Writes the sounds into the site.

    Args:
        config: mkdocs' configuration.

    Raises:
        CalledProcessError: They can't be written.
    """
    folder = os.path.join(config["site_dir"], _FOLDER)
    subprocess.run([sys.executable, __file__, folder], check=True, capture_output=True)


def write(folder: pathlib.Path) -> None:
    """Plays everything and writes it.

    Args:
        folder: Where `name.mp3` of each sound goes.
    """
    import neural_midi_synth as nms
    from neural_midi_synth.data_prep.midi_audio import DEMO_GUITAR
    from neural_midi_synth.files.audio import read_audio, write_audio
    from neural_midi_synth.midi.pieces import Piece, Voice

    guitar = nms.load()
    n_samples = round(_SECONDS * guitar.sample_rate)
    sounds: dict[str, Callable[[], np.ndarray]] = {}
    for name, example in _EXAMPLES.items():
        path = DEMO_GUITAR / "examples" / example
        sounds[f"{name}_recording"] = lambda path=path: read_audio(path.with_suffix(".flac"), guitar.sample_rate)[0]
        sounds[name] = lambda path=path: guitar.render(path.with_suffix(".mid"))
    phrase = _phrase()
    for openness in (0, 64, 127):
        sounds[f"openness_{openness}"] = lambda value=openness: guitar.render(Voice(phrase), {"openness": value})
    times = np.arange(0.0, 8.0, 0.05)
    opening = np.stack([times, np.full_like(times, guitar.styles["openness"]), 127.0 * times / 8.0], axis=1)
    sounds["opening"] = lambda: guitar.render(Voice(np.concatenate([phrase, phrase + [4.0, 4.0, 0.0, 0.0]]), opening))
    sounds["power_chords"] = lambda: guitar.render(Voice(phrase), {"openness": 127, "power_chord": 127})
    strings = [Voice(np.array(notes)) for notes in _strings()]
    sounds["chords"] = lambda: guitar.render(Piece(tuple(strings)), {"openness": 127})
    for name, play in sounds.items():
        write_audio(folder / f"{name}.mp3", play()[:n_samples], guitar.sample_rate)


def _phrase() -> np.ndarray:
    """Four seconds of notes, `[n, 4]`: start, end, pitch, velocity."""
    pitches = [40, 47, 52, 55, 59, 55, 52, 47]
    return np.array([(0.5 * i, 0.5 * i + 0.48, pitch, 90.0 + 20.0 * (i % 4 == 0)) for i, pitch in enumerate(pitches)])


def _strings() -> list[list[tuple[float, float, float, float]]]:
    """Of each string the notes of the chords, strummed."""
    strings: list[list[tuple[float, float, float, float]]] = [[] for _ in range(6)]
    for i, chord in enumerate(_CHORDS):
        for string, pitch in enumerate(chord):
            strings[string].append((2.0 * i + 0.02 * string, 2.0 * i + 1.9, float(pitch), 95.0))
    return strings


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write(target)
