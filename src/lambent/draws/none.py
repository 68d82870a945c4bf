"""No draw, for a model without latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.distributions import Distribution

from lambent.draws.base import Draw
from lambent.errors import CombinationError
from lambent.settings import part
from lambent.trace import Latent


@part("draw", "none")
@dataclass(frozen=True)
class NoDraw(Draw):
    """Nothing to draw: log p(x) is exact as it stands, as if all (no) latents had been summed."""

    kinds: ClassVar[tuple[str, ...]] = ("none",)
    gradient: ClassVar[str] = "sum"

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """Refused: the model has a latent after all."""
        raise CombinationError(f"latent {name!r} asks for a draw, and draw=none has none; use draw=pathwise")
