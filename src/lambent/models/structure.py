"""How the parts of a configuration are put together into a model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from torch import nn

from lambent.likelihoods import AutoregressiveLikelihood, Likelihood
from lambent.models.base import LatentModel
from lambent.networks import AutoregressiveSettings, ConvDecoder
from lambent.networks.autoregressive.base import ContextShape, context_size
from lambent.posteriors import AmortisedPosterior
from lambent.shapes import Shapes


class Parts(Protocol):
    """The parts that a model is put together from, as a configuration holds them."""

    @property
    def model(self) -> Structure:
        """The structure."""

    @property
    def prior(self) -> Any:
        """p(z)."""

    @property
    def posterior(self) -> Any:
        """q(z|x)."""

    @property
    def likelihood(self) -> Any:
        """The family of p(x|z)."""

    @property
    def encoder(self) -> Any:
        """Settings of q's network."""

    @property
    def decoder(self) -> Any:
        """Settings of p's network."""

    @property
    def draw(self) -> Any:
        """How latents get their values in training."""

    @property
    def rate(self) -> Any:
        """How rates are charged."""

    @property
    def corruption(self) -> Any:
        """What is done to x before the encoder."""

    @property
    def penalty(self) -> Any:
        """What is charged beside the bound."""


class Structure(ABC):
    """Settings of a structure; they share the number of latents."""

    latent: int
    latents: ClassVar[bool] = True
    """Whether it has any."""
    amortised: ClassVar[bool] = True
    """Whether an encoder computes its posterior."""
    plain: ClassVar[bool] = False
    """Whether it has one latent behind one encoder, so that corruptions and penalties have a meaning."""
    mixed: ClassVar[bool] = False
    """Whether it has a discrete latent beside the continuous one of its prior and posterior."""
    of_codes: ClassVar[bool] = False
    """Whether its latents are grids of codes."""
    laddered: ClassVar[bool] = False
    """Whether its posterior comes down level by level, in the light of the prior there."""
    mapped: ClassVar[bool] = False
    """Whether its levels are maps, of which only a convolutional encoder tells the sizes."""
    recurrent: ClassVar[bool] = False
    """Whether its networks are a reader and a canvas, which go step by step."""
    denoising: ClassVar[bool] = False
    """Whether its decoder is a denoiser, which sees a noisy value and how noisy it is."""

    @property
    def level_count(self) -> int:
        """Levels of latents, one above the other."""
        return 1

    def build(self, config: Parts, shapes: Shapes) -> LatentModel:
        """The model, initialised from torch's current random state."""
        model = self.assemble(config, shapes)
        model.control = config.draw.parameters_for(shapes.latent, math.prod(config.likelihood.input_shape(shapes)))
        model.state_count = self.state_count(config)
        return model

    @abstractmethod
    def assemble(self, config: Parts, shapes: Shapes) -> LatentModel:
        """The parts put together."""

    def state_count(self, config: Parts) -> int | None:
        """How many values its latents take together, where all are discrete."""
        count: int | None = config.prior.states(self.latent)
        return count


def likelihood_of(config: Parts, shapes: Shapes) -> Likelihood:
    """The likelihood with a decoder of the shapes it asks for."""
    return likelihood_given(config, shapes, shapes.latent)


def likelihood_given(config: Parts, shapes: Shapes, seen: ContextShape, decoder: Any = None) -> Likelihood:
    """The likelihood with a decoder that sees numbers or a map; a decoder that knows no maps sees the map's numbers."""
    family, decoder = config.likelihood, config.decoder if decoder is None else decoder
    out, condition = family.out_shape(shapes), shapes.condition
    reads = None if config.model.laddered else config.posterior.as_input  # a ladder's state is no value of a latent
    if isinstance(decoder, AutoregressiveSettings):
        network = decoder.build(seen, out, condition, family.symbols(shapes))
        return AutoregressiveLikelihood(family, network, shapes, reads)
    seen = seen if isinstance(decoder, ConvDecoder) else context_size(seen)
    return Likelihood(family, decoder.build(seen, out, condition), shapes, reads)


def posterior_of(config: Parts, shapes: Shapes) -> nn.Module:
    """The amortised posterior behind its corruption."""
    encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
    posterior: nn.Module = config.corruption.wrap(AmortisedPosterior(config.posterior, encoder, shapes.latent))
    return posterior


class VectorLevels(Structure):
    """Settings of a structure of several levels, each a vector."""

    above: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of all levels, lowest first."""
        return (self.latent, *self.above)

    @property
    def level_count(self) -> int:
        """Those above and the lowest."""
        return len(self.sizes)

    def states(self, config: Parts) -> list[int]:
        """Number of values of each level, where they are discrete."""
        return [s for s in map(config.prior.states, self.sizes) if s is not None]

    def state_count(self, config: Parts) -> int | None:
        """The product over levels."""
        states = self.states(config)
        return math.prod(states) if len(states) == len(self.sizes) else None
