"""Settings that recipes of several kinds share."""

from __future__ import annotations

from lambent.recipes.recipe import Settings

BINARY: Settings = {"data": {"binarize": "dynamic"}}
REAL: Settings = {"data": {"scale": "unit"}}
LINEAR: Settings = {"encoder": {"name": "linear"}, "decoder": {"name": "linear"}}
ANNEALED = {"lr": 1e-2, "lr_schedule": "cosine", "final_lr_fraction": 0.0}
BURDA: Settings = {
    "model": {"latent": 50},
    "encoder": {"hidden": [200, 200], "activation": "tanh"},
    "decoder": {"hidden": [200, 200], "activation": "tanh"},
}
"""The networks of Burda et al. (2016)."""
