"""Recipes of discrete latents, learnt without reparameterisation."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = ()
