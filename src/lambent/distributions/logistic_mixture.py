"""Mixtures of discretised logistics: grey levels with several peaks, and tails that no wrong guess can break."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.binned import Binned
from lambent.distributions.logistic import DiscretisedLogistic
from lambent.distributions.numerics import full_precision, joint_shape
from lambent.errors import ConfigError


class LogisticMixture(Binned):
    """Each element a mixture of C discretised logistics (Salimans et al. 2017, ICLR, eq. 1 and 2).

    log P(level) = logsumexp_c(log pi_c + log P_c(level)), nats, P_c as `DiscretisedLogistic` has it.

    Args:
        logits: Unnormalised log weights, (*batch, C, *event).
        loc: Locations, (*batch, C, *event), where the levels span -1..1.
        log_scale: Log scales, broadcast against ``loc``.
        levels: L, at least 2.
        event_dims: Number of trailing dimensions that form the event.

    Raises:
        ConfigError: fewer than 2 levels, or no dimension of components.

    >>> LogisticMixture(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(1), 2).log_prob(torch.ones(1))  # -log 2
    tensor(-0.6931)
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, levels: int, event_dims: int = 1) -> None:
        self.logits, self.levels, self.event_dims = full_precision(logits), levels, event_dims
        self.parts = DiscretisedLogistic(loc, log_scale, levels, event_dims)
        shape = joint_shape(self.parts.loc, self.parts.log_scale)
        shape = torch.broadcast_shapes(shape, self.logits.shape)
        at = len(shape) - event_dims - 1
        if at < 0:
            raise ConfigError(f"LogisticMixture: parameters of shape {tuple(shape)}, expected components and the event")
        self.components = shape[at]
        super().__init__(shape[:at], shape[at + 1 :])

    @property
    def _axis(self) -> int:
        """The dimension of the components."""
        return -1 - self.event_dims

    @property
    def weights(self) -> Tensor:
        """pi, (*batch, C, *event)."""
        return self.logits.softmax(self._axis)

    @property
    def _zeros(self) -> Tensor:
        return self.parts.loc.new_zeros(self.batch_shape + self.event_shape)

    def log_masses(self, level: Tensor) -> Tensor:
        """Log probability of each element's value, before the event sum, in nats."""
        each = self.parts.log_masses(level.unsqueeze(self._axis))
        return torch.logsumexp(self.logits.log_softmax(self._axis) + each, self._axis)

    def at_least(self, level: int) -> Tensor:
        """P(x >= level): the components' probabilities, weighted."""
        return (self.weights * self.parts.at_least(level)).sum(self._axis)

    @property
    def mode(self) -> Tensor:
        """The most probable value, by comparing all L of them."""
        best = self._zeros
        highest = self.log_masses(best)
        for level in range(1, self.levels):  # a loop: 256 levels at once would need 256 times the memory
            mass = self.log_masses(torch.full_like(best, level))
            best = torch.where(mass > highest, level, best)
            highest = torch.maximum(mass, highest)
        return best

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        at = len(shape) - self.event_dims
        full = (*shape[:at], self.components, *shape[at:])
        weights = self.weights.expand(full).movedim(self._axis, -1)
        index = torch.multinomial(weights.reshape(-1, self.components), 1, generator=generator)
        index = index.view(*shape[:at], 1, *shape[at:])
        picked = [t.expand(full).gather(self._axis, index).squeeze(self._axis) for t in self._located()]
        return DiscretisedLogistic(picked[0], picked[1], self.levels, self.event_dims).sample((), generator)

    def _located(self) -> tuple[Tensor, Tensor]:
        return self.parts.loc, self.parts.log_scale

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> LogisticMixture:
        """The same family at ``fn`` of weights, locations and log scales."""
        loc, log_scale = (fn(part) for part in self._located())
        return LogisticMixture(fn(self.logits), loc, log_scale, self.levels, self.event_dims)
