"""Plays a job of a corpus: its sound, then its notes, voices and control frames, then the line that says so.

Each is written aside and put into its place; the line comes last, so that a job whose worker ends is played again as a
whole. A process loads an instrument once, and plays one file at a time.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import pathlib
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from neural_midi_synth.corpus import jobs as jobs_lib
from neural_midi_synth.corpus.jobs import Job, Settings
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.instrument.controls import COLUMNS, Score
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import load
from neural_midi_synth.instrument.rendering import TAIL_SECONDS, as_piece, with_styles
from neural_midi_synth.midi.pieces import Piece
from neural_midi_synth.midi.standard_midi_file import read_midi

MOST_VOICES = 64
"""Files of more are not played: memory grows with voices, and damage makes hundreds of them."""

_BLOCK_FRAMES = 4096
_PLAYING = threading.Lock()  # Runners may have several threads in a process.


class _NotPlayed(Exception):
    """What stands in the way of playing a file; never that the output can't be written."""


def play(settings: Settings, job: Job) -> bool:
    """Plays a file, unless that is done.

    Args:
        settings: Of the corpus.
        job: What is played.

    Returns:
        Whether it was played, or found not to be playable, just now.

    Raises:
        DataError: The output can't be written, or there is no such instrument. What a MIDI file is at fault for is
            told in its line.
    """
    path = jobs_lib.line_path(settings, job)
    with _PLAYING:
        if path.exists():
            return False
        instrument = _loaded(settings.instruments[job.instrument])
        try:
            line = _play(settings, job, instrument)
        except _NotPlayed as error:
            reason = str(error).replace(f"{settings.midi_dir.rstrip('/')}/", "")
            line = {"midi": job.midi, "instrument": job.instrument, "reason": " ".join(reason.split())}
        _write(path, json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        return True


def _play(settings: Settings, job: Job, instrument: Instrument) -> dict[str, Any]:
    """Writes sound and notes; returns the line on them."""
    try:
        midi = pathlib.Path(settings.midi_dir) / job.midi
        piece = read_midi(midi, all_tracks=True) if settings.all_tracks else as_piece(midi, instrument)
        _check(settings, job, piece)
        piece = with_styles(instrument, piece, {k: v for k, v in job.styles.items() if k in instrument.styles})
        n_samples = round((piece.duration + TAIL_SECONDS) * instrument.sample_rate)
        notes = _notes(instrument, piece, instrument.frames_for(n_samples))
    except Exception as error:  # A file at fault costs its line, whatever the fault is.
        raise _NotPlayed(str(error) or type(error).__name__) from error
    sound, beside = jobs_lib.sound_path(settings, job), jobs_lib.notes_path(settings, job)
    write_audio(sound, _played(instrument, piece, n_samples), instrument.sample_rate)
    _write(beside, notes)
    with open(sound, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    return {
        "midi": job.midi,
        "instrument": job.instrument,
        "styles": dict(job.styles),
        "sound": sound.relative_to(settings.output).as_posix(),
        "notes": beside.relative_to(settings.output).as_posix(),
        "seconds": n_samples / instrument.sample_rate,
        "sample_rate": instrument.sample_rate,
        "n_notes": len(piece.notes),
        "n_voices": len(piece.voices),
        "sha256": digest.hexdigest(),
    }


def _digest(file: io.BufferedReader) -> Any:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def _check(settings: Settings, job: Job, piece: Piece) -> None:
    """Raises DataError where a piece is too long or too thick."""
    if piece.duration > 60.0 * settings.most_minutes:
        raise DataError(
            f"{job.midi}: lasts {piece.duration / 60.0:.0f} minutes, more than the {settings.most_minutes:g} to be "
            "played. Raise --most_minutes, if it is right."
        )
    if len(piece.voices) > MOST_VOICES:
        raise DataError(f"{job.midi}: has {len(piece.voices)} voices, more than the {MOST_VOICES} that are played.")


def _played(instrument: Instrument, piece: Piece, n_samples: int) -> Iterator[np.ndarray]:
    """The sound in blocks; what goes wrong in playing is told apart from what goes wrong in writing."""
    try:
        yield from instrument.render_blocks(piece, n_samples=n_samples)
    except GeneratorExit:
        raise
    except Exception as error:
        raise _NotPlayed(str(error) or type(error).__name__) from error


def _notes(instrument: Instrument, piece: Piece, n_frames: int) -> bytes:
    """The notes, controls and bends of a piece with their voices, and its control frames, as an .npz file.

    Rows are as in the data sets that instruments are trained on. Control frames are float32 `[voices, n_frames]`, of
    each channel by its name.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, of_voice in (
        ("notes", "note_voices"),
        ("control_changes", "control_change_voices"),
        ("pitch_bends", "pitch_bend_voices"),
    ):
        rows = [getattr(voice, name) for voice in piece.voices]
        arrays[name] = np.concatenate(rows)
        arrays[of_voice] = np.repeat(np.arange(len(rows), dtype=np.int32), [len(each) for each in rows])
    arrays["frame_rate"] = np.array(instrument.frame_rate)
    for name, frames in control_frames(instrument, piece, n_frames).items():
        arrays[f"control_frames/{name}"] = frames
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)
    return written.getvalue()


def control_frames(instrument: Instrument, piece: Piece, n_frames: int) -> dict[str, np.ndarray]:
    """What the network of an instrument sees of a piece.

    Args:
        instrument: What plays it.
        piece: What is played.
        n_frames: How many frames.

    Returns:
        Channel name → float32 `[voices, n_frames]`.
    """
    rows = {name: tf.TensorSpec([None, None, n], tf.float64) for name, n in COLUMNS.items()}

    def trace() -> list[tf.types.experimental.ConcreteFunction]:
        def play(rows: dict[str, tf.Tensor], place: tf.Tensor) -> dict[str, tf.Tensor]:
            return instrument.controls(**rows, n_frames=place[1], first_frame=place[0])

        return [tf.function(play, autograph=False).get_concrete_function(rows, tf.TensorSpec([2], tf.int64))]

    (graph,) = instrument.traced("control_frames", trace)
    voices = [{name: getattr(voice, name) for name in COLUMNS} for voice in piece.voices]
    score = Score(voices, instrument.frame_rate)
    blocks = []
    for first in range(0, n_frames, _BLOCK_FRAMES):
        count = min(_BLOCK_FRAMES, n_frames - first)
        blocks.append(graph(score.rows(first, first + count), tf.constant([first, count], tf.int64)))
    return {
        name: np.concatenate([block[name].numpy()[..., 0] for block in blocks], axis=1)
        for name in instrument.controls.channels
    }


@functools.lru_cache(maxsize=8)
def _loaded(path: str) -> Instrument:
    return load(path)


def _write(path: pathlib.Path, content: bytes) -> None:
    try:
        with write_aside(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror}). Choose another output.") from error


def play_all(settings: Settings, numbers: Iterable[int], files: list[str]) -> int:
    """Plays some files of the list.

    Args:
        settings: Of the corpus.
        numbers: Places in the list, from 0.
        files: The list.

    Returns:
        How many jobs were done just now.
    """
    return sum(play(settings, job) for number in numbers for job in settings.jobs(files[number]))
