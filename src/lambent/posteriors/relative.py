"""Normal posteriors of a ladder, parameterised relative to the prior of their level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions import Normal, bounded_log_scale
from lambent.distributions.numerics import full_precision
from lambent.posteriors.base import PosteriorSettings
from lambent.posteriors.normal import NormalPosterior
from lambent.settings import part

MOST_LOG_RATIO = 5.0
"""Bound of log(s_q / s_p) on either side."""


class RelativeNormalPosterior(PosteriorSettings):
    """q of a level that knows p there; at the top, where p is the model's prior, an ordinary diagonal Normal."""

    reserved: ClassVar[str] = "only a ladder knows the prior of a level in time; use posterior=normal"

    def width(self, latent: int) -> int:
        """A mean and a log scale each."""
        return 2 * latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Normal:
        """The posterior of the top level, a diagonal Normal."""
        return NormalPosterior().distribution(head, latent)

    def conditional(self) -> NormalPosterior:
        """The prior of a level: a diagonal Normal."""
        return NormalPosterior()


@part("posterior", "residual-normal")
@dataclass(frozen=True)
class ResidualNormalPosterior(RelativeNormalPosterior):
    """N(m_p + d, diag (s_p r)^2), r between e^-5 and e^5 (Vahdat & Kautz 2020, section 3.2).

    Its rate is 1/2 sum (d^2 / s_p^2 + r^2 - log r^2 - 1): where p moves, q moves with it.
    """

    def around(self, head: Tensor, prior: Distribution, latent: int) -> Normal:
        """The prior shifted by d and scaled by r; log r is bounded smoothly, with slope 1 at 0."""
        shift, raw = full_precision(head).chunk(2, -1)
        assert isinstance(prior, Normal)
        return Normal(prior.loc + shift, prior.log_scale + MOST_LOG_RATIO * torch.tanh(raw / MOST_LOG_RATIO))


@part("posterior", "merged-normal")
@dataclass(frozen=True)
class MergedNormalPosterior(RelativeNormalPosterior):
    """The normalised product of p and a Normal N(m, s^2) seen from x (Sonderby et al. 2016, eq. 17 to 19).

    Precisions add, 1/s_q^2 = 1/s^2 + 1/s_p^2, and the mean is the mean of m and m_p weighted by them.
    """

    def around(self, head: Tensor, prior: Distribution, latent: int) -> Normal:
        """The product; weights and precisions are formed from log scales, so that nothing overflows."""
        loc, raw = full_precision(head).chunk(2, -1)
        assert isinstance(prior, Normal)
        log_scale = bounded_log_scale(raw)
        trust = torch.sigmoid(2 * (prior.log_scale - log_scale))
        joint = -0.5 * torch.logaddexp(-2 * log_scale, -2 * prior.log_scale)
        return Normal(torch.lerp(prior.loc, loc, trust), joint)
