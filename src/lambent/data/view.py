"""A data set as the likelihood scores it, read a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lambent.data.dataset import Dataset
from lambent.data.fitting import check_raw
from lambent.data.labels import one_hot
from lambent.data.support import Sequences, Support
from lambent.errors import DataError

if TYPE_CHECKING:
    from lambent.data.transform import Transform

CHUNK = 1000
"""Examples that a model is given at a time."""


class View:
    """Transformed examples of one data set; made by `Transform.view`.

    What is the same every time (threshold, static binarisation) is done once for data in memory. Batches come out as
    float32 on the view's device, where data in memory live too.

    >>> from lambent.data import DataOptions, Transform
    >>> data = Dataset(torch.tensor([[0, 255]], dtype=torch.uint8), levels=256)
    >>> view = Transform.fit(data, DataOptions(binarize="dynamic")).view(data, fixed=False)
    >>> view.batch(torch.tensor([0]))
    tensor([[0., 1.]])
    """

    def __init__(
        self, transform: Transform, dataset: Dataset, *, fixed: bool, device: torch.device | str = "cpu"
    ) -> None:
        self.transform, self.fixed, self.device = transform, fixed, torch.device(device)
        if transform.binarize != "none" or (transform.divisor and transform.levels is not None and not transform.shift):
            check_raw(dataset, transform.levels, dataset.name)
        once = transform.binarize in ("threshold", "static") or (transform.binarize == "dynamic" and fixed)
        self._done = once and not dataset.mapped
        self.dataset = _moved(_binarised(dataset, transform) if self._done else dataset, self.device)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The examples at ``indices``, (B, *event) float32; ``generator``, on CPU, drives dynamic binarisation."""
        return self._transformed(self.dataset.batch(indices), indices, generator)

    def _transformed(self, x: Tensor, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        x = x.to(self.device)
        if self._done or self.transform.binarize == "none":
            return self.transform.scaled(x)
        if self.transform.binarize == "dynamic" and not self.fixed:
            return self.transform(x, generator=generator)
        assert self.dataset.ids is not None
        return self.transform(x, self.dataset.ids[indices.cpu()], fixed=True)

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """All examples in order, with the position of each block's first; dynamic binarisation as static here."""
        for start, x in self.dataset.chunks():
            if self._done or self.transform.binarize == "none":
                yield start, self.transform.scaled(x)
            else:
                assert self.dataset.ids is not None
                yield start, self.transform(x, self.dataset.ids[start : start + len(x)], fixed=True)

    def slice(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Examples ``start`` to ``stop``, (B, *event), and their conditions."""
        indices = torch.arange(start, stop)
        return self.batch(indices), self.condition(indices)

    def batches(self, size: int = CHUNK) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All examples in order with their conditions, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.slice(start, min(len(self), start + size))

    def spread(self, most: int) -> Callable[[int, int], tuple[Tensor, Tensor | None]]:
        """At most ``most`` examples, evenly spaced over all, and their conditions: (start, stop) -> those of them."""
        chosen = spread_out(len(self), most)
        return lambda start, stop: (self.batch(chosen[start:stop]), self.condition(chosen[start:stop]))

    def condition(self, indices: Tensor) -> Tensor | None:
        """What the model is given of the examples beside x: (B, c) float32, or None."""
        if self.transform.condition == "none":
            return None
        if self.transform.condition == "labels":
            assert self.dataset.labels is not None
            return one_hot(self.dataset.labels[indices.to(self.device)], self.transform.condition_size)
        assert self.dataset.condition is not None
        return self.dataset.condition[indices.to(self.device)]

    def check(self, support: Support) -> None:
        """Refuses data that the likelihood doesn't score.

        Raises:
            DataError: as `Support.check`.
        """
        if self.transform.alphabet is not None and not isinstance(support, Sequences):
            raise DataError(f"{self.dataset.name} is text, expected values in {support.name}; use likelihood=text")
        if self.transform.binarize != "none":  # checked raw; what comes of it is 0 or 1
            support.check(torch.tensor([[0.0], [1.0]]), f"{self.dataset.name}, binarised")
        else:
            support.check(self, self.dataset.name)


def spread_out(n: int, most: int) -> Tensor:
    """Positions of ``most`` of n examples, evenly spread: a sorted data set's first ones would be all of a class.

    >>> spread_out(10, 4).tolist(), spread_out(3, 4).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    taken = min(n, most)
    return torch.arange(taken) * n // max(taken, 1)


def _binarised(dataset: Dataset, transform: Transform) -> Dataset:
    assert dataset.ids is not None
    parts = [
        transform.binarised(x, dataset.ids[at : at + len(x)], fixed=True).to(torch.uint8) for at, x in dataset.chunks()
    ]
    return replace(dataset, x=torch.cat(parts), levels=2)


def _moved(dataset: Dataset, device: torch.device) -> Dataset:
    if device.type == "cpu":
        return dataset
    x = dataset.x.to(device) if isinstance(dataset.x, Tensor) else dataset.x
    labels = None if dataset.labels is None else dataset.labels.to(device)
    condition = None if dataset.condition is None else dataset.condition.to(device)
    return replace(dataset, x=x, labels=labels, condition=condition)
