"""Penalties on a latent: terms of the loss that are no nats and never enter a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambent.distributions.numerics import event_sum
from lambent.settings import option, part
from lambent.trace import Latent


@part("penalty", "none")
@dataclass(frozen=True)
class NoPenalty:
    """Nothing."""

    def named(self) -> dict[str, Any]:
        """No penalties."""
        return {}


@part("penalty", "l1")
@dataclass(frozen=True)
class L1:
    """weight * sum_d |z_d|: sparse codes."""

    weight: float = option(0.1, "factor of the L1 norm of the code", minimum=0)

    def named(self) -> dict[str, Any]:
        """Itself, by name."""
        return {"l1": self}

    def __call__(self, latent: Latent) -> Tensor:
        """(K, B)."""
        assert latent.value is not None
        return self.weight * latent.value.abs().flatten(2).sum(-1)


@part("penalty", "l2")
@dataclass(frozen=True)
class L2:
    """weight * ||m(x)||^2 on the posterior's mean: regularised autoencoders (Ghosh et al. 2020)."""

    weight: float = option(0.5, "factor of the squared norm of the posterior's mean", minimum=0)

    def named(self) -> dict[str, Any]:
        """Itself, by name."""
        return {"l2": self}

    def __call__(self, latent: Latent) -> Tensor:
        """Of q's batch shape; 0 for values that no posterior gave (a generated or given code)."""
        if latent.q is None:
            return torch.zeros(())
        return self.weight * event_sum(latent.q.mean.square(), latent.q.event_shape)
