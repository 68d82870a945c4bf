"""Grey levels and other ordered or unordered levels 0..L-1, scored by a probability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.data.support import Support, grey_levels
from lambent.distributions import (
    Categorical,
    DiscretisedLogistic,
    LogisticMixture,
    bounded_log_scale,
    unbounded_log_scale,
)
from lambent.errors import ConfigError
from lambent.likelihoods.base import LikelihoodSettings
from lambent.likelihoods.scale import (
    INSIDE,
    LOGISTIC,
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

START = 1000
"""Examples that a mixture's weights start from."""
_EM_STEPS = 20
_BITS_HELP = "grey levels are 0..2^bits-1; none: the smallest number of bits that holds the data's"


def _levels(bits: int | None, shapes: Shapes) -> int:
    if bits is not None:
        return 2**bits
    if shapes.levels is None:
        raise ConfigError("likelihood.bits is not set and the data don't say how many levels they have; set it")
    return 2 ** max(1, (shapes.levels - 1).bit_length())


def _centred(x: Tensor, levels: int) -> Tensor:
    return x.float() * (2 / (levels - 1)) - 1


@part("likelihood", "discretised-logistic")
@dataclass(frozen=True)
class DiscretisedLogisticLikelihood(LikelihoodSettings):
    """Levels 0..2^bits-1 by differences of a logistic's CDF (Kingma et al. 2016; Salimans et al. 2017, eq. 2)."""

    discrete: ClassVar[bool] = True
    bits: int | None = option(None, _BITS_HELP, minimum=1, maximum=16)
    scale: str = option("element", SCALE_HELP, choices=SCALES)
    sigma: float = option(0.1, "the scale, or its initial value where it is learned; grey levels span -1..1", above=0)

    def support(self, shapes: Shapes) -> Support:
        """The integers from 0 to 2^bits - 1."""
        return grey_levels(_levels(self.bits, shapes))

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """A location an element, and a log scale where it is per element."""
        return (params_per_element(self.scale), *shapes.event)

    def shared_shape(self, shapes: Shapes) -> tuple[int, ...] | None:
        """Scales per model or per dimension."""
        return shared_scale_shape(self.scale, shapes.event)

    def symbols(self, shapes: Shapes) -> int:
        """The number of grey levels, 2^bits."""
        return _levels(self.bits, shapes)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> DiscretisedLogistic:
        """Locations in the unit where the levels span -1..1."""
        dims = len(shapes.event)
        loc, log_scale = location_and_log_scale(parameters, shared_parameters, self.scale, self.sigma, dims)
        return DiscretisedLogistic(loc, log_scale, _levels(self.bits, shapes), dims)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Grey levels scaled to -1..1."""
        return _centred(x, _levels(self.bits, shapes))

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """The noisy value, and the scale of a logistic as wide as the noise where scales are per element."""
        return noisy_params(noisy, log_noise + LOGISTIC, self.scale, self.sigma, len(shapes.event))

    def shared_denoised(self, log_noise: float, shapes: Shapes) -> Tensor | None:
        """The scale of a logistic as wide as the noise, where scales are per model or dimension."""
        return noisy_own(log_noise + LOGISTIC, self.scale, self.sigma, shapes.event)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Means and deviations of the centred data."""
        return location_bias(self.as_input(x, shapes), self.scale, self.sigma)


@part("likelihood", "logistic-mixture")
@dataclass(frozen=True)
class LogisticMixtureLikelihood(LikelihoodSettings):
    """Levels 0..2^bits-1 by a mixture of discretised logistics for each element (Salimans et al. 2017, eq. 1 and 2).

    Unlike one logistic it can be sure of black and still expect white, so that a wrong guess costs a few nats and not
    hundreds. Channels are independent given z.
    """

    discrete: ClassVar[bool] = True
    bits: int | None = option(None, _BITS_HELP, minimum=1, maximum=16)
    components: int = option(5, "logistics in each element's mixture", minimum=1)

    def support(self, shapes: Shapes) -> Support:
        """The integers from 0 to 2^bits - 1."""
        return grey_levels(_levels(self.bits, shapes))

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """Of each component a logit, a location and a log scale an element."""
        return (3 * self.components, *shapes.event)

    def symbols(self, shapes: Shapes) -> int:
        """The number of grey levels, 2^bits."""
        return _levels(self.bits, shapes)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> LogisticMixture:
        """Locations are in the unit where the levels span -1..1, and start evenly spread over it."""
        dims = len(shapes.event)
        logits, loc, raw = parameters.chunk(3, -1 - dims)
        like = raw.new_zeros(self.components, *[1] * dims)
        centres, start = like + self._centres.to(like).view(like.shape), unbounded_log_scale(like + self._log_scale)
        scale = bounded_log_scale(raw + start)
        return LogisticMixture(logits, loc + centres, scale, _levels(self.bits, shapes), dims)

    @property
    def _centres(self) -> Tensor:
        """Where the components start, (C,): evenly over -1..1."""
        return torch.linspace(-1, 1, self.components) if self.components > 1 else torch.zeros(1)

    @property
    def _log_scale(self) -> float:
        """The scale at which their sum starts without gaps."""
        return -math.log(2.0 * self.components)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Grey levels scaled to -1..1."""
        return _centred(x, _levels(self.bits, shapes))

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """All components at the noisy value, as wide as the noise."""
        dims = len(shapes.event)
        like = noisy.unsqueeze(-1 - dims)
        loc = like - self._centres.to(noisy).view(-1, *[1] * dims)
        wanted = unbounded_log_scale((log_noise + LOGISTIC).clamp(*INSIDE))
        raw = wanted - unbounded_log_scale(like.new_tensor(self._log_scale))
        return torch.cat([torch.zeros_like(loc), loc, raw.to(loc).expand_as(loc)], -1 - dims)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Weights of the components by EM at their first locations and scales, which stay as they are."""
        x = x[:START]
        blind = self.distribution(torch.zeros(self.out_shape(shapes)), None, shapes)
        weights = log_weights(blind.parts.log_masses(x.to(torch.float32).unsqueeze(1)))
        return torch.cat([weights, torch.zeros(2 * self.components, *shapes.event)])


def log_weights(masses: Tensor) -> Tensor:
    """Log weights (M, ...) of a mixture by EM, for log masses (N, M, ...) of N examples under each component."""
    weights = torch.full_like(masses[0], 1 / masses.shape[1])
    for _ in range(_EM_STEPS):
        weights = (masses + weights.log()).softmax(1).mean(0).clamp_min(1e-4)
    return weights.log()


@part("likelihood", "categorical")
@dataclass(frozen=True)
class CategoricalLikelihood(LikelihoodSettings):
    """Levels 0..2^bits-1 by a softmax: no order assumed."""

    discrete: ClassVar[bool] = True
    bits: int | None = option(None, _BITS_HELP, minimum=1, maximum=8)

    def support(self, shapes: Shapes) -> Support:
        """The integers from 0 to 2^bits - 1."""
        return grey_levels(_levels(self.bits, shapes))

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """A logit a level and element."""
        return (_levels(self.bits, shapes), *shapes.event)

    def symbols(self, shapes: Shapes) -> int:
        """The number of grey levels, 2^bits."""
        return _levels(self.bits, shapes)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> Categorical:
        """Logits last, as the distribution wants them."""
        dims = len(shapes.event)
        return Categorical(parameters.movedim(-1 - dims, -1), dims)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Grey levels scaled to -1..1."""
        return _centred(x, _levels(self.bits, shapes))

    def denoised(self, noisy: Tensor, log_noise: Tensor, shapes: Shapes) -> Tensor:
        """Log density at ``noisy`` of each level with noise (VDM: Kingma et al. 2021, section 3.3)."""
        dims, count = len(shapes.event), self.symbols(shapes)
        levels = _centred(torch.arange(count, device=noisy.device), count).view(-1, *[1] * dims)
        return -0.5 * ((noisy.unsqueeze(-1 - dims) - levels) * torch.exp(-log_noise)).square()

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Log frequencies (smoothed by half a count) of each level."""
        levels = torch.arange(_levels(self.bits, shapes)).view(-1, *([1] * x.dim()))
        counts = torch.stack([(x == level).sum(0) for level in levels.flatten()]).double() + 0.5
        return (counts / counts.sum(0)).log().float()
