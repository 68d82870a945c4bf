"""The manifest of a checkpoint: what each of its files must be, to the last bit, the manifest itself included."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lambent.errors import CheckpointError, ConfigError

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_STATE_BYTES = 64 << 20

_FILE = re.compile(r"[a-z][a-z0-9_]*\.(safetensors|json)")
_STEP = re.compile(r"[0-9]{6,18}")


def canonical(content: Any) -> bytes:
    """The one way to write ``content`` as JSON; anything that reads the same but isn't these bytes was changed."""
    return (json.dumps(content, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def step_name(step: int) -> str:
    """The folder's name: six digits, more from step 1,000,000 on."""
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 10**18:
        raise ConfigError(f"checkpoint step {step!r}: expected a whole number from 0")
    return f"{step:06d}"


def step_of(name: str) -> int | None:
    """The step of a folder's name; None if it isn't one of a checkpoint."""
    return int(name) if _STEP.fullmatch(name) and name == step_name(int(name)) else None


def file_entry(data: bytes) -> dict[str, Any]:
    """What the manifest holds of a file."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def manifest_bytes(step: int, entries: Mapping[str, Any]) -> bytes:
    """The manifest of a checkpoint with these files."""
    content = {"files": dict(entries), "format": FORMAT, "lambent": version("lambent"), "step": step}
    return canonical(content | {"sha256": _digest(content)})


def _digest(content: Any) -> str | None:
    try:
        return hashlib.sha256(canonical(content)).hexdigest()
    except ValueError:  # NaN, which only a damaged manifest holds
        return None


def verified(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in the folder ``path``, once every file was found to be what it says.

    Raises:
        CheckpointError: absent or damaged; the message says which file, what was found, what was expected.
        OSError: a file that can't be read.
    """
    manifest = _read_manifest(path)
    if step_of(path.name) not in (None, manifest["step"]):
        raise CheckpointError(f"{path}: holds step {manifest['step']}; a checkpoint's folder is not to be renamed")
    for name, entry in manifest["files"].items():
        _compare(path / name, entry)
    return manifest


def _compare(file: Path, entry: Mapping[str, Any]) -> None:
    found = _file_size(file)
    if found != entry["bytes"]:
        raise CheckpointError(f"{file}: found {found} bytes, expected {entry['bytes']}; use another checkpoint")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != entry["sha256"]:
        raise CheckpointError(f"{file}: SHA-256 is {digest}, expected {entry['sha256']}; use another checkpoint")


def _file_size(file: Path) -> int:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: not found, expected a file; use another checkpoint") from None
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device would never end
        raise CheckpointError(f"{file}: not a regular file; use another checkpoint")
    return found.st_size


def read_json(file: Path, limit: int) -> Any:
    """The JSON in a file of at most ``limit`` bytes."""
    return _parse(_read(file, limit), file)


def _read(file: Path, limit: int) -> bytes:
    found = _file_size(file)
    if found > limit:
        raise CheckpointError(f"{file}: found {found} bytes, expected at most {limit}; use another checkpoint")
    return file.read_bytes()


def _parse(data: bytes, file: Path) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({type(error).__name__}); use another checkpoint") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not path.is_dir():
        raise CheckpointError(f"{path}: expected a checkpoint's folder (RUN/checkpoints/NNNNNN), found none")
    data = _read(file, MAX_MANIFEST_BYTES)
    manifest = _parse(data, file)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise CheckpointError(f"{file}: not a checkpoint's manifest; use another checkpoint")
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{file}: format {manifest['format']}, this lambent reads up to {FORMAT}; upgrade lambent"
        )
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    # comparing the bytes too finds changes that parsing forgives, such as another kind of white space
    if _digest(content) != manifest.get("sha256") or canonical(manifest) != data:
        raise CheckpointError(f"{file}: doesn't match its own SHA-256; use another checkpoint")
    if not _well_formed(content):
        raise CheckpointError(f"{file}: not a checkpoint's manifest; use another checkpoint")
    return manifest


def _well_formed(content: Mapping[str, Any]) -> bool:
    files, step = content.get("files"), content.get("step")
    if not isinstance(files, dict) or STATE not in files or not isinstance(step, int) or not 0 <= step < 10**18:
        return False
    return all(_FILE.fullmatch(name) and _is_entry(entry) for name, entry in files.items())


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
