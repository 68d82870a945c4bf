"""Recipes of text: a density of bytes, and a VAE whose decoder writes byte by byte."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings

_TEXT: Settings = {
    "likelihood": {"name": "text"},
    "train": {"batch_size": 32, "lr": 2e-3, "grad_clip": 1.0, "epochs": 20},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "char-lm",
        "LSTM over the bytes of a text, in blocks of 128 (or decoder=transformer)",
        "Graves 2013, arXiv:1308.0850",
        {
            **_TEXT,
            "model": {"name": "density"},
            "objective": {"name": "log-likelihood"},
            "decoder": {"name": "lstm", "hidden_dim": 256, "embedding": 64},
            "data": {"examples": "blocks", "length": 128},
        },
    ),
    Recipe(
        "sentence-vae",
        "LSTMs that read and write lines of up to 64 bytes; as it stands the posterior collapses",
        "Bowman, Vilnis, Vinyals, Dai, Jozefowicz & Bengio 2016, CoNLL",
        {
            **_TEXT,
            "model": {"name": "vae", "latent": 32},
            "encoder": {"name": "lstm", "hidden_dim": 256, "embedding": 64, "end": -1},
            "decoder": {"name": "lstm", "hidden_dim": 256, "embedding": 64},
            "data": {"examples": "lines", "length": 64},
        },
    ),
)
