"""Records are found and read as TFDS has written them, and damage is told."""

import shutil
import warnings

import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.errors import DataError
from neural_midi_synth.training.records import Records

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    import tensorflow_datasets as tfds


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A data set of two files with records of different lengths."""
    features = tfds.features.FeaturesDict({"numbers": tfds.features.Tensor(shape=[None], dtype=np.int64)})
    rows = [np.arange(n) for n in (0, 3, 1, 200, 7, 20, 2)]
    folder = tmp_path_factory.mktemp("numbers")
    shards = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="numbers", split="train", filetype_suffix="tfrecord"
    )
    for i, of_file in enumerate((rows[:5], rows[5:])):
        with tf.io.TFRecordWriter(str(shards.sharded_filepath(shard_index=i, num_shards=2))) as writer:
            for row in of_file:
                writer.write(features.serialize_example({"numbers": row}))
    split = tfds.core.SplitInfo(name="train", shard_lengths=[5, 2], num_bytes=0, filename_template=shards)
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=[split])
    return folder, rows


def test_every_record_is_read_by_its_number(built):
    folder, rows = built
    builder = tfds.builder_from_directory(folder)
    records = Records(builder, "train")
    assert len(records) == len(rows)
    for number in (6, 0, 3, 3, 1, 2, 4, 5):
        example = builder.info.features.deserialize_example_np(records.read(number).numpy())
        np.testing.assert_array_equal(example["numbers"], rows[number])
    # And in graph, side by side, as training reads them.
    order = [5, 3, 0, 6]
    lengths = tf.data.Dataset.from_tensor_slices(order).map(
        lambda number: tf.size(builder.info.features.deserialize_example(records.read(number))["numbers"]),
        num_parallel_calls=2,
    )
    assert list(lengths.as_numpy_iterator()) == [len(rows[number]) for number in order]


def test_a_file_that_is_cut_short_is_told(built, tmp_path):
    folder = shutil.copytree(built[0], tmp_path / "damaged")
    (first, _) = sorted(folder.glob("*.tfrecord*"))
    first.write_bytes(first.read_bytes()[:-5])
    with pytest.raises(DataError, match=f"^{folder}: damaged: 6 of 7 examples for train are there") as raised:
        Records(tfds.builder_from_directory(folder), "train")
    assert "\n" not in str(raised.value)
    first.unlink()
    with pytest.raises(DataError, match=f"^{folder}: can't be read"):
        Records(tfds.builder_from_directory(folder), "train")


def test_another_file_format_is_told(built, tmp_path):
    folder = shutil.copytree(built[0], tmp_path / "other")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"array_record"'))
    assert "array_record" in info.read_text()
    with pytest.raises(DataError, match="its files are array_record, but training reads tfrecord"):
        Records(tfds.builder_from_directory(folder), "train")
