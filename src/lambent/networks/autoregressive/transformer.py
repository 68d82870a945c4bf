"""Transformers: blocks of attention for any use, a density of elements in order, and an encoder of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.networks.autoregressive.base import (
    ORDERINGS,
    AutoregressiveSettings,
    ContextShape,
    input_dropout_option,
)
from lambent.networks.autoregressive.context_tokens import ContextTokens, positions
from lambent.networks.autoregressive.sequence import SequenceNet, Step, Steps, end_of_blocks, pixel_order
from lambent.networks.base import EncoderModule, EncoderSettings
from lambent.networks.mlp import affine
from lambent.settings import Conflict, option, part


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in each of H heads of d = width / H (Vaswani et al. 2017, eq. 1), side by side.

    Args:
        width: Numbers a token.
        heads: H, a divisor of it.
        causal: Token t looks at tokens 1..t only; otherwise at all.
        gain: How small the last map starts.
        window: How many tokens before t a causal token t looks at, beside those in ``front``; None for all.
        front: Tokens at the start that all later ones look at.

    Raises:
        ConfigError: H does not divide the width.
    """

    def __init__(
        self, width: int, heads: int, *, causal: bool, gain: float = 1.0, window: int | None = None, front: int = 0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"model_dim={width} is no multiple of heads={heads}; give heads that divide it")
        self.heads, self.causal, self.window, self.front = heads, causal, window, front
        self.inputs, self.output = affine(width, 3 * width), affine(width, width, gain=gain)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); keys where ``mask`` (N, T) is false are not looked at."""
        q, k, v = self.inputs(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = self._band(h) if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=self.causal and seen is None)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _band(self, h: Tensor) -> Tensor | None:
        """Which tokens (columns) each one (rows) looks at, where a window says so."""
        if self.window is None:
            return None
        place = torch.arange(h.shape[1], device=h.device)
        back = place.unsqueeze(1) - place
        return (back >= 0) & ((back <= self.window) | (place < self.front))

    def _in_sight(self, cache: Tensor, place: int) -> Tensor:
        """Keys and values that the token at a position attends to."""
        first = 0 if self.window is None else place - self.window
        if first <= self.front:
            return cache[:, :, : place + 1]
        return torch.cat([cache[:, :, : self.front], cache[:, :, first : place + 1]], 2)

    def step(self, h: Tensor, cache: Tensor, place: int) -> Tensor:
        """`forward` at one position: (N, width) of h (N, width) there and of ``cache`` (2, N H, T, d) before it.

        This position's key and value are written to the cache.
        """
        q, k, v = self.inputs(h).view(len(h), 3, -1, cache.shape[-1]).transpose(0, 1).flatten(1, 2)
        cache[0, :, place], cache[1, :, place] = k, v
        keys, values = self._in_sight(cache, place)
        # Two products of batches: `@` and scaled_dot_product_attention take longer, the first as it copies the cache.
        scores = torch.bmm((q * q.shape[-1] ** -0.5).unsqueeze(1), keys.transpose(1, 2))
        return self.output(torch.bmm(scores.softmax(-1), values).view_as(h))


class Block(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h)): the pre-norm block (Radford et al. 2019), GELU units.

    Args:
        width: Numbers a token; the MLP has 4 times as many units.
        heads: Heads of attention.
        dropout: Probability with which a number that a branch adds is zeroed in training.
        causal: Token t looks at tokens 1..t only.
        gain: How small the last map of each branch starts.
        window: As for `Attention`.
        front: As for `Attention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        *,
        causal: bool,
        gain: float = 1.0,
        window: int | None = None,
        front: int = 0,
    ) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal, gain=gain, window=window, front=front)
        self.mlp = nn.Sequential(affine(width, 4 * width, "gelu"), nn.GELU(), affine(4 * width, width, gain=gain))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); tokens where ``mask`` (N, T) is false are not looked at."""
        h = h + self.dropout(self.attention(self.before_attention(h), mask))
        return h + self.dropout(self.mlp(self.before_mlp(h)))

    def step(self, h: Tensor, cache: Tensor, place: int) -> Tensor:
        """`forward` at one position, (N, width); the positions before it are in the ``cache``."""
        h = h + self.attention.step(self.before_attention(h), cache, place)
        return h + self.mlp(self.before_mlp(h))


class Stack(nn.Module):
    """Blocks, then a norm: (N, T, width) -> (N, T, width), for T of any length. Positions are the caller's.

    Args:
        width: Numbers a token.
        layers: Number of blocks.
        heads: Heads of attention, a divisor of the width.
        dropout: As for a `Block`.
        causal: Token t looks at tokens 1..t only; otherwise every token at all of them.
        windows: How far back the tokens of each block look, if not at all before them.
        front: Tokens at the start that all later ones look at.

    >>> net = Stack(32, layers=2, heads=4, causal=False)
    >>> net(net.norm.weight.expand(5, 7, 32)).shape
    torch.Size([5, 7, 32])
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        *,
        causal: bool,
        windows: Sequence[int | None] | None = None,
        front: int = 0,
    ) -> None:
        super().__init__()
        gain = (2 * layers) ** -0.5  # as many branches add up, which keeps their sum at unit size
        self.blocks: Any = nn.ModuleList(
            Block(width, heads, dropout, causal=causal, gain=gain, window=window, front=front)
            for window in windows or [None] * layers
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, T, width) of h (N, T, width); tokens where ``mask`` (N, T) is false are not looked at.

        A mask is for stacks that aren't causal.
        """
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)

    def cache(self, items: int, places: int) -> list[Tensor]:
        """An empty cache for keys and values of ``places`` positions, (2, N H, T, d) per block."""
        weight, heads = self.norm.weight, self.blocks[0].attention.heads
        return [weight.new_empty(2, items * heads, places, len(weight) // heads) for _ in self.blocks]

    def step(self, h: Tensor, cache: list[Tensor], place: int) -> Tensor:
        """`forward` of a causal stack at one position, (N, width); the positions before it are in the ``cache``."""
        for block, own in zip(self.blocks, cache, strict=True):
            h = block.step(h, own, place)
        return self.norm(h)


class TransformerNet(SequenceNet):
    """A causal `Stack` over the elements, at learned positions (Parmar et al. 2018; Chen et al. 2020).

    A vector of context is added to every token by a linear map, so that it is near at every element. A map (C, h, w)
    becomes h w tokens in front, at positions of their own, which every element looks at.

    Args:
        out_shape: (P, *event).
        settings: Sizes.
        latent: Size of z as context: a number of values, or a map.
        condition: Numbers that follow it.
        symbols: How many values an element takes.
    """

    def __init__(
        self,
        out_shape: tuple[int, ...],
        settings: TransformerDecoder,
        latent: ContextShape,
        condition: int,
        symbols: int | None,
    ) -> None:
        width, order = settings.model_dim, pixel_order(out_shape[1:], settings.ordering)
        super().__init__(out_shape, order, width, width, symbols, settings.input_dropout)
        self.positions = positions(self.elements, width)
        front = 0 if isinstance(latent, int) else prod(latent[1:])
        sizes = (width, settings.layers, settings.heads, settings.dropout)
        self.stack = Stack(*sizes, causal=True, windows=settings.windows(), front=front)
        self.seen = ContextTokens(latent, condition, width)
        self.context = self.seen.size

    def features(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """(N, D, width) of tokens (N, D, width)."""
        prefix, everywhere = self.seen(context, len(tokens), self.start)
        tokens = tokens + self.positions + everywhere.unsqueeze(1)
        return self.stack(torch.cat([prefix, tokens], 1))[:, prefix.shape[1] :]

    def stepper(self, items: int, context: Tensor | None) -> Step:
        """Attention to cached keys and values."""
        prefix, everywhere = self.seen(context, items, self.start)
        before = prefix.shape[1]
        cache = self.stack.cache(items, before + self.elements)
        for place in range(before):
            self.stack.step(prefix[:, place], cache, place)

        def step(token: Tensor, place: int) -> Tensor:
            return self.stack.step(token + self.positions[place] + everywhere, cache, before + place)

        return step


@part("decoder", "transformer")
@dataclass(frozen=True)
class TransformerDecoder(AutoregressiveSettings):
    """Causal transformer over pixels, codes or bytes (Parmar et al. 2018, ICML; Chen et al. 2020, ICML).

    Up to 4096 symbols are looked up in a table; other elements are numbers. In the natural order an image's channels
    come together, pixel by pixel, rows from the top.

    >>> net = TransformerDecoder(model_dim=64, layers=2).build(0, (2, 8, 8), symbols=2)
    >>> sum(p.numel() for p in net.parameters())
    104640
    """

    model_dim: int = option(128, "embedding size of a token, a multiple of the heads", minimum=1)
    layers: int = option(3, "transformer blocks (attention, then MLP)", minimum=1)
    heads: int = option(4, "attention heads", minimum=1)
    dropout: float = option(0.0, "dropout probability of each block's output, before it is added", minimum=0, maximum=1)
    input_dropout: float = input_dropout_option()
    receptive_field: int = option(0, "how many preceding elements an element is conditioned on; 0: all", minimum=0)
    ordering: str = option(
        "natural", "order of the elements: raster (as stored), or one random order", choices=ORDERINGS
    )

    def windows(self) -> list[int] | None:
        """How far back each block looks, so that all together see ``receptive`` elements; None for all.

        >>> TransformerDecoder(layers=3, receptive_field=6).windows()
        [2, 2, 1]
        """
        if not self.receptive_field:
            return None
        each, rest = divmod(self.receptive_field - 1, self.layers)
        return [each + (layer < rest) for layer in range(self.layers)]

    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> TransformerNet:
        """The network, its weights and ordering from torch's current random state."""
        return TransformerNet(out_shape, self, latent, condition, symbols)


class TransformerEncoderModule(EncoderModule):
    """A `Stack` without a causal mask over the steps, at learned positions; the features are its mean over steps."""

    def __init__(self, in_shape: tuple[int, ...], settings: TransformerEncoder, condition: int) -> None:
        super().__init__()
        self.features = settings.model_dim
        self.steps = Steps(in_shape, settings.model_dim, settings.end, condition)
        self.positions = positions(self.steps.count, settings.model_dim)
        self.stack = Stack(settings.model_dim, settings.layers, settings.heads, settings.dropout, causal=False)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features (N, width) of x (N, *in_shape)."""
        tokens, seen = self.steps(x, condition)
        h = self.stack(tokens + self.positions, seen)
        if seen is None:
            return h.mean(1)
        return (h * seen.unsqueeze(-1)).sum(1) / seen.sum(1, keepdim=True)


@part("encoder", "transformer")
@dataclass(frozen=True)
class TransformerEncoder(EncoderSettings):
    """Transformer that looks both ways over D steps of S features, items (S, D), or D numbers (Vaswani et al. 2017).

    >>> TransformerEncoder(model_dim=32).build((27, 40)).features
    32
    """

    model_dim: int = option(128, "embedding size of a token, a multiple of the heads", minimum=1)
    layers: int = option(2, "transformer blocks (attention, then MLP)", minimum=1)
    heads: int = option(4, "attention heads", minimum=1)
    dropout: float = option(0.0, "dropout probability of each block's output, before it is added", minimum=0, maximum=1)
    end: int | None = option(None, "index of the feature (symbol) EOS: what follows its first occurrence is ignored")

    def conflicts(self, parts: Any) -> Conflict | None:
        """An end symbol needs texts that have one."""
        return end_of_blocks(self.end, parts)

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The encoder of items of shape ``in_shape``, with a condition of ``condition`` numbers (0: none)."""
        return TransformerEncoderModule(in_shape, self, condition)
