"""Likelihoods p(x|z), one family a file; importing this registers them."""

from lambent.likelihoods.autoregressive import AutoregressiveLikelihoodModule
from lambent.likelihoods.base import LikelihoodModule, LikelihoodSettings
from lambent.likelihoods.bernoulli import BernoulliLikelihood
from lambent.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from lambent.likelihoods.grey import CategoricalLikelihood, DiscretisedLogisticLikelihood, LogisticMixtureLikelihood
from lambent.likelihoods.mixed import MixedLikelihood
from lambent.likelihoods.noisy import NoisyLikelihoodModule
from lambent.likelihoods.normal import NormalLikelihood
from lambent.likelihoods.pixels import PixelMixtureLikelihood
from lambent.likelihoods.text import TextLikelihood

__all__ = [
    "AutoregressiveLikelihoodModule",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "DiscretisedLogisticLikelihood",
    "LikelihoodModule",
    "LikelihoodSettings",
    "LogisticMixtureLikelihood",
    "MixedLikelihood",
    "NegativeBinomialLikelihood",
    "NoisyLikelihoodModule",
    "NormalLikelihood",
    "PixelMixtureLikelihood",
    "PoissonLikelihood",
    "TextLikelihood",
]
