"""What a transform needs to know of the training set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lambent.data.dataset import Dataset
from lambent.data.options import DataOptions
from lambent.data.support import grey_levels, refuse_nonfinite, unit_interval
from lambent.errors import ConfigError, DataError

_RELATIVE_FLOOR = 1e-7


class DataWarning(UserWarning):
    """Data that work but are probably not what was meant."""


@dataclass(frozen=True)
class Fitted:
    """Levels, scale and the condition's length."""

    levels: int | None
    shift: tuple[float, ...]
    divisor: tuple[float, ...]
    condition_size: int


def fit(dataset: Dataset, options: DataOptions) -> Fitted:
    """Looks through the training set; see `Transform.fit`."""
    _refuse_combinations(dataset, options)
    if dataset.alphabet is not None:
        return Fitted(dataset.alphabet.size, (), (), _condition_size(dataset, options))
    refuse_nonfinite(dataset, dataset.name, tuple(c.name for c in dataset.columns))
    levels = _levels(dataset, options)
    scale = options.scale if options.scale != "auto" else "standardize" if dataset.kind == "table" else "none"
    if options.binarize != "none" or (scale == "unit" and levels is not None):
        check_raw(dataset, levels, dataset.name)
    if dataset.kind == "table":
        _warn_of_duplicates(dataset)
    shift, divisor = _scale(dataset, scale, 2 if options.binarize != "none" else levels)
    return Fitted(levels, shift, divisor, _condition_size(dataset, options))


def _refuse_combinations(dataset: Dataset, options: DataOptions) -> None:
    if dataset.alphabet is not None:
        _refuse_numbers_of_text(dataset, options)
    if options.binarize == "none":
        return
    if options.scale == "standardize":
        raise ConfigError(f"data.binarize={options.binarize} gives 0 and 1; leave data.scale at auto or none")
    if dataset.kind == "table":
        raise ConfigError(
            f"data.binarize={options.binarize} is for grey levels, and {dataset.name} is a table; drop it"
        )


def _refuse_numbers_of_text(dataset: Dataset, options: DataOptions) -> None:
    for name, idle in (("binarize", ("none",)), ("scale", ("auto", "none")), ("grey_levels", (None,))):
        if getattr(options, name) not in idle:
            raise ConfigError(
                f"data.{name}={getattr(options, name)} is for numbers, and {dataset.name} is text; use "
                f"data.{name}={str(idle[0]).lower()} with likelihood=text"
            )


def check_raw(dataset: Dataset, levels: int | None, name: str) -> None:
    """Refuses what can't be binarised or divided by the largest level.

    Raises:
        DataError: grey levels outside 0..levels-1, or, where there are none, numbers outside [0, 1].
    """
    if levels is not None:
        grey_levels(levels).check(dataset, name, f"correct data.grey_levels, which is {levels}, or the data")
    else:
        fix = "set data.grey_levels to the number of grey levels, or give numbers in [0, 1], to binarise"
        unit_interval().check(dataset, name, fix)


def _levels(dataset: Dataset, options: DataOptions) -> int | None:
    if options.grey_levels is not None or dataset.levels is None:
        return options.grey_levels
    largest = max(float(x.max()) for _, x in dataset.chunks())
    if dataset.levels == 256 and largest <= 1:
        return 2
    levels_matter = options.binarize != "none" or options.scale == "unit"
    if levels_matter and dataset.levels == 256 and largest < 64:
        warnings.warn(
            f"{dataset.name}: the largest grey level is {largest:g} of 255; set data.grey_levels={largest + 1:g} if "
            "that is the largest there can be",
            DataWarning,
            stacklevel=4,
        )
    return dataset.levels


def _scale(dataset: Dataset, scale: str, levels: int | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if scale == "unit" and levels is not None and levels > 2:
        return (), (float(levels - 1),)
    return _standardize(dataset) if scale == "standardize" else ((), ())


def _standardize(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations (divided by n) in two passes, in float64; a constant column keeps its unit."""
    count = len(dataset) * (math.prod(dataset.event_shape[1:]) if dataset.kind == "image" else 1)
    mean = _total(dataset, lambda x: x) / count
    deviation = (_total(dataset, lambda x: (x - _shaped(mean, dataset)) ** 2) / count).sqrt()
    constant = deviation <= _RELATIVE_FLOOR * mean.abs().clamp_min(1e-30)
    numeric = torch.tensor([c.kind == "numeric" for c in dataset.columns] or [True]).expand(len(mean))
    _warn_of_constants(dataset, torch.nonzero(constant & numeric).flatten().tolist())
    divisor = torch.where(constant | ~numeric, 1.0, deviation)
    return tuple(torch.where(numeric, mean, 0.0).tolist()), tuple(divisor.tolist())


def _total(dataset: Dataset, of: Callable[[Tensor], Tensor]) -> Tensor:
    axes = (0, 2, 3) if dataset.kind == "image" else (0,)
    return torch.stack([of(x.double()).sum(axes).flatten() for _, x in dataset.chunks()]).sum(0)


def _shaped(mean: Tensor, dataset: Dataset) -> Tensor:
    return mean.view(-1, 1, 1) if dataset.kind == "image" else mean.view(dataset.event_shape)


def _warn_of_constants(dataset: Dataset, where: list[int]) -> None:
    if where:
        _warn(
            dataset,
            where,
            "constant, so only shifted: they carry no information, and a learned scale shrinks to its lower limit",
        )


def _warn_of_duplicates(dataset: Dataset) -> None:
    assert isinstance(dataset.x, Tensor)
    seen: dict[bytes, int] = {}
    columns = np.ascontiguousarray(dataset.x.numpy().T)
    again = [i for i, column in enumerate(columns) if seen.setdefault(column.tobytes(), i) != i]
    if again:
        _warn(dataset, again, "copies of columns before them, so they count twice; drop them with data.drop")


def _warn(dataset: Dataset, where: list[int], what: str) -> None:
    names = [repr(dataset.columns[i].name) if dataset.columns else str(i) for i in where]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    warnings.warn(f"{dataset.name}: columns {shown} are {what}", DataWarning, stacklevel=5)


def _condition_size(dataset: Dataset, options: DataOptions) -> int:
    if options.condition == "none":
        return 0
    if options.condition == "labels":
        if dataset.labels is None:
            raise DataError(f"{dataset.name} has no labels for data.condition=labels; name them with data.labels")
        return len(dataset.classes)
    if dataset.condition is None:
        raise DataError(f"{dataset.name} has no {options.condition!r} for data.condition; expected an array or column")
    refuse_nonfinite(dataset.condition, f"{dataset.name}, condition {options.condition!r}")
    return dataset.condition.shape[1]
