"""A data set: examples in one tensor, or memory-mapped where they don't fit, with what belongs to them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lambent.data.alphabet import Alphabet
from lambent.data.support import CHUNK
from lambent.errors import DataError
from lambent.shapes import Column

EXACT_IN_FLOAT32 = 2**24
_FINGERPRINT_BUDGET = 1 << 30
_SAMPLED_BLOCKS = 256


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples and what belongs to them, in the order of the source.

    ``x`` is a torch tensor in memory (numpy arrays are copied into one) or a ``np.memmap``, which never loads whole. It
    holds bytes (uint8) or float32: booleans become bytes, every other number float32; symbols of a text stay as they
    come. Read examples by `batch` or `chunks`, which hide the difference.

    Attributes:
        x: (N, *event); the event of an image is (C, H, W), of a vector (D,), of a table (columns,).
        labels: Codes 0..len(classes)-1, (N,), or None.
        condition: Vectors the model is given, (N, c) float32, or None; one-hot for labels.
        name: Where it came from, for messages.
        kind: "image", "array", "table" or "text".
        columns: A table's columns.
        categories: The names behind each categorical column's codes, by position; empty for the others.
        classes: The names behind the labels.
        levels: Number of grey levels or symbols, where the data are such.
        ids: The examples' own numbers, kept by `subset`, so that what is drawn for an example stays with it.
        rows: Where a memory-mapped ``x`` is only used in part: the positions used.
        notes: What happened on loading that a record of the run should keep.
        alphabet: What the symbols of a text stand for.
        sequential: Whether neighbours belong together, so that the end is held out and not a part drawn at random.

    >>> data = Dataset(np.zeros((4, 1, 2, 2), np.uint8), name="four")
    >>> len(data), data.event_shape, data.batch(torch.tensor([2, 0])).dtype
    (4, (1, 2, 2), torch.uint8)

    Raises:
        DataError: no examples, no event, numbers that are not real, or attributes whose lengths differ.
    """

    x: Tensor | np.ndarray
    labels: Tensor | None = None
    condition: Tensor | None = None
    name: str = "data"
    kind: str = "array"
    columns: tuple[Column, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()
    levels: int | None = None
    ids: Tensor | None = None
    rows: Tensor | None = None
    notes: tuple[str, ...] = ()
    alphabet: Alphabet | None = None
    sequential: bool = False

    def __post_init__(self) -> None:
        if len(self.x.shape) < 2 or 0 in self.x.shape[1:]:
            raise DataError(f"{self.name}: shape {tuple(self.x.shape)}, expected (examples, ...) with values in each")
        if self.alphabet is None and not isinstance(self.x, np.memmap):
            object.__setattr__(self, "x", stored(self.x, self.name))
        elif isinstance(self.x, np.memmap) and self.x.dtype.kind not in "biuf":
            raise DataError(f"{self.name}: {self.x.dtype} is not real numbers; convert it to a number type")
        if self.ids is None:
            object.__setattr__(self, "ids", torch.arange(len(self)))
        if len(self) == 0:
            raise DataError(f"{self.name} is empty; expected at least one example")
        self._check_lengths()

    def _check_lengths(self) -> None:
        for what in ("labels", "condition", "ids"):
            values = getattr(self, what)
            if values is not None and len(values) != len(self):
                raise DataError(f"{self.name}: {len(values)} {what} for {len(self)} examples; expected one each")

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    @property
    def mapped(self) -> bool:
        """Whether the examples stay on disk."""
        return isinstance(self.x, np.memmap)

    def batch(self, indices: Tensor) -> Tensor:
        """The examples at ``indices`` (B,), as (B, *event) uint8 or float32, or as a text's symbols come."""
        if isinstance(self.x, Tensor):
            return self.x.index_select(0, indices.to(self.x.device))
        rows = indices.cpu() if self.rows is None else self.rows[indices.cpu()]
        ordered, back = torch.unique(rows, return_inverse=True)  # disks like rising positions
        return _numbers(self.x[ordered.numpy()], self.name)[back]

    def chunks(self, size: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """The examples in order, ``size`` at a time, each block with the position of its first example."""
        step = size or max(1, CHUNK // math.prod(self.event_shape))
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            if isinstance(self.x, Tensor):
                yield start, self.x[start:stop]
            elif self.rows is None:
                yield start, _numbers(self.x[start:stop], self.name)
            else:
                yield start, self.batch(torch.arange(start, stop))

    def subset(self, indices: Tensor, name: str | None = None) -> Dataset:
        """The examples at ``indices``, in that order; they keep their ids. Nothing is read of a memory-mapped set."""
        indices = indices.long()
        parts: dict[str, Any] = {
            what: None if (values := getattr(self, what)) is None else values[indices]
            for what in ("labels", "condition", "ids")
        }
        if isinstance(self.x, Tensor):
            parts["x"] = self.x[indices]
        else:
            parts["rows"] = indices if self.rows is None else self.rows[indices]
        return replace(self, **parts, name=name or self.name)

    def head(self, n: int) -> Dataset:
        """The first ``n`` examples (all, where there are fewer)."""
        return self.subset(torch.arange(min(n, len(self))))

    def fingerprint(self) -> str:
        """A sha256 over shape, type, examples, labels and condition: ``sha256:...``.

        A memory-mapped set of more than 1 GiB is hashed at 256 blocks spread over it, and says so:
        ``sha256-sampled:...``.
        """
        size = len(self) * math.prod(self.event_shape) * self.x.dtype.itemsize
        sampled = self.mapped and size > _FINGERPRINT_BUDGET
        digest = hashlib.sha256(repr((len(self), self.event_shape, self._type, self.classes)).encode())
        for _, x in self._samples() if sampled else self.chunks():
            digest.update(_bytes(x))
        for values in (self.labels, self.condition):
            digest.update(b"-" if values is None else _bytes(values))
        return f"sha256{'-sampled' * sampled}:{digest.hexdigest()}"

    @property
    def _type(self) -> str:
        """What `batch` gives, which is the same wherever the examples are kept."""
        return str(self.batch(torch.tensor([0])).dtype)

    def _samples(self) -> Iterator[tuple[int, Tensor]]:
        block = max(1, 65536 // math.prod(self.event_shape))
        for start in np.linspace(0, len(self) - 1, _SAMPLED_BLOCKS).astype(int).tolist():
            yield start, self.batch(torch.arange(start, min(start + block, len(self))))


def _bytes(x: Tensor) -> bytes:
    return x.cpu().contiguous().numpy().tobytes()


def stored(x: Tensor | np.ndarray, name: str) -> Tensor:
    """Numbers as one tensor of uint8 or float32 that shares nothing with a numpy array given.

    Raises:
        DataError: not numbers, complex numbers, or whole numbers that float32 can't hold.
    """
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "biuf":
            raise DataError(f"{name}: {x.dtype} is not real numbers; convert it to a number type")
        return _numbers(x, name)
    if x.is_complex():
        raise DataError(f"{name}: complex numbers; give real numbers, e.g. real and imaginary parts as columns")
    if x.dtype in (torch.uint8, torch.float32):
        return x.detach()
    return _numbers(x.detach().cpu().numpy(), name)


def _numbers(x: np.ndarray, name: str) -> Tensor:
    if x.dtype.kind == "b" or x.dtype == np.uint8:
        return torch.from_numpy(np.array(x, np.uint8))
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.min())), abs(int(x.max()))) > EXACT_IN_FLOAT32:
        raise DataError(
            f"{name}: whole numbers up to {max(abs(int(x.min())), abs(int(x.max())))}, beyond 2^24, are not exact in "
            "float32; rescale them or give them as floats"
        )
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return torch.from_numpy(np.array(x, np.float32))


def split_off(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """The data set without ``fraction`` of its examples, and those, chosen at random by ``seed``, or a text's end.

    At least one example stays on each side; one example can't be split, and comes back with None, as does everything
    where ``fraction`` is 0. The order of the source is kept on both sides.
    """
    n = len(dataset)
    if fraction <= 0 or n < 2:
        return dataset, None
    count = min(n - 1, max(1, round(n * fraction)))
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = torch.arange(n).flip(0) if dataset.sequential else drawn
    held, kept = order[:count].sort().values, order[count:].sort().values
    return dataset.subset(kept, f"{dataset.name} (training part)"), dataset.subset(
        held, f"{dataset.name} (validation part)"
    )
