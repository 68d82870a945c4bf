"""Recipes of VAEs with one continuous latent: likelihoods, posteriors, and what the loss charges for the rate."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe
from lambent.recipes.shared import BINARY, REAL

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "vae",
        "variational autoencoder with Bernoulli pixels",
        "Kingma & Welling 2014, ICLR",
        {**BINARY},
        "MNIST, dynamic binarisation, 784-200-200-50 tanh: 86.76 nats, IWAE-5000 (Burda et al. 2016, Table 1)",
    ),
    Recipe(
        "gaussian-vae",
        "VAE with Normal pixels of fixed scale",
        "Kingma & Welling 2014, ICLR, appendix C.2",
        {**REAL, "likelihood": {"name": "normal", "sigma": 0.1}},
    ),
    Recipe(
        "sigma-vae",
        "VAE with Normal pixels of one learned scale",
        "Rybkin, Daniilidis & Levine 2021, ICML",
        {**REAL, "likelihood": {"name": "normal", "scale": "model", "sigma": 0.3}},
    ),
    Recipe(
        "fullcov-vae",
        "VAE with a full-covariance posterior",
        "Kingma & Welling 2019, Foundations and Trends, section 2.5.1",
        {**BINARY, "posterior": {"name": "full-cov"}},
    ),
    Recipe(
        "cvae",
        "VAE given the label",
        "Sohn, Lee & Yan 2015, NeurIPS",
        {**BINARY, "prior": {"name": "conditional-normal"}, "data": {"binarize": "dynamic", "condition": "labels"}},
    ),
    Recipe(
        "beta-vae",
        "VAE whose loss charges beta times the rate",
        "Higgins et al. 2017, ICLR",
        {**BINARY, "rate": {"name": "beta", "beta": 4.0}},
    ),
    Recipe(
        "capacity-vae",
        "VAE whose rate is held at a rising capacity",
        "Burgess et al. 2018, arXiv:1804.03599",
        {**BINARY, "rate": {"name": "capacity"}},
    ),
    Recipe(
        "tc-vae",
        "VAE whose loss charges the total correlation of q(z) more than the rest of the rate",
        "Chen, Li, Grosse & Duvenaud 2018, NeurIPS",
        {**BINARY, "rate": {"name": "tc", "beta": 6.0}},
    ),
    Recipe(
        "factor-vae",
        "VAE with a critic's estimate of the total correlation as a penalty",
        "Kim & Mnih 2018, ICML",
        {**BINARY, "penalty": {"name": "factor", "weight": 10.0}, "train": {"lr": 5e-4, "beta1": 0.5}},
    ),
    Recipe(
        "dip-vae",
        "VAE whose latents have the prior's covariance over the data (DIP-VAE-II; kind=i for I)",
        "Kumar, Sattigeri & Balakrishnan 2018, ICLR",
        {**BINARY, "penalty": {"name": "dip", "kind": "ii"}},
    ),
    Recipe(
        "info-vae",
        "VAE with half of its rate replaced by the discrepancy of q(z) from the prior",
        "Zhao, Song & Ermon 2019, AAAI (alpha = 0.5, lambda = 100.5)",
        {
            **BINARY,
            "rate": {"name": "beta", "beta": 0.5},
            "penalty": {"name": "mmd", "kernel": "rbf", "weight": 100.0},
        },
    ),
    Recipe(
        "hyperspherical-vae",
        "VAE of directions whose rate is the same number for every x",
        "Xu & Durrett 2018, EMNLP; with posterior.learned=true Davidson et al. 2018, UAI",
        {**BINARY, "prior": {"name": "sphere"}, "posterior": {"name": "von-mises-fisher"}},
    ),
    Recipe(
        "delta-vae",
        "VAE whose rate can't fall under 6 nats: a slow sequence, inferred step by step",
        "Razavi et al. 2019, ICLR",
        {
            **BINARY,
            "prior": {"name": "ar1", "sequence_length": 5},
            "posterior": {"name": "bounded-normal", "sequence_length": 5, "rate": 6.0},
        },
    ),
    Recipe(
        "lagging-vae",
        "VAE whose encoder is trained first at every step, until its information stops rising",
        "He, Spokoyny, Neubig & Berg-Kirkpatrick 2019, ICLR, algorithm 1",
        {"data": {"binarize": "dynamic"}, "schedule": {"name": "aggressive-encoder"}},
    ),
    Recipe(
        "fixed-encoder",
        "generator trained for an encoder held fixed: that of train.init, yours, or else a random one",
        "Kingma & Welling 2014, ICLR, eq. 3, maximised over the generator alone",
        {
            "data": {"scale": "unit"},
            "likelihood": {"name": "normal", "sigma": 0.1},
            "train": {"freeze": "inference", "init_side": "inference"},
        },
    ),
    Recipe(
        "gan-inverter",
        "encoder trained alone to invert a given generator: that of train.init, or yours",
        "Dumoulin et al. 2017, ICLR, section 3.4 (learning an inverse mapping post hoc); Hinton et al. 1995",
        {
            "data": {"scale": "unit"},
            "likelihood": {"name": "normal", "sigma": 0.1},
            "objective": {"name": "sleep", "sleep_x": "mean"},
            "train": {"freeze": "generative", "init_side": "generative", "select_checkpoint": "last"},
        },
    ),
)
