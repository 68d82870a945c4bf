"""Active units: latent dimensions that the posterior's mean uses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lambent.distributions import sample
from lambent.distributions.codes import Code
from lambent.trace import Latent, Trace

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


def level_sizes(trace: Trace) -> dict[str, int]:
    """How many latents each level has that has values, in the order of `posterior_means`.

    >>> from lambent.distributions import Normal, StandardNormal
    >>> q = Normal(torch.zeros(2, 3), torch.zeros(()))
    >>> z = Latent("z1", torch.zeros(1, 2, 3), StandardNormal((3,)), q)
    >>> level_sizes(Trace(q, (z,)))
    {'z1': 3}
    """
    levels = [z for z in trace.latents if z.value is not None]
    return {z.name: _mean(z)[:1].numel() for z in levels}


def active_by_level(means: Tensor, sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Active units of each level and how many latents it has, of means (N, latents) side by side.

    >>> active_by_level(torch.tensor([[0.0, 1.0, 0.0], [1.0, -1.0, 0.0]]), {"z1": 2, "z2": 1})
    {'z1': (2, 2), 'z2': (0, 1)}
    """
    parts = means.flatten(1).split(list(sizes.values()), 1)
    return {name: (active_units(part), part.shape[1]) for name, part in zip(sizes, parts, strict=True)}


def posterior_means(trace: Trace) -> Tensor:
    """E_q[z] of all levels that have values side by side, (B, latents), on the CPU."""
    means = [_mean(z).flatten(1).cpu() for z in trace.latents if z.value is not None]
    return torch.cat(means, 1) if means else torch.zeros(trace.px.batch_shape[1], 0)


def _mean(latent: Latent) -> Tensor:
    """E_q[z], (B, *latent); the mean of 100 draws for a family without one in closed form.

    Of codes their indices: they have no size, but a place whose index varies is in use.
    """
    assert latent.q is not None
    assert latent.value is not None
    if isinstance(latent.q, Code):
        return latent.q.indices.view(latent.value.shape[1], -1).float()
    try:
        mean: Tensor = latent.q.mean
    except NotImplementedError:
        noise = torch.Generator(latent.value.device).manual_seed(0)
        mean = sample(latent.q, (100,), noise).mean(0)
    return mean if len(latent.q.batch_shape) == 1 else mean[0]
