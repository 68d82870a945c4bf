"""Levels of a ladder whose state is a map, at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.networks.activations import activation
from lambent.networks.base import checked
from lambent.networks.conv import channels_last
from lambent.networks.ladder.base import LadderLevel
from lambent.networks.ladder.bottom_up import Resolution
from lambent.networks.ladder.residual import Block, Style, bottleneck, conv
from lambent.networks.ladder.spectral import SpectralPenalty
from lambent.networks.mlp import affine

SMALL_GAIN = 0.01
"""Of the last layer of q: at the start its rate is nearly 0."""


@dataclass(frozen=True)
class MapLevels:
    """What all levels of a ladder of maps have in common.

    Attributes:
        style: Of the residual blocks.
        latent: Channels of z.
        per_p: Numbers of p for each of z.
        per_q: Numbers of q for each of z.
        depth: Levels of the whole ladder: what each adds to the state starts smaller the more there are.
        blocks: Residual blocks of each level.
        condition: Numbers of the condition.
        spectral: Weight of the penalty on singular values; 0 for none.
    """

    style: Style
    latent: int
    per_p: int
    per_q: int
    depth: int
    blocks: int = 1
    condition: int = 0
    spectral: float = 0.0

    @property
    def gain(self) -> float:
        """Of what a level adds to the state: 1/sqrt(depth) (Child 2021, section 3.2)."""
        return 1 / math.sqrt(self.depth)

    def build(self, places: Sequence[Resolution]) -> list[LadderLevel]:
        """The levels at ``places`` (the largest map first), lowest first."""
        at = [place for place in places for _ in range(place.levels)]
        return [MapLevel(self, place, at[i - 1] if i else None, top=i + 1 == len(at)) for i, place in enumerate(at)]


class MapLevel(LadderLevel):
    """A level whose latent is a map (latent, h, w), flat as (latent h w).

    Its state is (N, channels + numbers of its p, h, w): the map, and beside it what p of this level is made of, which
    the level above has found already (in a bottleneck ladder the same layers move the map on).

    Args:
        shared: What it has in common with the others.
        place: The resolution of the level.
        below: Where the level below is; None for the lowest.
        top: Whether it is the top, which starts from a learned map.
    """

    def __init__(self, shared: MapLevels, place: Resolution, below: Resolution | None, *, top: bool) -> None:
        size = shared.latent * place.pixels
        super().__init__(size, shared.per_p * size, shared.per_q * size)
        self.map_shape, self.channels = (shared.latent, place.height, place.width), place.channels
        self.start = LearnedMap(place, shared.condition) if top else None
        self.posterior = _posterior(shared, place)
        self.inject = conv(shared.latent, place.channels, 1, gain=shared.gain)
        blocks = (Block(shared.style, place.channels, place.side, shared.gain) for _ in range(shared.blocks))
        self.blocks = nn.Sequential(*blocks)
        self.descent = None if below is None else TopDown(shared, place, below)
        self.spectral = shared.spectral
        self.penalty = SpectralPenalty(self) if shared.spectral else None

    def prior_numbers(self, state: Tensor, condition: Tensor | None) -> Tensor:
        """The numbers beside the map, (N, width_p)."""
        return _numbers(state[:, self.channels :], self.inject)

    def posterior_params(self, seen: Tensor, state: Tensor | None, condition: Tensor | None) -> Tensor:
        """From the features of its resolution and the map, (N, width_q)."""
        found = torch.cat([self._map(state, len(seen), condition), seen], 1)
        return _numbers(self.posterior(channels_last(found)), self.inject)

    def next(self, state: Tensor | None, z: Tensor, condition: Tensor | None) -> Tensor:
        """The map with z in it through the residual blocks, and on to the resolution below."""
        z = channels_last(z.unflatten(1, self.map_shape))
        h = self.blocks(channels_last(self._map(state, len(z), condition) + self.inject(z)))
        return h if self.descent is None else self.descent(h, condition)

    def _map(self, state: Tensor | None, items: int, condition: Tensor | None) -> Tensor:
        if state is not None:
            return state[:, : self.channels]
        assert self.start is not None
        found: Tensor = self.start(items, condition)
        return found

    @property
    def inference(self) -> Sequence[nn.Module]:
        """The layers of q."""
        return [self.posterior]

    def penalties(self) -> dict[str, Tensor]:
        """The weighted sum of singular values, where it is asked for."""
        return {} if self.penalty is None else {"spectral": self.spectral * self.penalty()}


class LearnedMap(nn.Module):
    """The learned map that a ladder starts from, shifted by the condition."""

    def __init__(self, place: Resolution, condition: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(place.channels, place.height, place.width))
        self.condition = condition
        self.shift = affine(condition, place.channels) if condition else None

    def forward(self, items: int, condition: Tensor | None) -> Tensor:
        """(items, channels, h, w)."""
        found = self.map.expand(items, *self.map.shape)
        condition = checked(condition, items, self.condition)
        if self.shift is None or condition is None:
            return found
        return found + self.shift(condition.to(found.dtype))[:, :, None, None]


class TopDown(nn.Module):
    """From a level's map to the state of the level below: resized, with the parameters of its p beside it."""

    def __init__(self, shared: MapLevels, place: Resolution, below: Resolution) -> None:
        super().__init__()
        self.numbers = shared.per_p * shared.latent
        grows = (place.height, place.width) != (below.height, below.width)
        self.up = conv(place.channels, below.channels, 1) if grows else None
        self.start = LearnedMap(below, shared.condition) if grows else None
        self.prior, self.moves = _prior(shared, below), shared.style.block == "bottleneck"

    def forward(self, h: Tensor, condition: Tensor | None) -> Tensor:
        """(N, channels + numbers, h, w) at the resolution below."""
        if self.up is not None and self.start is not None:
            start = self.start(len(h), condition)
            h = channels_last(F.interpolate(self.up(h), start.shape[2:]) + start)
        found = self.prior(h)
        if self.moves:
            return torch.cat([h + found[:, self.numbers :], found[:, : self.numbers]], 1)
        return torch.cat([h, found], 1)


def _numbers(found: Tensor, layer: nn.Conv2d) -> Tensor:
    """A map of numbers, flat, in the precision of the weights (densities are never formed in less)."""
    return found.flatten(1).to(layer.weight.dtype)


def _prior(shared: MapLevels, place: Resolution) -> nn.Module:
    """The layers of p, which start at 0; those of a bottleneck ladder also give what is added to the map."""
    name, channels, numbers = shared.style.activation, place.channels, shared.per_p * shared.latent
    if shared.style.block == "bottleneck":
        return bottleneck(name, (channels, max(1, channels // 4), numbers + channels), place.side, 0.0)
    return nn.Sequential(activation(name), conv(channels, numbers, 1, gain=0.0))


def _posterior(shared: MapLevels, place: Resolution) -> nn.Module:
    """The layers of q, from the map and the features beside it."""
    name, channels, numbers = shared.style.activation, place.channels, shared.per_q * shared.latent
    if shared.style.block == "bottleneck":
        return bottleneck(name, (2 * channels, max(1, channels // 4), numbers), place.side, SMALL_GAIN)
    first, last = conv(2 * channels, channels, 3, name), conv(channels, numbers, 1, gain=SMALL_GAIN)
    return nn.Sequential(activation(name), first, activation(name), last)
