"""lambent: latent-variable models from the same few parts, every number true.

`fit` trains, `load` opens a run. The ideas are here by name: models (`VAE`, ...), draws (`Pathwise`, ...), objectives
(`ELBO`, ...), rate functions (`Beta`, ...), and the settings of every part that `fit` takes (`MixturePrior`, ...).

>>> import lambent
>>> lambent.recipe_names()[:3]
['linear-ae', 'ae', 'sparse-ae']
>>> lambent.MixturePrior(components=3)
MixturePrior(components=3, init_scale=1.0)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.config import Config as Config
    from lambent.data import Dataset as Dataset
    from lambent.draws import (
        Ancestral as Ancestral,
        Detached as Detached,
        DoublyReparameterised as DoublyReparameterised,
        Draw as Draw,
        Enumerate as Enumerate,
        Given as Given,
        Gumbel as Gumbel,
        Mixed as Mixed,
        Mode as Mode,
        Pathwise as Pathwise,
        Rebar as Rebar,
        Relax as Relax,
        Score as Score,
        StickingTheLanding as StickingTheLanding,
        StraightThrough as StraightThrough,
        StraightThroughGumbel as StraightThroughGumbel,
    )
    from lambent.errors import LambentError as LambentError
    from lambent.gradients.compare import compare_gradients as compare_gradients
    from lambent.likelihoods import (
        BernoulliLikelihood as BernoulliLikelihood,
        CategoricalLikelihood as CategoricalLikelihood,
        DiscretisedLogisticLikelihood as DiscretisedLogisticLikelihood,
        LogisticMixtureLikelihood as LogisticMixtureLikelihood,
        MixedLikelihood as MixedLikelihood,
        NegativeBinomialLikelihood as NegativeBinomialLikelihood,
        NormalLikelihood as NormalLikelihood,
        PixelMixtureLikelihood as PixelMixtureLikelihood,
        PoissonLikelihood as PoissonLikelihood,
        TextLikelihood as TextLikelihood,
    )
    from lambent.models import (
        VAE as VAE,
        Density as Density,
        Diffusion as Diffusion,
        Joint as Joint,
        Ladder as Ladder,
        LatentModel as LatentModel,
        MarkovChain as MarkovChain,
        Mixture as Mixture,
        Quantised as Quantised,
        Recurrent as Recurrent,
    )
    from lambent.networks import (
        CanvasDecoder as CanvasDecoder,
        ConstantEncoder as ConstantEncoder,
        ConvDecoder as ConvDecoder,
        ConvEncoder as ConvEncoder,
        GatedPixelCNNDecoder as GatedPixelCNNDecoder,
        IdentityDecoder as IdentityDecoder,
        LinearDecoder as LinearDecoder,
        LinearEncoder as LinearEncoder,
        LSTMDecoder as LSTMDecoder,
        LSTMEncoder as LSTMEncoder,
        MADEDecoder as MADEDecoder,
        MLPDecoder as MLPDecoder,
        MLPDenoiser as MLPDenoiser,
        MLPEncoder as MLPEncoder,
        NADEDecoder as NADEDecoder,
        PixelCNNDecoder as PixelCNNDecoder,
        ReaderEncoder as ReaderEncoder,
        TransformerDecoder as TransformerDecoder,
        TransformerEncoder as TransformerEncoder,
        UNetDenoiser as UNetDenoiser,
    )
    from lambent.objectives import (
        CIWAE as CIWAE,
        ELBO as ELBO,
        IWAE as IWAE,
        MIWAE as MIWAE,
        PIWAE as PIWAE,
        AdversarialPenalty as AdversarialPenalty,
        Beta as Beta,
        Capacity as Capacity,
        DIPPenalty as DIPPenalty,
        FactorPenalty as FactorPenalty,
        FreeBits as FreeBits,
        KLBalancing as KLBalancing,
        L1Penalty as L1Penalty,
        L2Penalty as L2Penalty,
        LevelWarmUp as LevelWarmUp,
        LogLikelihood as LogLikelihood,
        MMDPenalty as MMDPenalty,
        Objective as Objective,
        ReweightedWakeSleep as ReweightedWakeSleep,
        Sleep as Sleep,
        SNRWeighted as SNRWeighted,
        SumOfRates as SumOfRates,
        TotalCorrelationRate as TotalCorrelationRate,
        WakeSleep as WakeSleep,
        WarmUp as WarmUp,
    )
    from lambent.posteriors import (
        AutoregressiveBernoulliPosterior as AutoregressiveBernoulliPosterior,
        BernoulliPosterior as BernoulliPosterior,
        BoundedNormalPosterior as BoundedNormalPosterior,
        BytePosterior as BytePosterior,
        CategoricalPosterior as CategoricalPosterior,
        DeltaPosterior as DeltaPosterior,
        FiniteScalarPosterior as FiniteScalarPosterior,
        FullCovariancePosterior as FullCovariancePosterior,
        GaussianCorruption as GaussianCorruption,
        LowRankPosterior as LowRankPosterior,
        MaskingCorruption as MaskingCorruption,
        MergedNormalPosterior as MergedNormalPosterior,
        NoisingPosterior as NoisingPosterior,
        NormalPosterior as NormalPosterior,
        ResidualNormalPosterior as ResidualNormalPosterior,
        VectorQuantisedPosterior as VectorQuantisedPosterior,
        VonMisesFisherPosterior as VonMisesFisherPosterior,
    )
    from lambent.priors import (
        AR1Prior as AR1Prior,
        AutoregressiveBernoulliPrior as AutoregressiveBernoulliPrior,
        AutoregressiveFlowPrior as AutoregressiveFlowPrior,
        BernoulliPrior as BernoulliPrior,
        BytePrior as BytePrior,
        CategoricalPrior as CategoricalPrior,
        CodeDiffusionPrior as CodeDiffusionPrior,
        ConditionalNormalPrior as ConditionalNormalPrior,
        FlatPrior as FlatPrior,
        LatentDiffusionPrior as LatentDiffusionPrior,
        MixturePrior as MixturePrior,
        NormalPrior as NormalPrior,
        PixelCNNPrior as PixelCNNPrior,
        SpherePrior as SpherePrior,
        TransformerPrior as TransformerPrior,
        UniformPrior as UniformPrior,
    )
    from lambent.recipes.named import names as recipe_names
    from lambent.runs.compare import compare_runs as compare_runs
    from lambent.runs.fit import fit as fit
    from lambent.runs.run import Run as Run, load as load
    from lambent.settings import option as option, part as part
    from lambent.trace import Estimate as Estimate, Latent as Latent, Trace as Trace

_HOMES = {
    "lambent.config": "Config",
    "lambent.data": "Dataset",
    "lambent.draws": (
        "Ancestral Detached DoublyReparameterised Draw Enumerate Given Gumbel Mixed Mode Pathwise Rebar Relax "
        "Score StickingTheLanding StraightThrough StraightThroughGumbel"
    ),
    "lambent.errors": "LambentError",
    "lambent.gradients.compare": "compare_gradients",
    "lambent.likelihoods": (
        "BernoulliLikelihood CategoricalLikelihood DiscretisedLogisticLikelihood LogisticMixtureLikelihood "
        "MixedLikelihood NegativeBinomialLikelihood NormalLikelihood PixelMixtureLikelihood PoissonLikelihood "
        "TextLikelihood"
    ),
    "lambent.models": "Density Diffusion Joint Ladder LatentModel MarkovChain Mixture Quantised Recurrent VAE",
    "lambent.networks": (
        "CanvasDecoder ConstantEncoder ConvDecoder ConvEncoder GatedPixelCNNDecoder IdentityDecoder "
        "LSTMDecoder LSTMEncoder LinearDecoder LinearEncoder MADEDecoder MLPDecoder MLPDenoiser MLPEncoder "
        "NADEDecoder PixelCNNDecoder ReaderEncoder TransformerDecoder TransformerEncoder UNetDenoiser"
    ),
    "lambent.objectives": (
        "AdversarialPenalty Beta CIWAE Capacity DIPPenalty ELBO FactorPenalty FreeBits IWAE KLBalancing "
        "L1Penalty L2Penalty LevelWarmUp LogLikelihood MIWAE MMDPenalty Objective PIWAE ReweightedWakeSleep "
        "SNRWeighted Sleep SumOfRates TotalCorrelationRate WakeSleep WarmUp"
    ),
    "lambent.posteriors": (
        "AutoregressiveBernoulliPosterior BernoulliPosterior BoundedNormalPosterior BytePosterior "
        "CategoricalPosterior DeltaPosterior FiniteScalarPosterior FullCovariancePosterior GaussianCorruption "
        "LowRankPosterior MaskingCorruption MergedNormalPosterior NoisingPosterior NormalPosterior "
        "ResidualNormalPosterior VectorQuantisedPosterior VonMisesFisherPosterior"
    ),
    "lambent.priors": (
        "AR1Prior AutoregressiveBernoulliPrior AutoregressiveFlowPrior BernoulliPrior BytePrior "
        "CategoricalPrior CodeDiffusionPrior ConditionalNormalPrior FlatPrior LatentDiffusionPrior "
        "MixturePrior NormalPrior PixelCNNPrior SpherePrior TransformerPrior UniformPrior"
    ),
    "lambent.runs.compare": "compare_runs",
    "lambent.runs.fit": "fit",
    "lambent.runs.run": "Run load",
    "lambent.settings": "option part",
    "lambent.trace": "Estimate Latent Trace",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["recipe_names", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: torch is heavy."""
    if name == "recipe_names":
        value: Any = import_module("lambent.recipes.named").names
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'lambent' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
