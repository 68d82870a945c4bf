"""Autoregressive recipes: densities without latents, and decoders given z."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import BINARY

_DENSITY: Settings = {
    **BINARY,
    "model": {"name": "density"},
    "objective": {"name": "log-likelihood"},
}
_IMAGES = {"batch_size": 50, "lr": 2e-3, "lr_schedule": "cosine"}
_LOCAL = {"name": "pixelcnn", "channels": 32, "layers": 4, "context_map": 16}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "made",
        "masked autoencoder as a density: 500 hidden units, one mask, one random ordering",
        "Germain, Gregor, Murray & Larochelle 2015, ICML",
        {**_DENSITY, "decoder": {"name": "made", "hidden": [500], "ordering": "random", "direct_connections": True}},
        "static MNIST, one hidden layer of 8,000 units, one mask: -88.40 nats, exact",
    ),
    Recipe(
        "nade",
        "neural autoregressive distribution estimator: 500 hidden units, one random ordering",
        "Larochelle & Murray 2011, AISTATS",
        {**_DENSITY, "decoder": {"name": "nade", "hidden_dim": 500, "ordering": "random"}},
        "static MNIST, 500 units, one ordering: -88.33 nats, exact",
    ),
    Recipe(
        "pixelcnn",
        "PixelCNN: masked convolutions over the pixels before each one",
        "van den Oord, Kalchbrenner & Kavukcuoglu 2016, ICML",
        {**_DENSITY, "decoder": {"name": "pixelcnn", "channels": 64, "layers": 7}, "train": _IMAGES},
        "static MNIST, 7 layers: -81.30 nats, exact",
    ),
    Recipe(
        "gated-pixelcnn",
        "gated PixelCNN of a size for one CPU core: 7 layers of 32 channels, and a map of places",
        "van den Oord et al. 2016, NeurIPS",
        {
            **_DENSITY,
            "decoder": {
                "name": "gated-pixelcnn",
                "channels": 32,
                "layers": 7,
                "first_kernel": 15,
                "position_channels": 24,
            },
            "train": {**_IMAGES, "batch_size": 16, "lr": 5e-3},
        },
        "static MNIST, PixelCNN of 7 layers: -81.30 nats, exact",
    ),
    Recipe(
        "pixel-transformer",
        "causal transformer over the pixels, of a size for one CPU core: 2 blocks of width 64",
        "Parmar et al. 2018, ICML; Chen et al. 2020, ICML",
        {
            **_DENSITY,
            "decoder": {"name": "transformer", "model_dim": 64, "layers": 2, "dropout": 0.1},
            "train": {**_IMAGES, "warmup_steps": 100},
        },
    ),
    Recipe(
        "pixelvae",
        "VAE whose decoder is a PixelCNN on a map made of z: z for what is global, the PixelCNN for detail",
        "Gulrajani et al. 2017, ICLR",
        {**BINARY, "encoder": {"name": "conv"}, "decoder": {**_LOCAL, "first_kernel": 5}, "train": _IMAGES},
    ),
    Recipe(
        "vlae",
        "variational lossy autoencoder: a PixelCNN that sees 2 pixels around, z must carry the rest; flow prior",
        "Chen et al. 2017, ICLR",
        {
            **BINARY,
            "prior": {"name": "autoregressive-flow"},
            "encoder": {"name": "conv"},
            "decoder": {**_LOCAL, "receptive_field": 2},
            "train": _IMAGES,
        },
    ),
)
