"""The Normal likelihood of real-valued data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lambent.data.support import Support, reals
from lambent.distributions import Normal
from lambent.likelihoods.base import LikelihoodSettings
from lambent.likelihoods.scale import (
    SCALE_HELP,
    SCALES,
    location_and_log_scale,
    location_bias,
    noisy_own,
    noisy_params,
    params_per_element,
    shared_scale_shape,
)
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("likelihood", "normal")
@dataclass(frozen=True)
class NormalLikelihood(LikelihoodSettings):
    """x real, Normal given z; one learned scale per model is the sigma-VAE of Rybkin et al. 2021."""

    scale: str = option("fixed", SCALE_HELP, choices=SCALES)
    sigma: float = option(1.0, "the standard deviation, or its initial value where it is learned", above=0)

    def support(self, shapes: Shapes) -> Support:
        """All real values, scored by a density."""
        return reals()

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """A mean an element, and a log scale where it is per element."""
        return (params_per_element(self.scale), *shapes.event)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...] | None:
        """Scales per model or per dimension."""
        return shared_scale_shape(self.scale, shapes.event)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Normal:
        """Diagonal over the event."""
        dims = len(shapes.event)
        return Normal(*location_and_log_scale(parameters, shared_parameters, self.scale, self.sigma, dims), dims)

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """The noisy value, and the noise's scale where scales are per element."""
        return noisy_params(noisy, log_noise, self.scale, self.sigma, len(shapes.event))

    def shared_denoised(self, log_noise: float, shapes: Shapes) -> Tensor | None:
        """The noise's scale, where scales are per model or dimension."""
        return noisy_own(log_noise, self.scale, self.sigma, shapes.event)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """The data's means, and log deviations where scales are per element."""
        return location_bias(x, self.scale, self.sigma)
