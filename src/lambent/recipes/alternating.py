"""Recipes that update one side at a time: EM, encoder first, frozen sides."""

from __future__ import annotations

from lambent.recipes import vae as reparameterised
from lambent.recipes.recipe import Recipe, Settings


def _by_em(name: str) -> Settings:
    """The model of the recipe ``name``, solved on the whole data at a time instead of descended."""
    (like,) = (recipe.settings for recipe in reparameterised.RECIPES if recipe.name == name)
    whole = {"batch_size": 10**9, "epochs": 100, "log_every": 1, "validate_every": 10}
    return {**like, "schedule": {"name": "em"}, "train": whole}


RECIPES: tuple[Recipe, ...] = (
    Recipe("em-gmm", "mixture of diagonal Normals by EM", "Dempster, Laird & Rubin 1977, JRSS B 39(1)", _by_em("gmm")),
    Recipe(
        "em-ppca",
        "probabilistic PCA by EM",
        "Tipping & Bishop 1999, JRSS B 61(3), appendix B",
        _by_em("ppca"),
        "the closed-form maximum likelihood (their eq. 7 and 8)",
    ),
    Recipe("em-fa", "factor analysis by EM", "Rubin & Thayer 1982, Psychometrika 47", _by_em("factor-analysis")),
    Recipe(
        "lagging-vae",
        "VAE whose encoder is trained first at every step, until its information stops rising",
        "He, Spokoyny, Neubig & Berg-Kirkpatrick 2019, ICLR, algorithm 1",
        {"data": {"binarize": "dynamic"}, "schedule": {"name": "aggressive-encoder"}},
    ),
    Recipe(
        "fixed-encoder",
        "generator trained for an encoder held fixed: that of train.init, yours, or else a random one",
        "Kingma & Welling 2014, ICLR, eq. 3, maximised over the generator alone",
        {
            "data": {"scale": "unit"},
            "likelihood": {"name": "normal", "sigma": 0.1},
            "train": {"freeze": "inference", "init_side": "inference"},
        },
    ),
    Recipe(
        "gan-inverter",
        "encoder trained alone to invert a given generator: that of train.init, or yours",
        "Dumoulin et al. 2017, ICLR, section 3.4 (learning an inverse mapping post hoc); Hinton et al. 1995",
        {
            "data": {"scale": "unit"},
            "likelihood": {"name": "normal", "sigma": 0.1},
            "objective": {"name": "sleep", "sleep_x": "mean"},
            "train": {"freeze": "generative", "init_side": "generative", "select_checkpoint": "last"},
        },
    ),
)
