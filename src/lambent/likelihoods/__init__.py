"""Likelihoods p(x|z), one family a file; importing this registers them."""

from lambent.likelihoods.autoregressive import AutoregressiveLikelihood
from lambent.likelihoods.base import Family, Likelihood
from lambent.likelihoods.bernoulli import BernoulliFamily
from lambent.likelihoods.counts import NegativeBinomialFamily, PoissonFamily
from lambent.likelihoods.grey import CategoricalFamily, DiscretisedLogisticFamily, LogisticMixtureFamily
from lambent.likelihoods.mixed import ColumnsFamily
from lambent.likelihoods.noisy import NoisyLikelihood
from lambent.likelihoods.normal import NormalFamily
from lambent.likelihoods.pixels import PixelMixtureFamily
from lambent.likelihoods.text import TextFamily

__all__ = [
    "AutoregressiveLikelihood",
    "BernoulliFamily",
    "CategoricalFamily",
    "ColumnsFamily",
    "DiscretisedLogisticFamily",
    "Family",
    "Likelihood",
    "LogisticMixtureFamily",
    "NegativeBinomialFamily",
    "NoisyLikelihood",
    "NormalFamily",
    "PixelMixtureFamily",
    "PoissonFamily",
    "TextFamily",
]
