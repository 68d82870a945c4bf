"""NADE: one hidden layer an element, the layers tied so that the next follows from the last by one rank-one update."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

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


class NADE(AutoregressiveNet):
    """h_d = sigmoid(a + W[:, <d] x_<d), parameters of element d: b_d + V_d h_d (Larochelle & Murray 2011, Algorithm 1).

    Several parameters an element give RNADE's form (Uria, Murray & Larochelle 2013). Context shifts a and b.

    Args:
        out_shape: (P, *event).
        hidden: Number of hidden units H.
        order: (1, D).
        context: Width of the context.
    """

    def __init__(self, out_shape: tuple[int, ...], hidden: int, order: Tensor, context: int) -> None:
        super().__init__(out_shape, order)
        self.context = context
        self.input = affine(self.elements, hidden, "softplus")
        self.weight = nn.Parameter(torch.empty(self.elements, hidden, out_shape[0]))
        self.bias = nn.Parameter(torch.zeros(out_shape[0], self.elements))
        bound = (6 / (hidden + self.elements)) ** 0.5  # as for the input weights, which it is a transpose of
        nn.init.uniform_(self.weight, -bound, bound)
        self.from_context = nn.ModuleList(linear(context, o) for o in (hidden, self.bias.numel()) if context)

    def forward(self, x: Tensor, context: Tensor | None, ordering: int) -> Tensor:
        """Parameters (N, P, *event) of inputs (N, D)."""
        order = self.order[ordering]
        x = flat_items(x, self.elements).to(self.weight.dtype)
        first, last = self._context_terms(context, len(x))
        numbers = _Recursion.apply(x[:, order], self.input.weight.T[order], self.weight[order], first)
        return (numbers[order.argsort()].permute(1, 2, 0) + last).reshape(-1, *self.out_shape)

    def _context_terms(self, context: Tensor | None, items: int) -> tuple[Tensor, Tensor]:
        """The hidden units before any element (N, H), and the outputs' bias, broadcast to (N, P, D)."""
        context = checked(context, items, self.context)
        if context is None:
            return self.input.bias.expand(items, -1), self.bias
        first, last = (layer(context.to(self.weight.dtype)) for layer in self.from_context)
        return self.input.bias + first, self.bias + last.view(items, *self.bias.shape)

    def unroll(self, items: int, context: Tensor | None, ordering: int, choose: Choose) -> None:
        """The recursion itself: H P + H operations an element."""
        first, last = self._context_terms(context, items)
        total, last = first.clone(), last.expand(items, -1, -1)
        for element in self.order[ordering].tolist():
            x = choose(element, total.sigmoid() @ self.weight[element] + last[..., element])
            total = torch.addr(total, x.to(total.dtype), self.input.weight[:, element])

    def output_bias(self) -> nn.Parameter:
        """The output bias b, (P, D)."""
        return self.bias


class _Recursion(torch.autograd.Function):
    """V_d^T sigmoid(a + sum_{j<d} x_j W_j) for all d, (D, N, P).

    By hand: a graph of D steps, or D copies of the hidden layer at once, take two and ten times as long. The way back
    undoes the updates one by one instead of keeping what they made.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, rows: Tensor, weight: Tensor, first: Tensor) -> Tensor:
        total, numbers = first.clone(), x.new_empty(len(weight), len(x), weight.shape[2])
        for d in range(len(weight)):
            torch.mm(total.sigmoid(), weight[d], out=numbers[d])
            total.addr_(x[:, d], rows[d])
        ctx.save_for_backward(x, rows, weight, total)
        return numbers

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        x, rows, weight, total = ctx.saved_tensors  # type: ignore[attr-defined]
        total, to_total = total.clone(), torch.zeros_like(total)
        to_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        to_rows, to_weight = torch.empty_like(rows), torch.empty_like(weight)
        for d in reversed(range(len(weight))):
            torch.mv(to_total.T, x[:, d], out=to_rows[d])
            if to_x is not None:
                to_x[:, d] = to_total @ rows[d]
            h = total.addr_(x[:, d], rows[d], alpha=-1).sigmoid()
            torch.mm(h.T, grads[0][d], out=to_weight[d])
            to_total.addcmul_(grads[0][d] @ weight[d].T, h * (1 - h))
        return to_x, to_rows, to_weight, to_total


@part("decoder", "nade")
@dataclass(frozen=True)
class NADEDecoder(AutoregressiveSettings):
    """Neural autoregressive distribution estimator (Larochelle & Murray 2011, AISTATS).

    >>> net = NADEDecoder(hidden_dim=500).build(0, (1, 1, 28, 28))
    >>> sum(p.numel() for p in net.parameters())
    785284
    """

    hidden_dim: int = option(500, "hidden units", minimum=1)
    ordering: str = option(
        "natural", "order of the elements: raster (as stored), or one random order", choices=ORDERINGS
    )

    def build(
        self, latent: ContextShape, out_shape: tuple[int, ...], condition: int = 0, symbols: int | None = None
    ) -> NADE:
        """The network, its weights and ordering from torch's current random state."""
        order = orders(prod(out_shape[1:]), self.ordering, 1)
        return NADE(out_shape, self.hidden_dim, order, context_size(latent) + condition)
