"""A stationary autoregressive process of order 1 as a distribution of its whole path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import HALF_LOG_TWO_PI, full_precision
from lambent.errors import ConfigError


class AR1(Distribution):
    """T steps of z_1 ~ N(0, I), z_t | z_{t-1} ~ N(a z_{t-1}, (1 - a^2) I): every z_t is N(0, I) by itself.

    log p(z) = sum_i log N(z_1i; 0, 1) + sum_{t>1} log N(z_ti; a_i z_{t-1,i}, 1 - a_i^2), in nats; a = 0 is N(0, I).

    Args:
        alpha: a, each at least 0 (or above -1) and below 1, (d,).
        steps: T.

    The event is the flat vector (T d,), one step after another.

    Raises:
        ConfigError: fewer than one step, or ``alpha`` is not a vector.

    >>> AR1(torch.tensor([0.5]), 2).log_prob(torch.zeros(2))  # -log(2 pi) - log(1 - 0.25) / 2
    tensor(-1.6940)
    """

    has_rsample = True

    def __init__(self, alpha: Tensor, steps: int) -> None:
        self.alpha, self.steps = full_precision(alpha), steps
        if alpha.dim() != 1 or steps < 1:
            raise ConfigError(f"AR1: alpha of shape {tuple(alpha.shape)}, {steps} steps; expected (d,) and 1 or more")
        super().__init__((), (steps * len(alpha),))

    @property
    def innovation(self) -> Tensor:
        """The variance 1 - a^2 of a step given the one before, (d,)."""
        return (1 - self.alpha) * (1 + self.alpha)

    @property
    def mean(self) -> Tensor:
        """The mean, zeros of shape (T d,)."""
        return torch.zeros_like(self.alpha).repeat(self.steps)

    @property
    def variance(self) -> Tensor:
        """The marginal variance, ones of shape (T d,)."""
        return torch.ones_like(self.alpha).repeat(self.steps)

    @property
    def precision(self) -> Tensor:
        """Diagonal of the inverse covariance, (T d,): 1/(1 - a^2) at both ends, (1 + a^2)/(1 - a^2) between them."""
        if self.steps == 1:
            return torch.ones_like(self.alpha)
        inner = torch.ones(self.steps, 1, dtype=self.alpha.dtype, device=self.alpha.device)
        inner[0] = inner[-1] = 0
        return ((1 + inner * self.alpha.square()) / self.innovation).flatten()

    def least_rate(self) -> Tensor:
        """The minimum of KL(q||p) over all diagonal Normals q, a scalar in nats (Razavi et al. 2019).

        It is 1/2 sum_i ((T - 2) log(1 + a_i^2) - log(1 - a_i^2)), and 0 for T = 1; at q = N(0, 1/precision).
        """
        if self.steps == 1:
            return self.alpha.new_zeros(())
        inner = (self.steps - 2) * torch.log1p(self.alpha.square())
        return 0.5 * (inner - torch.log1p(-self.alpha) - torch.log1p(self.alpha)).sum()

    def quadratic(self, value: Tensor) -> Tensor:
        """z^T S^-1 z with S the covariance, of shape (*lead): |z_1|^2 + sum_{t>1} |z_t - a z_{t-1}|^2 / (1 - a^2)."""
        path = value.unflatten(-1, (self.steps, len(self.alpha)))
        jumps = (path[..., 1:, :] - self.alpha * path[..., :-1, :]).square() / self.innovation
        return path[..., 0, :].square().sum(-1) + jumps.sum((-2, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        log_det = (self.steps - 1) * (torch.log1p(-self.alpha) + torch.log1p(self.alpha)).sum()
        constant = 0.5 * log_det + HALF_LOG_TWO_PI * self.event_shape.numel()
        return -0.5 * self.quadratic(full_precision(value)) - constant

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of the batch shape."""
        log_det = (self.steps - 1) * (torch.log1p(-self.alpha) + torch.log1p(self.alpha)).sum()
        return 0.5 * log_det + self.event_shape.numel() * (HALF_LOG_TWO_PI + 0.5)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        noise = standard_noise(shape, self.alpha, generator).unflatten(-1, (self.steps, len(self.alpha)))
        path, scale = [noise[..., 0, :]], self.innovation.sqrt()
        for t in range(1, self.steps):
            path.append(self.alpha * path[-1] + scale * noise[..., t, :])
        return torch.stack(path, -2).flatten(-2)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> AR1:
        """The same family at ``fn`` of a."""
        return AR1(fn(self.alpha), self.steps)
