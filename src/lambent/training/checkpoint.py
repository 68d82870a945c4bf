"""Checkpoints: ``checkpoints/NNNNNN/{model,optimizer,...}.safetensors, state.json, manifest.json``.

A checkpoint is written into a folder of a temporary name, every file and folder is synced, and one rename makes it
visible: a crash at any moment leaves the old one or the new one whole. The manifest holds the size and SHA-256 of each
file and of itself, so that a changed bit anywhere is seen before anything is parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lambent.errors import CheckpointError, ConfigError, LambentError
from lambent.training.files import (
    TEMPORARY,
    TRASH,
    fsync_folder,
    make_folder,
    remove_tree,
    storage_errors,
    write_file,
)
from lambent.training.plain import from_plain, to_plain
from lambent.training.tensor_files import dump_tensors, mismatches, non_finite, parse_tensors, tensor_bytes

FORMAT = 1
FOLDER = "checkpoints"
ASIDE = ".old-"
MANIFEST = "manifest.json"
STATE = "state.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 64 << 20

_GROUP = re.compile(r"[a-z][a-z0-9_]*")
_FILE = re.compile(r"[a-z][a-z0-9_]*\.(safetensors|json)")
_STEP = re.compile(r"[0-9]{6,18}")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: ``tensors`` by file and name, on the CPU; ``skipped`` says which newer ones were damaged."""

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
    encoded = canonical(to_plain(state, "state"))
    for group in tensors:
        if not _GROUP.fullmatch(group):
            raise ConfigError(f"checkpoint file {group!r}: expected lower-case letters, digits and underscores")
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


def step_name(step: int) -> str:
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 10**18:
        raise ConfigError(f"checkpoint step {step!r}: expected a whole number from 0")
    return f"{step:06d}"


def _write_files(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: bytes) -> None:
    entries: dict[str, dict[str, Any]] = {}

    def write(name: str, data: bytes) -> None:
        write_file(folder / name, data)
        entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    for group, members in tensors.items():
        write(f"{group}.safetensors", dump_tensors(members, f"checkpoint file {group}"))
    write(STATE, state)
    content = {"files": entries, "format": FORMAT, "lambent": version("lambent"), "step": step}
    write_file(folder / MANIFEST, canonical(content | {"sha256": hashlib.sha256(canonical(content)).hexdigest()}))
    fsync_folder(folder)


def _publish(temporary: Path, target: Path) -> None:
    """Rename into place. One of the same step is set aside first, under a name that loaders know, so none is lost."""
    aside = target.withstep_name(f"{ASIDE}{target.name}")
    replaced = target.exists()
    if replaced:
        remove_tree(aside)
        os.rename(target, aside)
    os.rename(temporary, target)
    fsync_folder(target.parent)
    if replaced:
        _discard(aside)


def _discard(path: Path) -> str:
    """Remove a folder as well as it goes; why it didn't, else nothing."""
    try:
        remove_tree(path)
    except OSError as error:
        return f"{path}: not removed: {error.strerror or error}"
    return ""


def load(
    path: Path, names: Iterable[str] | None = None, *, finite: Collection[str] = (), skipped: tuple[str, ...] = ()
) -> Checkpoint:
    """Read one checkpoint, after every hash in its manifest was found right.

    Args:
        path: the checkpoint's folder (``run/checkpoints/NNNNNN``).
        names: which files' tensors to read ("model", "ema", ...); all by default.
        finite: files whose tensors must hold no NaN and no infinity; safetensors itself doesn't look.
        skipped: passed on to the result.

    Raises:
        CheckpointError: absent, damaged, of a newer format, without one of ``names``, or not finite where it must be.
    """
    path = Path(path)
    try:
        manifest = verified_manifest(path)
        state = from_plain(parse_json(read_file(path / STATE, MAX_STATE_BYTES), path / STATE))
        groups = _groups(manifest, names, path)
        tensors = {name: parse_tensors(read_file(file), str(file)) for name, file in groups.items()}
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror or error}; use another checkpoint") from error
    for name in finite:
        _require_finite(tensors.get(name, {}), f"{path / name}.safetensors")
    return Checkpoint(manifest["step"], tensors, state, path, skipped)


def _groups(manifest: dict[str, Any], names: Iterable[str] | None, path: Path) -> dict[str, Path]:
    present = [name.removesuffix(".safetensors") for name in manifest["files"] if name.endswith(".safetensors")]
    wanted = present if names is None else list(names)
    absent = [name for name in wanted if name not in present]
    if absent:
        raise CheckpointError(f"{path}: holds no {', '.join(absent)}; it holds {', '.join(present) or 'no tensors'}")
    return {name: path / f"{name}.safetensors" for name in wanted}


def _require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    bad = non_finite(tensors)
    if bad:
        raise CheckpointError(f"{where}: NaN or infinite values in {', '.join(bad)}; use an earlier checkpoint")


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run ``folder``, oldest first, verified or not; empty if there are none."""
    return sorted({step for step, _ in _candidates(folder)})


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Newest first by number; one set aside stands behind that which replaced it."""
    root = Path(folder) / FOLDER
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        name = path.name.removeprefix(ASIDE)
        if _STEP.fullmatch(name) and name == step_name(int(name)):
            found.append((int(name), path.name == name, path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def newest(folder: Path, names: Iterable[str] | None = None, *, finite: Collection[str] = ()) -> Checkpoint:
    """The newest checkpoint of a run ``folder`` that verifies; ``skipped`` holds one line for each newer damaged one.

    Args:
        folder: the run folder.
        names: which files' tensors to read; all by default.
        finite: files whose tensors must hold no NaN and no infinity.

    Raises:
        CheckpointError: there is none, or none that verifies (the message holds each one's reason).
    """
    wanted = None if names is None else tuple(names)
    skipped: tuple[str, ...] = ()
    for _, path in _candidates(folder):
        try:
            return replace(load(path, wanted, finite=finite), skipped=skipped)
        except LambentError as error:
            skipped += (str(error),)
    where = Path(folder) / FOLDER
    if not skipped:
        raise CheckpointError(f"{where}: found no checkpoint, expected NNNNNN/{MANIFEST}; train first, or name a run")
    raise CheckpointError(f"{where}: none of {len(skipped)} checkpoints verifies: {' | '.join(skipped)}")


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
    candidates = [(step, path) for step, path in _candidates(folder) if not path.name.startswith(ASIDE)]
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
    trash = path.withstep_name(f"{TRASH}{path.name}")
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
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name.startswith((TEMPORARY, TRASH)):
            problems.append(_discard(path))
        elif path.name.startswith(ASIDE):
            problems.append(_restore(path))
    return tuple(problem for problem in problems if problem)


def _restore(aside: Path) -> str:
    target = aside.withstep_name(aside.name.removeprefix(ASIDE))
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
