"""A prior with heavier tails than the Normal's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, StudentT

from lambent.priors import PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "student-t")
@dataclass(frozen=True)
class StudentTPrior(PriorSettings):
    """Independent Student-t latents of scale 1."""

    df: float = option(5.0, "degrees of freedom: the smaller, the heavier the tails", above=0)

    def build(self, shapes: Shapes) -> nn.Module:
        """The module for ``shapes.latent`` dimensions."""
        return StudentTPriorModule(shapes.latent, self.df)


class StudentTPriorModule(nn.Module):
    """p(z); the buffer follows the model to its device, and isn't part of a checkpoint."""

    loc: Tensor

    def __init__(self, latent: int, df: float) -> None:
        super().__init__()
        self.df = df
        self.register_buffer("loc", torch.zeros(latent), persistent=False)

    def forward(self, condition: Tensor | None = None) -> Distribution:
        """A distribution of event shape (latent,) and empty batch shape."""
        return Independent(StudentT(self.df, self.loc, 1.0, validate_args=False), 1)
