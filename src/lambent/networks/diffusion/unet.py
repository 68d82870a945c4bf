"""U-Nets: denoisers of images of any channels x height x width.

Residual blocks at each of several sizes, downwards and up again, where each also sees what the way down had at its
size (Ronneberger et al. 2015; with noise levels: Ho et al. 2020, appendix B). Sizes are halved, rounded up, and come
back exactly: nothing is padded or cropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lambent.errors import ConfigError
from lambent.networks.activations import activation, initialise
from lambent.networks.base import flat_items
from lambent.networks.conv import Size, image_shape, size_ladder
from lambent.networks.diffusion.denoiser import DenoiserSettings, GammaEmbedding, Modulation, zeroed
from lambent.networks.mlp import affine
from lambent.settings import option, part

_ACT = "silu"
_HEAD = 64
"""Channels of a head of attention."""


def groups_of(channels: int) -> int:
    """Groups of a group norm: at most 32, of at least 4 channels each where there are 4.

    >>> [groups_of(c) for c in (3, 6, 32, 96, 128, 512)]
    [1, 1, 8, 8, 32, 32]
    """
    return math.gcd(channels, 32, max(1, channels // 4))


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    initialise(layer, _ACT)
    return layer


class FourierFeatures(nn.Module):
    """A value beside sin(2^n pi z) and cos(2^n pi z) for each exponent n (Kingma et al. 2021, appendix C).

    They show a network differences between neighbouring levels of grey, where they decide at the lowest noise.
    """

    frequencies: Tensor

    def __init__(self, exponents: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor([2.0**n for n in exponents]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """``z`` (N, C, H, W) and its features, (N, C (1 + 2 F), H, W), in the numbers of ``z``."""
        turns = z[:, None] * self.frequencies.to(z.dtype)[:, None, None, None]
        angles = math.pi * turns.flatten(1, 2)
        return torch.cat((z, angles.sin(), angles.cos()), dim=1)


class SelfAttention(nn.Module):
    """h + attention over all positions of a map, with heads of 64 channels; the identity at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // _HEAD if channels % _HEAD == 0 else 1
        self.norm = nn.GroupNorm(groups_of(channels), channels)
        self.qkv = affine(channels, 3 * channels)
        self.output = zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        """Same shape as ``h`` (N, C, H, W)."""
        places = self.norm(h).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(places).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return h + self.output(seen).transpose(1, 2).reshape(h.shape)


class UNetBlock(nn.Module):
    """h + conv(act(FiLM(norm(conv(act(norm(h))))))), and attention where asked for; without change at first."""

    def __init__(self, inputs: int, outputs: int, settings: UNetDenoiser, embedding: int, *, attends: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_of(inputs), inputs)
        self.first = _conv(inputs, outputs)
        self.inner_norm = nn.GroupNorm(groups_of(outputs), outputs, affine=False)
        self.modulation = Modulation(embedding, outputs)
        self.dropout, self.act = nn.Dropout(settings.dropout), activation(_ACT)
        self.last = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.way = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention = SelfAttention(outputs) if attends else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(N, outputs, H, W) from ``h`` (N, inputs, H, W)."""
        inner = self.inner_norm(self.first(self.act(self.norm(h))))
        inner = self.last(self.dropout(self.act(self.modulation(inner, embedding))))
        return self.attention(self.way(h) + inner)


class Downsample(nn.Module):
    """A convolution of stride 2; sizes are rounded up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, stride=2)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """(N, outputs, ceil(H / 2), ceil(W / 2)); the noise level is of no concern."""
        return self.conv(h)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling.

    Channels are mixed at the small size; positions by the block that follows. A convolution of 3 x 3 at the large
    size would take a quarter of the time of a small network.
    """

    def __init__(self, inputs: int, outputs: int, size: Size) -> None:
        super().__init__()
        self.size, self.conv = size, nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor) -> Tensor:
        """The maps (N, outputs, *size) at the larger size."""
        return F.interpolate(self.conv(h), self.size, mode="nearest")


class UpPath(nn.Module):
    """The blocks of one size on the way up, and what enlarges their result."""

    def __init__(self, blocks: list[UNetBlock], larger: nn.Module) -> None:
        super().__init__()
        self.blocks, self.larger = nn.ModuleList(blocks), larger

    def forward(self, h: Tensor, kept: list[Tensor], embedding: Tensor) -> Tensor:
        """From ``h`` of this size; takes a map for each block from the end of ``kept``."""
        for block in self.blocks:
            h = block(torch.cat((h, kept.pop()), dim=1), embedding)
        return self.larger(h)


class UNetDenoiserModule(nn.Module):
    """Down the sizes, two blocks at the smallest, and up again with the maps of the way down beside each block."""

    def __init__(self, event: tuple[int, ...], settings: UNetDenoiser, condition: int) -> None:
        super().__init__()
        self.event, self.image = tuple(event), image_shape(event, "unet", "denoising-mlp")
        sizes = size_ladder(*self.image[1:], settings.smallest)
        self.settings, self.width = settings, 4 * settings.channels[0]
        widths = [settings.channels[min(i, len(settings.channels) - 1)] for i in range(len(sizes))]
        self.embedding = GammaEmbedding(self.width, condition)
        self.features = FourierFeatures(settings.fourier)
        self.entry = _conv(self.image[0] * (1 + 2 * len(settings.fourier)), widths[0])
        self.down, kept = self._downwards(sizes, widths)
        middle = [self._block(widths[-1], widths[-1], attends=at) for at in (settings.attention > 0, False)]
        self.middle = nn.ModuleList(middle)
        self.up = self._upwards(sizes, widths, kept)
        self.norm = nn.GroupNorm(groups_of(widths[0]), widths[0])
        self.act, self.output = activation(_ACT), zeroed(nn.Conv2d(widths[0], self.image[0], 3, padding=1))

    def _block(self, inputs: int, outputs: int, *, attends: bool) -> UNetBlock:
        return UNetBlock(inputs, outputs, self.settings, self.width, attends=attends)

    def _attends(self, size: Size) -> bool:
        return max(size) <= self.settings.attention

    def _downwards(self, sizes: list[Size], widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
        """Blocks and halvings; and the channels of all maps that are kept for the way up."""
        modules: list[nn.Module] = []
        kept = [widths[0]]
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            if i:
                modules.append(Downsample(kept[-1], width))
                kept.append(width)
            for _ in range(self.settings.blocks):
                modules.append(self._block(kept[-1], width, attends=self._attends(size)))
                kept.append(width)
        return nn.ModuleList(modules), kept

    def _upwards(self, sizes: list[Size], widths: list[int], kept: list[int]) -> nn.ModuleList:
        """One way up for each size, smallest first; each block takes one of the maps kept."""
        ways, before = nn.ModuleList(), widths[-1]
        for i in reversed(range(len(sizes))):
            blocks = []
            for _ in range(self.settings.blocks + 1):
                blocks.append(self._block(before + kept.pop(), widths[i], attends=self._attends(sizes[i])))
                before = widths[i]
            ways.append(UpPath(blocks, Upsample(before, widths[i - 1], sizes[i - 1]) if i else nn.Identity()))
            before = widths[max(i - 1, 0)]
        return ways

    def forward(self, z: Tensor, gamma: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, *event) from ``z`` (N, *event) at the noise levels ``gamma`` (N,)."""
        embedding = self.embedding(gamma, condition)
        kept = [self.entry(self.features(flat_items(z, prod(self.image)).view(-1, *self.image)))]
        for module in self.down:
            kept.append(module(kept[-1], embedding))
        h = kept[-1]
        for block in self.middle:
            h = block(h, embedding)
        for way in self.up:
            h = way(h, kept, embedding)
        return self.output(self.act(self.norm(h))).reshape(-1, *self.event)


@part("decoder", "unet")
@dataclass(frozen=True)
class UNetDenoiser(DenoiserSettings):
    """A U-Net for images of any size; for model=diffusion.

    Raises:
        ConfigError: no channels given.

    >>> net = UNetDenoiser(channels=(8, 16), blocks=1, smallest=3).build_denoiser((3, 9, 5))
    >>> net(torch.randn(4, 3, 9, 5), torch.zeros(4)).shape
    torch.Size([4, 3, 9, 5])
    """

    channels: tuple[int, ...] = option(
        (32, 64), "channels at each resolution, from the image's size down; the last repeats", minimum=1
    )
    blocks: int = option(2, "residual blocks at each resolution on the way down (one more on the way up)", minimum=1)
    smallest: int = option(7, "longest side, in pixels, at which halving stops", minimum=1)
    attention: int = option(
        7,
        "longest side, in pixels, of feature maps with self-attention; 1: in the middle block only, 0: nowhere",
        minimum=0,
    )
    dropout: float = option(0.0, "dropout probability of a block's values", minimum=0.0, maximum=0.99)
    fourier: tuple[int, ...] = option(
        (),
        "exponents n of features sin(2^n pi z) and cos(2^n pi z) of the noisy image; none: the image alone",
        minimum=0,
    )

    def __post_init__(self) -> None:
        if not self.channels:
            raise ConfigError("network 'unet': channels is empty, expected one width or more; give channels=[32, 64]")

    def build_denoiser(self, event: tuple[int, ...], condition: int = 0) -> nn.Module:
        """The denoiser of images of shape ``event``, (C, H, W) or (H, W)."""
        return UNetDenoiserModule(event, self, condition)
