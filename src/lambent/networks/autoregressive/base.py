"""What networks promise whose output for an element looks at earlier elements only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from lambent.networks.activations import initialise
from lambent.settings import Part, option

Choose = Callable[[int, Tensor], Tensor]
"""(element, its parameters (N, P)) -> that element's input (N,)."""
ContextShape = int | tuple[int, int, int]
"""Size of the context of every output: a number of values, or a map (C, h, w); the context itself is always flat."""
ORDERINGS = ("natural", "random")


class AutoregressiveNet(nn.Module, ABC):
    """Parameters of p(x_d | elements before d), for all d at once: the Jacobian by later elements is exactly zero.

    Attributes:
        out_shape: (P, *event): P parameters for each element.
        order: (M, D) elements in the order in which they are generated, for each of M orderings.
        embeds: Inputs are symbols 0, 1, ... that it looks up in a table of its own, not numbers with a size.
    """

    order: Tensor
    embeds: bool = False

    def __init__(self, out_shape: tuple[int, ...], order: Tensor) -> None:
        super().__init__()
        self.out_shape, self.elements = tuple(out_shape), prod(out_shape[1:])
        self.register_buffer("order", order)

    @property
    def orderings(self) -> int:
        """M, the number of orderings that the network supports."""
        return self.order.shape[0]

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None, ordering: int) -> Tensor:
        """Parameters (N, P, *event) of all elements in one pass.

        Args:
            x: Inputs (N, D), one number an element (a symbol, where the network ``embeds``).
            context: (N, c), seen by every output; None where the network was built for none.
            ordering: Which of the M.
        """

    @abstractmethod
    def unroll(self, items: int, context: Tensor | None, ordering: int, choose: Choose) -> None:
        """The same parameters element by element in order, each from the inputs that ``choose`` gave before it.

        All together cost about one pass.
        """

    @abstractmethod
    def output_bias(self) -> nn.Parameter:
        """The parameter added last, viewable as ``out_shape``."""


class AutoregressiveSettings(Part, ABC):
    """Settings of such networks: parts of kind "decoder", since they stand where a decoder stands."""

    @abstractmethod
    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> AutoregressiveNet:
        """The network of (P, *event) parameters.

        Args:
            latent: Size of z as context: a number of values, or a map.
            out_shape: (P, *event).
            condition: Numbers of the condition, which follow those of z in the context.
            symbols: How many values an element takes, where they are finitely many.
        """


class InputDropout(nn.Module):
    """In training, replaces each input by a blank, with a probability ("word dropout", Bowman et al. 2016, CoNLL).

    p(x|z) stays normalised, as only what an element sees of those before it changes; with less of it to see, z is
    worth more. Draws from torch's current random state; in evaluation it does nothing.

    Args:
        probability: Of each input, 0 to 1.
        blank: The blank input: 0 for numbers, S for symbols 0..S-1 (the table's row of their own).
    """

    def __init__(self, probability: float, blank: float = 0.0) -> None:
        super().__init__()
        self.probability, self.blank = probability, blank

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape, or a copy with some inputs blank."""
        if not self.training or self.probability == 0:
            return x
        return x.masked_fill(torch.rand(x.shape, device=x.device) < self.probability, self.blank)


def input_dropout_option() -> float:
    """The field ``input_dropout`` of settings."""
    chosen: float = option(0.0, "share of the inputs hidden from the network in training", minimum=0.0, maximum=1.0)
    return chosen


def orders(elements: int, kind: str, count: int) -> Tensor:
    """(count, elements) orderings: "natural" ones, or "random" ones from torch's current random state."""
    if kind == "natural":
        return torch.arange(elements).expand(count, -1).clone()
    return torch.stack([torch.randperm(elements) for _ in range(count)])


def context_size(shape: ContextShape) -> int:
    """Numbers in a context of that shape.

    >>> context_size((8, 7, 7)), context_size(3)
    (392, 3)
    """
    return shape if isinstance(shape, int) else prod(shape)


def linear(inputs: int, outputs: int, followed_by: str = "identity", *, gain: float = 1.0) -> nn.Linear:
    """A linear map (no bias), initialised for the activation that follows it."""
    layer = nn.Linear(inputs, outputs, bias=False)
    initialise(layer, followed_by, gain=gain)
    return layer
