"""Learning rate schedules: functions of step and progress, chosen by gin as `nms.train.schedule`."""

from __future__ import annotations

import math

import gin


@gin.configurable(module="nms")
def cosine_decay(step: int, progress: float, warmup_steps: int = 50, hold: float = 0.3, end: float = 0.01) -> float:
    """The default learning rate schedule: a short rise, a level stretch, and a fall that ends with the training.

    Args:
        step: Steps done.
        progress: Share of the training that is done, 0 to 1.
        warmup_steps: Steps of the rise.
        hold: Progress at which the fall begins.
        end: What is left at the end.

    Returns:
        Factor on the learning rate.
    """
    fall = max(0.0, progress - hold) / (1.0 - hold)
    return min(1.0, (step + 1) / warmup_steps) * (end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fall))))


@gin.configurable(module="nms")
def exponential_decay(step: int, progress: float, rate: float = 0.98, steps: int = 10_000) -> float:
    """The lineage's schedule: ×`rate` after every `steps` steps, whatever the progress.

    Args:
        step: Steps done.
        progress: Not used.
        rate: Factor from one level to the next.
        steps: Length of a level.

    Returns:
        Factor on the learning rate.
    """
    del progress
    return rate ** (step // steps)
