"""Convolutions that see earlier elements of an image only, run over a whole image or element by element.

Elements are ordered row by row, left to right, the channels of a pixel one after the other. Channels of features belong
to groups: those of group g may look at channels up to g of the data at their own pixel, and at all earlier pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def groups_of(channels: int, count: int) -> Tensor:
    """The group of each channel: ``count`` runs of about the same length.

    >>> groups_of(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    return torch.arange(channels) * count // channels


class RowsAbove(nn.Module):
    """A convolution over rows above, ``reach`` of them, and ``reach`` columns to either side.

    Args:
        inputs: Channels.
        outputs: Channels.
        reach: Rows and columns.
        strict: Without the element's own row, which features that see rows above only may be taken from.
        scale: Standard deviation of the sum of unit inputs.
        bias: Adds one number a channel.
    """

    def __init__(
        self, inputs: int, outputs: int, reach: int, *, strict: bool, scale: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.reach, self.strict = reach, strict
        self.weight = nn.Parameter(torch.empty(outputs, inputs, reach + (not strict), 2 * reach + 1))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        spread(self.weight, self.weight[0].numel(), scale)

    def forward(self, h: Tensor) -> Tensor:
        """(N, outputs, H, W) of (N, inputs, H, W)."""
        r = self.reach
        return convolve(F.pad(h, (r, r, r, -1 if self.strict else 0)), self.weight, self.bias)


class MaskedConv(nn.Module):
    """A convolution over the elements before one in its row, and in rows above (van den Oord et al. 2016, fig. 2).

    Args:
        inputs: Groups of the input's channels, in order.
        outputs: Groups of the output's.
        reach: Columns to the left (and with ``above`` rows, and columns to either side of those).
        strict: Mask A: at its own pixel an output sees groups before its own; else mask B: its own as well.
        above: Sees rows above.
        scale: Standard deviation of the sum of unit inputs.
        bias: Adds one number a channel.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        reach: int = 0,
        *,
        strict: bool = False,
        above: bool = False,
        scale: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.reach, self.inputs, self.outputs = reach, inputs.tolist(), outputs.tolist()
        self.left = nn.Parameter(torch.empty(len(outputs), len(inputs), 1, reach + 1))
        self.bias = nn.Parameter(torch.zeros(len(outputs))) if bias else None
        self.above = RowsAbove(len(inputs), len(outputs), reach, strict=True, bias=False) if above and reach else None
        self.register_buffer("mask", _mask(inputs, outputs, reach, strict=strict), persistent=False)
        seen = float(self.mask.sum()) / len(outputs) + (0 if self.above is None else self.above.weight[0].numel())
        for weight in (self.left, *(() if self.above is None else (self.above.weight,))):
            spread(weight, max(seen, 1), scale)

    def taps(self) -> Tensor:
        """Weights (outputs, inputs, 1, reach + 1), the element's own last."""
        return self.left * self.mask

    def forward(self, h: Tensor) -> Tensor:
        """(N, outputs, H, W) of (N, inputs, H, W)."""
        r, kernel = self.reach, self.taps()
        if self.above is None:
            return convolve(F.pad(h, (r, 0)) if r else h, kernel, self.bias)
        kernel = torch.cat([self.above.weight, F.pad(kernel, (0, r))], 2)
        return convolve(F.pad(h, (r, r, r, 0)), kernel, self.bias)


def _mask(inputs: Tensor, outputs: Tensor, reach: int, *, strict: bool) -> Tensor:
    own = outputs.unsqueeze(1) > inputs if strict else outputs.unsqueeze(1) >= inputs
    mask = torch.ones(len(outputs), len(inputs), 1, reach + 1)
    mask[..., 0, -1] = own.float()
    return mask


def spread(weight: Tensor, seen: float, scale: float) -> None:
    """Fill with uniform numbers of variance scale^2 / seen."""
    bound = scale * (3 / seen) ** 0.5
    with torch.no_grad():
        weight.uniform_(-bound, bound)


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``h`` convolved without padding, channels last in memory.

    Few input channels are laid out as one vector a position first: a third of the time of torch's gradient of weights.
    """
    rows, columns = weight.shape[2:]
    if weight.shape[1] > 4 or rows * columns == 1:
        return F.conv2d(h, weight, bias)
    windows = h.unfold(2, rows, 1).unfold(3, columns, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
    return F.linear(windows, weight.flatten(1), bias).permute(0, 3, 1, 2)


def gate(h: Tensor) -> Tensor:
    """tanh(a / 2) sigmoid(b) of the two halves (a, b) of the channels: eq. 2, with the weights of a doubled.

    As 2 sigmoid(a) - 1 is tanh(a / 2), one sigmoid does for both, which takes half the time.
    """
    gated: Tensor = _Gate.apply(h)
    return gated


class _Gate(torch.autograd.Function):
    """By hand: autograd takes twice as long, with three more copies of ``h`` in memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, h: Tensor) -> Tensor:
        s = h.sigmoid()
        ctx.save_for_backward(s)
        p, q = s.chunk(2, 1)
        return torch.addcmul(-q, p, q, value=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        (s,), (grad,) = ctx.saved_tensors, grads  # type: ignore[attr-defined]
        p, q = s.chunk(2, 1)
        found, double = torch.empty_like(s), grad + grad
        to_p, to_q = found.chunk(2, 1)
        torch.mul(double, q, out=to_p)
        torch.mul(double, p, out=to_q).sub_(grad)
        to_h: Tensor = torch.ops.aten.sigmoid_backward(found, s)
        return to_h


class Pass(Protocol):
    """One way of running a stack of masked convolutions: `Whole` images, or `Stepwise`."""

    def apply(self, layer: Any, h: Tensor) -> Tensor:
        """The output of the layer."""

    def add(self, h: Tensor, term: Tensor | None, groups: list[int]) -> Tensor:
        """``h`` and what a term (N, channels, H or 1, W or 1) of these groups is there."""


class Whole:
    """All elements at once."""

    def apply(self, layer: Any, h: Tensor) -> Tensor:
        """(N, outputs, H, W)."""
        found: Tensor = layer(h)
        return found

    def add(self, h: Tensor, term: Tensor | None, groups: list[int]) -> Tensor:
        """The sum of both terms."""
        return h if term is None else h + term


class RowByRow:
    """A `RowsAbove` of which each row is computed once."""

    def __init__(self, layer: RowsAbove, items: int, size: tuple[int, int]) -> None:
        self.layer, (height, self.width), r = layer, size, layer.reach
        self.seen = layer.weight.new_zeros(items, layer.weight.shape[1], r + height, self.width + 2 * r)

    def put(self, i: int, h: Tensor) -> None:
        """The input's row i, (N, inputs, W)."""
        r = self.layer.reach
        self.seen[:, :, r + i, r : r + self.width] = h

    def get(self, i: int) -> Tensor:
        """The output's row i, (N, outputs, W)."""
        rows = self.seen[:, :, i : i + self.layer.weight.shape[2]]
        return F.conv2d(rows, self.layer.weight, self.layer.bias).squeeze(2)


class _Line:
    """What one layer has seen of the current row, and of the rows above where it looks there."""

    def __init__(self, layer: MaskedConv, items: int, size: tuple[int, int]) -> None:
        self.reach = layer.reach
        self.row = layer.left.new_zeros(items, layer.reach + size[1], len(layer.inputs))
        self.above = None if layer.above is None else RowByRow(layer.above, items, size)
        self.from_above: Tensor | None = None
        self.ins, self.outs = runs(layer.inputs), runs(layer.outputs)
        taps, bias = layer.taps().squeeze(2).transpose(1, 2).flatten(1), layer.left.new_zeros(len(layer.outputs))
        bias = bias if layer.bias is None else layer.bias
        self.weights = {g: (bias[at], taps[at].T.contiguous()) for g, at in self.outs.items()}

    def start(self, i: int) -> None:
        """Begins a new row."""
        self.row.zero_()
        if self.above is not None:
            self.from_above = self.above.get(i)

    def end(self, i: int) -> None:
        """The row is complete."""
        if self.above is not None:
            self.above.put(i, self.row[:, self.reach :].transpose(1, 2))

    def put(self, j: int, group: int, h: Tensor) -> None:
        """The input at an element."""
        self.row[:, self.reach + j, self.ins[group]] = h

    def get(self, j: int, group: int) -> Tensor:
        """The output at an element, (N, outputs of its group)."""
        bias, weight = self.weights[group]
        found = torch.addmm(bias, self.row[:, j : j + self.reach + 1].flatten(1), weight)
        return found if self.from_above is None else found + self.from_above[:, self.outs[group], j]


class Stepwise:
    """Element by element, each layer's output at each element computed once.

    Args:
        layers: All masked convolutions.
        first: Those among them that see the data, which is not known when they are asked.
    """

    def __init__(self, layers: Iterable[MaskedConv], first: MaskedConv, items: int, size: tuple[int, int]) -> None:
        self.lines = {layer: _Line(layer, items, size) for layer in layers}
        self.first, self.at, self.group = first, (0, 0), 0

    def start(self, i: int) -> None:
        """Begins row ``i`` of the image."""
        for line in self.lines.values():
            line.start(i)

    def end(self, i: int) -> Tensor:
        """Ends row i; the data in it, (N, channels, W)."""
        for line in self.lines.values():
            line.end(i)
        return self.lines[self.first].row[:, self.first.reach :].transpose(1, 2)

    def move(self, i: int, j: int, group: int) -> None:
        """Goes to an element."""
        self.at, self.group = (i, j), group

    def reveal(self, x: Tensor) -> None:
        """The data at the element, (N, channels of its group)."""
        self.lines[self.first].put(self.at[1], self.group, x)

    def apply(self, layer: MaskedConv, h: Tensor) -> Tensor:
        """(N, outputs of the group) at the element."""
        line = self.lines[layer]
        if layer is not self.first:
            line.put(self.at[1], self.group, h)
        return line.get(self.at[1], self.group)

    def add(self, h: Tensor, term: Tensor | None, groups: list[int]) -> Tensor:
        """The sum at the element, (N, channels of the group)."""
        if term is None:
            return h
        i, j = (0 if n == 1 else k for n, k in zip(term.shape[2:], self.at, strict=True))
        return h + term[:, runs(groups)[self.group], i, j]


def runs(groups: list[int]) -> dict[int, Any]:
    """Where the channels of each group are: a slice where they lie together."""
    found = {}
    for g in sorted(set(groups)):
        at = [k for k, other in enumerate(groups) if other == g]
        together = at[-1] - at[0] + 1 == len(at)
        found[g] = slice(at[0], at[-1] + 1) if together else at
    return found
