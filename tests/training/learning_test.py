"""An instrument learns: after a minute it plays the pitches, and how long a note rings follows its style."""

import warnings

import numpy as np
import pytest

from neural_midi_synth import configs
from neural_midi_synth.evaluation import metrics
from neural_midi_synth.files.audio import write_audio
from neural_midi_synth.instrument.loading import configure
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi
from neural_midi_synth.training.loop import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of packages that tfds imports; none of them is ours.
    from neural_midi_synth.data_prep import midi_audio

SAMPLE_RATE = 8000
OPENNESS = 55
DECAY_SECONDS = {0: 0.1, 127: 1.5}  # of the amplitude, by openness
# The live guitar at half its sample rate, with small layers.
SMALL = f"""
SAMPLE_RATE = {SAMPLE_RATE}
FRAME_RATE = 125
Decoder.units = 64
Decoder.rnn_units = 64
harmonic/nms.Harmonic.n_harmonics = 30
fifth/nms.Harmonic.n_harmonics = 4
nms.FilteredNoise.n_bands = 17
nms.Reverb.reverb_length = 400
nms.SpectralLoss.fft_sizes = (1024, 256)
nms.train.batch_size = 6
nms.train.learning_rate = 3e-3
nms.train.steps = 100
"""


def play(notes, openness):
    """All harmonics of each note, which die away as its openness says, and are damped when it ends."""
    samples = np.zeros(round((notes[-1, 1] + 1.0) * SAMPLE_RATE), np.float32)
    for (start, end, pitch, velocity), value in zip(notes, openness):
        time = np.arange(round((end + 0.1 - start) * SAMPLE_RATE)) / SAMPLE_RATE
        envelope = np.exp(-time / DECAY_SECONDS[value]) * np.exp(-np.maximum(time - (end - start), 0.0) / 0.02)
        f0_hz = 440 * 2 ** ((pitch - 69) / 12)
        harmonics = range(1, int(SAMPLE_RATE / 2 / f0_hz) + 1)
        sound = (
            sum(np.sin(2 * np.pi * k * f0_hz * time) / k for k in harmonics) * envelope * np.minimum(time / 0.005, 1.0)
        )
        first = round(start * SAMPLE_RATE)
        samples[first : first + len(time)] += 0.3 * velocity / 127 * sound
    return samples


def record(path, seed, seconds):
    """Writes a take of notes at random pitches, open or closed; returns its sound and its voice."""
    random = np.random.default_rng(seed)
    lengths = random.choice([0.25, 0.5, 1.0, 1.8], 200)
    starts = 0.1 + np.concatenate([[0.0], np.cumsum(lengths + 0.12)])
    n_notes = int(np.searchsorted(starts, seconds - 2.0))
    pitches, velocities = random.integers(45, 58, n_notes), random.integers(60, 127, n_notes)
    notes = np.stack([starts[:n_notes], starts[:n_notes] + lengths[:n_notes], pitches, velocities], axis=1)
    openness = random.choice([0, 127], n_notes)
    voice = Voice(notes, np.stack([starts[:n_notes] - 0.05, np.full(n_notes, OPENNESS), openness], axis=1))
    samples = play(notes, openness)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, samples, SAMPLE_RATE)
    write_midi(voice, path.with_suffix(".mid"))
    return samples, voice


@pytest.mark.slow
def test_a_small_instrument_learns_pitch_and_style(tmp_path):
    for i in range(3):
        record(tmp_path / "takes" / f"{i}.wav", seed=i, seconds=40.0)
    (tmp_path / "small.gin").write_text(f"include '{configs.find('models/guitar_live_16k.gin')}'\n{SMALL}")
    configure([tmp_path / "small.gin"])
    builder = midi_audio.build(tmp_path / "takes", tmp_path / "data")
    instrument = train(builder, tmp_path / "instrument")

    recorded, voice = record(tmp_path / "melody.wav", seed=99, seconds=15.0)
    played = instrument.render(voice, n_samples=len(recorded))
    assert metrics.pitch_accuracy(recorded, played, SAMPLE_RATE) >= 0.9

    note = np.array([[0.1, 1.9, 50, 100]])
    decays = {}
    for value in (0, 127):
        expected = play(note, [value])
        style = np.array([[0.0, OPENNESS, value]])
        played = instrument.render(Voice(note, style), n_samples=len(expected))
        decays[value] = [metrics.openness_decay(samples, 0.1, SAMPLE_RATE) for samples in (expected, played)]
    assert decays[127][0] - decays[0][0] > 10.0  # As recorded,
    assert decays[127][1] - decays[0][1] > 10.0  # and as learnt.
