"""Recipes of several levels of latents: chains and ladders; each ``-small`` one is sized for two cores."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import BINARY, BURDA

_BURDA_2: Settings = {
    **BINARY,
    **BURDA,
    "model": {"name": "chain", "latent": 100, "upper_latents": [50], "between_hidden": [100, 100]},
    "objective": {"name": "iwae"},
}
"""784-200-200-100 and 100-100-100-50 units, tanh, upwards and downwards."""

_MERGED: Settings = {**BINARY, "posterior": {"name": "merged-normal"}}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "iwae-2layer",
        "importance-weighted autoencoder of two stochastic layers, K = 50, as published",
        "Burda, Grosse & Salakhutdinov 2016, ICLR, section 5.1",
        {
            **_BURDA_2,
            "draw": {"samples": 50},
            "train": {
                "epochs": 3280,
                "batch_size": 20,
                "lr_schedule": "staircase",
                "final_lr_fraction": 0.1,
                "eps": 1e-4,
                "validate_every": 10,
            },
        },
        "MNIST, dynamic binarisation: 82.90 nats, IWAE-5000 (Burda et al. 2016, Table 1)",
    ),
    Recipe(
        "iwae-2layer-small",
        "importance-weighted autoencoder of two stochastic layers with K = 5, for a training in minutes",
        "Burda, Grosse & Salakhutdinov 2016, ICLR, section 5.1",
        {
            **_BURDA_2,
            "draw": {"samples": 5},
            "train": {"batch_size": 50, "lr": 1.5e-3, "lr_schedule": "cosine", "final_lr_fraction": 0.0, "epochs": 160},
        },
        "MNIST, dynamic binarisation, K = 5: 83.89 nats, IWAE-5000 (Burda et al. 2016, Table 1)",
    ),
    Recipe(
        "lvae",
        "ladder VAE of five stochastic layers, of the published sizes; layer normalisation instead of batch norm",
        "Sonderby et al. 2016, NeurIPS",
        {
            **_MERGED,
            "model": {
                "name": "ladder",
                "latent": 64,
                "upper_latents": [32, 16, 8, 4],
                "between_hidden": [256, 128, 64, 32],
                "layers": 2,
                "skip": False,
            },
            "encoder": {"hidden": [512, 512], "activation": "leaky-relu"},
            "decoder": {"hidden": [512, 512], "activation": "leaky-relu"},
            "rate": {"name": "warm-up", "steps": 42_000},
            "train": {"epochs": 2000, "batch_size": 256, "validate_every": 10},
        },
        "MNIST, dynamic binarisation, after fine-tuning with K = 10: 81.74 nats, IWAE-5000 (Sonderby et al. 2016)",
    ),
    Recipe(
        "lvae-small",
        "a ladder VAE of three levels that all lower ones and the decoder see",
        "Sonderby et al. 2016, NeurIPS",
        {
            **_MERGED,
            "model": {"name": "ladder", "latent": 32, "upper_latents": [16, 8], "between_hidden": [100, 50]},
            "encoder": {"hidden": [200, 200], "activation": "elu"},
            "decoder": {"hidden": [200, 200], "activation": "elu"},
            "rate": {"name": "warm-up", "steps": 2000},
            "train": {"lr": 2e-3, "batch_size": 64, "lr_schedule": "cosine", "final_lr_fraction": 0.0, "epochs": 100},
        },
    ),
    Recipe(
        "dlgm",
        "deep latent Gaussian model: a chain of three levels of Normals, each inferred from the one below",
        "Rezende, Mohamed & Wierstra 2014, ICML",
        {
            **BINARY,
            "model": {"name": "chain", "latent": 100, "upper_latents": [50, 20], "between_hidden": [200]},
            "encoder": {"hidden": [400], "activation": "relu"},
            "decoder": {"hidden": [400], "activation": "relu"},
            "rate": {"name": "warm-up", "steps": 2000},
            "train": {"batch_size": 64, "lr_schedule": "cosine", "final_lr_fraction": 0.0, "epochs": 200},
        },
        "MNIST, static binarisation, q of each level from x: about 86.60 nats (as cited by Gregor et al. 2015)",
    ),
    Recipe(
        "draw",
        "deep recurrent attentive writer: 64 steps of reading and writing through windows, of the published sizes",
        "Gregor, Danihelka, Graves, Rezende & Wierstra 2015, ICML",
        {
            **BINARY,
            "model": {"name": "recurrent", "latent": 100, "glimpses": 64},
            "encoder": {"name": "draw-reader", "hidden_dim": 256, "patch": 2},
            "decoder": {"name": "draw-writer", "hidden_dim": 256, "patch": 5},
            "train": {"batch_size": 128, "lr_schedule": "cosine", "final_lr_fraction": 0.0, "epochs": 200},
        },
        "MNIST, static binarisation: at most 80.97 nats, 87.40 without windows (patch=0) (Gregor et al. 2015)",
    ),
    Recipe(
        "draw-small",
        "deep recurrent attentive writer of ten steps, for a training in minutes",
        "Gregor, Danihelka, Graves, Rezende & Wierstra 2015, ICML",
        {
            **BINARY,
            "model": {"name": "recurrent", "latent": 10, "glimpses": 10},
            "encoder": {"name": "draw-reader", "hidden_dim": 128, "patch": 5},
            "decoder": {"name": "draw-writer", "hidden_dim": 128, "patch": 5},
            "train": {"lr": 2e-3, "batch_size": 64, "lr_schedule": "cosine", "final_lr_fraction": 0.0, "epochs": 100},
        },
    ),
)
