"""The examples that a report shows: held out where the source has such, and only if they are the run's own data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lambent.data import Dataset, View, splits_of, training_sets
from lambent.data.sources import ARRAYS, Source, dataset_of, held_out
from lambent.errors import DataError
from lambent.runs.run import Run

MOST = 10_000
"""Examples that figures are made of; numbers are always of all."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples as the model scores them.

    Attributes:
        run: The model.
        dataset: All examples.
        view: The first `MOST` of them, transformed.
        seen: Whether training learnt from them.
    """

    run: Run
    dataset: Dataset
    view: View
    seen: bool

    @property
    def about(self) -> str:
        """The examples in words."""
        n, shown = len(self.dataset), len(self.view)
        first = f", of which figures show the first {shown:,}" if shown < n else ""
        seen = " that training saw" if self.seen else ""
        return f"{self.dataset.name}, {n:,} examples{seen}{first}"

    @cached_property
    def x(self) -> Tensor:
        """What the likelihood scores, (N, *event)."""
        return self.view.batch(torch.arange(len(self.view))).cpu()

    def raw(self, rows: Tensor) -> Tensor:
        """The examples at ``rows`` before binarisation and scaling."""
        return self.dataset.batch(rows).cpu()

    @cached_property
    def condition(self) -> Tensor | None:
        """What the model is given beside x, (N, c)."""
        found = self.view.condition(torch.arange(len(self.view)))
        return None if found is None else found.cpu()

    @cached_property
    def z(self) -> Tensor:
        """The posterior's modes, (N, latent)."""
        return self.run.encode(self.view)

    @cached_property
    def means(self) -> Tensor:
        """The posterior's means on all levels, (N, latents)."""
        return self.run.posterior_means(self.view)

    @property
    def labels(self) -> Tensor | None:
        """Codes of the classes, (N,)."""
        found = self.view.dataset.labels
        return None if found is None else found.cpu().long()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names behind the labels."""
        return self.view.dataset.classes

    def decode(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Means of p(x|z), under the conditions of the examples at ``rows`` where the model has conditions."""
        condition = self.condition
        return self.run.decode(z, None if condition is None or rows is None else condition[rows])

    def first_of_each(self, n: int) -> Tensor:
        """Positions of ``n`` examples, the classes in turn where there are labels; each class in the data's order."""
        if self.labels is None:
            return torch.arange(min(n, len(self.view)))
        count = torch.zeros(len(self.classes), dtype=torch.long)
        turn = torch.empty_like(self.labels)
        for i, label in enumerate(self.labels.tolist()):
            turn[i] = count[label]
            count[label] += 1
        order = torch.argsort(turn * len(self.classes) + self.labels, stable=True)
        return order[:n]


def gather(run: Run, data: Source | None = None) -> Examples:
    """The examples of ``data``, or those that training did not learn from.

    Raises:
        ConfigError: the run was trained on arrays that are no longer there.
        DataError: the source can't be read, or no longer holds what the run was trained on.
    """
    if data is not None:
        dataset, seen = dataset_of(data, run.config.data, "test"), False
    elif run.validation is not None:
        dataset, seen = run.validation, False
    else:
        dataset, seen = _of_source(run)
    return Examples(run, dataset, run.prepare(dataset.head(MOST)), seen)


def _of_source(run: Run) -> tuple[Dataset, bool]:
    """What the run's source kept from training; all of it, and True, where training saw all."""
    config, source = run.config, run.config.data.source
    if source == ARRAYS:
        return held_out(config.data.source, config.data), False
    part, valid = training_sets(source, options=config.data)
    whole = dataset_of(source, config.data, "train")
    recorded = _recorded(run)
    if recorded not in (None, part.fingerprint(), whole.fingerprint()):
        raise DataError(
            f"{source} does not hold the data that this run was trained on (the sha256 differs); give them as data"
        )
    if "test" in splits_of(source, config.data):
        return held_out(config.data.source, config.data), False
    return (whole, True) if valid is None or recorded == whole.fingerprint() else (valid, False)


def _recorded(run: Run) -> str | None:
    """The fingerprint of the training data in ``recipe.toml``."""
    return None if run.folder is None else run.folder.read_recipe().get("training_data", {}).get("fingerprint")
