"""A prior over grids of codes that fills them in, in any order: discrete diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor, nn

from lambent.distributions.absorbing_diffusion import MaskedDiffusion
from lambent.networks.autoregressive.base import ContextShape, orders
from lambent.networks.autoregressive.unmasking import UnmaskingTransformer
from lambent.priors.base import DIFFUSION_FOR, CodePriorSettings
from lambent.settings import option, part


@part("prior", "diffusion")
@dataclass(frozen=True)
class CodeDiffusionPrior(CodePriorSettings):
    """Absorbing-state diffusion over codes (Austin et al. 2021, NeurIPS; Hoogeboom et al. 2022, ICLR).

    Trained on one random set of masked codes an example: an unbiased estimate of a bound on log p(z) under all
    orderings. Measured exactly under the given ones, which takes as many passes as there are codes for each.
    """

    instead: ClassVar[Mapping[str, str]] = DIFFUSION_FOR
    estimated: ClassVar[bool] = True
    model_dim: int = option(128, "embedding size of a token, a multiple of the heads", minimum=1)
    layers: int = option(4, "transformer blocks", minimum=1)
    heads: int = option(4, "attention heads", minimum=1)
    dropout: float = option(
        0.1, "dropout probability of each block's output, before it is added", minimum=0, maximum=0.9
    )
    orderings: int = option(1, "random orderings, whose mixture is the model that is evaluated and sampled", minimum=1)
    sampling_steps: int | None = option(
        None,
        "network passes per sample, each drawing several codes as if independent; none: one pass per code, exact",
        minimum=1,
    )

    def over_codes(
        self, symbols: int, grid: tuple[int, ...], context: ContextShape = 0, condition: int = 0
    ) -> CodeDiffusionPriorModule:
        """The prior, its weights and orderings from torch's current random state."""
        net = UnmaskingTransformer(
            symbols,
            prod(grid),
            width=self.model_dim,
            layers=self.layers,
            heads=self.heads,
            dropout=self.dropout,
            context=context,
            condition=condition,
        )
        return CodeDiffusionPriorModule(net, orders(prod(grid), "random", self.orderings), grid, self.sampling_steps)


class CodeDiffusionPriorModule(nn.Module):
    """p(z|context) over grids of indices: estimated in training mode, exact in evaluation.

    Args:
        net: Fills in masked codes.
        order: (M, D) codes in the order in which they are revealed, the model being the mixture of all M.
        grid: Shape of the grid, D codes in all.
        steps: Passes of a sample; None takes D.
    """

    order: Tensor

    def __init__(self, net: nn.Module, order: Tensor, grid: tuple[int, ...], steps: int | None = None) -> None:
        super().__init__()
        self.net, self.grid, self.steps = net, grid, steps
        self.register_buffer("order", order)

    def forward(self, context: Tensor | None = None) -> MaskedDiffusion:
        """The prior given a context (..., c), of batch shape (...); () without one."""
        bias = next(self.net.parameters())
        given = bias.new_zeros(0) if context is None else context.to(bias.dtype)
        return MaskedDiffusion(self.net, self.order, given, self.grid, estimated=self.training, steps=self.steps)
