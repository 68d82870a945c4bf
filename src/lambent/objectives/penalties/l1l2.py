"""Penalties on a latent: terms of the loss that are no nats and never enter a bound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lambent.distributions.numerics import event_sum
from lambent.errors import CombinationError
from lambent.priors.base import SMOOTH
from lambent.settings import Conflict, Part, option, part
from lambent.trace import Latent

if TYPE_CHECKING:
    from lambent.shapes import Shapes


class PenaltySettings(Part, ABC):
    """Settings of penalties; each is called with the latent of a training step and gives (K, B), (B,) or a scalar.

    A penalty that is a module with parameters of its own (a critic) also has ``loss(latent)``, the scalar that trains
    them; it must not move the model, as the penalty must not move the critic.

    Attributes:
        kinds: Kinds of latents it has a meaning for.
        gradients: The kinds of draws (`Draw.learning`) by which it reaches q.
        marginal: It looks at the posterior's mean or variance.
        compares: It draws from the prior.
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "one-hot", "binary")
    gradients: ClassVar[tuple[str, ...]] = ("path", "double", "score", "control", "sum", "none")
    marginal: ClassVar[bool] = False
    compares: ClassVar[bool] = False

    def conflicts(self, parts: Any) -> Conflict | None:
        """A penalty has a meaning for some latents, and reaches q by some gradients."""
        posterior, kind = parts.posterior, parts.posterior.latent_kind
        if kind not in self.kinds:
            return Conflict(("penalty", "posterior"), f"it has no meaning for {kind} latents; use penalty=none")
        if parts.objective.without_data:
            why = "the sleep phase sees samples of the model, no data to penalise; use penalty=none"
            return Conflict(("objective", "penalty"), why)
        if self.marginal and not posterior.marginals:
            return Conflict(("penalty", "posterior"), "the mean of each dimension isn't known; use penalty=none")
        if parts.drawing.learning not in self.gradients:
            use = "pathwise" if kind in SMOOTH else "straight-through"
            return Conflict(("penalty", "draw"), f"no gradient of it reaches q through this draw; use draw={use}")
        if self.compares and not parts.prior.normalised:
            why = "it needs draws of p(z), and this prior has none; use prior=normal"
            return Conflict(("penalty", "prior"), why)
        return None

    @abstractmethod
    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalties by name, for latents of the given shapes."""


def drawn_value(latent: Latent, who: str) -> Tensor:
    """The draws of q as flat vectors, (K, B, D).

    Raises:
        CombinationError: K enumerates the latent's values, which are no draws.
    """
    if latent.value is None or latent.log_mass is not None:
        raise CombinationError(
            f"latent {latent.name!r}: penalty={who} compares draws, and there are none; use penalty=none, or a draw "
            "with a gradient through its value (pathwise, straight-through)"
        )
    return latent.value.flatten(2)


@part("penalty", "l1")
@dataclass(frozen=True)
class L1Penalty(PenaltySettings):
    """weight * sum_d |z_d|: sparse codes."""

    gradients: ClassVar[tuple[str, ...]] = ("path", "double", "sum")
    weight: float = option(0.1, "factor of the L1 norm of the code", minimum=0)

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty under its name in the metrics."""
        return {"l1": self}

    def __call__(self, latent: Latent) -> Tensor:
        """The penalty of each sample, (K, B)."""
        assert latent.value is not None
        return self.weight * latent.value.abs().flatten(2).sum(-1)


@part("penalty", "l2")
@dataclass(frozen=True)
class L2Penalty(PenaltySettings):
    """weight * ||m(x)||^2 on the posterior's mean: regularised autoencoders (Ghosh et al. 2020)."""

    marginal: ClassVar[bool] = True
    weight: float = option(0.5, "factor of the squared norm of the posterior's mean", minimum=0)

    def named(self, shapes: Shapes) -> dict[str, Any]:
        """The penalty under its name in the metrics."""
        return {"l2": self}

    def __call__(self, latent: Latent) -> Tensor:
        """Of q's batch shape; 0 for values that no posterior gave (a generated or given code)."""
        if latent.q is None:
            return torch.zeros(())
        return self.weight * event_sum(latent.q.mean.square(), latent.q.event_shape)
