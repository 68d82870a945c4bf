"""What networks promise whose output for an element looks at earlier elements only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from lambent.networks.activations import initialise

Choose = Callable[[int, Tensor], Tensor]
"""(element, its parameters (N, P)) -> that element's input (N,)."""
ContextShape = int | tuple[int, int, int]
"""What every output sees beside the inputs: so many numbers, or a map (C, h, w), given flat all the same."""
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
        """M."""
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


class AutoregressiveSettings(ABC):
    """Settings of such networks: parts of kind "decoder", since they stand where a decoder stands."""

    @abstractmethod
    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> AutoregressiveNet:
        """The network of (P, *event) parameters.

        Args:
            latent: What every output sees of z: so many numbers, or a map.
            out_shape: (P, *event).
            condition: Numbers of the condition, which follow those of z in the context.
            symbols: How many values an element takes, where they are finitely many.
        """


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
