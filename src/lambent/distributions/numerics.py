"""Arithmetic shared by the families: precision, event sums, and functions that stay accurate near their zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lambent.errors import ConfigError

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_HALF_TYPES = (torch.float16, torch.bfloat16)


def full_precision(tensor: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are: no log density is computed in 16 bits."""
    return tensor.float() if tensor.dtype in _HALF_TYPES else tensor


def widened(tensor: Tensor) -> Tensor:
    """As float64 where the device has it: lgamma of a count of 10^4 is only good to 0.01 nat in float32."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def matmul(first: Tensor, second: Tensor) -> Tensor:
    """The matrix product in the tensors' own type, also where autocast would make it a 16-bit one."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second


def joint_shape(first: Tensor, second: Tensor) -> torch.Size:
    """The shape that the two broadcast to; without asking torch, which takes long, where ``second`` fits in."""
    pairs = zip(reversed(first.shape), reversed(second.shape), strict=False)
    if second.dim() <= first.dim() and all(n in (1, m) for m, n in pairs):
        return first.shape
    return torch.broadcast_shapes(first.shape, second.shape)


def split_shape(shape: torch.Size, event_dims: int, who: str) -> tuple[torch.Size, torch.Size]:
    """Batch shape and event shape.

    Raises:
        ConfigError: there are fewer dimensions than the event has.
    """
    at = len(shape) - event_dims
    if at < 0:
        raise ConfigError(f"{who}: parameters of shape {tuple(shape)}, expected at least {event_dims} event dimensions")
    return shape[:at], shape[at:]


def event_sum(terms: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Sum over the event of ``terms`` broadcast to it, (...) per batch element, without expanding."""
    dims = len(event_shape)
    if dims == 0:
        return terms
    own = terms.shape[max(0, terms.dim() - dims) :]
    total = terms.sum(tuple(range(-len(own), 0))) if own else terms
    missing = math.prod(event_shape) // max(1, math.prod(own))
    return total if missing == 1 else total * missing


def _expm1_less(v: Tensor) -> Tensor:
    """`expm1_less` of ``v`` outside the graph; float64 where that is how float32 gets its digits."""
    if v.dtype == torch.float32 and v.device.type != "mps":
        wide = v.double()
        return torch.expm1(wide).sub_(wide).clamp_min_(0)
    series = (v.square() * 0.5) * (1 + v * (1 / 3) + v.square() * (1 / 12))
    return torch.where(v.abs() < 0.01, series, torch.expm1(v) - v)


class _Expm1Less(torch.autograd.Function):
    """Its derivative is expm1(v); written by hand, so that neither branch's graph is kept."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return _expm1_less(v).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return grads[0] * torch.expm1(v)


def expm1_less(v: Tensor) -> Tensor:
    """Exp(v) - 1 - v, elementwise: never negative, and right to the last digits near 0, where it is v^2/2.

    Closed-form KLs are sums of it: of Normals, 1/2 expm1_less(2 log s) per dimension; of categoricals,
    sum_c p_c expm1_less(log r_c - log p_c); of Poissons, m expm1_less(log r - log m).

    >>> expm1_less(torch.tensor([1e-4, 0.0]))
    tensor([5.0002e-09, 0.0000e+00])
    """
    return _Expm1Less.apply(v)


class _NormalExcess(torch.autograd.Function):
    """Its derivatives are d and expm1(2 r); written by hand, as it is part of every training step, and small."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, log_ratio: Tensor) -> Tensor:
        ctx.save_for_backward(shift, log_ratio)
        scales = _expm1_less(2 * log_ratio).to(shift.dtype)
        return torch.addcmul(scales, shift, shift).mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_ratio = ctx.saved_tensors
        return grads[0] * shift, grads[0] * torch.expm1(2 * log_ratio)


def normal_excess(shift: Tensor, log_ratio: Tensor) -> Tensor:
    """KL of N(d, exp(r)^2) from N(0, 1), elementwise: d^2 / 2 + `expm1_less` (2 r) / 2.

    Args:
        shift: d, the difference of the means in units of the second scale.
        log_ratio: r, the log of the ratio of the scales, of the same shape.

    >>> normal_excess(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    return _NormalExcess.apply(shift, log_ratio)


def bounded_log_scale(raw: Tensor, low: float = -7.0, high: float = 5.0) -> Tensor:
    """A network's number as a log scale in (low, high): smooth, 0 at 0 with slope 1.

    ``low + (high - low) sigmoid(k raw + c)``, with k and c so that value and slope at 0 are those of the identity.
    Half-precision input gives float32.

    Args:
        raw: Any finite numbers.
        low: Lower bound, below 0.
        high: Upper bound, above 0.

    Raises:
        ConfigError: 0 is not between the bounds.

    >>> bounded_log_scale(torch.tensor([-1e4, 0.0, 1e4]), -3.0, 3.0)
    tensor([-3.,  0.,  3.])
    """
    slope, offset = _bounds(low, high)
    inner = torch.sigmoid(torch.rsub(full_precision(raw), offset, alpha=-slope))  # b + a x in one operation
    return inner * (high - low) + low


def unbounded_log_scale(log_scale: Tensor, low: float = -7.0, high: float = 5.0) -> Tensor:
    """The inverse of `bounded_log_scale`: what a bias must be for a wanted log scale between the bounds.

    >>> bounded_log_scale(unbounded_log_scale(torch.tensor(2.0)))
    tensor(2.)
    """
    slope, offset = _bounds(low, high)
    log_scale = full_precision(log_scale)
    return (torch.log(log_scale - low) - torch.log(high - log_scale) - offset) / slope


def _bounds(low: float, high: float) -> tuple[float, float]:
    if not low < 0 < high:
        raise ConfigError(f"bounded_log_scale: bounds {low}, {high}; expected low < 0 < high")
    return (high - low) / (-low * high), math.log(-low / high)
