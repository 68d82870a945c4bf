"""Unbiased draws of discrete latents with a relaxation as control variate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions.relaxed import conditional, harden, noisy, require_relaxable, soften
from lambent.draws.base import Draw
from lambent.draws.baselines import scalar_net
from lambent.draws.discrete import Detached
from lambent.errors import CombinationError
from lambent.settings import option, part
from lambent.trace import Latent


class ControlVariate(nn.Module):
    """What REBAR learns (a temperature and a scale), and what RELAX adds (a network of the relaxed latent).

    All of it is fitted by lowering the variance of the gradient that it corrects.
    """

    def __init__(self, temperature: float, latent: int = 0, units: int = 0) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.scale = nn.Parameter(torch.ones(()))
        self.net = scalar_net(latent, units) if units else None

    @property
    def temperature(self) -> Tensor:
        """The temperature of the relaxation."""
        return self.log_temperature.exp()

    def extra(self, relaxed: Tensor) -> Tensor | float:
        """RELAX's own term of the control variate at relaxed latents (K, B, *latent), (K, B); 0 for REBAR."""
        return 0.0 if self.net is None else self.net(relaxed.flatten(2)).squeeze(-1)


@dataclass(frozen=True)
class _Controlled(Draw):
    """Stacks three versions of each of K samples along K: the draw, its relaxation, one redrawn given the draw."""

    kinds: ClassVar[tuple[str, ...]] = ("one-hot", "binary")
    gradient: ClassVar[str] = "control"
    relaxes: ClassVar[bool] = True
    temperature: float = option(0.5, "initial temperature of the relaxation, which is learned", above=0)

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The three versions; log q of the draws as score."""
        assert posterior is not None
        if len(posterior.batch_shape) == 2:
            raise CombinationError(f"latent {name!r}: rebar and relax control one level only; use draw=score below it")
        if self.control is None:
            raise CombinationError(f"latent {name!r}: no control variate for this draw; build the model with it")
        q, variate = require_relaxable(name, posterior), self.control.func
        z = noisy(q, self.lead(q), self.generator)
        hard = harden(q, z)
        again = conditional(q, hard, self.generator)
        soft = [soften(q, v, variate.temperature) for v in (z, again)]
        value = torch.cat([hard, *soft])
        return Latent(name, value, prior, posterior, score=q.log_prob(hard), control=variate)

    def evaluating(self) -> Draw:
        """Draws of the discrete latent itself, not relaxed."""
        return Detached(generator=self.generator)


@part("draw", "rebar")
@dataclass(frozen=True)
class Rebar(_Controlled):
    """The objective at the relaxed latent as control variate (Tucker et al. 2017, eq. 5): unbiased."""

    def parameters_for(self, latent: int, inputs: int) -> nn.Module:
        """The control variate's temperature and scale."""
        return ControlVariate(self.temperature)


@part("draw", "relax")
@dataclass(frozen=True)
class Relax(_Controlled):
    """REBAR's control variate and a network beside it (Grathwohl et al. 2018, eq. 8 and section 3.3): unbiased."""

    hidden_dim: int = option(50, "hidden units of the control variate's network", minimum=1)

    def parameters_for(self, latent: int, inputs: int) -> nn.Module:
        """Temperature, scale and network."""
        return ControlVariate(self.temperature, latent, self.hidden_dim)
