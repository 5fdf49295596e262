"""Processors sound as ddsp's do, and a stream of blocks of any size sounds as the clip."""

import itertools

import ddsp
import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth.instrument import harmonic as harmonic_lib
from neural_midi_synth.instrument import oscillators as oscillators_lib
from neural_midi_synth.instrument.harmonic import Harmonic
from neural_midi_synth.instrument.noise import FilteredNoise
from neural_midi_synth.instrument.processors import AUDIBLE, VOICE_OFFSET, ProcessorGroup
from neural_midi_synth.instrument.reverb import Reverb
from neural_midi_synth.instrument.white_noise import white_noise

SAMPLE_RATE = 16000
HOP = 64
METHODS = ("window", "linear")


def _outputs_of_a_network(n_frames, *sizes, batch=1, seed=0):
    """Random network outputs, float32 `[batch, n_frames, size]` for each size."""
    random = np.random.default_rng(seed)
    return [tf.constant(random.normal(size=[batch, n_frames, size]), tf.float32) for size in sizes]


def _f0(begin, end, n_frames, batch=1):
    """A glide from one frequency to another, Hz; further voices of the batch play slightly higher."""
    glide = np.geomspace(begin, end, n_frames)
    return tf.constant(glide[:, np.newaxis] * (1.0 + 0.01 * np.arange(batch)[:, np.newaxis, np.newaxis]), tf.float32)


def _upsampled(frames, hop, method):
    """As `ddsp.core.resample` does by a whole factor: from each frame to the next, the last one held."""
    rise = np.arange(hop) / hop
    if method == "window":
        rise = 0.5 - 0.5 * np.cos(np.pi * rise)
    frames = np.concatenate([frames, frames[:, -1:]], axis=1)
    begin, end = frames[:, :-1, np.newaxis], frames[:, 1:, np.newaxis]
    return (begin + rise[:, np.newaxis] * (end - begin)).reshape(len(frames), -1, frames.shape[-1])


def _stock_harmonic(amplitudes, harmonic_distribution, f0_hz, hop=HOP, method="window"):
    """`ddsp.core.harmonic_synthesis`, step by step, in float64. Returns also where a harmonic is cut off in a hop."""
    amplitudes, distribution, f0_hz = (np.asarray(x, np.float64) for x in (amplitudes, harmonic_distribution, f0_hz))
    frequencies = f0_hz * np.arange(1, distribution.shape[-1] + 1)
    above = frequencies >= SAMPLE_RATE / 2
    cut = np.any(above[:, 1:] != above[:, :-1], axis=-1)
    frequencies = _upsampled(frequencies, hop, "linear")
    envelopes = np.where(frequencies >= SAMPLE_RATE / 2, 0.0, _upsampled(amplitudes * distribution, hop, method))
    cycles = np.cumsum(frequencies / SAMPLE_RATE, axis=1)
    signal = np.sum(envelopes * np.sin(2.0 * np.pi * (cycles % 1.0)), axis=-1)
    return signal, np.repeat(np.pad(cut, [(0, 0), (0, 1)]), hop, axis=1)


def _relative_error(signal, reference):
    return np.abs(np.asarray(signal) - np.asarray(reference)).max() / np.abs(np.asarray(reference)).max()


def _in_blocks(step, controls, state, lengths):
    """The signal of a stream, and the state after it; `controls` are along axis 1, in blocks of these lengths."""
    signals = []
    ends = np.cumsum(lengths)
    for begin, end in zip(ends - lengths, ends):
        block = {name: value[:, begin:end] if len(value.shape) > 1 else value for name, value in controls.items()}
        signal, state = step(block, state)
        signals.append(signal)
    return np.concatenate(signals, axis=1), state


def _random_lengths(total, seed):
    random = np.random.default_rng(seed)
    cuts = np.sort(random.choice(np.arange(1, total), size=min(5, total - 1), replace=False))
    return np.diff([0, *cuts, total])


# 1e-4 of the peak is what the design promises; float32 sums of a hundred harmonics come within 1e-5.
PROMISED = 1e-4
# Where the pitch glides, what the bank leaves out grows with the square of the glide (see `Oscillators`): a semitone in
# a hundred milliseconds and a hundred harmonics of random loudness.
GLIDING = 3e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("glide", [(110.0, 110.0), (62.0, 79.0), (41.2, 61.7)])
@pytest.mark.parametrize("n_harmonics", [1, 9, 10, 28, 29, 100])  # a group of harmonics, and one more
def test_harmonics_are_those_of_ddsp(method, glide, n_harmonics):
    n_frames = 250
    harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics, amp_resample_method=method)
    network = _outputs_of_a_network(n_frames, 1, n_harmonics, batch=2)
    controls = harmonic.get_controls(*network, _f0(*glide, n_frames, batch=2))
    expected, _ = _stock_harmonic(**controls, method=method)
    signal = harmonic.get_signal(**controls)
    assert signal.shape == (2, n_frames * HOP)
    assert _relative_error(signal, expected) < PROMISED


@pytest.mark.parametrize("method", METHODS)
def test_a_glide_differs_only_where_it_takes_a_harmonic_through_half_the_sample_rate(method):
    # ddsp cuts such a harmonic off at the sample where it gets there; here it fades over the hop.
    n_frames = 100
    harmonic = Harmonic(SAMPLE_RATE, HOP, 100, amp_resample_method=method)
    controls = harmonic.get_controls(*_outputs_of_a_network(n_frames, 1, 100), _f0(100.0, 130.0, n_frames))
    expected, cut = _stock_harmonic(**controls, method=method)
    assert 0 < np.mean(cut) < 0.5
    error = np.abs(harmonic.get_signal(**controls) - expected) / np.abs(expected).max()
    assert error[~cut].max() < GLIDING
    assert error[cut].max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_nothing_sounds_above_half_the_sample_rate_even_when_not_normalised(method):
    harmonic = Harmonic(SAMPLE_RATE, HOP, 100, amp_resample_method=method, normalize_below_nyquist=False)
    controls = harmonic.get_controls(*_outputs_of_a_network(50, 1, 100), _f0(300.0, 300.0, 50))
    expected, _ = _stock_harmonic(**controls, method=method)
    assert _relative_error(harmonic.get_signal(**controls), expected) < PROMISED


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hop", [192, 200, 384])
@pytest.mark.parametrize(("highest_hz", "spacing"), [(11_000.0, 2), (7_500.0, 3), (11_500.0, 1)])
def test_a_bank_of_low_harmonics_is_played_at_fewer_samples(method, hop, highest_hz, spacing):
    n_frames, n_harmonics, sample_rate = 60, 60, 48_000
    with_all, low = (
        Harmonic(sample_rate, hop, n_harmonics, highest_hz=highest, amp_resample_method=method)
        for highest in (None, highest_hz)
    )
    np.testing.assert_allclose(np.diff(low.oscillators.positions), spacing)
    inputs = [*_outputs_of_a_network(n_frames, 1, n_harmonics), _f0(100.0, 115.0, n_frames)]
    inputs = [tf.Variable(each) for each in inputs]
    weights = np.random.default_rng(1).normal(size=[1, n_frames * hop]).astype(np.float32)
    with tf.GradientTape(persistent=True) as tape:
        expected, played = (harmonic(*inputs) for harmonic in (with_all, low))
        losses = [tf.reduce_sum(each * weights) for each in (expected, played)]
    # 60 dB below the sound, whose harmonics are as loud at 6 kHz as at 100 Hz.
    assert np.std(played - expected) < 1e-3 * np.std(expected)
    assert np.abs(played - expected).max() < 1e-2 * np.abs(expected).max()
    for each in inputs:
        of_expected, of_played = (tape.gradient(loss, each) for loss in losses)
        assert tf.norm(of_played - of_expected) < 0.02 * tf.norm(of_expected)


def test_a_bank_of_low_harmonics_is_played_at_every_sample_where_hops_are_huge():
    # The matrix that fills in would have as many numbers as a hop has samples, squared.
    assert len(Harmonic(48_000, 65_536, 2, highest_hz=1000.0).oscillators.positions) >= 65_536


def test_harmonics_above_the_highest_are_silent():
    harmonic = Harmonic(48_000, 192, 100, highest_hz=11_000.0)
    controls = harmonic.get_controls(*_outputs_of_a_network(50, 1, 100), tf.fill([1, 50, 1], 440.0))
    audible = controls["harmonic_distribution"].numpy() > 0.0
    assert audible[..., :24].all() and not audible[..., 25:].any()  # 25 x 440 Hz are 11,000 Hz.
    np.testing.assert_allclose(np.sum(controls["harmonic_distribution"], axis=-1), 1.0, rtol=1e-5)
    signal = harmonic.get_signal(**controls)[0, 192:].numpy()
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal))))
    above = round(11_300 * len(signal) / 48_000)
    assert spectrum[above:].max() < 1e-3 * spectrum.max()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_note_begins_at_its_sample_in_a_bank_of_low_harmonics_too(place):
    n_frames, frame, hop = 12, 6, 192
    sounds = (np.arange(n_frames) >= frame).astype(np.float32).reshape([1, -1, 1])
    first = (frame - 1 + place) * hop
    harmonic = Harmonic(48_000, hop, 1, highest_hz=11_000.0, scale_fn=None)
    f0_hz = np.where(sounds > 0.0, 1000.0, 300.0).astype(np.float32)
    onset = _onsets(n_frames, (frame, place))
    played = harmonic.get_signal(tf.constant(sounds), tf.constant(sounds), tf.constant(f0_hz), onset=onset)[0].numpy()
    assert np.abs(played[: int(first) - 48]).max() < 1e-3  # But for a millisecond, what is filled in is silent before.
    sine = played[int(first + hop / 16) + 48 : (frame + 3) * hop]
    turns = 2.0 * np.pi * 1000.0 / 48_000 * np.arange(len(sine))
    basis = np.stack([np.sin(turns), np.cos(turns)], axis=1)
    weights = np.linalg.lstsq(basis, sine, rcond=None)[0]
    np.testing.assert_allclose(sine, basis @ weights, atol=2e-3)
    assert np.hypot(*weights) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_short_clip_is_that_of_ddsp_itself(method):
    # ddsp adds up its phase in float32, 1e-7 of the phase a sample: its own error passes 1e-4 after eight frames.
    n_frames, n_harmonics = 4, 8
    inputs = [*_outputs_of_a_network(n_frames, 1, n_harmonics, batch=3), _f0(80.0, 84.0, n_frames, batch=3)]
    stock = ddsp.synths.Harmonic(n_samples=n_frames * HOP, sample_rate=SAMPLE_RATE, amp_resample_method=method)
    signal = Harmonic(SAMPLE_RATE, HOP, n_harmonics, amp_resample_method=method)(*inputs)
    assert _relative_error(signal, stock(*inputs)) < PROMISED


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_ddsp(method):
    n_frames, n_harmonics = 4, 8  # short, as above
    inputs = [*_outputs_of_a_network(n_frames, 1, n_harmonics, batch=2), _f0(80.0, 84.0, n_frames, batch=2)]
    inputs = [tf.Variable(each) for each in inputs]
    (upstream,) = _outputs_of_a_network(n_frames * HOP, 1, batch=2, seed=1)
    stock = ddsp.synths.Harmonic(n_samples=n_frames * HOP, sample_rate=SAMPLE_RATE, amp_resample_method=method)
    gradients = []
    for harmonic in (Harmonic(SAMPLE_RATE, HOP, n_harmonics, amp_resample_method=method), stock):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(harmonic(*inputs) * upstream[..., 0])
        gradients.append(tape.gradient(loss, inputs))
    for ours, theirs in zip(*gradients):
        assert _relative_error(ours, theirs) < GLIDING


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("f0_ratio", [1.0, 1.5])
def test_the_gradient_of_a_gliding_f0_is_the_slope_of_ddsps_sum(method, f0_ratio):
    n_frames, n_harmonics, step = 60, 40, 1e-6
    harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics, f0_ratio, amp_resample_method=method)
    network = _outputs_of_a_network(n_frames, 1, n_harmonics)
    f0_hz = _f0(60.0, 100.0, n_frames)
    upstream, direction = (
        np.random.default_rng(i).normal(size=[1, n]) for i, n in enumerate((n_frames * HOP, n_frames))
    )
    with tf.GradientTape() as tape:
        tape.watch(f0_hz)
        loss = tf.reduce_sum(harmonic(*network, f0_hz) * tf.cast(upstream, tf.float32))
    gradient = tape.gradient(loss, f0_hz).numpy()[..., 0]

    controls = {name: np.asarray(value, np.float64) for name, value in harmonic.get_controls(*network, f0_hz).items()}
    ahead, behind = (
        np.sum(upstream * _stock_harmonic(**{**controls, "f0_hz": controls["f0_hz"] + by}, method=method)[0])
        for by in (f0_ratio * step * direction[..., np.newaxis], -f0_ratio * step * direction[..., np.newaxis])
    )
    # Differences in float64 with a step of a millionth lose some six digits.
    assert np.sum(gradient * direction) == pytest.approx((ahead - behind) / (2.0 * step), rel=1e-3)


@pytest.mark.parametrize(("n_harmonics", "plucked"), [(8, False), (100, False), (20, True)])
def test_harmonics_compiled_by_xla_are_the_others(n_harmonics, plucked):
    n_frames = 50
    harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics)
    inputs = [*_outputs_of_a_network(n_frames, 1, n_harmonics, batch=2), _f0(80.0, 110.0, n_frames, batch=2)]
    if plucked:
        harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics, moves=True, learns_phases=True)
        onset = tf.concat([_onsets(n_frames, (3, 0.1), (4, 0.7), (31, 0.9)), _onsets(n_frames, (12, 0.4))], axis=0)
        others = _outputs_of_a_network(n_frames, n_harmonics, n_harmonics, batch=2, seed=2)
        inputs += [tf.fill([2, n_frames, 1], 2e-4), onset, *others]
    (upstream,) = _outputs_of_a_network(n_frames * HOP, 1, batch=2, seed=1)

    def signal_and_gradients(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            signal = harmonic(*inputs)
            loss = tf.reduce_sum(signal * upstream[..., 0])
        return signal, *tape.gradient(loss, [*inputs[:4], *inputs[5:]])

    def for_xla(*inputs):
        with oscillators_lib.polynomial_sines():
            return signal_and_gradients(*inputs)

    # The polynomial is a sine to 3e-7, and its slope to a few times that for each of up to 100 harmonics.
    for ours, expected in zip(tf.function(for_xla, jit_compile=True)(*inputs), signal_and_gradients(*inputs)):
        assert _relative_error(ours, expected) < PROMISED / 5
    signal = for_xla(*inputs)[0]
    assert np.any(signal != harmonic(*inputs)), "its sines are polynomials, out of XLA too"


def _stock_strings(amplitudes, harmonic_distribution, f0_hz, inharmonicity, hop=HOP):
    """As `_stock_harmonic`, with partials where those of stiff strings are."""
    amplitudes, distribution, f0_hz, inharmonicity = (
        np.asarray(x, np.float64) for x in (amplitudes, harmonic_distribution, f0_hz, inharmonicity)
    )
    orders = np.arange(1, distribution.shape[-1] + 1)
    frequencies = f0_hz * orders * np.sqrt(1.0 + inharmonicity * orders**2)
    audible = np.where(frequencies < SAMPLE_RATE / 2, amplitudes * distribution, 0.0)
    cycles = np.cumsum(_upsampled(frequencies, hop, "linear") / SAMPLE_RATE, axis=1)
    return np.sum(_upsampled(audible, hop, "window") * np.sin(2.0 * np.pi * (cycles % 1.0)), axis=-1)


def _controls_of_strings(n_frames, n_harmonics, inharmonicity, batch=1):
    harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics)
    network = _outputs_of_a_network(n_frames, 1, n_harmonics, batch=batch)
    stiff = tf.fill([batch, n_frames, 1], inharmonicity)
    return harmonic, harmonic.get_controls(*network, _f0(110.0, 112.0, n_frames, batch=batch), stiff)


@pytest.mark.parametrize("inharmonicity", [0.0, 1e-4, 1e-3])
def test_partials_of_stiff_strings_are_where_fletcher_puts_them(inharmonicity):
    harmonic, controls = _controls_of_strings(100, 40, inharmonicity, batch=2)
    assert _relative_error(harmonic.get_signal(**controls), _stock_strings(**controls)) < GLIDING
    if not inharmonicity:
        del controls["inharmonicity"]
        assert _relative_error(harmonic.get_signal(**controls), _stock_harmonic(**controls)[0]) < PROMISED


def test_the_gradient_of_inharmonicity_is_the_slope_of_the_sum():
    harmonic, controls = _controls_of_strings(30, 20, 2e-4)
    upstream = np.random.default_rng(1).normal(size=[1, 30 * HOP])
    stiff = controls["inharmonicity"]
    with tf.GradientTape() as tape:
        tape.watch(stiff)
        signal = harmonic.get_signal(**{**controls, "inharmonicity": stiff})
        loss = tf.reduce_sum(signal * tf.cast(upstream, tf.float32))
    gradient = np.sum(tape.gradient(loss, stiff))
    step = 1e-9
    ahead, behind = (
        np.sum(upstream * _stock_strings(**{**controls, "inharmonicity": np.asarray(stiff, np.float64) + by}))
        for by in (step, -step)
    )
    assert gradient == pytest.approx((ahead - behind) / (2.0 * step), rel=2e-3)


def test_partials_of_stiff_strings_do_not_drift_in_an_hour():
    sample_rate, hop, n_hops, stiff = 16000, 64, 3600 * 250, np.float32(1e-4)
    harmonic = Harmonic(sample_rate, hop, 3, scale_fn=None)
    f0_hz, third = np.float32(440.017), [[[0.0, 0.0, 1.0]]]
    above = oscillators_lib.CYCLE * float(
        harmonic_lib.deviations(tf.fill([1, 1, 1], 3 * f0_hz), np.float32([3.0]), tf.fill([1, 1, 1], stiff))[0, 0, 0]
    )
    a_hop = [round(float(f0_hz) * hop / sample_rate * 2**32), round(above * hop / sample_rate)]
    after_an_hour = [each * n_hops % 2**32 for each in a_hop]
    controls = {
        "amplitudes": tf.ones([1, 2, 1]),
        "harmonic_distribution": tf.tile(tf.constant(third), [1, 2, 1]),
        "f0_hz": tf.fill([1, 2, 1], f0_hz),
        "inharmonicity": tf.fill([1, 2, 1], stiff),
    }
    _, state = harmonic.step(controls, harmonic.initial_state(1))  # For the frequencies of the last frame.
    state |= {
        "phase": tf.constant([after_an_hour[0]], tf.int64),
        "deviation": tf.constant([[0, 0, after_an_hour[1]]], tf.int64),
    }
    signal, _ = harmonic.step(controls, state)
    steps = 3 * after_an_hour[0] + after_an_hour[1]
    samples = np.arange(1, 2 * hop + 1)
    cycles = steps / 2**32 + samples / sample_rate * (3.0 * float(f0_hz) + above / 2**32)
    np.testing.assert_allclose(signal[0], np.sin(2.0 * np.pi * cycles), atol=1e-5)


def _onsets(n_frames, *places):
    """Frame → where in the hop before it a note begins."""
    onset = np.full([1, n_frames, 1], -1.0, np.float32)
    for frame, place in places:
        onset[0, frame] = place
    return tf.constant(onset)


@pytest.mark.parametrize("place", [0.0, 0.25, 0.9])
def test_a_note_begins_at_its_sample(place):
    n_frames, frame = 12, 6
    sounds = (np.arange(n_frames) >= frame).astype(np.float32).reshape([1, -1, 1])
    onset = _onsets(n_frames, (frame, place))
    first = int((frame - 1 + place) * HOP)
    harmonic = Harmonic(SAMPLE_RATE, HOP, 1, scale_fn=None)
    f0_hz = np.where(sounds > 0.0, 1000.0, 300.0).astype(np.float32)
    played = harmonic.get_signal(tf.constant(sounds), tf.constant(sounds), tf.constant(f0_hz), onset=onset)[0].numpy()
    assert not played[:first].any()
    # Its pitch is its own at once: half of the rise later there is a sine of 1000 Hz.
    sine = played[first + HOP // 16 + 1 : (frame - 1) * HOP + 3 * HOP]
    turns = 2.0 * np.pi * 1000.0 / SAMPLE_RATE * np.arange(len(sine))
    basis = np.stack([np.sin(turns), np.cos(turns)], axis=1)
    fitted = basis @ np.linalg.lstsq(basis, sine, rcond=None)[0]
    np.testing.assert_allclose(sine, fitted, atol=2e-4)
    assert np.hypot(*np.linalg.lstsq(basis, sine, rcond=None)[0]) == pytest.approx(1.0, abs=1e-3)

    noise = FilteredNoise(HOP, 33, scale_fn=None).get_signal(tf.tile(tf.constant(sounds), [1, 1, 33]), onset=onset)
    noise = noise[0].numpy()
    assert not noise[:first].any()
    level = np.sqrt(np.mean(noise[frame * HOP :] ** 2))
    assert np.sqrt(np.mean(noise[first + HOP // 16 : frame * HOP] ** 2)) > 0.4 * level


@pytest.mark.parametrize("learns_phases", [False, True])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_partials_of_a_plucked_string_begin_together(place, learns_phases):
    n_frames, frame, stiff = 60, 31, 2e-4
    harmonic, controls = _controls_of_strings(n_frames, 20, stiff)
    controls = {name: tf.tile(value[:, -1:], [1, n_frames, 1]) for name, value in controls.items()}
    controls["onset"] = _onsets(n_frames, (7, 0.5), (frame, place))
    first_phases = np.zeros(20)
    if learns_phases:
        of_frames = np.random.default_rng(2).uniform(-3.0, 3.0, size=[1, n_frames, 20])
        controls["first_phases"] = tf.constant(of_frames, tf.float32)
        first_phases = of_frames[0, frame]
    orders, f0_hz = np.arange(1, 21), float(controls["f0_hz"][0, 0, 0])
    pulse = (frame - 1 + place) * HOP + 0.0015 * SAMPLE_RATE
    samples = np.arange((frame - 1 + place) * HOP + 2 * 24 + 1, n_frames * HOP).astype(int)
    loudness = np.asarray(controls["amplitudes"] * controls["harmonic_distribution"], np.float64)[0, 0]

    def expected(stiff, first_phases=first_phases):
        cycles = (
            f0_hz * orders * np.sqrt(1.0 + stiff * orders**2) * (samples[:, np.newaxis] + 1.0 - pulse) / SAMPLE_RATE
        )
        return np.sin(2.0 * np.pi * (cycles + first_phases)) @ loudness

    upstream = np.random.default_rng(0).normal(size=len(samples))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(controls)
        played = harmonic.get_signal(**controls)[0, samples[0] :]
        loss = tf.reduce_sum(played * tf.cast(upstream, tf.float32))
    assert _relative_error(played, expected(stiff)) < PROMISED
    # The slope of B, of which the frames before the note have no part.
    gradient = tape.gradient(loss, controls["inharmonicity"])[0, :, 0]
    assert np.sum(gradient) == pytest.approx(
        upstream @ (expected(stiff + 1e-9) - expected(stiff - 1e-9)) / 2e-9, rel=2e-3
    )
    assert np.max(np.abs(gradient[: frame - 1])) < 1e-6 * np.max(np.abs(gradient))
    if learns_phases:
        gradient = tape.gradient(loss, controls["first_phases"])[0].numpy()
        slopes = [
            upstream @ (expected(stiff, first_phases + step) - expected(stiff, first_phases - step)) / 2e-6
            for step in 1e-6 * np.eye(20)
        ]
        np.testing.assert_allclose(gradient[frame], slopes, atol=2e-3 * np.max(np.abs(slopes)))
        gradient[frame] = 0.0
        assert not gradient.any(), "no other frame counts"


def test_a_note_that_is_no_string_goes_on_in_its_phase():
    harmonic, controls = _controls_of_strings(30, 20, 0.0)
    without = {name: value for name, value in controls.items() if name != "inharmonicity"}
    onset = _onsets(30, (15, 0.3))
    ours, expected = (harmonic.get_signal(**each, onset=onset) for each in (controls, without))
    assert _relative_error(ours, expected) < PROMISED / 10


def test_blocks_equal_the_whole_where_notes_begin_to_the_sample():
    n_frames = 40
    onset = _onsets(n_frames, (3, 0.1), (4, 0.7), (17, 0.0), (25, 0.93))
    harmonic, controls = _controls_of_strings(n_frames, 30, 2e-4)
    controls["first_phases"] = _outputs_of_a_network(n_frames, 30)[0]
    filtered_noise = FilteredNoise(HOP, 33)
    for processor, of_processor in (
        (harmonic, controls),
        (filtered_noise, filtered_noise.get_controls(*_outputs_of_a_network(n_frames, 33))),
    ):
        of_processor = {**of_processor, "onset": onset}
        whole, _ = processor.step(of_processor, processor.initial_state(1))
        for seed in range(3):
            blocks, _ = _in_blocks(
                processor.step, of_processor, processor.initial_state(1), _random_lengths(n_frames, seed)
            )
            assert _relative_error(blocks, whole) < PROMISED / 10


def test_f0_learns_the_pitch_of_a_recording():
    n_frames = 25
    harmonic = Harmonic(SAMPLE_RATE, HOP, 4)
    network = _outputs_of_a_network(n_frames, 1, 4)
    recording = harmonic(*network, tf.fill([1, n_frames, 1], 200.0))
    f0_hz = tf.Variable(tf.fill([1, 1, 1], 201.5))
    optimizer = tf.keras.optimizers.Adam(0.05)
    for _ in range(100):
        with tf.GradientTape() as tape:
            error = tf.reduce_mean((harmonic(*network, tf.tile(f0_hz, [1, n_frames, 1])) - recording) ** 2)
        optimizer.apply_gradients([(tape.gradient(error, f0_hz), f0_hz)])
    assert f0_hz.numpy().item() == pytest.approx(200.0, abs=0.05)


def test_exp_sigmoid_is_that_of_ddsp():
    x = tf.constant(np.linspace(-30.0, 30.0, 601), tf.float32)
    values = []
    for scale in (harmonic_lib.exp_sigmoid, ddsp.core.exp_sigmoid):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = scale(x)
        values.append((y, tape.gradient(y, x)))
    for ours, theirs in zip(*values):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)


def test_the_fifth_is_a_ratio_of_three_to_two():
    network = _outputs_of_a_network(40, 1, 60)
    f0_hz = _f0(100.0, 120.0, 40)
    fifth = Harmonic(SAMPLE_RATE, HOP, 60, f0_ratio=1.5)
    np.testing.assert_array_equal(fifth(*network, f0_hz), Harmonic(SAMPLE_RATE, HOP, 60)(*network, 1.5 * f0_hz))


def test_phase_after_an_hour_is_that_of_exact_arithmetic():
    # Hop by hop, as whole numbers of 2^-32 cycles; in float32 an hour at 440 Hz has lost it by a tenth of a cycle.
    sample_rate, hop, f0_hz, n_hops = 16000, 64, np.float32(440.017), 3600 * 250
    a_hop = round(float(f0_hz) * hop / sample_rate * 2**32)
    after_an_hour = a_hop * n_hops % 2**32
    harmonic = Harmonic(sample_rate, hop, 1, scale_fn=None)
    n_frames = 10
    controls = {
        "amplitudes": tf.ones([1, n_frames, 1]),
        "harmonic_distribution": tf.ones([1, n_frames, 1]),
        "f0_hz": tf.fill([1, n_frames, 1], f0_hz),
    }
    state = {
        "phase": tf.constant([after_an_hour], tf.int64),
        "deviation": tf.zeros([1, 1], tf.int64),
        "f0_hz": tf.fill([1, 1, 1], f0_hz),
        "deviation_hz": tf.zeros([1, 1, 1]),
        "harmonics": tf.ones([1, 1, 1]),
    }
    signal, state = harmonic.step(controls, state)
    cycles = [
        (after_an_hour + a_hop * i + round(float(f0_hz) * (j + 1) / sample_rate * 2**32)) % 2**32 / 2**32
        for i, j in itertools.product(range(n_frames), range(hop))
    ]
    np.testing.assert_allclose(signal[0], np.sin(2.0 * np.pi * np.array(cycles)), atol=2e-6)
    assert state["phase"] == a_hop * (n_hops + n_frames) % 2**32
    # The rounding of a hop to 2^-32 cycles is all that drifts: a thousandth of a cycle in an hour.
    drift = a_hop / 2**32 * n_hops - float(f0_hz) * hop / sample_rate * n_hops
    assert abs(drift) < 1e-3


def test_many_hops_in_one_block_do_not_overflow_the_phase():
    harmonic = Harmonic(SAMPLE_RATE, HOP, 1, scale_fn=None)
    f0_hz = tf.fill([1, 100_000, 1], 7999.0)
    begins, last = harmonic.oscillators.begins(f0_hz, tf.constant([[2**32 - 1]], tf.int64), None, None)
    phase = harmonic.oscillators.phases(begins, f0_hz, None, None)
    a_hop = round(7999.0 * HOP / SAMPLE_RATE * 2**32)
    assert last == (2**32 - 1 + a_hop * 99_999) % 2**32
    assert -0.5 <= np.min(phase) and np.max(phase) <= 0.5


def test_an_unknown_way_to_go_from_frame_to_frame_is_refused():
    with pytest.raises(ValueError, match="'cubic' is neither 'window' nor 'linear'"):
        Harmonic(SAMPLE_RATE, HOP, 10, amp_resample_method="cubic")


@pytest.mark.parametrize(("hop", "n_bands", "window_size"), [(64, 65, 0), (64, 65, 129), (64, 33, 21), (80, 65, 0)])
def test_noise_is_filtered_as_in_ddsp(hop, n_bands, window_size):
    n_frames = 30
    filtered_noise = FilteredNoise(hop, n_bands, window_size, seed=3)
    controls = filtered_noise.get_controls(*_outputs_of_a_network(n_frames, n_bands, batch=2))
    noise = white_noise(tf.range(n_frames * hop, dtype=tf.int64), 3)
    expected = ddsp.core.frequency_filter(
        tf.tile(noise[tf.newaxis], [2, 1]), controls["magnitudes"], window_size=window_size
    )
    signal = filtered_noise.get_signal(**controls)
    assert signal.shape == (2, n_frames * hop)
    # The same sums in another order.
    assert _relative_error(signal, expected) < 1e-5


def test_a_filter_longer_than_the_latency_is_refused():
    with pytest.raises(ValueError, match="300 bands need a hop of"):
        FilteredNoise(HOP, 300)


def test_white_noise_is_white():
    n = 2**18
    noise = white_noise(tf.range(n, dtype=tf.int64), 0).numpy().astype(np.float64)
    assert np.all((noise >= -1.0) & (noise < 1.0))
    # Five standard errors of the mean, of the variance of a uniform distribution, and of a correlation.
    assert abs(np.mean(noise)) < 5.0 * np.sqrt(1.0 / 3.0 / n)
    assert abs(np.var(noise) - 1.0 / 3.0) < 5.0 * np.sqrt(4.0 / 45.0 / n)
    counts, _ = np.histogram(noise, bins=64, range=(-1.0, 1.0))
    assert np.abs(counts - n / 64).max() < 5.0 * np.sqrt(n / 64)
    correlations = np.fft.irfft(np.abs(np.fft.rfft(noise, 2 * n)) ** 2)[1:1000] / (n / 3.0)
    assert np.abs(correlations).max() < 5.0 / np.sqrt(n)
    # Power in a band of many bins is what a flat spectrum has, within five standard errors.
    power = np.abs(np.fft.rfft(noise)[1:]) ** 2 / (n / 3.0)
    bands = power.reshape(64, -1).mean(axis=1)
    assert np.abs(bands - 1.0).max() < 5.0 / np.sqrt(n / 128)


def test_white_noise_depends_on_seed_and_sample_alone():
    def noise(first, n, seed=0):
        return white_noise(first + tf.range(n, dtype=tf.int64), seed).numpy()

    np.testing.assert_array_equal(noise(0, 1000)[123:456], noise(123, 333))
    far = 5 * 3600 * 48000
    np.testing.assert_array_equal(noise(far, 100)[50:], noise(far + 50, 50))
    for other in (noise(0, 10_000, seed=1), noise(0, 10_000, seed=-1), noise(far, 10_000)):
        assert abs(np.corrcoef(noise(0, 10_000), other)[0, 1]) < 5.0 / np.sqrt(10_000)


def test_noise_starts_from_any_sample():
    filtered_noise = FilteredNoise(HOP, 33)
    magnitudes = tf.ones([2, 20, 33])
    whole, _ = filtered_noise.step({"magnitudes": magnitudes}, filtered_noise.initial_state(2))
    later, state = filtered_noise.step(
        {"magnitudes": magnitudes[:, :10]}, filtered_noise.initial_state(2, tf.constant([0, 10 * HOP]))
    )
    np.testing.assert_array_equal(state["sample"], [10 * HOP, 20 * HOP])
    np.testing.assert_allclose(later[0], whole[0, : 10 * HOP], atol=1e-6)
    # What rang at the beginning of the later one is missing; filter and latency are less than two hops.
    np.testing.assert_allclose(later[1, 2 * HOP :], whole[0, 12 * HOP : 20 * HOP], atol=1e-6)


def _reverb(length, **settings):
    reverb = Reverb(length, **settings)
    reverb.build(None)
    response = np.random.default_rng(0).normal(size=length) * np.exp(-np.arange(length) / 50.0)
    reverb._ir.assign(response)
    return reverb


@pytest.mark.parametrize("length", [2, 100, 1000, 3000])
@pytest.mark.parametrize("add_dry", [True, False])
def test_reverb_is_that_of_ddsp(length, add_dry):
    audio = tf.constant(np.random.default_rng(1).normal(size=[2, 1000]), tf.float32)
    reverb = _reverb(length, add_dry=add_dry)
    stock = ddsp.effects.Reverb(trainable=True, reverb_length=length, add_dry=add_dry)
    stock.build(None)
    stock._ir.assign(reverb._ir)
    assert _relative_error(reverb(audio), stock(audio)) < 1e-5


def test_gradient_of_the_impulse_response_is_that_of_ddsp():
    audio = tf.constant(np.random.default_rng(1).normal(size=[2, 500]), tf.float32)
    reverb, stock = _reverb(200), ddsp.effects.Reverb(trainable=True, reverb_length=200)
    stock.build(None)
    stock._ir.assign(reverb._ir)
    gradients = []
    for each in (reverb, stock):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(each(audio) ** 2)
        gradients.append(tape.gradient(loss, each._ir))
    assert gradients[0][0] == 0.0, "the dry signal is not the room's matter"
    assert _relative_error(*gradients) < 1e-5


def test_a_decaying_response_makes_late_reflections_small():
    reverb = Reverb(1000, decay_seconds=0.01, sample_rate=SAMPLE_RATE)
    reverb.build(None)
    reverb._ir.assign(tf.ones([1000]))
    expected = np.exp(-np.arange(1000) / 160.0)
    expected[0] = 0.0
    np.testing.assert_allclose(reverb.impulse_response(), expected, atol=1e-6)


@pytest.mark.parametrize("add_dry", [True, False])
def test_what_is_inaudible_of_a_response_is_left_out(add_dry):
    reverb = _reverb(3000, add_dry=add_dry)
    response = np.random.default_rng(0).normal(size=3000) * np.exp(-np.arange(3000) / 100.0)
    reverb._ir.assign(response)
    audio = tf.constant(np.random.default_rng(1).normal(size=[2, 4000]), tf.float32)
    whole, _ = reverb.step(reverb.get_controls(audio), reverb.initial_state(2))
    reverb.leave_out_the_inaudible()
    controls, state = reverb.get_controls(audio), reverb.initial_state(2)
    assert 100 * np.log(1e3) < len(controls["ir"]) < 100 * np.log(1e5)
    assert state["ringing"].shape == (2, len(controls["ir"]) - 1)
    shorter, state = reverb.step(controls, state)
    assert 1e-6 < np.std(shorter - whole) / np.std(whole) < 2e-4
    again, _ = _in_blocks(
        lambda block, state: reverb.step({**block, "ir": controls["ir"]}, state),
        {"audio": audio},
        reverb.initial_state(2),
        _random_lengths(4000, 0),
    )
    np.testing.assert_allclose(again, shorter, atol=1e-4)

    # Weights that are no numbers stay what they are.
    reverb._ir.assign(np.full(3000, np.nan))
    reverb.leave_out_the_inaudible()
    assert np.isnan(reverb.get_signal(**reverb.get_controls(audio))).any()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("highest_hz", [None, 3700.0])
def test_harmonics_in_blocks_equal_the_clip(batch, method, highest_hz):
    n_frames = 60
    harmonic = Harmonic(SAMPLE_RATE, HOP, 30, highest_hz=highest_hz, amp_resample_method=method)
    controls = harmonic.get_controls(
        *_outputs_of_a_network(n_frames, 1, 30, batch=batch), _f0(60.0, 90.0, n_frames, batch)
    )
    clip = harmonic.get_signal(**controls)
    for seed in range(3):
        lengths = _random_lengths(n_frames, seed)
        stream, state = _in_blocks(harmonic.step, controls, harmonic.initial_state(batch), lengths)
        _, whole_state = harmonic.step(controls, harmonic.initial_state(batch))
        np.testing.assert_array_equal(state["phase"], whole_state["phase"])
        np.testing.assert_allclose(stream[:, HOP:], clip[:, :-HOP], atol=1e-6)
        assert np.abs(stream).max() > 0.1


def _moving(n_frames, depth, first_sample=0, batch=1, name="harmonic", n_harmonics=30):
    """A bank whose harmonics are as loud as each other and move, its controls, and the state it begins with."""
    harmonic = Harmonic(SAMPLE_RATE, HOP, n_harmonics, moves=True, scale_fn=None, name=name)
    ones = tf.ones([batch, n_frames, n_harmonics])
    movement = tf.fill([batch, n_frames, n_harmonics], float(np.log(depth / (1.0 - depth)) + 3.0))
    f0_hz = tf.fill([batch, n_frames, 1], 100.0)
    controls = harmonic.get_controls(tf.ones([batch, n_frames, 1]), ones, f0_hz, movement=movement)
    np.testing.assert_allclose(controls["movement"], depth, rtol=1e-5)
    state = harmonic.initial_state(batch, first_sample)
    return harmonic, controls, state


def _played_amplitudes(n_frames, depth, **others):
    """Natural logarithms of the amplitudes, frame by frame, `[n_frames, batch, n_harmonics]`."""
    harmonic, controls, state = _moving(n_frames, depth, **others)
    step = tf.function(harmonic.step)
    levels = []
    for i in range(n_frames):
        _, state = step({name: value[:, i : i + 1] for name, value in controls.items()}, state)
        levels.append(np.log(harmonic.n_harmonics * state["harmonics"][:, 0].numpy()))
    return np.stack(levels)


def test_harmonics_move_slowly_each_by_itself_and_as_much_as_they_are_told():
    moved = _played_amplitudes(8000, 0.2, n_harmonics=8)[:, 0]
    assert np.mean(moved) == pytest.approx(0.0, abs=0.02)
    # Half a minute of some eight independent values a second: 0.2 and its error.
    assert np.std(moved, axis=0) == pytest.approx(0.2, rel=0.15)
    together = np.corrcoef(moved.T) - np.eye(8)
    assert np.abs(together).max() < 0.25
    spectrum = np.abs(np.fft.rfft(moved * np.hanning(len(moved))[:, np.newaxis], axis=0)) ** 2
    hz = np.fft.rfftfreq(len(moved), HOP / SAMPLE_RATE)
    assert spectrum[hz > 16.0].sum() < 0.01 * spectrum.sum()  # Never as fast as to be heard as a tone.
    assert spectrum[hz > 4.0].sum() > 0.2 * spectrum.sum()


def test_how_harmonics_move_depends_on_sample_voice_and_bank():
    voices = np.array([0, VOICE_OFFSET], np.int64)
    first = _played_amplitudes(60, 0.2, batch=2, first_sample=voices)
    assert np.abs(np.corrcoef(first[:, 0].ravel(), first[:, 1].ravel())[0, 1]) < 0.3
    later = _played_amplitudes(40, 0.2, batch=2, first_sample=voices + 20 * HOP)
    np.testing.assert_allclose(later, first[20:], atol=1e-5)
    assert np.abs(_played_amplitudes(60, 0.2, name="fifth")[:, 0] - first[:, 0]).max() > 0.1


def test_moving_harmonics_in_blocks_equal_the_clip():
    harmonic, controls, state = _moving(60, 0.5, batch=2, first_sample=np.array([5, 2**32 - 100]))
    clip, whole_state = harmonic.step(controls, state)
    for seed in range(3):
        stream, last = _in_blocks(harmonic.step, controls, state, _random_lengths(60, seed))
        np.testing.assert_array_equal(last["frame"], whole_state["frame"])
        np.testing.assert_allclose(stream, clip, atol=2e-6)
    still, _ = harmonic.step({name: value for name, value in controls.items() if name != "movement"}, state)
    assert np.abs(still - clip).max() > 0.1


@pytest.mark.parametrize("batch", [1, 3])
def test_noise_in_blocks_equals_the_clip(batch):
    n_frames = 60
    filtered_noise = FilteredNoise(HOP, 65, initial_bias=0.0)
    controls = filtered_noise.get_controls(*_outputs_of_a_network(n_frames, 65, batch=batch))
    clip = filtered_noise.get_signal(**controls)
    for seed in range(3):
        lengths = _random_lengths(n_frames, seed)
        stream, state = _in_blocks(filtered_noise.step, controls, filtered_noise.initial_state(batch), lengths)
        np.testing.assert_array_equal(state["sample"], [n_frames * HOP] * batch)
        np.testing.assert_allclose(stream[:, HOP:], clip[:, :-HOP], atol=1e-6)
        assert np.abs(stream).max() > 0.1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("length", [2, 300, 5000])
def test_reverb_in_blocks_equals_the_clip(batch, length):
    reverb = _reverb(length)
    audio = tf.constant(np.random.default_rng(1).uniform(-0.1, 0.1, [batch, 2000]), tf.float32)
    controls = reverb.get_controls(audio)
    clip = reverb.get_signal(**controls)
    for seed in range(3):
        lengths = _random_lengths(2000, seed)
        stream, _ = _in_blocks(reverb.step, controls, reverb.initial_state(batch), lengths)
        np.testing.assert_allclose(stream, clip, atol=1e-6)


def test_reverb_takes_a_step_of_one_sample():
    reverb = _reverb(50)
    audio = tf.constant(np.random.default_rng(1).uniform(-0.1, 0.1, [1, 20]), tf.float32)
    controls = reverb.get_controls(audio)
    stream, _ = _in_blocks(reverb.step, controls, reverb.initial_state(1), np.ones(20, int))
    np.testing.assert_allclose(stream, reverb.get_signal(**controls), atol=1e-6)


N_OUTPUTS = {"amplitudes": 1, "distribution": 20, "fifth_distribution": 12, "magnitudes": 33}


def _voices():
    return [
        (Harmonic(SAMPLE_RATE, HOP, 20, name="harmonic"), ["amplitudes", "distribution", "f0_hz"]),
        (
            Harmonic(SAMPLE_RATE, HOP, 12, f0_ratio=1.5, name="fifth"),
            ["amplitudes", "fifth_distribution", "inputs/f0_hz"],
        ),
        (FilteredNoise(HOP, 33, initial_bias=-1.0), ["magnitudes"]),
        (ddsp.processors.Add(name="tones"), ["harmonic/signal", "fifth/signal"]),
        (ddsp.processors.Add(name="dry"), ["tones/signal", "filtered_noise/signal"]),
    ]


@pytest.fixture(scope="module")
def group():
    group = ProcessorGroup(_voices(), [(Reverb(700), ["dry/signal"])])
    group.reverb.build(None)
    group.reverb._ir.assign(0.1 * np.random.default_rng(2).normal(size=700))
    return group


def _group_inputs(n_frames, batch, seed=0):
    outputs = _outputs_of_a_network(n_frames, *N_OUTPUTS.values(), batch=batch, seed=seed)
    return {**dict(zip(N_OUTPUTS, outputs)), "f0_hz": _f0(60.0, 90.0, n_frames, batch)}


# Signals are around 1, and each of thousands of sums in the convolution rounds by 1e-7.
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_group_in_blocks_is_ddsps_call_a_hop_later(group, batch):
    n_frames = 50
    inputs = _group_inputs(n_frames, batch)
    # The stream fades in over a hop before its first frame, where the clip has nothing: let both begin in silence.
    for name in ("amplitudes", "magnitudes"):
        inputs[name] = tf.concat([tf.fill(inputs[name][:, :2].shape, -30.0), inputs[name][:, 2:]], axis=1)
    clip = group(inputs)
    signals, state = [], group.initial_state(batch)
    lengths = _random_lengths(n_frames, 0)
    for begin, end in zip(np.cumsum(lengths) - lengths, np.cumsum(lengths)):
        outputs, state = group.step({name: value[:, begin:end] for name, value in inputs.items()}, state)
        signals.append(outputs["out"]["signal"])
        assert set(outputs["reverb"]["controls"]) == {"audio", "ir"}
    stream = np.concatenate(signals, axis=1)
    np.testing.assert_allclose(stream[:, HOP:], clip[:, :-HOP], atol=5e-6)
    assert np.abs(clip).max() > 0.1


def test_a_group_runs_in_a_graph_whose_shapes_are_unknown(group):
    specs = {name: tf.TensorSpec([None, None, size], tf.float32) for name, size in {**N_OUTPUTS, "f0_hz": 1}.items()}
    any_batch = tf.nest.map_structure(
        lambda value: tf.TensorSpec([None, *value.shape[1:]], value.dtype), group.initial_state(1)
    )

    @tf.function(input_signature=[specs, any_batch])
    def graph(inputs, state):
        outputs, state = group.step(inputs, state)
        return outputs["out"]["signal"], state

    for batch, n_frames in ((1, 1), (3, 20), (2, 7)):
        inputs = _group_inputs(n_frames, batch)
        outputs, expected_state = group.step(inputs, group.initial_state(batch))
        signal, state = graph(inputs, group.initial_state(batch))
        np.testing.assert_allclose(signal, outputs["out"]["signal"], atol=5e-6)
        for ours, expected in zip(tf.nest.flatten(state), tf.nest.flatten(expected_state)):
            np.testing.assert_allclose(ours, expected, atol=5e-6)
    assert graph.experimental_get_tracing_count() == 1


def test_every_parameter_of_a_group_has_a_gradient(group):
    inputs = _group_inputs(20, 2)
    network = {name: value for name, value in inputs.items() if name != "f0_hz"}
    with tf.GradientTape() as tape:
        tape.watch(network)
        outputs, _ = group.step(inputs, group.initial_state(2))
        loss = tf.reduce_mean(outputs["out"]["signal"] ** 2)
    for name, gradient in tape.gradient(loss, network).items():
        assert np.all(np.isfinite(gradient)), name
        assert np.any(gradient), name


def test_the_heads_of_a_decoder_follow_from_what_processors_take(group):
    assert group.heads == {**N_OUTPUTS}
    assert list(group.heads) == list(N_OUTPUTS)  # The order in which they share one layer.
    assert group.lag == 1


def test_one_list_of_nodes_is_cut_at_the_reverb():
    group = ProcessorGroup(dag=[*_voices(), (Reverb(700), ["dry/signal"])])
    state = group.initial_state(2, 3)
    assert state["reverb"]["ringing"].shape[0] == 2
    assert state["harmonic"]["phase"].shape[0] == 6


def test_the_bus_gets_the_sum_of_the_voices_from_where_they_are_audible(group):
    first = [0, 3, 20, 7, 20, 19]
    audible = np.float32(np.arange(20) >= np.array(first)[:, np.newaxis])
    inputs = {**_group_inputs(20, 6), AUDIBLE: tf.constant(audible[..., np.newaxis])}
    outputs, state = group.step(inputs, group.initial_state(2, 3), 3)
    dry = outputs["dry"]["signal"].numpy() * np.repeat(audible, HOP, axis=1)
    mixed = dry.reshape([2, 3, -1]).sum(axis=1)
    np.testing.assert_allclose(outputs["reverb"]["controls"]["audio"], mixed, atol=1e-5)
    alone, _ = group.reverb.step({"audio": mixed, "ir": group.reverb.impulse_response()}, group.reverb.initial_state(2))
    np.testing.assert_allclose(outputs["out"]["signal"], alone, atol=1e-5)
    assert state["reverb"]["ringing"].shape[0] == 2


def test_harmonics_that_are_summed_are_played_as_one(group):
    inputs = _group_inputs(20, 2)
    outputs, state = group.step(inputs, group.initial_state(2))
    assert "signal" not in outputs["harmonic"] and "signal" not in outputs["fifth"]
    alone, expected = 0.0, {}
    for name in ("harmonic", "fifth"):
        bank = getattr(group, name)
        signal, expected[name] = bank.step(outputs[name]["controls"], bank.initial_state(2))
        alone += signal
    np.testing.assert_allclose(outputs["tones"]["signal"], alone, atol=2e-6)
    tf.nest.map_structure(np.testing.assert_array_equal, {name: state[name] for name in expected}, expected)


@pytest.mark.parametrize(
    "why", ["another rate", "another way", "taken twice", "another fundamental", "others stand still"]
)
def test_harmonics_that_are_no_one_bank_are_played_by_themselves(why):
    highest, method, bus = None, "window", []
    keys = ["fifth_amplitudes", "fifth_harmonic_distribution", "f0_hz"]
    if why == "another rate":
        highest = 3700.0
    elif why == "another way":
        method = "linear"
    elif why == "taken twice":
        bus = [(ddsp.processors.Add(name="again"), ["harmonic/signal", "tones/signal"])]
    else:
        keys += ["inharmonicity"]
    common = ["inharmonicity", "onset"] if why == "others stand still" else []
    moves = bool(common)
    keys += [*common[1:], *["movement"] * moves]
    bank = {"highest_hz": highest, "amp_resample_method": method, "moves": moves}
    fifth = Harmonic(SAMPLE_RATE, HOP, 8, f0_ratio=1.5, name="fifth", **bank)
    nodes = [
        (
            Harmonic(SAMPLE_RATE, HOP, 10, moves=moves),
            ["amplitudes", "harmonic_distribution", "f0_hz", *common],
        ),
        (fifth, keys),
        (ddsp.processors.Add(name="tones"), ["harmonic/signal", "fifth/signal"]),
    ]
    group = ProcessorGroup([*nodes, *bus])
    inputs = dict(zip([*nodes[0][1][:2], *keys[:2]], _outputs_of_a_network(20, 1, 10, 1, 8)))
    inputs |= {"f0_hz": _f0(110.0, 120.0, 20), "inharmonicity": tf.fill([1, 20, 1], 1e-4)}
    inputs |= {"onset": tf.fill([1, 20, 1], -1.0), "movement": tf.zeros([1, 20, 8])}
    outputs, _ = group.step(inputs, group.initial_state(1))
    together = outputs["harmonic"]["signal"] + outputs["fifth"]["signal"]
    np.testing.assert_allclose(outputs["tones"]["signal"], together, atol=1e-6)


@pytest.mark.parametrize("styles", [[], ["slap"], ["power_chord"], ["slap", "power_chord"]])
def test_what_is_there_for_a_style_can_be_left_out(styles):
    bank, fifth = (Harmonic(SAMPLE_RATE, HOP, 10, style=style, name=style or "bank") for style in (None, "power_chord"))
    noise = FilteredNoise(HOP, 33, initial_bias=-1.0)
    noise.style = "slap"
    voices = [
        (bank, ["amplitudes", "distribution", "f0_hz"]),
        (fifth, ["fifth_amplitudes", "fifth_distribution", "f0_hz"]),
        (noise, ["magnitudes"]),
        (ddsp.processors.Add(name="noises"), ["power_chord/signal", "filtered_noise/signal"]),
        (ddsp.processors.Add(name="dry"), ["bank/signal", "noises/signal"]),
    ]
    group = ProcessorGroup(voices, [(Reverb(100), ["dry/signal"])], without_styles=styles)
    outputs = dict(zip(voices[0][1][:2] + voices[1][1][:2], _outputs_of_a_network(20, 1, 10, 1, 10)))
    outputs |= {"f0_hz": _f0(110.0, 120.0, 20), "magnitudes": tf.zeros([1, 20, 33])}
    expected = sum(
        ProcessorGroup([node], [(Reverb(100), [f"{node[0].name}/signal"])]).step(
            outputs, group.initial_state(1) | {node[0].name: node[0].initial_state(1, 0)}
        )[0]["out"]["signal"]
        for node in voices[:3]
        if node[0].style not in styles
    )
    found, _ = group.step(outputs, group.initial_state(1))
    np.testing.assert_allclose(found["out"]["signal"], expected, atol=1e-4)
    assert ("magnitudes" in group.heads) == ("slap" not in styles)


def test_what_another_processor_needs_is_not_left_out():
    late = _Late(name="late")
    voices = [
        (Harmonic(SAMPLE_RATE, HOP, 10, style="slap"), ["amplitudes", "distribution", "f0_hz"]),
        (late, ["loudness", "harmonic/signal"]),
    ]
    with pytest.raises(ValueError, match="without_styles: 'late' takes the signal of what is left out"):
        ProcessorGroup(voices, without_styles=["slap"])
    with pytest.raises(ValueError, match="name at least one processor"):
        ProcessorGroup(voices[:1], without_styles=["slap"])


def test_without_a_bus_the_sum_of_the_voices_is_the_sound():
    group = ProcessorGroup([(FilteredNoise(HOP, 33, initial_bias=-1.0), ["magnitudes"])])
    inputs = {"magnitudes": tf.zeros([4, 10, 33])}
    outputs, _ = group.step(inputs, group.initial_state(2, 2), 2)
    expected = outputs["filtered_noise"]["signal"].numpy().reshape([2, 2, -1]).sum(axis=1)
    np.testing.assert_allclose(outputs["out"]["signal"], expected, atol=1e-6)


@pytest.mark.parametrize("voices", [2, 4, 16])
def test_noise_of_voices_adds_up_as_that_of_different_sources_does(voices):
    group = ProcessorGroup([(FilteredNoise(HOP, 33, initial_bias=0.0), ["magnitudes"])])

    def level(voices):
        inputs = {"magnitudes": tf.zeros([voices, 2000, 33])}
        outputs, _ = group.step(inputs, group.initial_state(1, voices), voices)
        return 10.0 * np.log10(np.mean(outputs["out"]["signal"].numpy()[:, HOP:] ** 2))

    # 3 dB for each doubling, where one noise twice as loud would be 6 dB; powers of so many samples scatter by 0.1 dB.
    assert level(voices) - level(1) == pytest.approx(10.0 * np.log10(voices), abs=0.2)


def test_the_first_voice_has_the_noise_of_one_voice_wherever_it_begins():
    group = ProcessorGroup([(FilteredNoise(HOP, 33, initial_bias=0.0), ["magnitudes"])])
    samples = {voices: group.initial_state(2, voices, [7, 9])["filtered_noise"]["sample"] for voices in (1, 3)}
    np.testing.assert_array_equal(samples[1], [7, 9])
    np.testing.assert_array_equal(samples[3][::3], [7, 9])
    assert len(set(samples[3].numpy())) == 6


class _Late(ddsp.processors.Processor):
    """A processor of a researcher's: it keeps the protocol, and is two hops late."""

    parameters = {"loudness": 1}
    lag = 2

    def get_controls(self, loudness, signal):
        return {"loudness": loudness, "signal": signal}

    def initial_state(self, batch, first_sample=0):
        return {}

    def step(self, controls, state):
        return controls["signal"], state


@pytest.mark.parametrize(
    ("voices", "bus", "message"),
    [
        ([], [], "name at least one processor"),
        (_voices, [(ddsp.effects.Reverb(reverb_length=100), ["dry/signal"])], "'reverb' .* has no state to go from"),
        ([(ddsp.synths.Harmonic(name="stock"), ["amplitudes", "distribution", "f0_hz"])], [], "'stock' .*ddsp.synths"),
        ([(Harmonic(SAMPLE_RATE, HOP, 20), ["amplitudes", "distribution", "pitch"])], [], "'pitch' as f0_hz, which is"),
        (
            [
                (
                    Harmonic(SAMPLE_RATE, HOP, 20, moves=False),
                    ["amplitudes", "distribution", "f0_hz", "inharmonicity", "onset", "movement"],
                )
            ],
            [],
            "'movement' as movement, .* Leave it out, or switch on what plays it",
        ),
        ([(Reverb(100), ["dry/signal"])], [], "'dry/signal', but no processor before it has it"),
        (
            _voices,
            [(FilteredNoise(HOP, 33, name="room"), ["magnitudes"])],
            "'room' is on the bus and takes the network",
        ),
        (
            [
                (FilteredNoise(HOP, 33, name="one"), ["magnitudes"]),
                (FilteredNoise(HOP, 17, name="two"), ["magnitudes"]),
            ],
            [],
            "'two' takes 17 values of 'magnitudes', another processor 33",
        ),
        (
            lambda: [
                *_voices(),
                (_Late(name="late"), ["loudness", "harmonic/signal"]),
                (ddsp.processors.Add(name="both"), ["late/signal", "fifth/signal"]),
            ],
            [],
            "'both' takes signals that are 1 and 3 hops late",
        ),
    ],
)
def test_what_would_play_wrongly_is_refused_in_a_sentence(voices, bus, message):
    with pytest.raises(ValueError, match=f"ProcessorGroup.*{message}"):
        ProcessorGroup(voices() if callable(voices) else voices, bus)


def test_a_processor_that_keeps_the_protocol_is_wired():
    group = ProcessorGroup([*_voices(), (_Late(name="late"), ["loudness", "dry/signal"])])
    assert group.heads == {**N_OUTPUTS, "loudness": 1}
    assert group.lag == 3
