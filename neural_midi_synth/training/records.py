"""Examples of a built data set by their number: what shuffling without holding them in memory needs."""

from __future__ import annotations

import os
import struct

import numpy as np
import tensorflow_datasets as tfds

from neural_midi_synth.errors import DataError

# A TFRecord file is a row of records: the length of the content (8 bytes, little endian) and its checksum (4 bytes),
# the content, and its checksum (4 bytes).
_HEADER_BYTES = 12
_FOOTER_BYTES = 4


class Records:
    """The serialized examples of a split, read from its TFRecord files one by one.

    Only where each one lies is held; the files are mapped, so the operating system keeps of them in memory what it has
    room for. Reading is safe from several threads.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        """Finds the records.

        Args:
            builder: A prepared data set in the file format that TFDS writes unless told otherwise, on a local disk.
            split: Name of a split that it has.

        Raises:
            DataError: The data set is in another file format, or its files can't be read or are damaged.
        """
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            raise DataError(
                f"{builder.data_dir}: its files are {builder.info.file_format.value}, but training reads tfrecord. "
                "Build it without --file_format."
            )
        info = builder.info.splits[split]
        try:
            self._files = [np.memmap(os.fspath(path), np.uint8, "r") for path in info.filepaths]
        except (OSError, ValueError) as error:
            raise DataError(f"{builder.data_dir}: can't be read ({error}). Build it anew on a local disk.") from error
        places = [(number, *place) for number, file in enumerate(self._files) for place in _places(file)]
        self._places = np.array(places, np.int64).reshape([-1, 3])
        if len(self) != info.num_examples:
            raise DataError(
                f"{builder.data_dir}: damaged: {len(self)} of {info.num_examples} examples for {split} are there. "
                "Delete this folder and build it anew."
            )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> bytes:
        """Returns an example as the data set's features deserialize it."""
        file, start, end = self._places[number]
        return self._files[file][start:end].tobytes()


def _places(file: np.ndarray) -> list[tuple[int, int]]:
    """Returns where the content of each record of a TFRecord file begins and ends, in bytes."""
    places = []
    start = _HEADER_BYTES
    while start < len(file):
        (length,) = struct.unpack("<Q", file[start - _HEADER_BYTES : start - _HEADER_BYTES + 8].tobytes())
        if start + length + _FOOTER_BYTES > len(file):
            break
        places.append((start, start + length))
        start += length + _FOOTER_BYTES + _HEADER_BYTES
    return places
