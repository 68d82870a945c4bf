"""Recipes of ladders of maps: NVAE and VDVAE at the published sizes, and ``-small`` ones for two cores."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe
from lambent.recipes.shared import BINARY

_SMALL_TRAIN = {
    "lr": 1e-3,
    "warmup_steps": 200,
    "batch_size": 50,
    "lr_schedule": "cosine",
    "final_lr_fraction": 0.0,
    "epochs": 30,
    "grad_clip": 200.0,
    "grad_spike_factor": 10.0,
    "ema": 50_000.0,
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "nvae",
        "15 levels at two resolutions, of depthwise blocks, residual posteriors and spectral penalty; MNIST's sizes",
        "Vahdat & Kautz 2020, NeurIPS, Table 6; without batch norm",
        {
            **BINARY,
            "model": {
                "name": "image-ladder",
                "latent": 20,
                "levels_per_scale": [5, 10],
                "block": "depthwise",
                "blocks": 2,
                "spectral": 0.01,
            },
            "posterior": {"name": "residual-normal"},
            "encoder": {"name": "conv", "channels": [64, 128, 256], "blocks": 3, "activation": "silu"},
            "decoder": {"name": "conv", "channels": [64, 128], "blocks": 3, "activation": "silu"},
            "rate": {"name": "kl-balancing", "steps": 15_000},
            "train": {
                "epochs": 400,
                "batch_size": 400,
                "lr_schedule": "cosine",
                "warmup_steps": 750,
                "grad_spike_factor": 10.0,
                "validate_every": 10,
            },
        },
        "MNIST, dynamic binarisation: 78.01 nats (Vahdat & Kautz 2020, Table 1)",
    ),
    Recipe(
        "nvae-small",
        "a ladder of seven levels at three resolutions with residual posteriors, sized for two cores",
        "Vahdat & Kautz 2020, NeurIPS",
        {
            **BINARY,
            "model": {"name": "image-ladder", "latent": 4, "levels_per_scale": [2, 3, 2]},
            "posterior": {"name": "residual-normal"},
            "encoder": {"name": "conv", "channels": [32, 48, 64], "activation": "relu"},
            "decoder": {"name": "conv", "channels": [32], "activation": "relu"},
            "rate": {"name": "warm-up", "steps": 500},
            "train": _SMALL_TRAIN,
        },
    ),
    Recipe(
        "vdvae",
        "43 levels from 1 x 1 to 32 x 32, of bottleneck blocks; the sizes for colour images of 32 x 32",
        "Child 2021, ICLR, Table 1 and its public settings for CIFAR-10",
        {
            "model": {
                "name": "image-ladder",
                "latent": 16,
                "levels_per_scale": [1, 0, 3, 6, 11, 22],
                "block": "bottleneck",
            },
            "encoder": {"name": "conv", "channels": [384], "blocks": 6, "activation": "gelu", "smallest": 1},
            "decoder": {"name": "conv", "channels": [384], "blocks": 0, "activation": "gelu"},
            "likelihood": {"name": "pixel-mixture"},
            "train": {
                "lr": 2e-4,
                "warmup_steps": 100,
                "batch_size": 32,
                "beta2": 0.9,
                "weight_decay": 0.01,
                "grad_clip": 200.0,
                "grad_spike_factor": 10.0,
                "ema": 220_000.0,
                "epochs": 650,
                "validate_every": 10,
            },
        },
        "CIFAR-10: at most 2.87 bits/dim, 39M parameters (Child 2021, Table 3)",
    ),
    Recipe(
        "vdvae-small",
        "a ladder of ten levels from 4 x 4 to 14 x 14, of bottleneck blocks, sized for two cores",
        "Child 2021, ICLR",
        {
            **BINARY,
            "model": {"name": "image-ladder", "latent": 4, "levels_per_scale": [3, 5, 2], "block": "bottleneck"},
            "encoder": {"name": "conv", "channels": [32, 64, 64], "activation": "relu"},
            "decoder": {"name": "conv", "channels": [32], "activation": "relu"},
            "rate": {"name": "warm-up", "steps": 500},
            "train": _SMALL_TRAIN,
        },
    ),
)
