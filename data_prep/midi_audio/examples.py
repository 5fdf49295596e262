"""What an example of the data set holds: a window of a take, as features of TFDS."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from neural_midi_synth.midi.pieces import Piece, Voice

_EVENTS = {"note_voices": "notes", "control_change_voices": "control_changes", "pitch_bend_voices": "pitch_bends"}


def features(window: int) -> tfds.features.FeaturesDict:
    """Returns the features of examples of `window` samples."""
    of_example = {
        "audio": tfds.features.Tensor(shape=[window], dtype=np.float32),
        "n_samples": tfds.features.Scalar(dtype=np.int32),
        "notes": tfds.features.Tensor(shape=[None, 4], dtype=np.float32),
        "control_changes": tfds.features.Tensor(shape=[None, 3], dtype=np.float32),
        "pitch_bends": tfds.features.Tensor(shape=[None, 2], dtype=np.float32),
        "note_voices": tfds.features.Tensor(shape=[None], dtype=np.int32),
        "control_change_voices": tfds.features.Tensor(shape=[None], dtype=np.int32),
        "pitch_bend_voices": tfds.features.Tensor(shape=[None], dtype=np.int32),
        "take": tfds.features.Text(),
        "start": tfds.features.Scalar(dtype=np.float64),
        "pitch_shift": tfds.features.Scalar(dtype=np.float32),
    }
    documentation = {
        "audio": "Mono; full scale is [-1, 1].",
        "n_samples": "How many of the samples are of the recording. It ends there, and what follows is zero.",
        "notes": "Start s, end s, MIDI pitch, velocity 1..127; of each voice that no note lasts in at the window's "
        "start, the last note before it too.",
        "control_changes": "Time s, controller number, value 0..127; those in force at the start have times <= 0.",
        "pitch_bends": "Time s, semitones; those in force at the start have times <= 0.",
        "note_voices": "The voice of each note, from 0.",
        "control_change_voices": "The voice of each control change.",
        "pitch_bend_voices": "The voice of each pitch bend.",
        "take": "Name of the recording.",
        "start": "Where the window begins in the recording, s.",
        "pitch_shift": "Semitones by which the example was moved.",
    }
    return tfds.features.FeaturesDict(of_example, doc=documentation)


def audio_and_events(samples: np.ndarray, piece: Piece, window: int) -> dict[str, Any]:
    """Returns the features of an example but for where it is from.

    Args:
        samples: `[n]`, not more than a window.
        piece: What is played in the window, times relative to its start.
        window: Samples in an example.
    """
    example: dict[str, Any] = {
        "audio": np.pad(samples, [0, window - len(samples)]).astype(np.float32),
        "n_samples": len(samples),
    }
    for name_of_voices, name in _EVENTS.items():
        rows = [getattr(voice, name) for voice in piece.voices]
        example[name] = np.concatenate(rows).astype(np.float32)
        example[name_of_voices] = np.repeat(np.arange(len(rows), dtype=np.int32), [len(each) for each in rows])
    return example


def on_tape(piece: Piece, start: float, speed: float) -> Piece:
    """Returns a piece with times relative to `start` (s), played `speed` times as fast."""
    return Piece(
        tuple(
            Voice(
                (voice.notes - [start, start, 0.0, 0.0]) / [speed, speed, 1.0, 1.0],
                (voice.control_changes - [start, 0.0, 0.0]) / [speed, 1.0, 1.0],
                (voice.pitch_bends - [start, 0.0]) / [speed, 1.0],
            )
            for voice in piece.voices
        )
    )
