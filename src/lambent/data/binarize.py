r"""Grey levels to {0, 1}: P(x = 1) = grey / top for levels 0..top.

All draws compare a uniform integer u in {0..top-1} with the grey level, x = [u < grey], so that P(x = 1) is the exact
fraction: level 0 never gives 1 and the top level always does. Real-valued data in [0, 1] is compared with a uniform
multiple of 2^-24. Dynamic binarisation follows Salakhutdinov & Murray 2008 as resampled by Burda et al. 2016.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 20


def threshold(x: Tensor, levels: int | None) -> Tensor:
    """[grey > half of the largest level] as bytes; a level at exactly half is 0.

    >>> threshold(torch.tensor([0, 127, 128, 255], dtype=torch.uint8), 256)
    tensor([0, 0, 1, 1], dtype=torch.uint8)
    """
    return (x > _top(levels) / 2).to(torch.uint8)


def dynamic(x: Tensor, levels: int | None, generator: torch.Generator | None = None) -> Tensor:
    """A fresh draw for each element, as float32; ``generator`` is a CPU generator (None: torch's own).

    Args:
        x: Grey levels 0..levels-1, or numbers in [0, 1] where ``levels`` is None.
        levels: Number of grey levels.
        generator: Source of the one number that seeds the draw.

    On CPU the probabilities for up to 256 levels are exact; elsewhere within levels * 2^-32.
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    if levels is None:
        return (torch.rand(x.shape, generator=_generator(seed, x), device=x.device) < x).float()
    if x.device.type == "cpu" and levels <= 256:
        return _dynamic_bytes(x.to(torch.uint8), levels - 1, seed)
    return _dynamic_words(x, levels - 1, seed)


def _dynamic_bytes(x: Tensor, top: int, seed: int) -> Tensor:
    """Random bytes, the few beyond the largest multiple of ``top`` redrawn: a fourth of the time of float draws."""
    bits = np.random.SFC64(seed)
    draws = bits.random_raw((x.numel() + 7) // 8).view(np.uint8)[: x.numel()]
    limit = 256 - 256 % top
    if limit < 256:
        beyond = np.flatnonzero(draws >= limit)
        draws[beyond] = np.random.Generator(bits).integers(0, limit, beyond.size, dtype=np.uint8)
    if limit > top:
        draws %= np.uint8(top)
    return (torch.from_numpy(draws).view(x.shape) < x).view(torch.uint8).float()


def _dynamic_words(x: Tensor, top: int, seed: int) -> Tensor:
    draws = torch.randint(0, top, x.shape, generator=_generator(seed, x), device=x.device, dtype=torch.int32)
    return (draws < x).float()


def _generator(seed: int, like: Tensor) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed)


def static(x: Tensor, levels: int | None, seed: int, ids: Tensor) -> Tensor:
    """The one draw that belongs to (seed, id, element), whatever the batch, its order or the device; as bytes.

    Args:
        x: Grey levels (B, *event) 0..levels-1, or numbers in [0, 1] where ``levels`` is None.
        levels: Number of grey levels.
        seed: Names the draw of the whole data set.
        ids: The examples' own numbers, (B,).

    Probabilities are exact to levels * 2^-32 (2^-24 for numbers in [0, 1]).
    """
    values = x.cpu().numpy().reshape(len(x), -1)
    out = np.empty(values.shape, np.uint8)
    step = max(1, _BLOCK // max(1, values.shape[1]))
    keys = _mix(_mix(np.uint64(seed) + _GOLDEN) ^ ids.cpu().numpy().astype(np.uint64))
    for at in range(0, len(values), step):
        rows = slice(at, at + step)
        out[rows] = _uniform(keys[rows], values.shape[1], levels) < values[rows]
    return torch.from_numpy(out).view(x.shape).to(x.device)


def _uniform(keys: np.ndarray, elements: int, levels: int | None) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        counters = keys[:, None] + np.arange(1, elements + 1, dtype=np.uint64) * _GOLDEN
    bits = _mix(counters)
    if levels is None:
        return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return ((bits >> np.uint64(32)) * np.uint64(levels - 1)) >> np.uint64(32)


def _mix(words: np.ndarray | np.uint64) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014, OOPSLA), a bijection that scrambles all 64 bits."""
    with np.errstate(over="ignore"):
        w = np.asarray(words, np.uint64)
        w = (w ^ (w >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        w = (w ^ (w >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return w ^ (w >> np.uint64(31))


def _top(levels: int | None) -> int:
    return 1 if levels is None else levels - 1
