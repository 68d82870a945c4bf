"""One point as a data set, for problems whose data are a target."""

from __future__ import annotations

import math

import torch

from lambent.data.dataset import Dataset
from lambent.errors import DataError

PREFIX = "point:"


def is_point(source: str) -> bool:
    """Whether a source names a point."""
    return source.startswith(PREFIX)


def load_point(source: str) -> Dataset:
    """The one example of ``point:NUMBER,NUMBER,...``.

    >>> load_point("point:5,-0.5").x
    tensor([[ 5.0000, -0.5000]])

    Raises:
        DataError: no finite numbers.
    """
    try:
        numbers = [float(text) for text in source.removeprefix(PREFIX).split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"data source {source!r}: expected finite numbers between commas, such as point:5,5")
    return Dataset(torch.tensor([numbers]), name=source)
