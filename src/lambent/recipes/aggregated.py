"""Recipes whose objective looks at the aggregated posterior."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
