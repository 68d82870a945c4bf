"""Positions in 0..1 for the timesteps of a diffusion: evenly spaced, or one in each of equal parts."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.distributions.numerics import widened

_BELOW_ONE = 1 - 1e-9


def spread(samples: int, batch: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Positions (K, B) in 0..1, each uniform, all together evenly spaced (VDM: Kingma et al. 2021, appendix I.1).

    Sample k of example b is at (r + (b/B + k)/K) mod 1, so that the K of an example are evenly spaced too.

    >>> spread(2, 2, None, torch.device("cpu")).flatten().sort().values.diff()
    tensor([0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    k, b = (_counted(n, device) for n in (samples, batch))
    return (_uniform(1, generator, device) + (b / max(1, batch) + k.unsqueeze(1)) / samples) % 1.0


def stratified(
    samples: int, batch: int, start: int, total: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Positions (K, B) in 0..1 of samples ``start`` to ``start + K - 1`` of ``total``: number n lies in its n-th part.

    With ``total`` a multiple of T, each of T equal parts of 0..1 gets ``total``/T positions of every example.
    """
    offset = _uniform(samples, generator, device).unsqueeze(1) + _counted(batch, device) / max(1, batch)
    return (start + _counted(samples, device).unsqueeze(1) + (offset % 1.0).clamp_max(_BELOW_ONE)) / total


def _counted(n: int, device: torch.device) -> Tensor:
    return widened(torch.arange(n, device=device))


def _uniform(n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.rand(n, generator=generator, device=device, dtype=widened(torch.zeros((), device=device)).dtype)
