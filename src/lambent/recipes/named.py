"""All recipes by name, and how one becomes a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambent.config.config import Config, resolve
from lambent.config.layers import Layer, layer_of_settings
from lambent.config.rules import check
from lambent.config.tokens import settings_of_tokens
from lambent.errors import ConfigError
from lambent.recipes import (
    autoencoders,
    autoregressive,
    diffusion,
    discrete,
    hierarchical,
    image_hierarchical,
    importance_weighted,
    linear_gaussian,
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
        *autoencoders.RECIPES,
        *linear_gaussian.RECIPES,
        *vae.RECIPES,
        *importance_weighted.RECIPES,
        *discrete.RECIPES,
        *quantised.RECIPES,
        *hierarchical.RECIPES,
        *image_hierarchical.RECIPES,
        *autoregressive.RECIPES,
        *diffusion.RECIPES,
        *text.RECIPES,
        *toy.RECIPES,
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; an unknown one is refused with its nearest neighbour."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is not known{nearest(name, RECIPES)}; see `lambent recipes`")
    return RECIPES[name]


def configure(
    recipe: str, *layers: Layer, tokens: tuple[str, ...] = (), settings: Mapping[str, Any] | None = None
) -> Config:
    """The checked configuration of a recipe under further layers, ``key=value`` tokens and settings by name.

    >>> configure("beta-vae", settings={"beta": 2, "latent": 6}).rate
    Beta(beta=2.0)

    Raises:
        ConfigError: unknown recipe, key or value.
        CombinationError: parts that are incompatible.
    """
    below = (find_recipe(recipe).settings, *layers)
    given = {**settings_of_tokens(tokens), **(settings or {})}
    config = resolve(recipe, *below, layer_of_settings(given, below))
    check(config)
    return config


def names() -> list[str]:
    """The names of all recipes.

    >>> "vae" in names()
    True
    """
    return list(RECIPES)
