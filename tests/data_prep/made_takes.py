"""Takes made for tests: sines as their annotations say."""

import numpy as np

from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

SAMPLE_RATE = 8000


def make_take(path, seconds=30.0, seed=0, midi_suffix=".mid", notes=None, sample_rate=SAMPLE_RATE):
    """Writes a recording of sines and its annotation; returns the notes."""
    rng = np.random.default_rng(seed)
    if notes is None:
        starts = np.arange(0.25, seconds - 1.0, 0.75)
        pitches, velocities = rng.integers(50, 70, len(starts)), rng.integers(40, 127, len(starts))
        notes = np.stack([starts, starts + 0.5, pitches, velocities], axis=1).astype(np.float64)
    samples = np.zeros(round(seconds * sample_rate), np.float32)
    for start, end, pitch, velocity in notes:
        first, last = round(start * sample_rate), min(round(end * sample_rate), len(samples))
        time = np.arange(last - first) / sample_rate
        samples[first:last] = velocity / 254 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, samples, sample_rate)
    control_changes = np.array([[0.0, 55, 0], [seconds / 2, 55, 127]])
    write_midi(Voice(notes, control_changes), path.with_suffix(midi_suffix))
    return notes
