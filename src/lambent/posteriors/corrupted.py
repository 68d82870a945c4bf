"""Corruption before the encoder: the denoising criterion (Vincent et al. 2008)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.settings import Part, option, part


class Corruption(Part, ABC):
    """Settings of what is done to x before the encoder, in training only."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """The corrupted x, (N, *event)."""

    def wrap(self, posterior: nn.Module) -> nn.Module:
        """The posterior q(z|x) with x corrupted in training mode."""
        return CorruptedPosteriorModule(posterior, self)


@part("corruption", "gaussian")
@dataclass(frozen=True)
class GaussianCorruption(Corruption):
    """The encoder sees x + noise during training, x itself otherwise."""

    noise: float = option(0.3, "standard deviation of the noise, in the encoder's input units", above=0)

    def apply(self, x: Tensor) -> Tensor:
        """X + noise * N(0, I)."""
        return x + self.noise * torch.randn_like(x)


@part("corruption", "masking")
@dataclass(frozen=True)
class MaskingCorruption(Corruption):
    """The encoder sees x with a part of its elements set to 0 during training, x itself otherwise."""

    rate: float = option(0.25, "probability that an element is set to 0", above=0, maximum=1)

    def apply(self, x: Tensor) -> Tensor:
        """X with each element set to 0 with probability ``rate``."""
        return torch.where(torch.rand_like(x) < self.rate, torch.zeros_like(x), x)


class CorruptedPosteriorModule(nn.Module):
    """q(z|x + noise) in training mode, q(z|x) in evaluation."""

    def __init__(self, posterior: nn.Module, corruption: Corruption) -> None:
        super().__init__()
        self.posterior, self.corruption = posterior, corruption

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Distribution:
        """The posterior of the corrupted input."""
        return self.posterior(self.corruption.apply(x) if self.training else x, condition)
