"""Every example's numbers: what an evaluation is the mean of, and what runs are compared by, pair by pair."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lambent.evaluation.bounds import Bounds


def each_of(found: Bounds, exact: Tensor | None) -> dict[str, Tensor]:
    """By name, (N,) float64 nats: "elbo", "rate", "distortion", and where they exist "iwae_K" and "log_likelihood"."""
    rows = {
        "elbo": found.elbo,
        "rate": found.rate,
        "distortion": found.distortion,
        f"iwae_{found.samples}": found.iwae,
        "log_likelihood": exact,
    }
    return {name: values.double().cpu() for name, values in rows.items() if values is not None}


def as_npz(each: Mapping[str, Tensor]) -> bytes:
    """The bytes of an ``.npz`` of them, in the order of the data."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: values.numpy() for name, values in each.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def read_each(path: Path, means: Mapping[str, float], n: int) -> dict[str, Tensor] | None:
    """What `as_npz` wrote; None unless it is all there and has these means."""
    try:
        with np.load(path, allow_pickle=False) as file:
            each = {name: torch.from_numpy(file[name]) for name in means}
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    whole = all(values.shape == (n,) and values.dtype == torch.float64 for values in each.values())
    return each if whole and all(_same(each[name], mean) for name, mean in means.items()) else None


def _same(values: Tensor, mean: float) -> bool:
    own = values.mean().item()
    return own == mean or not (math.isfinite(own) or math.isfinite(mean))
