"""Recipes of diffusions over x and over the latents of a VAE; each ``-small`` one is sized for a CPU core."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import BINARY

_DIFFUSION: Settings = {
    "model": {"name": "diffusion"},
    "posterior": {"name": "noising"},
    "likelihood": {"name": "categorical"},
}
_PUBLISHED = {
    "batch_size": 128,
    "lr": 2e-4,
    "ema": 887_000,
    "precision": "bfloat16",
    "validate_every": 50,
    "monitor_examples": 0,
}
"""A half-life of 6,931 steps of 128 is a decay of 0.9999 a step."""
_SMALL: Settings = {
    "decoder": {"name": "unet", "channels": [24, 48, 64], "blocks": 1, "smallest": 7, "attention": 1},
    "train": {
        "batch_size": 32,
        "lr": 2e-3,
        "warmup_steps": 200,
        "lr_schedule": "cosine",
        "ema": 10_000,
        "beta2": 0.99,
        "precision": "bfloat16",
        "epochs": 5,
        "monitor_examples": 0,
    },
}
_DDPM = {"name": "noising", "noise_schedule": "ddpm", "gamma_min": -9.2103, "gamma_max": 10.1177}
"""Noise of the first and the last of 1,000 levels of which beta rises from 1e-4 to 0.02."""
_SIMPLE: Settings = {
    "model": {"name": "diffusion", "timesteps": 1000, "predict": "eps"},
    "posterior": _DDPM,
    "rate": {"name": "snr-weighted"},
}
_COSINE = {"name": "noising", "noise_schedule": "cosine", "gamma_min": -11.526, "gamma_max": 15.0}
"""Noise of the first of 4,000 levels; where the published rule caps beta, signal is gone all the same."""
_VDM = {"name": "noising", "noise_schedule": "learned", "gamma_min": -13.3, "gamma_max": 5.0}
_UNET = {"name": "unet", "channels": [128, 256, 256, 256], "smallest": 4, "attention": 16}
"""32 x 32, 16 x 16, 8 x 8 and 4 x 4, with attention at 16 x 16 and below."""

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
        "ddpm",
        "denoising diffusion, T = 1,000, trained by the simple loss, for CIFAR-10: 39.9 million weights",
        "Ho, Jain & Abbeel 2020, NeurIPS",
        {
            **_DIFFUSION,
            **_SIMPLE,
            "decoder": {**_UNET, "blocks": 2, "dropout": 0.1},
            "train": {**_PUBLISHED, "steps": 800_000, "warmup_steps": 5000, "select_checkpoint": "last"},
        },
        "CIFAR-10: <= 3.75 bits/dim by the simple loss, 35.7 million weights (Ho et al. 2020, Table 1)",
    ),
    Recipe(
        "ddpm-small",
        "denoising diffusion, T = 1,000, trained by the simple loss, for 28 x 28 grey levels",
        "Ho, Jain & Abbeel 2020, NeurIPS",
        {**_DIFFUSION, **_SMALL, **_SIMPLE, "train": {**_SMALL["train"], "select_checkpoint": "last"}},
    ),
    Recipe(
        "cosine-diffusion",
        "cosine schedule, T = 4,000, noise levels drawn by what they cost, for CIFAR-10: 53.3 million weights",
        "Nichol & Dhariwal 2021, ICML",
        {
            **_DIFFUSION,
            "model": {"name": "diffusion", "timesteps": 4000, "predict": "eps", "importance": "always"},
            "posterior": _COSINE,
            "decoder": {**_UNET, "blocks": 3, "dropout": 0.3},
            "train": {**_PUBLISHED, "lr": 1e-4, "steps": 500_000},
        },
        "CIFAR-10: <= 2.94 bits/dim, trained for the bound (Nichol & Dhariwal 2021, Table 2)",
    ),
    Recipe(
        "cosine-diffusion-small",
        "cosine schedule, T = 4,000, for 28 x 28 grey levels",
        "Nichol & Dhariwal 2021, ICML",
        {
            **_DIFFUSION,
            **_SMALL,
            "model": {"name": "diffusion", "timesteps": 4000, "predict": "eps", "importance": "always"},
            "posterior": _COSINE,
        },
    ),
    Recipe(
        "vdm",
        "variational diffusion: continuous, schedule learned, Fourier features; for CIFAR-10: 34.9 million weights",
        "Kingma, Salimans, Poole & Ho 2021, NeurIPS",
        {
            **_DIFFUSION,
            "model": {"name": "diffusion", "predict": "eps"},
            "posterior": _VDM,
            "decoder": {
                "name": "unet",
                "channels": [128],
                "blocks": 32,
                "smallest": 32,
                "attention": 1,
                "dropout": 0.1,
                "fourier": [7, 8],
            },
            "train": {**_PUBLISHED, "steps": 10_000_000, "warmup_steps": 100, "beta2": 0.99, "weight_decay": 0.01},
        },
        "CIFAR-10, no augmentation: <= 2.65 bits/dim (Kingma et al. 2021, Table 1)",
    ),
    Recipe(
        "vdm-small",
        "variational diffusion: continuous time, learned schedule, Fourier features, for 28 x 28 grey levels",
        "Kingma, Salimans, Poole & Ho 2021, NeurIPS",
        {
            **_DIFFUSION,
            **_SMALL,
            "model": {"name": "diffusion", "predict": "eps"},
            "posterior": _VDM,
            "decoder": {**_SMALL["decoder"], "fourier": [4, 5, 6, 7, 8]},
        },
    ),
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
