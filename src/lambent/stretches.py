"""A data set in the pieces that models are given."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lambent.data import View
from lambent.evaluation.bounds import Batch
from lambent.evaluation.information import spread_out

CHUNK = 1000


def stretches(view: View, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor | None]]:
    """All examples in order with their conditions, ``size`` at a time."""
    for start in range(0, len(view), size):
        yield stretch(view, start, min(len(view), start + size))


def stretch(view: View, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Examples ``start`` to ``stop`` and their conditions."""
    indices = torch.arange(start, stop)
    return view.batch(indices), view.condition(indices)


def spread(view: View, most: int) -> Batch:
    """At most so many examples, evenly spread over all, and their conditions, by position among them."""
    chosen = spread_out(len(view), most)
    return lambda start, stop: (view.batch(chosen[start:stop]), view.condition(chosen[start:stop]))
