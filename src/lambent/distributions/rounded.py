"""Values rounded to 0..L-1: a rounded Normal, with the mass of each bin, and a rounded point."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from lambent.distributions.base import Distribution
from lambent.distributions.binned import Binned
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import event_sum, full_precision, joint_shape, split_shape, widened
from lambent.errors import ConfigError

LEVELS = 256
_MOST_BITS = 20


class RoundedNormal(Binned):
    """A Normal rounded to 0..L-1: P(k) = Phi((k + 1/2 - m)/s) - Phi((k - 1/2 - m)/s), the end bins taking the tails.

    The masses of all levels sum to 1. ``log_prob`` (nats) is differentiable in the value too, as if k were any number,
    which is what a straight-through gradient needs.

    Args:
        loc: Means m in levels, (*batch, *event).
        log_scale: Log standard deviations log s, s in levels, broadcast against ``loc``.
        levels: L, at least 2.
        event_dims: Number of trailing dimensions that form the event.

    Raises:
        ConfigError: fewer than 2 levels.

    >>> RoundedNormal(torch.tensor([7.0]), torch.tensor([-9.0])).log_prob(torch.tensor([7.0])).exp()
    tensor(1.)
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = LEVELS, event_dims: int = 1) -> None:
        if levels < 2:
            raise ConfigError(f"RoundedNormal: {levels} levels; expected 2 or more")
        self.loc, self.log_scale = full_precision(loc), full_precision(log_scale)
        self.levels, self.event_dims = levels, event_dims
        super().__init__(*split_shape(joint_shape(self.loc, self.log_scale), event_dims, "RoundedNormal"))

    @property
    def _zeros(self) -> Tensor:
        return self.loc.new_zeros(self.batch_shape + self.event_shape)

    def log_masses(self, level: Tensor) -> Tensor:
        """Log probability of each element's value, before the event sum, in nats."""
        terms: Tensor = _LogMass.apply(level.to(self.loc.dtype), self.loc, self.log_scale, self.levels)
        return terms

    def at_least(self, level: int) -> Tensor:
        """Phi((m - level + 1/2)/s)."""
        return torch.special.ndtr((self.loc - (level - 0.5)) * torch.exp(-self.log_scale))

    @property
    def mode(self) -> Tensor:
        """The most probable value: the one around the mean, or the first or last where a tail has more mass."""
        return self.or_an_end(self.loc.expand(self.batch_shape + self.event_shape).round().clamp(0, self.levels - 1))

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        drawn = torch.addcmul(self.loc, self.log_scale.exp(), standard_noise(shape, self.loc, generator))
        return drawn.round_().clamp_(0, self.levels - 1)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> RoundedNormal:
        """The same family at ``fn`` of mean and log scale."""
        return RoundedNormal(fn(self.loc), fn(self.log_scale), self.levels, self.event_dims)


class _LogMass(torch.autograd.Function):
    """log P of each element, and its derivatives by value, mean and log scale.

    Mirrored so that the bin lies right of the mean, P = Q(a) - Q(b) with Q the upper tail, |a| <= b, and
    log P = log Q(a) + log(1 - exp(-D)), D = log Q(a) - log Q(b) > 0. The derivatives of P are the densities at a and b.
    By hand, because they are hazards h = density/Q, which autograd loses in the tails; in float64, because a and b
    nearly agree where s is many bins.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
        inverse = torch.exp(-widened(log_scale))
        distance = (widened(value) - widened(loc)) * inverse
        right = distance >= 0
        near, far = distance.abs() - 0.5 * inverse, distance.abs() + 0.5 * inverse
        lowest, highest = value <= 0, value >= levels - 1
        near = torch.where(torch.where(right, lowest, highest), -math.inf, near)
        far = torch.where(torch.where(right, highest, lowest), math.inf, far)
        log_near = torch.special.log_ndtr(-near)
        ratio = log_near - torch.special.log_ndtr(-far)
        if any(ctx.needs_input_grad[:3]):  # type: ignore[attr-defined]
            by_distance, by_log_scale = _derivatives(near, far, ratio)
            by_value = torch.where(right, by_distance, -by_distance) * inverse
            ctx.save_for_backward(by_value, by_log_scale)
            ctx.shapes = value.shape, loc.shape, log_scale.shape  # type: ignore[attr-defined]
        return (log_near + _log1m_exp(ratio)).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        by_value, by_log_scale = ctx.saved_tensors
        each = (by_value, -by_value, by_log_scale)
        wanted = zip(each, ctx.shapes, ctx.needs_input_grad, strict=False)
        return (*((g * grads[0]).to(grads[0].dtype).sum_to_size(s) if n else None for g, s, n in wanted), None)


def _derivatives(near: Tensor, far: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of log P by the distance of the bin to the mean in units of s, and by log s."""
    at_near = torch.where(near.isinf(), 0.0, -_hazard(near) / torch.expm1(-ratio))
    at_far = torch.where(far.isinf(), 0.0, _hazard(far) / torch.expm1(ratio))
    spread = at_near * torch.where(near.isinf(), 0.0, near) - at_far * torch.where(far.isinf(), 0.0, far)
    return at_far - at_near, spread


def _hazard(x: Tensor) -> Tensor:
    """Density over upper tail of N(0, 1), without cancellation anywhere."""
    return math.sqrt(2 / math.pi) / torch.special.erfcx(x * math.sqrt(0.5))


def _log1m_exp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0."""
    return torch.where(x < 0.5, torch.log(-torch.expm1(-x)), torch.log1p(-torch.exp(-x)))


class RoundedPoint(Distribution):
    """All probability at one vector of integers, a rounded position: log q = 0 there and -inf elsewhere.

    ``rsample`` gives the levels with the gradient of the position (straight-through): a biased gradient.

    Args:
        position: Where, in levels, (*batch, *event).
        levels: L.
        event_dims: Number of trailing dimensions that form the event.

    >>> RoundedPoint(torch.tensor([2.4, 299.0])).sample()
    tensor([  2., 255.])
    """

    has_rsample = True
    has_enumerate_support = True
    straight_through: ClassVar[bool] = True

    def __init__(self, position: Tensor, levels: int = LEVELS, event_dims: int = 1) -> None:
        self.position, self.levels, self.event_dims = full_precision(position), levels, event_dims
        super().__init__(*split_shape(self.position.shape, event_dims, "RoundedPoint"))

    @property
    def mean(self) -> Tensor:
        """The rounded position, outside the graph, (*batch, *event)."""
        return self.position.detach().round().clamp(0, self.levels - 1)

    @property
    def variance(self) -> Tensor:
        """Zeros, of the shape of the position."""
        return torch.zeros_like(self.position)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats: 0 at the rounded position, -inf elsewhere."""
        elsewhere = torch.where(value == self.mean, 0.0, -math.inf)
        return event_sum(elsewhere, self.event_shape).to(self.position.dtype)

    def entropy(self) -> Tensor:
        """The entropy, 0 nats, of the batch shape."""
        return self.position.new_zeros(self.batch_shape)

    def enumerate_support(self, expand: bool = True) -> Tensor:  # noqa: FBT001, FBT002 - torch's signature
        """All L^D values, (L^D, *batch, *event).

        Raises:
            ConfigError: there are more than 2^20.
        """
        elements = self.event_shape.numel()
        if elements * math.log2(self.levels) > _MOST_BITS:
            raise ConfigError(f"{self.levels}^{elements} states are too many to enumerate; at most 2^{_MOST_BITS}")
        each = [torch.arange(self.levels, dtype=self.position.dtype, device=self.position.device)] * elements
        values = torch.cartesian_prod(*each).reshape(-1, *[1] * len(self.batch_shape), *self.event_shape)
        return values.expand(-1, *self.batch_shape, *self.event_shape) if expand else values

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        return (self.mean + (self.position - self.position.detach())).expand(shape)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> RoundedPoint:
        """The point mass at ``fn`` of the position, rounded."""
        return RoundedPoint(fn(self.position), self.levels, self.event_dims)
