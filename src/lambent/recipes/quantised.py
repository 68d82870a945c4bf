"""Recipes of discrete codes: vector-quantised and finite-scalar autoencoders with priors over their codes."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings

_CODES: Settings = {
    "model": {"name": "quantised"},
    "prior": {"name": "uniform"},
    "posterior": {"name": "vq"},
    "encoder": {"name": "conv", "smallest": 7},
    "decoder": {"name": "conv", "smallest": 7},
    "likelihood": {"name": "logistic-mixture"},
    "draw": {"name": "straight-through"},
    "schedule": {"name": "two-stage"},
    "train": {"epochs": 50},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "vq-vae",
        "vector-quantised VAE: codebook by gradient, prior uniform or learned in a second stage",
        "van den Oord, Vinyals & Kavukcuoglu 2017, NeurIPS",
        {**_CODES, "posterior": {"name": "vq", "codebook_update": "gradient"}},
    ),
    Recipe(
        "vq-vae-ema",
        "VQ-VAE whose codebook is a moving average of what it stands for",
        "van den Oord, Vinyals & Kavukcuoglu 2017, NeurIPS, appendix A.1",
        {**_CODES, "posterior": {"name": "vq", "codebook_update": "ema"}},
    ),
    Recipe(
        "vq-vae-2",
        "two levels of codes, the upper one for what is global",
        "Razavi, van den Oord & Vinyals 2019, NeurIPS",
        {
            **_CODES,
            "model": {"name": "quantised", "halvings": [1]},
            "posterior": {"name": "vq", "codebook_update": "ema"},
        },
    ),
    Recipe(
        "fsq-vae",
        "finite scalar quantisation: a fixed grid in place of a codebook",
        "Mentzer, Minnen, Agustsson & Tschannen 2024, ICLR",
        {**_CODES, "posterior": {"name": "fsq"}},
    ),
)
