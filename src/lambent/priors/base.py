"""What a prior's settings promise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import nn

from lambent.errors import CombinationError
from lambent.shapes import Shapes

LatentKind = Literal["continuous", "sphere", "one-hot", "binary", "bytes", "codes", "mixed", "none"]


class PriorSettings(ABC):
    """Settings that build a module whose ``forward(condition=None)`` returns p(z), or p(z|c)."""

    latent_kind: ClassVar[LatentKind] = "continuous"
    normalised: ClassVar[bool] = True
    estimated: ClassVar[bool] = False
    """Whether training sees an unbiased estimate of a bound on log p(z) in its place."""

    @property
    def learns(self) -> bool:
        """Whether it has parameters."""
        return True

    def states(self, latent: int) -> int | None:
        """How many values ``latent`` dimensions take; None where they are continuous."""
        return None

    @abstractmethod
    def build(self, shapes: Shapes) -> nn.Module:
        """The prior for latents of ``shapes.latent`` dimensions."""


class CodePriorSettings(PriorSettings):
    """Settings of a prior over grids of code indices."""

    latent_kind: ClassVar[LatentKind] = "codes"

    @abstractmethod
    def over_codes(
        self, symbols: int, grid: tuple[int, ...], context: int | tuple[int, int, int] = 0, condition: int = 0
    ) -> nn.Module:
        """The prior as a module ``forward(context=None) -> p`` over grids of ``symbols`` codes.

        Args:
            symbols: Number of codes.
            grid: Shape of the grid: the event of p, whose values are indices.
            context: What p is given of the levels above: so many numbers or a map (C, h, w); it comes flat, (B, c), or
                with samples in front, (K, B, c).
            condition: Numbers of the condition, which follow those.
        """

    def build(self, shapes: Shapes) -> nn.Module:
        """Refused: codes come in a grid that only a model of codes knows."""
        raise CombinationError("a prior over codes needs a model of codes; use model=quantised")
