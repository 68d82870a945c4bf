"""Toy problems whose gradients are known in closed form."""

from __future__ import annotations

import math

from lambent.recipes.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "toy-gradients",
        "minimise E||z - c||^2 over the mean of z ~ N(mu, I), c = (5, 5): score function against pathwise",
        "Mohamed, Rosca, Figurnov & Mnih 2020, JMLR 21, sections 3 to 5",
        {
            "model": {"latent": 2},
            "prior": {"name": "flat"},
            "posterior": {"name": "normal", "scale": 1.0},
            "encoder": {"name": "constant"},
            "decoder": {"name": "identity"},
            "likelihood": {"name": "normal", "sigma": math.sqrt(0.5)},  # log p(x|z) = -||x - z||^2 - log pi
            "rate": {"name": "beta", "beta": 0.0},
            "data": {"source": "point:5,5"},
            "train": {
                "steps": 2000,
                "lr": 0.05,
                "lr_schedule": "cosine",
                "final_lr_fraction": 0.0,
                "validate_every": 200,
                "valid_samples": 100,
                "select_checkpoint": "last",
            },
        },
        "gradient 2 (mu - c); pathwise variance 4 per dimension",
    ),
)
