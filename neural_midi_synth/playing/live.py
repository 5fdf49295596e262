"""Plays an instrument now: from events with times to what a sound device asks for, with a latency that is known.

A thread of its own computes blocks, each shortly before the device needs it. An event is heard a constant time after
it came, wherever in a block that falls: to the sample where the instrument begins notes so, else to within half a
control frame. `Live` knows no devices: whoever has one hands over times and fetches samples.

Example:
    ```python
    live = Live(nms.load())
    live.connect(sample_rate=48000, buffer_samples=256)
    with live.running():
        live.happen("note_on", (40, 100), time.perf_counter())
        samples = live.read(256, time.perf_counter())  # What a device's callback does again and again.
    ```
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from neural_midi_synth.instrument.controls import ONSET, frame_of
from neural_midi_synth.instrument.instrument import Instrument
from neural_midi_synth.playing.output import Output, Resampler, SteadyClock
from neural_midi_synth.playing.stream import Stream

BLOCK_SECONDS = (0.004, 0.008, 0.016, 0.032)
"""Lengths of blocks to choose from."""

PLACES = 8
"""In a control frame: where in it an event can happen, if the instrument's notes begin to the sample."""

_MOST_LOAD = 0.4  # Of the time of a block that its computing may take, with nothing else going on.
_BLOCKS_TRIED = 40
_RESERVE = 1.6  # Of the time that a block takes, since it takes longer while other things go on.
_PRIORITY = 10  # From 1 to 99; JACK's own threads have more.
_SPARE_SECONDS = 0.0005  # What threads need to wake.
_CLOCK_MEMORY = 0.25  # s: devices that stumble count on from there.
_STANDSTILL_SECONDS = 0.3  # Without a callback for so long, a device has stopped.
_WAIT_SECONDS = 0.02  # The longest that the thread sleeps.
_GROWTH = 1.1  # Of what is kept free for computing, where it was too little.
_MOST_COMPUTING = 0.04  # s
_CHANCE_SECONDS = 60.0  # A block that is late, and no other within so long, is no reason to make all later.
_PATIENCE_SECONDS = 60.0  # Without a late block for so long, less is kept free again; twice as long after each failure.
_WITHIN_REACH = 2.0  # Times what is kept free: for pauses of the machine that are longer nothing is kept free.
_REST_SECONDS = 0.1  # Without an event, since those before and after it are not equally late.
_AVERAGED = 0.02  # How much a new block counts in the average load.


@dataclasses.dataclass(frozen=True)
class Latency:
    """Where the time goes from an event to its sound, s.

    The sum is right to `Live.tolerance` for notes; other events are ± half a control frame around it.

    Attributes:
        block: Waiting until a block is full.
        computing: What is kept free to compute it.
        network: The instrument's own: a frame is known only when the next one is; and the resampler's.
        device: The buffers of the sound device.
    """

    block: float
    computing: float
    network: float
    device: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.block + self.computing + self.network + self.device


class Live:
    """An instrument that is played now.

    Attributes:
        stream: What makes the sound.
        output: Where it waits for the device, after `connect`.
        load: Share of the time that computing takes, on average.
        late: How many blocks came too late for the device.
        before_block: Called by the computing thread before each block, with the frame after its last.
        failure: What ended the computing thread, if something did.
        on_block: Called by that thread with the first frame of each block, and the block as the stream plays it.
    """

    def __init__(
        self,
        instrument: Instrument,
        block_frames: int | None = None,
        voices: int = 6,
        computing: float | None = None,
        stream: Callable[[Instrument, int, int], Stream] = Stream,
    ) -> None:
        """Readies an instrument.

        Args:
            instrument: What plays.
            block_frames: Control frames of a block; unless given, of the shortest one that this machine computes in
                good time.
            voices: How many notes can last at once.
            computing: Time to keep free for a block to be computed in, s; unless given, that is tried.
            stream: Makes a stream of the instrument, of so many frames and voices.

        Raises:
            DataError: The instrument cannot be played live.
            ValueError: As `Stream`.
        """
        self._places = PLACES if ONSET in instrument.controls.channels else 1
        if computing is not None and block_frames is not None:
            self.stream, self._computing = stream(instrument, block_frames, voices), computing
        else:
            self.stream, tried = _held_by_machine(instrument, block_frames, voices, stream)
            self._computing = tried if computing is None else computing
        self._least_computing = self._computing
        self._calm_since = self._last_event = -math.inf
        self._last_late = -math.inf, 0.0  # When, and how long that block took.
        self._patience = _PATIENCE_SECONDS
        self._has_tried_less = False
        self.load = 0.0
        self.late = 0
        self.on_block: Callable[[int, np.ndarray], None] | None = None
        self.before_block: Callable[[int], None] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.failure: Exception | None = None
        self.output = Output(instrument.sample_rate)
        self._gaps_before = 0
        self.connect(instrument.sample_rate, 1)

    def connect(self, sample_rate: int, buffer_samples: int, device_latency: float = 0.0) -> None:
        """Begins to play to a device, or goes on with another one.

        Args:
            sample_rate: Of the device.
            buffer_samples: How many samples it asks for at once, as a rule.
            device_latency: From its asking to where the first of these samples is heard, s.
        """
        with self._lock:
            self.sample_rate = int(sample_rate)
            self._buffer = int(buffer_samples)
            self._device_latency = device_latency
            self._resampler = Resampler(self.stream.sample_rate, self.sample_rate)
            self._clock = SteadyClock(_CLOCK_MEMORY)
            self._seen = -math.inf
            self._frame, self._position = self.stream.frame, 0  # Of the next block, and where it goes in the output.
            self._is_first = True
            self._gaps_before += self.output.gaps
            self.output = Output(self.sample_rate)

    @property
    def latency(self) -> Latency:
        """From an event to its sound."""
        stream = self.stream
        return Latency(
            block=stream.block_samples / stream.sample_rate - self.tolerance,
            computing=self._kept_free,
            network=(stream.latency + self._resampler.delay) / stream.sample_rate,
            device=self._device_latency + self._misfit / self.sample_rate,
        )

    @property
    def tolerance(self) -> float:
        """By how much single events may be earlier or later than `latency` says, s: half the way between two places."""
        return self.stream.hop / self.stream.sample_rate / self._places / 2

    @property
    def gaps(self) -> int:
        """How often the sound broke off since a block was late, and faded."""
        return self._gaps_before + self.output.gaps

    @property
    def _ratio(self) -> float:
        return self.sample_rate / self.stream.sample_rate

    @property
    def _kept_free(self) -> float:
        """Time for all blocks that a device may ask for at once, s."""
        return self._computing * math.ceil(self._buffer / (self.stream.block_samples * self._ratio))

    @property
    def _misfit(self) -> float:
        """Samples of the device by which a block may be needed before it begins, since buffers don't fit blocks."""
        block = self.stream.block_samples * self._ratio
        return self._buffer - (math.gcd(round(block), self._buffer) if block == round(block) else 1)

    def read(self, n_samples: int, now: float) -> np.ndarray:
        """What a device's callback plays.

        Args:
            n_samples: How many samples the device asks for.
            now: When it asks, s by `time.perf_counter`.

        Returns:
            float32 `[n_samples]` within [-1, 1].
        """
        self._clock.see(self.output.position / self.sample_rate, now)
        self._seen = now
        return self.output.read(n_samples)

    def happen(self, what: str, values: Sequence[float], when: float, midi_channel: Hashable = None) -> float:
        """Has an event happen; from any thread.

        Args:
            what: A method of `Stream`: `note_on`, `note_off`, `control_change` or `pitch_bend`.
            values: Its arguments.
            when: When the event came, s by `time.perf_counter`.
            midi_channel: Whose it is.

        Returns:
            When it happens, in control frames.

        Raises:
            DataError: As `Stream`.
        """
        frame = self.frame_at(when)
        self._last_event = when
        getattr(self.stream, what)(*values, frame=frame, midi_channel=midi_channel)
        return frame

    def frame_at(self, when: float) -> float:
        """The control frame at which an event happens that comes at a time, s by `time.perf_counter`."""
        with self._lock:
            hop = self.stream.hop * self._ratio
            block = self.stream.block_frames * hop
            delay = block + (self._kept_free - self.tolerance) * self.sample_rate + self._misfit
            frames = (self._position_at(when) + delay - self._position) / hop
            return self._frame + max(self.nearest(frames / self.stream.instrument.frame_rate), 0)

    def nearest(self, seconds: float) -> float:
        """The place nearest to a time, in control frames: one of `PLACES` in each, or a whole frame.

        Times that are played are told in places, so that a take of them says in its MIDI what was heard.
        """
        return frame_of(seconds, self.stream.instrument.frame_rate * self._places) / self._places

    def panic(self) -> None:
        """Silences everything at once, until the next note."""
        self.stream.panic()
        self.output.clear()

    def due(self, now: float) -> float:
        """When the next block has to be begun, by the same clock as `now`; infinity while no device asks."""
        with self._lock:
            if now > self._seen + _STANDSTILL_SECONDS:
                return math.inf
            needed = self._position // self._buffer * self._buffer
            return now + (needed - self._position_at(now)) / self.sample_rate - self._kept_free

    def compute(self, now: float) -> None:
        """Computes the next block, whether it is due or not; `running` does it in time.

        Args:
            now: s by `time.perf_counter`.
        """
        with self._lock:
            self._catch_up(now)
            frame, position, resampler, output = self._frame, self._position, self._resampler, self.output
        due = min(self.due(now), now)
        if self.before_block is not None:
            self.before_block(frame + self.stream.block_frames)
        began = time.perf_counter()
        block = self.stream.block()
        samples = resampler(block)
        took = time.perf_counter() - began
        if output.position > position:
            self.late += 1
            self._leave_more_time(took, took + now - due, now)
        else:
            self._leave_less_time(now)
        output.write(position, samples)
        with self._lock:
            if output is self.output:
                self._frame, self._position = self.stream.frame, position + len(samples)
        if self.on_block is not None:
            self.on_block(frame, block)
        load = took * self.stream.sample_rate / self.stream.block_samples
        self.load += _AVERAGED * (load - self.load)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Has a thread compute the blocks meanwhile."""

        def work() -> None:
            try:
                while not self._stop.is_set():
                    now = time.perf_counter()
                    wait = self.due(now) - now
                    if wait > 0.0:
                        self._stop.wait(min(wait, _WAIT_SECONDS))
                    else:
                        self.compute(time.perf_counter())
            except Exception as failure:
                self.failure = failure

        self._stop.clear()
        thread = threading.Thread(target=work, name="blocks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _position_at(self, when: float) -> float:
        """Which sample the device asks for at a time, as a fraction too."""
        return 0.0 if self._seen == -math.inf else self._clock.counted_at(when) * self.sample_rate

    def _leave_more_time(self, took: float, needed: float, now: float) -> None:
        """After late blocks: as much as twice was too little, while that can still be played.

        Args:
            took: What the block took to be computed, s.
            needed: The same with what its thread was late to begin, s.
            now: s by `time.perf_counter`.
        """
        when, took_then = self._last_late
        can_be_helped = took > self._computing or needed < _WITHIN_REACH * self._computing
        if can_be_helped and now < when + _CHANCE_SECONDS:
            enough = min(max(_GROWTH * self._computing, min(took, took_then)), _MOST_COMPUTING)
            self._computing = max(enough, self._computing)
        if self._has_tried_less:
            self._patience *= 2.0
        self._has_tried_less = False
        self._last_late, self._calm_since = (now, took), now

    def _leave_less_time(self, now: float) -> None:
        """After blocks that all came in time for long: a little less, down to what it was at first."""
        is_calm = now > self._calm_since + self._patience and now > self._last_event + _REST_SECONDS
        if is_calm and self._computing > self._least_computing:
            self._computing = max(self._computing / _GROWTH, self._least_computing)
            self._calm_since, self._has_tried_less = now, True

    def _catch_up(self, now: float) -> None:
        """Where even the end of the next block would be too late, the stream stands still until there is time again.

        So it does before the first block, for which nobody could have had time.
        """
        block = self.stream.block_samples * self._ratio
        soonest = self._position_at(now) + self._kept_free * self.sample_rate
        if self._is_first or soonest > self._position + block:
            self._is_first = False
            self._position = (math.floor(soonest / self._buffer) + 2) * self._buffer


def go_first() -> bool:
    """Has the threads of this process go before all others, where the system allows it; those begun later, too.

    Linux allows it to root, and to users with a limit for it, as those of the group `audio` have by most distributions.

    Returns:
        Whether it is allowed.
    """
    try:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):  # Another system, or not allowed.
        return False
    return True


def _held_by_machine(
    instrument: Instrument,
    block_frames: int | None,
    voices: int,
    stream_of: Callable[[Instrument, int, int], Stream],
) -> tuple[Stream, float]:
    """The stream with the shortest blocks that this machine computes in good time, and how long that takes, s."""
    if block_frames is not None:
        sizes = [block_frames]
    else:
        stride = instrument.decoder.stride
        sizes = sorted({max(round(s * instrument.frame_rate / stride), 1) * stride for s in BLOCK_SECONDS})
    for size in sizes:
        stream = stream_of(instrument, size, voices)
        seconds = stream.block_samples / stream.sample_rate
        times = _tried(stream)
        usual, worst = np.median(times), np.percentile(times, 95)
        if worst < _MOST_LOAD * seconds or size == sizes[-1]:
            break
    return stream, float(np.clip(_RESERVE * usual, worst, seconds)) + _SPARE_SECONDS


def _tried(stream: Stream) -> list[float]:
    """How long blocks take when all voices sound, s; at the pace of playing, since the processor rests in between."""
    low, high = stream.instrument.pitch_range
    for pitch in np.linspace(low, high, stream.voices).round():
        stream.note_on(float(pitch), 100)
    times = []
    for _ in range(_BLOCKS_TRIED):
        began = time.perf_counter()
        stream.block()
        times.append(time.perf_counter() - began)
        time.sleep(max(stream.block_samples / stream.sample_rate - times[-1], 0.0))
    stream.reset()
    return times
