"""A chain of latents: inferred upwards, generated downwards."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lambent.draws import Draw, Enumerate
from lambent.errors import ConfigError
from lambent.models.base import LatentModel
from lambent.models.structure import Parts, VectorLevels, likelihood_of
from lambent.networks import MLPEncoder
from lambent.networks.base import EncoderSettings
from lambent.posteriors import AmortisedPosteriorModule
from lambent.settings import option, part
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace


class MarkovChain(LatentModel):
    """p(zN) p(zN-1|zN) ... p(x|z1) with q(z1|x) q(z2|z1) ... q(zN|zN-1).

    Sigmoid belief networks and Helmholtz machines (Dayan et al. 1995), two-layer VAEs (Burda et al. 2016, section 5.1).
    Only the top level's rate has a closed form: the prior of a lower level hangs on values drawn after its own.

    Args:
        prior: p(zN), ``prior(condition)``.
        posteriors: q of levels 1 to N, the first called with x, the others by ``given(z, condition)``.
        conditionals: p(z1|z2) to p(zN-1|zN), called by ``given(z, condition)``.
        likelihood: p(x|z1).
        states: Number of values of each level, where they are discrete and small enough to enumerate.
    """

    likelihood: Any

    def __init__(
        self,
        prior: nn.Module,
        posteriors: Sequence[nn.Module],
        conditionals: Sequence[nn.Module],
        likelihood: nn.Module,
        states: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.prior, self.likelihood, self.states = prior, likelihood, tuple(states)
        self.posteriors: Any = nn.ModuleList(posteriors)
        self.conditionals: Any = nn.ModuleList(conditionals)

    @property
    def names(self) -> list[str]:
        """Of the levels, lowest first: z1, z2, ..."""
        return [f"z{i + 1}" for i in range(len(self.posteriors))]

    def forward(self, x: Tensor | None, draw: Draw, condition: Tensor | None = None) -> Trace:
        """Runs the model upwards on a batch ``x``, or downwards without one."""
        latents = self._down(draw, condition) if x is None else self._up(x, draw, condition)
        return Trace(self.likelihood(latents[0].value, condition), tuple(latents))

    def _up(self, x: Tensor, draw: Draw, condition: Tensor | None) -> list[Latent]:
        seen = self.as_input(x)
        draw = self._placed(draw).informed(self.control, seen)
        latents: list[Latent] = []
        for name, posterior in zip(self.names, self.posteriors, strict=True):
            q = posterior.given(latents[-1].value, condition) if latents else posterior(seen, condition)
            latents.append(draw(name, q, q))  # its own prior is known once the level above is drawn
        return [self._scored(i, latents, condition) for i in range(len(latents))]

    def _scored(self, level: int, latents: list[Latent], condition: Tensor | None) -> Latent:
        if level + 1 == len(latents):
            return dataclasses.replace(latents[level], p=self.prior(condition))
        p = self.conditionals[level].given(latents[level + 1].value, condition)
        return dataclasses.replace(latents[level], p=p, analytic=False)

    def _down(self, draw: Draw, condition: Tensor | None) -> list[Latent]:
        latents = [draw(self.names[-1], self.prior(condition))]
        for name, conditional in zip(self.names[-2::-1], reversed(self.conditionals), strict=True):
            latents.insert(0, draw(name, conditional.given(latents[0].value, condition)))
        return latents

    def _placed(self, draw: Draw) -> Draw:
        """Gives an enumeration each level's position among the others."""
        if not isinstance(draw, Enumerate):
            return draw
        rows = [math.prod(self.states[i + 1 :]) for i in range(len(self.states))]
        turns = [math.prod(self.states[:i]) for i in range(len(self.states))]
        return dataclasses.replace(draw, places=dict(zip(self.names, zip(rows, turns, strict=True), strict=False)))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of p ("generative") and of q ("inference")."""
        generative = [p for part in (self.prior, self.conditionals, self.likelihood) for p in part.parameters()]
        return {"generative": generative, "inference": list(self.posteriors.parameters()), **self.control_group()}


@part("model", "chain")
@dataclass(frozen=True)
class ChainStructure(VectorLevels):
    """Levels of latents, inferred upwards and generated downwards, all of the posterior's family."""

    latent: int = option(10, "latent dimensions of the lowest level", minimum=1)
    upper_latents: tuple[int, ...] = option(
        (10,), "latent dimensions of each level above the lowest, from lowest to highest", minimum=1
    )
    between_hidden: tuple[int, ...] = option(
        (), "width of each hidden layer of the networks between levels; none: as in the encoder", minimum=1
    )

    def assemble(self, config: Parts, shapes: Shapes) -> MarkovChain:
        """One encoder a level upwards, one downwards, all built as the recipe's encoder."""
        inner = self._between(config)
        q, p = config.posterior, config.posterior.conditional()
        lowest = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        posteriors = [AmortisedPosteriorModule(q, lowest, self.latent)]
        conditionals = []
        for down, up in itertools.pairwise(self.sizes):
            posteriors.append(AmortisedPosteriorModule(q, inner.build((down,), shapes.condition), up))
            conditionals.append(_flattened(AmortisedPosteriorModule(p, inner.build((up,), shapes.condition), down)))
        prior = config.prior.build(replace(shapes, latent=self.sizes[-1]))
        return MarkovChain(prior, posteriors, conditionals, likelihood_of(config, shapes), self.states(config))

    def _between(self, config: Parts) -> EncoderSettings:
        """Settings of the networks between levels."""
        encoder: EncoderSettings = config.encoder
        if not self.between_hidden:
            return encoder
        if not isinstance(encoder, MLPEncoder):
            raise ConfigError(
                "model.between_hidden gives widths of fully connected networks; use encoder=mlp, or no "
                "model.between_hidden"
            )
        return replace(encoder, hidden=self.between_hidden)


def _flattened(level: AmortisedPosteriorModule, gain: float = 0.1) -> AmortisedPosteriorModule:
    """Starts p(z|level above) nearly the same for all: a scale too small by chance costs thousands of nats."""
    with torch.no_grad():
        level.head.weight.mul_(gain)
        level.head.bias.zero_()
    return level
