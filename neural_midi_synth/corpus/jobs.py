"""What is to be played for a corpus: which file, by which instrument, in which styles; it follows from the seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.instrument.portable import fingerprint, name_of
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES

SOUNDS = ("flac", "wav", "tfds")
"""Sound files, or those and a TFDS data set of them."""

VARIED_INSTRUMENT = "instrument"
"""In the place of a style: each file is played by one of the instruments, drawn by the seed, in place of all."""

LIST_NAME = "files.txt"
"""In the folder of a corpus: the MIDI files, a line each; a JSON string where a name has a line break."""

SETTINGS_NAME = "corpus.json"
LINES_FOLDER = "lines"


@dataclasses.dataclass(frozen=True)
class Job:
    """One file that one instrument plays.

    Attributes:
        midi: Path of the MIDI file in its folder, with `/` between folders.
        instrument: Name of the instrument.
        styles: Style name → control change value, 0 to 127, that holds throughout.
    """

    midi: str
    instrument: str
    styles: Mapping[str, int]

    @property
    def key(self) -> str:
        """Path, without a suffix of its own, of what is written for it."""
        return f"{self.instrument}/{self.midi}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a corpus is made.

    Attributes:
        midi_dir: Folder with MIDI files, in folders of any depth.
        output: Folder of the corpus.
        instruments: Name → folder or file.
        sound: One of `SOUNDS`.
        vary: Style → lowest and highest control change value; each file has one of them, drawn by the seed.
        draws_instrument: Whether each file is played by one instrument, drawn by the seed, in place of by all.
        seed: Of what is drawn.
        all_tracks: Play all instruments of a file but for drums, not the one that fits best.
        most_minutes: Files that last longer are not played.
    """

    midi_dir: str
    output: str
    instruments: Mapping[str, str]
    sound: str = "flac"
    vary: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    draws_instrument: bool = False
    seed: int = 0
    all_tracks: bool = False
    most_minutes: float = 20.0

    @property
    def suffix(self) -> str:
        """Of the sound files."""
        return ".wav" if self.sound == "wav" else ".flac"

    def facts(self) -> dict[str, Any]:
        """All that makes a difference to what is played, as JSON has it."""
        facts = dataclasses.asdict(self)
        del facts["midi_dir"], facts["output"]
        facts["instruments"] = {name: fingerprint(path) for name, path in self.instruments.items()}
        facts["vary"] = {style: list(ends) for style, ends in self.vary.items()}
        return facts

    def jobs(self, midi: str) -> list[Job]:
        """What is played of a file.

        Args:
            midi: Its path in `midi_dir`.
        """
        names = list(self.instruments)
        if self.draws_instrument:
            names = [names[self._draw(midi, VARIED_INSTRUMENT) % len(names)]]
        return [
            Job(
                midi,
                name,
                {
                    style: low + self._draw(f"{name}/{midi}", style) % (high - low + 1)
                    for style, (low, high) in self.vary.items()
                },
            )
            for name in names
        ]

    def _draw(self, of: str, what: str) -> int:
        """A number that depends on the seed and the words, but not on the order in which files come."""
        words = f"{self.seed}\0{what}\0{of}".encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(words).digest()[:8], "big")


def instruments_by_name(paths: list[str]) -> dict[str, str]:
    """Names instruments as their folders or files are called.

    Args:
        paths: Folders and files.

    Raises:
        DataError: Two have the same name.
    """
    named: dict[str, str] = {}
    for path in paths:
        name = name_of(path)
        if name in named:
            raise DataError(f"{path}: {named[name]} is called {name}, too. Rename one of the two.")
        named[name] = os.fspath(pathlib.Path(path).resolve())
    return named


def find_files(settings: Settings) -> list[str]:
    """Lists the MIDI files, and keeps the list in the folder of the corpus for those who play.

    Args:
        settings: Of the corpus.

    Returns:
        Paths in `midi_dir`, sorted.

    Raises:
        DataError: There is no such folder, or none in it; or it can't be read.
    """
    top = pathlib.Path(settings.midi_dir)
    if not top.is_dir():
        raise DataError(f"{top}: no such folder. Give a folder of MIDI files as --midi_dir.")
    found = sorted(
        path.relative_to(top).as_posix()
        for path in top.rglob("*")
        if path.suffix.lower() in MIDI_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise DataError(f"{top}: has no MIDI files ({', '.join(MIDI_SUFFIXES)}).")
    with write_aside(pathlib.Path(settings.output) / LIST_NAME) as aside:
        aside.write_text("".join(json.dumps(each) + "\n" for each in found), encoding="ascii")
    return found


def listed_files(output: str | os.PathLike) -> list[str]:
    """Returns the list that `find_files` has kept."""
    with open(pathlib.Path(output) / LIST_NAME, encoding="ascii") as file:
        return [json.loads(line) for line in file]


def sound_path(settings: Settings, job: Job) -> pathlib.Path:
    """Where the sound of a job goes."""
    return pathlib.Path(settings.output) / "sound" / f"{job.key}{settings.suffix}"


def notes_path(settings: Settings, job: Job) -> pathlib.Path:
    """Where its notes, voices and control frames go."""
    return pathlib.Path(settings.output) / "notes" / f"{job.key}.npz"


def line_path(settings: Settings, job: Job) -> pathlib.Path:
    """Where the line on it goes: it is there when all of it is."""
    return pathlib.Path(settings.output) / LINES_FOLDER / f"{job.key}.json"


def lines(settings: Settings, files: list[str]) -> Iterator[dict[str, Any] | None]:
    """Reads the line on each job, in the order of files and instruments; None where it has not been played yet."""
    for midi in files:
        for job in settings.jobs(midi):
            path = line_path(settings, job)
            yield json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
