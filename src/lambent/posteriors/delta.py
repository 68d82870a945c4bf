"""The deterministic posterior of autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lambent.distributions import Delta
from lambent.posteriors.base import PosteriorSettings
from lambent.settings import part


@part("posterior", "delta")
@dataclass(frozen=True)
class DeltaPosterior(PosteriorSettings):
    """All mass at m(x); log q = 0 by convention, so that nothing with it is a bound."""

    normalised: ClassVar[bool] = False

    def width(self, latent: int) -> int:
        """The coordinates of the point."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Delta:
        """The point mass at the head's output."""
        return Delta(head)
