"""KL divergences in closed form, in nats: a table that torch.compile can trace.

Each is written so that nothing cancels: as a sum of terms that are never negative, and 0 where q = p.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.ar1 import AR1
from lambent.distributions.bessel import log_mean_exp, mean_cosine
from lambent.distributions.counts import Poisson
from lambent.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from lambent.distributions.normal import CholeskyNormal, LowRankNormal, Normal, StandardNormal
from lambent.distributions.numerics import event_sum, expm1_less, normal_excess, widened
from lambent.distributions.sphere import SphereUniform, VonMisesFisher

Formula = Callable[[Any, Any], Tensor]
Pair = tuple[type[Distribution], type[Distribution]]

_SUMMED: dict[Pair, Formula] = {}
_ELEMENTS: dict[Pair, Formula] = {}


def register_kl(q: type[Distribution], p: type[Distribution]) -> Callable[[Formula], Formula]:
    """Enters a formula (q, p) -> KL of the joint batch shape into the table."""
    return _enter(_SUMMED, (q, p))


def register_kl_elements(q: type[Distribution], p: type[Distribution]) -> Callable[[Formula], Formula]:
    """Enters a formula (q, p) -> KL of every element of the event, of shape batch + event."""
    return _enter(_ELEMENTS, (q, p))


def _enter(table: dict[Pair, Formula], pair: Pair) -> Callable[[Formula], Formula]:
    def enter(formula: Formula) -> Formula:
        table[pair] = formula
        return formula

    return enter


def closed_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q||p) in nats, of the joint batch shape; None if the table has no formula for the pair.

    >>> closed_kl(Normal(torch.ones(3, 2), torch.zeros(2)), StandardNormal((2,)))
    tensor([1., 1., 1.])
    """
    formula = _SUMMED.get((type(q), type(p)))
    if formula is not None:
        return formula(q, p)
    elements = closed_kl_elements(q, p)
    return None if elements is None else event_sum(elements, q.event_shape)


def closed_kl_elements(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q||p) of each element before the event sum, batch + event; None unless both factorise and a formula exists.

    >>> closed_kl_elements(Normal(torch.ones(2), torch.zeros(2)), StandardNormal((2,)))
    tensor([0.5000, 0.5000])
    """
    formula = _ELEMENTS.get((type(q), type(p)))
    if formula is None:
        return None
    elements = formula(q, p)
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape) + q.event_shape
    return elements if elements.shape == shape else elements.expand(shape)


def _shift(q: Any, p: Any) -> Tensor:
    """The difference of the means in units of p's scale, (m_q - m_p)/s_p."""
    return q.loc if type(p) is StandardNormal else (q.loc - p.loc) * torch.exp(-p.log_scale)


def _log_ratio(log_scale: Tensor, p: Any) -> Tensor:
    """The log ratio of the scales, log(s_q/s_p)."""
    return log_scale if type(p) is StandardNormal else log_scale - p.log_scale


def _normal_elements(q: Any, p: Any) -> Tensor:
    """1/2 ((m_q - m_p)/s_p)^2 + 1/2 (v - 1 - log v), v = (s_q/s_p)^2."""
    return normal_excess(*torch.broadcast_tensors(_shift(q, p), _log_ratio(q.log_scale, p)))


def _normal(q: Any, p: Any) -> Tensor:
    shift, log_ratio = _shift(q, p), _log_ratio(q.log_scale, p)
    if shift.shape == log_ratio.shape:
        return _joint(event_sum(normal_excess(shift, log_ratio), q.event_shape), q, p)
    shifts, scales = event_sum(shift.square(), q.event_shape), event_sum(expm1_less(2 * log_ratio), q.event_shape)
    return _joint(0.5 * (shifts + scales), q, p)


def _cholesky_normal(q: CholeskyNormal, p: Any) -> Tensor:
    """With A = L/s_p: 1/2 sum_i (A_ii^2 - 1 - log A_ii^2) + 1/2 sum_{i>j} A_ij^2 + 1/2 |(m_q - m_p)/s_p|^2."""
    below = q.tril.tril(-1) * torch.exp(-p.log_scale).unsqueeze(-1)
    diagonal = expm1_less(2 * _log_ratio(q.log_diagonal, p)).sum(-1)
    shift = event_sum(_shift(q, p).square(), q.event_shape)
    return _joint(0.5 * (diagonal + below.square().sum((-2, -1)) + shift), q, p)


def _low_rank_normal(q: LowRankNormal, p: Any) -> Tensor:
    """As for diagonal Normals, + 1/2 (|F/s_p|^2 - log det(I + F^T S^-2 F)); in float64, since these two may cancel."""
    factor = widened(q.factor) * torch.exp(-widened(p.log_scale)).unsqueeze(-1)
    diagonal = event_sum(expm1_less(2 * widened(_log_ratio(q.log_scale, p))), q.event_shape)
    shift = event_sum(widened(_shift(q, p).square()), q.event_shape)
    total = 0.5 * (diagonal + shift + factor.square().sum((-2, -1))) - q.capacitance()[2]
    return _joint(total.to(q.loc.dtype), q, p)


def _joint(total: Tensor, q: Distribution, p: Distribution) -> Tensor:
    """The joint batch shape, where a parameter didn't have it."""
    shape = q.batch_shape if not p.batch_shape else torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return total if total.shape == shape else total.expand(shape)


for _p in (Normal, StandardNormal):
    register_kl(CholeskyNormal, _p)(_cholesky_normal)
    register_kl(LowRankNormal, _p)(_low_rank_normal)
    for _q in (Normal, StandardNormal):
        register_kl(_q, _p)(_normal)
        register_kl_elements(_q, _p)(_normal_elements)


def _mass_terms(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Terms q expm1_less(log p - log q), which sum to KL(q||p) over a normalised support, each at least 0."""
    q, p = log_q.exp(), log_p.exp()
    possible = q > 0
    ratio = torch.where(possible, log_p - torch.where(possible, log_q, torch.zeros_like(log_q)), torch.zeros_like(p))
    near = q * expm1_less(ratio.clamp_max(1.0))
    # exp(ratio) may overflow where q is tiny; there q exp(ratio) is p
    far = p - q - q * ratio
    return torch.where(possible, torch.where(ratio > 1, far, near), p)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(q: OneHotCategorical, p: OneHotCategorical) -> Tensor:
    return _mass_terms(q.log_probs, p.log_probs).sum(-1)


@register_kl_elements(Categorical, Categorical)
def _levels(q: Categorical, p: Categorical) -> Tensor:
    return _mass_terms(q.logits.log_softmax(-1), p.logits.log_softmax(-1)).sum(-1)


@register_kl_elements(Bernoulli, Bernoulli)
def _bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    heads = _mass_terms(F.logsigmoid(q.logits), F.logsigmoid(p.logits))
    return heads + _mass_terms(F.logsigmoid(-q.logits), F.logsigmoid(-p.logits))


@register_kl_elements(Poisson, Poisson)
def _poisson(q: Poisson, p: Poisson) -> Tensor:
    """m_q (e^t - 1 - t), t = log(m_p/m_q)."""
    return q.mean * expm1_less(p.log_rate - q.log_rate)


@register_kl(Normal, AR1)
def _normal_ar1(q: Normal, p: AR1) -> Tensor:
    """The least rate of a diagonal q + m^T S^-1 m / 2 + 1/2 sum_i (u_i - 1 - log u_i), u_i = s_i^2 (S^-1)_ii."""
    log_u = 2 * q.log_scale + p.precision.log()
    excess = event_sum(expm1_less(log_u), q.event_shape) + p.quadratic(q.mean)
    return _joint(p.least_rate() + 0.5 * excess, q, p)


@register_kl(VonMisesFisher, SphereUniform)
def _directions(q: VonMisesFisher, p: SphereUniform) -> Tensor:
    """K A(k) - log E[exp(k w)], w the cosine of a uniform point; the direction doesn't matter."""
    kappa = widened(q.concentration)
    total = kappa * mean_cosine(kappa, q.d) - log_mean_exp(kappa, q.d)
    return _joint(total.to(q.loc.dtype), q, p)
