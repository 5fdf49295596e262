"""The tempo of a project over time: seconds to quarter notes and back, with tempos that change gradually."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_SHORTEST_CHANGE = 1e-9  # s


class TempoPoint(NamedTuple):
    """A tempo that begins at a time.

    Attributes:
        time: Seconds.
        tempo: Quarter notes per minute, above 0.
        gradual: Whether the tempo moves from here to that of the next point, linearly in time; else it is held.
    """

    time: float
    tempo: float
    gradual: bool = False


class TempoMap:
    """Converts between seconds and quarter notes.

    Between two points the tempo is held, or it moves linearly in time, so that quarter notes are a quadratic function
    of seconds. Before the first point its tempo holds, after the last one that of the last.

    Attributes:
        points: As they were given, sorted by time.

    Example:
        ```python
        tempo_map = TempoMap([TempoPoint(0.0, 60.0, gradual=True), TempoPoint(10.0, 120.0)])
        tempo_map.quarter_notes(10.0)  # 15.0, the mean of both tempos for ten seconds
        ```
    """

    def __init__(self, points: Sequence[TempoPoint]) -> None:
        if not points:
            raise ValueError("A tempo map needs at least one point.")
        self.points = tuple(sorted(points, key=lambda point: point.time))
        self._times = np.array([point.time for point in self.points], np.float64)
        self._tempos = np.array([point.tempo for point in self.points], np.float64) / 60.0
        durations = np.diff(self._times)
        ends = np.where([point.gradual for point in self.points[:-1]], self._tempos[1:], self._tempos[:-1])
        mean_tempos = (self._tempos[:-1] + ends) / 2.0
        self._beats = np.concatenate([[0.0], np.cumsum(durations * mean_tempos)])
        # Points as good as at one time have nothing between them that could change.
        changing = durations > _SHORTEST_CHANGE
        slopes = np.divide(ends - self._tempos[:-1], durations, out=np.zeros_like(durations), where=changing)
        self._slopes = np.append(slopes, 0.0)  # Quarter notes per second, and second.

    def quarter_notes(self, seconds: npt.ArrayLike) -> np.ndarray:
        """Returns how many quarter notes lie between the first point and a time.

        Args:
            seconds: Times, any shape; before the first point the result is negative.

        Returns:
            float64 of the same shape.
        """
        seconds = np.asarray(seconds, np.float64)
        i = np.maximum(np.searchsorted(self._times, seconds, side="right") - 1, 0)
        passed = seconds - self._times[i]
        return self._beats[i] + passed * (self._tempos[i] + self._slopes_after(i, passed) * passed / 2.0)

    def seconds(self, quarter_notes: npt.ArrayLike) -> np.ndarray:
        """Returns the times of quarter notes: the inverse of `quarter_notes`.

        Args:
            quarter_notes: Counted from the first point, any shape.

        Returns:
            float64 seconds of the same shape.
        """
        quarter_notes = np.asarray(quarter_notes, np.float64)
        i = np.maximum(np.searchsorted(self._beats, quarter_notes, side="right") - 1, 0)
        passed = quarter_notes - self._beats[i]
        slope = self._slopes_after(i, passed)
        # The root of slope / 2 * x² + tempo * x = passed, in the form that does not subtract numbers of like size.
        root = np.sqrt(np.maximum(self._tempos[i] ** 2 + 2.0 * slope * passed, 0.0))
        return self._times[i] + 2.0 * passed / (self._tempos[i] + root)

    def _slopes_after(self, i: np.ndarray, passed: np.ndarray) -> np.ndarray:
        """Returns how the tempo changes after point i; before the first point it does not."""
        return np.where(passed < 0.0, 0.0, self._slopes[i])
