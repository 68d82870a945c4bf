"""The standard Normal prior, and a Normal prior that depends on a condition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions import Normal, StandardNormal, bounded_log_scale
from lambent.priors.base import PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("prior", "normal")
@dataclass(frozen=True)
class NormalPrior(PriorSettings):
    """The standard Normal prior N(0, I)."""

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior as a module without parameters."""
        return NormalPriorModule(shapes.latent)


class NormalPriorModule(nn.Module):
    """p(z) = N(0, I), whatever the condition.

    >>> NormalPriorModule(2)().log_prob(torch.zeros(2))  # -log(2 pi)
    tensor(-1.8379)
    """

    anchor: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def forward(self, condition: Tensor | None = None) -> StandardNormal:
        """The prior, of batch shape ()."""
        return StandardNormal((self.latent,), device=self.anchor.device, dtype=self.anchor.dtype)


@part("prior", "conditional-normal")
@dataclass(frozen=True)
class ConditionalNormalPrior(PriorSettings):
    """p(z|c): a diagonal Normal whose mean and scale are a network of the condition (Sohn et al. 2015)."""

    hidden_dim: int = option(64, "hidden units (one layer)", minimum=1)

    def build(self, shapes: Shapes) -> nn.Module:
        """Starts at N(0, I) for every condition."""
        return ConditionalNormalPriorModule(
            shapes.require_condition("prior=conditional-normal"), shapes.latent, self.hidden_dim
        )


class ConditionalNormalPriorModule(nn.Module):
    """p(z|c) = N(m(c), diag s(c)^2)."""

    def __init__(self, condition: int, latent: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 2 * latent)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(condition, hidden), nn.Tanh(), last)

    def forward(self, condition: Tensor) -> Normal:
        """The prior of each condition, with batch shape (B,)."""
        loc, raw = self.net(condition).chunk(2, -1)
        return Normal(loc, bounded_log_scale(raw))
