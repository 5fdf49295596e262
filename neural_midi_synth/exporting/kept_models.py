"""Streams by LiteRT for live play. Making a model takes seconds, so models are kept in the user's cache folder.

A model is found by what it was made of: the weights and the config of the instrument, the block, the voices, this
package's code and TensorFlow's version. The oldest go where there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from neural_midi_synth.environment import silent_stderr
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import litert
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.instrument.portable import fingerprint
from neural_midi_synth.playing.engines import import_litert
from neural_midi_synth.playing.extra import import_extra
from neural_midi_synth.playing.stream import Stream

MOST_KEPT = 32
"""Models, some 2 MB each."""

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_DIGEST_BYTES = hashlib.sha256().digest_size


class KeptModels:
    """Makes streams of an instrument, by LiteRT where that can play it."""

    def __init__(self, source: str | os.PathLike, tell: Callable[[str], None]) -> None:
        """Reads what models are found by.

        Args:
            source: Folder or file that the instrument was loaded from.
            tell: Is given a sentence before seconds pass, and where a model cannot be kept.

        Raises:
            DataError: There is no instrument in the folder or file, or what plays models is not installed.
        """
        self._tell = tell
        import_litert()  # Before a model is made for it.
        caches = import_extra("platformdirs", "platformdirs").user_cache_dir("neural_midi_synth", appauthor=False)
        self._folder = pathlib.Path(caches) / "live"
        digest = hashlib.sha256(f"{fingerprint(source)} {tf.__version__}".encode())
        for path in sorted(_PACKAGE.rglob("*.py")):
            digest.update(path.read_bytes())
        self._made_of = digest.hexdigest()[:32]

    def stream(self, instrument: Instrument, block_frames: int, voices: int) -> Stream:
        """Makes a stream: by LiteRT, or by TensorFlow where the instrument or the block is nothing for LiteRT.

        Args:
            instrument: The one of `source`.
            block_frames: As for `Stream`.
            voices: As for `Stream`.

        Returns:
            The stream.

        Raises:
            ValueError: As `Stream`.
        """
        try:
            litert.check(instrument, block_frames, voices)
            is_playable = not instrument.controls.needs_future  # Else a stream says why, at the first note.
        except DataError:
            is_playable = False
        if not is_playable:
            return Stream(instrument, block_frames, voices)
        path = self._folder / f"{self._made_of}-{block_frames}-{voices}.tflite"
        model = _read(path)
        if model is None:
            milliseconds = 1000.0 * block_frames / instrument.frame_rate
            self._tell(f"making it ready for blocks of {milliseconds:g} ms, which takes some seconds the first time.")
            with silent_stderr():
                model = litert.convert(instrument, block_frames, voices)
            self._keep(path, model)
        return Stream(instrument, block_frames, voices, model)

    def _keep(self, path: pathlib.Path, model: bytes) -> None:
        """Writes a model with its hash before it, and makes room for it."""
        try:
            with write_aside(path) as aside:
                aside.write_bytes(hashlib.sha256(model).digest() + model)
            kept = sorted(path.parent.glob("*.tflite"), key=lambda each: each.stat().st_mtime)
            for old in kept[:-MOST_KEPT]:
                old.unlink(missing_ok=True)
        except (DataError, OSError) as error:
            self._tell(f"it is not kept for the next time ({error}).")


def _read(path: pathlib.Path) -> bytes | None:
    """A model that was kept; None where there is none, or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, model = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if digest != hashlib.sha256(model).digest():
        return None
    with contextlib.suppress(OSError):  # A cache that is read only.
        path.touch()  # It is in use.
    return model
