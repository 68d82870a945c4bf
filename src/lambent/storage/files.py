"""Files that are either whole or absent, and one error for storage that doesn't take them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from lambent.errors import StorageError

TEMPORARY = ".tmp-"
TRASH = ".trash-"
PROBE_BYTES = 4096
STALE_SECONDS = 3600.0

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, ask for more, or choose another folder"),
    errno.EACCES: ("no permission to write", "make the folder writable or choose another"),
    errno.EPERM: ("no permission to write", "make the folder writable or choose another"),
    errno.EROFS: ("the file system is read-only", "choose a folder on a writable one"),
}


def free_bytes(path: Path) -> int | None:
    """Bytes free where ``path`` is or would be; None where the system doesn't say."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def storage_error(error: OSError, path: Path, bytes_needed: int) -> StorageError:
    """The typed error for a failed write: path, bytes needed, bytes free, and what to do."""
    reason, fix = _REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another folder"))
    free = free_bytes(path)
    space = f"{bytes_needed} bytes needed, {'an unknown number' if free is None else free} free"
    typed = StorageError(f"{error.filename or path}: {reason} ({space}); {fix}")
    typed.errno = error.errno
    return typed


@contextlib.contextmanager
def storage_errors(path: Path, bytes_needed: int) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError that names the file and the bytes needed.

    Raises:
        StorageError: the block raised an OSError (disk full, quota, permission, read-only, ...).
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path, bytes_needed) from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; ``os.write`` alone may write fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(path: Path, data: bytes) -> None:
    """Create ``path``, which must not exist, with ``data`` and wait until the disk has it (OSError if it doesn't)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries; without it a rename can be lost with the power."""
    if os.name == "nt":  # Windows can't open folders, and journals renames itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, durably; one that exists is left as it is."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    fsync_folder(folder.parent)


def atomic_write(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that a reader, or the next start after a crash, finds the old or the new whole.

    Raises:
        StorageError: the folder doesn't take it; ``path`` is then unchanged.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> atomic_write(folder / "evaluation.json", b"{}")
    >>> [p.name for p in folder.iterdir()]
    ['evaluation.json']
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    with storage_errors(path, len(data)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            write_file(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_folder(path.parent)


def write_out(path: Path, data: bytes) -> None:
    """`atomic_write` into a folder that is made where it is missing.

    Raises:
        StorageError: the folder can't be made, or doesn't take it.
    """
    with storage_errors(path, len(data)):
        make_folder(path.parent)
    atomic_write(path, data)


def probe_writable(folder: Path, bytes_needed: int) -> None:
    """Make ``folder`` and show, before any work is done, that it takes ``bytes_needed`` bytes.

    A file of that size is reserved and removed, which also meets quotas that the free space doesn't show.

    Raises:
        StorageError: it doesn't; the message names the path, the bytes needed and the bytes free.
    """
    probe = folder / f"{TEMPORARY}probe-{os.getpid()}"
    with storage_errors(folder, bytes_needed):
        make_folder(folder)
        free = free_bytes(folder)
        if free is not None and free < bytes_needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        try:
            write_file(probe, bytes(PROBE_BYTES))
            _reserve(probe, bytes_needed)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(probe)


def _reserve(path: Path, size: int) -> None:
    if size <= 0 or not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; one that isn't there is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def remove_stale_files(folder: Path) -> None:
    """Remove what writes that were cut off left in ``folder``; a fresh one may belong to a living process."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    os.unlink(path)
