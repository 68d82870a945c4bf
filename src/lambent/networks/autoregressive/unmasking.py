"""A transformer that fills in symbols: logits of all elements given those that are not masked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lambent.networks.autoregressive.base import ContextShape
from lambent.networks.autoregressive.context_tokens import ContextTokens, positions
from lambent.networks.autoregressive.transformer import Stack


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
        context: Size of the context: a number of values, or a map.
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
        self.positions = positions(elements, width)
        self.stack = Stack(width, layers, heads, dropout, causal=False)
        self.output = nn.Linear(width, symbols)
        nn.init.zeros_(self.output.weight)  # starts uniform
        nn.init.zeros_(self.output.bias)
        self.seen = ContextTokens(context, condition, width)

    def forward(self, x: Tensor, masked: Tensor, context: Tensor | None, at: Tensor | None = None) -> Tensor:
        """Logits (N, G, S) of the elements ``at`` (G,), of all D without it.

        Args:
            x: Symbols (N, D), looked at only where not masked.
            masked: (N, D), or (D,) for all alike.
            context: (N, c): the context's numbers, then the condition's; None where the network was built for none.
            at: Which elements.
        """
        tokens = self.table[torch.where(masked, self.symbols, x)] + self.positions
        before, everywhere = self.seen(context, len(x), self.table)
        h = self.stack(torch.cat([before, tokens + everywhere.unsqueeze(1)], 1))[:, before.shape[1] :]
        return self.output(h if at is None else h[:, at])
