"""To begin a training with what another instrument has learnt: of other pitches, with other styles or heads."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.instrument.instrument import Instrument

_AFTER_INPUTS = ("recurrent/", "output/", "head/")  # Weights that are not of the MLPs of channels.


def start_from(instrument: Instrument, other: Instrument) -> None:
    """Copies the weights that two instruments share, by what they stand for.

    A channel that only the new instrument has is ignored at first. One that only the other has is taken to be halfway,
    or off if it is a switch, which has no Fourier features; where each channel has an MLP, that is left out. Where a
    head is larger than the other one's, the last of its values stands for the rest; a head that the other one has not
    begins anew. The level, the tuning, the stiffness of the strings and the processors' own weights, which are the
    room, are of the recordings, and are not copied.

    Args:
        instrument: With its variables.
        other: What it begins with, with layers of the same sizes.

    Raises:
        DataError: Its layers have other sizes.
    """
    ours, theirs = instrument.decoder.weights_by_name(), other.decoder.weights_by_name()
    shared = ours.keys() & theirs.keys()
    if _layers(ours) != _layers(theirs) or all(name.startswith(_AFTER_INPUTS) for name in shared):
        raise DataError(
            "The instrument to start from has another number of layers, or one MLP where this one has one for each "
            "channel. Choose a config with its Decoder.layers and mlp_per_channel."
        )
    for name in sorted(shared):
        variable, axis, entries = ours[name]
        known, _, known_entries = theirs[name]
        own, values = (np.moveaxis(each.numpy(), axis, 0) for each in (variable, known))
        if own.shape[1:] != values.shape[1:]:
            raise DataError(
                "The instrument to start from has layers of other sizes. Choose a config with the Decoder.units and "
                "rnn_units that its operative_config.gin says."
            )
        is_head = name.startswith("head/")
        places = _places_in_heads(entries, known_entries) if is_head else _places(entries, known_entries)
        without = own if is_head else np.zeros_like(own)
        taken = [without[row] if place is None else values[place] for row, place in enumerate(places)]
        variable.assign(np.moveaxis(np.stack(taken), 0, axis))
    for name in shared:
        if name.endswith("/0/kernel") and not name.startswith(_AFTER_INPUTS):
            (bias, *_), (known, _, known_entries) = ours[name.replace("kernel", "bias")], theirs[name]
            channels = {channel for channel, *_ in ours[name][2]}
            gone = np.array([channel not in channels for channel, *_ in known_entries])
            bias.assign_add(_halfway(known_entries)[gone] @ known.numpy()[gone])


def _halfway(features: Sequence[tuple]) -> np.ndarray:
    """Values of channels and their Fourier features, `[n]`, where each channel is halfway, or 0 if it has no such."""
    with_waves = {channel for channel, *wave in features if wave}
    values = []
    for channel, *wave in features:
        value = 0.5 if channel in with_waves else 0.0
        if wave:
            kind, octave = wave
            value = {"sin": np.sin, "cos": np.cos}[kind](np.pi * 2.0**octave * value)
        values.append(value)
    return np.array(values, np.float32)


def _layers(names: Iterable[str]) -> set[str]:
    """Which layers there are, whatever channels they are for."""
    return {name if name.startswith(_AFTER_INPUTS) else name.partition("/")[2] for name in names}


def _places(entries: Sequence[Hashable], among: Sequence[Hashable]) -> Iterator[int | None]:
    """Yields where each entry is among others, None where it is not."""
    places = {entry: place for place, entry in enumerate(among)}
    yield from map(places.get, entries)


def _places_in_heads(entries: Sequence[tuple[str, int]], among: Sequence[tuple[str, int]]) -> Iterator[int | None]:
    """Yields where each value of each head is among others: the last one of a head that has fewer."""
    sizes = {head: index + 1 for head, index in among}
    yield from _places([(head, min(index, sizes.get(head, 1) - 1)) for head, index in entries], among)
