"""The way up of a ladder of images: features at each resolution, seen by all levels there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lambent.networks.activations import activation
from lambent.networks.base import checked, flat_items
from lambent.networks.conv import Size, channels_last, strided
from lambent.networks.ladder.residual import Block, Style, conv
from lambent.networks.ladder.spectral import SpectralPenalty
from lambent.networks.mlp import affine


@dataclass(frozen=True)
class Resolution:
    """A resolution of a ladder.

    Attributes:
        channels: Of the features and of the state there.
        height: In pixels.
        width: In pixels.
        levels: Levels of latents there.
    """

    channels: int
    height: int
    width: int
    levels: int = 0

    @property
    def side(self) -> int:
        """The longer side, in pixels."""
        return max(self.height, self.width)

    @property
    def pixels(self) -> int:
        """The number of positions of a map."""
        return self.height * self.width


class BottomUp(nn.Module):
    """Residual blocks at each resolution, from the image's down; strided convolutions or means lead to the next.

    Args:
        image: (channels, height, width) of what it sees.
        places: The resolutions, largest first; the first may be the image's.
        blocks: Residual blocks at each.
        style: Of these blocks.
        condition: Numbers of the condition, which shifts the channels at each resolution.
        spectral: Weight of the penalty on the convolutions' singular values; 0 for none.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        places: Sequence[Resolution],
        blocks: int,
        style: Style,
        *,
        condition: int = 0,
        spectral: float = 0.0,
    ) -> None:
        super().__init__()
        self.image, self.condition, self.spectral = image, condition, spectral
        self.counts = [place.levels for place in places]
        gain = 1 / math.sqrt(max(1, blocks * len(places)))
        before, size = image[0], image[1:]
        steps: list[nn.Module] = []
        shifts: list[nn.Module] = []
        for place in places:
            entry = _entry(before, size, place, style, first=not steps)
            inner = [Block(style, place.channels, place.side, gain) for _ in range(blocks)]
            steps.append(nn.ModuleList([entry, nn.Sequential(*inner)]))
            shifts += [affine(condition, place.channels)] if condition else []
            before, size = place.channels, (place.height, place.width)
        self.steps: Any = nn.ModuleList(steps)
        self.shifts = nn.ModuleList(shifts)
        self.penalty = SpectralPenalty(self) if spectral else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """What each level sees of x (B, *event), lowest (largest map) first: (B, channels, height, width)."""
        condition = checked(condition, x.shape[0], self.condition)
        h = x if x.shape[1:] == self.image else flat_items(x, math.prod(self.image)).view(-1, *self.image)
        seen: list[Tensor] = []
        for i, (entry, blocks) in enumerate(self.steps):
            h = channels_last(entry(h))
            if condition is not None:
                h = h + self.shifts[i](condition.to(h.dtype))[:, :, None, None]
            h = blocks(h)
            seen += [h] * self.counts[i]
        return seen

    def penalties(self) -> dict[str, Tensor]:
        """The weighted sum of singular values, where it is asked for."""
        return {} if self.penalty is None else {"spectral": self.spectral * self.penalty()}


def _entry(channels: int, size: Size, place: Resolution, style: Style, *, first: bool) -> nn.Module:
    """The layers from the image (``first``) or the resolution before, of ``channels`` and ``size``, to ``place``."""
    halve = (place.height, place.width) != size
    if first:
        return strided(channels, place.channels, style.activation, halve=halve)
    if style.block == "bottleneck":
        mix = [conv(channels, place.channels, 1)] if channels != place.channels else []
        return nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), *mix)
    return nn.Sequential(activation(style.activation), strided(channels, place.channels, style.activation, halve=True))
