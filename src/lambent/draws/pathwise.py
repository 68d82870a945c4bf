"""Draws whose gradient goes through the value: the reparameterisation trick and what sharpens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.distributions.sampling import detached, rsample_and_log_prob
from lambent.draws.base import Draw
from lambent.errors import CombinationError
from lambent.settings import part
from lambent.trace import Latent, PathWeights


def reparameterised(draw: Draw, name: str, q: Distribution) -> tuple[Tensor, Tensor | None]:
    """A draw through q's parameters, and its log density where that comes with it."""
    if not q.has_rsample:
        raise CombinationError(
            f"latent {name!r}: {type(q).__name__} has no rsample; use draw=score, or enumerate if it is small"
        )
    if isinstance(q, OwnDistribution) and q.straight_through:
        raise CombinationError(
            f"latent {name!r}: the gradient through {type(q).__name__} is biased; use draw=straight-through"
        )
    if isinstance(q, OwnDistribution) and not q.fused:
        return q.rsample(draw.lead(q), draw.generator), None
    return rsample_and_log_prob(q, draw.lead(q), draw.generator)


@part("draw", "pathwise")
@dataclass(frozen=True)
class Pathwise(Draw):
    """The reparameterisation trick (Kingma & Welling 2014, eq. 10; Rezende et al. 2014): unbiased.

    >>> import torch
    >>> from lambent.distributions import Normal
    >>> zero = torch.zeros(4, 2)
    >>> Pathwise(samples=3)("z", Normal(zero, zero), Normal(zero, zero)).value.shape
    torch.Size([3, 4, 2])
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "sphere")
    gradient: ClassVar[str] = "path"

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """Z through q's parameters, with log q as it stands."""
        assert posterior is not None
        value, log_q = reparameterised(self, name, posterior)
        return Latent(name, value, prior, posterior, {} if log_q is None else {"log_q": log_q})


@part("draw", "stl")
@dataclass(frozen=True)
class StickingTheLanding(Draw):
    """Pathwise without the score term (Roeder et al. 2017, eq. 8): its variance is 0 where q is the true posterior.

    Unbiased for the ELBO at any K; biased for IWAE with K > 1.
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "sphere")
    gradient: ClassVar[str] = "path"

    def bias(self, *, multi_sample: bool) -> str:
        """Biased for bounds of several samples."""
        return "stl leaves out a term that matters for bounds of several samples; use draw=dreg" if multi_sample else ""

    def evaluating(self) -> Draw:
        """Pathwise draws, which estimate the same bound."""
        return Pathwise(generator=self.generator)

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

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "sphere")
    gradient: ClassVar[str] = "double"

    def evaluating(self) -> Draw:
        """Pathwise draws, which estimate the same bound."""
        return Pathwise(generator=self.generator)

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """As sticking the landing, with a place for the objective's weights."""
        if posterior is not None and len(posterior.batch_shape) == 2:
            raise CombinationError(
                f"latent {name!r}: dreg below another level is biased, the path through it is lost; use draw=pathwise"
            )
        return _path_only(self, name, prior, posterior, PathWeights())


def _path_only(
    draw: Draw, name: str, prior: Distribution, posterior: Distribution | None, weights: PathWeights | None = None
) -> Latent:
    assert posterior is not None
    value, _ = reparameterised(draw, name, posterior)
    value = value if weights is None else weights.on(value)
    known = {"log_q": detached(posterior).log_prob(value)}
    return Latent(name, value, prior, posterior, known, analytic=False, doubly=weights)
