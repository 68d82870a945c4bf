"""Residual blocks of deep image networks. None looks across the batch: evaluation computes what training computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.networks.activations import activation, initialise

BLOCKS = ("residual", "bottleneck", "depthwise")
SMALL = 2
"""Maps of no longer side are convolved by 1 x 1 kernels in a bottleneck: there is no neighbourhood to look at."""


@dataclass(frozen=True)
class Style:
    """How convolutions are put together.

    Attributes:
        block: "residual": two 3 x 3 convolutions (He et al. 2016). "bottleneck": 1x1, 3x3, 3x3, 1x1 with a quarter of
            the channels between them (Child 2021, figure 3). "depthwise": 1 x 1 to ``expand`` times the channels, 5 x 5
            a channel, 1 x 1 back, squeeze and excitation (Vahdat & Kautz 2020, figure 3a), without their batch norm.
        activation: Before each convolution, but for the first and the last of a depthwise block.
        expand: Of a depthwise block.
    """

    block: str
    activation: str
    expand: int = 6

    def upward(self) -> Style:
        """What stands beside it in a bottom-up network: depthwise blocks are for generating (figure 3b)."""
        return self if self.block != "depthwise" else Style("excited", self.activation)


def conv(inputs: int, outputs: int, kernel: int, followed_by: str = "identity", *, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size; with ``gain`` 0 it starts at zero."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    initialise(layer, followed_by, gain=gain)
    return layer


def body(style: Style, channels: int, side: int, gain: float) -> nn.Sequential:
    """The layers of a block without its skip connection, the last one scaled by ``gain``."""
    name = style.activation
    if style.block == "bottleneck":
        return bottleneck(name, (channels, max(1, channels // 4), channels), side, gain)
    if style.block == "depthwise":
        return _depthwise(style, channels, gain)
    first, last = conv(channels, channels, 3, name), conv(channels, channels, 3, gain=gain)
    gate = [Excitation(channels)] if style.block == "excited" else []
    return nn.Sequential(activation(name), first, activation(name), last, *gate)


def bottleneck(name: str, widths: tuple[int, int, int], side: int, gain: float) -> nn.Sequential:
    """Four convolutions, each after an activation, of channels in, between and out."""
    inputs, middle, outputs = widths
    kernel = 1 if side <= SMALL else 3
    layers = [conv(inputs, middle, 1, name), conv(middle, middle, kernel, name), conv(middle, middle, kernel, name)]
    layers.append(conv(middle, outputs, 1, gain=gain))
    return nn.Sequential(*(part for layer in layers for part in (activation(name), layer)))


def _depthwise(style: Style, channels: int, gain: float) -> nn.Sequential:
    middle, name = style.expand * channels, style.activation
    mixing = nn.Conv2d(middle, middle, 5, padding=2, groups=middle)
    initialise(mixing, name)
    first, last = conv(channels, middle, 1, name), conv(middle, channels, 1, gain=gain)
    return nn.Sequential(first, activation(name), mixing, activation(name), last, Excitation(channels))


class Block(nn.Module):
    """A residual block, h + body(h)."""

    def __init__(self, style: Style, channels: int, side: int, gain: float) -> None:
        super().__init__()
        self.body = body(style, channels, side, gain)

    def forward(self, h: Tensor) -> Tensor:
        """Same shape as ``h``."""
        return h + self.body(h)


class Excitation(nn.Module):
    """Squeeze and excitation: each channel times a gate made of all channels' means (Hu et al. 2018, eqs. 2 to 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = max(4, channels // 16)
        self.squeeze, self.excite = conv(channels, middle, 1, "relu"), conv(middle, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Same shape as ``h``."""
        return h * torch.sigmoid(self.excite(torch.relu(self.squeeze(h.mean((2, 3), keepdim=True)))))
