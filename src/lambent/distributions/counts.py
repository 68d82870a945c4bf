"""Counts 0, 1, 2, ...: Poisson and negative binomial."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import event_sum, full_precision, joint_shape, split_shape, widened


class Poisson(Distribution):
    """Independent Poisson counts: log p(x) = sum_d x_d log m_d - m_d - log x_d!, nats.

    Args:
        log_rate: log m, (*batch, *event).
        event_dims: Number of trailing dimensions that form the event.

    >>> Poisson(torch.zeros(1)).log_prob(torch.zeros(1))
    tensor(-1.)
    """

    def __init__(self, log_rate: Tensor, event_dims: int = 1) -> None:
        self.log_rate, self.event_dims = full_precision(log_rate), event_dims
        super().__init__(*split_shape(self.log_rate.shape, event_dims, "Poisson"))

    @property
    def mean(self) -> Tensor:
        """The rate m, (*batch, *event)."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, which is the rate m."""
        return self.mean

    @property
    def mode(self) -> Tensor:
        """The mode, the rate rounded down."""
        return self.mean.floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value`` in nats, summed over the event."""
        x, log_rate = widened(value), widened(self.log_rate)
        terms = x * log_rate - log_rate.exp() - torch.lgamma(x + 1)
        return event_sum(terms, self.event_shape).to(self.log_rate.dtype)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return torch.poisson(self.mean.expand(shape), generator=generator)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Poisson:
        """The same family at ``fn`` of the log rates."""
        return Poisson(fn(self.log_rate), self.event_dims)


class NegativeBinomial(Distribution):
    """Independent counts of mean m and variance m + m^2/r (a Poisson whose rate is Gamma(r, r/m)), in nats.

    log p(x) = log G(x + r) - log G(r) - log x! + r log(r/(r + m)) + x log(m/(r + m)) per element, G the gamma function.

    Args:
        log_mean: log m, (*batch, *event).
        log_dispersion: log r, broadcast against ``log_mean``; large r is nearly Poisson.
        event_dims: Number of trailing dimensions that form the event.

    >>> NegativeBinomial(torch.zeros(1), torch.zeros(1)).log_prob(torch.zeros(1))  # geometric: -log 2
    tensor(-0.6931)
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor, event_dims: int = 1) -> None:
        self.log_mean, self.log_dispersion = full_precision(log_mean), full_precision(log_dispersion)
        self.event_dims = event_dims
        super().__init__(*split_shape(joint_shape(self.log_mean, self.log_dispersion), event_dims, "NegativeBinomial"))

    @property
    def mean(self) -> Tensor:
        """The mean m, (*batch, *event)."""
        return self.log_mean.exp().expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance m + m^2/r, (*batch, *event)."""
        return self.mean + torch.exp(2 * self.log_mean - self.log_dispersion)

    @property
    def mode(self) -> Tensor:
        """floor(m (r - 1)/r), or 0 where r < 1."""
        return (self.mean * -torch.expm1(-self.log_dispersion)).floor().clamp_min(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value`` in nats, summed over the event."""
        x, log_mean, log_r = widened(value), widened(self.log_mean), widened(self.log_dispersion)
        r, odds = log_r.exp(), log_mean - log_r
        combinations = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        # log(r/(r + m)), from which log(m/(r + m)) follows; the other way round loses the digits of a large r
        share = F.logsigmoid(-odds)
        terms = combinations + (x + r) * share + x * odds
        return event_sum(terms, self.event_shape).to(self.log_mean.dtype)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        r = self.log_dispersion.exp().expand(shape)
        gamma = torch._standard_gamma(r.contiguous(), generator=generator)
        return torch.poisson(gamma * torch.exp(self.log_mean - self.log_dispersion), generator=generator)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> NegativeBinomial:
        """The same family at ``fn`` of log mean and log dispersion."""
        return NegativeBinomial(fn(self.log_mean), fn(self.log_dispersion), self.event_dims)
