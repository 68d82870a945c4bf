"""A latent that is a slow sequence: the prior of the delta-VAE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions import AR1
from lambent.errors import ConfigError
from lambent.priors.base import PriorSettings
from lambent.settings import option, part
from lambent.shapes import Shapes


@dataclass(frozen=True)
class SequenceSettings:
    """How latent dimensions make an AR(1) sequence; prior and posterior of a delta-VAE must agree on it."""

    sequence_length: int | None = option(
        None, "length of the sequence; none: each latent dimension is one element", minimum=1
    )
    alpha: tuple[float, ...] = option(
        (0.9,),
        "correlation of successive elements: one number, or one for each dimension of an element",
        minimum=0,
        maximum=0.9999,
    )

    def process(self, latent: int) -> AR1:
        """The process of ``latent`` dimensions in all, float64.

        Raises:
            ConfigError: the dimensions don't divide into the steps, or into as many as there are correlations.
        """
        steps = latent if self.sequence_length is None else self.sequence_length
        if latent % steps:
            raise ConfigError(f"sequence_length={steps} does not divide latent={latent}; use a divisor")
        width = latent // steps
        if len(self.alpha) not in (1, width):
            raise ConfigError(f"{len(self.alpha)} values of alpha for {width} dimensions a step; use 1 or {width}")
        return AR1(torch.tensor(self.alpha, dtype=torch.float64).expand(width), steps)


@part("prior", "ar1")
@dataclass(frozen=True)
class AR1Prior(SequenceSettings, PriorSettings):
    """Steps of a stationary AR(1) process, which no factorised posterior fits: its rate is never 0 (delta-VAE)."""

    @property
    def smallest(self) -> int:
        """One step, or as many as the sequence has."""
        return len(self.alpha) * (self.sequence_length or 1)

    def build(self, shapes: Shapes) -> nn.Module:
        """The prior as a module without parameters."""
        return AR1PriorModule(self.process(shapes.latent))


class AR1PriorModule(nn.Module):
    """p(z) = N(z_1; 0, I) prod_{t>1} N(z_t; a z_{t-1}, (1 - a^2) I), whatever the condition (Razavi et al. 2019)."""

    alpha: Tensor

    def __init__(self, process: AR1) -> None:
        super().__init__()
        self.steps = process.steps
        self.register_buffer("alpha", process.alpha.to(torch.get_default_dtype()), persistent=False)

    def forward(self, condition: Tensor | None = None) -> AR1:
        """The prior, of batch shape ()."""
        return AR1(self.alpha, self.steps)
