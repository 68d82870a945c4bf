"""Distributions of strings that end at an end-of-string symbol (EOS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.discrete import Categorical
from lambent.errors import ConfigError


def after_eos(x: Tensor, end: int) -> Tensor:
    """Which positions of strings ``x`` (..., D) come after the first ``end``.

    >>> after_eos(torch.tensor([0, 2, 2, 0]), 2)
    tensor([False, False,  True,  True])
    """
    ended = (x == end).long()
    return ended.cumsum(-1) > ended


class Strings(Distribution):
    """D positions, each a softmax over S symbols; with EOS, the last symbol, a string ends at the first one:

    log p(x) = sum_{d <= d_EOS} log softmax(l_d)[x_d], nats; without EOS in x, the sum over all D.

    Every symbol after EOS is EOS again with probability 1, so that the strings of up to D symbols have probability 1
    together, and any other sequence has none.

    Args:
        logits: l, (*batch, D, S), unnormalised.
        end: Whether the last symbol is EOS.

    >>> Strings(torch.zeros(5, 4), end=True).log_prob(torch.tensor([0, 3, 3, 3, 3]))  # -2 log 4
    tensor(-2.7726)
    """

    has_mean: ClassVar[bool] = False

    def __init__(self, logits: Tensor, *, end: bool) -> None:
        self.each, self.end = Categorical(logits, 0), end
        super().__init__(self.each.batch_shape[:-1], self.each.batch_shape[-1:])

    @property
    def logits(self) -> Tensor:
        """The logits of every position, (*batch, D, S)."""
        return self.each.logits

    @property
    def last(self) -> int:
        """Index of the last symbol, which is EOS where there is one."""
        return self.logits.shape[-1] - 1

    @property
    def mean(self) -> Tensor:
        """Raises ConfigError: symbols have no mean."""
        raise ConfigError("p(x) is of symbols, which have no mean; draw samples instead")

    @property
    def greedy(self) -> Tensor:
        """The most probable symbol of each position, up to EOS. It is not the mode, which prefers short strings."""
        return self._closed(self.each.mode)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of strings (of any number type), nats; -inf where another symbol follows EOS."""
        terms = self.each.log_prob(value)
        if not self.end:
            return terms.sum(-1)
        over = after_eos(value, self.last)
        impossible = (over & (value != self.last)).any(-1)
        return terms.masked_fill(over, 0.0).sum(-1).masked_fill(impossible, -torch.inf)

    def following(self, before: Tensor) -> Strings:
        """The distribution given the preceding symbols ``before`` (*batch): EOS follows EOS with probability 1."""
        if not self.end:
            return self
        certain = torch.full_like(self.logits, -torch.inf)
        certain[..., -1] = 0
        return Strings(torch.where((before == self.last)[..., None, None], certain, self.logits), end=True)

    def _closed(self, x: Tensor) -> Tensor:
        return x.masked_fill(after_eos(x, self.last), self.last) if self.end else x

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return self._closed(self.each.sample(shape[: len(shape) - len(self.each.batch_shape)], generator))

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> Strings:
        """The same family at ``fn`` of the logits."""
        return Strings(fn(self.logits), end=self.end)
