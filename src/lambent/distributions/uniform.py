"""The uniform distribution over grids of integers 0..L-1."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lambent.distributions.base import Distribution


class DiscreteUniform(Distribution):
    """Independent elements, each any of 0..L-1 with probability 1/L: log p(x) = -D log L, nats.

    Args:
        levels: L.
        like: A tensor whose type and device the probabilities have.
        event_shape: The elements.

    >>> DiscreteUniform(256, torch.zeros(()), (3,)).log_prob(torch.zeros(2, 3))
    tensor([-16.6355, -16.6355])
    """

    def __init__(self, levels: int, like: Tensor, event_shape: Sequence[int]) -> None:
        self.levels, self.like = levels, like
        super().__init__((), event_shape)

    @property
    def mean(self) -> Tensor:
        """The mean (L - 1) / 2 of every element."""
        return self.like.new_full(self.event_shape, (self.levels - 1) / 2)

    @property
    def mode(self) -> Tensor:
        """Zeros: all values are equally probable."""
        return self.like.new_zeros(self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integers 0..L-1 in nats; -inf for other values."""
        inside = ((value >= 0) & (value < self.levels)).flatten(value.dim() - len(self.event_shape)).all(-1)
        constant = self.like.new_full((), -self.event_shape.numel() * math.log(self.levels))
        return torch.where(inside, constant, constant.new_tensor(-math.inf))

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        device = self.like.device
        return torch.randint(self.levels, shape, generator=generator, device=device).to(self.like.dtype)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> DiscreteUniform:
        """Itself: it has no parameters."""
        return self
