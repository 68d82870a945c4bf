"""Training sets for a trainer without a loader."""

from __future__ import annotations

import math

from torch import Tensor


class Rows:
    """Batches of a fixed set, in its order; the last of an epoch is smaller where the rest is."""

    def __init__(self, x: Tensor, batch: int, condition: Tensor | None = None) -> None:
        self.x, self.batch, self.condition = x, batch, condition
        self.steps_per_epoch = math.ceil(len(x) / batch)

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        start = step % self.steps_per_epoch * self.batch
        taken = slice(start, start + self.batch)
        return self.x[taken], None if self.condition is None else self.condition[taken]

    def fraction(self, step: int) -> float:
        """This process's share of the batch."""
        return 1.0

    def global_size(self, step: int) -> int:
        return len(self.at(step)[0])
