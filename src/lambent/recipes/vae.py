"""Recipes of one continuous latent: autoencoders, linear models, mixtures, VAEs and their bounds."""

from __future__ import annotations

from lambent.recipes.recipe import Recipe, Settings

_AUTOENCODER: Settings = {
    "prior": {"name": "flat"},
    "posterior": {"name": "delta"},
    "likelihood": {"name": "normal"},
    "data": {"scale": "unit"},
}
_LINEAR: Settings = {"encoder": {"name": "linear"}, "decoder": {"name": "linear"}}
_ANNEALED = {"lr": 1e-2, "lr_schedule": "cosine", "final_lr_fraction": 0.0}
BINARY: Settings = {"data": {"binarize": "dynamic"}}
_REAL: Settings = {"data": {"scale": "unit"}}
_LINEAR_GAUSSIAN: Settings = {
    **_LINEAR,
    **_REAL,
    "posterior": {"name": "full-cov", "shared": True},
    "draw": {"name": "stl"},
    "train": {**_ANNEALED, "batch_size": 500, "epochs": 1200, "validate_every": 40},
}
BURDA: Settings = {
    "model": {"latent": 50},
    "encoder": {"hidden": [200, 200], "activation": "tanh"},
    "decoder": {"hidden": [200, 200], "activation": "tanh"},
}

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "linear-ae",
        "linear autoencoder: spans the PCA subspace",
        "Baldi & Hornik 1989, Neural Networks 2(1)",
        {**_AUTOENCODER, **_LINEAR, "train": {**_ANNEALED, "epochs": 300}},
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
        "ppca",
        "probabilistic PCA",
        "Tipping & Bishop 1999, JRSS B 61(3)",
        {**_LINEAR_GAUSSIAN, "likelihood": {"name": "normal", "scale": "model", "sigma": 0.3}},
        "the closed-form maximum likelihood (their eq. 7 and 8)",
    ),
    Recipe(
        "factor-analysis",
        "factor analysis",
        "Rubin & Thayer 1982, Psychometrika 47",
        {**_LINEAR_GAUSSIAN, "likelihood": {"name": "normal", "scale": "dimension", "sigma": 0.3}},
    ),
    Recipe(
        "gmm",
        "mixture of diagonal Normals, enumerated exactly",
        "Dempster, Laird & Rubin 1977, JRSS B 39(1)",
        {
            **_REAL,
            "decoder": {"name": "linear"},
            "model": {"name": "mixture", "latent": 10},
            "prior": {"name": "categorical"},
            "likelihood": {"name": "normal", "scale": "element", "sigma": 0.3},
            "draw": {"name": "enumerate"},
            "train": {**_ANNEALED, "epochs": 100},
        },
    ),
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
        {**_REAL, "likelihood": {"name": "normal", "sigma": 0.1}},
    ),
    Recipe(
        "sigma-vae",
        "VAE with Normal pixels of one learned scale",
        "Rybkin, Daniilidis & Levine 2021, ICML",
        {**_REAL, "likelihood": {"name": "normal", "scale": "model", "sigma": 0.3}},
    ),
    Recipe(
        "fullcov-vae",
        "VAE with a full-covariance posterior",
        "Kingma & Welling 2019, Foundations and Trends, section 2.5.1",
        {**BINARY, "posterior": {"name": "full-cov"}},
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
        "cvae",
        "VAE given the label",
        "Sohn, Lee & Yan 2015, NeurIPS",
        {**BINARY, "prior": {"name": "conditional-normal"}, "data": {"binarize": "dynamic", "condition": "labels"}},
    ),
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
)
