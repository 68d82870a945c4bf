"""Absorbing-state diffusion over symbols: elements are unmasked in any order, each given those already unmasked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.numerics import full_precision
from lambent.errors import ConfigError, ShapeError

TOKENS = 2**15
"""Elements that the network evaluates at a time outside training, a bound on memory."""


class Unmasking(Protocol):
    """The network of an absorbing diffusion: logits of elements given those that are not masked."""

    def __call__(self, x: Tensor, masked: Tensor, context: Tensor | None, at: Tensor | None = None) -> Tensor:
        """The logits (N, G, S) of the elements ``at`` (G,), or of all D elements where ``at`` is None.

        Args:
            x: Symbols (N, D).
            masked: (N, D), or (D,) for all alike: true where x is masked.
            context: (N, c) or None.
            at: Indices of the elements whose logits are wanted.
        """


class MaskedDiffusion(Distribution):
    """p(x) = prod_t p(x_s(t) | x_s(<t)) for an ordering s; the equal mixture of M of them (Hoogeboom et al. 2022).

    The network that fills in any masked elements given the others is an absorbing-state diffusion (Austin et al. 2021)
    as well as an autoregressive model of every ordering. Hoogeboom et al., eq. 2 to 4: with t uniform on 1..D and s a
    random ordering,

        E_s log p(x|s) = E_t E_s  D / (D - t + 1)  sum_{k not among s(<t)} log p(x_k | x_s(<t)).

    ``log_prob`` is one draw of the right side where ``estimated``: unbiased for the left one, which is a bound on log p
    of the mixture of all D! orderings, and of use where it enters linearly (an ELBO, no importance weights). Otherwise
    it is exact for the M given orderings, D passes each in bounded memory, and sums to 1.

    Args:
        net: The network that predicts masked elements.
        order: (M, D) elements in the order in which they are revealed.
        context: Input of the network beside the symbols, (*batch, c); c may be 0.
        event_shape: The elements, D in all.
        estimated: Whether ``log_prob`` is the estimate, from torch's current random state.
        steps: Passes of a sample, each drawing D / steps elements as if independent: exact at D.
    """

    def __init__(
        self,
        net: Unmasking,
        order: Tensor,
        context: Tensor,
        event_shape: Sequence[int],
        *,
        estimated: bool = False,
        steps: int | None = None,
    ) -> None:
        self.net, self.order, self.context = net, order, context
        self.estimated, self.steps = estimated, min(steps or order.shape[1], order.shape[1])
        super().__init__(context.shape[:-1], event_shape)

    @property
    def elements(self) -> int:
        """D, the number of elements of an event."""
        return self.order.shape[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of ``value``, or its unbiased estimate, in nats.

        Raises:
            ShapeError: the trailing dimensions of ``value`` are not the event shape.
        """
        at = value.dim() - len(self.event_shape)
        if at < 0 or value.shape[at:] != self.event_shape:
            raise ShapeError(f"codes have shape {tuple(value.shape)}, expected (..., {tuple(self.event_shape)})")
        lead = torch.broadcast_shapes(value.shape[:at], self.batch_shape)
        x = value.long().expand(lead + self.event_shape).reshape(math.prod(lead), self.elements)
        context = self.context.expand(*lead, -1).reshape(len(x), self.context.shape[-1])
        return (self._estimate(x, context) if self.estimated else self._exact(x, context)).view(lead)

    def _estimate(self, x: Tensor, context: Tensor) -> Tensor:
        count = hidden_counts(len(x), self.elements, x.device)
        rank = torch.rand(x.shape, device=x.device).argsort(1).argsort(1)
        return self.weighted(x, context, rank < count.unsqueeze(1))

    def weighted(self, x: Tensor, context: Tensor, masked: Tensor) -> Tensor:
        """D/m times log p of the m masked elements given the others, (N,), for masks (N, D)."""
        log_p = _taken(self.net(x, masked, _seen(context)), x)
        return torch.where(masked, log_p, 0.0).sum(1) * (self.elements / masked.sum(1))

    def _exact(self, x: Tensor, context: Tensor) -> Tensor:
        each = torch.stack([self._in_order(x, context, order) for order in self.order])
        return each[0] if len(each) == 1 else torch.logsumexp(each, 0) - math.log(len(each))

    def _in_order(self, x: Tensor, context: Tensor, order: Tensor) -> Tensor:
        """Log probability (N,) of rows (N, D) in one ordering, in nats."""
        size, place = max(1, TOKENS // self.elements), order.argsort()
        parts = zip(x.split(size), context.split(size), strict=True)
        return torch.cat([self._in_steps(rows, given, order, place) for rows, given in parts])

    def _in_steps(self, x: Tensor, context: Tensor, order: Tensor, place: Tensor) -> Tensor:
        total = torch.zeros((), device=x.device)
        for t in range(self.elements):
            at = order[t : t + 1]
            total = total + _taken(self.net(x, place >= t, _seen(context), at), x[:, at]).squeeze(1)
        return total

    @property
    def mean(self) -> Tensor:
        """Raises ConfigError: the mean has no closed form."""
        raise ConfigError("p(z) is a masked diffusion: its mean has no closed form; draw samples instead")

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        lead = shape[: len(shape) - len(self.event_shape)]
        context = self.context.expand(*lead, -1).reshape(math.prod(lead), self.context.shape[-1])
        size = max(1, TOKENS // self.elements)
        found = torch.cat([self._filled(rows, generator) for rows in context.split(size)])
        return found.view(shape).to(self.context.dtype)

    def _filled(self, context: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws (N, D), each in an ordering chosen at random."""
        chosen = torch.randint(len(self.order), (len(context),), generator=generator, device=context.device)
        x = torch.zeros(len(context), self.elements, dtype=torch.long, device=context.device)
        for m, order in enumerate(self.order):
            rows = (chosen == m).nonzero().squeeze(1)
            if len(rows):
                x[rows] = self._in_groups(context[rows], order, generator)
        return x

    def _in_groups(self, context: Tensor, order: Tensor, generator: torch.Generator | None) -> Tensor:
        x = torch.zeros(len(context), self.elements, dtype=torch.long, device=context.device)
        masked = torch.ones(self.elements, dtype=torch.bool, device=context.device)
        for group in order.tensor_split(self.steps):
            p = full_precision(self.net(x, masked, _seen(context), group)).softmax(-1)
            x[:, group] = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view(len(x), len(group))
            masked[group] = False
        return x


def hidden_counts(items: int, elements: int, device: torch.device | None = None) -> Tensor:
    """The number of masked elements of each item, (N,): uniform on 1..D, and stratified over the items.

    All items share one uniform number u; item n uses (u + n/N) mod 1.
    """
    start = torch.rand((), device=device, dtype=torch.float64)
    turn = (start + torch.arange(items, device=device, dtype=torch.float64) / max(1, items)) % 1.0
    return (turn * elements).long().clamp_max(elements - 1) + 1


def _taken(logits: Tensor, x: Tensor) -> Tensor:
    """Log softmax of logits (N, G, S) at the symbols (N, G), in at least 32 bits."""
    return full_precision(logits).log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1)


def _seen(context: Tensor) -> Tensor | None:
    return context if context.shape[-1] else None
