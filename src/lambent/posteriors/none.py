"""No posterior, for a model without latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from lambent.errors import CombinationError
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.settings import part


@part("posterior", "none")
@dataclass(frozen=True)
class NoPosterior(PosteriorSettings):
    """Nothing to infer: the model is a density of x itself."""

    latent_kind: ClassVar[LatentKind] = "none"
    amortised: ClassVar[bool] = False

    def width(self, latent: int) -> int:
        """No head: refused."""
        raise CombinationError("posterior=none has no encoder; use model=density")

    def distribution(self, head: Tensor, latent: int, own: Tensor | None = None) -> Distribution:
        """No head: refused."""
        raise CombinationError("posterior=none has no encoder; use model=density")
