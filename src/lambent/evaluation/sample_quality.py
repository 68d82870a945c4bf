"""How near samples are to real data, by distances between two sets of feature vectors.

A feature map comes first (`Principal` components, or any network's features): which one must be told beside a figure,
and figures of different ones, or of different numbers of samples, are not comparable. Real data held out, as many as
there are samples, give the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lambent.errors import ConfigError, ShapeError

_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Principal:
    """The first principal components of real data: flat items, centred and rotated, their scale kept.

    Attributes:
        mean: Of the data, (D,), float64.
        axes: Orthonormal, by falling variance, (D, F), float64.
    """

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, x: Tensor, count: int) -> Principal:
        """The first ``count`` of ``x`` (N, *event).

        Raises:
            ConfigError: more components than numbers an item.
        """
        flat = x.flatten(1).double()
        if not 1 <= count <= flat.shape[1]:
            raise ConfigError(f"components={count}: items have {flat.shape[1]} numbers; give 1 to {flat.shape[1]}")
        mean = flat.mean(0)
        _, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean))
        return cls(mean, axes.flip(1)[:, :count])

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, F) of ``x`` (N, *event)."""
        return (x.flatten(1).double() - self.mean) @ self.axes


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C^1/2 C' C^1/2)^1/2) of the means and covariances of features (Heusel et al. 2017).

    The squared Wasserstein-2 distance of two Normal distributions (Dowson & Landau 1982), in squared units of the
    features. It is biased upwards by sampling: compare sets of one size.

    Args:
        real: Features of real data (N, F).
        made: Features of samples (M, F).

    Raises:
        ShapeError: not two sets of at least two vectors of one length.
    """
    _check(real, made)
    first, second = real.double(), made.double()
    root = _root(first.T.cov().view(real.shape[1], -1))
    cross = torch.linalg.eigvalsh(root @ second.T.cov().view_as(root) @ root).clamp_min(0).sqrt().sum()
    spread = first.var(0).sum() + second.var(0).sum()
    return ((first.mean(0) - second.mean(0)).square().sum() + spread - 2 * cross).item()


def precision_recall(real: Tensor, made: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """Shares of samples that look real, and of real data that are covered (Kynkäänniemi et al. 2019, section 2).

    A vector lies on a set's manifold if it is at most as far from one of its members as that member's k-th nearest
    neighbour is. Precision: samples on the manifold of the data; recall: data on that of the samples.

    Args:
        real: Features of real data (N, F).
        made: Features of samples (M, F).
        neighbours: K.

    Raises:
        ShapeError: not two sets of vectors of one length, each of more than ``neighbours``.
    """
    _check(real, made, neighbours + 1)
    first, second = real.double(), made.double()
    return _covered(second, first, neighbours), _covered(first, second, neighbours)


def _covered(points: Tensor, members: Tensor, neighbours: int) -> float:
    """Share of ``points`` on the manifold of ``members``."""
    own = [torch.cdist(rows, members).kthvalue(neighbours + 1).values for rows in members.split(_ROWS)]
    radius = torch.cat(own)
    inside = [(torch.cdist(rows, members) <= radius).any(1) for rows in points.split(_ROWS)]
    return torch.cat(inside).double().mean().item()


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def _check(real: Tensor, made: Tensor, least: int = 2) -> None:
    if real.dim() != 2 or made.dim() != 2 or real.shape[1] != made.shape[1] or min(len(real), len(made)) < least:
        raise ShapeError(
            f"features: found {tuple(real.shape)} and {tuple(made.shape)}, expected (N, F) and (M, F) with N and M at "
            f"least {least}; flatten what one map gives for both"
        )
