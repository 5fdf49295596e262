"""Between an instrument's blocks and a sound device: its rate, its clock, and what is heard where a block is late."""

from __future__ import annotations

import collections
import math

import numpy as np

FADE_SECONDS = 0.005

_LEAST_SWING = 0.02  # Of full scale.
_TAPS = 32  # Of the resampler at the lower of both rates: half of them are its delay.
_KAISER_BETA = 6.0  # Images are 60 dB below.
_CUTOFF = 0.91  # Of half the lower rate.


class SteadyClock:
    """Tells when things really came that were seen now on time, now late, and never early.

    Whatever comes counts its own time evenly: samples of a device, the times that a MIDI driver stamps. How much that
    is off our clock is what it was at best within the last moments.
    """

    def __init__(self, memory: float) -> None:
        """Has seen nothing yet.

        Args:
            memory: For how long it looks back, s. Clocks drift by some 50 µs a second.
        """
        self._memory = memory
        self._best: collections.deque[tuple[float, float]] = collections.deque()  # When seen, and the difference.
        self._difference = 0.0

    def see(self, counted: float, seen: float) -> float:
        """Takes a time as it was counted, s, and as it was seen, s; returns when it really was, s."""
        difference = seen - counted
        while self._best and self._best[-1][1] >= difference:
            self._best.pop()
        self._best.append((seen, difference))
        while self._best[0][0] < seen - self._memory:
            self._best.popleft()
        self._difference = self._best[0][1]
        return counted + self._difference

    def counted_at(self, time: float) -> float:
        """What is counted at a time, s. May be called from any thread; before it has seen something, it is `time`."""
        return time - self._difference


class Resampler:
    """Changes the sample rate of endless blocks, with a delay of one millisecond at 16 kHz.

    Each output sample is a windowed sinc over the input around it. Libraries wait for much more of the input, which is
    better for files and worse for players.

    Attributes:
        delay: Samples of the input by which the output is behind; 0 where the rates are equal.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        """Designs the filter.

        Args:
            from_rate: Samples a second that come.
            to_rate: Samples a second that go.
        """
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._index = 0  # Of the next output sample, modulo `_up` since the last whole input sample.
        if from_rate == to_rate:
            self.delay, self._weights = 0, np.ones([1, 1], np.float32)
        else:
            ratio = min(1.0, to_rate / from_rate)
            half = math.ceil(_TAPS / 2 / ratio)
            # Of the window of input samples that ends at the newest one: how far each is from the output sample.
            distance = np.arange(1 - half, half + 1)[np.newaxis] - np.arange(self._up)[:, np.newaxis] / self._up
            window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1.0 - (distance / half) ** 2, 0.0)))
            weights = np.sinc(_CUTOFF * ratio * distance) * window
            self.delay, self._weights = half, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        self._waiting = np.zeros(self._weights.shape[1] - 1, np.float32)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The next block: float32 `[n]` to about `n * to_rate / from_rate` samples, as many as are due."""
        if not self.delay:
            return samples
        known = np.concatenate([self._waiting, samples])
        self._waiting = known[len(samples) :]
        n_due = -(-(len(samples) * self._up - self._index) // self._down)
        steps = self._index + self._down * np.arange(n_due)
        self._index += self._down * n_due - len(samples) * self._up
        windows = np.lib.stride_tricks.sliding_window_view(known, self._weights.shape[1])
        return np.einsum("nt,nt->n", windows[steps // self._up], self._weights[steps % self._up])


class Output:
    """Blocks on their way to a device. One thread writes them, the device's reads; neither waits for the other.

    Each block has its place among the samples that the device has asked for since it began. Where the device finds
    none, what was heard last goes on, mirrored, and fades within 5 ms; where it finds one again, that fades in.

    Attributes:
        position: Samples that the device has asked for.
        gaps: How often the sound broke off, the beginning and `clear` not counted.
        peak: Of what was read since somebody set it to 0.
    """

    def __init__(self, sample_rate: int) -> None:
        """Begins with silence.

        Args:
            sample_rate: Of the device.
        """
        self.position = 0
        self.gaps = 0
        self.peak = 0.0
        n = max(round(FADE_SECONDS * sample_rate), 2)
        self._rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n)).astype(np.float32)
        self._blocks: collections.deque[tuple[int, np.ndarray]] = collections.deque()
        self._heard = np.zeros(n + 1, np.float32)
        self._tail = np.zeros(0, np.float32)  # What is still to be heard of a sound that broke off.
        self._risen = 0
        self._is_broken_off = True
        self._is_cleared = False

    def write(self, position: int, samples: np.ndarray) -> None:
        """Puts a block where it belongs; what of it is too late is not heard.

        Args:
            position: Of its first sample, not before the end of the block before.
            samples: float32 `[n]`.
        """
        self._blocks.append((position, samples))

    def clear(self) -> None:
        """Takes back what was written and not read yet. May be called from any thread."""
        self._is_cleared = True

    def read(self, n_samples: int) -> np.ndarray:
        """The next samples for the device.

        Args:
            n_samples: How many.

        Returns:
            float32 `[n_samples]` within [-1, 1].
        """
        cleared, self._is_cleared = self._is_cleared, False
        if cleared:
            self._blocks.clear()
        parts, left = [], n_samples
        while left:
            part = self._next(left, cleared)
            left -= len(part)
            parts.append(part)
        samples = np.clip(np.concatenate(parts), -1.0, 1.0)
        self.peak = max(self.peak, float(np.abs(samples).max()))
        return samples

    def _next(self, most: int, cleared: bool) -> np.ndarray:
        """What comes next, to the end of a block or to the beginning of one."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= self.position:
            self._blocks.popleft()
        begin, block = self._blocks[0] if self._blocks else (self.position + most, None)
        if begin > self.position:
            part = np.zeros(min(most, begin - self.position), np.float32)
            if not self._is_broken_off:
                self.gaps += not cleared
                self._break_off()
        else:
            start = self.position - begin
            part = self._risen_part(block[start : start + most])
        n_tail = min(len(self._tail), len(part))
        if n_tail:
            part[:n_tail] += self._tail[:n_tail]
            self._tail = self._tail[n_tail:]
        self._heard = np.concatenate([self._heard, part])[-len(self._heard) :]
        self.position += len(part)
        return part

    def _risen_part(self, part: np.ndarray) -> np.ndarray:
        part, self._is_broken_off = part.copy(), False
        rise = self._rise[self._risen :][: len(part)]
        part[: len(rise)] *= rise
        self._risen += len(rise)
        return part

    def _break_off(self) -> None:
        """Lets what was heard last go on as its reflection in the last sample, which has the same value and slope.

        A reflection may swing far out; it is bent gently, so that it gets not much louder than what was heard.
        """
        self._is_broken_off, self._risen = True, 0
        last = self._heard[-1]
        most = max(min(np.abs(self._heard).max() / 2, 1.0 - abs(last)), _LEAST_SWING)
        self._tail = (last + most * np.tanh((last - self._heard[-2::-1]) / most)) * self._rise[::-1]
