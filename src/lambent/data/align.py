"""Another data set in the training set's terms: same shape, same columns, same codes for categories and classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lambent.data.dataset import Dataset
from lambent.data.labels import recode
from lambent.data.readers.text import recoded
from lambent.errors import DataError
from lambent.shapes import Column

if TYPE_CHECKING:
    from lambent.data.transform import Transform


def align(dataset: Dataset, transform: Transform, name: str) -> Dataset:
    """``dataset`` in the terms of ``transform``; see `Transform.align`."""
    if transform.columns:
        dataset = _align_columns(dataset, transform, name)
    if transform.alphabet is not None:
        dataset = replace(dataset, x=recoded(dataset, transform.alphabet, name), alphabet=transform.alphabet)
    if dataset.event_shape != transform.event:
        raise DataError(
            f"{name}: expected examples of shape {_shape(transform.event)}, got {_shape(dataset.event_shape)}; "
            f"{_shape_fix(transform.event, dataset.event_shape, text=transform.alphabet is not None)}"
        )
    _check_condition(dataset, transform, name)
    return _align_labels(dataset, transform, name)


def _shape(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))})"


def _shape_fix(due: tuple[int, ...], got: tuple[int, ...], *, text: bool) -> str:
    if len(due) == len(got) == 1 and text:
        return f"set data.length={due[0]}"
    if len(due) == 3 and got == (*due[1:], due[0]):
        return "set data.layout=hwc"
    if len(due) == len(got) == 3 and due[0] == 1 and got[0] == 3:
        return "set data.grayscale=true" + ("" if due[1:] == got[1:] else f" and data.size={list(due[1:])}")
    if len(due) == len(got) == 3 and due[0] == got[0]:
        return f"set data.size={list(due[1:])} for a folder of images, or resize the array"
    return "give data like the training set's"


def _align_columns(dataset: Dataset, transform: Transform, name: str) -> Dataset:
    names, due = [c.name for c in dataset.columns], [c.name for c in transform.columns]
    missing, extra = [n for n in due if n not in names], [n for n in names if n not in due]
    if missing or extra:
        raise DataError(
            f"{name}: columns differ from the training set's: missing {missing or 'none'}, unknown {extra or 'none'}; "
            "give the same columns (data.drop leaves some out)"
        )
    order = [names.index(n) for n in due]
    assert isinstance(dataset.x, Tensor)
    x = dataset.x[:, order].clone()
    for at, (column, source) in enumerate(zip(transform.columns, order, strict=True)):
        _check_kind(column, dataset.columns[source], name)
        if column.kind == "categorical":
            where = f"{name}, column {column.name!r}"
            x[:, at] = recode(x[:, at].long(), dataset.categories[source], transform.categories[at], where).float()
    return replace(dataset, x=x, columns=transform.columns, categories=transform.categories)


def _check_kind(due: Column, got: Column, name: str) -> None:
    if due.kind != got.kind:
        raise DataError(
            f"{name}: column {due.name!r} is {got.kind}, and was {due.kind} in training; name it in data.categorical "
            "or data.counts, or correct it"
        )


def _check_condition(dataset: Dataset, transform: Transform, name: str) -> None:
    if transform.condition in ("none", "labels"):
        return
    got = 0 if dataset.condition is None else dataset.condition.shape[1]
    if got != transform.condition_size:
        raise DataError(
            f"{name}: condition {transform.condition!r} has {got} numbers an example, "
            f"expected {transform.condition_size}"
        )


def _align_labels(dataset: Dataset, transform: Transform, name: str) -> Dataset:
    needed = transform.condition == "labels"
    if dataset.labels is None:
        if needed:
            raise DataError(f"{name} has no labels, and the model is conditioned on them; give them as in training")
        return dataset
    unknown = set(dataset.classes) - set(transform.classes)
    if unknown and not needed:
        return dataset
    labels = recode(dataset.labels, dataset.classes, transform.classes, f"{name}, labels")
    return replace(dataset, labels=labels.to(torch.long), classes=transform.classes)
