"""Supports: every value on the right side, on disk and in memory, with the positions an independent search finds."""

import numpy as np
import pytest
import torch

from lambent.data import DataOptions, load
from lambent.data.support import (
    binary,
    categories,
    counts,
    grey_levels,
    mixed_columns,
    reals,
    refuse_nonfinite,
    unit_interval,
)
from lambent.errors import DataError
from lambent.shapes import Column

VALUES = [-np.inf, -1.0, -1e-7, 0.0, 0.5, 1.0, 1.0000001, 2.0, 15.0, 16.0, 255.0, 256.0, 1e6, 1e6 + 0.5, np.inf, np.nan]
INSIDE = {
    "binary": (binary(), lambda v: v in (0, 1)),
    "16 levels": (grey_levels(16), lambda v: v in range(16)),
    "256 levels": (grey_levels(256), lambda v: v in range(256)),
    "unit": (unit_interval(), lambda v: 0 <= v <= 1),
    "reals": (reals(), np.isfinite),
    "counts": (counts(), lambda v: np.isfinite(v) and v >= 0 and v == round(v)),
    "3 categories": (categories((3,)), lambda v: v in range(3)),
    "numeric column": (mixed_columns((Column("a", "numeric"),)), np.isfinite),
    "count column": (mixed_columns((Column("a", "count"),)), lambda v: np.isfinite(v) and v >= 0 and v == round(v)),
}


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_each_value_is_on_the_right_side(name, dtype):
    support, inside = INSIDE[name]
    for value in VALUES:
        if np.issubdtype(dtype, np.integer) and not (
            np.isfinite(value) and 0 <= value == round(value) <= np.iinfo(dtype).max
        ):
            continue
        value = dtype(value)  # float32 rounds some, and is judged by what it holds
        array = np.full((3, 1), value)
        for data in (array, torch.from_numpy(array)):
            if inside(value.item()):
                support.check(data)
            else:
                with pytest.raises(DataError, match="data: "):
                    support.check(data)


def test_positions_and_counts_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.integers(0, 20, (rng.integers(2, 40), 2, 3)).astype(np.float32)
        x.flat[rng.integers(0, x.size, 3)] = 0.5
        wrong = np.argwhere(~((x == x.round()) & (x <= 15)))
        with pytest.raises(DataError) as raised:
            grey_levels(16).check(x, "it")
        positions = ", ".join(f"x[{','.join(map(str, at))}]" for at in wrong[:5])
        assert (
            f"it: values {x.min():g}..{x.max():g} outside {{0..15}}: {len(wrong)} of {x.size}, first at {positions};"
            in str(raised.value)
        )


def test_nan_is_reported_before_ranges():
    with pytest.raises(DataError, match=r"1 of 3 values are NaN or infinite in float32, first at x\[1,0\]"):
        binary().check(torch.tensor([[7.0], [float("nan")], [3.0]]))


def test_columns_are_named():
    support = mixed_columns((Column("age", "numeric"), Column("sex", "categorical", 2), Column("n", "count")))
    support.check(torch.tensor([[-3.5, 1, 0], [0, 0, 99]]))
    for row, message in [
        ([0.0, 2, 0], r"values 0\.\.2 outside \{0, 1\}: 1 of 6, first at row 1 column 'sex'"),
        ([0.0, 1, -1], r"values -1\.\.0 outside \{0, 1, 2, \.\.\.\}: 1 of 6, first at row 1 column 'n'"),
        ([float("nan"), 1, 1], r"NaN or infinite in float32, first at row 1 column 'age'"),
    ]:
        with pytest.raises(DataError, match=message):
            support.check(torch.tensor([[0.0, 0, 0], row]))
    with pytest.raises(DataError, match="the data have 2 columns, expected 3: age, sex, n"):
        support.check(torch.zeros(4, 2))


def test_mapped_arrays_are_looked_at_in_stretches(tmp_path, monkeypatch):
    x = np.zeros((300, 7), np.float32)
    x[271, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    mapped = load(str(tmp_path / "x.npy"), options=type("Tiny", (DataOptions,), {"budget": 16})())
    sizes = []
    original = type(mapped).chunks

    def watched(self, size=None):
        for start, chunk in original(self, 32):
            sizes.append(len(chunk))
            yield start, chunk

    monkeypatch.setattr(type(mapped), "chunks", watched)
    with pytest.raises(DataError, match=r"first at x\[271,3\]"):
        reals().check(mapped)
    assert max(sizes) == 32
    with pytest.raises(DataError, match=r"mine: 1 of 2100 .* first at row 271 column 'd'"):
        refuse_nonfinite(mapped, "mine", tuple("abcdefg"))
    x[271, 3] = 0
    np.save(tmp_path / "x.npy", x)
    binary().check(load(str(tmp_path / "x.npy"), options=type("Tiny", (DataOptions,), {"budget": 16})()))


def test_read_only_arrays_are_checked_and_stay_the_same():
    x = np.arange(12.0).reshape(3, 4)
    x.flags.writeable = False
    before = x.copy()
    counts().check(x)
    with pytest.raises(DataError):
        binary().check(x)
    assert np.array_equal(x, before)
