"""Tables from .csv files: comma-separated UTF-8 text whose first line names the columns."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lambent.data.dataset import Dataset
from lambent.data.options import DataOptions
from lambent.data.source_files import expect, readable
from lambent.data.tables import Cells, Source, build
from lambent.errors import DataError

_MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "?"))
_ANSWERS = 5


def load_csv(path: Path, options: DataOptions) -> Dataset:
    """The table of a .csv file.

    Raises:
        DataError: no header, columns of the same name, lines of another length, missing cells, or columns that are
            numbers in some lines and text in others; all with the lines.
    """
    expect(path, "text")
    with readable(path):
        if path.stat().st_size > options.budget:
            raise DataError(f"{path}: larger than data.memory={options.memory} MiB; give it as .parquet, or raise that")
    rows = list(_rows(path))
    header = _header(path, rows)
    lines = [line for line, _ in rows[1:]]
    _refuse_ragged(path, rows, len(header))
    source = Source(str(path), lambda row: f"line {lines[row]}")
    columns = {name: [cells[header.index(name)] for _, cells in rows[1:]] for name in source.used(header, options)}
    for name in (name for name in columns if name != options.text):  # blanks and "NA" belong to a text
        columns[name] = [cell.strip() for cell in columns[name]]
    missing = [(row, name) for name, cells in columns.items() if name != options.text for row in _missing_rows(cells)]
    source.refuse_missing(missing)
    return build([_cells(name, texts) for name, texts in columns.items()], options, source)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells; blank lines at the end are no rows."""
    blank: list[tuple[int, list[str]]] = []
    try:
        with readable(path), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if not cells:
                    blank.append((reader.line_num, cells))
                    continue
                yield from blank
                blank.clear()
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: no readable CSV ({error}); check its quotes") from error


def _header(path: Path, rows: list[tuple[int, list[str]]]) -> list[str]:
    if not rows:
        raise DataError(f"{path} holds no table, only blank lines; expected a header and rows")
    header = [name.strip() for name in rows[0][1]]
    repeated = [name for name, n in Counter(header).items() if n > 1]
    if "" in header or repeated:
        what = f"the columns {', '.join(map(repr, repeated))} more than once" if repeated else "a column without a name"
        raise DataError(f"{path}: the header has {what}; give each column its own name")
    numbers = [name for name in header if _number(name) is not None]
    if numbers and numbers not in ([str(i + first) for i in range(len(numbers))] for first in (0, 1)):
        shown = ", ".join(header[:5])
        raise DataError(f"{path}: the first line ({shown}) holds numbers; add a line with the columns' names before it")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise DataError(f"{path}: the header is one cell, {header[0][:60]!r}; separate cells by commas")
    if len(rows) == 1:
        raise DataError(f"{path} has a header and no rows; expected at least one example")
    return header


def _refuse_ragged(path: Path, rows: list[tuple[int, list[str]]], width: int) -> None:
    ragged = [(line, len(cells)) for line, cells in rows if len(cells) != width]
    if ragged:
        shown = ", ".join(f"line {line} has {n}" for line, n in ragged[:_ANSWERS])
        raise DataError(f"{path}: {len(ragged)} lines don't have {width} cells: {shown}; complete or quote them")


def _missing_rows(cells: list[str]) -> list[int]:
    if not any(cell.lower() in _MISSING for cell in set(cells)):
        return []
    return [row for row, cell in enumerate(cells) if cell.lower() in _MISSING]


def _cells(name: str, texts: list[str]) -> Cells:
    numbers = [_number(text) for text in texts]
    if None not in numbers:
        return Cells(name, texts, np.array(numbers, np.float64))
    wrong = tuple(row for row, number in enumerate(numbers) if number is None)
    return Cells(name, texts, None, wrong if len(wrong) < len(texts) else ())


def _number(text: str) -> float | None:
    """The number that a cell holds; what only Python takes for one (``1_000``) is text."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
