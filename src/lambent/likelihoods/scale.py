"""Where a likelihood's scale comes from: fixed, one per model, one per dimension, or one per element."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lambent.distributions import bounded_log_scale, unbounded_log_scale

Scale = Literal["fixed", "model", "dimension", "element"]
INSIDE = (-6.99, 4.99)
"""The log scales that a finite number gives: the bounds are reached by none."""
LOGISTIC = 0.5 * math.log(3) - math.log(math.pi)
"""Log scale of a logistic of standard deviation 1."""
SCALES = ("fixed", "model", "dimension", "element")
SCALE_HELP = "the scale: fixed (sigma), one learned per model, per dimension, or per element of each example (decoder)"


def shared_scale_shape(scale: str, event: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape of the scale parameters learned beside the decoder's."""
    return {"model": (), "dimension": event}.get(scale)


def params_per_element(scale: str) -> int:
    """Numbers per element that the decoder gives a location-scale family."""
    return 2 if scale == "element" else 1


def location_and_log_scale(
    parameters: Tensor, shared_parameters: Tensor | None, scale: str, sigma: float, event_dims: int
) -> tuple[Tensor, Tensor]:
    """The location and the bounded log scale; a fixed scale is log(sigma) exactly."""
    axis = -1 - event_dims
    loc = parameters.select(axis, 0)
    if scale == "fixed":
        return loc, parameters.new_full((), math.log(sigma))
    raw = parameters.select(axis, 1) if scale == "element" else shared_parameters
    assert raw is not None
    return loc, bounded_log_scale(raw + start(sigma))


def start(sigma: float) -> float:
    """The unbounded number whose bounded log scale is log(sigma): learned scales are counted from it.

    A sigma at or beyond the bounds, e^-7 and e^5, counts as just inside.
    """
    return unbounded_log_scale(torch.tensor(math.log(sigma), dtype=torch.float64).clamp(*INSIDE)).item()


def raw_scale(variance: Tensor, sigma: float) -> Tensor:
    """The learned numbers whose scale squared is ``variance``, counted from sigma as `location_and_log_scale` does.

    Standard deviations at or beyond the bounds, e^-7 and e^5, count as e^-6.99 = 9.2e-4 and e^4.99 = 147; 0 is one.
    """
    return unbounded_log_scale((0.5 * variance.log()).clamp(*INSIDE)) - start(sigma)


def location_bias(x: Tensor, scale: str, sigma: float) -> Tensor:
    """The means of ``x``, and for per-element scales the log deviations relative to sigma."""
    mean = x.double().mean(0)
    if scale != "element":
        return mean.unsqueeze(0).float()
    deviation = (x.double() - mean).square().mean(0).sqrt().clamp(1e-2, 1e2)
    return torch.stack([mean, unbounded_log_scale(deviation.log()) - start(sigma)]).float()


def noisy_params(noisy: Tensor, log_scale: Tensor, scale: str, sigma: float, event_dims: int) -> Tensor:
    """Numbers of which ``noisy`` (..., *event) is the location and ``log_scale`` the log scale, where that is asked."""
    loc = noisy.unsqueeze(-1 - event_dims)
    if scale != "element":
        return loc
    raw = unbounded_log_scale(log_scale.clamp(*INSIDE)) - start(sigma)
    return torch.cat([loc, raw.to(loc).expand_as(loc)], -1 - event_dims)


def noisy_own(log_scale: float, scale: str, sigma: float, event: tuple[int, ...]) -> Tensor | None:
    """The learned numbers of that log scale, where one is learned per model or dimension."""
    shape = shared_scale_shape(scale, event)
    return None if shape is None else torch.full(shape, start(math.exp(log_scale)) - start(sigma))
