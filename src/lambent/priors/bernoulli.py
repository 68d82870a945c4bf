"""Priors of binary latents: independent and autoregressive Bernoulli variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import AutoregressiveBernoulli, Bernoulli
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "bernoulli")
@dataclass(frozen=True)
class BernoulliPrior(PriorSettings):
    """Independent Bernoulli variables, as the top layer of a sigmoid belief network."""

    latent_kind: ClassVar[LatentKind] = "binary"
    learned: bool = option(True, "whether the logits are learned; else all probabilities are 1/2")  # noqa: FBT003

    def states(self, latent: int) -> int:
        """2 to the power of ``latent``."""
        return int(2**latent)

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior, with all probabilities 1/2 at the start."""
        return BernoulliPriorModule(shapes.latent).requires_grad_(self.learned)


class BernoulliPriorModule(nn.Module):
    """p(z) = prod_d Bernoulli(z_d; l_d), whatever the condition."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(latent))

    def forward(self, condition: Tensor | None = None) -> Bernoulli:
        """The prior, of batch shape ()."""
        return Bernoulli(self.logits)


@part("prior", "autoregressive-bernoulli")
@dataclass(frozen=True)
class AutoregressiveBernoulliPrior(PriorSettings):
    """Binary variables in order, each a logistic regression on those before it (Gregor et al. 2014, section 3)."""

    latent_kind: ClassVar[LatentKind] = "binary"

    def states(self, latent: int) -> int:
        """2 to the power of ``latent``."""
        return int(2**latent)

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior, with independent variables of probability 1/2 at the start."""
        return AutoregressiveBernoulliPriorModule(shapes.latent)


class AutoregressiveBernoulliPriorModule(nn.Module):
    """p(z) = prod_d Bernoulli(z_d; l_d + sum_{j<d} W_dj z_j), whatever the condition."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(latent))
        self.weight = nn.Parameter(torch.zeros(latent, latent))

    def forward(self, condition: Tensor | None = None) -> AutoregressiveBernoulli:
        """The prior, of batch shape ()."""
        return AutoregressiveBernoulli(self.logits, self.weight)
