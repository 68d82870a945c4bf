"""Arrays from numpy's own files: .npy, kept on disk where large, and .npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from lambent.data.dataset import Dataset
from lambent.data.labels import encode
from lambent.data.options import LIMITS, DataOptions
from lambent.data.source_files import WHY_NO_PICKLE, expect, parsing
from lambent.errors import DataError
from lambent.settings import nearest

SPLITS = ("train", "valid", "test")
SPLIT_IDS = {split: i << 40 for i, split in enumerate(SPLITS)}
"""Where the ids of a split begin, so that examples of different splits never share one."""


def as_examples(x: np.ndarray, options: DataOptions, name: str) -> tuple[np.ndarray, str]:
    """An array as (N, *event) and its kind, nothing copied: (N,) -> (N,1), (N,H,W) -> (N,1,H,W).

    Raises:
        DataError: no axis of examples, too many axes, or an image array that looks channels last.
    """
    if x.ndim in (1, 2):
        return (x[:, None], "array") if x.ndim == 1 else (x, "array")
    if x.ndim == 3:
        return x[:, None], "image"
    if x.ndim != 4:
        raise DataError(f"{name}: shape {x.shape}, expected (N,), (N,D), (N,H,W) or (N,C,H,W)")
    if options.layout == "hwc":
        return x.transpose(0, 3, 1, 2), "image"
    if x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise DataError(f"{name}: shape {x.shape} looks channels last, expected (N,C,H,W); set data.layout=hwc")
    return x, "image"


def dataset_of(
    x: np.ndarray, options: DataOptions, name: str, split: str = "train", labels: np.ndarray | None = None,
    classes: tuple[str, ...] | None = None, condition: np.ndarray | None = None,
) -> Dataset:  # fmt: skip
    """A data set of arrays as they come from a file."""
    x, kind = as_examples(x, options, name)
    if kind == "image":
        x = _as_asked(x, options, name)
    codes, classes = (None, ()) if labels is None else encode(labels, f"{name}, labels", classes)
    levels = {"b": 2}.get(x.dtype.kind, 256 if x.dtype == np.uint8 else None)
    ids = torch.arange(len(x)) + SPLIT_IDS[split]
    return Dataset(x, codes, _vectors(condition, name), name, kind, classes=classes, levels=levels, ids=ids)


def from_arrays(
    x: np.ndarray | Tensor, labels: np.ndarray | Tensor | None = None, *, options: DataOptions | None = None,
    name: str = "array",
) -> Dataset:  # fmt: skip
    """A data set of arrays in memory, understood as a .npy file of them would be.

    >>> from_arrays(np.zeros((5, 28, 28), np.uint8)).event_shape
    (1, 28, 28)

    Raises:
        DataError: not (N,), (N,D), (N,H,W) or (N,C,H,W) real numbers, or labels that aren't one each.
    """
    values = _numpy(x)
    refuse_types(values.dtype, name)
    return dataset_of(values, options or DataOptions(), name, labels=None if labels is None else _numpy(labels))


def _numpy(x: np.ndarray | Tensor) -> np.ndarray:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def _as_asked(x: np.ndarray, options: DataOptions, name: str) -> np.ndarray:
    """Grey instead of colour, as for a folder of images; arrays are never resized."""
    if options.size and x.shape[2:] != (options.size[0], options.size[-1]):
        raise DataError(f"{name}: images of {x.shape[2:]}, and data.size={list(options.size)}; arrays aren't resized")
    if not options.grayscale or x.shape[1] != 3:
        return x
    if isinstance(x, np.memmap):
        raise DataError(f"{name}: too large to become grey in memory; raise data.memory, or save it in grey")
    grey = np.einsum("nchw,c->nhw", x, np.array([0.299, 0.587, 0.114]), dtype=np.float64)[:, None]
    return grey.round().astype(x.dtype) if x.dtype.kind in "iu" else grey.astype(x.dtype)


def _vectors(condition: np.ndarray | None, name: str) -> Tensor | None:
    if condition is None:
        return None
    if condition.ndim not in (1, 2) or condition.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: condition of shape {condition.shape} and type {condition.dtype}, expected (N, c) numbers"
        )
    return torch.from_numpy(condition.astype(np.float32).reshape(len(condition), -1))


def load_npy(path: Path, options: DataOptions) -> Dataset:
    """The array of a .npy file; above ``data.memory`` it stays on disk."""
    expect(path, ".npy")
    with parsing(path, ".npy file"):
        with path.open("rb") as file:
            refuse_types(_header_of(file)[1], str(path))
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    small = mapped.size * max(4, mapped.dtype.itemsize) <= options.budget
    return dataset_of(np.asarray(mapped) if small else mapped, options, str(path))


def refuse_types(dtype: np.dtype[np.generic], name: str) -> None:
    """Refuses arrays of Python objects, text, times, records and complex numbers."""
    if dtype.hasobject:
        raise DataError(f"{name} is an object array, which is a pickle: {WHY_NO_PICKLE}; save it as a number type")
    if dtype.kind not in "biuf":
        raise DataError(f"{name} holds {dtype}, expected real numbers; convert it")


def _header_of(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type that a .npy file states."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


class Archive:
    """The arrays of a .npz file, by name; each is checked against its header before anything is allocated.

    Raises:
        DataError: not a zip archive, too many entries, names outside the archive, or entries that are no arrays.
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        expect(path, ".npz")
        self.path, self.options = path, options
        with parsing(path, ".npz file"), zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if len(entries) > LIMITS.archive_entries:
            raise DataError(f"{path}: {len(entries)} entries, expected at most {LIMITS.archive_entries} arrays")
        self.entries = {e.filename.removesuffix(".npy"): e for e in entries if e.filename.endswith(".npy")}
        if not self.entries:
            raise DataError(f"{path} holds no arrays, only {', '.join(e.filename for e in entries[:5]) or 'nothing'}")

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self.entries)

    def read(self, key: str) -> np.ndarray:
        """The array ``key``.

        Raises:
            DataError: no such array, a pickle, too large for ``data.memory``, or damaged.
        """
        if key not in self.entries:
            raise DataError(f"{self.path}: no array {key!r}{nearest(key, self.keys)}; it has {', '.join(self.keys)}")
        where = f"{self.path}, array {key!r}"
        with parsing(self.path, ".npz file", where), zipfile.ZipFile(self.path) as archive:
            self._check_header(archive, key, where)
            with archive.open(self.entries[key]) as member:
                return npy.read_array(member, allow_pickle=False)

    def _check_header(self, archive: zipfile.ZipFile, key: str, where: str) -> None:
        entry = self.entries[key]
        with archive.open(entry) as member:
            shape, dtype = _header_of(member)
            header = member.tell()
        if dtype.hasobject:
            refuse_types(dtype, where)
        size = math.prod(shape) * dtype.itemsize
        if header + size != entry.file_size:
            raise DataError(
                f"{where}: {entry.file_size} bytes, but its header says {header + size}; save the file again"
            )
        if max(size, math.prod(shape) * 4) > self.options.budget:
            raise DataError(
                f"{where}: {size / 2**20:.0f} MiB, more than data.memory={self.options.memory}; save it as .npy, "
                "which can stay on disk, or raise data.memory"
            )


def splits_of_npz(archive: Archive, key: str | None) -> Mapping[str, str]:
    """Which array holds which split.

    Raises:
        DataError: several arrays and none of the known names.
    """
    if key is not None:
        archive.read(key) if key not in archive else None
        return {"train": key}
    found = {split: f"x_{split}" for split in SPLITS if f"x_{split}" in archive}
    if found:
        return found
    only = [k for k in ("x",) if k in archive] or list(archive.keys)
    if len(only) > 1:
        raise DataError(
            f"{archive.path}: several arrays ({', '.join(archive.keys)}), none named x or x_train; "
            f"say which, e.g. {archive.path}:{only[0]}"
        )
    return {"train": only[0]}


def load_npz(path: Path, key: str | None, options: DataOptions, split: str) -> Dataset:
    """The array of ``split`` (or the one named) with its labels and condition, found by name."""
    archive = Archive(path, options)
    splits = splits_of_npz(archive, key)
    x = archive.read(splits[split])
    refuse_types(x.dtype, f"{path}, array {splits[split]!r}")
    labels, classes = _labels(archive, splits, split, options)
    condition = None
    if options.condition not in ("none", "labels"):
        condition = archive.read(_beside(archive, options.condition, split))
    name = str(path) if len(splits) == 1 and key is None else f"{path}:{splits[split]}"
    return dataset_of(x, options, name, split, labels, classes, condition)


def _beside(archive: Archive, base: str, split: str) -> str:
    return f"{base}_{split}" if f"{base}_{split}" in archive else base


def _labels(
    archive: Archive, splits: Mapping[str, str], split: str, options: DataOptions
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Labels of a split, and the classes of all splits, so that codes mean the same in each."""
    keys = {s: _label_key(archive, x, s, options.labels) for s, x in splits.items()}
    if keys[split] not in archive:
        if options.labels is not None:
            archive.read(keys[split])
        return None, None
    arrays = {s: archive.read(k) for s, k in keys.items() if k in archive}
    values = np.unique(np.concatenate([a.reshape(-1) for a in arrays.values()]))
    return arrays[split], encode(values, f"{archive.path}, labels")[1]


def _label_key(archive: Archive, x_key: str, split: str, named: str | None) -> str:
    return _beside(archive, named, split) if named is not None else "y" + x_key.removeprefix("x")
