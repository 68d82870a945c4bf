"""What every structure offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.draws import Detached, Draw
from lambent.errors import ShapeError
from lambent.networks.base import optional_hook
from lambent.priors.base import AdaptivePriorModule
from lambent.trace import Latent, Trace

Penalty = Callable[[Latent], Tensor]


class LatentModel(nn.Module, ABC):
    """A joint p(x, z) with a posterior: an ordinary module whose ``forward`` leaves a `Trace`.

    Attributes:
        likelihood: p(x|z).
        control: What the training's draw learns for itself (a baseline, a control variate), or None.
        state_count: The number of joint values of the latents, where all are discrete: log p(x) is a sum over them.
    """

    likelihood: nn.Module
    state_count: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.control: nn.Module | None = None

    @abstractmethod
    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch, its latents obtained by ``draw``."""

    @abstractmethod
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group, so that an objective can give each its own loss; groups are disjoint."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the levels, lowest first, of a model with a hierarchy of them; empty for other models."""
        return ()

    @property
    def top_prior(self) -> nn.Module | None:
        """The prior of the latents that no other latent generates; None where the model has none."""
        return self._modules.get("prior")

    def prior_parameters(self) -> list[nn.Parameter]:
        """Those of p over the latents that no other latent generates: what a second stage trains by itself."""
        return [] if self.top_prior is None else list(self.top_prior.parameters())

    def group_buffers(self) -> dict[str, list[Tensor]]:
        """Buffers that belong to a group, beside those of modules whose parameters all do."""
        return {}

    def initialise(self, x: Tensor, condition: Tensor | None = None) -> None:
        """Starts from the means of some examples ``x`` (N, *event), as far as the likelihood can."""
        start = optional_hook(self.likelihood, "initialise")
        if start is not None:
            start(x)

    @torch.no_grad()
    def initialise_prior(
        self, x: Tensor, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Lets the prior start from draws of q(z|x) at some examples ``x`` (N, *event), if it is adaptive."""
        if isinstance(self.top_prior, AdaptivePriorModule):
            self.top_prior.initialise(self._under_prior(self(x, Detached(generator=generator), condition)))

    @staticmethod
    def _under_prior(trace: Trace) -> Tensor:
        """Values of the level that the prior generates, the last one, (K, B, *latent)."""
        value = trace.latents[-1].value
        assert value is not None
        return value

    def update_buffers(
        self, trace: Trace, total: Callable[[Tensor], Tensor], *, leader: bool = True, counted: bool = True
    ) -> None:
        """Learns from a step that was taken what no gradient teaches (codebooks that are moving averages).

        An adaptive prior follows the values of its level, unless all of q is frozen.

        Args:
            trace: Of that step.
            total: Sums a tensor over processes.
            leader: Whether this process decides where one must.
            counted: Whether its examples count, or only fill up a batch shared with other processes.
        """
        prior = self.top_prior
        if isinstance(prior, AdaptivePriorModule) and any(p.requires_grad for p in self.groups().get("inference", [])):
            value = self._under_prior(trace)
            prior.update_buffers(value if counted else value[:, :0], total)

    def pop_metrics(self) -> dict[str, Any]:
        """What the model counted since the last call, for the metrics; called at each validation."""
        return {}

    def as_input(self, x: Tensor) -> Tensor:
        """``x`` as floats for the encoder, in the units that the likelihood prefers."""
        convert = optional_hook(self.likelihood, "as_input")
        return x.float() if convert is None else convert(x)

    def encode(self, x: Tensor, draw: Draw, condition: Tensor | None = None) -> Tensor:
        """The code of each example, (K, B, code): at the mode of q, or at draws of it."""
        return self.code(self(x, draw, condition))

    def code(self, trace: Trace) -> Tensor:
        """What p(x|z) looks at, (K, B, code): the lowest level's value."""
        value = trace.latents[0].value
        assert value is not None
        return value

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """p(x|z) at a code (K, B, code)."""
        px: Distribution = self.likelihood(code, condition)
        return px

    def control_group(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of ``control`` as a group, if it has any."""
        parameters = [] if self.control is None else list(self.control.parameters())
        return {"control": parameters} if parameters else {}


def split_code(code: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """The levels of a code (K, B, sum of sizes), lowest first.

    Raises:
        ShapeError: a code of another width.
    """
    if code.shape[-1] != sum(sizes):
        raise ShapeError(
            f"latents of {code.shape[-1]} numbers, expected {sum(sizes)}: all levels side by side, the lowest first"
        )
    return code.split(list(sizes), -1)
