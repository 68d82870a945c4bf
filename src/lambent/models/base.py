"""What every structure offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from lambent.draws import Draw
from lambent.trace import Latent, Trace

Penalty = Callable[[Latent], Tensor]


class LatentModel(nn.Module, ABC):
    """A joint p(x, z) with a posterior: an ordinary module whose ``forward`` leaves a `Trace`."""

    likelihood: nn.Module

    @abstractmethod
    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch, its latents obtained by ``draw``."""

    @abstractmethod
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group, so that an objective can give each its own loss; groups are disjoint."""

    def as_input(self, x: Tensor) -> Tensor:
        """``x`` as floats for the encoder, in the units that the likelihood prefers."""
        convert = getattr(self.likelihood, "as_input", None)
        return x.float() if convert is None else convert(x)
