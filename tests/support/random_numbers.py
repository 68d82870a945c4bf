"""Generators and numbers that are the same at every run."""

from __future__ import annotations

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    """A generator of torch's, on the CPU."""
    return torch.Generator().manual_seed(seed)


def numbers(seed: int, *shape: int) -> Tensor:
    """N(0, 1) numbers in float64."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)
