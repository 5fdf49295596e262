"""nms_annotate: from recordings to a first annotation of each, to be corrected in a sequencer."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags
from tqdm import tqdm

from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import RECORDING_SUFFIXES, read_audio_info
from neural_midi_synth.files.outputs import check_writable

if TYPE_CHECKING:
    from neural_midi_synth.data_prep.transcription import Draft

USAGE = """Writes a first annotation of recordings of single notes: notes with velocities, bends and styles.

nms_annotate recording.wav --output draft.mid
    a MIDI file to correct in a sequencer; markers in it tell where it is not sure
nms_annotate recording.wav --output draft.mid --reaper draft.RPP
    and a Reaper project with the recording and the draft on two tracks
nms_annotate my_takes/ --output drafts/
    a draft for each recording of a folder, named like it; openness and velocities are compared over all of them"""

_OUTPUT = flags.DEFINE_string("output", None, "MIDI file for one recording; a folder for several.", allow_override=True)
_REAPER = flags.DEFINE_string(
    "reaper", None, "Reaper project (.RPP) to write with the recordings and their drafts.", allow_override=True
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace annotations and projects that are there already.", allow_override=True
)

TEMPO = 120.0
"""Beats per minute of the drafts: nobody knows that of a recording, and times in seconds don't depend on it."""
_GAP_SECONDS = 2.0  # Between two recordings in a project.
_MOST_LISTED = 8


def main(files: list[str]) -> None:
    """Annotates as the flags say.

    Args:
        files: Recordings, and folders of them.
    """
    if not files:
        raise command_line.UsageError("which recording? Give a sound file or a folder of them")
    if _OUTPUT.value is None and _REAPER.value is None:
        raise command_line.UsageError("give --output draft.mid, or --reaper draft.RPP, or both")
    if _REAPER.value is not None and pathlib.Path(_REAPER.value).suffix.lower() != ".rpp":
        raise command_line.UsageError(f"--reaper {_REAPER.value}: the name of a Reaper project ends in .RPP")
    recordings = find_recordings(files)
    outputs = output_paths(recordings, _OUTPUT.value, many=len(files) > 1 or pathlib.Path(files[0]).is_dir())
    _check_outputs([*outputs, *([pathlib.Path(_REAPER.value)] if _REAPER.value else [])])
    durations = [read_audio_info(path)[0] for path in recordings]

    from neural_midi_synth.data_prep.transcription import hear, write_down

    heard = []
    with tqdm(total=round(sum(durations)), desc="Listening", unit=" s", disable=None) as progress:
        for path in recordings:
            heard.append(hear(path, lambda seconds: progress.update(round(seconds))))
    drafts, remarks = write_down(heard)
    for draft, output in zip(drafts, outputs):
        write_draft(draft, output)
    if _REAPER.value is not None:
        write_project(drafts, pathlib.Path(_REAPER.value))
    _tell(drafts, outputs, remarks)


def find_recordings(files: Sequence[str]) -> list[pathlib.Path]:
    """Finds the recordings that are meant.

    Args:
        files: Recordings, and folders; of a folder, all recordings in it, but not those in its subfolders.

    Returns:
        At least one; those of a folder sorted by name.

    Raises:
        DataError: Something is not there, or a folder has no recordings.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, files):
        if not path.is_dir():
            if not path.exists():
                raise DataError(f"{path}: no such file or folder. Check its name.")
            found.append(path)
            continue
        try:
            inside = sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
        recordings = [file for file in inside if file.suffix.lower() in RECORDING_SUFFIXES]
        if not recordings:
            raise DataError(f"{path}: has no recordings ({', '.join(RECORDING_SUFFIXES)}). Put them there.")
        found += recordings
    return found


def output_paths(recordings: Sequence[pathlib.Path], output: str | None, many: bool) -> list[pathlib.Path]:
    """Says where the draft of each recording goes.

    Args:
        recordings: At least one.
        output: A MIDI file for one recording, or a folder; None for no MIDI files.
        many: Whether several recordings could have been meant, so that `output` is a folder.

    Returns:
        A path for each, all different; none without `output`.

    Raises:
        DataError: Several recordings and one MIDI file, or two of one name; or another kind of file.
    """
    if output is None:
        return []
    path = pathlib.Path(output)
    if path.suffix.lower() in (".mid", ".midi") and not path.is_dir():
        if len(recordings) > 1:
            raise DataError(f"{path}: one MIDI file for {len(recordings)} recordings. Give a folder as --output.")
        return [path]
    if path.suffix and not path.is_dir() and not many:
        raise DataError(f"{path}: is not the name of a MIDI file. Let it end in .mid, or give a folder.")
    paths = [path / f"{recording.stem}.mid" for recording in recordings]
    for each in paths:
        if paths.count(each) > 1:
            raise DataError(f"{each}: the drafts of two recordings would be written to it. Rename one of them.")
    return paths


def _check_outputs(paths: Sequence[pathlib.Path]) -> None:
    """Raises DataError before long work: hours may have gone into correcting what would be replaced."""
    for path in paths:
        check_writable(path)
        if path.is_dir():
            raise DataError(f"{path}: is a folder. Give the name of a file.")
        if path.exists() and not _OVERWRITE.value:
            raise DataError(f"{path}: is there already. Choose another output, or replace it with --overwrite.")


def write_draft(draft: Draft, path: pathlib.Path) -> None:
    """Writes a draft as a MIDI file, with a marker for each doubt."""
    from neural_midi_synth.midi.standard_midi_file import write_midi

    write_midi(draft.voice, path, TEMPO, draft.doubts)


def write_project(drafts: Sequence[Draft], path: pathlib.Path) -> None:
    """Writes a Reaper project with recordings on one track and their drafts on another, one after the other."""
    from neural_midi_synth.midi import reaper_writing
    from neural_midi_synth.midi.standard_midi_file import WRITE_TICKS_PER_BEAT, timed_messages

    sounds, annotations, markers = [], [], []
    position = 0.0
    for draft in drafts:
        end = round(draft.duration * WRITE_TICKS_PER_BEAT * TEMPO / 60.0)
        midi = reaper_writing.midi_source(timed_messages(draft.voice, TEMPO), WRITE_TICKS_PER_BEAT, end)
        sound = reaper_writing.audio_source(_seen_from(path.parent, draft.path))
        sounds.append(reaper_writing.ReaperItem(draft.path.name, draft.duration, sound, position))
        annotations.append(reaper_writing.ReaperItem(f"{draft.path.stem}.mid", draft.duration, midi, position))
        markers += [(position + time, doubt) for time, doubt in draft.doubts]
        position += draft.duration + _GAP_SECONDS
    _, sample_rate, _ = read_audio_info(drafts[0].path)
    tracks = [("Recording", sounds), ("Annotation", annotations)]
    reaper_writing.write_reaper_project(path, tracks, TEMPO, sample_rate, markers)


def _seen_from(folder: pathlib.Path, path: pathlib.Path) -> str:
    """The path as it is found from a folder; the whole path where another drive lies between."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return str(path.resolve())


def _tell(drafts: Sequence[Draft], outputs: Sequence[pathlib.Path], remarks: Sequence[str]) -> None:
    """Prints what was found and what to look at first."""
    for draft, output in zip(drafts, outputs or [None] * len(drafts)):
        pitches = draft.voice.notes[:, 2].astype(int)
        print(
            f"{output or draft.path}: {len(pitches)} notes, MIDI {pitches.min()} to {pitches.max()}; not sure of "
            f"{len(draft.doubts)}, which have markers"
        )
    if _REAPER.value is not None:
        print(f"{_REAPER.value}: the project for Reaper")
    for remark in remarks:
        print(remark)
    doubts = [(draft.path.name, *doubt) for draft in drafts for doubt in draft.doubts]
    if doubts:
        listed = "; ".join(f"{name} {time:.2f} s ({doubt})" for name, time, doubt in doubts[:_MOST_LISTED])
        more = f"; and {len(doubts) - _MOST_LISTED} more" if len(doubts) > _MOST_LISTED else ""
        print(f"Look first at {listed}{more}.")


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE, takes_files=True)


if __name__ == "__main__":
    run()
