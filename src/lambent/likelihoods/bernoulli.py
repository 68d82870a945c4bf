"""The Bernoulli likelihood of binary data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.data.support import Support, binary
from lambent.distributions import Bernoulli
from lambent.likelihoods.base import LikelihoodSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("likelihood", "bernoulli")
@dataclass(frozen=True)
class BernoulliLikelihood(LikelihoodSettings):
    """x in {0, 1}, independent given z; computed from logits throughout."""

    discrete: ClassVar[bool] = True

    def support(self, shapes: Shapes) -> Support:
        """The values 0 and 1."""
        return binary()

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Bernoulli:
        """Bernoulli variables with one logit per element."""
        dims = len(shapes.event)
        return Bernoulli(parameters.squeeze(-1 - dims), dims)

    def centred(self, x: Tensor, shapes: Shapes) -> Tensor:
        """``x`` mapped to the values -1 and 1."""
        return 2 * x.float() - 1

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """Log odds of 1 against -1, 2 noisy / exp(log_noise)^2."""
        return (2 * torch.exp(-2 * log_noise) * noisy).unsqueeze(-1 - len(shapes.event))

    def symbols(self, shapes: Shapes) -> int:
        """The number of values of an element, 2."""
        return 2

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Logits of the (smoothed) means."""
        mean = (x.double().sum(0) + 0.5) / (len(x) + 1)
        return torch.logit(mean).unsqueeze(0).float()
