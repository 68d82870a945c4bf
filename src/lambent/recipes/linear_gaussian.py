"""Recipes of models with an exact likelihood: linear-Gaussian ones and mixtures, by gradients and by EM."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import ANNEALED, LINEAR, REAL

_LINEAR_GAUSSIAN: Settings = {
    **LINEAR,
    **REAL,
    "posterior": {"name": "full-cov", "shared": True},
    "draw": {"name": "stl"},
    "train": {**ANNEALED, "batch_size": 500, "epochs": 1200, "validate_every": 40},
}

_BY_GRADIENTS: tuple[Recipe, ...] = (
    Recipe(
        "ppca",
        "probabilistic PCA",
        "Tipping & Bishop 1999, JRSS B 61(3)",
        {**_LINEAR_GAUSSIAN, "likelihood": {"name": "normal", "scale": "model", "sigma": 0.3}},
        "the closed-form maximum likelihood (their eq. 7 and 8)",
    ),
    Recipe(
        "factor-analysis",
        "factor analysis",
        "Rubin & Thayer 1982, Psychometrika 47",
        {**_LINEAR_GAUSSIAN, "likelihood": {"name": "normal", "scale": "dimension", "sigma": 0.3}},
    ),
    Recipe(
        "gmm",
        "mixture of diagonal Normals, enumerated exactly",
        "Dempster, Laird & Rubin 1977, JRSS B 39(1)",
        {
            **REAL,
            "decoder": {"name": "linear"},
            "model": {"name": "mixture", "latent": 10},
            "prior": {"name": "categorical"},
            "likelihood": {"name": "normal", "scale": "element", "sigma": 0.3},
            "draw": {"name": "enumerate"},
            "train": {**ANNEALED, "epochs": 100},
        },
    ),
)


def _by_em(name: str) -> Settings:
    """The model of the recipe ``name``, each step an EM iteration on the whole training set."""
    (like,) = (recipe.settings for recipe in _BY_GRADIENTS if recipe.name == name)
    whole = {"batch_size": 10**9, "epochs": 100, "log_every": 1, "validate_every": 10}
    return {**like, "schedule": {"name": "em"}, "train": whole}


RECIPES: tuple[Recipe, ...] = (
    *_BY_GRADIENTS,
    Recipe(
        "em-ppca",
        "probabilistic PCA by EM",
        "Tipping & Bishop 1999, JRSS B 61(3), appendix B",
        _by_em("ppca"),
        "the closed-form maximum likelihood (their eq. 7 and 8)",
    ),
    Recipe("em-fa", "factor analysis by EM", "Rubin & Thayer 1982, Psychometrika 47", _by_em("factor-analysis")),
    Recipe("em-gmm", "mixture of diagonal Normals by EM", "Dempster, Laird & Rubin 1977, JRSS B 39(1)", _by_em("gmm")),
)
