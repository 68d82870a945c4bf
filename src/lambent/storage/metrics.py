"""``metrics.jsonl``, one JSON object a line and the same bytes on every repeat, and ``log.txt``, which has the times.

JSON has no NaN and no infinity: they are written as the texts "nan", "inf" and "-inf", and read back as floats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lambent.errors import CheckpointError, DataError, StorageError
from lambent.storage.files import storage_errors, write_all
from lambent.storage.json import from_json, to_json


class _Appender:
    """An open file that only grows; what can't be written is a StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._pending: list[bytes] = []
        with storage_errors(self.path, 0):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def flush(self) -> None:
        """Hand everything written so far to the operating system; a killed process then loses none of it."""
        data = b"".join(self._pending)
        self._pending.clear()
        with storage_errors(self.path, len(data)):
            write_all(self._descriptor, data)

    def close(self) -> None:
        """Flush and close; closing twice is fine."""
        if self._descriptor < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MetricsWriter(_Appender):
    r"""Writes ``metrics.jsonl`` from byte ``offset`` on; what is behind it (of steps to be done again) is cut off.

    Keep `sync`'s offset in the checkpoint: a resumed run then ends in the same bytes as an unbroken one. Lines
    hold no times. Floats are written so that reading gives the same float.

    Args:
        path: the file; made if absent.
        offset: bytes to keep, 0 for a new run.

    Raises:
        CheckpointError: the file is shorter than ``offset`` or has no line end there: it isn't this checkpoint's.
        StorageError: the file can't be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> with MetricsWriter(path) as metrics:
    ...     metrics.write({"step": 1, "elbo": -0.1, "se": float("inf")})
    ...     metrics.sync()
    39
    >>> path.read_text(), read_metrics(path)
    ('{"step": 1, "elbo": -0.1, "se": "inf"}\n', [{'step': 1, 'elbo': -0.1, 'se': inf}])
    """

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        super().__init__(path)
        self.offset = offset
        try:
            with storage_errors(self.path, 0):
                self._cut(offset)
        except BaseException:
            self.close()
            raise

    def _cut(self, offset: int) -> None:
        found = os.fstat(self._descriptor).st_size
        if not 0 <= offset <= found:
            raise CheckpointError(f"{self.path}: found {found} bytes, the checkpoint was saved at {offset}; restore it")
        os.lseek(self._descriptor, max(offset - 1, 0), os.SEEK_SET)
        if offset and os.read(self._descriptor, 1) != b"\n":
            raise CheckpointError(f"{self.path}: no line ends at byte {offset}, where the checkpoint was saved")
        os.ftruncate(self._descriptor, offset)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line; it reaches the file at the next `flush`, `sync` or `close`.

        Raises:
            ConfigError: a value that is not None, bool, int, float, text, or a list or table of those.
        """
        line = json_line(record)
        self._pending.append(line)
        self.offset += len(line)

    def sync(self) -> int:
        """Flush, wait until the disk has it, and return the offset to keep in the checkpoint's state."""
        self.flush()
        with storage_errors(self.path, 0):
            os.fsync(self._descriptor)
        return self.offset


class LogWriter(_Appender):
    """Writes ``log.txt``: lines for people, each with its time; a resumed run goes on below."""

    def write(self, text: str) -> None:
        """Add a line, at once; further lines of ``text`` are indented."""
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        self._pending.append(f"{stamp} {text.rstrip().replace(chr(10), chr(10) + '  ')}\n".encode(errors="replace"))
        self.flush()


def json_line(record: Mapping[str, Any]) -> bytes:
    """``record`` as a line of strict JSON; non-finite floats as "nan", "inf", "-inf"."""
    # in ASCII, so that no text holds what some readers take for the end of a line (U+0085, U+2028)
    return (json.dumps(to_json(record, "metrics"), allow_nan=False) + "\n").encode()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every complete line of ``metrics.jsonl``; a last line that a crash left torn is left out.

    Raises:
        StorageError: the file can't be read.
        DataError: a line before the last that is no JSON object, by its number.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {error.strerror or error}; expected a run's metrics") from error
    return [_record(line, f"{path}, line {i}") for i, line in enumerate(lines[:-1], 1)]


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON; remove the line, or restore the file") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected a JSON object; remove the line, or restore the file")
    return dict(from_json(record))
