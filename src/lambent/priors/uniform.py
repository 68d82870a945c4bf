"""The uniform prior over grids of codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions.uniform import DiscreteUniform
from lambent.networks.autoregressive.base import ContextShape
from lambent.priors.base import CodePriorSettings
from lambent.settings import part


@part("prior", "uniform")
@dataclass(frozen=True)
class UniformPrior(CodePriorSettings):
    """Every code equally probable: an example of P codes costs P log S nats."""

    def over_codes(
        self, symbols: int, grid: tuple[int, ...], context: ContextShape = 0, condition: int = 0
    ) -> UniformPriorModule:
        """The prior as a module without parameters."""
        return UniformPriorModule(symbols, grid)


class UniformPriorModule(nn.Module):
    """p(z) = S^-P, whatever the context."""

    like: Tensor

    def __init__(self, symbols: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.symbols, self.grid = symbols, grid
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, context: Tensor | None = None) -> DiscreteUniform:
        """The prior, of batch shape ()."""
        return DiscreteUniform(self.symbols, self.like, self.grid)
