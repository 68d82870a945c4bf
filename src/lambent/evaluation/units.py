"""Active units: latent dimensions that the posterior's mean uses."""

from __future__ import annotations

from torch import Tensor

THRESHOLD = 0.01
"""Variance over the data above which a dimension counts as active (Burda et al. 2016, section 5.2)."""


def active_units(means: Tensor, threshold: float = THRESHOLD) -> int:
    """Number of latent dimensions whose posterior mean varies over the data: Var_x E_q[z_d] > threshold.

    Args:
        means: Posterior means of all examples, (N, *latent).
        threshold: The variance above which a dimension is active.

    >>> import torch
    >>> active_units(torch.tensor([[0.0, 1.0], [0.01, -1.0]]))
    1
    """
    if len(means) < 2 or not means.numel():
        return 0
    return int((means.double().flatten(1).var(0) > threshold).sum())
