"""Transformers: blocks of attention for any use, a density of elements in order, and an encoder of sequences."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.networks.mlp import affine


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in each of H heads of d = width / H (Vaswani et al. 2017, eq. 1), side by side.

    Args:
        width: Numbers a token.
        heads: H, a divisor of it.
        causal: Token t looks at tokens 1..t only; otherwise at all.
        gain: How small the last map starts.

    Raises:
        ConfigError: H does not divide the width.
    """

    def __init__(self, width: int, heads: int, *, causal: bool, gain: float = 1.0) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width={width} is no multiple of heads={heads}; give heads that divide the width")
        self.heads, self.causal = heads, causal
        self.inputs, self.output = affine(width, 3 * width), affine(width, width, gain=gain)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); keys where ``mask`` (N, T) is false are not looked at."""
        q, k, v = self.inputs(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=self.causal)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def step(self, h: Tensor, cache: Tensor, place: int) -> Tensor:
        """`forward` at one place: (N, width) of h (N, width) there and of ``cache`` (2, N, H, T, d) before it.

        The cache takes this place's key and value.
        """
        q, k, v = self.inputs(h).unflatten(-1, (3, self.heads, -1)).unbind(1)
        cache[0, :, :, place], cache[1, :, :, place] = k, v
        keys, values = cache[:, :, :, : place + 1]
        scores = keys @ (q * q.shape[-1] ** -0.5).unsqueeze(-1)
        return self.output((scores.softmax(-2).transpose(-1, -2) @ values).flatten(1))


class Block(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)): the pre-norm block (Radford et al. 2019), GELU units.

    Args:
        width: Numbers a token; the MLP has 4 times as many units.
        heads: Heads of attention.
        dropout: Probability with which a number that a branch adds is zeroed in training.
        causal: Token t looks at tokens 1..t only.
        gain: How small the last map of each branch starts.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, *, causal: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal, gain=gain)
        self.mlp = nn.Sequential(affine(width, 4 * width, "gelu"), nn.GELU(), affine(4 * width, width, gain=gain))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); tokens where ``mask`` (N, T) is false are not looked at."""
        h = h + self.dropout(self.attention(self.before_attention(h), mask))
        return h + self.dropout(self.mlp(self.before_mlp(h)))

    def step(self, h: Tensor, cache: Tensor, place: int) -> Tensor:
        """`forward` at one place, (N, width), those before it in the ``cache``."""
        h = h + self.attention.step(self.before_attention(h), cache, place)
        return h + self.mlp(self.before_mlp(h))


class Stack(nn.Module):
    """Blocks, then a norm: (N, T, width) -> (N, T, width), for T of any length. Positions are the caller's.

    Args:
        width: Numbers a token.
        layers: Number of blocks.
        heads: Heads of attention, a divisor of the width.
        dropout: As for a `Block`.
        causal: Token t looks at tokens 1..t only; otherwise every token at all of them.

    >>> net = Stack(32, layers=2, heads=4, causal=False)
    >>> net(net.norm.weight.expand(5, 7, 32)).shape
    torch.Size([5, 7, 32])
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float = 0.0, *, causal: bool) -> None:
        super().__init__()
        gain = (2 * layers) ** -0.5  # as many branches add up, which keeps their sum at unit size
        self.blocks: Any = nn.ModuleList(Block(width, heads, dropout, causal=causal, gain=gain) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); tokens where ``mask`` (N, T) is false are not looked at.

        A mask is for stacks that aren't causal.
        """
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)

    def cache(self, items: int, places: int) -> list[Tensor]:
        """Room for the keys and values of so many places, (2, N, H, T, d) a block."""
        weight, heads = self.norm.weight, self.blocks[0].attention.heads
        return [weight.new_empty(2, items, heads, places, len(weight) // heads) for _ in self.blocks]

    def step(self, h: Tensor, cache: list[Tensor], place: int) -> Tensor:
        """`forward` of a causal stack at one place, (N, width), those before it in the ``cache``."""
        for block, own in zip(self.blocks, cache, strict=True):
            h = block.step(h, own, place)
        return self.norm(h)
