"""No prior, for a model without latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lambent.errors import CombinationError
from lambent.priors.base import LatentKind, PriorSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("prior", "none")
@dataclass(frozen=True)
class NoPrior(PriorSettings):
    """Nothing to have a prior of: the model is a density of x itself."""

    latent_kind: ClassVar[LatentKind] = "none"

    @property
    def learns(self) -> bool:
        """No."""
        return False

    def build(self, shapes: Shapes) -> nn.Module:
        """Refused."""
        raise CombinationError("prior=none builds no prior; use model=density")
