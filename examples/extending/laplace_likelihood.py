"""A likelihood whose loss is the absolute error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace

from lambent.data.support import Support, reals
from lambent.distributions import bounded_log_scale
from lambent.likelihoods import LikelihoodSettings
from lambent.settings import part
from lambent.shapes import Shapes


@part("likelihood", "laplace")
@dataclass(frozen=True)
class LaplaceLikelihood(LikelihoodSettings):
    """x real; the decoder gives the median of each element, and one scale is learned for all."""

    def support(self, shapes: Shapes) -> Support:
        """The data it scores; anything else is refused before training."""
        return reals()

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """Shape of what is learned beside the decoder: here a single number, which starts at 0."""
        return ()

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Distribution:
        """p(x|z) of batch shape (K, B), from the decoder's output (K, B, 1, *event)."""
        assert shared_parameters is not None
        dims = len(shapes.event)
        median = parameters.squeeze(-1 - dims)
        scale = bounded_log_scale(shared_parameters).exp()  # smoothly within e^-7..e^5
        return Independent(Laplace(median, scale, validate_args=False), dims)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """The decoder's output bias at which training starts, (1, *event): the median of some examples."""
        return torch.median(x.float(), 0).values.unsqueeze(0)
