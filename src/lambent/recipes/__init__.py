"""The named systems, as data."""

from lambent.recipes.recipe import Recipe
from lambent.recipes.table import RECIPES, configure, find_recipe

__all__ = ["RECIPES", "Recipe", "configure", "find_recipe"]
