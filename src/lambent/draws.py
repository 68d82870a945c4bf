"""Draws: how one latent gets its value and its gradient.

The only effect in a model. Training, generation, reconstruction and "set these latents" are one loop in the model,
run with another draw. ``draw(name, prior, posterior)`` gives a `Latent` whose value leads with (K, B).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.distributions.sampling import detached, rsample_and_log_prob, sample
from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.settings import option, part
from lambent.trace import Latent


@dataclass(frozen=True)
class Draw(ABC):
    """Base of all draws; ``samples`` is K, fixed before the first level and never multiplied twice."""

    samples: int = option(1, "importance samples K per example", minimum=1)
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)
    from_posterior: ClassVar[bool] = True
    """Whether values come from q (so that the model must be given x)."""

    def __call__(self, name: str, prior: Distribution, posterior: Distribution | None = None) -> Latent:
        """The latent ``name``, drawn.

        Raises:
            CombinationError: this draw can't be made of this distribution; names the latent and what would do.
            ShapeError: prior and posterior speak of different latents.
        """
        if posterior is not None and posterior.event_shape != prior.event_shape:
            q_shape, p_shape = tuple(posterior.event_shape), tuple(prior.event_shape)
            raise ShapeError(f"latent {name!r}: q has event shape {q_shape}, p has {p_shape}")
        if posterior is None and self.from_posterior:
            raise CombinationError(f"latent {name!r} has no posterior here: give x, or use Ancestral or Given")
        if posterior is not None and len(posterior.batch_shape) not in (1, 2):
            found = tuple(posterior.batch_shape)
            raise ShapeError(f"latent {name!r}: q has batch shape {found}, expected (B,) or (K, B); declare event dims")
        return self.draw(name, prior, posterior)

    @abstractmethod
    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The draw itself, its arguments checked."""

    def at(self, step: int) -> Self:
        """The draw in force at training step ``step`` (annealed temperatures)."""
        return self

    def lead(self, distribution: Distribution) -> tuple[int, ...]:
        """The dimensions still missing before ``distribution``'s batch shape to make it (K, B)."""
        return (self.samples,) if len(distribution.batch_shape) == 1 else ()

    def using(self, generator: torch.Generator | None) -> Self:
        """The same draw with its randomness from ``generator``."""
        return dataclasses.replace(self, generator=generator)

    def _reparameterised(self, name: str, q: Distribution) -> tuple[Tensor, Tensor | None]:
        if not q.has_rsample:
            raise CombinationError(
                f"latent {name!r}: {type(q).__name__} has no rsample; use draw=enumerate if it is discrete and small"
            )
        if isinstance(q, OwnDistribution) and not q.fused:
            return q.rsample(self.lead(q), self.generator), None
        return rsample_and_log_prob(q, self.lead(q), self.generator)


@part("draw", "pathwise")
@dataclass(frozen=True)
class Pathwise(Draw):
    """The reparameterisation trick (Kingma & Welling 2014, eq. 10; Rezende et al. 2014): unbiased.

    >>> from lambent.distributions import Normal
    >>> zero = torch.zeros(4, 2)
    >>> Pathwise(samples=3)("z", Normal(zero, zero), Normal(zero, zero)).value.shape
    torch.Size([3, 4, 2])
    """

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """Z through q's parameters, with log q as it stands."""
        assert posterior is not None
        value, log_q = self._reparameterised(name, posterior)
        return Latent(name, value, prior, posterior, {} if log_q is None else {"log_q": log_q})


@part("draw", "stl")
@dataclass(frozen=True)
class StickingTheLanding(Draw):
    """Pathwise without the score term (Roeder et al. 2017, eq. 8): its variance is 0 where q is the true posterior.

    Unbiased for the ELBO at any K; biased for IWAE with K > 1.
    """

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """Z through q's parameters; log q scored with them held fixed, and never a closed-form KL."""
        return _path_only(self, name, prior, posterior)


@part("draw", "dreg")
@dataclass(frozen=True)
class DoublyReparameterised(Draw):
    """The doubly reparameterised gradient of IWAE (Tucker et al. 2019, eq. 8): unbiased for every K.

    The objective weights the path's gradient by the squared normalised weights; only IWAE-type objectives know how.
    Of a chain only the first level can be drawn so: a lower level's q held fixed would cut the path through the level
    above.
    """

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """As sticking the landing, marked for the objective."""
        if posterior is not None and len(posterior.batch_shape) == 2:
            raise CombinationError(
                f"latent {name!r}: dreg below another level is biased, the path through it is lost; use draw=pathwise"
            )
        return dataclasses.replace(_path_only(self, name, prior, posterior), doubly=True)


def _path_only(draw: Draw, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
    assert posterior is not None
    value, _ = draw._reparameterised(name, posterior)
    return Latent(name, value, prior, posterior, {"log_q": detached(posterior).log_prob(value)}, analytic=False)


@part("draw", "enumerate")
@dataclass(frozen=True)
class Enumerate(Draw):
    """Every value of a small discrete latent: K runs over the values, and averages over K are exact sums under q."""

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """All values of the latent's support, each with its probability under q."""
        assert posterior is not None
        if not posterior.has_enumerate_support:
            raise CombinationError(
                f"latent {name!r}: {type(posterior).__name__} can't be enumerated; use draw=pathwise, stl or dreg"
            )
        value = posterior.enumerate_support(expand=True)
        mass = posterior.log_prob(value)
        return Latent(name, value, prior, posterior, {"log_q": mass}, log_mass=mass)


@dataclass(frozen=True)
class Ancestral(Draw):
    """z from the prior: generation. ``batch`` is B where the prior doesn't fix it."""

    batch: int = 1
    from_posterior: ClassVar[bool] = False

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """A draw of p, outside the graph."""
        shape = (self.samples, self.batch)[: 2 - len(prior.batch_shape)]
        return Latent(name, sample(prior, shape, self.generator), prior, posterior)


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
