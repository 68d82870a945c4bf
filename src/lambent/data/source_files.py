"""Files from outside: opened with typed errors, recognised by content, never unpickled."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lambent.errors import DataError, LambentError, StorageError
from lambent.settings import nearest

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt")
_MAGIC = {
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    b"PAR1": ".parquet",
    b"\x89PNG": "image",
    b"\xff\xd8\xff": "image",
    b"II*\0": "image",
    b"MM\0*": "image",
    b"RIFF": "image",
}
WHY_NO_PICKLE = "loading a pickle runs code that it holds, so lambent never does"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the system's errors on ``path`` into typed ones.

    Raises:
        DataError: it is not there.
        StorageError: it is there and can't be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        raise StorageError(
            f"{path}: can't be read ({error.strerror or error}); check its permissions and type"
        ) from error


@contextmanager
def parsing(path: Path, what: str, name: str = "") -> Iterator[None]:
    """Turns whatever a parser makes of damaged bytes into one typed error.

    Raises:
        DataError: the file is not a whole ``what``.
        StorageError: it can't be read at all.
    """
    with readable(path):
        path.open("rb").close()
    try:
        yield
    except LambentError:
        raise
    except Exception as error:  # the bytes may be anyone's, and parsers raise whatever they please
        why = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        kind = StorageError if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ESTALE) else DataError
        raise kind(f"{name or path}: not a whole {what} ({why}); it may be truncated, save it again") from error


def missing(path: Path) -> DataError:
    """The error for a file that is not there, with its nearest neighbour in the folder."""
    neighbours = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return DataError(f"{path}: no such file or folder{nearest(path.name, neighbours)}")


def content_of(path: Path) -> str:
    """What the file's first bytes say it is: a suffix, "image", "text", or "unknown".

    Raises:
        DataError: it is empty, or holds a pickle (by content or by name).
    """
    with readable(path), path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise DataError(f"{path} is empty (0 bytes); expected data")
    _refuse_pickles(path, head)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "unknown" if b"\0" in head else "text"


def _refuse_pickles(path: Path, head: bytes) -> None:
    binary_pickle = len(head) > 1 and head[0] == 0x80 and head[1] <= 5
    if path.suffix.lower() in _PICKLE_SUFFIXES or binary_pickle or (head.startswith(b"PK") and _is_torch_file(path)):
        raise DataError(f"{path} holds a Python pickle: {WHY_NO_PICKLE}; save arrays by numpy.save or savez")


def _is_torch_file(path: Path) -> bool:
    with parsing(path, "zip archive"), zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())


def expect(path: Path, due: str) -> None:
    """Refuses a file whose content is not what its name says.

    Raises:
        DataError: names both.
    """
    found = content_of(path)
    if found != due:
        raise DataError(
            f"{path}: its content is {_words(found)}, expected {_words(due)}; give the file its true suffix"
        )


def _words(kind: str) -> str:
    return {"image": "an image", "text": "text", "unknown": "of an unknown kind", ".npz": "a zip archive (.npz)"}.get(
        kind, kind
    )
