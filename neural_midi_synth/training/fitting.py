"""Fits an instrument to its takes before it is built: what they can't teach it is left out."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import gin
import tensorflow_datasets as tfds

from neural_midi_synth.instrument.controls import Controls

_FEW_VALUES = 16  # of a style, told one by one
_WITHOUT_STYLES = "nms.ProcessorGroup.without_styles"
_OF_STYLES = (
    "Controls.channels",
    "Controls.styles",
    "Controls.defaults",
    "Decoder.channels",
    "Decoder.fourier_features",
    "Decoder.octaves",
)
"""Parameters that name styles, or their channels."""


def ranges(
    builder: tfds.core.DatasetBuilder, styles: Mapping[str, int], defaults: Mapping[str, float]
) -> dict[str, Any]:
    """Finds where an instrument is at home: pitches, velocities and values of the styles in the train split.

    Args:
        builder: A prepared data set.
        styles: Style name → controller number.
        defaults: Style name → control change value (0 to 127) where there is none, of the styles to look for.

    Returns:
        'pitch', 'velocity' and each of the 'styles' → their 'minimum' and 'maximum', as in MIDI; of a style with few
        different 'values' these, too.
    """
    styles = {style: number for style, number in styles.items() if style in defaults}
    values: dict[str, set[float]] = {name: set() for name in ("pitch", "velocity", *styles)}
    wanted = ("notes", "note_voices", "control_changes", "control_change_voices")
    # tfds could decode these features alone, but would warn of what it does for that itself.
    examples = builder.as_dataset(split="train").map(lambda example: {name: example[name] for name in wanted})
    for example in examples.as_numpy_iterator():
        notes, changes = example["notes"], example["control_changes"]
        values["pitch"].update(notes[:, 2].tolist())
        values["velocity"].update(notes[:, 3].tolist())
        for style, number in styles.items():
            of_style = changes[:, 1] == number
            values[style].update(changes[of_style, 2].tolist())
            told_at_start = example["control_change_voices"][of_style & (changes[:, 0] <= 0.0)]
            if not set(example["note_voices"].tolist()) <= set(told_at_start.tolist()):
                values[style].add(defaults[style])
    found = {name: {"minimum": min(of), "maximum": max(of)} for name, of in values.items() if of}
    for style in styles:
        if len(values[style]) <= _FEW_VALUES:
            found[style]["values"] = sorted(values[style])
    return {
        **{name: found[name] for name in ("pitch", "velocity") if name in found},
        "styles": {style: found[style] for style in styles},
    }


@contextlib.contextmanager
def only_what_is_used(controls: Controls, values: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """Has gin leave out the styles that takes never change, and processors that are there for them.

    An instrument can't learn such a style, and would answer to it at random. What is built within has none; after that
    gin is configured as before.

    Args:
        controls: As gin configures them.
        values: Style name → 'minimum' and 'maximum' of its values in the takes.

    Yields:
        Names of the styles that are left out.
    """
    unused = [style for style, of in values.items() if of["minimum"] == of["maximum"]]
    if not unused:
        yield []
        return
    # A style that is on throughout has no name any more, but is heard.
    silent = [style for style in unused if values[style]["maximum"] == 0.0]
    before = {_WITHOUT_STYLES: _bound(_WITHOUT_STYLES) or ()}
    within = {_WITHOUT_STYLES: (*before[_WITHOUT_STYLES], *silent)}
    left_out = {*unused, *(f"cc_{controls.styles[style]}" for style in unused)}
    for parameter in _OF_STYLES:
        if names := _bound(parameter, resolved=True):
            before[parameter] = _bound(parameter)
            within[parameter] = _without(names, left_out)
    _bind(within)
    try:
        yield unused
    finally:
        _bind(before)


def _bound(parameter: str, resolved: bool = False) -> Any:
    """What gin binds a parameter to, None if nothing: as it is written, or with macros resolved."""
    name, _, argument = parameter.rpartition(".")
    return gin.get_bindings(name, resolve_references=resolved).get(argument)


def _bind(values: Mapping[str, Any]) -> None:
    with gin.unlock_config():
        for parameter, value in values.items():
            gin.bind_parameter(parameter, value)


def _without(names: Any, left_out: Collection[str]) -> Any:
    """A dict or a tuple, without some."""
    if isinstance(names, Mapping):
        return {name: value for name, value in names.items() if name not in left_out}
    return tuple(name for name in names if name not in left_out)
