"""Binarised MNIST for the benchmarks, or noise of the same shape."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DEFAULT = Path(__file__).resolve().parent.parent / ".." / "shared" / "data" / "mnist.npz"


def binarised(path: Path, key: str = "x_train", most: int | None = None) -> Tensor:
    """Images (N, 1, 28, 28), each pixel 0 or 1 with its grey level as probability (seeded), uint8."""
    generator = torch.Generator().manual_seed(0)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            grey = torch.from_numpy(file[key][:most]).float() / 255
    else:
        print(f"note: {path} not found; random images instead (timings hold, bounds mean nothing)", file=sys.stderr)
        grey = torch.rand(most or 60_000, 28, 28, generator=generator).pow(4)
    return torch.bernoulli(grey, generator=generator).to(torch.uint8).unsqueeze(1)
