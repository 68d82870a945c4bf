"""Recipes that update one side at a time: EM, encoder first, frozen sides."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
