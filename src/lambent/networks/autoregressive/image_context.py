"""What a decoder's context adds to the sums of an image network: one number a channel, or a map."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.networks.autoregressive.base import ContextShape, context_size, linear
from lambent.networks.conv import ConvDecoder

Term = Callable[[int], Tensor | None]
"""What the context adds to the sum numbered so: (N, channels, H or 1, W or 1), or nothing."""


class ContextTerms(nn.Module):
    """V' c added to each sum, or V * s with s a map made of c (van den Oord et al. 2016, NeurIPS, section 2.3).

    A vector gives one number a channel, which is the same for all elements; with ``width`` it is decoded to a map of so
    many channels first (as PixelVAE does: Gulrajani et al. 2017). A map is brought to the image's size by nearest
    neighbours, with ``width`` between two convolutions.

    Args:
        latent: Numbers, or a map (C, h, w), given flat.
        condition: Numbers that follow them.
        width: Channels of a learned map; 0 for none.
        size: Height and width of the image.
        sums: Channels of each sum.
    """

    def __init__(
        self, latent: ContextShape, condition: int, width: int, size: tuple[int, int], sums: list[int]
    ) -> None:
        super().__init__()
        self.latent, self.numbers, self.size = latent, context_size(latent), size
        self.maker = _maker(latent, condition, width, size) if width else None
        vector = condition if isinstance(latent, tuple) else (0 if width else latent + condition)
        channels = width or (latent[0] if isinstance(latent, tuple) else 0)
        self.from_vector = nn.ModuleList(linear(vector, n) for n in sums if vector)
        self.from_map = nn.ModuleList(nn.Conv2d(channels, n, 1, bias=False) for n in sums if channels)

    def of(self, context: Tensor | None) -> Term:
        """The terms of a context (N, c)."""
        if context is None:
            return lambda k: None
        vector, image = self._vector(context), self._map(context)

        def term(k: int) -> Tensor | None:
            parts = [self.from_vector[k](vector)[:, :, None, None]] if self.from_vector else []
            parts += [self.from_map[k](image)] if self.from_map else []
            return sum(parts[1:], parts[0])

        return term

    def _vector(self, context: Tensor) -> Tensor:
        return context if isinstance(self.latent, int) else context[:, self.numbers :]

    def _map(self, context: Tensor) -> Tensor | None:
        if isinstance(self.latent, int):
            return None if self.maker is None else self.maker(context)
        image = context[:, : self.numbers].unflatten(1, self.latent)
        return F.interpolate(image, self.size) if self.maker is None else self.maker(image)


class PositionTerms(nn.Module):
    """V' m added to each sum, m a learned map that is the same for all images: a network that knows where it is.

    Masked convolutions padded with zeros see no edge where the data is zero too, and nothing else distinguishes one
    position from another; Liu et al. 2018 (NeurIPS) add coordinates as channels against it. The map starts as the
    slowest ``width`` cosines of the image's rows and columns, the V' at zero.

    Args:
        width: Channels of the map, of which there are as many as the image has pixels, less one, at most.
        size: Height and width of the image.
        sums: Channels of each sum.
    """

    def __init__(self, width: int, size: tuple[int, int], sums: list[int]) -> None:
        super().__init__()
        self.map = nn.Parameter(slow_waves(width, size))
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(n, len(self.map))) for n in sums)

    def beside(self, other: Term) -> Term:
        """These terms and those of a context."""

        def term(k: int) -> Tensor:
            here = (self.map.permute(1, 2, 0) @ self.weights[k].T).permute(2, 0, 1).unsqueeze(0)
            beside = other(k)
            return here if beside is None else here + beside

        return term


def slow_waves(count: int, size: tuple[int, int]) -> Tensor:
    """Products of cosines over rows and columns, the slowest first, without the constant: (count, H, W).

    They are orthogonal, of mean square 1, and there are H W - 1 of them.

    >>> slow_waves(3, (28, 28)).square().mean((1, 2))
    tensor([1., 1., 1.])
    >>> len(slow_waves(100, (3, 3)))
    8
    """
    rows, columns = (torch.pi * (torch.arange(n) + 0.5) / n for n in size)
    pairs = sorted(product(range(size[0]), range(size[1])), key=lambda pair: (sum(pair), abs(pair[0] - pair[1])))
    waves = [torch.outer((a * rows).cos(), (b * columns).cos()) for a, b in pairs[: count + 1]]
    return torch.stack([wave / wave.square().mean().sqrt() for wave in waves])[1:]


def _maker(latent: ContextShape, condition: int, width: int, size: tuple[int, int]) -> nn.Module:
    if isinstance(latent, tuple):
        first, last = nn.Conv2d(latent[0], width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        return nn.Sequential(first, nn.ELU(), nn.Upsample(size), last, nn.ELU())
    if latent + condition == 0:
        raise ConfigError(f"context_map={width}: no latent and no condition to make a map of; use context_map=0")
    decoder = ConvDecoder(channels=(width, 2 * width)).build(latent + condition, (width, *size))
    return nn.Sequential(decoder, nn.ELU())
