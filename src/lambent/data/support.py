"""What a likelihood scores, and the refusal of anything else before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lambent.distributions.text import after_eos
from lambent.errors import DataError
from lambent.shapes import Column

CHUNK = 1 << 22
"""Elements looked at at a time."""


@runtime_checkable
class Chunked(Protocol):
    """Anything that gives its examples in blocks, with the position of each block's first example."""

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Chunks of the data in order, as (index of the first, examples)."""


Checkable: TypeAlias = "Tensor | np.ndarray | Chunked"


@dataclass(frozen=True)
class Bounds:
    """The values of one column: an interval, or the whole numbers in it."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False


@dataclass(frozen=True)
class Support:
    """The values a likelihood scores.

    Attributes:
        name: As shown in messages, e.g. ``{0..16}``.
        bounds: One for all elements, or one for each column.
        columns: Names of the columns, where there is one bound for each.

    >>> binary().check(torch.tensor([[0.0, 1.0]]))
    >>> grey_levels(17).check(torch.tensor([[3, 17]]), "valid")
    Traceback (most recent call last):
    ...
    lambent.errors.DataError: valid: values 3..17 outside {0..16}: 1 of 2, first at x[0,1]; use likelihood.bits=5
    """

    name: str
    bounds: tuple[Bounds, ...]
    columns: tuple[str, ...] = ()

    def check(self, data: Checkable, name: str = "data", fix: str = "") -> None:
        """Refuses data outside the support; reads in blocks, so that memory-mapped arrays stay on disk.

        Floats that are exact whole numbers pass where whole numbers are due.

        Args:
            data: Examples along the first axis.
            name: What they are called in the message.
            fix: What to do about it, where it isn't the choice of likelihood.

        Raises:
            DataError: names the range found, the first positions, the total, and the fix.
        """
        if all(self._holds(chunk) for _, chunk in _chunks(data)):
            return
        _refuse_nonfinite(data, name, self.columns)
        self._refuse(data, name, fix)

    def contains(self, x: Tensor) -> Tensor:
        """Element by element, whether ``x`` (N, *event) is inside."""
        low, high, integer = self._limits(x)
        inside = (x >= low) & (x <= high) & torch.isfinite(x)
        return inside & (~integer | (x == x.round())) if x.is_floating_point() else inside

    def _limits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = torch.tensor([b.low for b in self.bounds], dtype=torch.float64)
        high = torch.tensor([b.high for b in self.bounds], dtype=torch.float64)
        integer = torch.tensor([b.integer for b in self.bounds])
        if len(self.bounds) not in (1, x.shape[-1]):
            raise DataError(
                f"the data have {x.shape[-1]} columns, expected {len(self.bounds)}: {', '.join(self.columns)}"
            )
        return low.to(x.device), high.to(x.device), integer.to(x.device)

    def _holds(self, x: Tensor) -> bool:
        if len(self.bounds) > 1 or x.numel() == 0:
            return bool(self.contains(x).all())
        bound = self.bounds[0]
        low, high = (float(v) for v in torch.aminmax(x))  # NaN anywhere makes both NaN
        if not (low >= bound.low and high <= bound.high and math.isfinite(low) and math.isfinite(high)):
            return False
        return not (bound.integer and x.is_floating_point()) or bool((x == x.round()).all())

    def _refuse(self, data: Checkable, name: str, fix: str) -> None:
        found, bound = _Found.scan(data, lambda x: ~self.contains(x), self.columns), self.bounds[0]
        if self.columns:  # the range of the column that is wrong, not of all
            at = found.positions[0][-1]
            bound, column = self.bounds[at], _Found.scan(data, torch.isnan, part=lambda x: x[:, at])
            found = replace(found, low=column.low, high=column.high)
        outside = f"{found.low:g}..{found.high:g}" if found.low < found.high else f"{found.low:g}"
        raise DataError(
            f"{name}: values {outside} outside {_label(bound)}: {found.total} of {found.seen}, first at {found.where}; "
            f"{fix or self._fix(found, bound)}"
        )

    def _fix(self, found: _Found, bound: Bounds) -> str:
        if self.columns:
            return f"correct them or change the column's kind ({_label(bound)} is due there)"
        if bound.integer and bound.high == 1:
            return _fix_binary(found)
        return _fix_levels(found, bound) if bound.integer else "use data.scale=unit or likelihood=normal"


@dataclass(frozen=True)
class Sequences(Support):
    """Symbols 0..S-1, of which the last, where it is END, is followed by nothing but itself."""

    end: int | None = None

    def _reopened(self, x: Tensor) -> Tensor:
        return (
            after_eos(x, self.end) & (x != self.end) if self.end is not None else torch.zeros_like(x, dtype=torch.bool)
        )

    def _holds(self, x: Tensor) -> bool:
        return super()._holds(x) and not bool(self._reopened(x).any())

    def _refuse(self, data: Checkable, name: str, fix: str) -> None:
        found = _Found.scan(data, self._reopened)
        if not all(super(Sequences, self)._holds(x) for _, x in _chunks(data)) or not found.total:
            super()._refuse(data, name, fix)
        raise DataError(
            f"{name}: {found.total} symbols after END, which is {self.end}, first at {found.where}; fill examples up "
            "with END"
        )

    def _fix(self, found: _Found, bound: Bounds) -> str:
        return "give text, or whole numbers from 0 below data.grey_levels"


def _fix_binary(found: _Found) -> str:
    if found.low < 0:
        return "use likelihood=normal, or data in 0..1 and data.binarize=dynamic"
    if found.whole:
        return "use data.binarize=dynamic or likelihood=discretised-logistic"
    return "use data.binarize=dynamic or likelihood=normal" if found.high <= 1 else "use likelihood=normal"


def _fix_levels(found: _Found, bound: Bounds) -> str:
    if found.low < 0 or not found.whole:
        return "use likelihood=normal, or give whole numbers from 0"
    return f"use likelihood.bits={max(1, math.ceil(math.log2(found.high + 1)))}" if found.high > bound.high else ""


@dataclass(frozen=True)
class _Found:
    """What a scan met: how many of how many values, the first positions, and the range of the whole data."""

    total: int
    seen: int
    low: float
    high: float
    whole: bool
    positions: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...]

    @classmethod
    def scan(
        cls,
        data: Checkable,
        bad: Callable[[Tensor], Tensor],
        columns: tuple[str, ...] = (),
        part: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> _Found:
        """Counts the elements of ``part(chunk)`` for which ``bad`` holds."""
        total, seen, low, high, whole = 0, 0, math.inf, -math.inf, True
        positions: list[tuple[int, ...]] = []
        for start, chunk in _chunks(data):
            x = part(chunk)
            mask = bad(x)
            total, seen = total + int(mask.sum()), seen + x.numel()
            finite = x[torch.isfinite(x)]
            if finite.numel():
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
                whole = whole and bool((finite == finite.round()).all()) if x.is_floating_point() else whole
            if len(positions) < 5:
                positions += [(start + int(at[0]), *map(int, at[1:])) for at in mask.nonzero()[: 5 - len(positions)]]
        return cls(total, seen, low, high, whole, tuple(positions), columns)

    @property
    def where(self) -> str:
        """The first positions in words."""
        return ", ".join(position_in_words(p, self.columns) for p in self.positions)


def position_in_words(position: tuple[int, ...], columns: tuple[str, ...] = ()) -> str:
    """Where a value is: as an index, or as the row and column of a table; both count from 0.

    >>> position_in_words((3, 0, 4, 5)), position_in_words((3, 1), ("age", "sex"))
    ('x[3,0,4,5]', "row 3 column 'sex'")
    """
    if columns:
        return f"row {position[0]} column {columns[position[-1]]!r}"
    return f"x[{','.join(map(str, position))}]"


def refuse_nonfinite(data: Checkable, name: str = "data", columns: tuple[str, ...] = ()) -> None:
    """Refuses NaN and infinities.

    Raises:
        DataError: the total and the first positions.
    """
    if not all(bool(torch.isfinite(x).all()) for _, x in _chunks(data) if x.is_floating_point()):
        _refuse_nonfinite(data, name, columns)


def _refuse_nonfinite(data: Checkable, name: str, columns: tuple[str, ...]) -> None:
    found = _Found.scan(data, lambda x: ~torch.isfinite(x), columns)
    if found.total:
        raise DataError(
            f"{name}: {found.total} of {found.seen} values are NaN or infinite in float32, first at {found.where}; "
            "remove those examples or fill them in"
        )


def _chunks(data: Checkable) -> Iterator[tuple[int, Tensor]]:
    if isinstance(data, Chunked):
        yield from data.chunks()
        return
    step = max(1, CHUNK // max(1, math.prod(data.shape[1:])))
    for start in range(0, len(data), step):
        part = data[start : start + step]
        yield start, part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))


def _label(bound: Bounds) -> str:
    if not bound.integer:
        return "the real numbers" if math.isinf(bound.high) else f"[{bound.low:g}, {bound.high:g}]"
    if math.isinf(bound.high):
        return "{0, 1, 2, ...}"
    return "{0, 1}" if bound.high == 1 else f"{{0..{bound.high:g}}}"


def _one(bound: Bounds) -> Support:
    return Support(_label(bound), (bound,))


def binary() -> Support:
    """The support {0, 1} of binary data."""
    return _one(Bounds(0, 1, integer=True))


def grey_levels(levels: int) -> Support:
    """The support {0, ..., levels - 1} of grey levels."""
    return _one(Bounds(0, levels - 1, integer=True))


def unit_interval() -> Support:
    """The support [0, 1], both ends included."""
    return _one(Bounds(0, 1))


def reals() -> Support:
    """The support of all finite numbers."""
    return _one(Bounds())


def counts() -> Support:
    """{0, 1, 2, ...}."""
    return _one(Bounds(0, integer=True))


def strings(symbols: int, *, end: bool) -> Sequences:
    """{0..symbols-1}, the last of them END where there is one."""
    bounds = Bounds(0, symbols - 1, integer=True)
    return Sequences(f"{{0..{symbols - 1}}}", (bounds,), end=symbols - 1 if end else None)


def categories(sizes: tuple[int, ...]) -> Support:
    """Column i holds a code in {0..sizes[i]-1}."""
    return mixed_columns(tuple(Column(str(i), "categorical", size) for i, size in enumerate(sizes)))


def mixed_columns(columns: tuple[Column, ...]) -> Support:
    """Each column's own: reals, counts or codes of categories."""
    return Support("its columns' values", tuple(map(_column_bounds, columns)), tuple(c.name for c in columns))


def _column_bounds(column: Column) -> Bounds:
    if column.kind == "categorical":
        return Bounds(0, column.categories - 1, integer=True)
    return Bounds(0, integer=True) if column.kind == "count" else Bounds()
