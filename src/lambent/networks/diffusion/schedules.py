"""Noise schedules gamma(t) = log s_t^2/a_t^2 of a diffusion, t in 0..1: fixed curves, and one that learns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCHEDULES = ("linear", "ddpm", "cosine", "learned")


class Schedule(nn.Module, ABC):
    """Gamma rising from ``minimum`` at 0 to ``maximum`` at 1.

    Fixed curves are cut so that they begin and end there: gamma(t) = curve(u_0 + (u_1 - u_0) t).
    """

    learned: bool = False

    def __init__(self, minimum: float, maximum: float) -> None:
        super().__init__()
        self.minimum, self.maximum = minimum, maximum

    @abstractmethod
    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """h(t) = (gamma(t) - minimum) / (maximum - minimum), from 0 to 1, and h'(t)."""

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Minimum and maximum, scalars of ``like``'s type and device."""
        return like.new_tensor(self.minimum), like.new_tensor(self.maximum)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """gamma(t) and gamma'(t), in ``t``'s shape and type."""
        low, high = self.ends(t)
        share, slope = self.interior(t)
        return low + (high - low) * share, (high - low) * slope

    def _share(self, gamma: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """A curve's gamma and slope as the interior."""
        span = self.maximum - self.minimum
        return (gamma - self.minimum) / span, slope / span


class Linear(Schedule):
    """gamma = minimum + (maximum - minimum) t.

    >>> Linear(-10.0, 5.0)(torch.tensor(0.4))
    (tensor(-4.), tensor(15.))
    """

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """T itself, with slope 1."""
        return t, torch.ones_like(t)


class DDPM(Schedule):
    """The chain of Ho et al. 2020, whose beta rises linearly from 1e-4 to 0.02 over 1,000 levels, in continuous time.

    -log a^2 = B(u) = u/10 + (20 - 1/10) u^2/2 (the VP SDE of Song et al. 2021, ICLR), so gamma = log expm1 B.
    """

    RATE, RISE = 0.1, 19.9

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cut where gamma is the minimum and the maximum."""
        begin, end = (self._position(gamma) for gamma in (self.minimum, self.maximum))
        u = begin + (end - begin) * t
        total = u * (self.RATE + 0.5 * self.RISE * u)
        gamma = total + torch.log(-torch.expm1(-total))
        return self._share(gamma, (end - begin) * (self.RATE + self.RISE * u) / -torch.expm1(-total))

    def _position(self, gamma: float) -> float:
        """U at which the curve is gamma: B = log(1 + e^gamma)."""
        total = max(gamma, 0.0) + math.log1p(math.exp(-abs(gamma)))
        return 2 * total / (self.RATE + math.sqrt(self.RATE**2 + 2 * self.RISE * total))


class Cosine(Schedule):
    """a^2 = cos^2(w(u)) / cos^2(w(0)), w(u) = (u + .008)/1.008 pi/2 (Nichol & Dhariwal 2021, eq. 17)."""

    START = 0.008 / 1.008 * math.pi / 2

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Cut where gamma is the minimum and the maximum; 1 - a^2 = sin(w - w_0) sin(w + w_0) / cos^2 w_0."""
        begin, end = (self._angle(gamma) for gamma in (self.minimum, self.maximum))
        angle = begin + (end - begin) * t
        less, more = angle - self.START, angle + self.START
        gamma = torch.log(less.sin() * more.sin()) - 2 * torch.log(angle.cos())
        return self._share(gamma, (end - begin) * (1 / less.tan() + 1 / more.tan() + 2 * angle.tan()))

    def _angle(self, gamma: float) -> float:
        """The angle w at which the curve is gamma."""
        signal = 1 / (1 + math.exp(gamma))
        spread = 1 / (1 + math.exp(-gamma))
        sine = spread + signal * math.sin(self.START) ** 2
        return math.atan2(math.sqrt(sine), math.sqrt(signal) * math.cos(self.START))


class Learned(Schedule):
    """A monotone network between two ends that learn as well (VDM: Kingma et al. 2021, appendix H).

    h~(t) = w t + mean_j v_j sigmoid(k_j t - c_j) with w, v and k positive, scaled to go from 0 to 1. It starts nearly
    linear. The ends learn from the bound. With finitely many levels the interior does too; with infinitely many it
    can't, and learns from the variance of the estimate (`lambent.distributions.gaussian_diffusion`).

    Args:
        minimum: Gamma at 0, to start from.
        maximum: Gamma at 1, to start from.
        units: Sigmoids.
    """

    learned = True

    def __init__(self, minimum: float, maximum: float, units: int) -> None:
        super().__init__(minimum, maximum)
        self.start = nn.Parameter(torch.tensor(float(minimum)))
        self.log_span = nn.Parameter(torch.tensor(math.log(maximum - minimum)))
        self.straight = nn.Parameter(torch.tensor(0.0))
        self.steepness = nn.Parameter(torch.empty(units).uniform_(2.0, 12.0))
        self.shift = nn.Parameter(-F.softplus(self.steepness.detach()) * torch.rand(units))
        self.height = nn.Parameter(torch.full((units,), -2.0))

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """As learned so far."""
        start = self.start.to(like)
        return start, start + self.log_span.to(like).exp()

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The network's curve and its slope."""
        bottom, top = (self._curve(t.new_tensor([end]))[0] for end in (0.0, 1.0))
        curve, slope = self._curve(t)
        return (curve - bottom) / (top - bottom), slope / (top - bottom)

    def _curve(self, t: Tensor) -> tuple[Tensor, Tensor]:
        straight, steep, height = (F.softplus(p.to(t)) for p in (self.straight, self.steepness, self.height))
        inner = torch.sigmoid(t.unsqueeze(-1) * steep + self.shift.to(t))
        curve = straight * t + (height * inner).mean(-1)
        return curve, straight + (height * steep * inner * (1 - inner)).mean(-1)


def schedule(name: str, minimum: float, maximum: float, units: int = 1024) -> Schedule:
    """The schedule of that name, between gammas ``minimum`` and ``maximum``."""
    if name == "learned":
        return Learned(minimum, maximum, units)
    fixed: dict[str, type[Linear | DDPM | Cosine]] = {"linear": Linear, "ddpm": DDPM, "cosine": Cosine}
    return fixed[name](minimum, maximum)
