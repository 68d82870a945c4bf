"""Checks by simulation: how far a mean is from the truth, and whether a check fails."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor


def z_score(values: Tensor, truth: Tensor | float) -> float:
    """The mean's distance from the truth in standard errors, with its sign."""
    return ((values.mean() - truth) / (values.std() / math.sqrt(len(values)))).item()


def fails(check: Callable[[], object]) -> bool:
    """Whether a check catches what was planted: a false assertion, or an error on the way to it."""
    try:
        check()
    except (AssertionError, RuntimeError):
        return True
    return False
