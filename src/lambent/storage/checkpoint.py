"""Checkpoints: ``checkpoints/NNNNNN/{model,optimizer,...}.safetensors, state.json, manifest.json``.

A checkpoint is written into a folder of a temporary name, every file and folder is synced, and one rename makes it
visible: a crash at any moment leaves the old one or the new one whole. The manifest holds the size and SHA-256 of each
file and of itself, so that a changed bit anywhere is seen before anything is parsed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lambent.errors import CheckpointError, ConfigError
from lambent.storage.files import (
    TEMPORARY,
    TRASH,
    fsync_folder,
    make_folder,
    remove_tree,
    storage_errors,
    write_file,
)
from lambent.storage.json import from_exact_json, to_exact_json
from lambent.storage.manifest import (
    MANIFEST,
    MAX_STATE_BYTES,
    STATE,
    canonical,
    file_entry,
    manifest_bytes,
    read_json,
    step_name,
    step_of,
    verified,
)
from lambent.storage.tensors import dump_tensors, mismatches, non_finite, parse_tensors, tensor_bytes

FOLDER = "checkpoints"
ASIDE = ".old-"
SUFFIX = ".safetensors"

_GROUP = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: tensors by file and name, on the CPU.

    ``skipped`` holds one line for each newer checkpoint that was damaged.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    path: Path
    skipped: tuple[str, ...] = ()


def size(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes that a checkpoint of these tensors takes, to within its headers."""
    return sum(tensor_bytes(group) for group in tensors.values())


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of ``step`` into the run ``folder``; on return the disk has it.

    Args:
        folder: the run folder.
        step: optimisation steps done, at least 0.
        tensors: for each file ("model", "optimizer", "ema", ...) its tensors by name.
        state: whatever else resuming needs: text keys; None, bool, int, float, text, lists and such tables as values.

    Returns:
        The checkpoint's folder. One of the same step is replaced.

    Raises:
        ConfigError: a name or value that can't be stored.
        StorageError: the disk doesn't take it; all earlier checkpoints are intact.

    >>> import tempfile, torch
    >>> run = Path(tempfile.mkdtemp())
    >>> save(run, 20, {"model": {"weight": torch.ones(2)}}, {"epoch": 1}).name
    '000020'
    >>> found = newest(run)
    >>> found.step, found.tensors["model"]["weight"].tolist(), found.state
    (20, [1.0, 1.0], {'epoch': 1})
    """
    root, name = Path(folder) / FOLDER, step_name(step)
    encoded = canonical(to_exact_json(state, "state"))
    _require_names(tensors)
    temporary = root / f"{TEMPORARY}{name}"
    with storage_errors(root, size(tensors) + len(encoded)):
        make_folder(root)
        remove_tree(temporary)
        os.mkdir(temporary)
        try:
            _write_files(temporary, step, tensors, encoded)
            _publish(temporary, root / name)
        except BaseException:
            _discard(temporary)
            raise
    return root / name


def _require_names(groups: Iterable[str]) -> None:
    for group in groups:
        if not _GROUP.fullmatch(group):
            raise ConfigError(f"checkpoint file {group!r}: expected lower-case letters, digits and underscores")


def _write_files(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: bytes) -> None:
    entries = {}
    for group, members in tensors.items():
        name = f"{group}{SUFFIX}"
        data = dump_tensors(members, f"checkpoint file {name}")
        write_file(folder / name, data)
        entries[name] = file_entry(data)
    write_file(folder / STATE, state)
    entries[STATE] = file_entry(state)
    write_file(folder / MANIFEST, manifest_bytes(step, entries))
    fsync_folder(folder)


def _publish(temporary: Path, target: Path) -> None:
    """Rename into place. One of the same step is set aside first, under a name that loaders know, so none is lost."""
    aside = target.with_name(f"{ASIDE}{target.name}")
    replaced = target.exists()
    if replaced:
        remove_tree(aside)
        os.rename(target, aside)
    os.rename(temporary, target)
    fsync_folder(target.parent)
    if replaced:
        _discard(aside)


def _discard(path: Path) -> str:
    """Remove a folder if it can be removed; else the reason, as one line."""
    try:
        remove_tree(path)
    except OSError as error:
        return f"{path}: not removed: {error.strerror or error}"
    return ""


def load(path: Path, names: Iterable[str] | None = None, *, finite: Collection[str] = ()) -> Checkpoint:
    """Read one checkpoint, after every hash in its manifest was found right.

    Args:
        path: the checkpoint's folder (``RUN/checkpoints/NNNNNN``).
        names: which files' tensors to read ("model", "ema", ...); all by default.
        finite: files whose tensors must hold no NaN and no infinity; safetensors itself doesn't look.

    Raises:
        CheckpointError: absent, damaged, of a newer format, without one of ``names``, or not finite where it must be.
    """
    path = Path(path)
    try:
        manifest = verified(path)
        state = _state(path / STATE)
        files = _tensor_files(manifest, names, path)
        tensors = {name: parse_tensors(file.read_bytes(), str(file)) for name, file in files.items()}
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}; use another checkpoint") from error
    for name in finite:
        _require_finite(tensors.get(name, {}), f"{path / name}{SUFFIX}")
    return Checkpoint(manifest["step"], tensors, state, path)


def _state(file: Path) -> dict[str, Any]:
    state = from_exact_json(read_json(file, MAX_STATE_BYTES))
    if not isinstance(state, dict):
        raise CheckpointError(f"{file}: expected a table; use another checkpoint")
    return state


def _tensor_files(manifest: Mapping[str, Any], names: Iterable[str] | None, path: Path) -> dict[str, Path]:
    present = [name.removesuffix(SUFFIX) for name in manifest["files"] if name.endswith(SUFFIX)]
    wanted = present if names is None else list(names)
    absent = [name for name in wanted if name not in present]
    if absent:
        raise CheckpointError(f"{path}: holds no {', '.join(absent)}; it holds {', '.join(present) or 'no tensors'}")
    return {name: path / f"{name}{SUFFIX}" for name in wanted}


def _require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    bad = non_finite(tensors)
    if bad:
        raise CheckpointError(f"{where}: NaN or infinite values in {', '.join(bad)}; use an earlier checkpoint")


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest, reading piece by piece and parsing none of it.

    Raises:
        CheckpointError: absent or damaged; the message says which file, what was found, what was expected.
    """
    try:
        verified(Path(path))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}; use another checkpoint") from error


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run ``folder``, oldest first, verified or not; empty if there are none."""
    return sorted({step for step, _ in _candidates(folder)})


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is, or would be."""
    return Path(folder) / FOLDER / step_name(step)


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Newest first by number; one set aside stands behind that which replaced it."""
    root = Path(folder) / FOLDER
    found = []
    for path in _entries(root):
        step = step_of(path.name.removeprefix(ASIDE))
        if step is not None:
            found.append((step, not path.name.startswith(ASIDE), path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def _entries(root: Path) -> list[Path]:
    try:
        return sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{root}: can't be read: {error.strerror or error}; make it readable") from error


def newest(folder: Path, names: Iterable[str] | None = None, *, finite: Collection[str] = ()) -> Checkpoint:
    """The newest checkpoint of a run ``folder`` that verifies.

    Args:
        folder: the run folder.
        names: which files' tensors to read; all by default.
        finite: files whose tensors must hold no NaN and no infinity.

    Returns:
        The checkpoint, with one line in ``skipped`` for each newer one that was damaged.

    Raises:
        CheckpointError: there is none, or none that verifies (the message holds each one's reason).
    """
    wanted = None if names is None else tuple(names)
    skipped: tuple[str, ...] = ()
    for _, path in _candidates(folder):
        try:
            return replace(load(path, wanted, finite=finite), skipped=skipped)
        except CheckpointError as error:
            skipped += (str(error),)
    where = Path(folder) / FOLDER
    if not skipped:
        raise CheckpointError(f"{where}: found no checkpoint, expected NNNNNN/{MANIFEST}; train first, or name a run")
    raise CheckpointError(f"{where}: no checkpoint verifies, of {len(skipped)} found: {' | '.join(skipped)}")


def best(folder: Path) -> Checkpoint:
    """The checkpoint of the best validation bound that the newest one remembers; the newest, if that is damaged.

    Raises:
        CheckpointError: there is none that verifies.
    """
    last = newest(folder)
    step = int(last.state.get("progress", {}).get("best_step", -1))
    if step < 0 or step == last.step:
        return last
    try:
        return load(path_of(folder, step))
    except CheckpointError as error:
        return replace(last, skipped=(*last.skipped, str(error)))


def prune(folder: Path, keep: int = 2, protect: Collection[int] = ()) -> tuple[str, ...]:
    """Remove all but the ``keep`` newest checkpoints that verify and those of the steps in ``protect`` (the best).

    A checkpoint leaves by a rename to a name that no loader looks at, so a crash on the way harms none. What can't be
    removed stays, and is reported rather than raised: training goes on.

    Returns:
        One line for each that could not be removed.

    Raises:
        ConfigError: ``keep`` below 2; one damaged checkpoint would then be the end of the run.
    """
    if keep < 2:
        raise ConfigError(f"keep={keep} checkpoints: expected at least 2, so that one damaged is not the end")
    try:
        candidates = [(step, path) for step, path in _candidates(folder) if not path.name.startswith(ASIDE)]
    except CheckpointError as error:
        return (str(error),)
    kept, problems = 0, []
    for step, path in candidates if len(candidates) > keep else ():
        if kept < keep:
            kept += _verifies(path)
        elif step not in protect:
            problems.append(_remove(path))
    return tuple(problem for problem in problems if problem)


def _verifies(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _remove(path: Path) -> str:
    trash = path.with_name(f"{TRASH}{path.name}")
    try:
        remove_tree(trash)
        os.rename(path, trash)
        remove_tree(trash)
    except OSError as error:
        return f"{path}: not removed: {error.strerror or error}"
    return ""


def clean(folder: Path) -> tuple[str, ...]:
    """Remove what crashed saves and purges left in a run ``folder`` (only by the process that holds its lock).

    Returns:
        One line for each that could not be removed.
    """
    root = Path(folder) / FOLDER
    problems = []
    for path in _entries(root):
        if path.name.startswith((TEMPORARY, TRASH)):
            problems.append(_discard(path))
        elif path.name.startswith(ASIDE):
            problems.append(_restore(path))
    return tuple(problem for problem in problems if problem)


def _restore(aside: Path) -> str:
    target = aside.with_name(aside.name.removeprefix(ASIDE))
    if target.exists():
        return _discard(aside)
    try:
        os.rename(aside, target)
    except OSError as error:
        return f"{aside}: not restored: {error.strerror or error}"
    return ""


def apply(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str = "checkpoint", finite: bool = True) -> None:
    """Load ``tensors`` into ``module`` if, and only if, every name, shape and type agrees.

    Args:
        module: receives the values in place.
        tensors: by the names of ``module.state_dict()``.
        where: what the message calls their source.
        finite: refuse NaN and infinity in parameters (buffers may mean them).

    Raises:
        CheckpointError: the exact list of what is missing, extra, or of another shape or type; nothing was loaded.
    """
    problems = mismatches(tensors, module.state_dict())
    if problems:
        fix = "use the recipe that wrote it"
        raise CheckpointError(f"{where}: does not fit {type(module).__name__}: {'; '.join(problems)}; {fix}")
    if finite:
        _require_finite({name: tensors[name] for name, _ in module.named_parameters() if name in tensors}, where)
    module.load_state_dict(dict(tensors))
