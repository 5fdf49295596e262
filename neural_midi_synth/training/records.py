"""Examples of a built data set by their number: what shuffling without holding them in memory needs."""

from __future__ import annotations

import os
import pathlib
import struct
import threading
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from neural_midi_synth.errors import DataError

# A TFRecord file is a row of records: the length of the content (8 bytes, little endian) and its checksum (4 bytes),
# the content, and its checksum (4 bytes).
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


class Records:
    """The serialized examples of a split, read from its TFRecord files one by one.

    Only where each one lies is kept: 16 bytes an example. The operating system keeps in memory what it has room for.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        """Finds the records.

        Args:
            builder: A prepared data set in the format that TFDS writes unless told otherwise.
            split: Name of a split that it has.

        Raises:
            DataError: The data set is in another file format, or its files are damaged.
        """
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            raise DataError(
                f"{builder.data_dir}: its files are {builder.info.file_format.value}, but training reads tfrecord. "
                "Build it without --file_format."
            )
        self._paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
        places = [(i, *place) for i, path in enumerate(self._paths) for place in _places(path)]
        self._places = np.array(places, np.int64).reshape([-1, 3])
        self._files = threading.local()
        if len(self) != builder.info.splits[split].num_examples:
            raise DataError(
                f"{builder.data_dir}: damaged, since its {split} split has {len(self)} examples and should have "
                f"{builder.info.splits[split].num_examples}. Build it anew with --overwrite."
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> bytes:
        """Returns an example as `FeaturesDict.deserialize_example` takes it."""
        path, start, length = self._places[number]
        file = self._open(int(path))
        file.seek(int(start))
        return file.read(int(length))

    def _open(self, path: int) -> tf.io.gfile.GFile:
        """Returns a file of this thread's own, so that no other moves its position."""
        if not hasattr(self._files, "opened"):
            self._files.opened = {}
        if path not in self._files.opened:
            self._files.opened[path] = open(self._paths[path], "rb")
        return self._files.opened[path]
