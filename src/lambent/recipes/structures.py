"""How the parts of a configuration are put together into a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from lambent.likelihoods import Likelihood
from lambent.models import VAE, LatentModel, Mixture
from lambent.posteriors import AmortisedPosterior
from lambent.settings import option, part
from lambent.shapes import Shapes

if TYPE_CHECKING:
    from lambent.recipes.config import Config


class Structure(ABC):
    """Settings of a structure; they share the number of latents."""

    latent: int
    amortised: ClassVar[bool]

    @abstractmethod
    def build(self, config: Config, shapes: Shapes) -> LatentModel:
        """The model, initialised from torch's current random state."""


def likelihood_of(config: Config, shapes: Shapes) -> Likelihood:
    """The likelihood with a decoder of the shapes it asks for."""
    family = config.likelihood
    decoder = config.decoder.build(shapes.latent, family.out_shape(shapes), shapes.condition)
    return Likelihood(family, decoder, shapes)


def posterior_of(config: Config, shapes: Shapes) -> nn.Module:
    """The amortised posterior behind its corruption."""
    encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
    posterior: nn.Module = config.corruption.wrap(AmortisedPosterior(config.posterior, encoder, shapes.latent))
    return posterior


@part("model", "vae")
@dataclass(frozen=True)
class VAEStructure(Structure):
    """One level of latents with an encoder: every autoencoder and VAE."""

    amortised: ClassVar[bool] = True
    latent: int = option(10, "latent dimensions", minimum=1)

    def build(self, config: Config, shapes: Shapes) -> VAE:
        """Prior, posterior and likelihood around one latent."""
        prior = config.prior.build(shapes)
        return VAE(prior, posterior_of(config, shapes), likelihood_of(config, shapes), config.penalty.named(shapes))


@part("model", "mixture")
@dataclass(frozen=True)
class MixtureStructure(Structure):
    """One discrete latent of few states, enumerated exactly."""

    amortised: ClassVar[bool] = False
    latent: int = option(10, "number of states", minimum=1)

    def build(self, config: Config, shapes: Shapes) -> Mixture:
        """Prior and likelihood; the posterior follows from them."""
        return Mixture(config.prior.build(shapes), likelihood_of(config, shapes))
