"""The modified Bessel functions of the von Mises-Fisher distribution, to the last digits of float64 at any argument.

With v = d/2 - 1, L(k) = log E[exp(k w)] for the cosine w of a uniform point of the sphere S^(d-1) with a fixed
direction, and A = L':

    L(k) = log(Gamma(v + 1) (2/k)^v I_v(k)),    A(k) = I_{v+1}(k) / I_v(k) = E[w] at concentration k.

Both come from the uniform expansion of I at an order where it is exact (DLMF 10.41.3), and go down from there by the
recurrence (DLMF 10.29.1), in which every term is positive.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

_TERMS = 14
_ORDER = 16.0
"""Order from which on the expansion's error is at most 1e-14."""


def _derived(p: Sequence[Fraction]) -> list[Fraction]:
    return [j * c for j, c in enumerate(p)][1:]


def _next_term(u: Sequence[Fraction]) -> list[Fraction]:
    """u_{k+1}(p) = p^2 (1 - p^2) u_k'(p) / 2 + (1/8) int_0^p (1 - 5 t^2) u_k(t) dt (DLMF 10.41.9)."""
    result = [Fraction(0)] * (len(u) + 3)
    for j, c in enumerate(_derived(u)):
        result[j + 2] += c / 2
        result[j + 4] -= c / 2
    for j, c in enumerate(u):
        result[j + 1] += c / (8 * (j + 1))
        result[j + 3] -= 5 * c / (8 * (j + 3))
    return result


def _expansion() -> list[list[Fraction]]:
    terms = [[Fraction(1)]]
    while len(terms) < _TERMS:
        terms.append(_next_term(terms[-1]))
    return terms


_U = [[float(c) for c in u] for u in _expansion()]


def _at_order(order: float) -> list[float]:
    """Coefficients in p of sum_k u_k(p) / order^k."""
    total = [0.0] * len(_U[-1])
    for k, u in enumerate(_U):
        for j, c in enumerate(u):
            total[j] += c / order**k
    return total


def _polynomial(coefficients: Sequence[float], p: Tensor) -> Tensor:
    result = torch.full_like(p, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * p + c
    return result


def _expanded(kappa: Tensor, order: float) -> tuple[Tensor, Tensor]:
    """L and A/k at a large order v; as L(0) = 0, terms are differences from k = 0, which keep their digits there."""
    coefficients = _at_order(order)
    quotient = list(itertools.accumulate(reversed(coefficients[1:])))[::-1]  # (T(p) - T(1)) / (p - 1)
    square = kappa.square()
    s = torch.hypot(kappa, torch.full_like(kappa, order))
    p, less = order / s, square / (s * (s + order))  # less = 1 - p
    series = torch.log1p(-less * _polynomial(quotient, p) / sum(coefficients))
    main = square / (s + order) - order * torch.log1p(square / (2 * order * (s + order)))
    slopes = [j * c for j, c in enumerate(coefficients)][1:]
    slope = _polynomial(slopes, p) / _polynomial(coefficients, p)
    ratio = 1 / (order + s) - 0.5 / s.square() - order * slope / s.pow(3)
    return main - 0.25 * torch.log1p(square / order**2) + series, ratio


def _bessel(kappa: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """L and A/k, of ``kappa``'s shape, float64."""
    order = d / 2 - 1
    above = max(0, math.ceil(_ORDER - order))
    log_mean, ratio = _expanded(kappa, order + above)
    quarter = kappa.square() / 4
    share = ratio * 2 * (order + above + 1)  # of 1, which it is at k = 0
    for v in (order + i for i in reversed(range(above))):
        term = quarter * share / ((v + 1) * (v + 2))
        log_mean, share = log_mean + torch.log1p(term), 1 / (1 + term)
    return log_mean, share / d


class _LogMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, kappa: Tensor, d: int) -> Tensor:
        ctx.save_for_backward(kappa)
        ctx.d = d  # type: ignore[attr-defined]
        return _bessel(kappa, d)[0]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (kappa,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grads[0] * mean_cosine(kappa, ctx.d), None  # type: ignore[attr-defined]


class _MeanCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, kappa: Tensor, d: int) -> Tensor:
        ctx.save_for_backward(kappa)
        ctx.d = d  # type: ignore[attr-defined]
        return kappa * _bessel(kappa, d)[1]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (kappa,) = ctx.saved_tensors  # type: ignore[attr-defined]
        d: int = ctx.d  # type: ignore[attr-defined]
        cosine = mean_cosine(kappa, d)
        share = torch.where(kappa > 0, cosine / kappa.clamp_min(1e-300), torch.full_like(kappa, 1 / d))
        return grads[0] * (1 - cosine.square() - (d - 1) * share), None


def log_mean_exp(kappa: Tensor, d: int) -> Tensor:
    """L(k) in nats for float64 concentrations ``kappa`` at least 0, in d dimensions; twice differentiable.

    >>> log_mean_exp(torch.tensor(2.0).double(), 3)  # log(sinh(2) / 2)
    tensor(0.5952, dtype=torch.float64)
    """
    return _LogMean.apply(kappa, d)


def mean_cosine(kappa: Tensor, d: int) -> Tensor:
    """A(k), between 0 and 1, its slope 1 - A^2 - (d - 1) A/k.

    >>> mean_cosine(torch.tensor(2.0).double(), 3)  # coth(2) - 1/2
    tensor(0.5373, dtype=torch.float64)
    """
    return _MeanCosine.apply(kappa, d)
