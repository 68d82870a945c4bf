"""No latents at all: log p(x) is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions import OneHotCategorical
from lambent.distributions.autoregressive import Autoregressive
from lambent.draws import Ancestral, Draw
from lambent.errors import CombinationError, ConfigError
from lambent.models.base import LatentModel
from lambent.models.structure import NOT_ONE_LATENT, Absent, Parts, Slot, Structure, likelihood_of
from lambent.networks import AutoregressiveSettings
from lambent.priors.base import LatentKind
from lambent.settings import part
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace


class Density(LatentModel):
    """p(x), or p(x|c), itself: a likelihood of a code with no numbers in it.

    A mixture over orderings is trained one ordering at a time, drawn at random: its trace then holds the ordering as a
    latent whose posterior is its prior, and its number is a lower bound. In evaluation all orderings are summed: exact.
    """

    likelihood: Any

    def __init__(self, likelihood: nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """The trace of a batch ``x``, without latents; None generates, as many as `Ancestral` says."""
        px = self._given(_items(x, draw), condition)
        if self.training and x is not None and isinstance(px, Autoregressive) and len(px.orderings) > 1:
            return _one_ordering(px, draw.generator)
        return Trace(px)

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Exact log p(x), (B,), nats."""
        return self._given(len(x), condition).log_prob(x)[0]

    def _given(self, items: int, condition: Tensor | None) -> Distribution:
        nothing = next(self.parameters()).new_zeros(1, items, 0)
        px: Distribution = self.likelihood(nothing, condition)
        return px

    def code(self, trace: Trace) -> Tensor:
        """Refused: there is none."""
        raise ConfigError("this model has no latents, so nothing to encode; use its samples and its log p(x)")

    def decode(self, code: Tensor, condition: Tensor | None = None) -> Distribution:
        """Refused: there is nothing to decode."""
        raise ConfigError("this model has no latents, so nothing to decode; use its samples and its log p(x)")

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All of it is p."""
        return {"generative": list(self.parameters()), "inference": []}


def _items(x: Tensor | None, draw: Draw) -> int:
    if x is not None:
        return len(x)
    if isinstance(draw, Ancestral):
        return draw.batch
    raise CombinationError(
        f"without x a model without latents can only generate, and {type(draw).__name__} does not; use Ancestral"
    )


def _one_ordering(px: Autoregressive, generator: torch.Generator | None) -> Trace:
    """p(x| ordering) of an ordering drawn for the whole batch."""
    source = torch.device("cpu") if generator is None else generator.device
    chosen = int(torch.randint(len(px.orderings), (), generator=generator, device=source))
    device = px.context.device
    p = OneHotCategorical(torch.zeros(len(px.orderings), device=device))
    value = p.one_hot(torch.full((*px.batch_shape, 1), chosen, device=device))
    return Trace(px.only(px.orderings[chosen]), (Latent("ordering", value, p, p),))


@part("model", "density")
@dataclass(frozen=True)
class DensityStructure(Structure):
    """No latents: log p(x) is exact, from an autoregressive network in the decoder's place."""

    sections: ClassVar[Mapping[str, Slot]] = {
        "likelihood": Slot("bernoulli"),
        "decoder": Slot("made", (AutoregressiveSettings,), why="p(x) without latents needs an autoregressive network"),
        "objective": Slot("log-likelihood", names=("log-likelihood",), why="log p(x) is exact, not to be bounded"),
        "schedule": Slot("joint"),
    }
    absent: ClassVar[Mapping[str, Absent]] = {
        **NOT_ONE_LATENT,
        **dict.fromkeys(("prior", "posterior", "encoder", "draw"), Absent("it has no latents")),
        "rate": Absent("it has no latents", ("none", "sum")),
    }
    latent: int = field(default=0, init=False)

    def latent_kind(self, parts: Parts) -> LatentKind:
        """No kind: there are no latents."""
        return "none"

    def assemble(self, config: Parts, shapes: Shapes) -> Density:
        """A model with only a likelihood."""
        return Density(likelihood_of(config, replace(shapes, latent=0)))
