"""Finite scalar quantisation: a grid of codes that is not learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lambent.distributions.numerics import full_precision
from lambent.errors import ConfigError
from lambent.networks.quantisers.codebook import Quantiser

_MARGIN = 1e-3


class FiniteScalar(Quantiser):
    """Each number bounded and rounded to one of its L levels (Mentzer et al. 2024, ICLR, section 3.1).

    z -> round(h tanh(z + s) - o) / floor(L/2), with h = (L - 1)/2 less a margin that keeps the outermost roundings
    inside; o = 0 for odd L and 1/2 for even L, and s such that z = 0 gives 0. Codes are the grid's points in
    [-1, 1], the first number's level the fastest digit of an index. Backwards the rounding is left out.

    Raises:
        ConfigError: no levels, or fewer than 3 of a number.

    >>> FiniteScalar((3, 3)).quantise(torch.tensor([[0.0, 9.0]]))
    (tensor([[0., 1.]]), tensor([7]))
    """

    counts: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        if not levels or min(levels) < 3:
            raise ConfigError(f"bins={list(levels)}: expected one or more numbers of bins, each at least 3")
        super().__init__(math.prod(levels), len(levels))
        self.register_buffer("counts", torch.tensor(levels), persistent=False)

    @property
    def _widths(self) -> Tensor:
        """Levels on either side of 0."""
        return self.counts // 2

    @property
    def _places(self) -> Tensor:
        """What a step of each digit adds to an index."""
        return self.counts.cumprod(0) // self.counts

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The grid's point of each z, and its index."""
        z = full_precision(z)
        half = (self.counts - 1).to(z.dtype) * ((1 - _MARGIN) / 2)
        offset = (self.counts + 1) % 2 * 0.5
        value: Tensor = _Rounded.apply(z, half, offset.to(z.dtype), self._widths)
        return value, self.indices_of(value)

    def lookup(self, indices: Tensor) -> Tensor:
        """The points of the indices."""
        digits = indices.long().unsqueeze(-1) // self._places % self.counts
        return (digits - self._widths) / self._widths

    def indices_of(self, value: Tensor) -> Tensor:
        """The index of the grid's nearest point."""
        digits = ((value.detach() + 1) * self._widths).round().long()
        return (torch.minimum(digits.clamp_min(0), self.counts - 1) * self._places).sum(-1)


class _Rounded(torch.autograd.Function):
    """Exactly the grid's point forwards; the derivative before rounding backwards, h (1 - tanh^2) / floor(L/2)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, half: Tensor, offset: Tensor, width: Tensor) -> Tensor:
        bounded = torch.tanh(z + torch.atanh(offset / half))
        ctx.save_for_backward(bounded, half / width)
        return torch.round(bounded * half - offset) / width

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        bounded, slope = ctx.saved_tensors
        return grads[0] * slope * (1 - bounded.square()), None, None, None
