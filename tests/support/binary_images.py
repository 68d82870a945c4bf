"""All images of nine binary pixels, and whether draws of them follow given probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def images(shape: tuple[int, ...] = (1, 3, 3)) -> Tensor:
    """All 512 binary images, (512, *shape), in float64; pixel d is bit d of the image's number."""
    bits = (torch.arange(512).unsqueeze(1) >> torch.arange(9)) & 1
    return bits.double().view(-1, *shape)


def chi_square(draws: Tensor, log_p: Tensor) -> float:
    """z-score of the draws' counts against log p of all images; images expected under 8 times are pooled."""
    expected = len(draws) * log_p.exp()
    codes = (draws.flatten(1).long() << torch.arange(9)).sum(1)
    counts = torch.bincount(codes, minlength=512).double()
    rare = expected < 8
    expected, counts = (torch.cat([v[~rare], v[rare].sum().unsqueeze(0)]) for v in (expected, counts))
    degrees = len(expected) - 1
    assert degrees > 30, "too few images are likely for the statistic to be about Normal"
    statistic = ((counts - expected).square() / expected.clamp_min(1e-9)).sum()
    return ((statistic - degrees) / math.sqrt(2 * degrees)).item()
