"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math

from lambent.training.options import TrainOptions


def learning_rate(options: TrainOptions, step: int, total: int) -> float:
    """The learning rate at ``step`` of ``total``.

    "staircase" falls in eight stages of equal ratio, stage i being 3 times as long as stage i - 1 (Burda et al. 2016).

    >>> learning_rate(TrainOptions(lr=1.0, lr_schedule="linear", final_lr_fraction=0.0), 50, 100)
    0.5
    """
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    return options.lr * warm * _factor(options.lr_schedule, options.final_lr_fraction, step / max(1, total))


def _factor(schedule: str, final: float, progress: float) -> float:
    if schedule == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return 1 - (1 - final) * progress
    if schedule == "staircase":
        return float(final ** (_stage(progress) / 7)) if final > 0 else 1.0
    return 1.0


def _stage(progress: float) -> int:
    ends = [(3 ** (i + 1) - 1) / (3**8 - 1) for i in range(8)]
    return min(7, sum(progress >= end for end in ends))
