"""A discrete and a continuous latent side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lambent.distributions import OneHotCategorical
from lambent.draws import Draw
from lambent.models.base import LatentModel
from lambent.models.structure import INFERRED, Parts, Slot, Structure, likelihood_of
from lambent.priors import CategoricalPriorModule
from lambent.priors.base import SMOOTH, LatentKind
from lambent.settings import Conflict, option, part
from lambent.shapes import Shapes
from lambent.trace import Trace


class Joint(LatentModel):
    """p(y) p(z) p(x|y,z) with q(y|x) q(z|x,y): y one of a few states, z continuous.

    Drawn y first, so that y can be enumerated and z drawn for each of its values (Kingma et al. 2014, eq. 7).

    Args:
        discrete: p(y), ``discrete(condition)``.
        prior: p(z).
        encoder: Features of x for both posteriors.
        family: The posterior family of z: ``width(latent)`` numbers make its distribution.
        likelihood: p(x | [z, y]).
        latent: Dimensions of z.
    """

    likelihood: Any
    encoder: Any

    def __init__(
        self,
        discrete: nn.Module,
        prior: nn.Module,
        encoder: nn.Module,
        family: Any,
        likelihood: nn.Module,
        latent: int,
    ) -> None:
        super().__init__()
        self.discrete, self.prior, self.encoder, self.likelihood = discrete, prior, encoder, likelihood
        self.family, self.latent = family, latent
        self.states = int(discrete(None).event_shape[0])
        features = self.encoder.features
        self.state_head = nn.Linear(features, self.states)
        self.head = nn.Linear(features + self.states, family.width(latent))
        family.initialise(self.head, latent)
        shared_parameters = family.shared_size(latent)
        self.own = nn.Parameter(torch.zeros(shared_parameters)) if shared_parameters else None

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model on a batch ``x``; None generates."""
        if x is None:
            y, z = draw("y", self.discrete(condition)), draw("z", self.prior(condition))
            return Trace(self.likelihood(_beside(z.value, y.value), condition), (y, z))
        seen = self.as_input(x)
        features = self.encoder(seen.to(self.head.weight.dtype), condition)
        draw = draw.informed(self.control, seen)
        y = draw("y", self.discrete(condition), OneHotCategorical(self.state_head(features)))
        numbers = self.head(_beside(features.unsqueeze(0), y.value))
        z = draw("z", self.prior(condition), self.family.distribution(numbers, self.latent, self.own))
        return Trace(self.likelihood(_beside(z.value, y.value), condition), (y, z))

    def code(self, trace: Trace) -> Tensor:
        """[z, y], (K, B, latent + states)."""
        y, z = trace.latents
        return _beside(z.value, y.value)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative") and of q ("inference")."""
        generative = [p for part in (self.discrete, self.prior, self.likelihood) for p in part.parameters()]
        inference = [p for part in (self.encoder, self.state_head, self.head) for p in part.parameters()]
        shared_parameters = [] if self.own is None else [self.own]
        return {"generative": generative, "inference": [*inference, *shared_parameters], **self.control_group()}


def _beside(first: Tensor | None, second: Tensor | None) -> Tensor:
    """The two along their last dimension, each with the other's number of samples."""
    assert first is not None
    assert second is not None
    samples = max(first.shape[0], second.shape[0])
    return torch.cat([t.expand(samples, *t.shape[1:]) for t in (first, second)], -1)


@part("model", "discrete-continuous")
@dataclass(frozen=True)
class JointStructure(Structure):
    """A categorical latent y beside the continuous one z, which is inferred given y."""

    sections: ClassVar[Mapping[str, Slot]] = {**INFERRED, "draw": Slot("mixed")}
    latent: int = option(10, "dimensions of the continuous latent", minimum=1)
    states: int = option(10, "states of the discrete latent", minimum=2)

    def latent_kind(self, parts: Parts) -> LatentKind:
        """Both kinds at once."""
        return "mixed"

    def conflicts(self, parts: Parts) -> Conflict | None:
        """Beside the discrete latent stands a continuous one."""
        if parts.posterior.latent_kind in SMOOTH:
            return None
        why = "its discrete latent comes beside a continuous one; use posterior=normal"
        return Conflict(("model", "posterior"), why)

    def assemble(self, config: Parts, shapes: Shapes) -> Joint:
        """One encoder for both; the decoder sees both."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        likelihood = likelihood_of(config, replace(shapes, latent=self.latent + self.states))
        discrete = CategoricalPriorModule(self.states)
        return Joint(discrete, config.prior.build(shapes), encoder, config.posterior, likelihood, self.latent)
