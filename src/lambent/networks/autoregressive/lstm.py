"""LSTMs: a density of elements in order, and an encoder of sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lambent.networks.autoregressive.base import (
    ORDERINGS,
    AutoregressiveSettings,
    ContextShape,
    context_size,
    input_dropout_option,
    linear,
)
from lambent.networks.autoregressive.sequence import SequenceNet, Step, Steps, end_of_blocks, pixel_order
from lambent.networks.base import EncoderModule, EncoderSettings, checked
from lambent.settings import Conflict, option, part

State = tuple[Tensor, Tensor]
"""Outputs and cells of all layers, (layers, N, hidden) each."""


def lstm(inputs: int, hidden: int, layers: int, *, both_ways: bool = False) -> nn.LSTM:
    """Layers of LSTM cells, batch first; forget gates start open, at bias 1 (Gers et al. 2000)."""
    net = nn.LSTM(inputs, hidden, layers, batch_first=True, bidirectional=both_ways)
    with torch.no_grad():
        for name, bias in net.named_parameters():
            if name.startswith("bias"):
                bias.zero_()
            if name.startswith("bias_ih"):
                bias[hidden : 2 * hidden] = 1
    return net


class LSTMNet(SequenceNet):
    """Layers of LSTM cells over the elements; context gives their initial state and moves every token, linearly.

    Args:
        out_shape: (P, *event).
        settings: Sizes.
        context: Size of the context; a map counts as its number of values.
        symbols: How many values an element takes.
    """

    def __init__(self, out_shape: tuple[int, ...], settings: LSTMDecoder, context: int, symbols: int | None) -> None:
        order = pixel_order(out_shape[1:], settings.ordering)
        super().__init__(out_shape, order, settings.embedding, settings.hidden_dim, symbols, settings.input_dropout)
        self.lstm = lstm(settings.embedding, settings.hidden_dim, settings.layers)
        self.context = context
        self.to_state = linear(context, 2 * settings.layers * settings.hidden_dim) if context else None
        self.to_tokens = linear(context, settings.embedding) if context else None
        self.dropout = nn.Dropout(settings.dropout)

    def features(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """(N, D, hidden) of tokens (N, D, embedding)."""
        state, everywhere = self._context_terms(context, len(tokens))
        h, _ = self.lstm(tokens + everywhere.unsqueeze(1), state)
        return self.dropout(h)

    def stepper(self, items: int, context: Tensor | None) -> Step:
        """A step function that carries the LSTM's state."""
        state, everywhere = self._context_terms(context, items)

        def step(token: Tensor, place: int) -> Tensor:
            nonlocal state
            h, state = self.lstm((token + everywhere).unsqueeze(1), state)
            return h.squeeze(1)

        return step

    def _context_terms(self, context: Tensor | None, items: int) -> tuple[State, Tensor]:
        """The initial state, and what every token is moved by, (N, embedding)."""
        context, layers, hidden = checked(context, items, self.context), self.lstm.num_layers, self.lstm.hidden_size
        if context is None or self.to_state is None or self.to_tokens is None:
            zero = self.start.new_zeros(layers, items, hidden)
            return (zero, zero), self.start.new_zeros(items, len(self.start))
        context = context.to(self.start.dtype)
        h, cell = self.to_state(context).view(items, 2, layers, hidden).permute(1, 2, 0, 3).contiguous()
        return (h, cell), self.to_tokens(context)


@part("decoder", "lstm")
@dataclass(frozen=True)
class LSTMDecoder(AutoregressiveSettings):
    """LSTM over bytes, codes or pixels; z enters as in the sentence VAE (Bowman et al. 2016, CoNLL).

    Up to 4096 symbols are looked up in a table; other elements are numbers. In the natural order an image's channels
    come together, pixel by pixel, rows from the top.

    >>> net = LSTMDecoder(hidden_dim=64, embedding=16).build(8, (27, 40), symbols=27)
    >>> sum(p.numel() for p in net.parameters())
    25400
    """

    hidden_dim: int = option(256, "LSTM units per layer", minimum=1)
    layers: int = option(1, "LSTM layers", minimum=1)
    embedding: int = option(64, "embedding size of an element", minimum=1)
    dropout: float = option(0.0, "dropout probability of the last layer's outputs", minimum=0, maximum=1)
    input_dropout: float = input_dropout_option()
    ordering: str = option(
        "natural", "order of the elements: raster (as stored), or one random order", choices=ORDERINGS
    )

    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> LSTMNet:
        """The network, its weights and ordering from torch's current random state."""
        return LSTMNet(out_shape, self, context_size(latent) + condition, symbols)


class LSTMEncoderModule(EncoderModule):
    """Layers of LSTM cells over the steps; the features are the last layer's last outputs, of each direction."""

    def __init__(self, in_shape: tuple[int, ...], settings: LSTMEncoder, condition: int) -> None:
        super().__init__()
        self.steps = Steps(in_shape, settings.embedding, settings.end, condition)
        self.lstm = lstm(settings.embedding, settings.hidden_dim, settings.layers, both_ways=settings.bidirectional)
        self.ways = 2 if settings.bidirectional else 1
        self.features = self.ways * settings.hidden_dim

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features (N, features) of x (N, *in_shape)."""
        tokens, seen = self.steps(x, condition)
        if seen is not None:
            tokens = pack_padded_sequence(tokens, seen.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(tokens)
        return h[-self.ways :].transpose(0, 1).flatten(1)


@part("encoder", "lstm")
@dataclass(frozen=True)
class LSTMEncoder(EncoderSettings):
    """LSTM over D steps of S features, from items (S, D), or D numbers (Hochreiter & Schmidhuber 1997).

    >>> LSTMEncoder(hidden_dim=50, bidirectional=True).build((27, 40)).features
    100
    """

    hidden_dim: int = option(256, "LSTM units per layer and direction", minimum=1)
    layers: int = option(1, "LSTM layers", minimum=1)
    embedding: int = option(64, "embedding size of a sequence element", minimum=1)
    bidirectional: bool = option(default=False, help="read the sequence backwards as well")
    end: int | None = option(None, "index of the feature (symbol) EOS: what follows its first occurrence is ignored")

    def conflicts(self, parts: Any) -> Conflict | None:
        """An end symbol needs texts that have one."""
        return end_of_blocks(self.end, parts)

    def build(self, in_shape: tuple[int, ...], condition: int = 0) -> EncoderModule:
        """The encoder of items of shape ``in_shape``, with a condition of ``condition`` numbers (0: none)."""
        return LSTMEncoderModule(in_shape, self, condition)
