"""Mean and spread of a stream of vectors, and how far its mean is from a reference: memory of a few vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MeanVector:
    """A mean with its error.

    Attributes:
        value: (P,) float64.
        error: tr(S) / n, the expected squared length of its error; 0 where it is exact.
        spread: tr(S^2)^(1/2) / n, which with `error` says how many directions the error has.
    """

    value: Tensor
    error: float = 0.0
    spread: float = 0.0

    @property
    def length(self) -> float:
        """|E value|, its error's expected part taken off the square; 0 where nothing is left."""
        return math.sqrt(max(0.0, float(self.value.square().sum()) - self.error))


class Moments:
    """Of independent vectors (P,) with mean m and covariance S, added one at a time; float64.

    >>> moments = Moments()
    >>> for vector in torch.tensor([[0.0, 1.0], [2.0, 1.0]]):
    ...     moments.add(vector)
    >>> moments.mean.tolist(), moments.variance.tolist()
    ([1.0, 1.0], [2.0, 0.0])
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())
        self._first: Tensor | None = None
        self._difference: Tensor | None = None
        self._products = _Scalars()
        self._direction: Tensor | None = None
        self._along = _Scalars()

    def add(self, vector: Tensor) -> None:
        """Takes in one vector (Welford 1962)."""
        vector = vector.double()
        self.count += 1
        before = vector - self.mean
        self.mean = self.mean + before / self.count
        self._squares = self._squares + before * (vector - self.mean)
        self._pair(vector)
        if self._direction is not None:
            self._along.add(float(vector @ self._direction))

    def _pair(self, vector: Tensor) -> None:
        """Differences of successive pairs have covariance S and mean 0, and E <e, e'>^2 = tr(S^2)."""
        if self._first is None:
            self._first = vector
            return
        difference, self._first = (vector - self._first) / math.sqrt(2), None
        if self._difference is not None:
            self._products.add(float(difference @ self._difference) ** 2)
        self._difference = difference

    def look_along(self, reference: MeanVector) -> None:
        """From now on watches the spread along the distance so far to ``reference``: that distance's own error."""
        self._direction = self.mean - reference.value

    @property
    def variance(self) -> Tensor:
        """The diagonal of S, (P,), unbiased; needs two vectors."""
        return self._squares / (self.count - 1)

    @property
    def average(self) -> MeanVector:
        """The mean with its error; needs four vectors."""
        trace = float(self.variance.sum())
        least, most = trace / math.sqrt(self.mean.numel()), trace  # tr(S)^2 / P <= tr(S^2) <= tr(S)^2
        spread = min(max(math.sqrt(self._products.mean), least), most)
        return MeanVector(self.mean, trace / self.count, spread / self.count)

    @property
    def along(self) -> float:
        """The variance along the direction that `look_along` aims at; 0 before it was aimed."""
        length = 0.0 if self._direction is None else float(self._direction.square().sum())
        return self._along.variance / length if length and self._along.count > 1 else 0.0


class _Scalars:
    """Mean and variance of a stream of numbers."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def variance(self) -> float:
        return self._squares / (self.count - 1)


@dataclass(frozen=True)
class Bias:
    """The distance of a mean from a reference.

    Attributes:
        squared: Unbiased estimate of |E value - reference|^2: what the noise of both adds is taken off, so that it may
            be negative.
        se: Its standard error, too large rather than too small where there is no bias.
        z: About standard normal where there is no bias, and large where there is.
        relative: The distance over the reference's length.
        relative_se: Its standard error (where the bias is clear) or how large an unseen one may be.
    """

    squared: float
    se: float
    z: float
    relative: float
    relative_se: float

    @classmethod
    def of(cls, moments: Moments, reference: MeanVector, rounding: float = 0.0) -> Self:
        """The bias of the stream's mean; ``rounding`` is the relative precision that the vectors were computed in."""
        found = moments.average
        length = float((found.value - reference.value).square().sum())
        noise, spread = found.error + reference.error, found.spread + reference.spread
        squared = length - noise
        slope = moments.along / moments.count + reference.spread
        se = math.sqrt(2 * spread**2 + 4 * slope * max(0.0, squared))
        floor = rounding * float(reference.value.square().sum()) + torch.finfo(torch.float64).tiny
        relative, relative_se = _relative(squared, se, reference.length)
        return cls(squared, se, _z(length, noise + floor, spread + floor), relative, relative_se)


def _relative(squared: float, se: float, length: float) -> tuple[float, float]:
    if length == 0:
        return math.nan, math.nan
    distance = math.sqrt(max(0.0, squared))
    error = se / (2 * distance) if squared > 3 * se else math.sqrt(max(0.0, squared) + 2 * se)
    return distance / length, error / length


def _z(length: float, noise: float, spread: float) -> float:
    """A normal deviate from a squared length that has mean ``noise`` and variance 2 spread^2 where nothing is amiss.

    The length is matched by a multiple of a chi square (Satterthwaite 1946), and that is made normal by its cube root
    (Wilson & Hilferty 1931).
    """
    freedom = max(1.0, (noise / spread) ** 2)
    lack = 2 / (9 * freedom)
    return ((length / noise) ** (1 / 3) - (1 - lack)) / math.sqrt(lack)
