"""The named systems, as data: what each sets beyond the defaults, where it comes from, what figure to expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambent.errors import ConfigError
from lambent.recipes.check import check
from lambent.recipes.config import Config, Layer, layer_of_tokens, resolve
from lambent.settings import nearest


@dataclass(frozen=True)
class Recipe:
    """A complete named configuration.

    Attributes:
        name: As on the command line.
        title: One line for listings.
        source: The paper it follows.
        settings: What differs from the parts' defaults, by section.
        expected: A published figure with its protocol and source, where one exists.
    """

    name: str
    title: str
    source: str
    settings: Mapping[str, Mapping[str, Any]]
    expected: str = ""


_AUTOENCODER: Mapping[str, Mapping[str, Any]] = {
    "prior": {"name": "flat"},
    "posterior": {"name": "delta"},
    "likelihood": {"name": "normal"},
    "data": {"scale": "unit"},
}
_LINEAR: Mapping[str, Mapping[str, Any]] = {"encoder": {"name": "linear"}, "decoder": {"name": "linear"}}
_ANNEALED = {"lr": 1e-2, "schedule": "cosine", "final_lr": 0.0}
_BINARY: Mapping[str, Mapping[str, Any]] = {"data": {"binarize": "dynamic"}}
_REAL: Mapping[str, Mapping[str, Any]] = {"data": {"scale": "unit"}}
_LINEAR_GAUSSIAN: Mapping[str, Mapping[str, Any]] = {
    **_LINEAR,
    **_REAL,
    "posterior": {"name": "full-cov", "shared": True},
    "draw": {"name": "stl"},
    "train": {**_ANNEALED, "batch_size": 500, "epochs": 1200, "validate_every": 40},
}
_BURDA: Mapping[str, Mapping[str, Any]] = {
    "model": {"latent": 50},
    "encoder": {"hidden": [200, 200], "activation": "tanh"},
    "decoder": {"hidden": [200, 200], "activation": "tanh"},
}

_RECIPES = (
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
            **_LINEAR,
            **_REAL,
            "model": {"name": "mixture", "latent": 10},
            "prior": {"name": "categorical"},
            "posterior": {"name": "exact"},
            "likelihood": {"name": "normal", "scale": "element", "sigma": 0.3},
            "draw": {"name": "enumerate"},
            "train": {**_ANNEALED, "epochs": 100},
        },
    ),
    Recipe(
        "vae",
        "variational autoencoder with Bernoulli pixels",
        "Kingma & Welling 2014, ICLR",
        {**_BINARY},
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
        {**_BINARY, "posterior": {"name": "full-cov"}},
    ),
    Recipe(
        "beta-vae",
        "VAE whose loss charges beta times the rate",
        "Higgins et al. 2017, ICLR",
        {**_BINARY, "rate": {"name": "beta", "beta": 4.0}},
    ),
    Recipe(
        "capacity-vae",
        "VAE whose rate is held at a rising capacity",
        "Burgess et al. 2018, arXiv:1804.03599",
        {**_BINARY, "rate": {"name": "capacity"}},
    ),
    Recipe(
        "cvae",
        "VAE given the label",
        "Sohn, Lee & Yan 2015, NeurIPS",
        {**_BINARY, "prior": {"name": "conditional-normal"}, "data": {"binarize": "dynamic", "condition": "labels"}},
    ),
    Recipe(
        "iwae",
        "importance-weighted autoencoder, K = 5",
        "Burda, Grosse & Salakhutdinov 2016, ICLR",
        {**_BINARY, **_BURDA, "objective": {"name": "iwae"}, "draw": {"samples": 5}},
        "MNIST, dynamic binarisation: 85.54 nats, IWAE-5000 (Burda et al. 2016, Table 1)",
    ),
    Recipe(
        "iwae-dreg",
        "IWAE with doubly reparameterised gradients",
        "Tucker et al. 2019, ICLR",
        {**_BINARY, **_BURDA, "objective": {"name": "iwae"}, "draw": {"name": "dreg", "samples": 5}},
    ),
)
RECIPES = {recipe.name: recipe for recipe in _RECIPES}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; an unknown one is refused with its nearest neighbour."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} is not known{nearest(name, RECIPES)}; see `lambent recipes`")
    return RECIPES[name]


def configure(recipe: str, *layers: Layer, tokens: tuple[str, ...] = ()) -> Config:
    """The checked configuration of a recipe under further layers and ``key=value`` tokens.

    >>> configure("beta-vae", tokens=("beta=2", "latent=6")).rate
    Beta(beta=2.0)

    Raises:
        ConfigError: unknown recipe, key or value.
        CombinationError: parts that don't go together.
    """
    below = (find_recipe(recipe).settings, *layers)
    config = resolve(recipe, *below, layer_of_tokens(tokens, below))
    check(config)
    return config


def names() -> list[str]:
    """The names of all recipes.

    >>> "vae" in names()
    True
    """
    return list(RECIPES)
