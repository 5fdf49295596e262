"""The takes of a folder or of Reaper projects: which recording belongs to which annotation, and whether the two fit."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import RECORDING_SUFFIXES, read_audio, resample
from neural_midi_synth.midi.parts import ChannelEvents, choose_piece, group_parts
from neural_midi_synth.midi.pieces import Piece, Voice, check_voices
from neural_midi_synth.midi.reaper import PROJECT_SUFFIX, RecordedItem, recorded_items
from neural_midi_synth.midi.standard_midi_file import MIDI_SUFFIXES, read_channels

# The last note of an annotation may end this many seconds after its recording does: encoders of mp3 cut or add a few
# hundredths of a second, and the end of a last note is often drawn by hand.
LONGEST_EXCESS = 0.5
# Events of a project and of the MIDI file exported from it differ by less than this (s), but for one difference that
# they all have.
_SAME_TIME = 0.01
_MAX_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Take:
    """One recording with its annotation.

    Attributes:
        name: What recording and MIDI file are called, without suffix; for a project its name, numbered where it has
            several takes.
        audio_path: The recording.
        midi_path: The annotation: a MIDI file, or the Reaper project that has it.
        item: Which part of the recording it is, and which items of the project annotate it; None for a MIDI file.
    """

    name: str
    audio_path: pathlib.Path
    midi_path: pathlib.Path
    item: RecordedItem | None = None

    def channels(self, duration: float | None = None) -> list[ChannelEvents]:
        """Reads what the annotation plays on each MIDI channel; times are seconds from the take's beginning.

        Args:
            duration: Seconds that the recording lasts. Where a project repeats the recording, its annotation ends then.

        Raises:
            DataError: It can't be read.
        """
        if self.item is None:
            return read_channels(self.midi_path)
        return self.item.play(duration if self.item.loops else None)


def find_takes(
    source: str | os.PathLike, audio_track: int | str | None = None, midi_track: int | str | None = None
) -> list[Take]:
    """Finds recordings and annotations: files of the same name in a folder, and what Reaper projects hold.

    Names and suffixes are compared without regard to capitals. Subfolders, hidden files and files of other kinds are
    left alone; so are, with a warning, recordings that nothing annotates, where projects are used.

    A take that is there twice counts once, and a MIDI file goes before a project. Left out are projects that are called
    like a MIDI file, and of other projects what they have on a recording that has a MIDI file, or with the same notes
    as one: recording and MIDI file may have been rendered from that project.

    Args:
        source: A Reaper project (.RPP), or a folder of projects, and of recordings (.wav, .flac, .mp3, .ogg, .aiff,
            .aif, .opus) each with its annotation (.mid or .midi) beside it.
        audio_track: Number (from 1) or name of the track of the projects that has the recordings.
        midi_track: Number or name of their track that annotates them.

    Returns:
        The takes, at least one, sorted by name.

    Raises:
        DataError: There is nothing there, or no take; a recording has no annotation or the reverse; two recordings or
            two annotations have the same name; a project can't be used.
    """
    source = pathlib.Path(source).expanduser()
    if source.suffix.lower() == PROJECT_SUFFIX and not source.is_dir():
        return _takes_of_project(source, audio_track, midi_track)
    files = _files(source)
    projects = [path for path in files if path.suffix.lower() == PROJECT_SUFFIX]
    recordings = _by_name(path for path in files if path.suffix.lower() in RECORDING_SUFFIXES)
    annotations = _by_name(path for path in files if path.suffix.lower() in MIDI_SUFFIXES)
    if not recordings and not annotations and not projects:
        raise DataError(
            f"{source}: has neither recordings ({', '.join(RECORDING_SUFFIXES)}) nor MIDI files "
            f"({', '.join(MIDI_SUFFIXES)}). Put each recording and its MIDI annotation there under the same name, or "
            "a Reaper project (.RPP) that has both."
        )
    pairs = [Take(recordings[n].stem, recordings[n], annotations[n]) for n in sorted(recordings.keys() & annotations)]
    projects = [path for path in projects if path.stem.casefold() not in {take.name.casefold() for take in pairs}]
    in_projects = [take for path in projects for take in _takes_of_project(path, audio_track, midi_track)]
    used = {take.audio_path.resolve() for take in in_projects}
    lonely = [recordings[name] for name in sorted(recordings.keys() - annotations.keys())]
    lonely = [path for path in lonely if path.resolve() not in used]
    if lonely and in_projects:
        logging.warning("%s: not used, since neither a MIDI file nor a Reaper project annotates it.", _listed(lonely))
    elif lonely:
        raise DataError(
            f"{_listed(lonely)}: no MIDI file of the same name beside it. "
            f"Add {lonely[0].with_suffix('.mid').name}, or move the recording elsewhere."
        )
    lonely = [annotations[name] for name in sorted(annotations.keys() - recordings.keys())]
    if lonely and not in_projects:
        raise DataError(
            f"{_listed(lonely)}: no recording of the same name beside it. "
            f"Add {lonely[0].with_suffix('.wav').name} (or {', '.join(RECORDING_SUFFIXES[1:])}), "
            "or move the MIDI file elsewhere."
        )
    takes = sorted(pairs + _not_in_pairs(in_projects, pairs), key=lambda take: take.name.casefold())
    for take, following in itertools.pairwise(takes):
        if take.name.casefold() == following.name.casefold():
            raise DataError(f"{following.midi_path}: has a take called like one of {take.midi_path.name}. Rename one.")
    return takes


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a folder that are not hidden."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(
            f"{folder}: {what}. Give the folder that has the recordings and their MIDI files, or a Reaper project."
        )
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.") from error


def _takes_of_project(path: pathlib.Path, audio_track: int | str | None, midi_track: int | str | None) -> list[Take]:
    """Returns the takes of a project, named after it."""
    items = recorded_items(path, audio_track, midi_track)
    digits = len(str(len(items)))
    names = [f"{path.stem} {i:0{digits}d}" for i in range(1, len(items) + 1)] if len(items) > 1 else [path.stem]
    return [Take(name, item.audio_path, path, item) for name, item in zip(names, items)]


def _not_in_pairs(takes: Sequence[Take], pairs: Sequence[Take]) -> list[Take]:
    """Returns the takes of projects without those that are among the pairs of recording and MIDI file, too."""
    recordings = {pair.audio_path.resolve() for pair in pairs}
    takes = [take for take in takes if take.audio_path.resolve() not in recordings]
    annotations = [(pair, _all_voices(pair)) for pair in pairs] if takes else []
    left = []
    for take in takes:
        played = _all_voices(take)
        same = next((pair for pair, others in annotations if _is_part(played, others)), None)
        if same is None:
            left.append(take)
        else:
            logging.warning("%s: take %r is not used, since %s has it.", take.midi_path, take.name, same.midi_path.name)
    return left


def _all_voices(take: Take) -> Voice:
    """Returns all that an annotation plays as if it were one voice."""
    channels = take.channels()
    rows = [[getattr(channel, name) for channel in channels] for name in ("notes", "control_changes", "pitch_bends")]
    notes, control_changes, pitch_bends = (np.concatenate(each) for each in rows)
    return Voice(notes[np.lexsort((notes[:, 2], notes[:, 0]))], control_changes, pitch_bends)


def _is_part(played: Voice, others: Voice) -> bool:
    """Tells whether what is played is a stretch of others: the same notes, as far apart, with the same controls."""
    wanted, there = (voice.notes[:, 2:].astype(np.uint8).tobytes() for voice in (played, others))
    start, end = played.notes[0, 0], played.notes[-1, 0]
    place = there.find(wanted)
    while place >= 0:
        shifts = others.notes[place // 2 : place // 2 + len(played.notes), 0] - played.notes[:, 0]
        if place % 2 == 0 and np.ptp(shifts) < _SAME_TIME:
            ours = played.window(start - _SAME_TIME, end + _SAME_TIME)
            theirs = others.window(start + shifts[0] - _SAME_TIME, end + shifts[0] + _SAME_TIME)
            if np.array_equal(ours.control_changes[:, 1:], theirs.control_changes[:, 1:]):
                return True
        place = there.find(wanted, place + 1)
    return False


def fingerprint(takes: Sequence[Take], *facts: object) -> str:
    """Returns a hash of what a data set is made from: the contents of the files and how they are used.

    Of a Reaper project that is what it plays in a take; its windows, plug-ins and other tracks make no difference.

    Args:
        takes: The takes.
        *facts: Whatever else makes a difference; by their `repr`.

    Returns:
        64 hexadecimal digits; the same for the same takes wherever they are.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for take in takes:
        if take.item is not None:
            digest.update(f"\n{take.name} {take.item.facts()!r}\n".encode("utf-8", "surrogateescape"))
        for path in (take.audio_path,) if take.item is not None else (take.audio_path, take.midi_path):
            digest.update(f"\n{path.name}\n".encode("utf-8", "surrogateescape"))
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
        track: Number (from 1) or name of the track of the MIDI file that annotates the recording, where several have
            notes. Tracks of a Reaper project have been chosen when its takes were found.
        midi_channel: The MIDI channel (1 to 16) that does, likewise.
        longest_excess: The last note may end so many seconds after the recording does; see `check_length`.

    Returns:
        The samples, `[n]` float32, mono; samples per second, as the recording has them; and what is played. In a take
        of a project notes and controls from before it may have times below 0, and notes end with it.

    Raises:
        DataError: One of them can't be read; the annotation has several instruments or too many voices, or is longer
            than the recording; the recording is silent.
    """
    samples, sample_rate = read_recording(take)
    duration = len(samples) / sample_rate
    channels, name = take.channels(duration), str(take.midi_path)
    if take.item is not None:
        track = None
    if track is None and midi_channel is None:
        _check_one_instrument(channels, name)
    piece = choose_piece(channels, name, track, midi_channel, all_tracks=False, most=most_voices)
    check_voices(piece, most_voices, name)
    check_length(take, piece, duration, longest_excess)
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


def read_recording(take: Take, channel: int | None = None) -> tuple[np.ndarray, int]:
    """Reads the sound of a take as it is played: its part of the recording, at the item's rate and volume.

    Args:
        take: The take.
        channel: Of the recording, from 0; unless given, the take's, or the mean of all.

    Returns:
        float32 `[n]`, and samples per second.

    Raises:
        DataError: The recording can't be read.
    """
    item = take.item
    if item is None:
        return read_audio(take.audio_path, channel=channel)
    channel = item.channel if channel is None else channel
    samples, sample_rate = read_audio(take.audio_path, start=item.offset, duration=item.duration, channel=channel)
    samples = resample(samples, sample_rate * item.rate, sample_rate)
    if item.gain != 1.0:
        samples *= np.float32(item.gain)
    return samples, sample_rate


def _check_one_instrument(channels: Sequence[ChannelEvents], name: str) -> None:
    """Raises DataError where an annotation has several instruments, and says how training chooses among them."""
    parts = group_parts(channels, name)
    if len(parts) > 1:
        listed = "; ".join(f"{part.title}: {len(part.piece.notes)} notes" for part in parts[:_MAX_LISTED])
        more = f"; and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
        raise DataError(
            f"{name}: has several instruments. Choose the one that is recorded with --track or --midi_channel "
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
