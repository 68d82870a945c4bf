"""Posteriors q(z|x), one family a file; importing this registers them."""

from lambent.posteriors.base import AmortisedPosterior, PosteriorSettings
from lambent.posteriors.bounded import BoundedNormal
from lambent.posteriors.bytes import ByteConditional, BytePosterior
from lambent.posteriors.codes import CodePosterior, FiniteScalarQuantised, VectorQuantised
from lambent.posteriors.corrupted import CorruptedPosterior, Corruption, GaussianCorruption, MaskingCorruption
from lambent.posteriors.delta import DeltaPosterior
from lambent.posteriors.discrete import AutoregressivePosterior, BernoulliPosterior, CategoricalPosterior
from lambent.posteriors.noising import NoisingPosterior
from lambent.posteriors.normal import DiagonalNormal, FullCovariance, LowRank
from lambent.posteriors.relative import MergedNormal, RelativeNormal, ResidualNormal
from lambent.posteriors.sphere import VonMisesFisherPosterior

__all__ = [
    "AmortisedPosterior",
    "AutoregressivePosterior",
    "BernoulliPosterior",
    "BoundedNormal",
    "ByteConditional",
    "BytePosterior",
    "CategoricalPosterior",
    "CodePosterior",
    "CorruptedPosterior",
    "Corruption",
    "DeltaPosterior",
    "DiagonalNormal",
    "FiniteScalarQuantised",
    "FullCovariance",
    "GaussianCorruption",
    "LowRank",
    "MaskingCorruption",
    "MergedNormal",
    "NoisingPosterior",
    "PosteriorSettings",
    "RelativeNormal",
    "ResidualNormal",
    "VectorQuantised",
    "VonMisesFisherPosterior",
]
