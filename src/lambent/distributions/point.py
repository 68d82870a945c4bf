"""Improper distributions used by convention: a point mass and a flat prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import full_precision, split_shape
from lambent.errors import ConfigError


class Delta(Distribution):
    """All mass at one point. Its log density counts as 0, so nothing with it is a bound (``normalised`` is False).

    Args:
        loc: The point, (*batch, *event); gradients flow through it.
        event_dims: Number of trailing dimensions that form the event.

    >>> Delta(torch.ones(2)).rsample()
    tensor([1., 1.])
    """

    has_rsample = True
    normalised: ClassVar[bool] = False

    def __init__(self, loc: Tensor, event_dims: int = 1) -> None:
        self.loc, self.event_dims = full_precision(loc), event_dims
        super().__init__(*split_shape(self.loc.shape, event_dims, "Delta"))

    @property
    def mean(self) -> Tensor:
        """The point, (*batch, *event)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Zeros, of the shape of the point."""
        return torch.zeros_like(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """Zeros by convention, whatever the value."""
        return _zeros(value, self)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return self.loc.expand(shape)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Delta:
        """The mass at ``fn`` of the point."""
        return Delta(fn(self.loc), self.event_dims)


class Flat(Distribution):
    """p(z) proportional to 1 on the reals: log density 0 by convention, so nothing with it is a bound.

    >>> Flat((2,)).log_prob(torch.ones(3, 2))
    tensor([0., 0., 0.])
    """

    normalised: ClassVar[bool] = False

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__((), event_shape)

    @property
    def mean(self) -> Tensor:
        """Refused: there is none."""
        raise self._refusal("mean")

    def log_prob(self, value: Tensor) -> Tensor:
        """Zeros by convention, whatever the value."""
        return _zeros(value, self)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        raise self._refusal("draws")

    def _refusal(self, what: str) -> ConfigError:
        return ConfigError(f"prior=flat is no distribution: it has no {what}; use prior=normal, or give values of z")

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Flat:
        """Itself: it has no parameters."""
        return self


def _zeros(value: Tensor, distribution: Distribution) -> Tensor:
    lead = value.shape[: value.dim() - len(distribution.event_shape)]
    zeros = torch.zeros((), dtype=full_precision(value).dtype, device=value.device)
    return zeros.expand(torch.broadcast_shapes(lead, distribution.batch_shape))
