"""What a transformer is given beside its elements, as tokens."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from lambent.networks.autoregressive.base import ContextShape, context_size, linear
from lambent.networks.base import checked
from lambent.networks.mlp import affine


class ContextTokens(nn.Module):
    """A map (C, h, w) becomes h w tokens in front, at positions of their own; a vector moves every other token.

    Args:
        latent: So many numbers, or a map.
        condition: Numbers that follow it.
        width: Numbers a token.
    """

    def __init__(self, latent: ContextShape, condition: int, width: int) -> None:
        super().__init__()
        self.size, self.width = context_size(latent) + condition, width
        self.map = None if isinstance(latent, int) else latent
        self.front = prod(self.map[1:]) if self.map else 0
        self.of_map = prod(self.map) if self.map else 0
        self.from_vector = linear(self.size - self.of_map, width) if self.size > self.of_map else None
        self.from_map = affine(self.map[0], width) if self.map else None
        self.positions = positions(self.front, width) if self.map else None

    def forward(self, context: Tensor | None, items: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens in front, (N, h w, width), and what every other token is moved by, (N, width); typed ``like``."""
        context, zero = checked(context, items, self.size), like.new_zeros(items, self.width)
        if context is None:
            return zero.unsqueeze(1)[:, :0], zero
        context = context.to(zero.dtype)
        everywhere = zero if self.from_vector is None else self.from_vector(context[:, self.of_map :])
        if self.map is None or self.from_map is None:
            return zero.unsqueeze(1)[:, :0], everywhere
        points = context[:, : self.of_map].view(items, self.map[0], -1).transpose(1, 2)
        return self.from_map(points) + self.positions, everywhere


def positions(count: int, width: int) -> nn.Parameter:
    """Learned positions (count, width) of about unit length."""
    return nn.Parameter(torch.randn(count, width) * width**-0.5)
