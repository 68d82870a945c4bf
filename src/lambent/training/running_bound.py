"""The mean bound of the training steps since the last line of metrics."""

from __future__ import annotations

import torch
from torch import Tensor

HELD = 100
"""Steps whose bounds are kept before they are summed, all at once while that code is in the processor's cache."""


class RunningBound:
    """Sum and number of the examples' bounds, nats.

    >>> bound = RunningBound()
    >>> bound.add(torch.tensor([-1.0, -3.0]))
    >>> bound.sums()
    tensor([-4.,  2.], dtype=torch.float64)
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.examples = 0
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self._held: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Takes in the bounds of a step's examples, (B,)."""
        self._held.append(values)
        self.examples += len(values)
        if len(self._held) == HELD:
            self._fold()

    def _fold(self) -> None:
        for values in self._held:
            self._total += values.sum(dtype=torch.float64)
        self._held.clear()

    def sums(self) -> Tensor:
        """The sum of the bounds and the number of examples, (2,) float64."""
        self._fold()
        return torch.stack([self._total, self._total.new_tensor(float(self.examples))])

    def reset(self, total: float = 0.0, examples: int = 0) -> None:
        """Starts again from a sum over some examples."""
        self._fold()
        self._total.fill_(total)
        self.examples = examples
