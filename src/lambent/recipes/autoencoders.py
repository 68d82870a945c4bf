"""Recipes of autoencoders: a deterministic or fixed-noise code, with and without a penalty on it."""

from __future__ import annotations

import math

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import ANNEALED, LINEAR, REAL

_AUTOENCODER: Settings = {
    **REAL,
    "prior": {"name": "flat"},
    "posterior": {"name": "delta"},
    "likelihood": {"name": "normal"},
}
_MATCHED: Settings = {
    **REAL,
    "posterior": {"name": "delta"},
    "likelihood": {"name": "normal", "sigma": math.sqrt(0.5)},  # -log p(x|z) is the squared error and a constant
    "rate": {"name": "beta", "beta": 0.0},
    "train": {"select_checkpoint": "last"},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "linear-ae",
        "linear autoencoder: spans the PCA subspace",
        "Baldi & Hornik 1989, Neural Networks 2(1)",
        {**_AUTOENCODER, **LINEAR, "train": {**ANNEALED, "epochs": 300}},
        "the subspace of the leading principal components (their Fact 1)",
    ),
    Recipe("ae", "autoencoder, undercomplete", "Hinton & Salakhutdinov 2006, Science 313", {**_AUTOENCODER}),
    Recipe(
        "sparse-ae",
        "autoencoder with an L1 penalty on its code",
        "Ng 2011, CS294A notes; Olshausen & Field 1996",
        {**_AUTOENCODER, "penalty": {"name": "l1", "weight": 0.05}, "model": {"latent": 32}},
    ),
    Recipe(
        "denoising-ae",
        "autoencoder that undoes noise",
        "Vincent et al. 2008, ICML",
        {**_AUTOENCODER, "corruption": {"name": "gaussian", "noise": 0.3}, "model": {"latent": 32}},
    ),
    Recipe(
        "probabilistic-ae",
        "autoencoder with a unit-variance Normal code",
        "Ghosh et al. 2020, ICLR, section 3 (constant-variance encoder)",
        {**_AUTOENCODER, "posterior": {"name": "normal", "scale": 1.0}},
    ),
    Recipe(
        "regularised-ae",
        "probabilistic autoencoder with an L2 penalty on the code's mean",
        "Ghosh et al. 2020, ICLR, eq. 11",
        {**_AUTOENCODER, "posterior": {"name": "normal", "scale": 1.0}, "penalty": {"name": "l2", "weight": 1e-3}},
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
