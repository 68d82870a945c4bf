"""Recipes of discrete latents."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings
from lambent.recipes.shared import BINARY, LINEAR

_BERNOULLI: Settings = {**BINARY, "prior": {"name": "bernoulli"}, "posterior": {"name": "bernoulli"}}
_BELIEF_NET: Settings = {**_BERNOULLI, **LINEAR, "model": {"latent": 200}}
_DEEP_BELIEF_NET: Settings = {**_BERNOULLI, **LINEAR, "model": {"name": "chain", "latent": 200, "upper_latents": [200]}}
_CATEGORIES: Settings = {
    **BINARY,
    "model": {"latent": 200},
    "prior": {"name": "categorical", "classes": 10, "learned": False},
    "posterior": {"name": "categorical", "classes": 10},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "sbn",
        "sigmoid belief network of two layers, by scores with leave-one-out baselines",
        "Neal 1992, Artificial Intelligence 56; Kool, van Hoof & Welling 2019",
        {**_DEEP_BELIEF_NET, "draw": {"name": "score", "baseline": "leave-one-out", "samples": 4}},
    ),
    Recipe(
        "helmholtz",
        "Helmholtz machine of two layers, by wake-sleep",
        "Dayan, Hinton, Neal & Zemel 1995; Hinton et al. 1995, Science 268",
        {**_DEEP_BELIEF_NET, "draw": {"name": "detached"}, "objective": {"name": "wake-sleep"}},
    ),
    Recipe(
        "darn",
        "binary latents in order: autoregressive prior and posterior",
        "Gregor et al. 2014, ICML",
        {
            **BINARY,
            "model": {"latent": 64},
            "prior": {"name": "autoregressive-bernoulli"},
            "posterior": {"name": "autoregressive-bernoulli"},
            "draw": {"name": "score", "baseline": "leave-one-out", "samples": 4},
        },
    ),
    Recipe(
        "rws",
        "sigmoid belief network by reweighted wake-sleep, K = 5",
        "Bornschein & Bengio 2015, ICLR",
        {**_DEEP_BELIEF_NET, "draw": {"name": "detached", "samples": 5}, "objective": {"name": "rws"}},
    ),
    Recipe(
        "nvil",
        "belief network by scores with a learned baseline",
        "Mnih & Gregor 2014, ICML",
        {**_BELIEF_NET, "draw": {"name": "score", "baseline": "learned"}},
        "static MNIST, 200 units, training ELBO after 2,000,000 steps: -112.5 nats (Grathwohl et al. 2018, Table 1)",
    ),
    Recipe(
        "vimco",
        "belief network by an importance-weighted bound with leave-one-out baselines, K = 5",
        "Mnih & Rezende 2016, ICML",
        {
            **_BELIEF_NET,
            "draw": {"name": "score", "baseline": "leave-one-out", "samples": 5},
            "objective": {"name": "iwae"},
        },
    ),
    Recipe(
        "relax",
        "belief network by scores with a learned control variate",
        "Grathwohl et al. 2018, ICLR",
        {**_BELIEF_NET, "draw": {"name": "relax"}},
        "static MNIST, 200 units, training ELBO after 2,000,000 steps: -111.20 nats (their Table 1)",
    ),
    Recipe(
        "gumbel-vae",
        "VAE of 20 categorical latents, through Gumbel-softmax",
        "Jang, Gu & Poole 2017, ICLR; Maddison, Mnih & Teh 2017, ICLR",
        {**_CATEGORIES, "draw": {"name": "gumbel"}},
    ),
    Recipe(
        "st-vae",
        "VAE of 20 categorical latents, straight through",
        "Bengio, Leonard & Courville 2013, arXiv:1308.3432",
        {**_CATEGORIES, "draw": {"name": "straight-through"}},
    ),
    Recipe(
        "categorical-vae",
        "VAE of two categorical latents, summed exactly",
        "Jang, Gu & Poole 2017, ICLR, section 4.3",
        {
            **_CATEGORIES,
            "model": {"latent": 20},
            "prior": {"name": "categorical", "classes": 10},
            "draw": {"name": "enumerate"},
        },
    ),
    Recipe(
        "byte-vae",
        "two levels of bytes: a deterministic encoder, rounded; Normals on the numbers before rounding downwards",
        "no paper known that defines it; straight through: Bengio, Leonard & Courville 2013, arXiv:1308.3432",
        {
            "model": {"name": "chain", "latent": 8, "upper_latents": [4]},
            "prior": {"name": "bytes", "learned": "normal"},
            "posterior": {"name": "bytes"},
            "likelihood": {"name": "discretised-logistic"},
            "draw": {"name": "straight-through"},
            "train": {"lr": 3e-3, "lr_schedule": "cosine", "final_lr_fraction": 0.0},
        },
    ),
)
