"""A transformer that fills in symbols: logits of all elements given those that are not masked."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from lambent.networks.autoregressive import ContextShape, context_size, linear
from lambent.networks.base import checked
from lambent.networks.mlp import affine
from lambent.networks.transformer import Stack


class UnmaskingTransformer(nn.Module):
    """A `Stack` without a causal mask over D symbols at learned positions, masked ones replaced by a symbol of its own.

    A vector of context is added to every token by a linear map; a map (C, h, w) becomes h w tokens in front.

    Args:
        symbols: S.
        elements: D.
        width: Numbers a token, a multiple of the heads.
        layers: Blocks.
        heads: Heads of attention.
        dropout: Share of what each block adds that is zeroed in training.
        context: So many numbers, or a map.
        condition: Numbers that follow them in the context.

    >>> net = UnmaskingTransformer(5, 3, width=8, layers=1, heads=2)
    >>> net(torch.zeros(2, 3).long(), torch.ones(3).bool(), None).shape
    torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        symbols: int,
        elements: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        context: ContextShape = 0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.symbols = symbols
        self.table = nn.Parameter(torch.randn(symbols + 1, width))
        self.positions = nn.Parameter(torch.randn(elements, width) * width**-0.5)
        self.stack = Stack(width, layers, heads, dropout, causal=False)
        self.output = nn.Linear(width, symbols)
        nn.init.zeros_(self.output.weight)  # starts uniform
        nn.init.zeros_(self.output.bias)
        self.context = context_size(context) + condition
        self.map = None if isinstance(context, int) else context
        vector = self.context - (prod(self.map) if self.map else 0)
        self.from_vector = linear(vector, width) if vector else None
        self.from_map = affine(self.map[0], width) if self.map else None
        places = prod(self.map[1:]) if self.map else 0
        self.map_positions = nn.Parameter(torch.randn(places, width) * width**-0.5)

    def forward(self, x: Tensor, masked: Tensor, context: Tensor | None, at: Tensor | None = None) -> Tensor:
        """Logits (N, G, S) of the elements ``at`` (G,), of all D without it.

        Args:
            x: Symbols (N, D), looked at only where not masked.
            masked: (N, D), or (D,) for all alike.
            context: (N, c): the context's numbers, then the condition's; None where the network was built for none.
            at: Which elements.
        """
        tokens = self.table[torch.where(masked, self.symbols, x)] + self.positions
        before, everywhere = self._context_terms(context, len(x))
        h = self.stack(torch.cat([before, tokens + everywhere], 1))[:, before.shape[1] :]
        return self.output(h if at is None else h[:, at])

    def _context_terms(self, context: Tensor | None, items: int) -> tuple[Tensor, Tensor]:
        """Tokens in front, (N, h w, width), and what every other token is moved by, (N, 1, width)."""
        context, zero = checked(context, items, self.context), self.table.new_zeros(items, 1, self.table.shape[1])
        if context is None:
            return zero[:, :0], zero
        context, size = context.to(zero.dtype), prod(self.map) if self.map else 0
        moved = zero if self.from_vector is None else self.from_vector(context[:, size:]).unsqueeze(1)
        if self.map is None or self.from_map is None:
            return zero[:, :0], moved
        points = context[:, :size].view(items, self.map[0], -1).transpose(1, 2)
        return self.from_map(points) + self.map_positions, moved
