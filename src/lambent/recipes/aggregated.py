"""Recipes whose objective looks at the aggregated posterior."""

from __future__ import annotations

import math

from lambent.recipes.recipe import Recipe, Settings

_BINARY: Settings = {"data": {"binarize": "dynamic"}}
_MATCHED: Settings = {
    "posterior": {"name": "delta"},
    "likelihood": {"name": "normal", "sigma": math.sqrt(0.5)},  # -log p(x|z) is the squared error and a constant
    "rate": {"name": "beta", "beta": 0.0},
    "data": {"scale": "unit"},
    "train": {"select_checkpoint": "last"},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "tc-vae",
        "VAE whose loss charges the total correlation of q(z) more than the rest of the rate",
        "Chen, Li, Grosse & Duvenaud 2018, NeurIPS",
        {**_BINARY, "rate": {"name": "tc", "beta": 6.0}},
    ),
    Recipe(
        "factor-vae",
        "VAE with a critic's estimate of the total correlation as a penalty",
        "Kim & Mnih 2018, ICML",
        {**_BINARY, "penalty": {"name": "factor", "weight": 10.0}, "train": {"lr": 5e-4, "beta1": 0.5}},
    ),
    Recipe(
        "dip-vae",
        "VAE whose latents have the prior's covariance over the data (DIP-VAE-II; kind=i for I)",
        "Kumar, Sattigeri & Balakrishnan 2018, ICLR",
        {**_BINARY, "penalty": {"name": "dip", "kind": "ii"}},
    ),
    Recipe(
        "info-vae",
        "VAE with half of its rate replaced by the discrepancy of q(z) from the prior",
        "Zhao, Song & Ermon 2019, AAAI (alpha = 0.5, lambda = 100.5)",
        {
            **_BINARY,
            "rate": {"name": "beta", "beta": 0.5},
            "penalty": {"name": "mmd", "kernel": "rbf", "weight": 100.0},
        },
    ),
    Recipe(
        "wae",
        "Wasserstein autoencoder: squared error, and the discrepancy of q(z) from the prior (WAE-MMD)",
        "Tolstikhin, Bousquet, Gelly & Schölkopf 2018, ICLR",
        {**_MATCHED, "penalty": {"name": "mmd", "weight": 10.0}},
        "CelebA, 64 x 64: FID 55 (their table 1; a VAE 63), not comparable with nats",
    ),
    Recipe(
        "aae",
        "adversarial autoencoder: a critic tells codes from draws of the prior",
        "Makhzani, Shlens, Jaitly, Goodfellow & Frey 2016, ICLR workshop",
        {
            **_MATCHED,
            "penalty": {"name": "adversarial", "weight": 0.2},
            "train": {"select_checkpoint": "last", "lr": 5e-4, "beta1": 0.5, "lr_schedule": "cosine"},
        },
        "MNIST: 340 ± 2 nats by a Parzen window on 10,000 samples (their table 2), not comparable with log p(x)",
    ),
)
