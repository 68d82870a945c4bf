"""Denoisers: networks that see a noisy value and how noisy it is, and give a value of the same shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lambent.networks.activations import activation
from lambent.networks.base import flat_items, join
from lambent.networks.mlp import affine
from lambent.settings import Part, option, part

LONGEST, SHORTEST = 64.0, 1.0
"""Wavelengths of the features of gamma, in nats: one period holds every noise level in use, the shortest tells apart
levels of which there are some fifty."""
WAVES = 16
_ACT = "silu"


class DenoiserSettings(Part, ABC):
    """What builds a denoiser ``net(z (N, *event), gamma (N,), condition (N, c) or None) -> (N, *event)``.

    gamma = -log SNR = log(s^2 / a^2) is the noise level of z = a y + s eps (Kingma et al. 2021, section 3.1), in nats.
    The output is 0 at first. What it means (eps, y, v) is the model's to say. No layer looks across the batch.
    """

    reserved: ClassVar[str] = (
        "a denoiser gives a value for a noisy one, no parameters of p(x|z); use model=diffusion, or decoder=mlp"
    )

    @abstractmethod
    def build_denoiser(self, event: tuple[int, ...], condition: int = 0) -> nn.Module:
        """The denoiser of values of shape ``event``, with a condition of ``condition`` numbers (0: none).

        Raises:
            ConfigError: an event that the network can't take.
        """


class GammaEmbedding(nn.Module):
    """A vector of gamma and the condition: sines and cosines of gamma, then two affine maps with an activation each.

    Wavelengths are spaced geometrically as in Vaswani et al. 2017, section 3.5; none is so short that the output would
    be rough in gamma, which a learned noise schedule is differentiated by. In float32 throughout.
    """

    frequencies: Tensor

    def __init__(self, width: int, condition: int = 0) -> None:
        super().__init__()
        self.condition = condition
        waves = torch.linspace(math.log(LONGEST), math.log(SHORTEST), WAVES, dtype=torch.float64)
        self.register_buffer("frequencies", (2 * math.pi / waves.exp()).float(), persistent=False)
        self.layers = nn.Sequential(
            affine(2 * WAVES + condition, width, _ACT), activation(_ACT), affine(width, width, _ACT), activation(_ACT)
        )

    def forward(self, gamma: Tensor, condition: Tensor | None = None) -> Tensor:
        """The embedding (N, width) of ``gamma`` (N,) and ``condition`` (N, c)."""
        with torch.autocast(gamma.device.type, enabled=False):
            angles = gamma[:, None] * self.frequencies.to(gamma.dtype)
            features = math.sqrt(2) * torch.cat((angles.sin(), angles.cos()), dim=1)
            embedding: Tensor = self.layers(join(features, condition, self.condition))
            return embedding


class Modulation(nn.Module):
    """h (1 + scale) + shift for each channel, both affine in the embedding (FiLM: Perez et al. 2018, eq. 2)."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.map = affine(embedding, 2 * channels)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """``h`` (N, channels, ...) changed by ``embedding`` (N, width)."""
        numbers = self.map(embedding).to(h.dtype)
        scale, shift = numbers.view(*numbers.shape, *[1] * (h.dim() - 2)).chunk(2, dim=1)
        return h * (1 + scale) + shift


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at 0."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class DenoisingBlock(nn.Module):
    """h + affine(act(affine(act(FiLM(layer norm(h)))))): the identity at first, as the last map starts at 0."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = Modulation(width, width)
        self.first, self.last = affine(width, width, _ACT), zeroed(nn.Linear(width, width))
        self.act, self.dropout = activation(_ACT), nn.Dropout(dropout)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Same shape as ``h`` (N, width)."""
        inner = self.first(self.act(self.modulation(self.norm(h), embedding)))
        return h + self.last(self.dropout(self.act(inner)))


class MLPDenoiserModule(nn.Module):
    """An affine map of the flat value, residual blocks that see gamma, and an affine map back that starts at 0."""

    def __init__(self, event: tuple[int, ...], settings: MLPDenoiser, condition: int) -> None:
        super().__init__()
        self.event, self.numbers = tuple(event), prod(event)
        self.embedding = GammaEmbedding(settings.hidden_dim, condition)
        self.entry = affine(self.numbers, settings.hidden_dim)
        self.blocks = nn.ModuleList(
            DenoisingBlock(settings.hidden_dim, settings.dropout) for _ in range(settings.blocks)
        )
        self.modulation = Modulation(settings.hidden_dim, settings.hidden_dim)
        self.output = zeroed(nn.Linear(settings.hidden_dim, self.numbers))

    def forward(self, z: Tensor, gamma: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, *event) from ``z`` (N, *event) at the noise levels ``gamma`` (N,)."""
        embedding = self.embedding(gamma, condition)
        h = self.entry(flat_items(z, self.numbers))
        for block in self.blocks:
            h = block(h, embedding)
        return self.output(self.modulation(h, embedding)).view(-1, *self.event)


@part("decoder", "denoising-mlp")
@dataclass(frozen=True)
class MLPDenoiser(DenoiserSettings):
    """A fully connected denoiser for vectors, tables and small data of any shape; for model=diffusion.

    >>> net = MLPDenoiser(hidden_dim=16, blocks=1).build_denoiser((3,))
    >>> net(torch.randn(5, 3), torch.zeros(5), None)[0]
    tensor([0., 0., 0.], grad_fn=<SelectBackward0>)
    """

    hidden_dim: int = option(256, "hidden units of each layer, and embedding size of the noise level", minimum=1)
    blocks: int = option(3, "residual blocks of two layers each", minimum=0)
    dropout: float = option(0.0, "dropout probability of a block's units", minimum=0.0, maximum=0.99)

    def build_denoiser(self, event: tuple[int, ...], condition: int = 0) -> nn.Module:
        """The denoiser of values of shape ``event``, whatever its dimensions."""
        return MLPDenoiserModule(event, self, condition)
