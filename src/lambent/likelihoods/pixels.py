"""Colour images, a pixel at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.data.support import Support
from lambent.distributions import PixelMixture
from lambent.errors import ConfigError
from lambent.likelihoods.base import LikelihoodSettings
from lambent.likelihoods.grey import START, LogisticMixtureLikelihood, log_weights
from lambent.settings import option, part
from lambent.shapes import Shapes


@part("likelihood", "pixel-mixture")
@dataclass(frozen=True)
class PixelMixtureLikelihood(LikelihoodSettings):
    """Levels 0..2^bits-1 by a mixture of logistics for each pixel, whose channels share the component, a channel's
    location moved by the channels before it (Salimans et al. 2017, ICLR, section 2.2).

    `logistic-mixture` has a mixture for each channel instead, independent of the others given z: colours are dearer.
    """

    discrete: ClassVar[bool] = True
    centre: ClassVar[str] = "expected levels of p(x|z), channel by channel"
    elementwise: ClassVar[bool] = False
    bits: int | None = option(
        None,
        "grey levels are 0..2^bits-1; none: the smallest number of bits that holds the data's",
        minimum=1,
        maximum=16,
    )
    components: int = option(
        10, "components in each pixel's mixture, each a product of logistics over the channels", minimum=1
    )

    @property
    def _one_by_one(self) -> LogisticMixtureLikelihood:
        return LogisticMixtureLikelihood(self.bits, self.components)

    def support(self, shapes: Shapes) -> Support:
        """The integers from 0 to 2^bits - 1."""
        return self._one_by_one.support(shapes)

    def out_shape(self, shapes: Shapes) -> tuple[int, ...]:
        """Of each component and element a share of the logit, a location, a log scale, and what each channel adds.

        Raises:
            ConfigError: the data are no images.
        """
        if len(shapes.event) != 3:
            raise ConfigError(
                f"likelihood=pixel-mixture: found examples of shape {shapes.event}, expected images (channels, height, "
                "width); use likelihood=logistic-mixture"
            )
        return ((3 + shapes.event[0]) * self.components, *shapes.event)

    def distribution(self, parameters: Tensor, shared_parameters: Tensor | None, shapes: Shapes) -> PixelMixture:
        """Locations are in the unit where the levels span -1..1; couplings start at 0 and stay within -1..1."""
        split = (3 * self.components, shapes.event[0] * self.components)
        plain, raw = parameters.split(split, -4)
        alone = self._one_by_one.distribution(plain, None, shapes)
        coupling = raw.unflatten(-4, (self.components, shapes.event[0])).transpose(-4, -3).tanh()
        logits = alone.logits.sum(-3)
        return PixelMixture(logits, alone.parts.loc, alone.parts.log_scale, coupling, alone.levels)

    def as_input(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Grey levels scaled to -1..1."""
        return self._one_by_one.as_input(x, shapes)

    def initial_bias(self, x: Tensor, shapes: Shapes) -> Tensor:
        """Weights of the components by EM at their first locations and scales, which stay as they are."""
        channels = shapes.event[0]
        blind = self._one_by_one.distribution(torch.zeros(3 * self.components, *shapes.event), None, shapes)
        masses = blind.parts.log_masses(x[:START].float().unsqueeze(1)).sum(2)
        logits = log_weights(masses).unsqueeze(1).expand(-1, channels, -1, -1) / channels
        return torch.cat([logits, torch.zeros((2 + channels) * self.components, *shapes.event)])
