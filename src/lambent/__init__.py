"""lambent: latent-variable models from the same few parts, every number true.

>>> import lambent
>>> lambent.recipe_names()[:3]
['linear-ae', 'ae', 'sparse-ae']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.config.config import Config
    from lambent.data.dataset import Dataset
    from lambent.draws import (
        Ancestral,
        Detached,
        DoublyReparameterised,
        Draw,
        Enumerate,
        Given,
        Gumbel,
        Mixed,
        Mode,
        Pathwise,
        Rebar,
        Relax,
        Score,
        StickingTheLanding,
        StraightThrough,
        StraightThroughGumbel,
    )
    from lambent.errors import LambentError
    from lambent.gradients.compare import compare_gradients
    from lambent.models import VAE, Density, Diffusion, Joint, Ladder, LatentModel, MarkovChain, Mixture, Recurrent
    from lambent.objectives import (
        CIWAE,
        ELBO,
        IWAE,
        MIWAE,
        PIWAE,
        Beta,
        Capacity,
        FreeBits,
        LogLikelihood,
        Objective,
        ReweightedWakeSleep,
        Sleep,
        SumOfRates,
        WakeSleep,
        WarmUp,
    )
    from lambent.recipes.table import names as recipe_names
    from lambent.runs.compare import compare_runs
    from lambent.runs.fit import fit
    from lambent.runs.run import Run, load
    from lambent.trace import Estimate, Latent, Trace

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "VAE",
    "Ancestral",
    "Beta",
    "Capacity",
    "Config",
    "Dataset",
    "Density",
    "Detached",
    "Diffusion",
    "DoublyReparameterised",
    "Draw",
    "Enumerate",
    "Estimate",
    "FreeBits",
    "Given",
    "Gumbel",
    "Joint",
    "Ladder",
    "LambentError",
    "Latent",
    "LatentModel",
    "LogLikelihood",
    "MarkovChain",
    "Mixed",
    "Mixture",
    "Mode",
    "Objective",
    "Pathwise",
    "Rebar",
    "Recurrent",
    "Relax",
    "ReweightedWakeSleep",
    "Run",
    "Score",
    "Sleep",
    "StickingTheLanding",
    "StraightThrough",
    "StraightThroughGumbel",
    "SumOfRates",
    "Trace",
    "WakeSleep",
    "WarmUp",
    "compare_gradients",
    "compare_runs",
    "fit",
    "load",
    "recipe_names",
]

_HOMES = {
    "lambent.config": ("Config",),
    "lambent.data": ("Dataset",),
    "lambent.draws": (
        "Ancestral",
        "Detached",
        "DoublyReparameterised",
        "Draw",
        "Enumerate",
        "Given",
        "Gumbel",
        "Mixed",
        "Mode",
        "Pathwise",
        "Rebar",
        "Relax",
        "Score",
        "StickingTheLanding",
        "StraightThrough",
        "StraightThroughGumbel",
    ),
    "lambent.errors": ("LambentError",),
    "lambent.gradients.compare": ("compare_gradients",),
    "lambent.models": (
        "VAE",
        "Density",
        "Diffusion",
        "Joint",
        "Ladder",
        "LatentModel",
        "MarkovChain",
        "Mixture",
        "Recurrent",
    ),
    "lambent.objectives": (
        "CIWAE",
        "ELBO",
        "IWAE",
        "MIWAE",
        "PIWAE",
        "Beta",
        "Capacity",
        "FreeBits",
        "LogLikelihood",
        "Objective",
        "ReweightedWakeSleep",
        "Sleep",
        "SumOfRates",
        "WakeSleep",
        "WarmUp",
    ),
    "lambent.runs.compare": ("compare_runs",),
    "lambent.runs.fit": ("fit",),
    "lambent.runs.run": ("Run", "load"),
    "lambent.trace": ("Estimate", "Latent", "Trace"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: torch is heavy."""
    if name == "recipe_names":
        value: Any = import_module("lambent.recipes.table").names
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'lambent' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
