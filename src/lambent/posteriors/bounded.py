"""A Normal posterior whose rate cannot fall under a set value: the posterior of the delta-VAE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambent.distributions import AR1, Normal
from lambent.distributions.numerics import full_precision
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.ar1 import AR1Prior, SequenceSettings
from lambent.settings import Conflict, option, part

_DEPTH, _START = 7.0, 2.0


@part("posterior", "bounded-normal")
@dataclass(frozen=True)
class BoundedNormalPosterior(SequenceSettings, PosteriorSettings):
    """N(m(x), diag s(x)^2) with every s_i under a bound b_i, so that KL(q||prior=ar1) >= ``rate`` whatever the head.

    KL(q||AR(1)) is a least rate (`AR1.least_rate`) + m^T S^-1 m / 2 + 1/2 sum_i (u_i - 1 - log u_i), u_i = s_i^2 P_i,
    with S the prior's covariance and P the diagonal of S^-1. The bounds are the s_i at which each of the n dimensions
    costs (``rate`` - least rate) / n: with m = 0 and s = b, which the head can reach, the rate is exactly
    ``rate``. Where the prior's least rate is larger already, s_i is bounded by the best, P_i^-1/2, and the committed
    rate is that. Razavi et al. 2019 (ICLR) bound single Normals from both sides; a wider s serves nothing here.
    """

    rate: float = option(1.0, "committed rate delta, nats: the KL never falls below it", minimum=0)

    def conflicts(self, parts: Any) -> Conflict | None:
        """Its rate is committed against the AR(1) process that is the prior."""
        prior = parts.prior
        if not isinstance(prior, AR1Prior):
            why = "its rate is committed against an AR(1) process; use prior=ar1"
            return Conflict(("prior", "posterior"), why)
        if (prior.sequence_length, prior.alpha) == (self.sequence_length, self.alpha):
            return None
        found = (
            f"sequence_length {prior.sequence_length} against {self.sequence_length}, "
            f"alpha {prior.alpha} against {self.alpha}"
        )
        return Conflict(("prior", "posterior"), f"{found}; use the same for both")

    def width(self, latent: int) -> int:
        """Means and log scales."""
        return 2 * latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Normal:
        """The Normal; its log scales are bounded smoothly."""
        loc, raw = head.chunk(2, -1)
        return Normal(loc, below(raw, self.log_bounds(self.process(latent))))

    def committed_rate(self, latent: int) -> float:
        """The committed rate: ``rate``, or the prior's least rate where that is larger, in nats."""
        return max(self.rate, self.process(latent).least_rate().item())

    def log_bounds(self, prior: AR1) -> Tensor:
        """Log b, (n,) float64."""
        free = max(0.0, self.rate - prior.least_rate().item())
        log_u = log_shrinkage(2 * free / prior.event_shape.numel())
        return 0.5 * (log_u - prior.precision.log())


def below(raw: Tensor, log_bound: Tensor) -> Tensor:
    """Log scales from 7 under ``log_bound`` up to it, which a large number reaches; in full precision.

    >>> below(torch.tensor([0.0, 200.0]), torch.tensor(-0.5))
    tensor([-1.3344, -0.5000])
    """
    raw = full_precision(raw)
    return log_bound.to(raw) - _DEPTH * torch.sigmoid(-raw - _START)


def log_shrinkage(cost: float) -> float:
    """The v, at most 0, with exp(v) - 1 - v = ``cost``: by Newton's iteration, which from below never oversteps.

    >>> round(log_shrinkage(math.exp(-2) + 1), 12)
    -2.0
    """
    v, last = -cost - 1, -math.inf
    while cost and v > last:
        v, last = v - (math.expm1(v) - v - cost) / math.expm1(v), v
    return v if cost else 0.0
