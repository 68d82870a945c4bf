"""The uniform distribution on a sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import SphereUniform
from lambent.distributions.sphere import check_dimensions
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("prior", "sphere")
@dataclass(frozen=True)
class SpherePrior(PriorSettings):
    """Uniform on the unit sphere of the latent space, whose surface is one dimension less (Davidson et al. 2018)."""

    latent_kind: ClassVar[LatentKind] = "sphere"

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior as a module without parameters."""
        check_dimensions(shapes.latent, "prior=sphere")
        return SpherePriorModule(shapes.latent)


class SpherePriorModule(nn.Module):
    """p(z) = 1 / surface, whatever the condition.

    >>> SpherePriorModule(2)().log_prob(torch.tensor([0.6, 0.8]))  # -log(2 pi)
    tensor(-1.8379)
    """

    anchor: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def forward(self, condition: Tensor | None = None) -> SphereUniform:
        """The prior, of batch shape ()."""
        return SphereUniform(self.latent, device=self.anchor.device, dtype=self.anchor.dtype)
