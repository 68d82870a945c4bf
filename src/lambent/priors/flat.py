"""The flat prior of autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lambent.distributions import Flat
from lambent.priors.base import PriorSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("prior", "flat")
@dataclass(frozen=True)
class FlatPrior(PriorSettings):
    """log p(z) = 0 everywhere: no density, so that nothing with it is a bound."""

    normalised: ClassVar[bool] = False

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior as a module without parameters."""
        return FlatPriorModule(shapes.latent)


class FlatPriorModule(nn.Module):
    """The improper prior p(z) proportional to 1."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def forward(self, condition: Tensor | None = None) -> Flat:
        """The improper prior, of batch shape ()."""
        return Flat((self.latent,))
