"""Products of distributions over blocks of columns: a row of a heterogeneous table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.errors import ConfigError


class Product(Distribution):
    """Independent distributions of the columns of one vector: log p(x) = sum over parts of log p_i(x[slice_i]).

    Args:
        parts: Distributions with one event dimension each.
        slices: The columns of each part; together they cover the vector once.

    Raises:
        ConfigError: the slices don't tile the columns, or don't fit the parts.

    >>> from lambent.distributions import Normal, Poisson
    >>> row = Product((Normal(torch.zeros(2), torch.zeros(2)), Poisson(torch.zeros(1))), (slice(0, 2), slice(2, 3)))
    >>> row.log_prob(torch.zeros(3))  # -log(2 pi) - 1
    tensor(-2.8379)
    """

    def __init__(self, parts: tuple[Distribution, ...], slices: tuple[slice, ...]) -> None:
        self.parts, self.slices = parts, slices
        self._order = sorted(range(len(parts)), key=lambda i: slices[i].start)
        batch = parts[0].batch_shape
        if any(part.batch_shape != batch for part in parts):
            batch = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        self.has_rsample = all(part.has_rsample for part in parts)
        super().__init__(batch, (self._tile(),))

    def _tile(self) -> int:
        """The number of columns, the slices found to be a tiling."""
        at = 0
        for i in self._order:
            block, size = self.slices[i], self.parts[i].event_shape
            if block.start != at or tuple(size) != (block.stop - at,):
                raise ConfigError(
                    f"Product: part {i} has columns {block.start}:{block.stop} and event shape {tuple(size)}; "
                    f"expected the next block to start at {at} and to be as wide as its part"
                )
            at = block.stop
        return at

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density (probability, for the discrete columns), nats."""
        terms = [part.log_prob(value[..., block]) for part, block in zip(self.parts, self.slices, strict=True)]
        return sum(terms[1:], terms[0])

    def _join(self, pieces: Callable[[Distribution], Tensor], shape: torch.Size) -> Tensor:
        blocks = [pieces(self.parts[i]) for i in self._order]
        return torch.cat([block.expand(*shape, block.shape[-1]) for block in blocks], -1)

    @property
    def mean(self) -> Tensor:
        """The parts' means, side by side."""
        return self._join(lambda part: part.mean, self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """The parts' modes, side by side."""
        return self._join(lambda part: part.mode, self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """The parts' variances, side by side."""
        return self._join(lambda part: part.variance, self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        lead = shape[:-1]
        return self._join(lambda part: part._sample(lead + part.event_shape, generator), lead)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Product:
        """The same product of the parts at ``fn`` of their parameters."""
        return Product(tuple(part.map_parameters(fn) for part in self.parts), self.slices)
