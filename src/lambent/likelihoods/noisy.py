"""Likelihoods of data seen through a little noise: the last step of a diffusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lambent.likelihoods.base import LikelihoodModule, LikelihoodSettings
from lambent.shapes import Shapes


class Pointwise(nn.Module):
    """Gain times each kind of number, and a shift: the same for all elements; nothing is changed at first."""

    def __init__(self, numbers: int, event_dims: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(numbers, *[1] * event_dims))
        self.shift = nn.Parameter(torch.zeros(numbers, *[1] * event_dims))

    def forward(self, numbers: Tensor) -> Tensor:
        """Of the shape (..., P, *event) that came in."""
        return self.gain * numbers + self.shift


class NoisyLikelihoodModule(LikelihoodModule):
    """p(x|z) of z = x + noise, element by element: the family's own answer to it, affinely corrected.

    Args:
        family: p of an example.
        shapes: The sizes.
        log_noise: Log standard deviation of the noise to start from.
    """

    decoder: Pointwise

    def __init__(self, family: LikelihoodSettings, shapes: Shapes, log_noise: float) -> None:
        super().__init__(family, Pointwise(family.out_shape(shapes)[0], len(shapes.event)), shapes)
        shared_parameters = family.shared_denoised(log_noise, shapes)
        if self.own is not None and shared_parameters is not None:
            self.own.data.copy_(shared_parameters)

    def through(self, noisy: Tensor, log_noise: Tensor) -> Distribution:
        """p(x|noisy) of batch shape (K, B), from (K, B, *event) and the log standard deviation of its noise, ()."""
        numbers = self.family.denoised(noisy, log_noise, self.shapes)
        return self.family.distribution(self.decoder(numbers), self.own, self.shapes)

    def as_input(self, x: Tensor) -> Tensor:
        """``x`` as noise is added to it."""
        return self.family.centred(x, self.shapes)
