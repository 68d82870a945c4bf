"""Categorical priors: the states of a mixture, or categorical latents side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import OneHotCategorical
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "categorical")
@dataclass(frozen=True)
class CategoricalPrior(PriorSettings):
    """One of ``latent`` states, or latent / classes variables of ``classes`` states each; values are one-hot."""

    latent_kind: ClassVar[LatentKind] = "one-hot"
    classes: int | None = option(None, "classes of each variable; none makes all dimensions one variable", minimum=2)
    learned: bool = option(True, "whether the weights are learned; else they stay uniform")  # noqa: FBT003

    @property
    def smallest(self) -> int:
        """The dimensions of one variable."""
        return self.classes or 2

    def states(self, latent: int) -> int:
        """Classes to the power of the number of variables."""
        return latent if self.classes is None else int(self.classes ** (latent // self.classes))

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior, uniform at the start."""
        return CategoricalPriorModule(shapes.latent, self.classes).requires_grad_(self.learned)


class CategoricalPriorModule(nn.Module):
    """p(z = c) = softmax(logits)_c for each variable, whatever the condition."""

    def __init__(self, states: int, classes: int | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.logits = nn.Parameter(torch.zeros(states))

    def forward(self, condition: Tensor | None = None) -> OneHotCategorical:
        """The prior, of batch shape ()."""
        return OneHotCategorical(self.logits, self.classes)
