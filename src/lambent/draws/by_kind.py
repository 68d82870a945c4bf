"""One draw for continuous latents, another for discrete ones, in one model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import nn
from torch.distributions import Distribution

from lambent.draws.base import Draw
from lambent.draws.discrete import Enumerate
from lambent.draws.pathwise import Pathwise
from lambent.errors import CombinationError
from lambent.settings import option, part, registry
from lambent.trace import Latent

CHOICES = ("enumerate", "score", "gumbel", "st-gumbel", "straight-through")


@part("draw", "mixed")
@dataclass(frozen=True)
class Mixed(Draw):
    """Pathwise where q can be reparameterised, ``discrete`` elsewhere (each at its defaults).

    With discrete=enumerate each state is taken ``samples`` times, the continuous latents drawn anew each time.
    """

    kinds: ClassVar[tuple[str, ...]] = ("mixed",)
    discrete: str = option("enumerate", "draw of the discrete latents", choices=CHOICES)
    other: Draw | None = field(default=None, repr=False)

    @property
    def learning(self) -> str:
        """As the discrete draw is learnt from."""
        return self.chosen.learning

    @property
    def chosen(self) -> Draw:
        """The draw of the discrete latents, with this draw's samples and randomness."""
        other = self.other
        if other is None:
            other = registry.find("draw", self.discrete)()
        if isinstance(other, Enumerate):
            return dataclasses.replace(other, drawn=self.samples, generator=self.generator)
        return dataclasses.replace(other, samples=self.samples, generator=self.generator, control=self.control)

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """By whether q has rsample."""
        assert posterior is not None
        if not posterior.has_rsample:
            return self.chosen(name, prior, posterior)
        if len(posterior.batch_shape) == 1 and self.discrete == "enumerate":
            raise CombinationError(f"latent {name!r}: q must be given the enumerated latent; draw that first")
        return Pathwise(self.samples, self.generator)(name, prior, posterior)

    def at(self, step: int) -> Self:
        """With the discrete draw in force at ``step``."""
        return dataclasses.replace(self, other=self.chosen.at(step))

    def bias(self, *, multi_sample: bool) -> str:
        """The same as for the discrete draw."""
        return self.chosen.bias(multi_sample=multi_sample)

    def parameters_for(self, latent: int, inputs: int) -> nn.Module | None:
        """The same as for the discrete draw."""
        return self.chosen.parameters_for(latent, inputs)

    def evaluating(self) -> Draw:
        """Enumerating where training did, else plain draws."""
        discrete = "enumerate" if self.discrete == "enumerate" else "detached"
        return Mixed(self.samples, self.generator, discrete=discrete)
