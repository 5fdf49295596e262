"""Instruments as a web page: static files that any web server hands out, on which they are played and listened to."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import litert
from neural_midi_synth.exporting.facts import instrument_facts
from neural_midi_synth.files.outputs import check_writable, write_aside
from neural_midi_synth.instrument.instrument import Instrument

PAGE = pathlib.Path(__file__).parent / "web" / "built"
"""The page as it is built: `make web` builds it in a checkout, a wheel has it."""

LIST_NAME = "instruments.json"
"""What the page reads first."""

VOICES = 6
"""Unless told otherwise: a guitar's strings."""

_FACTS = ("sample_rate", "hop", "frame_rate", "latency", "live", "styles", "defaults", "trained_on", "verdict")


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """An instrument of a page.

    Attributes:
        instrument: A trained instrument.
        name: Of its folder on the page and of files that are saved there, and, with spaces, its title.
        trained_in: Its folder, where the page is to tell of its training, too.
    """

    instrument: Instrument
    name: str
    trained_in: str | os.PathLike | None = None


def check_page() -> None:
    """Checks that the page is built.

    Raises:
        DataError: It is not.
    """
    if not (PAGE / "index.html").is_file():
        raise DataError("The page is not built in this checkout. Build it with Node.js 20: make web")


def write(
    exhibits: Sequence[Exhibit],
    folder: str | os.PathLike,
    block_frames: int | None = None,
    voices: int = VOICES,
) -> pathlib.Path:
    """Writes a page that plays instruments, whole or not at all.

    It is the built page with `instruments.json`, which tells of the instruments, and a LiteRT model of each in
    `instruments/`. What the page needs comes from its own folder alone.

    Args:
        exhibits: At least one; the first is played first.
        folder: Of the page; what is there already is replaced if it is such a page.
        block_frames: Control frames of a block, as `versions.export` takes them; about 16 ms unless given.
        voices: How many notes can last at once.

    Returns:
        The page, `index.html`.

    Raises:
        DataError: The page is not built, the folder holds something else or can't be written, or LiteRT cannot play an
            instrument.
    """
    folder = pathlib.Path(folder)
    check_page()
    check_writable(folder / LIST_NAME)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / LIST_NAME).is_file():
        raise DataError(f"{folder}: holds files of something else. Choose a new folder.")
    names = _unique([exhibit.name for exhibit in exhibits])
    with write_aside(folder) as aside:
        try:
            shutil.copytree(PAGE, aside)
            facts = []
            for exhibit, name in zip(exhibits, names):
                frames = litert.block_frames_of(exhibit.instrument, block_frames)
                model = pathlib.PurePosixPath("instruments", f"{name}.tflite")
                (aside / model).parent.mkdir(exist_ok=True)
                (aside / model).write_bytes(litert.convert(exhibit.instrument, frames, voices))
                facts.append(_facts(exhibit, name, str(model), frames, voices))
            listed = {"instruments": facts, "pieces": list(_pieces(aside))}
            (aside / LIST_NAME).write_text(json.dumps(listed, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or "is the disk full?"
            raise DataError(f"{folder}: can't be written ({reason}). Choose another output.") from error
    return folder / "index.html"


def _unique(names: Sequence[str]) -> list[str]:
    """Names that differ, by numbers after those that occur again."""
    unique: list[str] = []
    for name in names:
        again = (f"{name}_{number}" for number in range(2, len(names) + 1))
        unique.append(name if name not in unique else next(each for each in again if each not in unique))
    return unique


def _facts(exhibit: Exhibit, name: str, model: str, block_frames: int, voices: int) -> dict[str, Any]:
    """What the page has to know of an instrument."""
    instrument = exhibit.instrument
    facts = instrument_facts(instrument, exhibit.trained_in)
    title = name.replace("_", " ")
    return {
        "name": name,
        "title": title[:1].upper() + title[1:],
        "model": model,
        "block_frames": block_frames,
        "voices": voices,
        "pitch_range": list(instrument.pitch_range),
        "banks": _banks(instrument, block_frames, voices),
        "controllers": [int(channel[3:]) for channel in instrument.controls.channels if channel.startswith("cc_")],
        **{fact: facts[fact] for fact in _FACTS if fact in facts},
    }


def _banks(instrument: Instrument, block_frames: int, voices: int) -> list[dict[str, list[int]]]:
    """Where in the model's state the page finds what each bank of oscillators plays: begin and end."""
    places = litert.packing(instrument, block_frames, voices).places
    names = [name.removesuffix("_harmonics") for name in places if name.endswith("_harmonics")]
    return [{part: list(places[f"{name}_{part}"][1:]) for part in ("f0_hz", "harmonics")} for name in names]


def _pieces(folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """Title and file of the MIDI files that come with the page, the shortest name first."""
    for path in sorted((folder / "pieces").glob("*.mid"), key=lambda path: (len(path.name), path.name)):
        title = path.stem.removeprefix("test_midi_").replace("_", " ")
        yield {"title": title[:1].upper() + title[1:], "file": f"pieces/{path.name}"}
