"""The exact posterior of a mixture: no encoder, Bayes' rule over all states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from lambent.errors import CombinationError
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import part


@part("posterior", "exact")
@dataclass(frozen=True)
class ExactPosterior(PosteriorSettings):
    """p(z|x) itself, by enumeration (`Mixture` computes it)."""

    latent_kind: ClassVar[LatentKind] = "one-hot"
    amortised: ClassVar[bool] = False

    def width(self, latent: int) -> int:
        """No head: refused."""
        raise CombinationError("posterior=exact has no encoder; use model=mixture")

    def distribution(self, head: Tensor, latent: int, own: Tensor | None = None) -> Distribution:
        """No head: refused."""
        raise CombinationError("posterior=exact has no encoder; use model=mixture")
