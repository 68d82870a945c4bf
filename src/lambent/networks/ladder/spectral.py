"""Spectral regularisation: the largest singular values of convolutions, by power iteration."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_STEPS = 4
"""Of power iteration at each training step; the vectors are kept, so that they follow slow weights."""
_START = 10
"""Of the very first one."""


def matrix(layer: nn.Module) -> Tensor:
    """A convolution's weight as the matrix (outputs, inputs x kernel) whose singular values are meant."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.flatten(1)


class SpectralPenalty(nn.Module):
    """Sum of the largest singular value of each convolution's `matrix` (Vahdat & Kautz 2020, eq. 5, by the method of
    Yoshida & Miyato 2017), which bounds how fast the networks, and with them the rates, can change.

    A singular vector of each is kept between calls and moved on by power iteration, without gradient, in training mode
    only. Its value u' W v is never above the true one, and its gradient u v' is that of the singular value once the
    vectors are right.

    Args:
        network: All convolutions in it are watched; they stay the network's own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._layers = tuple(m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
        for i, layer in enumerate(self._layers):
            self.register_buffer(f"v{i}", nn.functional.normalize(torch.randn(matrix(layer).shape[1]), dim=0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.steps: Tensor

    def forward(self) -> Tensor:
        """The sum, a scalar."""
        with torch.autocast(self.steps.device.type, enabled=False):
            if self.training:
                self.iterate(_STEPS if self.steps else _START)
            # of copies: another step may come before the gradient of this one
            return torch.stack([torch.linalg.vector_norm(weight @ v.clone()) for weight, v in self._pairs()]).sum()

    @torch.no_grad()
    def iterate(self, steps: int) -> None:
        """Moves every vector on by ``steps`` steps of power iteration."""
        self.steps += 1
        for weight, v in self._pairs():
            for _ in range(steps):
                moved = nn.functional.normalize(weight.T @ (weight @ v), dim=0)
                v.copy_(torch.where(moved.any(), moved, v))  # a matrix of zeros, as last layers start, has no direction

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i, layer in enumerate(self._layers):
            yield matrix(layer), self.get_buffer(f"v{i}")
