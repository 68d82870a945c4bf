"""One small discrete latent, enumerated exactly: mixtures of anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions import OneHotCategorical
from lambent.draws import Draw, Enumerate
from lambent.models.base import LatentModel
from lambent.models.structure import LIKELIHOOD, NOT_ONE_LATENT, Absent, Parts, Slot, Structure, likelihood_of
from lambent.networks.base import optional_hook
from lambent.networks.quantisers.kmeans import clusters
from lambent.priors import CategoricalPrior
from lambent.priors.base import LatentKind
from lambent.settings import option, part
from lambent.shapes import Shapes
from lambent.trace import Trace


class Mixture(LatentModel):
    """p(z = c) p(x|z = c) over C states, with the exact posterior p(z|x) by Bayes' rule.

    The prior gives a one-hot categorical; the likelihood is any, of one-hot z.
    """

    likelihood: Any

    def __init__(self, prior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model; with `Enumerate`, K runs over the states."""
        p = self.prior(condition)
        if x is None:
            z = draw("z", p)
            return Trace(self.likelihood(z.value, condition), (z,))
        px, log_joint = self._states(p, x, condition)
        z = draw("z", p, OneHotCategorical(log_joint.transpose(0, 1)))
        return Trace(px if z.log_mass is not None else self.likelihood(z.value, condition), (z,))

    def _states(self, p: Distribution, x: Tensor, condition: Tensor | None) -> tuple[Distribution, Tensor]:
        """p(x|z = c) of batch shape (C, B), and log p(x, z = c), (C, B)."""
        values = p.enumerate_support()
        if not p.batch_shape:
            values = values.unsqueeze(1).expand(-1, len(x), -1)
        px = self.likelihood(values, condition)
        return px, px.log_prob(x) + p.log_prob(values)

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Exact log p(x), (B,), nats."""
        return torch.logsumexp(self._states(self.prior(condition), x, condition)[1], 0)

    @torch.no_grad()
    def initialise(self, x: Tensor, condition: Tensor | None = None) -> None:
        """Starts each state at a cluster of ``x``, where the decoder is one affine map of the one-hot state."""
        self.likelihood.initialise(x)
        affine = optional_hook(self.likelihood.decoder, "affine")
        if affine is None:
            return
        bias = affine.bias.clone()
        assigned = clusters(self.likelihood.as_input(x), self.states)
        for state in range(self.states):
            members = x[assigned == state]
            if len(members):
                self.likelihood.initialise(members)
                affine.weight[:, state] = affine.bias - bias
        affine.bias.copy_(bias)

    @property
    def states(self) -> int:
        """The number of states of z."""
        return int(self.prior(None).event_shape[-1])

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All of it is p; the posterior has no parameters of its own."""
        return {"generative": list(self.parameters()), "inference": []}


@part("model", "mixture")
@dataclass(frozen=True)
class MixtureStructure(Structure):
    """One discrete latent of few states, enumerated exactly."""

    sections: ClassVar[Mapping[str, Slot]] = {
        **LIKELIHOOD,
        "prior": Slot("categorical", (CategoricalPrior,), why="its latent is one of a few states"),
        "draw": Slot("enumerate", (Enumerate,), why="its posterior is the exact one, summed"),
    }
    absent: ClassVar[Mapping[str, Absent]] = {
        **NOT_ONE_LATENT,
        "posterior": Absent("its posterior is the exact one, by Bayes' rule", ("none", "exact")),
        "encoder": Absent("its posterior is the exact one, by Bayes' rule"),
    }
    latent: int = option(10, "number of states", minimum=1)

    def latent_kind(self, parts: Parts) -> LatentKind:
        """The kind of the prior's latents."""
        kind: LatentKind = parts.prior.latent_kind
        return kind

    def assemble(self, config: Parts, shapes: Shapes) -> Mixture:
        """Prior and likelihood; the posterior follows from them."""
        return Mixture(config.prior.build(shapes), likelihood_of(config, shapes))
