"""How examples and samples are cut into pieces that fit a cache, and the mode a model is evaluated in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from lambent.draws import Draw, Enumerate
from lambent.models import LatentModel

ROWS = 1024
"""Decoder rows (examples x samples) at a time: what two megabytes of cache hold of a 784-pixel image."""
EXAMPLES = 32
"""Most examples in a block when K is large, so that encoding them once a chunk costs next to nothing."""
BLOCKS = 16
"""Blocks that a small data set is cut into, so that a few examples keep every thread at work to the end."""

Batch = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(start, stop) -> the examples x (B, *event) that the likelihood scores, and their conditions (B, c) or None."""


def blocks_of(n: int, samples: int, most: int = EXAMPLES) -> Iterator[tuple[int, int, int]]:
    """Number, first and last example (exclusive) of each block of ``n`` examples with ``samples`` draws each."""
    size = max(4, min(most, n // BLOCKS), ROWS // samples)
    for index, start in enumerate(range(0, n, size)):
        yield index, start, min(n, start + size)


def chunks_of(samples: int, examples: int, draw: Draw, rows: int = ROWS) -> Iterator[tuple[int, int]]:
    """The first sample and the number of each."""
    if isinstance(draw, Enumerate):  # every value once
        yield 0, 1
        return
    size = max(1, rows // examples)
    for start in range(0, samples, size):
        yield start, min(size, samples - start)


class evaluating:  # noqa: N801
    """Evaluation mode for the time of a block, and the mode each module was in after it (frozen parts stay so)."""

    def __init__(self, model: LatentModel) -> None:
        self.model, self.was = model, [(module, module.training) for module in model.modules()]

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, training in self.was:
            module.training = training
