"""MADE: an MLP whose connections are masked so that each output sees earlier inputs only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lambent.networks.activations import ACTIVATIONS, activation, output_gain
from lambent.networks.autoregressive.base import (
    ORDERINGS,
    AutoregressiveNet,
    AutoregressiveSettings,
    Choose,
    ContextShape,
    context_size,
    linear,
    orders,
)
from lambent.networks.base import checked, flat_items
from lambent.networks.mlp import affine
from lambent.settings import option, part


class MADE(AutoregressiveNet):
    """An MLP with a degree for each unit (Germain et al. 2015, section 3).

    The input at position t of the ordering has degree t = 1..D, a hidden unit a random one, less than D and no lower
    than the lowest of the layer below. A hidden unit of degree m sees units of degree <= m (eq. 12), an output of
    degree t hidden units, and by direct connections inputs, of degree < t (eq. 13). Context enters the first layer and
    the outputs unmasked.

    Args:
        out_shape: (P, *event).
        hidden: Widths of the hidden layers.
        name: Their activation.
        order: (M, D); each ordering comes with its own degrees.
        direct: Width of the direct connections' input: D for such connections, 0 for none.
        context: Width of the context.
    """

    def __init__(
        self, out_shape: tuple[int, ...], hidden: tuple[int, ...], name: str, order: Tensor, direct: int, context: int
    ) -> None:
        super().__init__(out_shape, order)
        widths, outputs = (self.elements, *hidden), prod(out_shape)
        self.layers: Any = nn.ModuleList(affine(i, o, name) for i, o in pairwise(widths))
        self.activation = activation(name)
        self.output = affine(widths[-1], outputs, gain=output_gain(name))
        self.direct = linear(direct, outputs, gain=output_gain(name)) if direct else None
        self.context = context
        self.from_context = nn.ModuleList(linear(context, o, name) for o in (hidden[0], outputs) if context)
        for layer, degrees in enumerate(_degrees(order, hidden)):
            self.register_buffer(f"degrees_{layer}", degrees)

    def degrees(self, ordering: int) -> list[Tensor]:
        """Of the inputs, and of the units of each hidden layer, in one ordering."""
        places = self.order[ordering].argsort() + 1
        return [places, *(self.get_buffer(f"degrees_{i}")[ordering] for i in range(len(self.layers)))]

    def forward(self, x: Tensor, context: Tensor | None, ordering: int) -> Tensor:
        """Parameters (N, P, *event) of inputs (N, D)."""
        weight = self.output.weight
        h, degrees = flat_items(x, self.elements).to(weight.dtype), self.degrees(ordering)
        first, last = self._context_terms(context, len(h))
        numbers = last
        if self.direct is not None:
            numbers = numbers + F.linear(h, self._earlier(self.direct.weight, degrees[0], degrees[0]))
        for layer, (below, here) in zip(self.layers, pairwise(degrees), strict=True):
            mask = here.unsqueeze(1) >= below
            h = self.activation(F.linear(h, layer.weight * mask, layer.bias) + first)
            first = h.new_zeros(())
        numbers = numbers + F.linear(h, self._earlier(weight, degrees[0], degrees[-1]), self.output.bias)
        return numbers.view(-1, *self.out_shape)

    def _earlier(self, weight: Tensor, outputs: Tensor, below: Tensor) -> Tensor:
        """``weight`` (P D, units) with each output's connections to units of its own degree or higher cut."""
        mask = outputs.unsqueeze(1) > below
        return (weight.view(-1, *mask.shape) * mask).view_as(weight)

    def _context_terms(self, context: Tensor | None, items: int) -> tuple[Tensor, Tensor]:
        """What the context adds to the first layer and to the outputs."""
        context = checked(context, items, self.context)
        if context is None:
            zero = self.output.weight.new_zeros(())
            return zero, zero
        first, last = (layer(context.to(self.output.weight.dtype)) for layer in self.from_context)
        return first, last

    def unroll(self, items: int, context: Tensor | None, ordering: int, choose: Choose) -> None:
        """Unit by unit: one of degree t is computed when t inputs are known, and never again."""
        order, degrees = self.order[ordering], self.degrees(ordering)
        units = [d.argsort(stable=True) for d in degrees]
        counts = [torch.bincount(d, minlength=self.elements + 1).cumsum(0).tolist() for d in degrees]
        weights = [
            layer.weight[here][:, below] for layer, (below, here) in zip(self.layers, pairwise(units), strict=True)
        ]
        biases = [layer.bias[here] for layer, here in zip(self.layers, units[1:], strict=True)]
        last = self._by_element(self.output.weight)[order][..., units[-1]]
        direct = None if self.direct is None else self._by_element(self.direct.weight)[order][..., order]
        to_first, to_output = self._context_terms(context, items)
        shift = self.output.bias + to_output
        shift = shift.expand(items, -1).view(items, -1, self.elements)
        to_first = to_first.expand(items, len(biases[0]))[:, units[1]]
        known = [last.new_zeros(items, len(u)) for u in units]
        for t, element in enumerate(order.tolist()):
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                new, seen = slice(counts[i + 1][t - 1] if t else 0, counts[i + 1][t]), counts[i][t]
                total = F.linear(known[i][:, :seen], weight[new, :seen], bias[new])
                known[i + 1][:, new] = self.activation(total + to_first[:, new] if i == 0 else total)
            seen = counts[-1][t]
            numbers = F.linear(known[-1][:, :seen], last[t, :, :seen]) + shift[..., element]
            if direct is not None:
                numbers = numbers + F.linear(known[0][:, :t], direct[t, :, :t])
            known[0][:, t] = choose(element, numbers)

    def _by_element(self, weight: Tensor) -> Tensor:
        """A weight (P D, units) as (D, P, units)."""
        return weight.view(-1, self.elements, weight.shape[1]).transpose(0, 1)

    def output_bias(self) -> nn.Parameter:
        """The bias of the outputs, (P, D)."""
        return self.output.bias


def _degrees(order: Tensor, hidden: tuple[int, ...]) -> list[Tensor]:
    """Random degrees (M, width) of the units of each layer, from torch's current random state."""
    count, elements = order.shape
    lowest, found = torch.full((count, 1), min(1, elements - 1)), []
    for width in hidden:
        share = torch.rand(count, width, dtype=torch.float64)
        found.append(lowest + (share * (elements - lowest).clamp_min(1)).long().clamp_max(elements - 1 - lowest))
        lowest = found[-1].min(1, keepdim=True).values
    return found


@part("decoder", "made")
@dataclass(frozen=True)
class MADEDecoder(AutoregressiveSettings):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, ICML).

    With several masks a training step takes one at random, and log p(x) is that of their equal mixture:
    log (1/M) sum_m p_m(x).

    >>> net = MADEDecoder(hidden=(500,)).build(0, (1, 1, 28, 28))
    >>> sum(p.numel() for p in net.parameters())
    785284
    """

    hidden: tuple[int, ...] = option((500,), "width of each hidden layer", minimum=1)
    activation: str = option("relu", "activation after each hidden layer", choices=ACTIVATIONS)
    ordering: str = option(
        "natural", "order of the elements: raster (as stored), or random for each mask", choices=ORDERINGS
    )
    masks: int = option(
        1, "number of mask sets (and random orderings): one per training step, evaluation averages all", minimum=1
    )
    direct_connections: bool = option(default=False, help="connect inputs to outputs directly as well")

    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> MADE:
        """The network, its weights, orderings and degrees from torch's current random state."""
        order = orders(prod(out_shape[1:]), self.ordering, self.masks)
        direct = order.shape[1] if self.direct_connections else 0
        return MADE(out_shape, self.hidden, self.activation, order, direct, context_size(latent) + condition)
