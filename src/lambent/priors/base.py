"""What a prior's settings promise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import nn

from lambent.shapes import Shapes

LatentKind = Literal["continuous", "one-hot", "binary", "mixed", "none"]


class PriorSettings(ABC):
    """Settings that build a module whose ``forward(condition=None)`` returns p(z), or p(z|c)."""

    latent_kind: ClassVar[LatentKind] = "continuous"
    normalised: ClassVar[bool] = True

    def states(self, latent: int) -> int | None:
        """How many values ``latent`` dimensions take; None where they are continuous."""
        return None

    @abstractmethod
    def build(self, shapes: Shapes) -> nn.Module:
        """The prior for latents of ``shapes.latent`` dimensions."""
