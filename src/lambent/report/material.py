"""The examples that a report shows: held out where the source has such, and only if they are the run's own data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lambent.data import Dataset, View, split_off, splits_of
from lambent.data import load as load_data
from lambent.errors import DataError
from lambent.run import Run, Source, dataset_of

MOST = 10_000
"""Examples that figures are made of; numbers are always of all."""


@dataclass(frozen=True, eq=False)
class Held:
    """Examples as the model scores them.

    Attributes:
        run: The model.
        dataset: All examples.
        view: The first `MOST` of them, transformed.
        part: What they were to the training: "test", "validation", "training", or "given" to the report.
    """

    run: Run
    dataset: Dataset
    view: View
    part: str

    @property
    def about(self) -> str:
        """The examples in words."""
        n, shown = len(self.dataset), len(self.view)
        first = f", of which figures show the first {shown:,}" if shown < n else ""
        return f"{self.dataset.name}, {n:,} examples{first}"

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


def gather(run: Run, data: Source | None = None) -> Held:
    """The examples of ``data``, or those the run's own source held out.

    Raises:
        DataError: they can't be had, or the source no longer holds what the run was trained on.
    """
    if data is None:
        dataset, part = held_out(run)
    else:
        dataset, part = dataset_of(data, run.config, "test"), "given"
    return Held(run, dataset, run.prepare(dataset.head(MOST)), part)


def held_out(run: Run) -> tuple[Dataset, str]:
    """The test split of the run's source, else its validation split, else the part that training held out.

    Raises:
        DataError: the source can't be read, or holds other data than at training.
    """
    options = run.config.data
    train = load_data(options.source, options=options, split="train")
    kept, rest = split_off(train, options.valid_fraction, options.split_seed)
    _require_own(run, kept, train)
    for split, part in (("test", "test"), ("valid", "validation")):
        if split in splits_of(options.source, options):
            return load_data(options.source, options=options, split=split), part
    return (train, "training") if rest is None else (rest, "validation")


def _require_own(run: Run, *candidates: Dataset) -> None:
    if run.folder is None:
        return
    recorded = run.folder.read_recipe().get("training_data", {}).get("fingerprint")
    if recorded is not None and all(dataset.fingerprint() != recorded for dataset in candidates):
        raise DataError(
            f"{run.config.data.source} does not hold the data that this run was trained on (the sha256 differs); "
            "give them as data"
        )
