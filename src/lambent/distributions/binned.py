"""Integer values 0..L-1 whose probability is the mass of a density's bin: what these families have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import event_sum


class Binned(Distribution, ABC):
    """Independent elements with values 0..L-1; a family gives the mass of a value and the upper tail from it."""

    levels: int

    @abstractmethod
    def log_masses(self, level: Tensor) -> Tensor:
        """Log probability of each element's value, before the event sum, in nats."""

    @abstractmethod
    def at_least(self, level: int) -> Tensor:
        """P(x >= level) of each element, for 1 <= level < L."""

    @property
    @abstractmethod
    def _zeros(self) -> Tensor:
        """Zeros (*batch, *event) of the parameters' type, on their device."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integer values (of any dtype), in nats."""
        return event_sum(self.log_masses(value.to(self._zeros.dtype)), self.event_shape)

    @property
    def mean(self) -> Tensor:
        """The expected value, exact: the sum over k >= 1 of P(x >= k)."""
        return self._tail_sum(lambda k: 1.0)

    @property
    def variance(self) -> Tensor:
        """The variance of each element, (*batch, *event)."""
        return self._tail_sum(lambda k: 2.0 * k - 1) - self.mean.square()

    def _tail_sum(self, weight: Callable[[int], float]) -> Tensor:
        total = self._zeros
        for k in range(1, self.levels):  # a loop: 256 levels at once would need 256 times the memory
            total = total + weight(k) * self.at_least(k)
        return total

    def most_probable(self, candidates: Tensor) -> Tensor:
        """The candidate of highest mass, element by element, from ``candidates`` (C, *batch, *event)."""
        best = self.log_masses(candidates).argmax(0, keepdim=True)
        return candidates.gather(0, best).squeeze(0)

    def or_an_end(self, level: Tensor) -> Tensor:
        """``level``, or the first or last value where the mass of that tail is higher."""
        ends = torch.zeros_like(level), torch.full_like(level, self.levels - 1)
        return self.most_probable(torch.stack([level, *ends]))
