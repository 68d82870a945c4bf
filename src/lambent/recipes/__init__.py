"""The named systems, as data."""

from lambent.recipes.named import RECIPES, configure, find_recipe
from lambent.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe", "configure", "find_recipe"]
