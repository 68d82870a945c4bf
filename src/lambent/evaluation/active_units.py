"""Active units: latent dimensions that the posterior's mean uses; in a ladder, those that cost a rate.

A ladder's p moves with the levels above, and q with it: there a mean that varies over the data may say nothing that
they haven't said. So the units of a ladder are counted by their rates (as Sonderby et al. 2016 judge them), which are
at least what they add about x beyond the levels above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lambent.distributions import sample
from lambent.distributions.codes import CodeAssignment
from lambent.draws import Detached
from lambent.models import LatentModel
from lambent.trace import Latent, Trace

THRESHOLD = 0.01
"""Variance over the data above which a dimension counts as active (Burda et al. 2016, section 5.2)."""
LEAST_RATE = 0.01
"""Mean rate, nats, above which a dimension of a ladder counts as active."""
COUNTED = {
    "mean": "whose posterior mean has a variance{over} above 0.01",
    "rate": "whose rate has a mean{over} above 0.01 nats",
    "rate or mean": "whose rate has a mean{over} above 0.01 nats, or, on levels that have no rate by dimension, whose "
    "posterior mean has a variance above 0.01",
}
"""Which latent dimensions are active, by what they are counted by, over which examples."""


def active_units(means: Tensor, threshold: float = THRESHOLD) -> int:
    """Number of latent dimensions whose posterior mean varies over the data: Var_x E_q[z_d] > threshold.

    Args:
        means: Posterior means of all examples, (N, *latent).
        threshold: The variance above which a dimension is active.

    >>> import torch
    >>> active_units(torch.tensor([[0.0, 1.0], [0.01, -1.0]]))
    1
    """
    return int(_varying(means, threshold).sum())


def _varying(means: Tensor, threshold: float) -> Tensor:
    """Whether each dimension's mean varies over the data, (latents,); of one example nothing does."""
    flat = means.double().flatten(1)
    return (
        flat.var(0) > threshold if len(flat) > 1 and flat.numel() else flat.new_zeros(flat.shape[1], dtype=torch.bool)
    )


def counted_by(sizes: Mapping[str, Any], rates: Mapping[str, Any]) -> str:
    """The key of `COUNTED` for levels of which those in ``rates`` are counted by them.

    >>> counted_by({"z": 2}, {}), counted_by({"z1": 2, "z2": 1}, {"z1": torch.zeros(2)})
    ('mean', 'rate or mean')
    """
    if not rates:
        return "mean"
    return "rate" if rates.keys() >= sizes.keys() else "rate or mean"


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


def active_by_level(
    means: Tensor, sizes: Mapping[str, int], rates: Mapping[str, Tensor] | None = None
) -> dict[str, tuple[int, int]]:
    """Active units of each level and how many latents it has, of means (N, latents) side by side.

    >>> active_by_level(torch.tensor([[0.0, 1.0, 0.0], [1.0, -1.0, 0.0]]), {"z1": 2, "z2": 1})
    {'z1': (2, 2), 'z2': (0, 1)}
    """
    return {name: (int(used.sum()), len(used)) for name, used in in_use(means, sizes, rates).items()}


def in_use(means: Tensor, sizes: Mapping[str, int], rates: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Which latents of each level are active, (latents,) each.

    Args:
        means: Posterior means of all examples, (N, latents), levels side by side.
        sizes: The latents of each level.
        rates: Of the levels that are counted by them, each latent's (`unit_rates`).

    >>> in_use(torch.tensor([[0.0, 1.0], [1.0, -1.0]]), {"z1": 2}, {"z1": torch.tensor([0.0, 3.0])})
    {'z1': tensor([False,  True])}
    """
    rates = rates or {}
    parts = means.flatten(1).split(list(sizes.values()), 1)
    return {
        name: rates[name] > LEAST_RATE if name in rates else _varying(part, THRESHOLD)
        for name, part in zip(sizes, parts, strict=True)
    }


def rated(trace: Trace) -> tuple[str, ...]:
    """The levels whose units are counted by their rates: all of a ladder that have one for each; none of other models.

    >>> from lambent.distributions import Normal, StandardNormal
    >>> q = Normal(torch.zeros(1, 2, 3), torch.zeros(()))
    >>> rated(Trace(q, (Latent("z1", q.loc, q, q), Latent("z2", q.loc, StandardNormal((3,)), q))))
    ('z1', 'z2')
    """
    known = [z for z in trace.latents if z.value is not None and z.normalised and z.rate_elements is not None]
    moving = any(z.p is not None and len(z.p.batch_shape) == 2 for z in known)
    return tuple(z.name for z in known) if moving else ()


@torch.inference_mode()
def unit_rates(
    model: LatentModel, parts: Iterable[tuple[Tensor, Tensor | None]], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Mean rate of each latent on the levels of `rated`, (latents,) nats, by one draw of q an example.

    Args:
        model: In evaluation mode.
        parts: All examples with their conditions, some at a time.
        generator: Of the draws.
    """
    sums: dict[str, Tensor] = {}
    examples = 0
    for x, condition in parts:
        trace = model(x, Detached(generator=generator), condition)
        names = rated(trace)
        if not names:
            return {}
        for z in trace.latents:
            if z.name in names:
                sums[z.name] = _rates(z, len(x)) + sums.get(z.name, 0.0)
        examples += len(x)
    return {name: total / examples for name, total in sums.items()}


def _rates(latent: Latent, examples: int) -> Tensor:
    """Each latent's rate summed over one draw an example, (latents,) float64, on the CPU."""
    assert latent.rate_elements is not None
    assert latent.q is not None
    elements = latent.rate_elements.double().expand(1, examples, *latent.q.event_shape)
    return elements.sum((0, 1)).flatten().cpu()


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
    if isinstance(latent.q, CodeAssignment):
        return latent.q.indices.view(latent.value.shape[1], -1).float()
    try:
        mean: Tensor = latent.q.mean
    except NotImplementedError:
        noise = torch.Generator(latent.value.device).manual_seed(0)
        mean = sample(latent.q, (100,), noise).mean(0)
    return mean if len(latent.q.batch_shape) == 1 else mean[0]
