"""Which noise levels of a diffusion are looked at: spread evenly, or in proportion to what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lambent.distributions.numerics import widened

BINS = 50
"""Cells of 0..1 whose losses are remembered."""
REPORTED = 10
"""Cells of 0..1 that the metrics report."""
UNIFORM = 0.1
"""Share of positions drawn uniformly, whatever the losses."""
KEPT = 0.99
"""Share of a cell's running mean that a batch leaves, once there have been many."""
_BELOW_ONE = 1 - 1e-9


class TimestepLosses(nn.Module):
    """What each part of 0..1 costs: running means of the squared loss, and means since the last report.

    Positions of density proportional to the root of the mean square give the estimate of least variance; a tenth of
    them stays uniform, so that no weight exceeds 10.
    """

    squares: Tensor
    seen: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("squares", torch.zeros(BINS))
        self.register_buffer("seen", torch.zeros(BINS))
        self.register_buffer("sums", torch.zeros(3, REPORTED))

    def probabilities(self) -> Tensor:
        """Of each cell, (BINS,); uniform until every loss that was seen is."""
        roots = widened(self.squares).clamp_min(0).sqrt()
        known = self.seen > 0
        roots = torch.where(known, roots, roots.max())  # a cell without losses may have the largest
        total = roots.sum()
        even = torch.full_like(roots, 1 / BINS)
        return torch.where(total > 0, (1 - UNIFORM) * roots / total + UNIFORM * even, even)

    def placed(self, uniform: Tensor, steps: int | None) -> tuple[Tensor, Tensor]:
        """Positions of that density from uniform ones, and one over the density of each.

        Args:
            uniform: In 0..1, of any shape.
            steps: T equal parts of 0..1 that positions stand for, whose probability counts then; None for no such.
        """
        p = self.probabilities()
        ends = p.cumsum(0)
        cell = torch.searchsorted(ends, uniform.contiguous(), right=True).clamp_max(BINS - 1)
        within = ((uniform - (ends - p)[cell]) / p[cell]).clamp(0, _BELOW_ONE)
        position = (cell + within) / BINS
        if steps is None:
            return position, 1 / (BINS * p[cell])
        part = (position * steps).floor().clamp(0, steps - 1)
        mass = self._below(ends, p, (part + 1) / steps) - self._below(ends, p, part / steps)
        return position, 1 / (steps * mass)

    @staticmethod
    def _below(ends: Tensor, p: Tensor, position: Tensor) -> Tensor:
        """The probability of what lies under ``position``."""
        cell = (position * BINS).floor().clamp(0, BINS - 1).long()
        return (ends - p)[cell] + p[cell] * (position * BINS - cell)

    @torch.no_grad()
    def update_buffers(
        self,
        position: Tensor,
        losses: Tensor,
        errors: Tensor,
        total: Callable[[Tensor], Tensor],
        weight: Tensor | None = None,
    ) -> None:
        """Takes in a batch's losses (nats, unweighted) and errors (per number), all (N,); ``total`` sums processes.

        ``weight`` is one over the density of each position (none: 1), by which a cell's means are those of all of it.
        """
        found = total(_binned(position, BINS, losses.square()))
        counts, squares = found[0], found[1]
        hit = counts > 0
        self.seen += hit
        share = torch.maximum(1 / self.seen.clamp_min(1), torch.full_like(self.seen, 1 - KEPT))
        mean = squares / counts.clamp_min(1)
        self.squares += torch.where(hit, share * (mean - self.squares), 0.0)
        self.sums += total(_binned(position, REPORTED, losses, errors, weight=weight))

    def pop_metrics(self) -> dict[str, Any]:
        """By cell of 0..1, since the last call: what it adds to the bound (nats), and the mean squared error a number.

        Cells that no position fell into are None.
        """
        counts, losses, errors = self.sums.tolist()
        self.sums.zero_()
        if not any(counts):
            return {}
        nats = [loss / n / REPORTED if n else None for loss, n in zip(losses, counts, strict=True)]
        return {"nats": nats, "error": [error / n if n else None for error, n in zip(errors, counts, strict=True)]}


def _binned(position: Tensor, bins: int, *values: Tensor, weight: Tensor | None = None) -> Tensor:
    """The weights of all positions, and the weighted sums of ``values``, in equal cells of 0..1, (1 + values, bins)."""
    cell = (position * bins).long().clamp(0, bins - 1)
    rows = torch.stack([torch.ones_like(values[0]), *values]).float()
    rows = rows if weight is None else rows * weight.to(rows.dtype)
    return rows.new_zeros(len(rows), bins).index_add_(1, cell, rows)
