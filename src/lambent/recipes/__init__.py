"""The named systems as data, and how a configuration becomes a model."""

from lambent.recipes.check import biases, check, objective_of, rate_of
from lambent.recipes.code_structure import CodeStructure
from lambent.recipes.config import Config, completed, layer_of_file, layer_of_tokens, layer_of_values, resolve
from lambent.recipes.diffusion_structure import DiffusionStructure
from lambent.recipes.image_ladder_structure import ImageLadderStructure
from lambent.recipes.ladder_structure import LadderStructure
from lambent.recipes.recipe import Recipe
from lambent.recipes.recurrent_structure import RecurrentStructure
from lambent.recipes.table import RECIPES, configure, find_recipe

__all__ = [
    "RECIPES",
    "CodeStructure",
    "Config",
    "DiffusionStructure",
    "ImageLadderStructure",
    "LadderStructure",
    "Recipe",
    "RecurrentStructure",
    "biases",
    "check",
    "completed",
    "configure",
    "find_recipe",
    "layer_of_file",
    "layer_of_tokens",
    "layer_of_values",
    "objective_of",
    "rate_of",
    "resolve",
]
