"""Posteriors q(z|x), one family a file; importing this registers them."""

from lambent.posteriors.base import AmortisedPosteriorModule, PosteriorSettings
from lambent.posteriors.bounded import BoundedNormalPosterior
from lambent.posteriors.bytes import ByteConditionalPosterior, BytePosterior
from lambent.posteriors.codes import CodePosteriorSettings, FiniteScalarPosterior, VectorQuantisedPosterior
from lambent.posteriors.corrupted import CorruptedPosteriorModule, Corruption, GaussianCorruption, MaskingCorruption
from lambent.posteriors.delta import DeltaPosterior
from lambent.posteriors.discrete import AutoregressiveBernoulliPosterior, BernoulliPosterior, CategoricalPosterior
from lambent.posteriors.noising import NoisingPosterior
from lambent.posteriors.normal import FullCovariancePosterior, LowRankPosterior, NormalPosterior
from lambent.posteriors.relative import MergedNormalPosterior, RelativeNormalPosterior, ResidualNormalPosterior
from lambent.posteriors.sphere import VonMisesFisherPosterior

__all__ = [
    "AmortisedPosteriorModule",
    "AutoregressiveBernoulliPosterior",
    "BernoulliPosterior",
    "BoundedNormalPosterior",
    "ByteConditionalPosterior",
    "BytePosterior",
    "CategoricalPosterior",
    "CodePosteriorSettings",
    "CorruptedPosteriorModule",
    "Corruption",
    "DeltaPosterior",
    "FiniteScalarPosterior",
    "FullCovariancePosterior",
    "GaussianCorruption",
    "LowRankPosterior",
    "MaskingCorruption",
    "MergedNormalPosterior",
    "NoisingPosterior",
    "NormalPosterior",
    "PosteriorSettings",
    "RelativeNormalPosterior",
    "ResidualNormalPosterior",
    "VectorQuantisedPosterior",
    "VonMisesFisherPosterior",
]
