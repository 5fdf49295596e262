"""Shapes of Reaper's control changes and pitch bends: between two events their values may move along a curve.

The curves are those of Reaper's envelopes as the SWS extension computes them (`BR_Envelope::ValueAtPosition`): x³ for
a fast end, its mirror image for a fast start, x²(3 - 2x) for a slow start and end, and a cubic Bézier curve. Its two
control points lie at a quarter and at three quarters of the straight line where its tension is 0, both in the corner
below the line at tension 1, and both in the corner above it at -1; between that they move along straight lines, as
Cockos has told in its forum (https://forum.cockos.com/showpost.php?p=1690470&postcount=7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from neural_midi_synth.errors import DataError
from neural_midi_synth.midi.events import ALL_SOUND_OFF, PARAMETER_CONTROLLERS

SQUARE, LINEAR, SLOW_START_END, FAST_START, FAST_END, BEZIER = range(6)
CONTROL_CHANGE, PITCH_BEND = 0xB0, 0xE0
_MOST_STEPS = 5_000_000
_BISECTIONS = 24  # Of the Bézier curve's parameter; they leave an error of 6e-8.


class Event(NamedTuple):
    """A MIDI message of a Reaper item.

    Attributes:
        tick: From the beginning of the source.
        status: Its first byte, 0x80 to 0xef.
        data1: Second byte, 0..127.
        data2: Third byte, 0..127.
        shape: How its value moves to that of the next event of its kind.
        tension: Of a Bézier curve, -1..1.
    """

    tick: int
    status: int
    data1: int
    data2: int
    shape: int = SQUARE
    tension: float = 0.0


def curve(shape: int, tension: float, x: np.ndarray) -> np.ndarray:
    """Returns how far a value has moved.

    Args:
        shape: One of the constants above.
        tension: Of a Bézier curve: above 0 it moves late, below 0 early.
        x: Share of the time between both events that has passed, 0..1, float64.

    Returns:
        Share of the way between both values, 0..1, as many as in `x`.
    """
    if shape == SQUARE:
        return np.zeros_like(x)
    if shape == SLOW_START_END:
        return x * x * (3.0 - 2.0 * x)
    if shape == FAST_START:
        return 1.0 - (1.0 - x) ** 3
    if shape == FAST_END:
        return x**3
    if shape == BEZIER:
        return _bezier(tension, x)
    return x


def _bezier(tension: float, x: np.ndarray) -> np.ndarray:
    tension = min(max(tension, -1.0), 1.0)
    late, early = max(tension, 0.0), max(-tension, 0.0)
    x1, x2 = (at_rest + late * (1.0 - at_rest) - early * at_rest for at_rest in (0.25, 0.75))
    y1, y2 = (at_rest - late * at_rest + early * (1.0 - at_rest) for at_rest in (0.25, 0.75))
    low, high = np.zeros_like(x), np.ones_like(x)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        before = _cubic(x1, x2, middle) < x
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return _cubic(y1, y2, (low + high) / 2.0)


def _cubic(first: float, second: float, t: np.ndarray) -> np.ndarray:
    """Returns a cubic Bézier curve from 0 to 1 with these two control values."""
    return 3.0 * (1.0 - t) ** 2 * t * first + 3.0 * (1.0 - t) * t**2 * second + t**3


def sample_shapes(events: Sequence[Event], step: float, where: str) -> list[Event]:
    """Samples the curves between control changes and between pitch bends into steps, as Reaper plays them.

    Args:
        events: Of a source, in order.
        step: Ticks from one sample to the next, at least 1.
        where: File and item, for the message.

    Returns:
        The events and, between them, one of the same kind wherever the value has changed; sorted by tick.

    Raises:
        DataError: There would be millions of them.
    """
    following: dict[int, Event] = {}
    next_of_kind: dict[tuple[int, int], int] = {}
    n_steps = 0.0
    for i in range(len(events) - 1, -1, -1):
        kind = _kind(events[i])
        if kind is not None:
            if events[i].shape != SQUARE and kind in next_of_kind:
                following[i] = events[next_of_kind[kind]]
                n_steps += (following[i].tick - events[i].tick) / step
            next_of_kind[kind] = i
    if n_steps > _MOST_STEPS:
        raise DataError(f"{where}: its curves of control changes are too long. Set their shape to Square in Reaper.")
    sampled = []
    for i, event in enumerate(events):
        sampled.append(event)
        if i in following:
            sampled += _steps(event, following[i], step)
    return sorted(sampled, key=lambda event: event.tick)


def _kind(event: Event) -> tuple[int, int] | None:
    """Returns what tells curves apart; None for messages that have none."""
    message = event.status & 0xF0
    if message == PITCH_BEND:
        return event.status, 0
    if message == CONTROL_CHANGE and event.data1 < ALL_SOUND_OFF and event.data1 not in PARAMETER_CONTROLLERS:
        return event.status, event.data1
    return None


def _steps(event: Event, following: Event, step: float) -> list[Event]:
    ticks = np.unique(np.round(np.arange(event.tick + step, following.tick, step))).astype(np.int64)
    ticks = ticks[(ticks > event.tick) & (ticks < following.tick)]
    share = curve(event.shape, event.tension, (ticks - event.tick) / max(following.tick - event.tick, 1))
    is_bend = event.status & 0xF0 == PITCH_BEND
    start, end = (each.data2 * 128 + each.data1 if is_bend else each.data2 for each in (event, following))
    moved = np.round(start + (end - start) * share).astype(np.int64)
    changed = np.flatnonzero(np.diff(moved, prepend=start))
    return [
        Event(tick, event.status, value % 128, value // 128) if is_bend else Event(tick, *event[1:3], value)
        for tick, value in zip(ticks[changed].tolist(), moved[changed].tolist())
    ]
