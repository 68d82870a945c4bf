"""Distributions of elements in order, each conditioned on those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.sampling import sample
from lambent.errors import ConfigError, ShapeError

Choose = Callable[[int, torch.distributions.Distribution], Tensor]
"""(element, its distribution given those before it) -> its values (N,)."""


class Conditionals(Protocol):
    """The conditionals p(x_d | elements before d), from a network and a family of distributions for an element."""

    @property
    def orderings(self) -> int:
        """The number M of orderings that the network supports."""

    def all(self, x: Tensor, context: Tensor, ordering: int) -> torch.distributions.Distribution:
        """All conditionals at x (*lead, *event), as one distribution of batch shape ``lead``."""

    def one_by_one(self, context: Tensor, ordering: int, choose: Choose) -> None:
        """Calls ``choose`` for the values of each element in order, given contexts (N, c)."""


class Autoregressive(Distribution):
    """p(x) = prod_d p(x_d | elements before d); of M orderings the equal mixture (1/M) sum_m p_m(x).

    ``log_prob`` takes one pass of the network per ordering; ``sample`` takes one per element.

    Args:
        conditionals: The conditionals p(x_d | elements before d).
        context: Input to every conditional, (*batch, c); c may be 0.
        event_shape: The elements.
        orderings: Indices of the orderings in the mixture; all of them if None.
    """

    has_mean: ClassVar[bool] = False

    def __init__(
        self,
        conditionals: Conditionals,
        context: Tensor,
        event_shape: Sequence[int],
        orderings: tuple[int, ...] | None = None,
    ) -> None:
        self.conditionals, self.context = conditionals, context
        self.orderings = tuple(range(conditionals.orderings)) if orderings is None else orderings
        super().__init__(context.shape[:-1], event_shape)

    def only(self, ordering: int) -> Autoregressive:
        """The component of the mixture that belongs to one ordering."""
        return Autoregressive(self.conditionals, self.context, self.event_shape, (ordering,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability (density, for continuous elements), nats.

        Raises:
            ShapeError: the trailing dimensions of ``value`` are not the event shape.
        """
        at = value.dim() - len(self.event_shape)
        if at < 0 or value.shape[at:] != self.event_shape:
            raise ShapeError(
                f"x has shape {tuple(value.shape)}, expected (..., {', '.join(map(str, self.event_shape))})"
            )
        lead = torch.broadcast_shapes(value.shape[:at], self.batch_shape)
        value, context = value.expand(lead + self.event_shape), self.context.expand(*lead, -1)
        each = [self.conditionals.all(value, context, m).log_prob(value) for m in self.orderings]
        if len(each) == 1:
            return each[0]
        return torch.logsumexp(torch.stack(each), 0) - math.log(len(each))

    @property
    def mean(self) -> Tensor:
        """Raises ConfigError: the mean has no closed form."""
        raise ConfigError("p(x) is autoregressive: its mean has no closed form; draw samples instead")

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        lead = shape[: len(shape) - len(self.event_shape)]
        context = self.context.expand(*lead, -1).reshape(math.prod(lead), self.context.shape[-1])
        chosen = self._chosen(len(context), generator)
        found: Tensor | None = None
        for i, m in enumerate(self.orderings):
            rows = (chosen == i).nonzero().squeeze(1)
            if len(rows):
                values = self._in_order(context[rows], m, generator)
                found = values.new_empty(len(context), values.shape[1]) if found is None else found
                found[rows] = values
        assert found is not None, "an empty sample"
        return found.view(shape)

    def _chosen(self, items: int, generator: torch.Generator | None) -> Tensor:
        """The ordering of each item, (N,), as its index in `orderings`."""
        device = self.context.device
        if len(self.orderings) == 1:
            return torch.zeros(items, dtype=torch.long, device=device)
        return torch.randint(len(self.orderings), (items,), generator=generator, device=device)

    def _in_order(self, context: Tensor, ordering: int, generator: torch.Generator | None) -> Tensor:
        """Draws (N, D) in one ordering, for contexts (N, c)."""
        columns: dict[int, Tensor] = {}

        def choose(element: int, p: torch.distributions.Distribution) -> Tensor:
            columns[element] = sample(p, (), generator).reshape(len(context))
            return columns[element]

        self.conditionals.one_by_one(context, ordering, choose)
        return torch.stack([columns[d] for d in range(len(columns))], 1)
