"""Draws for using a model: generation, replay, and the most probable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.distributions.sampling import sample
from lambent.draws.base import Draw
from lambent.errors import ConfigError, ShapeError
from lambent.trace import Latent


@dataclass(frozen=True)
class Ancestral(Draw):
    """z from the prior: generation. ``batch`` is B where the prior doesn't fix it.

    A diffusion, of x or of a prior's z, visits ``steps`` of its levels (none: as many as it wants to), and adds fresh
    noise at each: 1 is the chain itself, 0 its deterministic double (DDIM).
    """

    batch: int = 1
    steps: int | None = None
    noise: float = 1.0
    from_posterior: ClassVar[bool] = False

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """A draw of p, outside the graph."""
        shape = (self.samples, self.batch)[: 2 - len(prior.batch_shape)]
        visited = prior.visiting(self.steps, self.noise) if isinstance(prior, OwnDistribution) else prior
        return Latent(name, sample(visited, shape, self.generator), prior, posterior)


@dataclass(frozen=True)
class Given(Draw):
    """Values from outside, (K, B, *latent) by level name: replay, interventions, interpolation."""

    values: Mapping[str, Tensor] = field(default_factory=dict)
    from_posterior: ClassVar[bool] = False

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The value given under ``name``."""
        if name not in self.values:
            raise ConfigError(f"no value given for latent {name!r}; given: {', '.join(self.values) or 'none'}")
        value = self.values[name]
        if value.dim() < 2 or value.shape[2:] != prior.event_shape:
            raise ShapeError(
                f"latent {name!r}: given {tuple(value.shape)}, expected (K, B) + {tuple(prior.event_shape)}"
            )
        return Latent(name, value, prior, posterior)


@dataclass(frozen=True)
class Mode(Draw):
    """The most probable value: deterministic encoding (and, without x, the prior's mode)."""

    batch: int = 1
    from_posterior: ClassVar[bool] = False

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The mode of q where there is one, else of p."""
        source = prior if posterior is None else posterior
        shape = (self.samples, self.batch)[: 2 - len(source.batch_shape)]
        return Latent(name, source.mode.expand(*shape, *source.batch_shape, *source.event_shape), prior, posterior)


@dataclass(frozen=True)
class Held(Given):
    """The values given for the levels named, the prior for all others: what some levels leave to the rest.

    For a model run without x. The others are drawn as many at a time as are given, else ``samples`` times ``batch``.

    Attributes:
        mode: Takes the mode of the other levels' priors in place of draws.
        steps: Levels that a diffusion visits, as of `Ancestral`.
        noise: Share of its noise added at each.
    """

    batch: int = 1
    mode: bool = False
    steps: int | None = None
    noise: float = 1.0

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The value given under ``name``, else one of p."""
        if name in self.values:
            return super().draw(name, prior, posterior)
        given = next(iter(self.values.values()), None)
        samples, batch = (self.samples, self.batch) if given is None else given.shape[:2]
        if self.mode:
            return Mode(samples, self.generator, batch=batch).draw(name, prior, None)
        other = Ancestral(samples, self.generator, batch=batch, steps=self.steps, noise=self.noise)
        return other.draw(name, prior, None)
