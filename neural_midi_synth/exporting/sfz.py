"""The text of an SFZ file: which sample a player plays for a note, by pitch, velocity, styles and turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from neural_midi_synth.exporting.samples import Loop

BEND_CENTS = 200
"""The instrument's range of pitch bends, where a file says nothing."""

SAMPLES_FOLDER = "samples"
"""Of the samples, beside the SFZ."""

_HIGHEST_VOLUME = 6.0  # dB: the most that an SFZ may make a sample louder.


@dataclasses.dataclass(frozen=True)
class Style:
    """A style as layers of samples.

    Attributes:
        name: Of the style.
        number: Of its controller.
        values: Of the layers, 0 to 127, in order. Between them two are cross-faded, while notes sound, too.
        default: Where nothing is said, 0 to 127.
    """

    name: str
    number: int
    values: tuple[int, ...]
    default: int = 0

    def opcodes(self, value: int) -> str:
        """What makes a sample of one of the values sound when it should."""
        place, number, words = self.values.index(value), self.number, []
        # Below the lowest and above the highest nothing is faded.
        if place > 0:
            words.append(f"xfin_locc{number}={self.values[place - 1]} xfin_hicc{number}={value}")
        if place < len(self.values) - 1:
            words.append(f"xfout_locc{number}={value} xfout_hicc{number}={self.values[place + 1]}")
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class VelocityZone:
    """The velocities that a layer of samples is played for.

    Attributes:
        velocity: Of the samples.
        low: Lowest velocity.
        high: Highest.
        volume: dB: of the highest velocity, against the samples.
        curve: Velocity → gain against the highest one, some of the zone's.
    """

    velocity: int
    low: int
    high: int
    volume: float
    curve: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Region:
    """A sample and when it plays.

    Attributes:
        file: Name of the sample.
        pitch: At which it was played, MIDI note number.
        zone: Velocities.
        values: Controller number → value of the style.
        turn: Its turn among round robins, from 1.
        release: Of the note, s.
        loop: Its loop; None plays to the end.
    """

    file: str
    pitch: int
    zone: VelocityZone
    values: tuple[tuple[int, int], ...]
    turn: int
    release: float
    loop: Loop | None


def zone(values: Sequence[int], place: int, last: int = 127) -> tuple[int, int]:
    """Returns the lowest and the highest number that is nearer to one of several than to the others.

    Args:
        values: The several, in order.
        place: Which one of them.
        last: The highest number there is.
    """
    low = 0 if place == 0 else (values[place - 1] + values[place]) // 2 + 1
    high = last if place == len(values) - 1 else (values[place] + values[place + 1]) // 2
    return low, high


def velocity_zones(velocities: Sequence[int], level_db: np.ndarray, louder: float = 0.0) -> list[VelocityZone]:
    """Divides the velocities into zones, in which the level follows the instrument.

    The zones meet halfway, or lower, where the softer samples would have to be made louder than an SFZ may.

    Args:
        velocities: Of the layers, in order.
        level_db: Level of the instrument at each velocity from 0 to 127, dB.
        louder: How much all samples are to be made louder, dB, at most 6.

    Returns:
        A zone for each layer.
    """
    zones, low = [], 1
    for place, velocity in enumerate(velocities):
        _, high = zone(velocities, place)
        if place < len(velocities) - 1:
            rise = level_db[velocity : high + 1] - level_db[velocity] + louder
            high = velocity + int(np.flatnonzero(rise <= _HIGHEST_VOLUME)[-1])
        points = sorted({low, *range(low, high, 6), velocity, high})
        # Of all the zone, since a gain above 1 is not for a curve to give.
        loudest = float(level_db[low : high + 1].max())
        curve = {point: float(10 ** ((level_db[point] - loudest) / 20)) for point in points if low <= point <= high}
        volume = min(loudest - float(level_db[velocity]) + louder, _HIGHEST_VOLUME)
        zones.append(VelocityZone(velocity, low, high, volume, curve))
        low = high + 1
    return zones


def sfz(name: str, comments: Iterable[str], styles: Sequence[Style], regions: Sequence[Region]) -> str:
    """Writes an SFZ.

    Args:
        name: Of the instrument.
        comments: Lines that its reader is told.
        styles: Its styles.
        regions: Its samples, in `SAMPLES_FOLDER` beside it.

    Returns:
        The text.
    """
    return "\n".join(_lines(name, comments, styles, regions)) + "\n"


def _lines(name: str, comments: Iterable[str], styles: Sequence[Style], regions: Sequence[Region]) -> Iterator[str]:
    yield from (f"// {line}" for line in comments)
    yield ""
    if styles:
        yield "<control>"
    for style in styles:
        yield f"label_cc{style.number}={style.name}"
        yield f"set_cc{style.number}={style.default}"
    yield ""
    yield "<global>"
    yield f"global_label={name}"
    yield f"bend_up={BEND_CENTS}"
    yield f"bend_down=-{BEND_CENTS}"
    # The layers are in phase with each other, so their amplitudes are added, not their powers.
    yield "xf_cccurve=gain"
    turns = max(region.turn for region in regions)
    if turns > 1:
        yield f"seq_length={turns}"
    pitches = sorted({region.pitch for region in regions})
    keys = {pitch: zone(pitches, place) for place, pitch in enumerate(pitches)}
    groups: dict[tuple[VelocityZone, tuple[tuple[int, int], ...]], list[Region]] = {}
    for region in regions:
        groups.setdefault((region.zone.velocity, region.values), []).append(region)
    for of_group in groups.values():
        yield from _group(of_group, styles, keys, turns)


def _group(
    regions: Sequence[Region], styles: Sequence[Style], keys: Mapping[int, tuple[int, int]], turns: int
) -> Iterator[str]:
    """The regions of a layer of velocities and styles."""
    velocities, values = regions[0].zone, dict(regions[0].values)
    label = ", ".join(
        [*(f"{style.name} {values[style.number]}" for style in styles), f"velocity {velocities.velocity}"]
    )
    yield ""
    yield "<group>"
    yield f"group_label={label}"
    yield f"lovel={velocities.low} hivel={velocities.high} volume={velocities.volume:.2f}"
    yield " ".join(f"amp_velcurve_{point}={gain:.4f}" for point, gain in velocities.curve.items())
    yield from filter(None, (style.opcodes(values[style.number]) for style in styles))
    for region in regions:
        low, high = keys[region.pitch]
        words = [
            f"<region> sample={SAMPLES_FOLDER}/{region.file}",
            f"pitch_keycenter={region.pitch} lokey={low} hikey={high}",
        ]
        words.append(f"ampeg_release={region.release:.3f}")
        if turns > 1:
            words.append(f"seq_position={region.turn}")
        if region.loop is None:
            words.append("loop_mode=no_loop")
        else:
            # SFZ's loop ends with its last sample.
            words.append(f"loop_mode=loop_continuous loop_start={region.loop.start} loop_end={region.loop.end - 1}")
        yield " ".join(words)
