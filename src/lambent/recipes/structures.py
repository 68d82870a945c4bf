"""How the parts of a configuration are put together into a model."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from lambent.errors import ConfigError
from lambent.likelihoods import AutoregressiveLikelihood, Likelihood
from lambent.models import VAE, Density, Joint, LatentModel, MarkovChain, Mixture
from lambent.networks import AutoregressiveSettings, ConvDecoder, MLPEncoder
from lambent.networks.autoregressive import ContextShape, context_size
from lambent.networks.base import EncoderSettings
from lambent.posteriors import AmortisedPosterior
from lambent.priors import CategoricalPrior
from lambent.settings import option, part
from lambent.shapes import Shapes

if TYPE_CHECKING:
    from lambent.recipes.config import Config


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

    def build(self, config: Config, shapes: Shapes) -> LatentModel:
        """The model, initialised from torch's current random state."""
        model = self.assemble(config, shapes)
        model.control = config.draw.parameters_for(shapes.latent, math.prod(config.likelihood.input_shape(shapes)))
        model.state_count = self.state_count(config)
        return model

    @abstractmethod
    def assemble(self, config: Config, shapes: Shapes) -> LatentModel:
        """The parts put together."""

    def state_count(self, config: Config) -> int | None:
        """How many values its latents take together, where all are discrete."""
        count: int | None = config.prior.states(self.latent)
        return count


def likelihood_of(config: Config, shapes: Shapes) -> Likelihood:
    """The likelihood with a decoder of the shapes it asks for."""
    return likelihood_given(config, shapes, shapes.latent)


def likelihood_given(config: Config, shapes: Shapes, seen: ContextShape) -> Likelihood:
    """The likelihood with a decoder that sees numbers or a map; a decoder that knows no maps sees the map's numbers."""
    family = config.likelihood
    out, condition = family.out_shape(shapes), shapes.condition
    reads = None if config.model.laddered else config.posterior.as_input  # a ladder's state is no value of a latent
    if isinstance(config.decoder, AutoregressiveSettings):
        network = config.decoder.build(seen, out, condition, family.symbols(shapes))
        return AutoregressiveLikelihood(family, network, shapes, reads)
    seen = seen if isinstance(config.decoder, ConvDecoder) else context_size(seen)
    return Likelihood(family, config.decoder.build(seen, out, condition), shapes, reads)


def posterior_of(config: Config, shapes: Shapes) -> nn.Module:
    """The amortised posterior behind its corruption."""
    encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
    posterior: nn.Module = config.corruption.wrap(AmortisedPosterior(config.posterior, encoder, shapes.latent))
    return posterior


@part("model", "vae")
@dataclass(frozen=True)
class VAEStructure(Structure):
    """One level of latents with an encoder: every autoencoder and VAE."""

    plain: ClassVar[bool] = True
    latent: int = option(10, "latent dimensions", minimum=1)

    def assemble(self, config: Config, shapes: Shapes) -> VAE:
        """Prior, posterior and likelihood around one latent."""
        prior = config.prior.build(shapes)
        return VAE(prior, posterior_of(config, shapes), likelihood_of(config, shapes), config.penalty.named(shapes))


@part("model", "mixture")
@dataclass(frozen=True)
class MixtureStructure(Structure):
    """One discrete latent of few states, enumerated exactly."""

    amortised: ClassVar[bool] = False
    latent: int = option(10, "number of states", minimum=1)

    def assemble(self, config: Config, shapes: Shapes) -> Mixture:
        """Prior and likelihood; the posterior follows from them."""
        return Mixture(config.prior.build(shapes), likelihood_of(config, shapes))


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

    def states(self, config: Config) -> list[int]:
        """Number of values of each level, where they are discrete."""
        return [s for s in map(config.prior.states, self.sizes) if s is not None]

    def state_count(self, config: Config) -> int | None:
        """The product over levels."""
        states = self.states(config)
        return math.prod(states) if len(states) == len(self.sizes) else None


@part("model", "chain")
@dataclass(frozen=True)
class ChainStructure(VectorLevels):
    """Levels of latents, inferred upwards and generated downwards, all of the posterior's family."""

    latent: int = option(10, "latent dimensions of the lowest level", minimum=1)
    above: tuple[int, ...] = option((10,), "latent dimensions of the levels above it, lowest first", minimum=1)
    between: tuple[int, ...] = option(
        (), "hidden widths of the networks between levels; none: those of the encoder", minimum=1
    )

    def assemble(self, config: Config, shapes: Shapes) -> MarkovChain:
        """One encoder a level upwards, one downwards, all built as the recipe's encoder."""
        inner = self._between(config)
        q, p = config.posterior, config.posterior.conditional()
        lowest = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        posteriors = [AmortisedPosterior(q, lowest, self.latent)]
        conditionals = []
        for down, up in itertools.pairwise(self.sizes):
            posteriors.append(AmortisedPosterior(q, inner.build((down,), shapes.condition), up))
            conditionals.append(_flattened(AmortisedPosterior(p, inner.build((up,), shapes.condition), down)))
        prior = config.prior.build(replace(shapes, latent=self.sizes[-1]))
        return MarkovChain(prior, posteriors, conditionals, likelihood_of(config, shapes), self.states(config))

    def _between(self, config: Config) -> EncoderSettings:
        """Settings of the networks between levels."""
        encoder: EncoderSettings = config.encoder
        if not self.between:
            return encoder
        if not isinstance(encoder, MLPEncoder):
            raise ConfigError(
                "model.between gives widths of fully connected networks; use encoder=mlp, or no model.between"
            )
        return replace(encoder, hidden=self.between)


def _flattened(level: AmortisedPosterior, gain: float = 0.1) -> AmortisedPosterior:
    """Starts p(z|level above) nearly the same for all: a scale too small by chance costs thousands of nats."""
    with torch.no_grad():
        level.head.weight.mul_(gain)
        level.head.bias.zero_()
    return level


@part("model", "joint")
@dataclass(frozen=True)
class JointStructure(Structure):
    """A categorical latent y beside the continuous one z, which is inferred given y."""

    mixed: ClassVar[bool] = True
    latent: int = option(10, "dimensions of the continuous latent", minimum=1)
    states: int = option(10, "states of the discrete latent", minimum=2)

    def assemble(self, config: Config, shapes: Shapes) -> Joint:
        """One encoder for both; the decoder sees both."""
        encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
        likelihood = likelihood_of(config, replace(shapes, latent=self.latent + self.states))
        discrete = CategoricalPrior(self.states)
        return Joint(discrete, config.prior.build(shapes), encoder, config.posterior, likelihood, self.latent)


@part("model", "density")
@dataclass(frozen=True)
class DensityStructure(Structure):
    """No latents: log p(x) is exact, from an autoregressive network in the decoder's place."""

    latents: ClassVar[bool] = False
    amortised: ClassVar[bool] = False
    latent: int = field(default=0, init=False)

    def assemble(self, config: Config, shapes: Shapes) -> Density:
        """The likelihood alone."""
        return Density(likelihood_of(config, replace(shapes, latent=0)))
