"""Gradients: whether they are finite, how long they are, and whether that is far out of the ordinary."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor, nn

WINDOW = 100
"""Gradient norms that the running median is of."""
SMALL = 4096
"""Numbers in a tensor that is joined with others before it is looked at: the copy costs less than the call."""
FEWEST = 20
"""Norms that must have been seen before one is called an outlier."""


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Those that are set."""
    return [p.grad for p in parameters if p.grad is not None]


def set_gradients(parameters: Iterable[nn.Parameter], grads: Iterable[Tensor | None]) -> None:
    """Hands each parameter its gradient, in the parameter's own memory layout.

    A convolution of channels_last input gives its weight a gradient laid out like that, and sums give expanded ones;
    autograd.grad leaves them so, and the fused optimiser walks both memories side by side without looking.
    """
    for parameter, grad in zip(parameters, grads, strict=True):
        alike = grad is None or grad.stride() == parameter.stride()
        parameter.grad = grad if alike or grad is None else torch.empty_like(parameter).copy_(grad)


def norm_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm of all gradients together, a scalar."""
    return nn.utils.get_total_norm(gradients(parameters))


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number is finite: a sum is not if any term is not, and reads memory once, faster than a norm."""
    small: list[Tensor] = []
    large: list[Tensor] = []
    for tensor in tensors:
        (small if tensor.numel() < SMALL else large).append(tensor)
    joined = [torch.cat([t.reshape(-1) for t in small])] if small else []
    return math.isfinite(float(torch.stack([t.sum() for t in (*joined, *large)]).sum()))


def clipped(groups: Iterable[list[nn.Parameter]], most: float) -> list[Tensor]:
    """Scales the gradient of each group down to norm ``most`` where it is longer; the norms that they had."""
    norms = []
    for parameters in groups:
        norms.append(norm_of(parameters))
        nn.utils.clip_grads_with_norm_(parameters, most, norms[-1])
    return norms


def outlying(norm: float, recent: list[float], above: float) -> bool:
    """Whether ``norm`` is more than ``above`` times the median of those before it; takes it in among ``recent``.

    Every norm is taken in, an outlier's too. So after a jump of the scale for good the median has followed when as many
    norms of the new scale have been seen as of the old one: after `WINDOW` / 2 steps at most.

    >>> recent = [1.0] * 99
    >>> [outlying(norm, recent, 10.0) for norm in (9.0, 11.0, 9.0)]
    [False, True, False]
    """
    median = statistics.median_high(recent) if len(recent) >= FEWEST else math.inf
    recent.append(norm)
    del recent[:-WINDOW]
    return norm > above * median
