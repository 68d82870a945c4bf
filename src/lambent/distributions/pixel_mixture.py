"""Colour pixels as mixtures of discretised logistics, autoregressive over the channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.logistic import DiscretisedLogistic
from lambent.distributions.logistic_mixture import LogisticMixture
from lambent.distributions.numerics import full_precision, joint_shape
from lambent.errors import ConfigError

_PLANE = 2
_CHANNELS = -3


class PixelMixture(Distribution):
    """Each pixel a mixture of M products over its channels (Salimans et al. 2017, ICLR, section 2.2).

    P(pixel) = sum_m pi_m prod_c P_logistic(x_c; loc_mc + sum_{j<c} a_mcj y_j, scale_mc), y_j being channel j on -1..1:
    what one channel is moves the others, and all of them share the component. In nats; of one channel it is
    `LogisticMixture`.

    Args:
        logits: Unnormalised log weights, (*batch, M, H, W).
        loc: Locations, (*batch, M, C, H, W), where the levels span -1..1.
        log_scale: Log scales, broadcast against ``loc``.
        coupling: a_mcj at [m, c, j], (*batch, M, C, C, H, W), of which only those with j < c are looked at.
        levels: L, at least 2.

    Raises:
        ConfigError: fewer than 2 levels, or couplings that don't fit the locations.

    >>> zeros = torch.zeros(1, 3, 1, 1)
    >>> PixelMixture(zeros[:, 0], zeros, zeros, torch.zeros(1, 3, 3, 1, 1), 2).log_prob(torch.ones(3, 1, 1))  # -3 log 2
    tensor(-2.0794)
    """

    has_mean: ClassVar[bool] = False

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, coupling: Tensor, levels: int) -> None:
        self.logits, self.coupling, self.levels = full_precision(logits), full_precision(coupling), levels
        shape = joint_shape(loc, log_scale)
        self.loc, self.log_scale = (full_precision(part).expand(shape) for part in (loc, log_scale))
        *batch, components, channels, height, width = shape
        due = (components, channels, channels, height, width)
        if self.coupling.shape[-5:] != due:
            raise ConfigError(
                f"PixelMixture: couplings of shape {tuple(self.coupling.shape)}, expected (*batch, {due})"
            )
        super().__init__(batch, (channels, height, width))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integer levels (of any number type), nats."""
        level, joint = value.to(self.loc.dtype), self.logits.log_softmax(_CHANNELS)
        for c in range(self.event_shape[0]):
            joint = joint + self._given(level[..., :c, :, :]).log_masses(level[..., c : c + 1, :, :])
        return torch.logsumexp(joint, _CHANNELS).sum((-2, -1))

    def _given(self, before: Tensor) -> DiscretisedLogistic:
        """Of the channel after those of levels ``before`` (..., c, H, W), under each component: (..., M, H, W)."""
        c = before.shape[_CHANNELS]
        y = (before * (2 / (self.levels - 1)) - 1).unsqueeze(_CHANNELS - 1)
        moved = (self.coupling[..., c, :c, :, :] * y).sum(_CHANNELS)
        return DiscretisedLogistic(self.loc[..., c, :, :] + moved, self.log_scale[..., c, :, :], self.levels, _PLANE)

    @property
    def greedy(self) -> Tensor:
        """Channel by channel the expected level given those before it, rounded: a stand-in for the mean."""
        known = self.loc.new_zeros(*self.batch_shape, 0, *self.event_shape[1:])
        logits = self.logits.log_softmax(_CHANNELS)
        for _ in range(self.event_shape[0]):
            given = self._given(known)
            mixed = LogisticMixture(logits, given.loc, given.log_scale, self.levels, _PLANE)
            level = mixed.mean.round().unsqueeze(_CHANNELS)
            logits, known = logits + given.log_masses(level), torch.cat([known, level], _CHANNELS)
        return known

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        one = self._picked(shape[:_CHANNELS], generator)
        known = self.loc.new_zeros(*shape[:_CHANNELS], 0, *shape[-_PLANE:])
        for _ in range(shape[_CHANNELS]):
            known = torch.cat([known, one._given(known).sample((), generator)], _CHANNELS)
        return known

    def _picked(self, lead: torch.Size, generator: torch.Generator | None) -> PixelMixture:
        """One component for each pixel, as a mixture of one; of batch shape ``lead``."""
        components, plane = self.loc.shape[-4], self.event_shape[1:]
        weights = self.logits.softmax(_CHANNELS).expand(*lead, components, *plane).movedim(_CHANNELS, -1)
        index = torch.multinomial(weights.reshape(-1, components), 1, generator=generator)

        def of(part: Tensor, inner: torch.Size) -> Tensor:
            at = index.view(*lead, 1, *[1] * len(inner), *plane).expand(*lead, 1, *inner, *plane)
            return part.expand(*lead, components, *inner, *plane).gather(len(lead), at)

        loc, log_scale = (of(part, self.loc.shape[-3:-2]) for part in (self.loc, self.log_scale))
        coupling = of(self.coupling, self.coupling.shape[-4:-2])
        return PixelMixture(torch.zeros_like(loc[..., 0, :, :]), loc, log_scale, coupling, self.levels)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> PixelMixture:
        """The same family at ``fn`` of weights, locations, log scales and couplings."""
        return PixelMixture(fn(self.logits), fn(self.loc), fn(self.log_scale), fn(self.coupling), self.levels)
