"""Normal posteriors: diagonal, full covariance, low rank plus diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lambent.distributions import CholeskyNormal, LowRankNormal, Normal, bounded_log_scale, unbounded_log_scale
from lambent.posteriors.base import PosteriorSettings
from lambent.settings import option, part


@part("posterior", "normal")
@dataclass(frozen=True)
class NormalPosterior(PosteriorSettings):
    """A diagonal Normal, N(m(x), diag s(x)^2)."""

    scale: float | None = option(None, "fixed standard deviation; none learns it per example", above=0)

    def width(self, latent: int) -> int:
        """Means, and log scales unless they are fixed."""
        return latent if self.scale is not None else 2 * latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> Normal:
        """The diagonal Normal; log scales are bounded smoothly."""
        if self.scale is not None:
            return Normal(head, head.new_full((), math.log(self.scale)))
        loc, raw = head.chunk(2, -1)
        return Normal(loc, bounded_log_scale(raw))


@part("posterior", "full-cov")
@dataclass(frozen=True)
class FullCovariancePosterior(PosteriorSettings):
    """N(m(x), L(x) L(x)^T) with L lower triangular, its diagonal positive."""

    shared: bool = option(False, "one covariance for all examples, as linear-Gaussian models have")  # noqa: FBT003

    def width(self, latent: int) -> int:
        """Means, and unless they are shared the log diagonal and the entries below it."""
        return latent if self.shared else latent + _triangle(latent)

    def shared_size(self, latent: int) -> int:
        """The size of the shared triangle; 0 where every example has its own."""
        return _triangle(latent) if self.shared else 0

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> CholeskyNormal:
        """Entries below the diagonal are in units of their row's scale."""
        loc, triangle = (head, shared_parameters) if self.shared else head.split([latent, _triangle(latent)], -1)
        assert triangle is not None
        raw, below = triangle.split([latent, _triangle(latent) - latent], -1)
        scale = bounded_log_scale(raw).exp()
        rows, columns = torch.tril_indices(latent, latent, -1, device=head.device)
        unit = torch.zeros(*triangle.shape[:-1], latent, latent, dtype=head.dtype, device=head.device)
        unit[..., rows, columns] = below
        unit = unit + torch.eye(latent, dtype=head.dtype, device=head.device)
        return CholeskyNormal(loc, scale.unsqueeze(-1) * unit)

    def initialise(self, head: nn.Linear, latent: int) -> None:
        """Starts as a diagonal Normal."""
        with torch.no_grad():
            head.weight[2 * latent :] = 0
            head.bias[2 * latent :] = 0


def raw_triangle(factor: Tensor) -> Tensor:
    """Shared parameters (D (D + 1) / 2) at which the Cholesky factor of the covariance is ``factor`` (D, D)."""
    scale = factor.diagonal()
    rows, columns = torch.tril_indices(len(scale), len(scale), -1, device=factor.device)
    return torch.cat([unbounded_log_scale(scale.log().clamp(-6.99, 4.99)), factor[rows, columns] / scale[rows]])


def _triangle(latent: int) -> int:
    return latent * (latent + 1) // 2


@part("posterior", "low-rank")
@dataclass(frozen=True)
class LowRankPosterior(PosteriorSettings):
    """N(m(x), F(x) F(x)^T + diag s(x)^2) with F of few columns."""

    rank: int = option(4, "rank of the covariance's low-rank factor F: its columns", minimum=1)

    def width(self, latent: int) -> int:
        """Means, log scales, and F."""
        return (2 + self.rank) * latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> LowRankNormal:
        """The low-rank Normal whose columns F are outputs of the head."""
        loc, raw, factor = head.split([latent, latent, self.rank * latent], -1)
        return LowRankNormal(loc, factor.unflatten(-1, (latent, self.rank)), bounded_log_scale(raw))
