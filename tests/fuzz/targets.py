"""What is fed with damaged files. A target returns, or raises a `DataError` of one line; anything else is a fault."""

import json
import pathlib
import tempfile
import warnings
import zipfile

import numpy as np
from reaper_seed import PROJECT

from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import read_audio, write_audio
from neural_midi_synth.instrument import config_check, portable
from neural_midi_synth.instrument.loading import CONFIG_NAME, PRETRAINED
from neural_midi_synth.midi.pieces import Voice
from neural_midi_synth.midi.reaper import recorded_items
from neural_midi_synth.midi.standard_midi_file import read_parts, write_midi

_FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="nms_fuzz_"))
_MOST_SECONDS = 600.0


def midi(content: bytes) -> None:
    """A MIDI file, as nms_render reads it."""
    path = _written("fuzz.mid", content)
    for part in read_parts(path):
        assert all(len(voice.notes) for voice in part.piece.voices)
        for voice in part.piece.voices:
            assert np.isfinite(voice.notes).all() and (voice.notes[:, 1] > voice.notes[:, 0]).all()
            assert (np.diff(voice.notes[:, 0]) >= 0.0).all()


def reaper(content: bytes) -> None:
    """A Reaper project, with all that its items play."""
    for item in recorded_items(_written("fuzz.RPP", content)):
        item.play(_MOST_SECONDS)


def sound(content: bytes) -> None:
    """A sound file; its first byte chooses the kind."""
    suffixes = (".wav", ".flac", ".ogg", ".mp3", ".aiff")
    kind = content[0] % len(suffixes) if content else 0
    samples, rate = read_audio(_written(f"fuzz{suffixes[kind]}", content[1:]))
    assert samples.ndim == 1 and np.isfinite(samples).all() and rate > 0
    assert samples.nbytes < 1e9


def config(content: bytes) -> None:
    """The gin config of a stranger's instrument."""
    config_check.check(_written(CONFIG_NAME, content))


def instrument(content: bytes) -> None:
    """An instrument in one file, up to what TensorFlow reads of it."""
    path = _written("fuzz.nms", content)
    portable.read_facts(path)
    with portable.as_folder(path) as folder:
        assert all(each.is_file() and not each.is_symlink() for each in folder.rglob("*.*"))


def request(content: bytes) -> None:
    """The events of a request to an exported model, as JSON; numbers may be any."""
    try:
        asked = json.loads(content)
        events = {name: np.asarray(asked[name], np.float32) for name in ("notes", "control_changes", "pitch_bends")}
        n_samples = np.asarray(asked["n_samples"], np.int32)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return  # The server's own parser refuses it.
    _play(events, n_samples)


def _play(events: dict, n_samples: np.ndarray) -> None:
    import tensorflow as tf

    global _SIGNATURE
    if _SIGNATURE is None:
        _SIGNATURE = _traced()
    rank_and_columns = {"notes": 4, "control_changes": 3, "pitch_bends": 2}
    if n_samples.ndim != 1 or any(
        events[name].ndim != 3 or events[name].shape[2] != n for name, n in rank_and_columns.items()
    ):
        return  # The server compares shapes with those of the signature.
    if n_samples.max(initial=0) > 16_000 or max(map(np.size, events.values())) > 4000:
        return  # That plays for long, or is refused, is tested elsewhere.
    try:
        inputs = {name: tf.constant(rows) for name, rows in events.items()}
        audio = _SIGNATURE(*inputs.values(), tf.constant(n_samples))["audio"].numpy()
    except tf.errors.InvalidArgumentError as error:
        raise DataError(str(error).splitlines()[0]) from error
    assert np.isfinite(audio).all()


_SIGNATURE = None


def _traced():
    import tensorflow as tf

    from neural_midi_synth.exporting.saved_model import Signatures
    from neural_midi_synth.instrument.loading import load

    rows = [tf.TensorSpec([None, None, n], tf.float32) for n in (4, 3, 2)]
    return tf.function(Signatures(load()).play_notes, input_signature=[*rows, tf.TensorSpec([None], tf.int32)])


TARGETS = {each.__name__: each for each in (midi, reaper, sound, config, instrument, request)}


def seeds(name: str) -> list[bytes]:
    """Files that are as they should be, from which fuzzing begins."""
    voice = Voice([[0.0, 0.5, 60, 90], [0.6, 1.0, 64, 70]], [[0.0, 64, 127], [0.9, 64, 0], [0.2, 55, 3]], [[0.1, 0.5]])
    if name == "midi":
        path = _FOLDER / "seed.mid"
        write_midi(voice, path)
        demo = PRETRAINED.parents[2] / "data_prep" / "demo_guitar" / "examples" / "riff.mid"
        return [path.read_bytes(), demo.read_bytes()]
    if name == "reaper":
        (_FOLDER / "take.wav").write_bytes(b"")
        return [PROJECT.encode()]
    if name == "sound":
        found = []
        for number, suffix in enumerate((".wav", ".flac", ".ogg", ".mp3")):
            path = _FOLDER / f"seed{suffix}"
            write_audio(path, np.sin(np.arange(2000) / 9).astype(np.float32), 16000)
            found.append(bytes([number]) + path.read_bytes())
        return found
    if name == "config":
        return [(PRETRAINED / CONFIG_NAME).read_bytes()]
    if name == "instrument":
        return [_instrument_file()]
    rows = {"notes": [[[0.0, 0.1, 60, 90]]], "control_changes": [[[0.0, 55, 9]]], "pitch_bends": [[[0.0, 0.5]]]}
    return [json.dumps({**rows, "n_samples": [800]}).encode()]


def _instrument_file() -> bytes:
    path = _FOLDER / "seed.nms"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("instrument.json", json.dumps({"layout": 1}))
        archive.writestr("LICENSE.txt", "free")
        archive.writestr(CONFIG_NAME, (PRETRAINED / CONFIG_NAME).read_bytes())
        for each in sorted((PRETRAINED / "best").glob("ckpt*")):
            archive.writestr(f"best/{each.name}", each.read_bytes()[:2000])
    return path.read_bytes()


def run(name: str, content: bytes) -> None:
    """Feeds a target.

    Raises:
        AssertionError: It did something else than it may.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[name](content)
    except DataError as error:
        assert "\n" not in str(error), f"{name}: more than one line: {error}"
        assert len(str(error)) < 2000


def _written(name: str, content: bytes) -> pathlib.Path:
    path = _FOLDER / name
    path.write_bytes(content)
    return path
