"""Levels 0..L-1, each with the mass that a density on the line gives to its bin: what such families share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import event_sum


class Binned(Distribution, ABC):
    """Independent elements with levels 0..L-1; families say the mass of a level and of all from one on."""

    levels: int

    @abstractmethod
    def log_masses(self, level: Tensor) -> Tensor:
        """Log probability of each element's level, before the event sum, nats."""

    @abstractmethod
    def at_least(self, level: int) -> Tensor:
        """P(level or a higher one) of each element, for 1 <= level < L."""

    @property
    @abstractmethod
    def _zeros(self) -> Tensor:
        """Zeros (*batch, *event) of the parameters' type, on their device."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integer levels (of any number type), nats."""
        return event_sum(self.log_masses(value.to(self._zeros.dtype)), self.event_shape)

    @property
    def mean(self) -> Tensor:
        """Expected level, exact: the sum over k >= 1 of P(level >= k)."""
        return self._tail_sum(lambda k: 1.0)

    @property
    def variance(self) -> Tensor:
        """Variance of the level."""
        return self._tail_sum(lambda k: 2.0 * k - 1) - self.mean.square()

    def _tail_sum(self, weight: Callable[[int], float]) -> Tensor:
        total = self._zeros
        for k in range(1, self.levels):  # a loop: 256 levels at once would need 256 times the memory
            total = total + weight(k) * self.at_least(k)
        return total

    def most_probable(self, candidates: Tensor) -> Tensor:
        """Of candidates (C, *batch, *event) the one of most mass."""
        best = self.log_masses(candidates).argmax(0, keepdim=True)
        return candidates.gather(0, best).squeeze(0)

    def or_an_end(self, level: Tensor) -> Tensor:
        """The level, or the first or last one where its tail outweighs it."""
        ends = torch.zeros_like(level), torch.full_like(level, self.levels - 1)
        return self.most_probable(torch.stack([level, *ends]))
