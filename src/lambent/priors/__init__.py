"""Priors p(z), one family a file; importing this registers them."""

from lambent.priors.ar1 import AR1Prior, AR1PriorSettings
from lambent.priors.base import CodePriorSettings, LatentKind, PriorSettings
from lambent.priors.bernoulli import AutoregressivePrior, BernoulliPrior, CoinPrior, OrderedCoinPrior
from lambent.priors.bytes import ByteFrequencies, BytePrior, RoundedNormalPrior
from lambent.priors.categorical import CategoricalPrior, CategoricalPriorSettings
from lambent.priors.code_diffusion import CodeDiffusion, CodeDiffusionSettings
from lambent.priors.codes import OrderedCodes, PixelCNNPriorSettings, TransformerPriorSettings
from lambent.priors.diffusion import DiffusionPrior, LatentDiffusion
from lambent.priors.flat import FlatPrior, FlatPriorSettings
from lambent.priors.flow import AutoregressiveFlowPrior, FlowPrior
from lambent.priors.mixture import LearnedMixturePrior, MixturePrior
from lambent.priors.normal import ConditionalNormal, ConditionalNormalPrior, NormalPrior, StandardNormalPrior
from lambent.priors.sphere import SpherePrior, SpherePriorSettings
from lambent.priors.uniform import UniformCodes, UniformPriorSettings

__all__ = [
    "AR1Prior",
    "AR1PriorSettings",
    "AutoregressiveFlowPrior",
    "AutoregressivePrior",
    "BernoulliPrior",
    "ByteFrequencies",
    "BytePrior",
    "CategoricalPrior",
    "CategoricalPriorSettings",
    "CodeDiffusion",
    "CodeDiffusionSettings",
    "CodePriorSettings",
    "CoinPrior",
    "ConditionalNormal",
    "ConditionalNormalPrior",
    "DiffusionPrior",
    "FlatPrior",
    "FlatPriorSettings",
    "FlowPrior",
    "LatentDiffusion",
    "LatentKind",
    "LearnedMixturePrior",
    "MixturePrior",
    "NormalPrior",
    "OrderedCodes",
    "OrderedCoinPrior",
    "PixelCNNPriorSettings",
    "PriorSettings",
    "RoundedNormalPrior",
    "SpherePrior",
    "SpherePriorSettings",
    "StandardNormalPrior",
    "TransformerPriorSettings",
    "UniformCodes",
    "UniformPriorSettings",
]
