"""What every draw is."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.distributions.base import Distribution as OwnDistribution
from lambent.errors import CombinationError, ShapeError
from lambent.settings import Part, option
from lambent.trace import Latent


@dataclass(frozen=True)
class Draw(Part, ABC):
    """Base of all draws; ``samples`` is K, fixed before the first level and never multiplied twice.

    Where samples come in parts, these are numbers ``start`` to ``start + samples - 1`` of ``total`` (none: they are all
    there are), so that what is drawn once for each (the noise level of a diffusion) can be spread evenly over all.
    """

    samples: int = option(1, "importance samples K per example", minimum=1)
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)
    control: Any = field(default=None, repr=False, compare=False)
    start: int = field(default=0, repr=False, compare=False)
    total: int | None = field(default=None, repr=False, compare=False)
    from_posterior: ClassVar[bool] = True
    """Whether values come from q (so that the model must be given x)."""
    kinds: ClassVar[tuple[str, ...]] = ("continuous", "one-hot", "binary")
    """Kinds of latents it can draw."""
    relaxes: ClassVar[bool] = False
    """Whether it needs a continuous relaxation of the latent."""
    gradient: ClassVar[str] = "none"
    """How gradients reach q: "path" (through the value), "double", "score", "control", "sum" or "none"."""

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
        if isinstance(prior, OwnDistribution):
            prior = prior.estimating(self.generator, self.start, self.total)
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

    def bias(self, *, multi_sample: bool) -> str:
        """Why the gradient for q is biased, for the ELBO or a bound of several samples; empty if it is not."""
        return ""

    @property
    def learning(self) -> str:
        """How an objective must learn from it: `gradient`, unless the settings decide."""
        return self.gradient

    def evaluating(self) -> Draw:
        """The draw by which a model trained with this one is measured."""
        return self

    def parameters_for(self, latent: int, inputs: int) -> nn.Module | None:
        """What the draw learns for itself (a baseline, a control variate); the model keeps it as ``control``.

        Args:
            latent: Dimensions of the latent.
            inputs: Numbers in what the encoder sees of one example.
        """
        return None

    def informed(self, control: nn.Module | None, x: Tensor) -> Self:
        """The draw with the model's ``control``, which may look at the encoder's input ``x``."""
        return self if control is None else dataclasses.replace(self, control=partial(control, x))

    def using(self, generator: torch.Generator | None) -> Self:
        """The same draw with its randomness from ``generator``."""
        return dataclasses.replace(self, generator=generator)
