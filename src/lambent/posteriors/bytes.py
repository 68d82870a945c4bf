"""Posteriors over vectors of bytes: an encoder's outputs, rounded, and the conditionals between levels of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent.distributions import RoundedNormal, RoundedPoint
from lambent.posteriors.base import PosteriorSettings
from lambent.priors.base import LatentKind
from lambent.priors.bytes import HALF, rounded_normal
from lambent.settings import option, part


def unit(z: Tensor, spread: float) -> Tensor:
    """Bytes as networks see them: around 127.5, in units of ``spread``.

    >>> unit(torch.tensor([0.0, 255.0]), 127.5)
    tensor([-1.,  1.])
    """
    return (z - HALF) / spread


@part("posterior", "bytes")
@dataclass(frozen=True)
class BytePosterior(PosteriorSettings):
    """All mass at the bytes nearest to 127.5 (1 + tanh(spread m(x) / 127.5)): log q = 0 on a countable set.

    So the ELBO is a bound. Values are 0..255; networks see (z - 127.5) / spread. The levels of a chain are generated
    by Normals on the numbers before rounding, P(k) = Phi((k + 1/2 - m)/s) - Phi((k - 1/2 - m)/s), the end bytes taking
    the tails. A dimension that uses about n bytes costs about log n nats, so that a small spread makes for small rates.
    """

    latent_kind: ClassVar[LatentKind] = "bytes"
    relaxable: ClassVar[bool] = True
    marginals: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    bytes_per_unit: float = option(
        2.0,
        "bytes per unit of the networks' numbers: of the encoder's output, and of a byte given to a network",
        above=0,
        maximum=255,
    )

    def width(self, latent: int) -> int:
        """One output per byte."""
        return latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> RoundedPoint:
        """A point mass at the bytes, with the gradient of the outputs before rounding."""
        return RoundedPoint(HALF * (1 + torch.tanh(head * (self.bytes_per_unit / HALF))))

    def conditional(self) -> PosteriorSettings:
        """The conditional of the level below: rounded Normals."""
        return ByteConditionalPosterior(self.bytes_per_unit)

    def as_input(self, z: Tensor) -> Tensor:
        """The bytes minus 127.5, in units of ``bytes_per_unit``."""
        return unit(z, self.bytes_per_unit)


@dataclass(frozen=True)
class ByteConditionalPosterior(PosteriorSettings):
    """p(z_i|z_{i+1}) of a chain of bytes: Normals rounded to bytes."""

    spread: float
    latent_kind: ClassVar[LatentKind] = "bytes"

    def width(self, latent: int) -> int:
        """A mean and a log scale per byte."""
        return 2 * latent

    def distribution(self, head: Tensor, latent: int, shared_parameters: Tensor | None = None) -> RoundedNormal:
        """Rounded Normals, with means and scales in units of ``spread`` bytes and bounded log scales."""
        loc, raw_scale = head.chunk(2, -1)
        return rounded_normal(loc, raw_scale, self.spread)

    def as_input(self, z: Tensor) -> Tensor:
        """The bytes minus 127.5, in units of ``spread``."""
        return unit(z, self.spread)
