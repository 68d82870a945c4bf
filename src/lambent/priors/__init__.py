"""Priors p(z), one family a file; importing this registers them."""

from lambent.priors.ar1 import AR1Prior, AR1PriorModule
from lambent.priors.base import CodePriorSettings, LatentKind, PriorSettings
from lambent.priors.bernoulli import (
    AutoregressiveBernoulliPrior,
    AutoregressiveBernoulliPriorModule,
    BernoulliPrior,
    BernoulliPriorModule,
)
from lambent.priors.bytes import BytePrior, BytePriorModule, RoundedNormalPriorModule
from lambent.priors.categorical import CategoricalPrior, CategoricalPriorModule
from lambent.priors.code_diffusion import CodeDiffusionPrior, CodeDiffusionPriorModule
from lambent.priors.codes import AutoregressiveCodePriorModule, PixelCNNPrior, TransformerPrior
from lambent.priors.diffusion import LatentDiffusionPrior, LatentDiffusionPriorModule
from lambent.priors.flat import FlatPrior, FlatPriorModule
from lambent.priors.flow import AutoregressiveFlowPrior, AutoregressiveFlowPriorModule
from lambent.priors.mixture import MixturePrior, MixturePriorModule
from lambent.priors.normal import ConditionalNormalPrior, ConditionalNormalPriorModule, NormalPrior, NormalPriorModule
from lambent.priors.sphere import SpherePrior, SpherePriorModule
from lambent.priors.uniform import UniformPrior, UniformPriorModule

__all__ = [
    "AR1Prior",
    "AR1PriorModule",
    "AutoregressiveBernoulliPrior",
    "AutoregressiveBernoulliPriorModule",
    "AutoregressiveCodePriorModule",
    "AutoregressiveFlowPrior",
    "AutoregressiveFlowPriorModule",
    "BernoulliPrior",
    "BernoulliPriorModule",
    "BytePrior",
    "BytePriorModule",
    "CategoricalPrior",
    "CategoricalPriorModule",
    "CodeDiffusionPrior",
    "CodeDiffusionPriorModule",
    "CodePriorSettings",
    "ConditionalNormalPrior",
    "ConditionalNormalPriorModule",
    "FlatPrior",
    "FlatPriorModule",
    "LatentDiffusionPrior",
    "LatentDiffusionPriorModule",
    "LatentKind",
    "MixturePrior",
    "MixturePriorModule",
    "NormalPrior",
    "NormalPriorModule",
    "PixelCNNPrior",
    "PriorSettings",
    "RoundedNormalPriorModule",
    "SpherePrior",
    "SpherePriorModule",
    "TransformerPrior",
    "UniformPrior",
    "UniformPriorModule",
]
