"""What networks share that read elements one after the other: steps of a sequence, inputs, outputs, the order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.errors import ConfigError
from lambent.networks.activations import output_gain
from lambent.networks.autoregressive.base import AutoregressiveNet, Choose, InputDropout, linear
from lambent.networks.base import checked, flat_items
from lambent.networks.mlp import affine
from lambent.settings import Conflict

MOST_SYMBOLS = 4096
"""More than these are numbers with a size, not rows of a table."""
Step = Callable[[Tensor, int], Tensor]
"""(token (N, width) of the element before, position) -> features (N, F) of the element at that position."""


def pixel_order(event: tuple[int, ...], kind: str) -> Tensor:
    """(1, D) elements in order: "natural", in which an image's channels come together, pixel by pixel, or "random".

    >>> pixel_order((3, 1, 2), "natural")
    tensor([[0, 2, 4, 1, 3, 5]])
    """
    elements = prod(event)
    if kind == "random":
        return torch.randperm(elements).unsqueeze(0)
    channels = event[0] if len(event) == 3 else 1
    return torch.arange(elements).view(channels, -1).T.reshape(1, -1)


class Inputs(nn.Module):
    """Elements (N, T) as tokens (N, T, width): symbols by a table, numbers by an affine map.

    Args:
        width: Numbers a token.
        symbols: Rows of the table; None for numbers.
        hidden: Share of the inputs replaced by nothing in training: by a row of their own, or the number 0.
    """

    def __init__(self, width: int, symbols: int | None, hidden: float) -> None:
        super().__init__()
        self.dropout = InputDropout(hidden, float(symbols or 0))
        self.table = None if symbols is None else nn.Embedding(symbols + (hidden > 0), width)
        self.affine = affine(1, width) if symbols is None else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """The tokens (N, D, width) of ``x``."""
        x = self.dropout(x)
        if self.table is not None:
            tokens: Tensor = self.table(x.long())
            return tokens
        assert self.affine is not None
        return self.affine(x.unsqueeze(-1).to(self.affine.weight.dtype))


class SequenceNet(AutoregressiveNet):
    """Reads the elements in order; features of an element follow from the tokens of those before it.

    The first element's token is a learned one. Parameters are affine in the features: W h + b_d, W shared by all
    elements d, b_d their own.

    Args:
        out_shape: (P, *event).
        order: (1, D).
        width: Numbers a token.
        features: Numbers that the parameters follow from.
        symbols: How many values an element takes, where they are finitely many.
        hidden: Share of the inputs hidden in training.
    """

    def __init__(
        self,
        out_shape: tuple[int, ...],
        order: Tensor,
        width: int,
        features: int,
        symbols: int | None,
        hidden: float,
    ) -> None:
        super().__init__(out_shape, order)
        symbols = symbols if symbols is not None and symbols <= MOST_SYMBOLS else None
        self.embeds = symbols is not None
        self.inputs = Inputs(width, symbols, hidden)
        self.start = nn.Parameter(torch.randn(width) * width**-0.5)
        self.output = linear(features, out_shape[0], gain=output_gain("gelu"))
        self.bias = nn.Parameter(torch.zeros(out_shape[0], self.elements))

    @abstractmethod
    def features(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """(N, D, F) of tokens (N, D, width): those at position t depend on tokens 1..t."""

    @abstractmethod
    def stepper(self, items: int, context: Tensor | None) -> Step:
        """A function that gives `features` one position after the other, called in order."""

    def forward(self, x: Tensor, context: Tensor | None, ordering: int) -> Tensor:
        """Parameters (N, P, *event) of inputs (N, D)."""
        order = self.order[ordering]
        before = flat_items(x, self.elements)[:, order[:-1]]
        tokens = torch.cat([self.start.expand(len(x), 1, -1), self.inputs(before)], 1)
        h = self.features(tokens, context)[:, order.argsort()]
        return (self.output(h).transpose(1, 2) + self.bias).unflatten(2, self.out_shape[1:])

    @torch.no_grad()
    def unroll(self, items: int, context: Tensor | None, ordering: int, choose: Choose) -> None:
        """Step by step, from the state that the steps before left; outside the graph, as it is written in place."""
        step, token = self.stepper(items, context), self.start.expand(items, -1)
        for place, element in enumerate(self.order[ordering].tolist()):
            numbers = F.linear(step(token, place), self.output.weight, self.bias[:, element])
            token = self.inputs(choose(element, numbers))

    def output_bias(self) -> nn.Parameter:
        """The output bias b, (P, D)."""
        return self.bias


class Steps(nn.Module):
    """Items as tokens (N, T, width): (F, *grid) as T steps of F features, (D,) as D steps of one number.

    Args:
        in_shape: Of an item.
        width: Numbers a token.
        end: The feature that marks the end: what follows the first step that has it is not seen. None for no such mark.
        condition: Numbers of the condition, added to every token by a linear map.

    Raises:
        ConfigError: no feature of that number.
    """

    def __init__(self, in_shape: tuple[int, ...], width: int, end: int | None, condition: int) -> None:
        super().__init__()
        self.features = in_shape[0] if len(in_shape) > 1 else 1
        self.count, self.condition, self.end = prod(in_shape) // self.features, condition, end
        if end is not None and not -self.features <= end < self.features:
            raise ConfigError(
                f"encoder.end={end}: found {self.features} features a step, expected the number of one of them; "
                "leave it out where nothing marks the end"
            )
        self.affine = affine(self.features, width)
        self.from_condition = linear(condition, width) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens of x (N, *in_shape), and which of them are seen, (N, T); None for all."""
        steps = flat_items(x, self.features * self.count).view(len(x), self.features, self.count).transpose(1, 2)
        tokens, condition = self.affine(steps), checked(condition, len(x), self.condition)
        if self.from_condition is not None and condition is not None:
            tokens = tokens + self.from_condition(condition.to(tokens.dtype)).unsqueeze(1)
        return tokens, None if self.end is None else _before_the_end(steps[..., self.end] > 0.5)


def _before_the_end(ends: Tensor) -> Tensor:
    """True up to and with the first True of ``ends`` (N, T)."""
    return ends.long().cumsum(1) - ends.long() == 0


def end_of_blocks(end: int | None, parts: Any) -> Conflict | None:
    """Why an encoder that stops at the symbol ``end`` is incompatible with blocks of text, which have none."""
    if end is None or parts.data.examples != "blocks":
        return None
    why = "blocks have no end symbol, and the encoder would stop at a symbol like others; use encoder.end=none"
    return Conflict(("encoder.end", "data.examples"), f"{why}, or data.examples=lines")
