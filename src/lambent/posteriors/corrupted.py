"""Corruption before the encoder: the denoising criterion (Vincent et al. 2008)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.settings import option, part


@part("corruption", "none")
@dataclass(frozen=True)
class NoCorruption:
    """The encoder sees x as it is."""

    def wrap(self, posterior: nn.Module) -> nn.Module:
        """The posterior, unchanged."""
        return posterior


@part("corruption", "gaussian")
@dataclass(frozen=True)
class GaussianCorruption:
    """The encoder sees x + noise during training, x itself otherwise."""

    noise: float = option(0.3, "standard deviation of the noise, in the encoder's input units", above=0)

    def wrap(self, posterior: nn.Module) -> nn.Module:
        """The posterior behind the noise."""
        return CorruptedPosterior(posterior, self)

    def apply(self, x: Tensor) -> Tensor:
        """X + noise * N(0, I)."""
        return x + self.noise * torch.randn_like(x)


@part("corruption", "masking")
@dataclass(frozen=True)
class MaskingCorruption:
    """The encoder sees x with a part of its elements set to 0 during training, x itself otherwise."""

    rate: float = option(0.25, "probability of an element to be set to 0", above=0, maximum=1)

    def wrap(self, posterior: nn.Module) -> nn.Module:
        """The posterior behind the mask."""
        return CorruptedPosterior(posterior, self)

    def apply(self, x: Tensor) -> Tensor:
        """X where a coin of probability 1 - rate falls heads, else 0."""
        return torch.where(torch.rand_like(x) < self.rate, torch.zeros_like(x), x)


class CorruptedPosterior(nn.Module):
    """q(z|x + noise) in training mode, q(z|x) in evaluation."""

    def __init__(self, posterior: nn.Module, corruption: GaussianCorruption | MaskingCorruption) -> None:
        super().__init__()
        self.posterior, self.corruption = posterior, corruption

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Distribution:
        """The posterior of the corrupted input."""
        return self.posterior(self.corruption.apply(x) if self.training else x, condition)
