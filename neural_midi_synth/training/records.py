"""Examples of a built data set by their number: what shuffling without holding them in memory needs."""

from __future__ import annotations

import os
import struct

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from neural_midi_synth.errors import DataError

# A TFRecord file is a row of records: the length of the content (8 bytes, little endian) and its checksum (4 bytes),
# the content, and its checksum (4 bytes).
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
_SCALAR_STRING = {"output_types": [tf.string], "output_shapes": [[]]}


class Records:
    """The serialized examples of a split, each read from its TFRecord file when it is asked for.

    Only where each one lies is held; the operating system keeps of the files in memory what it has room for. All is
    done by TensorFlow, since threads of tf.data that wait for Python can keep a program from ending.
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
        paths = [os.fspath(path) for path in info.filepaths]
        try:
            places = [(number, offset) for number, path in enumerate(paths) for offset in _offsets(path)]
        except OSError as error:
            raise DataError(
                f"{builder.data_dir}: can't be read ({error.strerror}). Build it on a local disk."
            ) from error
        if len(places) != info.num_examples:
            raise DataError(
                f"{builder.data_dir}: damaged: {len(places)} of {info.num_examples} examples for {split} are there. "
                "Delete this folder and build it anew."
            )
        self._paths = tf.constant(paths)
        self._places = tf.constant(np.array(places, np.int64).reshape([-1, 2]))

    def __len__(self) -> int:
        return len(self._places)

    def read(self, number: int | tf.Tensor) -> tf.Tensor:
        """Returns an example, a scalar string as the data set's features deserialize it."""
        file, offset = tf.unstack(self._places[number])
        # tf.data.TFRecordDataset does not hand on that its operation can begin anywhere in a file.
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=self._paths[file],
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),  # One record is read, at once.
            byte_offsets=offset,
        )
        (record,) = tf.raw_ops.DatasetToSingleElement(
            dataset=tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **_SCALAR_STRING),
            **_SCALAR_STRING,
        )
        return record


def _offsets(path: str) -> list[int]:
    """Returns where the records of a TFRecord file begin, in bytes."""
    offsets = []
    size = os.path.getsize(path)
    offset = 0
    with open(path, "rb", buffering=0) as file:
        while offset + _HEADER_BYTES <= size:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(8))
            end = offset + _HEADER_BYTES + length + _FOOTER_BYTES
            if end > size:
                break  # The file is cut short.
            offsets.append(offset)
            offset = end
    return offsets
