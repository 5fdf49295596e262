"""What the benchmarks are about: how large they are, and the rows of the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

SAMPLE_RATE, HOP = 16000, 64


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the benchmarks are.

    Attributes:
        batch: Clips in a batch.
        clip_seconds: Length of a clip.
        network: Units and layers of the MLPs, units of the recurrent layer, in the lineage's decoder.
        bindings: gin's, for all instruments.
        lengths: Of renderings, s; the first as long as a clip.
        stream_seconds: How long a stream is played.
        seconds: How long a measurement is repeated.
        steps: How many steps of training are taken to see whether they slow down.
    """

    batch: int = 12
    clip_seconds: float = 4.0
    network: tuple[int, int, int] = (512, 3, 512)
    bindings: tuple[str, ...] = ()
    lengths: tuple[float, ...] = (4.0, 60.0, 360.0, 600.0, 3600.0)
    stream_seconds: float = 600.0
    seconds: float = 5.0
    steps: int = 2100


QUICK = Sizes(
    batch=2,
    clip_seconds=0.512,
    network=(8, 1, 8),
    bindings=("Decoder.units = 8", "Decoder.layers = 1", "Decoder.rnn_units = 8"),
    lengths=(0.512, 1.0, 3.0, 5.0, 30.0),
    stream_seconds=1.0,
    seconds=0.0,
    steps=300,
)


@dataclasses.dataclass
class Row:
    """A row of the table.

    Attributes:
        name: What was measured.
        ours: Seconds it takes.
        stock: Seconds stock takes.
        audio: Seconds of audio that are made, or gone through, in that time.
        stock_audio: The same for stock; as `audio` unless given.
        memory: Peak memory, MB.
        stock_memory: Stock's.
        aim: What was aimed at.
        call: What was timed, for a profile.
    """

    name: str
    ours: float
    stock: float | None = None
    audio: float | None = None
    stock_audio: float | None = None
    memory: float | None = None
    stock_memory: float | None = None
    aim: str = ""
    call: Callable[[], Any] | None = None

    @property
    def speed(self) -> float | None:
        """Seconds of audio a second."""
        return self.audio / self.ours if self.audio else None

    @property
    def stock_speed(self) -> float | None:
        """Seconds of audio a second, of stock."""
        audio = self.stock_audio or self.audio
        return audio / self.stock if self.stock and audio else None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as stock: by audio a second, so that batches need not be equal."""
        return self.speed / self.stock_speed if self.stock_speed else None


def remarks(rows: Sequence[Row]) -> list[str]:
    """What several rows say together."""
    named = {row.name: row for row in rows}
    long, short = (named.get(f"rendering {duration}, guitar.gin") for duration in ("60 min", "6 min"))
    if not (long and short):
        return []
    time, more = long.ours / (10.0 * short.ours), long.memory - short.memory
    return [f"Sixty minutes take {time:.2f} times as long as ten times six minutes, and {more:.0f} MB more."]


def length(seconds: float) -> str:
    """As the table names it."""
    return f"{seconds:g} s" if seconds < 60.0 else f"{seconds / 60.0:g} min"
