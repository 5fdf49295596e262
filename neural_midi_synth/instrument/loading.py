"""From gin configs and folders to instruments."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import gin
import tensorflow as tf

from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import write_aside
from neural_midi_synth.instrument import config_check
from neural_midi_synth.instrument.controls import Controls
from neural_midi_synth.instrument.instrument import Instrument

# gin configures these; nothing here calls them.
from neural_midi_synth.instrument.losses import SpectralLoss  # noqa: F401
from neural_midi_synth.instrument.noise import FilteredNoise  # noqa: F401
from neural_midi_synth.instrument.portable import CONFIG_NAME, DATA_SET_NAME, VERDICT_NAME, as_folder, name_of
from neural_midi_synth.instrument.reverb import Reverb

__all__ = [
    "CONFIG_NAME",
    "DATA_SET_NAME",
    "PRETRAINED",
    "VERDICT_NAME",
    "as_folder",
    "build",
    "configure",
    "configured_controls",
    "keep_verdict",
    "kept_verdict",
    "load",
    "name_of",
    "trained_on",
]

PRETRAINED = pathlib.Path(__file__).resolve().parents[1] / "pretrained" / "demo_guitar"
"""The instrument that comes with the package: the demo guitar, trained by `make pretrained`."""

OF_TRAINING = ("nms.train", "cosine_decay", "exponential_decay", "adam", "muon", "MidiAudioConfig")
"""What configs of models bind although playing does not import it."""

_RETIRED = re.compile(r"^Instrument\.energy_distance = .*\n?", re.MULTILINE)  # Of earlier versions.

gin.add_config_file_search_path(str(configs.folder()))
# There is one configuration of gin for all threads: while one loads an instrument, the others wait.
_LOADING = threading.RLock()


def configure(
    gin_files: Iterable[str | os.PathLike],
    gin_params: Iterable[str] = (),
    skip_unknown: bool | tuple[str, ...] = OF_TRAINING,
) -> None:
    """Makes gin files and bindings the whole configuration.

    Args:
        gin_files: Paths of gin files.
        gin_params: Bindings that come after them, such as `'Decoder.units = 128'`.
        skip_unknown: What may be bound although it is not imported: names, or True for anything, as the configs of
            instruments need it that other versions trained. Those of models bring their training, which playing does
            without.

    Raises:
        DataError: A file or a binding that gin does not take.
    """
    place = ""
    try:
        with gin.unlock_config():
            gin.clear_config()
            for gin_file in gin_files:
                for path, text in configs.parts(gin_file):
                    place = f"{path}: "
                    if skip_unknown is True:
                        text = _RETIRED.sub("", text)
                    gin.parse_config(text, skip_unknown=skip_unknown)
            place = ""
            gin.parse_config_files_and_bindings([], list(gin_params), skip_unknown=skip_unknown)
    except (ValueError, TypeError, SyntaxError, OSError, LookupError, AttributeError, ImportError) as error:
        raise DataError(f"gin: {place}{_first_line(error)}") from error


def configured_controls(debug: bool = False) -> Controls:
    """Builds the controls of the instrument that gin is configured for, alone.

    Args:
        debug: As for `build`.

    Raises:
        DataError: The configuration does not describe controls.
    """
    with contextlib.nullcontext() if debug else _as_data_errors():
        return Controls()


def build(debug: bool = False) -> Instrument:
    """Builds the instrument that gin is configured for.

    Args:
        debug: Let an error pass as it is, with its traceback: for those who write parts of their own.

    Raises:
        DataError: The configuration does not describe an instrument; the message says which part.
    """
    with contextlib.nullcontext() if debug else _as_data_errors():
        instrument = Instrument()
        instrument.build_variables()
        return instrument


@contextlib.contextmanager
def _as_data_errors() -> Iterator[None]:
    """Makes what goes wrong with parts of the configuration a sentence."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as error:
        raise DataError(f"gin: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The line that says something; Keras first says in which layer it is."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines()]
    telling = (line for line in lines if line and not line.startswith("Exception encountered when calling layer"))
    return next(telling, type(error).__name__)


def load(
    folder: str | os.PathLike | None = None, checkpoint: str | None = None, modules: Collection[str] = ()
) -> Instrument:
    """Loads a trained instrument, which may be a stranger's: it is data, and runs no code.

    gin's configuration becomes that of the instrument. May be called from several threads.

    Args:
        folder: What `nms_train --save_dir` wrote, or the file of `nms_export --file`; unless given, the guitar that
            comes with the package.
        checkpoint: 'best' (on validation) or 'last'; unless given the best, or the last of a run too young to have one.
        modules: Modules of your own that its config imports, for instruments with processors of your own. Name them
            only where you trust the folder.

    Returns:
        The instrument, ready to `render`.

    Raises:
        DataError: There is no instrument in the folder or file, it is damaged, its weights are those of another one, or
            its config would run code.
    """
    with _LOADING, as_folder(PRETRAINED if folder is None else folder) as opened:
        return _load(opened, checkpoint, modules)


def _load(folder: pathlib.Path, checkpoint: str | None, modules: Collection[str]) -> Instrument:
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise DataError(f"{folder}: no instrument here ({CONFIG_NAME} is missing). Name a folder that nms_train wrote.")
    checkpoint = checkpoint or _loaded_by_default(folder)
    path = tf.train.latest_checkpoint(str(folder / checkpoint))
    if path is None:
        raise DataError(f"{folder}: no checkpoint in {checkpoint}/. Train it for a while first.")
    if pathlib.Path(path).resolve().parent != (folder / checkpoint).resolve():
        raise DataError(f"{folder}: its checkpoint lies elsewhere, in {path}. Copy the whole folder again.")
    config_check.check(config, modules)
    try:
        configure([config], skip_unknown=True)
        instrument = build()
    except DataError as error:
        reason = str(error).replace(f"{config}: ", "")
        raise DataError(f"{config}: damaged ({reason}). Train again.") from error
    _check_shapes(path, instrument)
    try:
        status = tf.train.Checkpoint(instrument=instrument).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
        raise DataError(f"{path}: damaged checkpoint, or one of another instrument. Train again.") from error
    for processor in instrument.processor_group.processors:
        if isinstance(processor, Reverb):
            processor.leave_out_the_inaudible()
    pitches = trained_on(folder).get("pitch")
    if pitches:
        instrument.pitch_range = (float(pitches["minimum"]), float(pitches["maximum"]))
    return instrument


def _check_shapes(path: str, instrument: Instrument) -> None:
    """Raises DataError where a checkpoint holds what the instrument has no room for, before it is read."""
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except (tf.errors.OpError, IndexError, ValueError) as error:
        raise DataError(f"{path}: damaged checkpoint, or one of another instrument. Train again.") from error
    room = {(), *(tuple(variable.shape) for variable in instrument.variables)}
    for name, shape in shapes.items():
        if name.startswith("instrument/") and tuple(shape) not in room:
            raise DataError(
                f"{path}: holds weights of shape {list(shape)}, which are of another instrument than its config. "
                "Train again, or ask for it again."
            )


def _loaded_by_default(folder: pathlib.Path) -> str:
    return "best" if (folder / "best").is_dir() else "last"


def trained_on(folder: str | os.PathLike) -> dict[str, Any]:
    """What the folder of an instrument tells of the takes it was trained on; empty where it tells nothing.

    Args:
        folder: What `nms_train --save_dir` wrote, or the file of `nms_export --file`.

    Returns:
        `folder` of the data set, names of the `takes`, and where the instrument is at home: `pitch`, `velocity` and
        `styles`.

    Raises:
        DataError: The file is damaged.
    """
    with as_folder(folder) as opened:
        return _facts_in(opened / DATA_SET_NAME, "train again")


def keep_verdict(folder: str | os.PathLike, verdict: Mapping[str, Any]) -> None:
    """Writes the verdict on an instrument, as `load` loads it, to its folder, unless that may not be written to.

    Args:
        folder: What `nms_train --save_dir` wrote. A file stays as it is: export it again.
        verdict: `Verdict.facts`.
    """
    if pathlib.Path(folder).is_file():
        return
    facts = {"checkpoint": _checkpoint_name(pathlib.Path(folder)), **verdict}
    with contextlib.suppress(OSError, DataError), write_aside(pathlib.Path(folder) / VERDICT_NAME) as path:
        path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def kept_verdict(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns the verdict on an instrument; empty where it was not evaluated, or trained on since.

    Args:
        folder: What `nms_train --save_dir` wrote, or the file of `nms_export --file`.

    Raises:
        DataError: The file is damaged.
    """
    with as_folder(folder) as opened:
        facts = _facts_in(opened / VERDICT_NAME, "evaluate again")
        return facts if facts.pop("checkpoint", None) == _checkpoint_name(opened) else {}


def _facts_in(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """Reads a file of facts; empty where there is none, and a `DataError` with the remedy where it is damaged."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged. Delete it, or {remedy}.") from error


def _checkpoint_name(folder: pathlib.Path) -> str:
    """Returns which checkpoint `load` loads, by its folder and number."""
    name = _loaded_by_default(folder)
    return f"{name}/{pathlib.Path(tf.train.latest_checkpoint(str(folder / name)) or '').name}"
