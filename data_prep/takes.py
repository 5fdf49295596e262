"""The takes of a folder: which recording belongs to which annotation, and whether the two fit."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import AUDIO_SUFFIXES, read_audio
from neural_midi_synth.midi.pieces import Piece, check_voices
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES, read_midi, read_parts

# The last note of an annotation may end this many seconds after its recording does: encoders of mp3 cut or add a few
# hundredths of a second, and the end of a last note is often drawn by hand.
LONGEST_EXCESS = 0.5
_MAX_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Take:
    """One recording with its annotation.

    Attributes:
        name: What the two files are called, without suffix.
        audio_path: The recording.
        midi_path: The annotation.
    """

    name: str
    audio_path: pathlib.Path
    midi_path: pathlib.Path


def find_takes(folder: str | os.PathLike) -> list[Take]:
    """Pairs the recordings of a folder with the MIDI files of the same name.

    Names and suffixes are compared without regard to capitals. Subfolders, hidden files and files of other kinds
    (Reaper projects, notes, pictures) are left alone.

    Args:
        folder: Has recordings (.wav, .flac, .mp3, .ogg) and, beside each, its annotation (.mid or .midi).

    Returns:
        The takes, at least one, sorted by name.

    Raises:
        DataError: The folder is missing or has no takes; a recording has no annotation or the reverse; two recordings
            or two annotations have the same name.
    """
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}. Give the folder that has the recordings and their MIDI files.")
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.") from error
    recordings = _by_name(path for path in files if path.suffix.lower() in AUDIO_SUFFIXES)
    annotations = _by_name(path for path in files if path.suffix.lower() in MIDI_SUFFIXES)
    if not recordings and not annotations:
        raise DataError(
            f"{folder}: has neither recordings ({', '.join(AUDIO_SUFFIXES)}) nor MIDI files "
            f"({', '.join(MIDI_SUFFIXES)}). Put each recording and its MIDI annotation there under the same name."
        )
    lonely = [recordings[name] for name in sorted(recordings.keys() - annotations.keys())]
    if lonely:
        raise DataError(
            f"{_listed(lonely)}: no MIDI file of the same name beside it. "
            f"Add {lonely[0].with_suffix('.mid').name}, or move the recording elsewhere."
        )
    lonely = [annotations[name] for name in sorted(annotations.keys() - recordings.keys())]
    if lonely:
        raise DataError(
            f"{_listed(lonely)}: no recording of the same name beside it. "
            f"Add {lonely[0].with_suffix('.wav').name} (or {', '.join(AUDIO_SUFFIXES[1:])}), "
            "or move the MIDI file elsewhere."
        )
    return [Take(recordings[name].stem, recordings[name], annotations[name]) for name in sorted(recordings)]


def fingerprint(takes: Sequence[Take], *facts: object) -> str:
    """Returns a hash of what a data set is made from: the contents of the files and how they are used.

    Args:
        takes: The takes.
        *facts: Whatever else makes a difference; by their `repr`.

    Returns:
        64 hexadecimal digits; the same for the same takes wherever they are.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for take in takes:
        for path in (take.audio_path, take.midi_path):
            digest.update(f"\n{path.name}\n".encode())
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def read_take(
    take: Take,
    most_voices: int = 1,
    track: int | str | None = None,
    midi_channel: int | None = None,
    longest_excess: float = LONGEST_EXCESS,
) -> tuple[np.ndarray, int, Piece]:
    """Reads a recording and its annotation, and checks that they belong together.

    Args:
        take: The take.
        most_voices: The most voices that the annotation may have.
        track: Number (from 1) or name of the track that annotates the recording, where several have notes.
        midi_channel: The MIDI channel (1 to 16) that does, likewise.
        longest_excess: The last note may end so many seconds after the recording does; see `check_length`.

    Returns:
        The samples, `[n]` float32, mono; samples per second, as the recording has them; and what is played.

    Raises:
        DataError: One of them can't be read; the annotation has several instruments or too many voices, or is longer
            than the recording; the recording is silent.
    """
    if track is None and midi_channel is None:
        _check_one_instrument(take.midi_path)
    piece = read_midi(take.midi_path, track=track, midi_channel=midi_channel, most_voices=most_voices)
    check_voices(piece, most_voices, str(take.midi_path))
    samples, sample_rate = read_audio(take.audio_path)
    check_length(take, piece, len(samples) / sample_rate, longest_excess)
    if not samples.any():
        raise DataError(f"{take.audio_path}: is silent throughout. Record or export it again.")
    return samples, sample_rate, piece


def check_length(take: Take, piece: Piece, duration: float, longest_excess: float = LONGEST_EXCESS) -> None:
    """Raises DataError where an annotation ends so many seconds after its recording of `duration` seconds, or more."""
    if piece.duration > duration + longest_excess:
        raise DataError(
            f"{take.midi_path}: its last note ends at {piece.duration:.2f} s, after the end of {take.audio_path.name} "
            f"({duration:.2f} s). Check that the two belong together and that the tempo is the project's, or cut the "
            "MIDI file."
        )


def _check_one_instrument(path: pathlib.Path) -> None:
    """Raises DataError where a MIDI file has several instruments, and says how training chooses among them."""
    parts = read_parts(path)
    if len(parts) > 1:
        listed = "; ".join(f"{part.title}: {len(part.piece.notes)} notes" for part in parts[:_MAX_LISTED])
        more = f"; and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
        raise DataError(
            f"{path}: has several instruments. Choose the one that is recorded with --track or --midi_channel "
            f"({listed}{more})."
        )


def _by_name(paths: Iterable[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Returns the paths by their stems in lower case, or says which two have the same."""
    found: dict[str, pathlib.Path] = {}
    for path in paths:
        other = found.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise DataError(f"{path}: has the same name as {other.name} beside it. Keep one of the two, or rename one.")
    return found


def _listed(paths: Sequence[pathlib.Path]) -> str:
    """Returns the first path in full and the names of the others."""
    names = [str(paths[0]), *(path.name for path in paths[1:_MAX_LISTED])]
    more = f" and {len(paths) - _MAX_LISTED} more" if len(paths) > _MAX_LISTED else ""
    return ", ".join(names) + more
