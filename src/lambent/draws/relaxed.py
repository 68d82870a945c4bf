"""Draws of discrete latents through a continuous relaxation: low variance, biased."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.distributions.codes import CodeAssignment
from lambent.distributions.relaxed import harden, noisy, require_relaxable, soften
from lambent.distributions.sampling import sample
from lambent.draws.base import Draw
from lambent.draws.discrete import Detached
from lambent.settings import option, part
from lambent.trace import Latent


@dataclass(frozen=True)
class _Relaxing(Draw):
    """What the relaxing draws share: a temperature that may fall over the training."""

    kinds: ClassVar[tuple[str, ...]] = ("one-hot", "binary")
    gradient: ClassVar[str] = "path"
    relaxes: ClassVar[bool] = True
    temperature: float = option(1.0, "initial temperature of the relaxation", above=0)
    final_temperature: float = option(0.5, "final temperature, reached by exponential decay", above=0)
    anneal_steps: int = option(10_000, "training steps until the final temperature is reached", minimum=1)

    def at(self, step: int) -> Self:
        """With the temperature in force: its logarithm falls linearly."""
        done = min(1.0, step / self.anneal_steps)
        now = self.temperature ** (1 - done) * self.final_temperature**done
        return dataclasses.replace(self, temperature=now, final_temperature=now)

    def evaluating(self) -> Draw:
        """Draws of the discrete latent itself, not relaxed."""
        return Detached(generator=self.generator)


@part("draw", "gumbel")
@dataclass(frozen=True)
class Gumbel(_Relaxing):
    """The relaxed value for the discrete one: Gumbel-softmax, Concrete (Jang et al. 2017; Maddison et al. 2017).

    Training sees a continuous latent, so that its numbers are no bound; evaluation draws the discrete one.
    """

    def bias(self, *, multi_sample: bool) -> str:
        """The gradient is always biased."""
        return "gumbel trains on a relaxed latent, so that its gradient is biased and its training numbers are no bound"

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The relaxed value, with gradients."""
        assert posterior is not None
        q = require_relaxable(name, posterior)
        value = soften(q, noisy(q, self.lead(q), self.generator), self.temperature)
        return Latent(name, value, prior, posterior, relaxed=True)


@part("draw", "st-gumbel")
@dataclass(frozen=True)
class StraightThroughGumbel(_Relaxing):
    """The discrete value forwards, the gradient of the relaxed one backwards (Jang et al. 2017, section 2.2)."""

    def bias(self, *, multi_sample: bool) -> str:
        """The gradient is always biased."""
        return "st-gumbel differentiates a relaxed latent in place of the discrete one: a biased gradient"

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The discrete value with the relaxed one's gradient."""
        assert posterior is not None
        q = require_relaxable(name, posterior)
        z = noisy(q, self.lead(q), self.generator)
        soft = soften(q, z, self.temperature)
        return Latent(name, harden(q, z) + (soft - soft.detach()), prior, posterior)


@part("draw", "straight-through")
@dataclass(frozen=True)
class StraightThrough(Draw):
    """The discrete value forwards, the gradient of its mean backwards (Bengio et al. 2013, section 4).

    Of a number rounded to a byte, or a vector taken to a code: the gradient of what was there before.
    """

    kinds: ClassVar[tuple[str, ...]] = ("one-hot", "binary", "bytes", "codes")
    gradient: ClassVar[str] = "path"
    relaxes: ClassVar[bool] = True

    def bias(self, *, multi_sample: bool) -> str:
        """The gradient is always biased."""
        return "straight-through differentiates the latent's mean in place of its value: a biased gradient"

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The discrete value with the mean's gradient, or with its own."""
        assert posterior is not None
        if isinstance(posterior, OwnDistribution) and posterior.straight_through:
            value = posterior.rsample(self.lead(posterior), self.generator)
            known = posterior.scores(prior, value) if isinstance(posterior, CodeAssignment) else {}
            return Latent(name, value, prior, posterior, known)
        q = require_relaxable(name, posterior)
        mean = q.mean
        return Latent(name, sample(q, self.lead(q), self.generator) + (mean - mean.detach()), prior, posterior)

    def evaluating(self) -> Draw:
        """Draws of the discrete latent itself, not relaxed."""
        return Detached(generator=self.generator)
