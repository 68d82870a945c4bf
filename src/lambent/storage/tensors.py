"""Tensors to safetensors bytes and back. What is read may be damaged or hostile; it is never unpickled."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from lambent.errors import CheckpointError, ConfigError

MAX_HEADER_BYTES = 4 << 20  # some 30,000 tensors; the parser takes a kilobyte for each

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive, as torch.save and np.savez write"),
    (b"\x93NUMPY", "a numpy file"),
    (b"\x80", "a pickle"),
)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the tensors' values take, without the header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def dump_tensors(tensors: Mapping[str, Tensor], where: str) -> bytes:
    """The tensors as one safetensors file; the same tensors always give the same bytes.

    Tensors that share memory (tied weights) are written once for each name.

    Raises:
        ConfigError: something that is no dense tensor of a type safetensors knows, or too many tensors.
    """
    try:
        plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        data = safetensors.torch.save(plain)
    except Exception as error:
        raise ConfigError(
            f"{where}: can't be written as safetensors: {_one_line(error)}; give dense tensors"
        ) from error
    header = int.from_bytes(data[:8], "little")
    if header > MAX_HEADER_BYTES:
        raise ConfigError(
            f"{where}: a header of {header} bytes, expected at most {MAX_HEADER_BYTES}; use fewer tensors"
        )
    return data


def parse_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: another kind of file (a pickle, a zip archive), a header too large, truncated, overlapping.
    """
    _check_header(data, where)
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the parser's and torch's own errors: whichever, the file can't be read
        raise CheckpointError(
            f"{where}: not a valid safetensors file: {_one_line(error)}; use another checkpoint"
        ) from error


def _check_header(data: bytes, where: str) -> None:
    # a safetensors file has "{" after the 8 bytes of its header's length, whatever those happen to spell
    size = int.from_bytes(data[:8], "little")
    if len(data) >= 9 and data[8:9] == b"{" and size <= min(MAX_HEADER_BYTES, len(data) - 8):
        return
    for magic, kind in _FOREIGN:
        if data.startswith(magic):
            raise CheckpointError(f"{where}: found {kind}, expected safetensors; nothing is ever unpickled")
    raise CheckpointError(
        f"{where}: found a header of {size} bytes in a file of {len(data)}, expected a safetensors file "
        f"with a header of at most {MAX_HEADER_BYTES}; use another checkpoint"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Each tensor with NaN or infinite values as ``name (how many of how many)``."""
    found = []
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                found.append(f"{name} ({bad} of {tensor.numel()})")
    return found


def mismatches(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Every missing, extra, wrongly shaped or wrongly typed tensor, one text each."""
    missing = [f"missing {name} {_describe(t)}" for name, t in expected.items() if name not in found]
    extra = [f"extra {name} {_describe(t)}" for name, t in found.items() if name not in expected]
    wrong = [
        f"{name} is {_describe(found[name])}, expected {_describe(t)}"
        for name, t in expected.items()
        if name in found and (found[name].shape != t.shape or found[name].dtype != t.dtype)
    ]
    return missing + extra + wrong


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
