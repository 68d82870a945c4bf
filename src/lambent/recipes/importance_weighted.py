"""Recipes of importance-weighted bounds."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe
from lambent.recipes.shared import BINARY, BURDA

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "iwae",
        "importance-weighted autoencoder, K = 5",
        "Burda, Grosse & Salakhutdinov 2016, ICLR",
        {**BINARY, **BURDA, "objective": {"name": "iwae"}, "draw": {"samples": 5}},
        "MNIST, dynamic binarisation: 85.54 nats, IWAE-5000 (Burda et al. 2016, Table 1)",
    ),
    Recipe(
        "iwae-dreg",
        "IWAE with doubly reparameterised gradients",
        "Tucker et al. 2019, ICLR",
        {**BINARY, **BURDA, "objective": {"name": "iwae"}, "draw": {"name": "dreg", "samples": 5}},
    ),
    Recipe(
        "miwae",
        "mean of 8 IWAE bounds of 8 samples",
        "Rainforth et al. 2018, ICML (MIWAE)",
        {**BINARY, **BURDA, "objective": {"name": "miwae", "groups": 8}, "draw": {"samples": 64}},
        "MNIST, dynamic binarisation: 84.97 nats, IWAE-5000 (as pythae quotes them)",
    ),
    Recipe(
        "ciwae",
        "blend of ELBO and IWAE bound",
        "Rainforth et al. 2018, ICML (CIWAE)",
        {**BINARY, **BURDA, "objective": {"name": "ciwae", "beta": 0.05}, "draw": {"samples": 64}},
        "MNIST, dynamic binarisation: 84.57 nats, IWAE-5000 (as pythae quotes them)",
    ),
    Recipe(
        "piwae",
        "IWAE bound for the decoder, 8 bounds of 8 samples for the encoder",
        "Rainforth et al. 2018, ICML (PIWAE)",
        {**BINARY, **BURDA, "objective": {"name": "piwae", "groups": 8}, "draw": {"samples": 64}},
        "MNIST, dynamic binarisation: 84.46 nats, IWAE-5000 (as pythae quotes them)",
    ),
)
