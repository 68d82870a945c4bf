"""Log densities of each latent dimension by itself: what the product of the marginals of q(z) is made of.

A table by family, since only the family knows: where the dimensions are independent, these are the terms of the log
density before its sum; a Normal of full covariance has Normal marginals too, though they don't add up to the joint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent

from lambent.distributions.counts import Poisson
from lambent.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from lambent.distributions.normal import CholeskyNormal, LowRankNormal, Normal, StandardNormal
from lambent.distributions.numerics import HALF_LOG_TWO_PI

Formula = Callable[[Any, Tensor], Tensor]

_MARGINALS: dict[type[Distribution], Formula] = {}


def register_marginals(family: type[Distribution]) -> Callable[[Formula], Formula]:
    """Enters a formula (distribution, value) -> log marginal of each dimension into the table."""

    def enter(formula: Formula) -> Formula:
        _MARGINALS[family] = formula
        return formula

    return enter


def log_marginals(distribution: Distribution, value: Tensor) -> Tensor | None:
    """Log density of each of the P dimensions of ``value`` by itself, (*lead, *batch, P), in nats.

    A group of one-hot entries is one dimension. None where the table has no formula for the family.

    >>> log_marginals(Normal(torch.zeros(3, 2), torch.tensor(0.0)), torch.zeros(2))[0]
    tensor([-0.9189, -0.9189])
    """
    formula = _MARGINALS.get(type(distribution))
    if formula is None:
        return None
    terms = formula(distribution, value)
    return terms.flatten(terms.dim() - len(distribution.event_shape)) if distribution.event_shape else terms[..., None]


def _normal_terms(value: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    return -0.5 * ((value - loc) * torch.exp(-log_scale)).square() - log_scale - HALF_LOG_TWO_PI


@register_marginals(Normal)
@register_marginals(StandardNormal)
def _normal(q: Normal | StandardNormal, value: Tensor) -> Tensor:
    return _normal_terms(value, q.loc, q.log_scale)


@register_marginals(CholeskyNormal)
@register_marginals(LowRankNormal)
def _correlated_normal(q: CholeskyNormal | LowRankNormal, value: Tensor) -> Tensor:
    return _normal_terms(value, q.loc, 0.5 * q.variance.log())


@register_marginals(Bernoulli)
def _bernoulli(q: Bernoulli, value: Tensor) -> Tensor:
    return F.logsigmoid(q.logits) - (1 - value) * q.logits


@register_marginals(OneHotCategorical)
def _one_hot(q: OneHotCategorical, value: Tensor) -> Tensor:
    terms = torch.where(value == 0, torch.zeros_like(q.log_probs), value * q.log_probs)  # 0 log 0 = 0
    return q.grouped(terms).sum(-1)


@register_marginals(Categorical)
def _levels(q: Categorical, value: Tensor) -> Tensor:
    return Categorical(q.logits, 0).log_prob(value)


@register_marginals(Poisson)
def _poisson(q: Poisson, value: Tensor) -> Tensor:
    return Poisson(q.log_rate, 0).log_prob(value)


@register_marginals(Independent)
def _independent(q: Any, value: Tensor) -> Tensor:
    """Of torch's own families: the base's terms before the sum (one dimension where the base is itself joint)."""
    base = q.base_dist
    terms = base.log_prob(value)
    return terms.reshape(*terms.shape, *([1] * len(base.event_shape)))
