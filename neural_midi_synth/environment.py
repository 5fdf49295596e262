"""Readies Python for TensorFlow with legacy Keras and for ddsp; the only module that knows about their troubles.

ddsp's `ProcessorGroup` needs Keras 2, which TensorFlow takes from the package `tf-keras` when `TF_USE_LEGACY_KERAS`
is set before `tf.keras` is first touched. ddsp also imports `crepe`, whose installation fails on new Pythons and
which nothing here calls; a placeholder takes its place where it is absent. XLA is told how wide vectors may be.

Nothing here imports TensorFlow or ddsp: installed packages are looked up by their metadata.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import NoReturn

DDSP_VERSION = "3.7.0"
_VECTOR_WIDTH = "--xla_cpu_prefer_vector_width"
# There is one stderr for all threads: two that silenced it at once could restore it in the wrong order.
_STDERR_LOCK = threading.Lock()


def prepare() -> None:
    """Makes `import tensorflow` and `import ddsp` work as this package needs them. May be called again.

    Raises:
      ImportError: A needed package is missing, or Keras 3 was already taken into use. The message is one sentence
        with the command that mends it.
    """
    try:
        check_packages()
        choose_legacy_keras()
    except ImportError as error:
        program = os.path.basename(sys.argv[0]) if sys.argv else ""
        if program.startswith("nms_"):  # a command of ours: its user gets the sentence without a traceback
            sys.exit(f"{program}: {error}")
        raise
    stand_in_for_crepe()
    widen_vectors_of_xla()


def check_packages() -> None:
    """Checks that TensorFlow, the `tf-keras` that belongs to it, and ddsp are installed.

    Raises:
      ImportError: One of them is missing, or `tf-keras` is of another minor version than TensorFlow.
    """
    tensorflow_version = _tensorflow_version()
    if tensorflow_version is None:
        raise ImportError('TensorFlow is not installed: run `pip install "tensorflow>=2.20,<2.22"`.')
    minor = ".".join(tensorflow_version.split(".")[:2])
    keras_version = _version("tf-keras")
    if keras_version is None or keras_version.split(".")[:2] != minor.split("."):
        found = "is not installed" if keras_version is None else f"{keras_version} does not fit"
        raise ImportError(
            f'tf-keras {found} beside TensorFlow {tensorflow_version}: run `pip install "tf-keras=={minor}.*"`.'
        )
    if importlib.util.find_spec("ddsp") is None:
        raise ImportError(f"ddsp is not installed: run `pip install --no-deps ddsp=={DDSP_VERSION}`.")


def choose_legacy_keras() -> None:
    """Sets `TF_USE_LEGACY_KERAS`, whatever it was, so that `tf.keras` is Keras 2.

    Raises:
      ImportError: `tf.keras` was already used and is Keras 3; it can't be exchanged in a running Python.
    """
    for module in ("tensorflow", "tensorflow.compat.v2"):
        # Until it is used, `keras` is a lazy loader there, afterwards Keras itself. Asking either for an attribute
        # would make the loader choose, so only their dicts are looked at.
        keras = vars(vars(sys.modules.get(module, types)).get("keras", types))
        if keras.get("_tfll_keras_version") == "keras_3" or keras.get("__name__", "").startswith("keras."):
            raise ImportError(
                "tf.keras is already Keras 3 in this Python: import neural_midi_synth before anything uses tf.keras, "
                "or set TF_USE_LEGACY_KERAS=1 before Python starts."
            )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


def stand_in_for_crepe() -> None:
    """Puts a placeholder where ddsp imports `crepe`, unless crepe is installed."""
    if "crepe" not in sys.modules and importlib.util.find_spec("crepe") is None:
        placeholder = _CrepePlaceholder("crepe", "Placeholder for the pitch tracker that ddsp imports.")
        placeholder.__spec__ = importlib.machinery.ModuleSpec("crepe", loader=None)  # else find_spec("crepe") fails
        sys.modules["crepe"] = placeholder


def widen_vectors_of_xla() -> None:
    """Has XLA use vectors of 512 bits where the processor has them, unless `XLA_FLAGS` chooses otherwise.

    By itself it stops at 256, and a step of training takes a fourteenth longer. A flag that XLA does not know would end
    Python, so it is set for the TensorFlow that is known to have it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    known = (_tensorflow_version() or "").startswith(("2.20.", "2.21."))
    names_a_file = flags and not flags.lstrip().startswith("--")
    if known and not names_a_file and _VECTOR_WIDTH not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_VECTOR_WIDTH}=512".lstrip()


class _CrepePlaceholder(types.ModuleType):
    """Raises a clear ImportError on any use, but lets itself be imported and inspected."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(f"module 'crepe' has no attribute {name!r}")
        raise ImportError(f"crepe.{name} was asked for, but crepe is not installed: run `pip install crepe`.")


def _tensorflow_version() -> str | None:
    for name in ("tensorflow", "tensorflow-cpu", "tf-nightly", "tensorflow-macos"):
        if (version := _version(name)) is not None:
            return version
    return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow and wakes its devices without what its libraries print about GPUs that are not there."""
    with silent_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Keeps C libraries from printing to the process's stderr."""
    with _STDERR_LOCK:
        try:
            saved = os.dup(2)
        except OSError:  # There is no stderr to keep clean.
            yield
            return
        try:
            with open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
