"""A learned mixture of Normals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions import NormalMixture, bounded_log_scale
from lambent.priors.base import PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "mixture")
@dataclass(frozen=True)
class MixturePrior(PriorSettings):
    """A mixture of diagonal Normals, weights, means and scales learned."""

    components: int = option(10, "number of Normal components", minimum=1)
    init_scale: float = option(1.0, "standard deviation of the components' initial means", above=0)

    def build(self, shapes: Shapes) -> nn.Module:
        """Components start at means drawn from N(0, spread^2) with scale 1."""
        return MixturePriorModule(self.components, shapes.latent, self.init_scale)


class MixturePriorModule(nn.Module):
    """p(z) = sum_c pi_c N(m_c, diag s_c^2), whatever the condition."""

    def __init__(self, components: int, latent: int, spread: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(spread * torch.randn(components, latent))
        self.raw_scale = nn.Parameter(torch.zeros(components, latent))

    def forward(self, condition: Tensor | None = None) -> NormalMixture:
        """The prior, of batch shape ()."""
        return NormalMixture(self.logits, self.loc, bounded_log_scale(self.raw_scale))
