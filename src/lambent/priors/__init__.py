"""Priors p(z), one family a file; importing this registers them."""

from lambent.priors.base import LatentKind, PriorSettings
from lambent.priors.bernoulli import AutoregressivePrior, BernoulliPrior, CoinPrior, OrderedCoinPrior
from lambent.priors.categorical import CategoricalPrior, CategoricalPriorSettings
from lambent.priors.flat import FlatPrior, FlatPriorSettings
from lambent.priors.mixture import LearnedMixturePrior, MixturePrior
from lambent.priors.none import NoPrior
from lambent.priors.normal import ConditionalNormal, ConditionalNormalPrior, NormalPrior, StandardNormalPrior

__all__ = [
    "AutoregressivePrior",
    "BernoulliPrior",
    "CategoricalPrior",
    "CategoricalPriorSettings",
    "CoinPrior",
    "ConditionalNormal",
    "ConditionalNormalPrior",
    "FlatPrior",
    "FlatPriorSettings",
    "LatentKind",
    "LearnedMixturePrior",
    "MixturePrior",
    "NoPrior",
    "NormalPrior",
    "OrderedCoinPrior",
    "PriorSettings",
    "StandardNormalPrior",
]
