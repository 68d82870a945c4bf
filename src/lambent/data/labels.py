"""Labels: whole numbers for classes, with the classes' names."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lambent.errors import DataError
from lambent.settings import nearest


def encode(values: np.ndarray, name: str, classes: tuple[str, ...] | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Codes (N,) and class names for labels given as whole numbers or text; classes are in rising order.

    >>> encode(np.array(["cat", "ant", "cat"]), "pets")
    (tensor([1, 0, 1]), ('ant', 'cat'))

    Args:
        values: (N,) whole numbers, booleans or text.
        name: For messages.
        classes: Known class names; without them, those that occur.

    Raises:
        DataError: not one label each, fractions, or a label that is no known class.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        raise DataError(
            f"{name}: labels of shape {values.shape} and type {values.dtype}, expected one whole number or text each"
        )
    if values.dtype.kind == "f":
        values = _whole(values, name)
    occurring, codes = np.unique(values, return_inverse=True)
    names = tuple(map(_text, occurring))
    known = names if classes is None else classes
    return torch.from_numpy(_recode(names, known, name)[codes.reshape(-1)]), known


def recode(codes: Tensor, names: tuple[str, ...], known: tuple[str, ...], name: str) -> Tensor:
    """Codes that meant ``names`` as codes that mean ``known``.

    Raises:
        DataError: a name that occurs is not known.
    """
    if names == known:
        return codes
    used = torch.unique(codes).tolist()
    table = np.zeros(len(names), np.int64)
    table[used] = _recode(tuple(names[i] for i in used), known, name)
    return torch.from_numpy(table)[codes]


def _recode(names: tuple[str, ...], known: tuple[str, ...], name: str) -> np.ndarray:
    where = {k: i for i, k in enumerate(known)}
    for unknown in (n for n in names if n not in where):
        raise DataError(
            f"{name}: {unknown!r} is not among the {len(known)} known names ({', '.join(known[:10])}"
            f"{', ...' if len(known) > 10 else ''}){nearest(unknown, known)}"
        )
    return np.array([where[n] for n in names], np.int64)


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.round(values))))
    if wrong.size:
        raise DataError(
            f"{name}: {wrong.size} of {len(values)} labels are not whole numbers, first {values[wrong[0]]} at example "
            f"{wrong[0]}; give codes or text"
        )
    return values.astype(np.int64)


def _text(value: np.generic) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Codes (...,) as float32 (..., classes).

    >>> one_hot(torch.tensor([1]), 3)
    tensor([[0., 1., 0.]])

    Raises:
        DataError: a code outside 0..classes-1.
    """
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise DataError(
            f"labels {int(labels.min())}..{int(labels.max())} outside 0..{classes - 1}; the model has {classes} classes"
        )
    return torch.nn.functional.one_hot(labels.long(), classes).float()
