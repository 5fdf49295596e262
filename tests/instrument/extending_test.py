"""What researchers add: losses of their own, processors with bugs; and what was written for earlier versions."""

import dataclasses

import ddsp
import gin
import numpy as np
import pytest
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import loading, recurrent
from neural_midi_synth.instrument.gradients import loss_and_gradients
from neural_midi_synth.instrument.noise import FilteredNoise
from neural_midi_synth.midi.pieces import Voice

SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.Reverb.reverb_length = 3000",
]
VOICE = Voice(np.array([[0.05, 0.3, 40, 100]]), np.array([[0.1, 55, 127]]), np.array([[0.2, 0.5]]))


def _build(*bindings, **how):
    tf.random.set_seed(0)
    loading.configure([configs.find("models/guitar.gin")], [*SMALL, *bindings], skip_unknown=True)
    return loading.build(**how)


def _features(batch=2):
    # They begin while the note sounds: of silence, rounding alone tells which way the slope of a magnitude points.
    clip = dataclasses.replace(VOICE, notes=VOICE.notes - [0.2, 0.0, 0.0, 0.0])
    rows = {kind: np.stack([getattr(clip, kind)] * batch) for kind in ("notes", "control_changes", "pitch_bends")}
    audio = np.random.default_rng(0).normal(size=[batch, 4000]).astype(np.float32) * 0.1
    return {**{kind: tf.constant(each) for kind, each in rows.items()}, "audio": tf.constant(audio)}


class _TrainableLoss(ddsp.losses.SpectralLoss):
    """A loss with a weight that is learnt, and a loss of its own."""

    def __init__(self):
        # Squares, since the slope of absolute differences turns round where what is compared is nearly the same.
        super().__init__(fft_sizes=(256,), loss_type="L2", name="trainable_loss")
        self.weight = self.add_weight("weight", [], initializer="ones")

    def call(self, target_audio, audio):
        self.add_loss(3.0 * self.weight)
        return self.weight**2 * super().call(target_audio, audio)


class _CostlyNoise(FilteredNoise):
    """Noise that the loss is told of."""

    def step(self, controls, state):
        self.add_loss(0.5 * tf.reduce_mean(controls["magnitudes"]))
        return super().step(controls, state)


@pytest.fixture
def extended():
    """An instrument with a loss that has a weight, and with losses that a processor and the decoder add."""
    built = _build()
    built.spectral_loss = _TrainableLoss()
    noise = _CostlyNoise(built.hop, 129, name="filtered_noise")
    built.processor_group.filtered_noise = noise
    head = built.decoder._head
    head._handle_weight_regularization("kernel", head.kernel, tf.keras.regularizers.L2(0.1))
    return built


@pytest.mark.slow
def test_losses_that_layers_add_and_losses_that_are_learnt_count(extended):
    features = _features()
    variables = extended.trainable_variables
    assert any(variable is extended.spectral_loss.weight for variable in variables)
    with tf.GradientTape() as tape:
        extended._clear_losses()
        loss = extended.spectral_loss(features["audio"] / extended.level, extended(features) / extended.level)
        added = extended.losses
        total = loss + tf.add_n(added)
    assert len(added) == 3
    expected = tape.gradient(total, variables)
    told, gradients = tf.function(loss_and_gradients)(extended, features)
    assert float(told) == pytest.approx(float(total), rel=1e-4)
    for variable, ours, theirs in zip(variables, gradients, expected):
        assert tf.norm(ours - theirs) <= 2e-3 * tf.norm(theirs) + 1e-6, variable.name
    extended.compile(optimizer="sgd")
    assert extended.test_step(features)["loss"].numpy() == pytest.approx(float(total), rel=1e-4)


@gin.configurable(module="extending_test")
class Broken(FilteredNoise):
    """A processor whose author forgot a dimension."""

    def step(self, controls, state):
        """Loses the frames."""
        return tf.reshape(controls["magnitudes"], [-1, 7]), state


BROKEN = ["nms.ProcessorGroup.voices = [(@extending_test.Broken(), ['magnitudes'])]", "nms.ProcessorGroup.bus = []"]
BROKEN += ["extending_test.Broken.hop = %HOP", "extending_test.Broken.n_bands = 65"]


def test_a_bug_in_a_processor_is_one_line_or_with_debug_its_traceback():
    with pytest.raises(DataError, match="gin: "):
        _build(*BROKEN)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as caught:
        _build(*BROKEN, debug=True)
    assert any(entry.name == "step" and "extending_test" in str(entry.path) for entry in caught.traceback)


def test_configs_of_earlier_versions_still_describe_their_instruments():
    """One list of processors, heads with their sizes, Fourier features under their earlier name, nothing that moves."""
    voices = """
        (@harmonic/nms.Harmonic(), ['amplitudes', 'harmonic_distribution', 'f0_hz', 'inharmonicity', 'onset']),
        (@fifth/nms.Harmonic(), ['fifth_amplitudes', 'fifth_harmonic_distribution', 'f0_hz', 'inharmonicity', 'onset']),
        (@nms.FilteredNoise(), ['magnitudes', 'onset']),
        (@tones/Add(), ['harmonic/signal', 'fifth/signal']),
        (@dry/Add(), ['tones/signal', 'filtered_noise/signal']),"""
    built = _build(f"nms.ProcessorGroup.voices = [{voices}]", "nms.Harmonic.moves = False")
    earlier = _build(
        f"nms.ProcessorGroup.dag = [{voices} (@nms.Reverb(), ['dry/signal'])]",
        "nms.Harmonic.moves = False",
        f"Decoder.outputs = {built.decoder.outputs}",
        f"Decoder.octaves = {built.decoder._fourier_features}",
        "HOP = 384",
    )
    assert [variable.shape for variable in earlier.variables] == [variable.shape for variable in built.variables]
    for mine, of_other in zip(earlier.variables, built.variables):
        mine.assign(of_other)
    np.testing.assert_array_equal(earlier.render(VOICE), built.render(VOICE))
    assert earlier.initial_state(1, 3)["processor_group"]["reverb"]["ringing"].shape[0] == 1


def test_a_hidden_gpu_is_none(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [])
    assert not recurrent.on_gpu()


def test_a_folder_named_like_a_folder_of_configs_is_not_looked_into(tmp_path, monkeypatch):
    """Gin itself would take it for a Python package."""
    for name in ("models", "datasets", "training"):
        (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    loading.configure([configs.find("models/lineage.gin")])
    assert gin.query_parameter("nms.Reverb.reverb_length") == 64000


def test_configs_that_include_each_other_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.gin").write_text("include 'two.gin'\n")
    (tmp_path / "two.gin").write_text("include 'one.gin'\n")
    with pytest.raises(DataError, match=r"one\.gin: includes itself"):
        loading.configure(["one.gin"])


@pytest.mark.slow
def test_threads_load_instruments_side_by_side():
    import concurrent.futures

    reference = loading.load().render(VOICE)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for samples in pool.map(lambda _: loading.load().render(VOICE), range(4)):
            np.testing.assert_array_equal(samples, reference)
