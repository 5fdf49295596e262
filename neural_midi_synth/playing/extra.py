"""What only live play needs is imported when it is needed: the packages of the extra `live`."""

from __future__ import annotations

import importlib
from types import ModuleType

from neural_midi_synth.errors import DataError


def import_extra(module: str, package: str) -> ModuleType:
    """Imports a module.

    Args:
        module: Its name, with dots.
        package: What pip calls the package that has it.

    Raises:
        DataError: It is not installed; with the command that mends it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DataError(f"Live play needs {package}: run `pip install 'neural_midi_synth[live]'`.") from error
