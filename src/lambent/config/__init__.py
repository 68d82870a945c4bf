"""A complete configuration, from layers of settings, and what its parts must agree on."""

from lambent.config.config import Config, completed, layer_of_file, layer_of_tokens, layer_of_values, resolve
from lambent.config.rules import biases, check, objective_of, rate_of

__all__ = [
    "Config",
    "biases",
    "check",
    "completed",
    "layer_of_file",
    "layer_of_tokens",
    "layer_of_values",
    "objective_of",
    "rate_of",
    "resolve",
]
