"""Mixtures of diagonal Normal distributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import HALF_LOG_TWO_PI, event_sum, full_precision, joint_shape, split_shape

_MODE_STEPS = 100


class NormalMixture(Distribution):
    """A mixture of C diagonal Normals: log p(x) = logsumexp_c(log pi_c + log N(x; m_c, s_c^2)), nats.

    Args:
        logits: Unnormalised log weights, (*batch, C).
        loc: Means m, (*batch, C, D).
        log_scale: Log standard deviations, broadcast against ``loc``.

    >>> NormalMixture(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, 1)).log_prob(torch.zeros(1))
    tensor(-0.9189)
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor) -> None:
        self.logits, self.loc, self.log_scale = full_precision(logits), full_precision(loc), full_precision(log_scale)
        shape = joint_shape(self.loc, self.log_scale)
        self._components, event_shape = split_shape(shape, 1, "NormalMixture")
        if self._components != self.logits.shape:
            self._components = torch.broadcast_shapes(self._components, self.logits.shape)
        super().__init__(self._components[:-1], event_shape)

    @property
    def log_weights(self) -> Tensor:
        """Normalised log weights, (*batch, C)."""
        return self.logits.log_softmax(-1)

    def _component_log_prob(self, value: Tensor) -> Tensor:
        """Log pi_c + log N(value; m_c, s_c^2), (..., C)."""
        scaled = (full_precision(value).unsqueeze(-2) - self.loc) * torch.exp(-self.log_scale)
        normaliser = event_sum(self.log_scale, self.event_shape)
        constant = HALF_LOG_TWO_PI * self.event_shape[0]
        return self.log_weights - 0.5 * scaled.square().sum(-1) - normaliser - constant

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of ``value`` in nats, summed over the event."""
        return torch.logsumexp(self._component_log_prob(value), -1)

    @property
    def mean(self) -> Tensor:
        """sum_c pi_c m_c, (*batch, D)."""
        return (self.log_weights.exp().unsqueeze(-1) * self.loc).sum(-2).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """sum_c pi_c (s_c^2 + (m_c - mean)^2), (*batch, D)."""
        spread = (self.loc - self.mean.unsqueeze(-2)).square() + (2 * self.log_scale).exp()
        return (self.log_weights.exp().unsqueeze(-1) * spread).sum(-2)

    @property
    def mode(self) -> Tensor:
        """The highest of the maxima reached from the component means by the fixed-point iteration.

        Carreira-Perpiñán 2000, eq. 4; each step raises the density.
        """
        with torch.no_grad():
            points = self.loc.expand(*self._components, *self.event_shape).movedim(-2, 0)
            for _ in range(_MODE_STEPS):
                precision = self._component_log_prob(points).softmax(-1).unsqueeze(-1) * (-2 * self.log_scale).exp()
                points = (precision * self.loc).sum(-2) / precision.sum(-2)
            best = self.log_prob(points).argmax(0, keepdim=True).unsqueeze(-1)
            return points.gather(0, best.expand(1, *points.shape[1:])).squeeze(0)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        weights = self.log_weights.exp().expand(*shape[:-1], self._components[-1])
        index = torch.multinomial(weights.reshape(-1, weights.shape[-1]), 1, generator=generator)
        index = index.reshape(*shape[:-1], 1, 1).expand(*shape[:-1], 1, shape[-1])
        loc, log_scale = (self._pick(t, index) for t in (self.loc, self.log_scale))
        return torch.addcmul(loc, log_scale.exp(), standard_noise(shape, self.loc, generator))

    def _pick(self, parameter: Tensor, index: Tensor) -> Tensor:
        full = parameter.expand(*index.shape[:-2], self._components[-1], index.shape[-1])
        return full.gather(-2, index).squeeze(-2)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> NormalMixture:
        """The same family at ``fn`` of weights, means and log scales."""
        return NormalMixture(fn(self.logits), fn(self.loc), fn(self.log_scale))
