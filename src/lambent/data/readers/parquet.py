"""Tables from .parquet files, by pyarrow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lambent.data.dataset import Dataset
from lambent.data.options import DataOptions
from lambent.data.source_files import expect, parsing
from lambent.data.tables import Cells, Source, build
from lambent.errors import ConfigError, DataError


def load_parquet(path: Path, options: DataOptions) -> Dataset:
    """The table of a .parquet file; rows are counted from 0.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: damaged, empty, columns of the same name, missing cells, or columns that are no numbers or text.
    """
    expect(path, ".parquet")
    table = _read(path, options)
    source = Source(str(path), "row {}".format)
    repeated = [name for name, n in Counter(table.column_names).items() if n > 1]
    if repeated:
        raise DataError(
            f"{path}: has the columns {', '.join(map(repr, repeated))} more than once; give each its own name"
        )
    if table.num_rows == 0 or table.num_columns == 0:
        raise DataError(
            f"{path} has {table.num_rows} rows and {table.num_columns} columns; expected at least one of each"
        )
    named = {name: table.column(name) for name in source.used(table.column_names, options)}
    source.refuse_missing([(row, name) for name, column in named.items() for row in _missing_rows(column)])
    return build([_cells(path, name, column) for name, column in named.items()], options, source)


def _read(path: Path, options: DataOptions) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading .parquet needs pyarrow; pip install 'lambent[parquet]'") from error
    with parsing(path, ".parquet file"), parquet.ParquetFile(path) as file:
        size = file.metadata.num_rows * file.metadata.num_columns * 8
        if size > options.budget:
            raise DataError(
                f"{path}: {size / 2**20:.0f} MiB as numbers, more than data.memory={options.memory}; raise that, or "
                "save it as .npy, which can stay on disk"
            )
        table = file.read()
        table.validate(full=True)
        return table


def _missing_rows(column: Any) -> list[int]:
    import pyarrow as arrow
    import pyarrow.compute as compute

    nan_too = arrow.types.is_floating(column.type)
    if column.null_count == 0 and not nan_too:
        return []
    rows: list[int] = np.flatnonzero(compute.is_null(column, nan_is_null=nan_too).to_numpy()).tolist()
    return rows


def _cells(path: Path, name: str, column: Any) -> Cells:
    import pyarrow as arrow

    kind = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
    if arrow.types.is_integer(kind) or arrow.types.is_floating(kind):
        return Cells(name, None, column.to_numpy().astype(np.float64))
    if arrow.types.is_boolean(kind) or arrow.types.is_string(kind) or arrow.types.is_large_string(kind):
        return Cells(name, [str(value) for value in column.to_pylist()], None)
    raise DataError(
        f"{path}: column {name!r} holds {kind}, expected numbers or text; convert it, or name it in data.drop"
    )
