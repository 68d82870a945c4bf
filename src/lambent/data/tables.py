"""A table's columns as numbers: numeric, counts, and categories by code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lambent.data.dataset import EXACT_IN_FLOAT32, Dataset
from lambent.data.labels import encode
from lambent.data.options import LIMITS, DataOptions
from lambent.data.readers.text import from_texts
from lambent.errors import ConfigError, DataError
from lambent.settings import nearest
from lambent.shapes import Column

_SHOWN = 5
_TOLERATED_ROUNDING = 1e-3


@dataclass(frozen=True)
class Cells:
    """A column as read.

    Attributes:
        name: From the header.
        text: The cells as written; None where the file has numbers.
        numbers: The cells as numbers, where all are.
        wrong: Rows that are no numbers in a column where others are.
    """

    name: str
    text: Sequence[str] | None
    numbers: np.ndarray | None
    wrong: tuple[int, ...] = ()

    def as_labels(self) -> np.ndarray:
        """What categories are told apart by: whole numbers by value, all else by its text."""
        if self.numbers is not None and bool((self.numbers == np.round(self.numbers)).all()):
            return self.numbers.astype(np.int64)
        return np.array(self.text if self.text is not None else [repr(v) for v in _listed(self.numbers)])


@dataclass(frozen=True)
class Source:
    """A table's name, and how its rows are called in messages."""

    name: str
    place: Callable[[int], str]

    def refuse_missing(self, found: list[tuple[int, str]]) -> None:
        """Refuses missing cells (row, column).

        Raises:
            DataError: the first five and the total.
        """
        if found:
            shown = ", ".join(f"{self.place(row)} column {name!r}" for row, name in sorted(found)[:_SHOWN])
            fix = "fill them in, or leave out those rows or columns (data.drop)"
            raise DataError(f"{self.name}: {len(found)} cells are missing, first {shown}; {fix}")

    def used(self, names: Sequence[str], options: DataOptions) -> list[str]:
        """The columns less those of ``data.drop``; of a text its own column and those for labels and condition.

        Raises:
            DataError: a column named there isn't.
            ConfigError: kinds of columns are given beside ``data.text``, which takes one.
        """
        self.refuse_unknown("drop", options.drop, names)
        if options.text is None:
            return [name for name in names if name not in options.drop]
        for option in ("categorical", "counts", "drop"):
            if getattr(options, option):
                raise ConfigError(f"data.{option} beside data.text={options.text!r}, which takes one column; drop it")
        self.refuse_unknown("text", (options.text,), names)
        beside = (options.labels, *_condition_columns(options))
        self.refuse_unknown("labels", (options.labels,) if options.labels else (), names)
        self.refuse_unknown("condition", _condition_columns(options), names)
        return [name for name in names if name == options.text or name in beside]

    def refuse_unknown(self, option: str, wanted: Sequence[str], names: Sequence[str]) -> None:
        """Refuses an option that names a column that isn't there.

        Raises:
            DataError: with the nearest name.
        """
        for name in wanted:
            if name not in names:
                raise DataError(
                    f"{self.name}: no column {name!r} (data.{option}){nearest(name, names)}; it has {', '.join(names)}"
                )


def _listed(values: np.ndarray | None) -> list[float]:
    listed: list[float] = [] if values is None else values.tolist()
    return listed


def build(columns: list[Cells], options: DataOptions, source: Source) -> Dataset:
    """The data set of a table: its columns in order, less labels and condition.

    A column is categorical where it holds text (its codes in rising order of the names) or is named in
    ``data.categorical``, a count where it is named in ``data.counts``, and numeric otherwise.

    Raises:
        DataError: a column named in the options that isn't there, or cells that don't fit their column's kind.
    """
    by_name = {cells.name: cells for cells in columns}
    named = () if options.labels is None else (options.labels,)
    beside = _condition_columns(options)
    asked = {"labels": named, "condition": beside, "categorical": options.categorical, "counts": options.counts}
    for option, wanted in asked.items():
        source.refuse_unknown(option, wanted, tuple(by_name))
    if options.text is not None:
        return _texts(by_name, options, source)
    kept = [cells for cells in columns if cells.name not in (*named, *beside)]
    if not kept:
        raise DataError(
            f"{source.name}: no column is left beside data.labels and data.condition, of {', '.join(by_name)}"
        )
    coded = [_code(cells, options, source) for cells in kept]
    labels, classes = _labels(by_name, options, source)
    condition = [_numeric(by_name[name], source) for name in beside]
    return Dataset(
        torch.from_numpy(np.stack([values for _, values, _ in coded], 1)),
        labels,
        torch.from_numpy(np.stack(condition, 1)) if condition else None,
        source.name,
        "table",
        columns=tuple(column for column, _, _ in coded),
        categories=tuple(names for _, _, names in coded),
        classes=classes,
    )


def _texts(columns: dict[str, Cells], options: DataOptions, source: Source) -> Dataset:
    """One column of text, with labels and condition for each example that comes of a cell."""
    assert options.text is not None
    cells = columns[options.text]
    if cells.text is None:
        raise DataError(f"{source.name}: column {cells.name!r} holds numbers, expected text (data.text)")
    name = f"{source.name}, column {cells.name!r}"
    found, rows = from_texts(cells.text, options=options, name=name, place=source.place)
    labels, classes = _labels(columns, options, source)
    condition = [torch.from_numpy(_numeric(columns[name], source)) for name in _condition_columns(options)]
    return replace(
        found,
        labels=None if labels is None else labels[rows],
        condition=torch.stack(condition, 1)[rows] if condition else None,
        classes=classes,
    )


def _condition_columns(options: DataOptions) -> tuple[str, ...]:
    return () if options.condition in ("none", "labels") else (options.condition,)


def _labels(columns: dict[str, Cells], options: DataOptions, source: Source) -> tuple[Tensor | None, tuple[str, ...]]:
    if options.labels is None:
        return None, ()
    return encode(columns[options.labels].as_labels(), f"{source.name}, column {options.labels!r}")


def _code(cells: Cells, options: DataOptions, source: Source) -> tuple[Column, np.ndarray, tuple[str, ...]]:
    """The column, its values as float32, and the names of its categories."""
    if cells.name in options.counts:
        return Column(cells.name, "count"), _counts(cells, source), ()
    text_only = cells.numbers is None and not cells.wrong
    if not (text_only or cells.name in options.categorical):
        return Column(cells.name, "numeric"), _numeric(cells, source), ()
    codes, names = encode(cells.as_labels(), f"{source.name}, column {cells.name!r}")
    if len(names) > LIMITS.categories:
        raise DataError(
            f"{source.name}: column {cells.name!r} has {len(names)} different values, more than the "
            f"{LIMITS.categories} that make categories; name it in data.drop"
        )
    return Column(cells.name, "categorical", len(names)), codes.numpy().astype(np.float32), names


def _numbers(cells: Cells, source: Source) -> np.ndarray:
    if cells.numbers is not None:
        return cells.numbers
    text = cells.text or ()
    wrong = cells.wrong or tuple(range(len(text)))
    shown = ", ".join(f"{source.place(row)} holds {text[row][:40]!r}" for row in wrong[:_SHOWN])
    raise DataError(
        f"{source.name}: column {cells.name!r} has {len(wrong)} cells of {len(text)} that are not numbers: {shown}; "
        "correct them, or name the column in data.categorical"
    )


def _numeric(cells: Cells, source: Source) -> np.ndarray:
    exact = _numbers(cells, source)
    _refuse_infinite(exact, cells, source)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    _refuse_infinite(rounded, cells, source)
    if np.abs(rounded - exact).max() > _TOLERATED_ROUNDING * exact.std() > 0:
        raise DataError(
            f"{source.name}: column {cells.name!r} varies by {exact.std():.3g} around {exact.mean():.9g}, too little "
            f"for float32; subtract {exact.mean():.9g} from it"
        )
    return rounded


def _refuse_infinite(values: np.ndarray, cells: Cells, source: Source) -> None:
    rows = np.flatnonzero(~np.isfinite(values)).tolist()
    if rows:
        shown = ", ".join(source.place(row) for row in rows[:_SHOWN])
        raise DataError(
            f"{source.name}: column {cells.name!r} has {len(rows)} cells that are infinite in {values.dtype}: {shown}; "
            "correct or rescale them"
        )


def _counts(cells: Cells, source: Source) -> np.ndarray:
    values = _numbers(cells, source)
    rows = np.flatnonzero(~((values >= 0) & (values == np.round(values)) & (values <= EXACT_IN_FLOAT32)))
    if rows.size:
        shown = ", ".join(f"{source.place(row)} holds {values[row]:g}" for row in rows[:_SHOWN].tolist())
        raise DataError(
            f"{source.name}: column {cells.name!r} has {rows.size} cells that are no counts 0..2^24: {shown}; "
            "correct them, or take the column out of data.counts"
        )
    return values.astype(np.float32)
