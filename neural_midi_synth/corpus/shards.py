"""A corpus as a TFDS data set: shards of examples with the sound, the notes, the voices and the control frames.

`tfds.builder_from_directory("out/data_set")` reads it. Each shard is written by itself, whole or not at all, from the
files of the corpus; TFDS's metadata come last.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from neural_midi_synth.corpus.jobs import Settings
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio
from neural_midi_synth.files.outputs import write_aside

FOLDER_NAME = "data_set"
EXAMPLES = 64
"""In a shard."""

_MANIFEST_NAME, _STATE_NAME = "manifest.jsonl", "shards.json"
_ROWS = {"notes": 4, "control_changes": 3, "pitch_bends": 2}
_ZLIB = tfds.features.Encoding.ZLIB
_VOICES = ("note_voices", "control_change_voices", "pitch_bend_voices")


def begin(settings: Settings) -> None:
    """Readies the folder of the data set; shards of a corpus that has other files since are taken out.

    Args:
        settings: Of the corpus, whose manifest is written.
    """
    folder = _folder(settings)
    manifest = (folder.parent / _MANIFEST_NAME).read_bytes()
    lines = manifest.splitlines()
    channels: set[str] = set()
    for line in lines:
        with np.load(folder.parent / json.loads(line)["notes"]) as notes:
            channels.update(name for name in notes.files if name.startswith("control_frames/"))
        if len(channels) and len(settings.instruments) == 1:
            break
    state = {
        "manifest": hashlib.sha256(manifest).hexdigest(),
        "lengths": [len(lines[first : first + EXAMPLES]) for first in range(0, len(lines), EXAMPLES)],
        "channels": sorted(name.partition("/")[2] for name in channels),
    }
    path = folder / _STATE_NAME
    if not path.exists() or json.loads(path.read_text(encoding="utf-8")) != state:
        if folder.exists():
            shutil.rmtree(folder)
        with write_aside(path) as aside:
            aside.write_text(json.dumps(state), encoding="utf-8")


def missing(settings: Settings) -> list[int]:
    """Returns the numbers of the shards that are not there."""
    n_shards = len(_state(settings)["lengths"])
    return [number for number in range(n_shards) if not _path(settings, number, n_shards).exists()]


def write(settings: Settings, number: int) -> None:
    """Writes a shard, unless it is there.

    Args:
        settings: Of the corpus.
        number: Of the shard.

    Raises:
        DataError: It can't be written, or files of the corpus are missing.
    """
    state = _state(settings)
    path = _path(settings, number, len(state["lengths"]))
    if path.exists():
        return
    of_corpus = pathlib.Path(settings.output)
    kind = features(state["channels"])
    first = number * EXAMPLES
    with open(of_corpus / _MANIFEST_NAME, encoding="utf-8") as manifest:
        lines = [json.loads(line) for line in itertools.islice(manifest, first, first + EXAMPLES)]
    try:
        with write_aside(path) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
            for line in lines:
                writer.write(kind.serialize_example(_example(of_corpus, line, state["channels"])))
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        raise DataError(f"{path}: can't be written ({reason}). Run the same command again.") from error


def finish(settings: Settings) -> None:
    """Writes TFDS's metadata, which make a data set of the shards."""
    state = _state(settings)
    folder = _folder(settings)
    n_shards = len(state["lengths"])
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=state["lengths"],
        num_bytes=sum(_path(settings, number, n_shards).stat().st_size for number in range(n_shards)),
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="corpus", split="train", filetype_suffix="tfrecord"
        ),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(state["channels"]),
        split_infos=[split],
        check_data=False,
        description="MIDI files as instruments of neural_midi_synth play them.",
    )


def features(channels: list[str]) -> tfds.features.FeaturesDict:
    """Returns the features of an example.

    Args:
        channels: Of the control frames, of all instruments together.
    """
    of_example: dict[str, Any] = {
        "audio": tfds.features.Tensor(shape=[None], dtype=np.float32),
        "sample_rate": tfds.features.Scalar(dtype=np.int32),
        "frame_rate": tfds.features.Scalar(dtype=np.int32),
        "midi": tfds.features.Text(),
        "instrument": tfds.features.Text(),
        "styles": tfds.features.Text(),
        # TFDS keeps float64 as float32, unless it is encoded; in minutes of music that moves notes.
        **{name: tfds.features.Tensor(shape=[None, n], dtype=np.float64, encoding=_ZLIB) for name, n in _ROWS.items()},
        **{name: tfds.features.Tensor(shape=[None], dtype=np.int32) for name in _VOICES},
        "control_frames": {
            name: tfds.features.Tensor(shape=[None, None], dtype=np.float32, encoding=_ZLIB) for name in channels
        },
    }
    documentation = {
        "audio": "Mono; full scale is [-1, 1].",
        "styles": "Style and control change value that hold throughout, as JSON.",
        "notes": "Start s, end s, MIDI pitch, velocity 1..127.",
        "control_changes": "Time s, controller number, value 0..127.",
        "pitch_bends": "Time s, semitones.",
        "control_frames": "Of each channel [voices, n_frames]; [0, 0] where an instrument has not got it.",
    }
    return tfds.features.FeaturesDict(of_example, doc=documentation)


def _example(folder: pathlib.Path, line: dict[str, Any], channels: list[str]) -> dict[str, Any]:
    samples, rate = read_audio(folder / line["sound"])
    with np.load(folder / line["notes"]) as notes:
        frames = {
            name: notes[f"control_frames/{name}"] if f"control_frames/{name}" in notes else np.zeros([0, 0], np.float32)
            for name in channels
        }
        events = {name: notes[name] for name in (*_ROWS, *_VOICES)}
        frame_rate = int(notes["frame_rate"])
    return {
        "audio": samples,
        "sample_rate": rate,
        "frame_rate": frame_rate,
        "midi": line["midi"],
        "instrument": line["instrument"],
        "styles": json.dumps(line["styles"], sort_keys=True),
        **events,
        "control_frames": frames,
    }


def _folder(settings: Settings) -> pathlib.Path:
    return pathlib.Path(settings.output) / FOLDER_NAME


def _state(settings: Settings) -> dict[str, Any]:
    return json.loads((_folder(settings) / _STATE_NAME).read_text(encoding="utf-8"))


def _path(settings: Settings, number: int, n_shards: int) -> pathlib.Path:
    return _folder(settings) / f"corpus-train.tfrecord-{number:05}-of-{n_shards:05}"
