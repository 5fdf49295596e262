"""The spectral loss is ddsp's but for the floor, the mel bands and the windows, and so is its slope."""

import ddsp
import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.instrument.losses import SpectralLoss

SAMPLE_RATE = 16000
SIZES = (1024, 64)


def _sounds():
    """A recording with a pause and what is played, `[2, 6000]` each."""
    random = np.random.default_rng(0)
    recorded, played = (0.1 * random.normal(size=[2, 6000]) for _ in range(2))
    recorded[:, 2000:4000] = 0.0
    return tf.constant(recorded, tf.float32), tf.constant(played, tf.float32)


def _loss_and_slope(loss, recorded, played):
    with tf.GradientTape() as tape:
        tape.watch(played)
        value = loss(recorded, played)
    return value, tape.gradient(value, played)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_distance_of_magnitudes_is_that_of_ddsp(compiled):
    ours = SpectralLoss(SIZES, logmag_weight=0.0, mel_weight=0.0, sample_rate=SAMPLE_RATE)
    stock = ddsp.losses.SpectralLoss(fft_sizes=SIZES)
    run = tf.function(_loss_and_slope, jit_compile=compiled)
    for value, expected in zip(run(ours, *_sounds()), _loss_and_slope(stock, *_sounds())):
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("overlap", [0.5, 0.75, 0.875])
def test_windows_overlap_as_they_are_told(overlap):
    recorded, played = _sounds()
    loss = SpectralLoss((1024,), logmag_weight=0.0, mel_weight=0.0, overlap=overlap, sample_rate=SAMPLE_RATE)
    target, value = (ddsp.spectral_ops.compute_mag(each, 1024, overlap) for each in (recorded, played))
    assert target.shape[1] == -(-6000 // round(1024 * (1 - overlap)))
    expected = np.mean(np.abs(target - value))
    assert loss(recorded, played).numpy() == pytest.approx(expected, rel=1e-5)


def test_what_lies_under_the_floor_counts_as_equal_and_silence_has_a_slope():
    silence = tf.zeros([1, 6000])
    faint = 1e-5 * tf.sin(tf.range(6000.0)[tf.newaxis])  # −100 dB
    loss = SpectralLoss(SIZES, mag_weight=0.0, floor_db=-60.0, sample_rate=SAMPLE_RATE)
    assert loss(silence, faint) < 0.01 * loss(silence, 1e4 * faint)
    value, slope = _loss_and_slope(loss, faint, silence)
    assert np.isfinite(value) and np.all(np.isfinite(slope))


def test_above_a_frequency_only_mel_bands_count():
    def sine(hz):
        return 0.1 * tf.sin(tf.range(6000.0)[tf.newaxis] * (2.0 * np.pi * hz / SAMPLE_RATE))

    silence = tf.zeros([1, 6000])
    without, bands = (
        SpectralLoss(SIZES, mel_weight=weight, bins_up_to_hz=4000.0, sample_rate=SAMPLE_RATE) for weight in (0.0, 1.0)
    )
    everywhere = SpectralLoss(SIZES, mel_weight=0.0, sample_rate=SAMPLE_RATE)
    # Of a sine far above, where it breaks off is all that is left; and what is below counts in half as many bins.
    assert without(sine(6000.0), silence) < 0.2 * everywhere(sine(6000.0), silence)
    assert without(sine(1000.0), silence) > 1.5 * everywhere(sine(1000.0), silence)
    assert bands(sine(6000.0), silence) > 5 * without(sine(6000.0), silence)


def test_movement_is_compared_whichever_way_a_sound_moves():
    seconds = tf.range(2 * SAMPLE_RATE, dtype=tf.float32)[tf.newaxis] / SAMPLE_RATE

    def sound(depth, shift):
        beats = depth * tf.sin(2.0 * np.pi * 7.0 * seconds + shift)
        return 0.1 * tf.exp(beats) * sum(tf.sin(2.0 * np.pi * 300.0 * k * seconds) for k in range(1, 20))

    recorded = sound(0.3, 0.0)
    bands = {"mel_fft_sizes": (512,), "mel_bands": (40,), "sample_rate": SAMPLE_RATE}
    movement = SpectralLoss((), mel_weight=0.0, movement_weight=1.0, **bands)
    bin_by_bin = SpectralLoss((512,), mel_weight=0.0, **bands)
    depths = (0.0, 0.15, 0.3, 0.6)
    # With the beats the other way round a still sound is nearer bin by bin; by its movement the one that moves as much.
    assert np.argmin([bin_by_bin(recorded, sound(depth, np.pi)) for depth in depths]) == 0
    assert np.argmin([movement(recorded, sound(depth, np.pi)) for depth in depths]) == 2


def test_phases_are_compared_where_a_note_begins_and_after_that_whatever_the_delay():
    seconds = tf.range(SAMPLE_RATE, dtype=tf.float32)[tf.newaxis] / SAMPLE_RATE
    orders = tf.range(1.0, 13.0)
    first_phases = tf.constant(np.random.default_rng(0).uniform(-3.0, 3.0, 12), tf.float32)

    def note(first_phases, delay=0.0):
        since = (seconds - 0.3 - delay)[..., tf.newaxis]
        sines = 0.1 / orders * tf.sin(2.0 * np.pi * 130.0 * orders * since + first_phases)
        return tf.reduce_sum(sines * tf.clip_by_value(since / 0.0005, 0.0, 1.0), axis=-1)

    bands = {"mel_fft_sizes": (512,), "mel_bands": (40,), "sample_rate": SAMPLE_RATE}
    loss = SpectralLoss((), mel_weight=0.0, phase_weight=1.0, phase_fft_size=512, **bands)
    recorded = note(first_phases)
    assert loss(recorded, recorded) < 0.04  # Bins between the partials are near the floor.
    late = [float(loss(recorded, note(first_phases, delay))) for delay in (0.0, 0.0005, 0.001, 0.002)]
    assert np.all(np.diff(late) > 0.05) and late[-1] < 0.35
    held = slice(SAMPLE_RATE // 2, None)
    assert loss(recorded[:, held], note(first_phases, 0.002)[:, held]) < 0.1
    assert min(loss(recorded, note(0.0 * first_phases, delay)) for delay in (-0.001, 0.0, 0.001)) > 0.45
    # Of a sound with other phases a quieter one is no nearer, so nothing is gained by being quiet.
    quiet, loud = (loss(recorded, level * note(0.0 * first_phases)) for level in (0.5, 2.0))
    assert abs(quiet - loud) < 0.01
    # The slope leads from the pulses of equal phases to those of the recording.
    played = tf.Variable(tf.zeros([12]))
    optimizer = tf.keras.optimizers.Adam(0.1)
    for _ in range(80):
        with tf.GradientTape() as tape:
            distance = loss(recorded, note(played))
        optimizer.apply_gradients([(tape.gradient(distance, played), played)])
    assert distance < 0.15


@pytest.mark.parametrize("term", ["movement_weight", "phase_weight"])
@pytest.mark.parametrize("n_samples", [1, 64, 700])
def test_terms_of_short_clips_are_numbers(n_samples, term):
    loss = SpectralLoss(SIZES, **{term: 1.0}, sample_rate=SAMPLE_RATE)
    recorded, played = (each[:, :n_samples] for each in _sounds())
    value, slope = _loss_and_slope(loss, recorded, played)
    assert np.isfinite(value) and np.all(np.isfinite(slope))
