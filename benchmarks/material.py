"""What the benchmarks play and train with: instruments as gin describes them, and voices that go on for ever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.loading import build, configure
from neural_midi_synth.midi.pieces import Piece, Voice


def built(config: str, bindings: Sequence[str]) -> Instrument:
    """Builds an untrained instrument of a config of the package, such as 'guitar', with these of gin's bindings."""
    configure([configs.find(f"models/{config}.gin")], bindings)
    return build()


def voice(seconds: float, seed: int = 0) -> Voice:
    """Somebody plays: 2.5 notes a second, a style changes every two seconds, now and then a bend."""
    random = np.random.default_rng(seed)
    onsets = np.arange(0.0, seconds, 0.4)
    lengths = random.uniform(0.1, 0.4, len(onsets))
    pitches, velocities = random.integers(36, 60, len(onsets)), random.integers(30, 127, len(onsets))
    notes = np.stack([onsets, np.minimum(onsets + lengths, seconds), pitches, velocities], axis=1)
    changes = np.arange(0.0, seconds, 2.0)
    numbers, values = random.choice([55, 56], len(changes)), random.choice([0, 127], len(changes))
    bends = np.arange(0.0, seconds, 5.0)
    return Voice(
        notes,
        np.stack([changes, numbers, values], axis=1),
        np.stack([bends, random.uniform(-1.0, 1.0, len(bends))], axis=1),
    )


def piece(seconds: float, voices: int) -> Piece:
    """So many of them play together."""
    return Piece(tuple(voice(seconds, seed) for seed in range(voices)))


def events(voice: Voice, frame_rate: int) -> list[tuple[float, str, tuple[float, ...]]]:
    """The voice as a player gives it to a stream: frame, method and its arguments, in the order of time."""
    timed = [(onset, "note_on", (pitch, velocity)) for onset, _, pitch, velocity in voice.notes]
    timed += [(offset, "note_off", (pitch,)) for _, offset, pitch, _ in voice.notes]
    timed += [(at, "control_change", (number, value)) for at, number, value in voice.control_changes]
    timed += [(at, "pitch_bend", (semitones,)) for at, semitones in voice.pitch_bends]
    return sorted((at * frame_rate, kind, values) for at, kind, values in timed)


def training_features(batch: int, n_samples: int, sample_rate: int) -> dict[str, tf.Tensor]:
    """A batch as the data set gives it: noise for the recordings, whose sound makes no difference."""
    voices = [voice(n_samples / sample_rate, seed) for seed in range(batch)]
    features = {
        name: tf.constant(np.stack([getattr(each, name) for each in voices]), tf.float32)
        for name in ("notes", "control_changes", "pitch_bends")
    }
    audio = 0.1 * np.random.default_rng(3).normal(size=[batch, n_samples])
    return {**features, "audio": tf.constant(audio, tf.float32), "first_sample": tf.zeros([batch], tf.int64)}
