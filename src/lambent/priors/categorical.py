"""The learned categorical prior of a mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import OneHotCategorical
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("prior", "categorical")
@dataclass(frozen=True)
class CategoricalPriorSettings(PriorSettings):
    """One of `latent` states, weights learned, values one-hot."""

    latent_kind: ClassVar[LatentKind] = "one-hot"

    def build(self, shapes: Shapes) -> nn.Module:
        """Starts uniform."""
        return CategoricalPrior(shapes.latent)


class CategoricalPrior(nn.Module):
    """p(z = c) = softmax(logits)_c, whatever the condition."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states))

    def forward(self, condition: Tensor | None = None) -> OneHotCategorical:
        """The prior, with batch shape ()."""
        return OneHotCategorical(self.logits)
