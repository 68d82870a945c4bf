"""Recipes of latent diffusion: a VAE, then a diffusion over its latents as their prior."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.vae import BINARY

_STAGES: Settings = {
    **BINARY,
    "encoder": {"name": "conv"},
    "decoder": {"name": "conv"},
    "rate": {"name": "beta", "beta": 0.5},
    "schedule": {"name": "two-stage"},
}
"""An autoencoder that pays half its rate leaves a q(z) that a Normal doesn't fit and a diffusion does."""

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "latent-diffusion",
        "VAE, then a diffusion over its latents as their prior, the autoencoder frozen; 60 million weights",
        "Rombach et al. 2022, CVPR (two stages); Vahdat, Kreis & Kautz 2021, NeurIPS (the bound, v = 0 the Normal)",
        {
            **_STAGES,
            "model": {"latent": 128},
            "encoder": {"name": "conv", "channels": [64, 128, 256]},
            "decoder": {"name": "conv", "channels": [64, 128, 256]},
            "prior": {
                "name": "latent-diffusion",
                "hidden_dim": 1024,
                "blocks": 12,
                "dropout": 0.1,
                "sampling_steps": 1000,
            },
            "schedule": {"name": "two-stage", "autoencoder_epochs": 200},
            "train": {
                "epochs": 1000,
                "batch_size": 128,
                "lr": 3e-4,
                "warmup_steps": 1000,
                "lr_schedule": "cosine",
                "ema": 887_000,
                "precision": "bfloat16",
                "validate_every": 20,
                "monitor_examples": 0,
            },
        },
    ),
    Recipe(
        "latent-diffusion-small",
        "VAE of 16 latents, then a small diffusion over them as their prior, in minutes",
        "Rombach et al. 2022, CVPR (two stages); Vahdat, Kreis & Kautz 2021, NeurIPS (the bound, v = 0 the Normal)",
        {
            **_STAGES,
            "model": {"latent": 16},
            "encoder": {"name": "conv", "channels": [16, 32]},
            "decoder": {"name": "conv", "channels": [16, 32]},
            "prior": {"name": "latent-diffusion", "hidden_dim": 128, "blocks": 2},
            "schedule": {"name": "two-stage", "autoencoder_epochs": 15},
            "train": {"epochs": 25, "lr": 2e-3, "lr_schedule": "cosine", "ema": 20_000, "validate_every": 5},
        },
    ),
)
