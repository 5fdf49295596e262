"""Examples: pieces and how they should sound, from a folder of recordings or from the test split of a data set."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.midi.pieces import Piece, Voice
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES, read_midi

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Windows of the test split that follow each other are joined up to this length: longer is nicer to listen to.
MAX_JOINED_SECONDS = 20.0

# Recordings that may stand beside a MIDI file, the best first.
_REFERENCE_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")
# Kind of event -> (how many of its first columns are times, what tells the voice of each event).
_EVENTS = {
    "notes": (2, "note_voices"),
    "control_changes": (1, "control_change_voices"),
    "pitch_bends": (1, "pitch_bend_voices"),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """Something to play and what it should sound like.

    Attributes:
        name: What it is called in the report and in file names.
        piece: What is played. A voice that is given is taken as a piece of one voice.
        reference: Its recording at the instrument's sample rate, float32 `[n]`; None where there is none.
        is_excerpt: Whether the reference is a stretch of a longer recording, so that sound after its end has nothing
            to be compared with: the instrument plays just as long.
    """

    name: str
    piece: Piece
    reference: np.ndarray | None
    is_excerpt: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "piece", Piece.of(self.piece))

    @property
    def is_polyphonic(self) -> bool:
        """Whether more than one voice has notes."""
        return sum(len(voice.notes) > 0 for voice in self.piece.voices) > 1


def examples_in(
    folder: str | os.PathLike,
    sample_rate: int,
    track: int | str | None = None,
    midi_channel: int | None = None,
    all_tracks: bool = False,
) -> list[Example]:
    """Reads the MIDI files of a folder and the recordings of the same names beside them.

    Args:
        folder: Has .mid files, each with a .flac, .wav, .ogg or .mp3 file of the same stem. A MIDI file without a
            recording is played, but not measured.
        sample_rate: What recordings are resampled to.
        track: What is played of each file, as `read_midi` takes it.
        midi_channel: As `track`.
        all_tracks: As `track`.

    Returns:
        The examples, sorted by name.

    Raises:
        DataError: The folder or its MIDI files are missing, no MIDI file has a recording, or a file can't be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give a folder of MIDI files with recordings beside them.")
    files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    midi_files = [path for path in files.values() if path.suffix.lower() in MIDI_SUFFIXES]
    if not midi_files:
        raise DataError(f"{folder}: has no MIDI file. Put .mid files and their recordings there.")
    references = {path: _reference_of(path, files) for path in midi_files}
    if not any(references.values()):
        raise DataError(
            f"{folder}: no MIDI file has a recording beside it. Name each recording like its MIDI file "
            f"({midi_files[0].stem}.wav), or use nms_render to play without comparing."
        )
    return [
        Example(
            midi.stem,
            read_midi(midi, track, midi_channel, all_tracks),
            None if reference is None else read_audio(reference, sample_rate)[0],
        )
        for midi, reference in references.items()
    ]


def _reference_of(midi: pathlib.Path, files: Mapping[str, pathlib.Path]) -> pathlib.Path | None:
    """Returns the recording of a MIDI file, or None; `files` has the folder's files by their names in lower case."""
    names = [f"{midi.stem.lower()}{suffix}" for suffix in _REFERENCE_SUFFIXES]
    return next((files[name] for name in names if name in files), None)


def examples_of_test_split(data_set: str | os.PathLike, sample_rate: int) -> Iterator[Example]:
    """Reads the test split of a built data set.

    Args:
        data_set: Its folder.
        sample_rate: Of the instrument, for which the data set was built.

    Yields:
        Adjoining windows as one example each.

    Raises:
        DataError: There is no such data set, it is of another sample rate, or its test split is empty.
    """
    import tensorflow_datasets as tfds

    builder = data_set_at(data_set, sample_rate)
    if "test" not in builder.info.splits or not builder.info.splits["test"].num_examples:
        raise DataError(f"{builder.data_path}: the test split is empty. Give recordings with --midi_dir.")
    yield from joined_windows(tfds.as_numpy(builder.as_dataset(split="test")), sample_rate)


def data_set_at(folder: str | os.PathLike, sample_rate: int) -> tfds.core.DatasetBuilder:
    """Opens a built data set.

    Args:
        folder: Its folder.
        sample_rate: Of the instrument, for which the data set was built.

    Returns:
        The builder.

    Raises:
        DataError: There is no such data set, or it is of another sample rate.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no data set here. Name one with --data_set, or give --midi_dir.") from error
    built_for = (builder.info.metadata or {}).get("sample_rate", sample_rate)
    if built_for != sample_rate:
        raise DataError(f"{folder}: is at {built_for} Hz, the instrument at {sample_rate} Hz. Give --midi_dir.")
    return builder


def pieces_of_takes(folder: str | os.PathLike, sample_rate: int) -> list[Piece]:
    """Returns what is played in the training split of a built data set, a piece for each take.

    Args:
        folder: Of the data set.
        sample_rate: Of the instrument.

    Raises:
        DataError: There is no such data set, or it is of another sample rate.
    """
    import tensorflow_datasets as tfds

    wanted = ("take", "start", "pitch_shift", *_EVENTS, *(name for _, name in _EVENTS.values()))
    windows = (
        data_set_at(folder, sample_rate)
        .as_dataset(split="train")
        .map(lambda window: {name: window[name] for name in wanted})
    )
    of_takes: dict[bytes, list[Mapping[str, Any]]] = {}
    for window in tfds.as_numpy(windows):
        if not window["pitch_shift"]:
            of_takes.setdefault(window["take"], []).append(window)
    return [piece_of(windows) for _, windows in sorted(of_takes.items())]


def joined_windows(windows: Iterable[Mapping[str, Any]], sample_rate: int) -> Iterator[Example]:
    """Joins windows of a split that follow each other in their take to examples of up to 20 s.

    Args:
        windows: Examples of the TFDS builder as NumPy values, in any order: `audio` `[n]`, `notes`, `control_changes`,
            `pitch_bends` (times relative to the window's start), `take` and `start` (s). `note_voices`,
            `control_change_voices` and `pitch_bend_voices` tell whose each event is; without them there is one voice.
            `n_samples` tells how much of `audio` is of the recording; without it all is.
        sample_rate: Samples per second of `audio`.

    Yields:
        Examples named after their take and where they begin in it.
    """
    run: list[Mapping[str, Any]] = []
    n_samples = 0
    for window in sorted(windows, key=lambda window: (window["take"], float(window["start"]))):
        follows = run and (
            window["take"] == run[0]["take"]
            and abs(float(window["start"]) - float(run[0]["start"]) - n_samples / sample_rate) < 0.5 / sample_rate
            and n_samples + len(_recorded(window)) <= MAX_JOINED_SECONDS * sample_rate
        )
        if run and not follows:
            yield _join(run)
            run, n_samples = [], 0
        run.append(window)
        n_samples += len(_recorded(window))
    if run:
        yield _join(run)


def _recorded(window: Mapping[str, Any]) -> np.ndarray:
    """Returns the sound of a window without the zeros that fill it up after the end of the recording."""
    return np.asarray(window["audio"], np.float32)[: window.get("n_samples")]


def _join(run: list[Mapping[str, Any]]) -> Example:
    """Makes one example of adjoining windows."""
    take, first = run[0]["take"], float(run[0]["start"])
    take = take.decode() if isinstance(take, bytes) else str(take)
    minutes, seconds = divmod(first, 60.0)
    return Example(
        name=f"{take} {int(minutes)}:{seconds:04.1f}",
        piece=piece_of(run),
        reference=np.concatenate([_recorded(window) for window in run]),
        is_excerpt=True,
    )


def piece_of(run: Sequence[Mapping[str, Any]]) -> Piece:
    """Returns what is played in windows of one take; what several of them tell of is taken once.

    Args:
        run: Windows of a data set as `joined_windows` takes them, one at least.

    Returns:
        The piece, times relative to the beginning of the first window.
    """
    first = float(run[0]["start"])
    n_voices = 1 + max(int(max(window.get(name, ()), default=0)) for window in run for _, name in _EVENTS.values())
    voices: list[dict[str, list[np.ndarray]]] = [{kind: [] for kind in _EVENTS} for _ in range(n_voices)]
    for kind, (n_times, name_of_voices) in _EVENTS.items():
        known = set()
        for window in run:
            events = np.array(window[kind], np.float64)
            events[:, :n_times] += float(window["start"]) - first
            for event, voice in zip(events, window.get(name_of_voices, np.zeros(len(events), np.int32)), strict=True):
                # Windows store float32, so the same event differs by microseconds from window to window.
                key = (int(voice), *np.round(event, 3))
                if key not in known:
                    known.add(key)
                    voices[voice][kind].append(event)
    return Piece(tuple(Voice(**{kind: np.array(events) for kind, events in voice.items()}) for voice in voices))
