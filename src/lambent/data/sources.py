"""Data by the name of their source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from torch import Tensor

from lambent.data.dataset import Dataset, split_off
from lambent.data.options import DataOptions
from lambent.data.readers.arrays import Archive, from_arrays, load_npy, load_npz, splits_of_npz
from lambent.data.readers.csv import load_csv
from lambent.data.readers.digits import load_digits
from lambent.data.readers.idx import PUBLISHED, load_published
from lambent.data.readers.images import load_folder
from lambent.data.readers.parquet import load_parquet
from lambent.data.readers.single_point import is_point, load_point
from lambent.data.readers.text import load_text
from lambent.data.source_files import content_of, missing
from lambent.errors import ConfigError, DataError
from lambent.settings import nearest

Source = str | Path | np.ndarray | Tensor | Dataset
ARRAYS = "(arrays)"
"""The source's name in a run that was trained on arrays."""
NAMES = ("digits", *PUBLISHED)
_LOADERS = {".npy": load_npy, ".csv": load_csv, ".parquet": load_parquet, ".txt": load_text}
_SUFFIXES = (".npz", *_LOADERS)


def splits_of(source: str, options: DataOptions) -> tuple[str, ...]:
    """The splits a source has, of "train", "valid" and "test".

    >>> splits_of("digits", DataOptions())
    ('train', 'test')
    """
    if source in NAMES or is_point(source):
        return ("train", "test")
    path, key = _path(source)
    return tuple(splits_of_npz(Archive(path, options), key)) if path.suffix.lower() == ".npz" else ("train",)


def load(source: str, *, options: DataOptions | None = None, split: str = "train") -> Dataset:
    """The examples of ``split`` of a source.

    Sources are ``digits``, ``mnist``, ``fashion-mnist`` (train, test), ``point:5,5`` (one example, as both), a ``.npz``
    with x_train, x_valid, x_test (those it has), and, all of it "train": any other ``.npz`` (``file.npz:key`` names an
    array), ``.npy``, ``.csv``, ``.parquet``, ``.txt``, and folders of images. `split_off` makes a validation set where
    there is none.

    >>> load("digits", options=DataOptions(), split="test").event_shape
    (1, 8, 8)

    Raises:
        DataError: no such source, no such split, or data that can't be used; names what and where.
        StorageError: a file that can't be read.
    """
    options = options or DataOptions()
    have = splits_of(source, options)
    if split not in have:
        raise DataError(f"{source} has no {split!r} split; it has {', '.join(have)}")
    if not source.lower().endswith((".csv", ".parquet")):
        _refuse_table_options(source, options)
    if source == "digits":
        return load_digits(split)
    if is_point(source):
        return load_point(source)
    if source in PUBLISHED:
        return load_published(PUBLISHED[source], split)
    path, key = _path(source)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return load_npz(path, key, options, split)
    return load_folder(path, options) if path.is_dir() else _LOADERS[suffix](path, options)


def training_sets(source: str, *, options: DataOptions | None = None) -> tuple[Dataset, Dataset | None]:
    """Training and validation set of a source: its own "valid" where it has one, else a part split off its "train".

    None for the validation set where ``data.valid_fraction`` is 0, or there is one example. The test set stays unseen.

    >>> [len(part) for part in training_sets("digits")]
    [1293, 144]
    """
    options = options or DataOptions()
    train = load(source, options=options)
    if "valid" in splits_of(source, options):
        return train, load(source, options=options, split="valid")
    return split_off(train, options.valid_fraction, options.split_seed)


def evaluation_set(source: str, *, options: DataOptions | None = None) -> Dataset:
    """The test set of a source that has one, else all of it: for a source named for evaluation."""
    options = options or DataOptions()
    return load(source, options=options, split="test" if "test" in splits_of(source, options) else "train")


def _refuse_table_options(source: str, options: DataOptions) -> None:
    for option in ("categorical", "counts", "drop", "text"):
        if getattr(options, option):
            raise ConfigError(f"data.{option} names columns of a table, and {source} is none; leave it out")


def _path(source: str) -> tuple[Path, str | None]:
    """The file or folder of a source, and the key after ``.npz:``."""
    keyed = re.fullmatch(r"(.+\.npz):(.+)", source, re.IGNORECASE | re.DOTALL)
    path = Path(keyed[1] if keyed else source).expanduser()
    if not path.exists() and not path.is_symlink():
        raise _unknown(source, path)
    if path.is_dir() or path.suffix.lower() in _SUFFIXES:
        return path, keyed[2] if keyed else None
    found = content_of(path)
    raise DataError(
        f"{path}: {found.removeprefix('.')} content under suffix {path.suffix or 'none'!r}; expected a folder "
        f"of images or a file named {', '.join(_SUFFIXES)}"
    )


def _unknown(source: str, path: Path) -> DataError:
    if path.suffix or path.parent != Path():
        return missing(path)
    return DataError(
        f"data source {source!r} is not known{nearest(source, NAMES)}; known: {', '.join(NAMES)}, or a path"
    )


def dataset_of(source: Source, options: DataOptions, split: str) -> Dataset:
    """A source's name, an array or a tensor as a data set."""
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, str | Path):
        return from_arrays(source, options=options)
    if split == "train":
        return load(str(source), options=options, split=split)
    return evaluation_set(str(source), options=options)


def held_out(source: str, options: DataOptions) -> Dataset:
    """What the training source keeps from training: its test split, else the part held out for validation.

    Raises:
        ConfigError: the run was trained on arrays, or nothing was held out.
    """
    if source == ARRAYS:
        raise ConfigError("this run was trained on arrays; give the data to measure it on")
    if "test" in splits_of(source, options):
        return evaluation_set(source, options=options)
    valid = training_sets(source, options=options)[1]
    if valid is None:
        raise ConfigError(f"{source} has no test split and nothing was held out of it; name the data to use")
    return valid
