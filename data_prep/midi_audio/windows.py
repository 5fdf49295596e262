"""Where the examples of a data set lie in its takes: stretches for each split, and windows in a stretch.

All times are sample indices, so that nothing is rounded twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from neural_midi_synth.errors import DataError

# Stretches held out are at least this many windows long where there is enough material, and otherwise this share of
# all of it: a few per cent of held-out time are then several stretches from all over the takes.
_BLOCK_WINDOWS = 2
_MAX_BLOCKS = 120
_GOLDEN_RATIO = 0.6180339887498949


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of a take that belongs to one split.

    Attributes:
        take: Index of the take.
        start: First sample.
        end: One past the last sample.
    """

    take: int
    start: int
    end: int


def playing_regions(notes: np.ndarray, n_samples: int, sample_rate: int, tail: float, max_silence: float) -> np.ndarray:
    """Finds where a take is played; what lies between is a long silence.

    Args:
        notes: `[n, 4]` float64: start (s), end (s), pitch, velocity; sorted by start.
        n_samples: Length of the take.
        sample_rate: Hz.
        tail: Seconds after the end of a note that still belong to it.
        max_silence: Seconds. A silence no longer than this is part of the playing.

    Returns:
        `[r, 2]` int64: first sample of each region and one past its last; sorted, apart, inside the take.
    """
    regions: list[list[int]] = []
    for start, end in notes[:, :2]:
        first = max(int(start * sample_rate), 0)
        last = min(round((end + tail) * sample_rate), n_samples)
        if first >= last:
            continue
        if regions and first - regions[-1][1] <= max_silence * sample_rate:
            regions[-1][1] = max(regions[-1][1], last)
        else:
            regions.append([first, last])
    return np.array(regions, np.int64).reshape([-1, 2])


def window_starts(regions: np.ndarray, start: int, end: int, window: int, hop: int) -> list[int]:
    """Places windows over the playing in a stretch.

    A window lies inside the stretch; only in a stretch shorter than a window it reaches past the end, where nothing is
    known of the sound. Each holds playing for half its length at least, or all of a region that is shorter. With a hop
    shorter than the window the last window of a region is moved back so that it ends with the region; otherwise windows
    never overlap.

    Args:
        regions: `[r, 2]` from `playing_regions`.
        start: First sample of the stretch.
        end: One past its last.
        window: Samples in a window.
        hop: Samples from one window to the next.

    Returns:
        First samples of the windows, rising.
    """
    latest = max(end - window, start)
    starts: list[int] = []
    for region_start, region_end in regions.tolist():
        region_start, region_end = max(region_start, start), min(region_end, end)
        if region_start >= region_end:
            continue
        first = min(region_start, latest)
        if hop < window:
            last = max(min(region_end - window, latest), first)
            candidates = [*range(first, last, hop), last]
        else:
            first = max(first, starts[-1] + hop) if starts else first
            candidates = list(range(first, min(latest + 1, region_end), hop))
        needed = min(window // 2, region_end - region_start)
        for candidate in candidates:
            held = min(candidate + window, region_end) - max(candidate, region_start)
            if held >= needed and (not starts or candidate > starts[-1]):
                starts.append(candidate)
    return starts


def split_stretches(
    lengths: Sequence[int], regions: Sequence[np.ndarray], window: int, fractions: Mapping[str, float]
) -> dict[str, list[Stretch]]:
    """Cuts takes into stretches and deals them out to the splits.

    Takes are cut into blocks of equal length, at least two windows long (one window where that is too much). The
    blocks held out are spread evenly over those that have playing in them, at varying places of the takes; the other
    ones are joined where they touch, and are for training. A take shorter than a window is never held out.

    Args:
        lengths: Samples in each take.
        regions: `playing_regions` of each take.
        window: Samples in a window.
        fractions: Share of the blocks, 0..1, of each split but `train`.

    Returns:
        The stretches of each split, `train` first. Every split with a share above 0 has one at least.

    Raises:
        DataError: There is too little playing to give each split some.
    """
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    for block in (max(_BLOCK_WINDOWS * window, sum(lengths) // _MAX_BLOCKS), window):
        blocks = [stretch for take, length in enumerate(lengths) for stretch in _cut(take, length, block)]
        played = [i for i, each in enumerate(blocks) if playing(each, regions[each.take]) > 0]
        whole = [i for i in played if blocks[i].end - blocks[i].start >= window]
        ample = [i for i in whole if playing(blocks[i], regions[blocks[i].take]) >= window // 2]
        candidates = ample if len(ample) > len(wanted) else whole
        if len(candidates) > len(wanted) or (played and not wanted):
            break
    else:
        raise DataError(
            f"too little playing: it fills {len(candidates)} windows, and {' and '.join(['train', *wanted])} need "
            f"{len(wanted) + 1}. Record more or longer takes, make the windows shorter, or hold nothing out."
        )

    counts = {split: max(1, round(fraction * len(candidates))) for split, fraction in wanted.items()}
    held_out = _spread(len(candidates), counts) if counts else {}
    owner = {candidates[i]: split for i, split in held_out.items()}
    stretches: dict[str, list[Stretch]] = {split: [] for split in ("train", *wanted)}
    for i, each in enumerate(blocks):
        mine = stretches[owner.get(i, "train")]
        if mine and owner.get(i, "train") == "train" and (mine[-1].take, mine[-1].end) == (each.take, each.start):
            each = dataclasses.replace(mine.pop(), end=each.end)
        mine.append(each)
    return stretches


def _cut(take: int, length: int, block: int) -> list[Stretch]:
    n_blocks = max(length // block, 1)
    edges = [length * i // n_blocks for i in range(n_blocks + 1)]
    return [Stretch(take, start, end) for start, end in zip(edges[:-1], edges[1:], strict=True)]


def playing(stretch: Stretch, regions: np.ndarray) -> int:
    """Returns the samples of a stretch that are in a region."""
    overlap = np.minimum(regions[:, 1], stretch.end) - np.maximum(regions[:, 0], stretch.start)
    return int(np.maximum(overlap, 0).sum())


def _spread(n: int, counts: Mapping[str, int]) -> dict[int, str]:
    """Deals places out evenly, but not periodically, so that they don't fall on the same place of every take.

    Args:
        n: Number of places.
        counts: Names and how many places each gets. Where they are too many for one place to remain, they get fewer,
            but one each.

    Returns:
        Which place has which name.
    """
    while sum(counts.values()) >= n and max(counts.values()) > 1:
        counts = {name: max(1, count - 1) for name, count in counts.items()}
    names = [
        name for _, name in sorted(((i + 0.5) / count, name) for name, count in counts.items() for i in range(count))
    ]
    places = {}
    for i, name in enumerate(names):
        start, end = n * i // len(names), n * (i + 1) // len(names)
        places[start + int((end - start) * ((i + 1) * _GOLDEN_RATIO % 1.0))] = name
    return places
