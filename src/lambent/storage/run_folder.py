"""A run is a folder: its files, its lock, its recipe, its environment."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import tomllib
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from lambent.errors import ConfigError, StorageError
from lambent.storage.files import TEMPORARY, atomic_write, make_folder, remove_stale_files, storage_errors
from lambent.storage.json import from_json, to_json
from lambent.storage.toml import to_toml

LOCK = ".lock"
OWNER = ".owner.json"
FIRST_STAGE = "autoencoder"
"""The folder, inside a run of two stages, of the run that its first stage is."""


class RunFolder:
    """The paths of a run, and the right to write to it.

    Making one touches nothing; `claim` takes the folder for a training, `release` or the end of a ``with`` gives it
    back. The lock is the operating system's: it goes with the process, however that ends.

    Args:
        path: the folder; it need not exist yet.

    >>> import tempfile
    >>> run = RunFolder(Path(tempfile.mkdtemp()) / "run")
    >>> with run:
    ...     resuming = run.claim()
    ...     run.write_recipe({"recipe": "vae", "latent": 2})
    >>> resuming, run.is_run, run.read_recipe()
    (False, True, {'recipe': 'vae', 'latent': 2})
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "log.txt"
        self.environment = self.path / "environment.json"
        self.evaluation = self.path / "evaluation.json"
        self.report = self.path / "report.html"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self._lock: filelock.BaseFileLock | None = None

    @property
    def is_run(self) -> bool:
        """Whether a training has begun here: there is a recipe."""
        return self.recipe.is_file()

    def claim(self, *, resume: bool = False) -> bool:
        """Make the folder if need be, lock it against other processes, and clear what a crash left in it.

        Write the recipe first of all files: the folder counts as a run from then on.

        Args:
            resume: go on with the run that is there, if there is one.

        Returns:
            Whether there is a run to go on with.

        Raises:
            ConfigError: the folder holds a run (and not ``resume``), or something else, or another process has it.
            StorageError: the folder can't be made or written.
        """
        self._refuse_foreign()
        with storage_errors(self.path, 0):
            make_folder(self.path)
        self._acquire()
        try:
            self.require_free(resume=resume)
            self._clear()
        except BaseException:
            self.release()
            raise
        return self.is_run

    def require_free(self, *, resume: bool = False) -> None:
        """Refuse a folder that `claim` would, other processes aside; touches nothing.

        Raises:
            ConfigError: the folder holds a run (and not ``resume``), or something else.
        """
        self._refuse_foreign()
        if self.is_run and not resume:
            raise ConfigError(f"{self.path}: holds a run already; continue it with --resume, or choose another --out")

    def _refuse_foreign(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: found a file, expected a folder or nothing; choose another --out")
        if not self.path.is_dir() or self.is_run:
            return
        with storage_errors(self.path, 0):
            names = sorted(entry.name for entry in self.path.iterdir())
        foreign = [name for name in names if name not in (LOCK, OWNER, FIRST_STAGE) and not name.startswith(TEMPORARY)]
        if foreign:
            listed = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise ConfigError(f"{self.path}: found {listed}, expected a run or an empty folder; choose another --out")

    def _acquire(self) -> None:
        lock = filelock.FileLock(self.path / LOCK, timeout=0, thread_local=False)
        with storage_errors(self.path / LOCK, 0):
            try:
                lock.acquire()
            except filelock.Timeout:
                raise ConfigError(
                    f"{self.path}: {self._owner()} is training here; wait, or choose another --out"
                ) from None
            except NotImplementedError as error:
                raise StorageError(f"{self.path}: this file system has no locks; choose a folder on another") from error
        self._lock = lock
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        atomic_write(self.path / OWNER, (json.dumps(owner) + "\n").encode())

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / OWNER).read_bytes())
            return f"process {int(owner['pid'])} on {str(owner['host'])[:100]!r}"
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"

    def _clear(self) -> None:
        from lambent.storage import checkpoint

        remove_stale_files(self.path)
        checkpoint.clean(self.path)

    def release(self) -> None:
        """Give up the lock; without one, nothing happens."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path / OWNER)
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def write_recipe(self, values: Mapping[str, Any]) -> None:
        """Write ``recipe.toml``: every value in force, so that the run can be repeated from it alone."""
        atomic_write(self.recipe, to_toml(values).encode())

    def read_recipe(self) -> dict[str, Any]:
        """The values of ``recipe.toml``.

        Raises:
            ConfigError: there is none (this is no run), or it isn't TOML.
        """
        try:
            return tomllib.loads(self.recipe.read_bytes().decode())
        except OSError as error:
            raise ConfigError(f"{self.recipe}: {error.strerror or error}; expected the folder of a run") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.recipe}: not valid TOML: {' '.join(str(error).split())[:200]}") from error

    def write_json(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write one of the run's JSON files (environment, evaluation); non-finite floats as "nan", "inf", "-inf"."""
        atomic_write(path, (json.dumps(to_json(values, path.stem), indent=1) + "\n").encode())

    def read_json(self, path: Path) -> dict[str, Any]:
        """What `write_json` wrote.

        Raises:
            StorageError: the file can't be read or isn't a JSON object.
        """
        try:
            return dict(from_json(json.loads(path.read_bytes())))
        except OSError as error:
            raise StorageError(f"{path}: can't be read: {error.strerror or error}; expected a file of a run") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise StorageError(f"{path}: not a JSON object; remove it and make it anew") from error


def environment(device: str, threads: int) -> dict[str, Any]:
    """What the bytes of a run depend on besides its recipe: versions, platform, processors, threads, device."""
    import torch

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cuda = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "lambent": version("lambent"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": processors,
        "threads": threads,
        "device": device,
        "device_name": cuda or platform.processor() or platform.machine(),
    }


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every field in which two nested tables differ, as ``dotted.name: old -> new``.

    >>> difference({"batch": 10, "adam": {"lr": 0.1}}, {"batch": 10, "adam": {"lr": 0.2}, "ema": 0.9})
    ['adam.lr: 0.1 -> 0.2', 'ema: absent -> 0.9']
    """
    return [f"{name}: {before} -> {after}" for name, before, after in _differing(old, new)]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    before, after = dict(_flat(old, "")), dict(_flat(new, ""))
    return [
        (name, _shown(before, name), _shown(after, name))
        for name in [*before, *(name for name in after if name not in before)]
        if _shown(before, name) != _shown(after, name)
    ]


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [(f"{prefix}{key}", value)]
        )
    return found


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    value = values[name]
    return repr(list(value) if isinstance(value, tuple) else value)


def require_same(old: Mapping[str, Any], new: Mapping[str, Any], what: str, *, allowed: Collection[str] = ()) -> None:
    """Refuse to go on with a run whose recipe, data or environment changed, except in the fields ``allowed`` names.

    Args:
        old: what the run was begun with.
        new: what it would go on with.
        what: how the message calls it ("recipe.toml", "environment.json").
        allowed: dotted names that may differ; a table's name allows all in it.

    Raises:
        ConfigError: the differences, field by field.
    """
    found = [
        f"{name}: {before} -> {after}"
        for name, before, after in _differing(old, new)
        if not any(name == a or name.startswith(f"{a}.") for a in allowed)
    ]
    if found:
        raise ConfigError(f"{what} differs from the run's own: {'; '.join(found)}; set them back, or start a new run")
