"""MNIST and Fashion-MNIST by name: downloaded once, checked, and read from their own idx files.

Y. LeCun, C. Cortes and C. Burges, the MNIST database; H. Xiao, K. Rasul and R. Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from lambent.data.dataset import Dataset
from lambent.data.readers.arrays import SPLIT_IDS
from lambent.data.source_files import parsing, readable
from lambent.errors import DataError, StorageError

Opener = Callable[[str], IO[bytes]]
_LARGEST = 1 << 26
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Published:
    """Files that others host: where, their sha256, and what the classes are called."""

    name: str
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    classes: tuple[str, ...]


_FILES = {"train": "train", "test": "t10k"}
MNIST = Published(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    tuple("0123456789"),
)
FASHION_MNIST = Published(
    "fashion-mnist",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
PUBLISHED = {p.name: p for p in (MNIST, FASHION_MNIST)}


def cache_folder() -> Path:
    """``$LAMBENT_CACHE``, else ``lambent`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own, shared = os.environ.get("LAMBENT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "lambent"


def load_published(published: Published, split: str, opener: Opener | None = None) -> Dataset:
    """The "train" or "test" images of a published set, from the cache or the network.

    Raises:
        DataError: not in the cache and not to be had, with the way by hand; or files that are not the published ones.
    """
    stem = _FILES[split]
    arrays = [
        read_idx(_cached(published, f"{stem}-{what}-ubyte.gz", opener or _open))
        for what in ("images-idx3", "labels-idx1")
    ]
    return Dataset(
        arrays[0][:, None],
        labels=torch.from_numpy(arrays[1].astype(np.int64)),
        name=f"{published.name} ({split})",
        kind="image",
        classes=published.classes,
        levels=256,
        ids=torch.arange(len(arrays[0])) + SPLIT_IDS[split],
    )


def _open(url: str) -> IO[bytes]:
    import urllib.request

    opened: IO[bytes] = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
    return opened


def _cached(published: Published, file: str, opener: Opener) -> Path:
    path = cache_folder() / published.name / file
    if not path.exists():
        _download(published, file, path, opener)
    with readable(path):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != published.sha256[file]:
        raise DataError(
            f"{path}: sha256 {found[:16]}..., expected {published.sha256[file][:16]}...: not the published file; "
            "delete it, to have it fetched"
        )
    return path


def _download(published: Published, file: str, path: Path, opener: Opener) -> None:
    reasons = []
    for mirror in published.mirrors:
        try:
            with opener(mirror + file) as response:
                content = response.read(_LARGEST)
        except OSError as error:  # URLError and timeouts are of this kind
            reasons.append(str(error))
            continue
        if hashlib.sha256(content).hexdigest() == published.sha256[file]:
            _write(path, content)
            return
        reasons.append(f"{mirror} gave another file")
    raise DataError(
        f"{published.name}: {file} can't be downloaded ({'; '.join(dict.fromkeys(reasons))}); put "
        f"{', '.join(published.sha256)} into {path.parent}, or give as source an .npz with x_train, y_train, x_test "
        "and y_test"
    )


def _write(path: Path, content: bytes) -> None:
    """All of the file or nothing, whoever else is writing it."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise StorageError(
            f"{path}: can't be written ({error.strerror or error}); free {len(content)} bytes or set LAMBENT_CACHE to "
            "another folder"
        ) from error


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped idx file as an array of the shape it states.

    Raises:
        DataError: not such a file, or one that is longer or shorter than it states.
    """
    with parsing(path, "gzipped idx file"), gzip.open(path) as file:
        shape = _idx_shape(file, path)
        size = math.prod(shape)
        content = file.read(size + 1) if size <= _LARGEST else b""
    if len(content) != size:
        raise DataError(f"{path}: {len(content)} values, its header says {size}; delete it, to have it fetched")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(file: gzip.GzipFile, path: Path) -> tuple[int, ...]:
    zero, kind, axes = struct.unpack(">HBB", file.read(4))
    if zero != 0 or kind != 8 or not 1 <= axes <= 4:
        raise DataError(f"{path}: not a whole gzipped idx file (another header); delete it, to have it fetched")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", file.read(4 * axes))
    return shape
