"""Counts: Poisson and negative binomial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.data.support import Support, counts
from lambent.distributions import NegativeBinomial, Poisson, bounded_log_scale, unbounded_log_scale
from lambent.likelihoods.base import LikelihoodSettings
from lambent.likelihoods.scale import params_per_element, shared_scale_shape
from lambent.settings import option, part
from lambent.shapes import Shapes

RATE_BOUND = 15.0
"""Log rates lie smoothly within -15..15."""


def log_mean_bias(x: Tensor) -> Tensor:
    """The decoder's bias at which rates are the data's means, (1, *event)."""
    log_mean = (x.double().mean(0) + 1e-2).log().clamp(-RATE_BOUND + 1, RATE_BOUND - 1)
    return unbounded_log_scale(log_mean, -RATE_BOUND, RATE_BOUND).unsqueeze(0).float()


def bounded_log_rate(raw: Tensor) -> Tensor:
    """A decoder's output as a bounded log rate."""
    return bounded_log_scale(raw, -RATE_BOUND, RATE_BOUND)


@part("likelihood", "poisson")
@dataclass(frozen=True)
class PoissonLikelihood(LikelihoodSettings):
    """Counts of rate exp(decoder), the log rate bounded smoothly to -15..15."""

    discrete: ClassVar[bool] = True

    def support(self, shapes: Shapes) -> Support:
        """The counts 0, 1, 2, and so on."""
        return counts()

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Poisson:
        """Poisson counts with one log rate per element."""
        dims = len(shapes.event)
        return Poisson(bounded_log_rate(parameters.squeeze(-1 - dims)), dims)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``log(1 + x)``, of about unit size for small counts."""
        return x.float().log1p()

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """The bias at which the rates are the means of the data."""
        return log_mean_bias(x)


@part("likelihood", "negative-binomial")
@dataclass(frozen=True)
class NegativeBinomialLikelihood(LikelihoodSettings):
    """Counts of mean m and variance m + m^2 / r; m from the decoder, r learned."""

    discrete: ClassVar[bool] = True
    dispersion: str = option(
        "dimension",
        "the dispersion r: one per model, per dimension, or per element of each example",
        choices=("model", "dimension", "element"),
    )

    def support(self, shapes: Shapes) -> Support:
        """The counts 0, 1, 2, and so on."""
        return counts()

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """One log mean per element, and a log r where it is per element."""
        return (params_per_element(self.dispersion), *shapes.event)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...] | None:
        """Log r per model or per dimension."""
        return shared_scale_shape(self.dispersion, shapes.event)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> NegativeBinomial:
        """Log r is bounded smoothly to -7..15: from heavy tails to nearly Poisson."""
        dims = len(shapes.event)
        raw = parameters.select(-1 - dims, 1) if self.dispersion == "element" else shared_parameters
        assert raw is not None
        log_mean = bounded_log_rate(parameters.select(-1 - dims, 0))
        return NegativeBinomial(log_mean, bounded_log_scale(raw, -7.0, 15.0), dims)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``log(1 + x)``, of about unit size for small counts."""
        return x.float().log1p()

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Log means; r starts at 1."""
        log_mean = log_mean_bias(x)
        return torch.cat([log_mean, torch.zeros_like(log_mean)]) if self.dispersion == "element" else log_mean
