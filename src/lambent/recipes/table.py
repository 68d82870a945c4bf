"""All recipes by name, and how one becomes a configuration."""

from __future__ import annotations

from lambent.config.config import Config, Layer, layer_of_tokens, resolve
from lambent.config.rules import check
from lambent.errors import ConfigError
from lambent.recipes import (
    aggregated,
    alternating,
    autoregressive,
    diffusion,
    discrete,
    hierarchical,
    image_hierarchical,
    latent_diffusion,
    quantised,
    text,
    toy,
    vae,
)
from lambent.recipes.recipe import Recipe
from lambent.settings import nearest

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *vae.RECIPES,
        *discrete.RECIPES,
        *aggregated.RECIPES,
        *alternating.RECIPES,
        *autoregressive.RECIPES,
        *quantised.RECIPES,
        *hierarchical.RECIPES,
        *image_hierarchical.RECIPES,
        *diffusion.RECIPES,
        *latent_diffusion.RECIPES,
        *text.RECIPES,
        *toy.RECIPES,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; an unknown one is refused with its nearest neighbour."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is not known{nearest(name, RECIPES)}; see `lambent recipes`")
    return RECIPES[name]


def configure(recipe: str, *layers: Layer, tokens: tuple[str, ...] = ()) -> Config:
    """The checked configuration of a recipe under further layers and ``key=value`` tokens.

    >>> configure("beta-vae", tokens=("beta=2", "latent=6")).rate
    Beta(beta=2.0)

    Raises:
        ConfigError: unknown recipe, key or value.
        CombinationError: parts that don't go together.
    """
    below = (find_recipe(recipe).settings, *layers)
    config = resolve(recipe, *below, layer_of_tokens(tokens, below))
    check(config)
    return config


def names() -> list[str]:
    """The names of all recipes.

    >>> "vae" in names()
    True
    """
    return list(RECIPES)
