"""What Beam's workers do: play files, and write shards of a data set."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import apache_beam as beam
from absl import logging

from neural_midi_synth import environment
from neural_midi_synth.corpus import jobs as jobs_lib
from neural_midi_synth.corpus.jobs import Settings


class _Step(beam.DoFn):
    """Does a step of a corpus for lists of numbers. It writes files itself, and yields nothing."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def setup(self) -> None:
        """Imports TensorFlow, with one thread: the processors are for as many workers."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        logging.set_verbosity(logging.ERROR)  # Not a line on each sound that is lowered to full scale.
        environment.import_tensorflow_quietly()
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is awake already: another worker of this process has come.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)


class Play(_Step):
    """Plays files by their numbers in the list."""

    def setup(self) -> None:
        """Reads the list, too."""
        super().setup()
        self._files = jobs_lib.listed_files(self._settings.output)

    def process(self, numbers: Sequence[int]) -> None:
        """Plays the files."""
        from neural_midi_synth.corpus.playing import play_all

        play_all(self._settings, numbers, self._files)


class WriteShards(_Step):
    """Writes shards of the data set by their numbers."""

    def process(self, numbers: Sequence[int]) -> None:
        """Writes the shards."""
        from neural_midi_synth.corpus import shards

        for number in numbers:
            shards.write(self._settings, number)


STEPS = {"play": Play, "write_shards": WriteShards}
