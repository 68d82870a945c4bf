"""Distributions on the unit sphere S^(d-1) of R^d, as densities with respect to its surface measure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lambent.distributions.base import Distribution
from lambent.distributions.bessel import log_mean_exp, mean_cosine
from lambent.distributions.normal import standard_noise
from lambent.distributions.numerics import event_sum, full_precision, split_shape, widened
from lambent.errors import ConfigError

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(64))
_NEGLIGIBLE = -40.0
"""Log of a density so small against another that no digit of an integral is in it."""
_HALVINGS = 24
_LEAST_ANGLE = 1e-12


def log_area(d: int) -> float:
    """Log of the surface of S^(d-1): log(2 pi^(d/2) / Gamma(d/2)).

    >>> round(log_area(2), 4)  # log(2 pi)
    1.8379
    """
    return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


def check_dimensions(d: int, who: str) -> None:
    """Refuses a sphere that is two points.

    Raises:
        ConfigError: ``d`` is less than 2.
    """
    if d < 2:
        raise ConfigError(f"{who}: {d} dimensions, but the sphere needs 2 or more; use latent=2 or more")


class SphereUniform(Distribution):
    """The uniform distribution on S^(d-1): log p(z) = -log(2 pi^(d/2) / Gamma(d/2)), in nats.

    Args:
        d: Dimensions of the surrounding space.
        device: Of the draws.
        dtype: Of the draws; float64 or float32.

    Raises:
        ConfigError: ``d`` is less than 2.

    >>> SphereUniform(3).log_prob(torch.tensor([0.0, 0.0, 1.0]))  # -log(4 pi)
    tensor(-2.5310)
    """

    has_rsample = True

    def __init__(self, d: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> None:
        check_dimensions(d, "SphereUniform")
        self.device = device
        self.dtype = dtype if dtype == torch.float64 else torch.float32
        super().__init__((), (d,))

    @property
    def mean(self) -> Tensor:
        """The mean, zeros of shape (d,)."""
        return torch.zeros(self.event_shape, device=self.device, dtype=self.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, 1/d, (d,)."""
        return self.mean + 1 / self.event_shape[0]

    @property
    def mode(self) -> Tensor:
        """Raises ConfigError: all points have the same density."""
        raise ConfigError("the uniform distribution on a sphere has no mode; give x, or values of z")

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, nats, the same for all points of the sphere (what is off it is taken to be on it)."""
        constant = torch.tensor(-log_area(self.event_shape[0]), dtype=full_precision(value).dtype, device=value.device)
        return constant.expand(value.shape[:-1])

    def entropy(self) -> Tensor:
        """Log of the surface, nats."""
        return torch.tensor(log_area(self.event_shape[0]), device=self.device, dtype=self.dtype)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
        return noise / noise.norm(dim=-1, keepdim=True)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> SphereUniform:
        """Itself: it has no parameters."""
        return self


class VonMisesFisher(Distribution):
    """The von Mises-Fisher distribution on S^(d-1): log p(z) = k m.z - log Z_d(k), in nats.

    Z_d(k) = (2 pi)^(d/2) I_{d/2-1}(k) / k^(d/2-1), and k = 0 is the uniform distribution. Draws are reparameterised
    exactly: the direction by rotation; the angle to it, which is drawn by rejection (Ulrich 1984; Wood 1994), by
    implicit differentiation of its distribution function F, d angle / dk = -(dF/dk) / f (Figurnov et al. 2018, eq. 5).

    Args:
        loc: Vectors in the direction m, of any length but 0, (*batch, d).
        concentration: k, at least 0, broadcast against the batch.

    Raises:
        ConfigError: fewer than 2 dimensions.

    >>> VonMisesFisher(torch.tensor([0.0, 0.0, 5.0]), torch.tensor(0.0)).log_prob(torch.tensor([1.0, 0.0, 0.0]))
    tensor(-2.5310)
    """

    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        self.loc, self.concentration = full_precision(loc), full_precision(concentration)
        batch_shape, event_shape = split_shape(self.loc.shape, 1, "VonMisesFisher")
        check_dimensions(event_shape[0], "VonMisesFisher")
        super().__init__(torch.broadcast_shapes(batch_shape, self.concentration.shape), event_shape)

    @property
    def d(self) -> int:
        """Dimensions of the surrounding space."""
        return self.event_shape[0]

    @property
    def direction(self) -> Tensor:
        """M = loc / |loc|, of ``loc``'s shape; the first axis where ``loc`` is 0."""
        length = self.loc.norm(dim=-1, keepdim=True)
        tiny = torch.finfo(self.loc.dtype).tiny ** 0.5
        axis = torch.zeros_like(self.loc)
        axis[..., 0] = 1
        return torch.where(length > tiny, self.loc / length.clamp_min(tiny), axis)

    @property
    def mode(self) -> Tensor:
        """The mean direction, (*batch, d)."""
        return self.direction.expand(self.batch_shape + self.event_shape)

    @property
    def mean_cosine(self) -> Tensor:
        """E[m.z] = A_d(k) = I_{d/2}(k) / I_{d/2-1}(k), of ``concentration``'s shape."""
        return mean_cosine(widened(self.concentration), self.d).to(self.loc.dtype)

    @property
    def mean(self) -> Tensor:
        """A_d(k) m, (*batch, d): inside the sphere."""
        return (self.mean_cosine.unsqueeze(-1) * self.direction).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, A/k + (1 - d A/k - A^2) m_i^2, (*batch, d)."""
        wide = widened(self.concentration)
        a = mean_cosine(wide, self.d)
        across = torch.where(wide > 0, a / wide.clamp_min(1e-300), torch.full_like(a, 1 / self.d)).unsqueeze(-1)
        along = 1 - self.d * across - a.square().unsqueeze(-1)
        result = (across + along * self.direction.square()).to(self.loc.dtype)
        return result.expand(self.batch_shape + self.event_shape)

    def log_normaliser(self) -> Tensor:
        """Log Z_d(k) - k, of ``concentration``'s shape, float64."""
        wide = widened(self.concentration)
        return log_mean_exp(wide, self.d) + log_area(self.d) - wide

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, nats, of points on the sphere.

        On it, m.z - 1 = -|z - m|^2 / 2, which keeps its digits where k is large.
        """
        distance = event_sum((full_precision(value) - self.direction).square(), self.event_shape)
        return -0.5 * self.concentration * distance - self.log_normaliser().to(self.loc.dtype)

    def entropy(self) -> Tensor:
        """Log Z_d(k) - k A_d(k), nats."""
        wide = widened(self.concentration)
        result = self.log_normaliser() + wide * (1 - mean_cosine(wide, self.d))
        return result.to(self.loc.dtype).expand(self.batch_shape)

    def _sample(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        angle = _angle(widened(self.concentration).expand(shape[:-1]), self.d, generator)
        angle = angle.unsqueeze(-1).to(self.loc.dtype)
        noise = standard_noise(shape, self.loc, generator)
        return angle.cos() * self.direction + angle.sin() * _tangent(noise, self.direction)

    def map_parameters(self, fn: Callable[[Tensor], Tensor]) -> VonMisesFisher:
        """The same family at ``fn`` of ``loc`` and of the concentration."""
        return VonMisesFisher(fn(self.loc), fn(self.concentration))


def _tangent(noise: Tensor, direction: Tensor) -> Tensor:
    """Unit vectors at right angles to the direction: uniform ones, of Normal noise."""
    for _ in range(2):  # where the noise nearly points along the direction, once leaves rounding error of it
        noise = noise - (noise * direction).sum(-1, keepdim=True) * direction
        noise = noise / noise.norm(dim=-1, keepdim=True)
    return noise


def _angle(kappa: Tensor, d: int, generator: torch.Generator | None) -> Tensor:
    """Angles between draws and the mean direction, of ``kappa``'s shape; gradients reach kappa."""
    with torch.no_grad():
        angle = _rejected(kappa.flatten(), d, generator).view(kappa.shape)
    if not (kappa.requires_grad and torch.is_grad_enabled()):
        return angle
    return angle + (kappa - kappa.detach()) * angle_slope(angle, kappa.detach(), d)


def _rejected(kappa: Tensor, d: int, generator: torch.Generator | None) -> Tensor:
    """Angles by rejection from Ulrich's envelope, all that are still open at once; (n,)."""
    angle = torch.empty_like(kappa)
    pending = torch.arange(len(kappa), device=kappa.device)
    while len(pending):
        found, refused = _proposed(kappa[pending], d, generator)
        angle[pending] = found
        pending = pending[refused]
    return angle


def _proposed(kappa: Tensor, d: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Proposals for the angle, and which of them are rejected; a NaN concentration is never rejected."""
    b = (d - 1) / (2 * kappa + torch.hypot(2 * kappa, torch.full_like(kappa, d - 1)))
    e = _symmetric_beta(0.5 * (d - 1), kappa, generator)
    scale = 1 - (1 - b) * e
    cosine, centre = (1 - (1 + b) * e) / scale, (1 - b) / (1 + b)
    score = kappa * (cosine - centre) + (d - 1) * torch.log((1 - centre * cosine) * (1 + b).square() / (4 * b))
    u = torch.rand(kappa.shape, generator=generator, dtype=kappa.dtype, device=kappa.device)
    # 1 - cosine and 1 + cosine without cancellation: the angle keeps its digits where it is small
    angle = 2 * torch.atan2((2 * b * e / scale).sqrt(), (2 * (1 - e) / scale).sqrt())
    return angle, score < u.log()


def _symmetric_beta(shape: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    first, second = torch._standard_gamma(like.new_full((2, *like.shape), shape), generator=generator)
    return first / (first + second)


def angle_slope(angle: Tensor, kappa: Tensor, d: int) -> Tensor:
    """D angle / dk at fixed F(angle; k), where the angle's density is h(t) = exp(k cos t) sin(t)^(d-2) / normaliser.

    With dh/dk = (cos t - A) h it is int_angle^pi (cos t - A) h(t) dt / h(angle) = -int_0^angle of the same. Of the two
    the one on which h falls from ``angle`` is taken, by Gauss-Legendre quadrature as far as h matters.
    """
    angle = angle.clamp(_LEAST_ANGLE, math.pi - _LEAST_ANGLE)
    inward = angle.cos() > _mode_cosine(kappa, d)
    end = torch.where(inward, torch.zeros_like(angle), torch.full_like(angle, math.pi))
    reach = _reach(angle, end, kappa, d)
    nodes = 0.5 * (_NODES.to(angle.device) + 1)
    t = angle.unsqueeze(-1) + reach.unsqueeze(-1) * nodes
    ratio = _log_ratio(t, angle.unsqueeze(-1), kappa.unsqueeze(-1), d).exp()
    terms = (t.cos() - mean_cosine(kappa, d).unsqueeze(-1)) * ratio
    return 0.5 * reach * (terms * _WEIGHTS.to(angle.device)).sum(-1)


def _log_ratio(t: Tensor, angle: Tensor, kappa: Tensor, d: int) -> Tensor:
    """Log h(t) - log h(angle)."""
    return kappa * (t.cos() - angle.cos()) + (d - 2) * (t.sin().clamp_min(1e-300) / angle.sin()).log()


def _mode_cosine(kappa: Tensor, d: int) -> Tensor:
    """Cosine of the most probable angle: where k sin(t)^2 = (d - 2) cos t."""
    spread = d - 2 + torch.hypot(2 * kappa, torch.full_like(kappa, d - 2))
    return 2 * kappa / spread if d > 2 else torch.ones_like(kappa)


def _reach(angle: Tensor, end: Tensor, kappa: Tensor, d: int) -> Tensor:
    """Signed distance from ``angle`` to where h is negligible, at most as far as ``end``: by bisection."""
    near, far = torch.zeros_like(angle), torch.ones_like(angle)
    for _ in range(_HALVINGS):
        middle = 0.5 * (near + far)
        negligible = _log_ratio(angle + middle * (end - angle), angle, kappa, d) < _NEGLIGIBLE
        near, far = torch.where(negligible, near, middle), torch.where(negligible, middle, far)
    return far * (end - angle)
