"""A complete configuration, from layers of settings, and what its parts must agree on."""

from lambent.config.config import Config, completed, resolve
from lambent.config.layers import layer_of_file, layer_of_run, layer_of_settings, layer_of_values
from lambent.config.rules import biases, check
from lambent.config.tokens import layer_of_tokens, settings_of_tokens

__all__ = [
    "Config",
    "biases",
    "check",
    "completed",
    "layer_of_file",
    "layer_of_run",
    "layer_of_settings",
    "layer_of_tokens",
    "layer_of_values",
    "resolve",
    "settings_of_tokens",
]
