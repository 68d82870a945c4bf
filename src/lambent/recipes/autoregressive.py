"""Recipes of densities without latents: log p(x) is exact."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.reparameterised import BINARY

_DENSITY: Settings = {
    **BINARY,
    "model": {"name": "density"},
    "prior": {"name": "none"},
    "posterior": {"name": "none"},
    "encoder": {"name": "none"},
    "draw": {"name": "none"},
    "objective": {"name": "log-likelihood"},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "made",
        "masked autoencoder as a density: 500 hidden units, one mask, one random ordering",
        "Germain, Gregor, Murray & Larochelle 2015, ICML",
        {**_DENSITY, "decoder": {"name": "made", "hidden": [500], "ordering": "random", "direct": True}},
        "static MNIST, one hidden layer of 8,000 units, one mask: -88.40 nats, exact",
    ),
    Recipe(
        "nade",
        "neural autoregressive distribution estimator: 500 hidden units, one random ordering",
        "Larochelle & Murray 2011, AISTATS",
        {**_DENSITY, "decoder": {"name": "nade", "units": 500, "ordering": "random"}},
        "static MNIST, 500 units, one ordering: -88.33 nats, exact",
    ),
)
