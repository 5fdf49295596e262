"""Models for live play are made once, found again by what they were made of, and never in the way."""

import numpy as np
import platformdirs
import pytest

import neural_midi_synth as nms
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import kept_models, litert
from neural_midi_synth.exporting.kept_models import KeptModels
from neural_midi_synth.instrument.loading import PRETRAINED, load
from neural_midi_synth.playing.engines import GraphEngine, LiteRTEngine


@pytest.fixture(scope="module")
def guitar():
    return nms.load()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    return tmp_path / "cache" / "live"


@pytest.fixture(scope="module")
def model(guitar):
    return litert.convert(guitar, 1, 2)


@pytest.fixture
def made(model, monkeypatch):
    """For which blocks and voices models were made; they are made at once here."""
    calls = []
    monkeypatch.setattr(litert, "convert", lambda _, *sizes: calls.append(sizes) or model)
    return calls


def _played(stream):
    stream.note_on(45, 100, frame=1.5)
    stream.note_on(52, 90, frame=3.0)
    return np.concatenate([stream.block() for _ in range(50)])


def test_a_model_is_made_once_and_plays_as_the_instrument_does(guitar, cache, made):
    told = []
    first = KeptModels(PRETRAINED, told.append).stream(guitar, 1, 2)
    again = KeptModels(PRETRAINED, told.append).stream(guitar, 1, 2)
    assert made == [(1, 2)]
    assert len(told) == 1
    assert "blocks of 4 ms" in told[0]
    assert [path.suffix for path in cache.iterdir()] == [".tflite"]
    expected = _played(nms.Stream(guitar, 1, 2))
    assert np.abs(expected).max() > 0.01
    played = _played(first)
    np.testing.assert_allclose(played, expected, rtol=0.0, atol=1e-3)
    np.testing.assert_array_equal(_played(again), played)


def test_another_instrument_and_other_code_have_models_of_their_own(guitar, own_instrument, cache, made, monkeypatch):
    KeptModels(PRETRAINED, print).stream(guitar, 1, 2)
    KeptModels(own_instrument, print).stream(guitar, 1, 2)
    assert len(made) == 2
    (own_instrument.parent / "package").mkdir()
    monkeypatch.setattr(kept_models, "_PACKAGE", own_instrument.parent / "package")
    KeptModels(own_instrument, print).stream(guitar, 1, 2)
    (own_instrument.parent / "package" / "controls.py").write_text("changed = True")
    KeptModels(own_instrument, print).stream(guitar, 1, 2)
    assert len(made) == len(list(cache.iterdir())) == 4


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: b"", lambda content: content + b"x"]
)
def test_a_damaged_model_is_made_again(guitar, cache, made, damage):
    kept = KeptModels(PRETRAINED, print)
    kept.stream(guitar, 1, 2)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    kept.stream(guitar, 1, 2)
    assert len(made) == 2
    assert path.read_bytes() == whole


def test_the_oldest_go(guitar, cache, made, monkeypatch):
    monkeypatch.setattr(kept_models, "MOST_KEPT", 2)
    kept = KeptModels(PRETRAINED, print)
    monkeypatch.setattr(kept_models, "Stream", lambda *_: None)  # The model is for other voices than these.
    for voices in (2, 3, 2, 4):
        kept.stream(guitar, 1, voices)
    kept.stream(guitar, 1, 2)
    assert made == [(1, 2), (1, 3), (1, 4)]


def test_where_nothing_can_be_kept_it_says_so_and_plays(guitar, cache, made):
    cache.parent.write_text("a file, not a folder")
    told = []
    stream = KeptModels(PRETRAINED, told.append).stream(guitar, 1, 2)
    assert "not kept" in told[-1]
    assert np.abs(_played(stream)).max() > 0.01


def test_what_litert_cannot_play_is_played_without_it(guitar, cache, monkeypatch):
    def refuses(*_):
        raise DataError("LiteRT: the processor 'bells' cannot be converted.")

    monkeypatch.setattr(litert, "check", refuses)
    told = []
    stream = KeptModels(PRETRAINED, told.append).stream(guitar, 1, 2)
    assert isinstance(stream._engine, GraphEngine)
    assert not told
    assert not cache.exists()


def test_a_block_too_long_for_a_model_is_played_without_one(guitar, cache, made):
    stream = KeptModels(PRETRAINED, print).stream(guitar, 11, 1)
    assert isinstance(stream._engine, GraphEngine)
    assert not made


def test_an_instrument_that_must_know_the_future_has_no_model(trained, cache, made):
    stream = KeptModels(trained.folder, print).stream(load(trained.folder), 1, 2)
    assert not isinstance(stream._engine, LiteRTEngine)
    assert not made
