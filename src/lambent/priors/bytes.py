"""Priors of byte vectors: uniform, a category for each byte, a rounded Normal for each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import Categorical, RoundedNormal, bounded_log_scale
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes

BYTES = 256
HALF = (BYTES - 1) / 2


def rounded_normal(loc: Tensor, raw_scale: Tensor, spread: float) -> RoundedNormal:
    """A rounded Normal from unconstrained parameters, in units of ``spread`` bytes around 127.5."""
    return RoundedNormal(HALF + spread * loc, bounded_log_scale(raw_scale) + math.log(spread))


@part("prior", "bytes")
@dataclass(frozen=True)
class BytePrior(PriorSettings):
    """Independent bytes: uniform (log p = -D log 256), or learned."""

    latent_kind: ClassVar[LatentKind] = "bytes"
    learned: str = option(
        "categorical",
        "what is learned of each byte: none, all 256 probabilities, or mean and scale of a rounded Normal",
        choices=("none", "categorical", "normal"),
    )
    init_scale: float = option(2.0, "standard deviation, in bytes, with which a learned Normal is initialised", above=0)

    def states(self, latent: int) -> int:
        """256 to the power of ``latent``."""
        return int(BYTES**latent)

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior of ``shapes.latent`` bytes."""
        if self.learned == "normal":
            return RoundedNormalPriorModule(shapes.latent, self.init_scale)
        return BytePriorModule(shapes.latent).requires_grad_(self.learned == "categorical")


class BytePriorModule(nn.Module):
    """p(z) = prod_d softmax(l_d)[z_d], whatever the condition; starts uniform."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(latent, BYTES))

    def forward(self, condition: Tensor | None = None) -> Categorical:
        """The prior, of batch shape ()."""
        return Categorical(self.logits)


class RoundedNormalPriorModule(nn.Module):
    """p(z) = prod_d RoundedNormal(z_d; m_d, s_d), whatever the condition; starts at mean 127.5 and scale ``spread``."""

    def __init__(self, latent: int, spread: float) -> None:
        super().__init__()
        self.spread = spread
        self.loc, self.raw_scale = nn.Parameter(torch.zeros(latent)), nn.Parameter(torch.zeros(latent))

    def forward(self, condition: Tensor | None = None) -> RoundedNormal:
        """The prior, of batch shape ()."""
        return rounded_normal(self.loc, self.raw_scale, self.spread)
