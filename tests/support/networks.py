"""Networks as tests want them: with weights that matter, or blind to the condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.random_numbers import generator


def live(net: nn.Module) -> nn.Module:
    """Every weight away from zero, so that no branch is switched off by its initial value."""
    noise = generator(1)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=noise, dtype=p.dtype)
    return net


class WithoutCondition(nn.Module):
    """An encoder made of a network that takes no condition."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.features = net, net.features

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.net(x)
