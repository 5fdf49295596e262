"""Reads the config of an instrument that may be anybody's, before gin does: it may name parts, not run code.

gin follows `import` lines, and calls whatever is registered with it when a config refers to it. The config of an
instrument needs neither: it sets plain values, and refers to the parts of this package. All else is refused.
"""

from __future__ import annotations

import pathlib
import tokenize
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from gin import config_parser

from neural_midi_synth.errors import DataError

PARTS = (
    "Instrument",
    "Controls",
    "Preprocessor",
    "Decoder",
    "Strings",
    "Tuning",
    "ProcessorGroup",
    "Harmonic",
    "FilteredNoise",
    "Reverb",
    "Add",
    "SpectralLoss",
    "hop",
    "train",
    "cosine_decay",
    "exponential_decay",
    "adam",
    "muon",
    "MidiAudioConfig",
)
"""What a config may set and refer to."""

LARGEST = {
    "units": 4096,
    "layers": 32,
    "rnn_units": 4096,
    "stride": 1024,
    "n_harmonics": 4096,
    "n_bands": 8192,
    "window_size": 2**16,
    "reverb_length": 2**21,
    "sample_rate": 384_000,
    "frame_rate": 4000,
    "hop": 2**16,
    "fourier_features": 64,
    "octaves": 64,
    "fft_sizes": 2**17,
    "mel_fft_sizes": 2**17,
    "mel_bands": 1024,
    "outputs": 8192,
}
"""The largest value of what memory and time depend on."""

MOST_WEIGHTS = 2**28
"""Of the decoder's layers together."""

_MOST_BYTES = 2**20  # of a config
_MOST_VALUES = 4096  # in a list or dict
_LARGEST_NUMBER = 2**31


class _Reference(NamedTuple):
    """Of a config to a part (`@Controls()`), or to a macro (`%HOP`)."""

    name: str
    is_macro: bool


class _Delegate(config_parser.ParserDelegate):
    """Keeps references as names."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> _Reference:
        del evaluate
        return _Reference(scoped_configurable_name, False)

    def macro(self, macro_name: str) -> _Reference:
        return _Reference(macro_name, True)


def check(path: pathlib.Path, modules: Collection[str] = ()) -> None:
    """Checks that a config only puts the package's parts together, from values of a sensible size.

    Args:
        path: Of the config.
        modules: Modules of the user's own that it may import. Whoever names some trusts the config.

    Raises:
        DataError: It would run code, or make something huge, or is no config.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: is no config of an instrument: it has more than {_MOST_BYTES} bytes.")
    bindings: list[config_parser.BindingStatement] = []
    try:
        for statement in config_parser.ConfigParser(path.read_text(encoding="utf-8"), _Delegate()):
            if isinstance(statement, config_parser.BindingStatement):
                bindings.append(statement)
            elif isinstance(statement, config_parser.IncludeStatement):
                raise DataError(
                    f"{path}: includes {statement.filename}. The config of an instrument is whole by itself."
                )
            elif isinstance(statement, config_parser.ImportStatement) and statement.module not in modules:
                raise DataError(
                    f"{path}: imports {statement.module}, which would run code. If you know and trust it, name it: "
                    f"--module {statement.module}, or load(…, modules=['{statement.module}'])."
                )
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is no config of an instrument. Train again, or ask for it again.") from error
    macros = {each.selector: each.value for each in bindings if not each.arg_name}
    for binding in bindings:
        place = f"{path}: line {binding.location.line_num}"
        if not modules and binding.arg_name and _part(binding.selector) not in PARTS:
            raise DataError(f"{place} sets '{binding.selector}', which is no part of an instrument.")
        _check_value(place, binding.arg_name or "", binding.value, macros, not modules)
    _check_weights(path, bindings, macros)


def _check_weights(path: pathlib.Path, bindings: Sequence[config_parser.BindingStatement], macros: dict) -> None:
    """Raises a `DataError` where the decoder's layers are each of a sensible size, but not all of them together."""
    sizes = {"units": 1, "layers": 1, "rnn_units": 1, "channels": ()}
    for binding in bindings:
        value = binding.value
        for _ in macros:  # A macro may be another one's name.
            value = macros.get(value.name, 1) if isinstance(value, _Reference) and value.is_macro else value
        if _part(binding.selector) == "Decoder" and isinstance(value, type(sizes.get(binding.arg_name))):
            sizes[binding.arg_name] = value
    units, rnn_units = sizes["units"], sizes["rnn_units"]
    weights = (len(sizes["channels"]) + 1) * sizes["layers"] * units**2 + 3 * rnn_units * (units + rnn_units)
    if weights > MOST_WEIGHTS:
        raise DataError(
            f"{path}: describes a decoder of {weights:.1g} weights. More than {MOST_WEIGHTS} is not possible."
        )


def _part(selector: str) -> str:
    """The name of a part without scopes and modules."""
    return selector.rpartition("/")[2].rpartition(".")[2]


def _check_value(place: str, name: str, value: Any, macros: dict[str, Any], only_parts: bool) -> None:
    """Raises a `DataError` where a value, or one in it, is not admitted."""
    if isinstance(value, _Reference):
        if value.is_macro and value.name in macros:
            others = {each: of for each, of in macros.items() if each != value.name}
            _check_value(place, name, macros[value.name], others, only_parts)
        elif not value.is_macro and only_parts and _part(value.name) not in PARTS:
            raise DataError(f"{place} refers to '{value.name}', which is no part of an instrument.")
    elif isinstance(value, (list, tuple, set, frozenset, dict)):
        if len(value) > _MOST_VALUES:
            raise DataError(f"{place} has a list of {len(value)} values. An instrument needs at most {_MOST_VALUES}.")
        each_of = [*value, *value.values()] if isinstance(value, dict) else value
        for each in each_of:
            _check_value(place, name, each, macros, only_parts)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        largest = LARGEST.get(name, _LARGEST_NUMBER)
        if not -largest <= value <= largest:
            raise DataError(f"{place} sets {name or 'a number'} to {value:g}. More than {largest} is not possible.")
