"""An instrument plays any length in blocks as at once, answers in time, and tells what it cannot play or load."""

import shutil

import ddsp
import gin
import numpy as np
import pytest
import soxr
import tensorflow as tf

import neural_midi_synth as nms
from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument import loading
from neural_midi_synth.instrument import rendering as rendering_lib
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.standard_midi_file import write_midi

# The architectures with small layers, and noise loud enough to matter before training: the road is the same.
SMALL = [
    "Decoder.units = 16",
    "Decoder.layers = 1",
    "Decoder.rnn_units = 16",
    "nms.FilteredNoise.initial_bias = 0.0",
    "nms.Reverb.reverb_length = 3000",
]
VOICE = Voice(
    np.array([[0.05, 0.31, 40, 100], [0.3, 0.613, 47, 60], [0.9, 1.2, 36, 127]]),
    np.array([[0.1, 55, 127], [0.4, 55, 30], [0.2, 56, 127]]),
    np.array([[0.5, 1.0], [0.6, 0.0]]),
)
# The promise: the network's matrix products round differently in blocks, and the oscillators pass that on.
PROMISED = 1e-4


def _configure(model, *bindings):
    # Bindings of training are unknown where training is not imported.
    loading.configure([configs.find(f"models/{model}.gin")], [*SMALL, *bindings], skip_unknown=True)


def _build(model, *bindings):
    """A small instrument of the model, with random weights that can be heard and a room that rings."""
    tf.random.set_seed(0)
    _configure(model, *bindings)
    built = loading.build()
    reverb = built.processor_group.reverb
    length = reverb._ir.shape[0]
    response = np.random.default_rng(0).normal(size=length) * np.exp(-np.arange(length) / 300.0)
    reverb._ir.assign(0.05 * response)
    return built


@pytest.fixture(scope="module", params=["guitar", "lineage"])
def either(request):
    return _build(request.param)


@pytest.fixture(scope="module")
def guitar():
    return _build("guitar")


def _features(*voices):
    """Rows of voices with equal numbers of events, as `Instrument.call` takes them."""
    kinds = ("notes", "control_changes", "pitch_bends")
    return {kind: tf.constant(np.stack([getattr(voice, kind) for voice in voices])) for kind in kinds}


def _stream(played, voice, block_frames):
    """What a stream of blocks plays, from its first sample on: `latency` samples behind."""
    state, signals, first = played.initial_state(1), [], 0
    for length in block_frames:
        control_frames = played.controls(**_features(voice), n_frames=length, first_frame=first)
        outputs, state = played.step(control_frames, state)
        signals.append(outputs["out"]["signal"][0])
        first += length
    return np.concatenate(signals)


def test_the_lineage_has_as_many_parameters_as_the_original():
    loading.configure([configs.find("models/lineage.gin")], skip_unknown=True)
    n_parameters = sum(np.prod(variable.shape) for variable in loading.build().trainable_variables)
    # Rests and releases are channels of their own here, and the second harmonic synthesizer has a name.
    assert n_parameters == pytest.approx(11_227_401, rel=0.01)


def test_the_default_is_smaller_than_the_lineage():
    loading.configure([configs.find("models/guitar.gin")], skip_unknown=True)
    built = loading.build()
    assert sum(np.prod(variable.shape) for variable in built.trainable_variables) < 1_500_000
    assert built.styles == {"openness": 55, "power_chord": 56}
    assert built.hop * built.frame_rate == built.sample_rate


@pytest.mark.parametrize("n_samples", [1, 63, 64, 65, 4001, 19_997])
def test_a_rendering_is_the_clip_of_any_length(either, n_samples):
    clip = either(_features(VOICE), n_samples=n_samples).numpy()[0]
    rendering = either.render(VOICE, n_samples=n_samples)
    assert (rendering.dtype, rendering.shape, clip.shape) == (np.float32, (n_samples,), (n_samples,))
    np.testing.assert_allclose(rendering, clip, atol=PROMISED)


def test_a_rendering_of_several_blocks_is_the_clip(either):
    n_samples = int(3.1 * rendering_lib.BLOCK_SECONDS * either.sample_rate) + 1
    notes = np.array([[0.05, 1.99, 40, 100], [2.0, 2.3, 45, 90], [3.9, 4.05, 38, 127]])
    voice = Voice(notes, np.array([[2.003, 55, 127]]), np.array([[1.9, 0.5]]))
    clip = either(_features(voice), n_samples=n_samples).numpy()[0]
    rendering = either.render(voice, n_samples=n_samples)
    np.testing.assert_allclose(rendering, clip, atol=PROMISED)
    assert np.abs(clip).max() > 0.01
    blocks = list(either.render_blocks(voice, n_samples=n_samples))
    assert len(blocks) == 3
    np.testing.assert_array_equal(np.concatenate(blocks), rendering)
    assert len(either._graphs) == 1  # Traced once, whatever the lengths.


def test_a_clip_takes_times_as_exactly_as_a_rendering(guitar):
    voice = Voice(VOICE.notes, np.array([[4.002, 55, 127]]))  # frame 1000.5, which float32 blurs
    clip = guitar(_features(voice), n_samples=65_000).numpy()[0]
    np.testing.assert_allclose(guitar.render(voice, n_samples=65_000), clip, atol=PROMISED)


def test_blocks_of_any_size_are_the_clip(either):
    n_frames, stride = 240, either.decoder.stride
    clip = either(_features(VOICE), n_samples=n_frames * either.hop - either.latency).numpy()[0]
    random = np.random.default_rng(0)
    for n_cuts in (0, 3):
        cuts = np.sort(random.choice(np.arange(1, n_frames // stride), n_cuts, replace=False)) * stride
        stream = _stream(either, VOICE, np.diff([0, *cuts, n_frames]).tolist())
        np.testing.assert_allclose(stream[either.latency :], clip, atol=PROMISED)


@pytest.mark.parametrize("what", ["note", "openness"])
def test_what_comes_at_a_frame_is_heard_within_the_latency_and_not_before(either, what):
    frame, n_frames, stride = 40, 64, either.decoder.stride
    time = frame / either.frame_rate
    before = np.array([[0.0, time - 0.02, 40, 90], [time, time + 0.1, 52, 127]])
    if what == "note":
        voices = [Voice(before[:1]), Voice(before)]
    else:
        voices = [Voice(before[:1]), Voice(before[:1], np.array([[time, 55, 127]]))]
    without, with_it = (_stream(either, voice, [8] * (n_frames // 8)) for voice in voices)
    differs = np.flatnonzero(np.abs(with_it - without) > 1e-7)
    assert differs[0] >= frame * either.hop
    assert differs[0] <= frame * either.hop + either.latency
    # A stride of frames passes through the network, and one more through the processors' windows.
    assert either.latency == (either.hop if stride == 1 else (stride + 1) * either.hop)
    assert np.abs(with_it - without).max() > 1e-3 * np.abs(without).max()


def test_a_voice_without_notes_is_a_second_of_nothing_much(either):
    rendering = either.render(Voice(np.zeros([0, 4])))
    assert len(rendering) == rendering_lib.TAIL_SECONDS * either.sample_rate
    assert np.all(np.isfinite(rendering))
    assert either.render(Voice(np.zeros([0, 4])), n_samples=0).shape == (0,)


def test_a_rendering_lasts_a_tail_longer_than_the_notes(guitar):
    assert len(guitar.render(VOICE)) == round((VOICE.duration + rendering_lib.TAIL_SECONDS) * guitar.sample_rate)


def test_two_renderings_are_the_same(guitar):
    np.testing.assert_array_equal(guitar.render(VOICE), guitar.render(VOICE))


def test_a_midi_file_is_rendered_as_its_voice(guitar, tmp_path):
    path = tmp_path / "riff.mid"
    write_midi(VOICE, path)
    from neural_midi_synth.midi.standard_midi_file import read_midi

    np.testing.assert_array_equal(guitar.render(path), guitar.render(read_midi(path)))


def test_voices_of_a_batch_do_not_hear_each_other(either):
    voices = [VOICE, VOICE.transpose(5)]
    together = either(_features(*voices), n_samples=5000)
    for voice, signal in zip(voices, together):
        np.testing.assert_allclose(signal, either(_features(voice), n_samples=5000)[0], atol=PROMISED)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_clips_of_any_batch_and_length_share_a_graph(guitar):
    rows = {name: tf.TensorSpec([None, None, n], tf.float64) for name, n in _columns().items()}
    graph = tf.function(
        lambda features, n_samples: guitar(features, n_samples=n_samples),
        input_signature=[rows, tf.TensorSpec([], tf.int32)],
    )
    for n_voices, n_samples in ((1, 1), (2, 3001)):
        features = _features(*[VOICE] * n_voices)
        expected = guitar(features, n_samples=n_samples)
        np.testing.assert_allclose(graph(features, n_samples), expected, atol=PROMISED)
    assert graph.experimental_get_tracing_count() == 1


def _columns():
    return {"notes": 4, "control_changes": 3, "pitch_bends": 2}


def test_a_clip_is_as_long_as_the_recording_beside_it(guitar):
    features = _features(VOICE)
    played = guitar({**features, "audio": tf.zeros([1, 1234])})
    np.testing.assert_array_equal(played, guitar(features, n_samples=1234))


def test_noise_follows_the_first_sample(guitar):
    features = _features(VOICE, VOICE)
    played = guitar({**features, "first_sample": tf.constant([0, 99], tf.int64)}, n_samples=3000)
    np.testing.assert_allclose(played[0], guitar(features, n_samples=3000)[0], atol=PROMISED)
    assert np.abs(played[0] - played[1]).max() > 1e-4


def test_a_style_holds_throughout_whatever_the_file_says(guitar):
    held = Voice(VOICE.notes, np.array([[0.0, 55, 127], [0.2, 56, 127]]), VOICE.pitch_bends)
    forced = guitar.render(VOICE, styles={"openness": 127})
    np.testing.assert_array_equal(forced, guitar.render(held))
    assert np.abs(forced - guitar.render(VOICE)).max() > 1e-3


@pytest.mark.parametrize(
    ("styles", "message"),
    [
        ({"openess": 127}, "'openess' is not a style of this instrument; it has openness, power_chord."),
        ({"openness": 128}, "openness=128: a style's value is 0 to 127."),
        ({"openness": -1}, "openness=-1: a style's value is 0 to 127."),
        ({"openness": float("nan")}, "openness=nan: a style's value is 0 to 127."),
    ],
)
def test_a_style_that_cannot_be_played_is_told(guitar, styles, message):
    with pytest.raises(DataError) as caught:
        guitar.render(VOICE, styles=styles)
    assert str(caught.value) == message


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
def test_other_sample_rates_are_the_same_sound(guitar, sample_rate):
    n_samples = 70_002  # more than a block
    own = guitar.render(VOICE, n_samples=n_samples)
    resampled = guitar.render(VOICE, sample_rate=sample_rate, n_samples=n_samples)
    assert resampled.dtype == np.float32
    assert len(resampled) == round(n_samples * sample_rate / guitar.sample_rate)
    expected = own if sample_rate == guitar.sample_rate else soxr.resample(own, guitar.sample_rate, sample_rate)
    np.testing.assert_allclose(resampled, expected, atol=1e-5)


def test_every_weight_learns(either):
    with tf.GradientTape() as tape:
        played = either(_features(VOICE), n_samples=12_000)
        loss = either.spectral_loss(tf.random.stateless_uniform([1, 12_000], [0, 0], -0.1, 0.1), played)
    for variable, gradient in zip(either.trainable_variables, tape.gradient(loss, either.trainable_variables)):
        assert np.all(np.isfinite(gradient)), variable.name
        assert np.any(gradient), variable.name


@pytest.mark.parametrize("batch", [2, 3])  # in two halves, and whole
@pytest.mark.parametrize("model", ["guitar", "lineage"])
def test_a_step_of_training_goes_down_the_slope_of_the_loss_of_what_is_played(model, batch):
    played = _build(model)
    # Not of logarithms: theirs is so steep near silence that roundings count.
    played.spectral_loss = ddsp.losses.SpectralLoss()
    played.level.assign(0.5)
    features = {**_features(*[VOICE] * batch), "first_sample": tf.range(batch, dtype=tf.int64)}
    features["audio"] = tf.random.stateless_uniform([batch, 8000], [0, 0], -0.1, 0.1)
    with tf.GradientTape() as tape:
        loss = played.spectral_loss(features["audio"] / 0.5, played(features) / 0.5)
    expected = tape.gradient(loss, played.trainable_variables)
    played.compile(optimizer=tf.keras.optimizers.SGD(1.0))
    before = [tf.identity(variable) for variable in played.trainable_variables]
    told = tf.function(played.train_step)(features)
    # Compiled, and in halves: sums in another order, and sines that are polynomials.
    assert told["loss"].numpy() == pytest.approx(loss.numpy(), rel=1e-4)
    assert told["gradient_norm"].numpy() == pytest.approx(tf.linalg.global_norm(expected).numpy(), rel=1e-3)
    for variable, value, gradient in zip(played.trainable_variables, before, expected):
        assert tf.norm(value - variable - gradient) < 1e-3 * tf.norm(gradient), variable.name


def _save(played, folder):
    """As training saves: the configuration, and a checkpoint in `best/`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / loading.CONFIG_NAME).write_text(gin.operative_config_str())
    checkpoint = tf.train.Checkpoint(instrument=played)
    return tf.train.CheckpointManager(checkpoint, str(folder / "best"), max_to_keep=1).save()


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "my_guitar"
    played = _build("guitar")
    played.processor_group.reverb.leave_out_the_inaudible()  # As those that are loaded do.
    rendering = played.render(VOICE, n_samples=5000)
    _save(played, folder)
    return folder, rendering


@pytest.fixture
def saved(saved_once, tmp_path):
    """A folder of an instrument that a test may damage, and what the instrument plays."""
    folder, rendering = saved_once
    return shutil.copytree(folder, tmp_path / "my_guitar"), rendering


def test_a_loaded_instrument_plays_as_the_saved_one(saved):
    folder, rendering = saved
    tf.random.set_seed(1)  # other initial weights
    loaded = nms.load(folder)
    np.testing.assert_array_equal(loaded.render(VOICE, n_samples=5000), rendering)


def test_what_earlier_versions_bound_for_their_training_alone_does_not_matter(saved):
    folder, rendering = saved
    with (folder / loading.CONFIG_NAME).open("a") as config:
        config.write("\nInstrument.energy_distance = False\n")
    np.testing.assert_array_equal(nms.load(folder).render(VOICE, n_samples=5000), rendering)


def _cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _remove(folder):
    for path in folder.iterdir():
        path.unlink()


DAMAGES = {
    "no configuration": lambda folder: (folder / loading.CONFIG_NAME).unlink(),
    "empty configuration": lambda folder: (folder / loading.CONFIG_NAME).write_text(""),
    "configuration is no text": lambda folder: (folder / loading.CONFIG_NAME).write_bytes(b"\xff\x00\x80" * 9),
    "half a configuration": lambda folder: _cut(folder / loading.CONFIG_NAME),
    "no checkpoint": lambda folder: _remove(folder / "best"),
    "checkpoint list is no list": lambda folder: (folder / "best" / "checkpoint").write_text("}{"),
    "half the weights": lambda folder: [_cut(path) for path in (folder / "best").glob("*.data-*")],
    "half an index": lambda folder: [_cut(path) for path in (folder / "best").glob("*.index")],
    "a parameter that there is not": lambda folder: (folder / loading.CONFIG_NAME).write_text(
        (folder / loading.CONFIG_NAME).read_text() + "\nDecoder.nonsense = 3\n"
    ),
    "another architecture": lambda folder: (folder / loading.CONFIG_NAME).write_text(
        (folder / loading.CONFIG_NAME).read_text().replace("Decoder.units = 16", "Decoder.units = 8")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_ends_in_one_line(saved, damage, capfd):
    folder, _ = saved
    DAMAGES[damage](folder)
    with pytest.raises(DataError) as caught:
        loading.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).count(loading.CONFIG_NAME) <= 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("folder", ["nowhere", ""])
def test_a_folder_that_is_not_there_is_told_with_its_remedy(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no instrument here .* Name a folder that nms_train wrote"):
        loading.load(folder)


def test_a_checkpoint_that_is_not_there_is_told(saved):
    with pytest.raises(DataError, match="no checkpoint in last/"):
        loading.load(saved[0], "last")


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("Controls.channels = ('f0_midi', 'pan')", "unknown channel 'pan'"),
        ("Decoder.channels = ('f0_midi', 'cc_99')", "'cc_99' is not one of Controls.channels"),
        ("Controls.defaults = {'loudness': 3}", "'loudness' is not one of the styles"),
        ("Decoder.unitz = 3", "doesn't have a parameter named 'unitz'"),
        ("Decoder.units = ", "Unable to parse"),
        ("Decoder.units = 'many'", "many"),
        ("Decoder.units 3", "line"),
        ("Instrument.decoder = %NOPE", "NOPE"),
        ("include 'nope.gin'", "nope.gin"),
        ("Instrument.sample_rate = 16001", "does not divide 16001"),
        ("nms.Harmonic.amp_resample_method = 'cubic'", "'cubic' is neither"),
        ("nms.FilteredNoise.n_bands = 900", "900 bands"),
        ("Preprocessor.scales = {'f0_midi': ('cubic', 0, 1)}", "'f0_midi' needs"),
        ("Decoder.outputs = (('amplitudes', 1),)", "'harmonic_distribution'"),
        ("nms.ProcessorGroup.voices = []", "at least one processor"),
        ("nms.hop.frame_rate = 130", "does not divide 48000"),
        ("nms.Harmonic.sample_rate = 24000", "harmonic: its sample rate is 24000"),
        ("nms.Harmonic.highest_hz = 30000.0", "30000.0 is not between 0 and half of 48000 Hz"),
        ("nms.Reverb.reverb_length = 0", "at least 2 samples"),
        ("Decoder.channels = ()", "at least one channel"),
        ("Decoder.stride = 0", "Decoder.stride: 0 is not"),
        ("Controls.frame_rate = 0", "frame_rate"),
        ("HOP = 200", "harmonic: its hop is 200, but 48000 samples in 125 frames make a hop of 384."),
        ("Instrument.controls = 3", "gin: "),
    ],
)
def test_a_configuration_of_no_instrument_ends_in_one_line(binding, told, capfd):
    with pytest.raises(DataError) as caught:
        _configure("guitar", binding)
        loading.build()
    message = str(caught.value)
    assert "\n" not in message
    assert told in message
    assert "ERROR:root" not in capfd.readouterr().err  # what gin logs


def test_unknown_configurables_are_told_unless_they_may_be_of_training(tmp_path):
    path = tmp_path / "own.gin"
    path.write_text("Trumpet.mute = 3\n")
    with pytest.raises(DataError, match="No configurable matching 'Trumpet'"):
        loading.configure([path])
    loading.configure([path], skip_unknown=True)


def test_a_configuration_replaces_the_one_before(tmp_path):
    _configure("guitar", "Decoder.units = 13")
    _configure("guitar")
    assert "13" not in gin.config_str().split("Decoder.units")[1].splitlines()[0]
