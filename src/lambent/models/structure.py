"""How the parts of a configuration are put together into a model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from lambent.likelihoods import AutoregressiveLikelihoodModule, LikelihoodModule
from lambent.models.base import LatentModel
from lambent.networks import AutoregressiveSettings, ConvDecoder
from lambent.networks.autoregressive.base import ContextShape, context_size
from lambent.posteriors import AmortisedPosteriorModule
from lambent.priors.base import LatentKind
from lambent.settings import Conflict, Part, registry
from lambent.shapes import Shapes


class Parts(Protocol):
    """The parts that a model is put together from, as a configuration holds them."""

    @property
    def model(self) -> Structure:
        """The structure of the model."""

    @property
    def prior(self) -> Any:
        """The settings of p(z)."""

    @property
    def posterior(self) -> Any:
        """The settings of q(z|x)."""

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


@dataclass(frozen=True)
class Slot:
    """What a structure takes in one section of a configuration.

    Attributes:
        default: Name of the part where none is chosen; "none" where it is left out.
        kinds: The only classes of settings that fit.
        names: Where there are no ``kinds``, the only parts that fit, by name; empty for all that aren't reserved for
            other structures.
        also: Parts that fit although they are reserved, by name.
        why: Why no others fit.
        use: What would do, where that isn't the default alone.
        optional: Whether the part can be left out, by the name "none".
    """

    default: str
    kinds: tuple[type, ...] = ()
    names: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    why: str = ""
    use: str = ""
    optional: bool = False

    def refusal(self, section: str, part: Part | None) -> str:
        """Why ``part`` doesn't fit and what would do; empty if it does."""
        use = self.use or f"{section}={self.default}"
        if part is None:
            return "" if self.optional else f"it needs one; use {use}"
        if self.kinds:
            return "" if isinstance(part, self.kinds) else f"{self.why}; use {use}"
        name = registry.name_of(section, part) if self.names or part.reserved else ""
        if self.names:
            return "" if name in self.names else f"{self.why}; use {use}"
        return "" if name in self.also else part.reserved


@dataclass(frozen=True)
class Absent:
    """Why a structure has no such section.

    Attributes:
        why: The reason.
        names: Names of parts that say no more than the structure does itself, and are accepted.
    """

    why: str
    names: tuple[str, ...] = ("none",)


_ONE_LATENT = Absent("it concerns one latent behind one encoder")
LIKELIHOOD: Mapping[str, Slot] = {
    "likelihood": Slot("bernoulli"),
    "decoder": Slot("mlp"),
    "objective": Slot("elbo"),
    "rate": Slot("sum"),
    "schedule": Slot("joint"),
}
"""Sections of every structure with latents beside those of the latents themselves."""
INFERRED: Mapping[str, Slot] = {
    "prior": Slot("normal"),
    "posterior": Slot("normal"),
    "encoder": Slot("mlp"),
    "draw": Slot("pathwise"),
    **LIKELIHOOD,
}
"""Sections of a structure whose latents an encoder infers."""
NOT_ONE_LATENT: Mapping[str, Absent] = {"corruption": _ONE_LATENT, "penalty": _ONE_LATENT}


class Structure(Part, ABC):
    """Settings of a structure; they share the number of latents.

    Attributes:
        latent: Dimensions of the latent, or of each of them, or number of states.
        sections: The sections of a configuration that it has, and what it takes there.
        absent: The sections that it hasn't, and why.
    """

    latent: int
    sections: ClassVar[Mapping[str, Slot]] = INFERRED
    absent: ClassVar[Mapping[str, Absent]] = NOT_ONE_LATENT

    def latent_kind(self, parts: Parts) -> LatentKind:
        """The kind of its latents' values: the posterior's, for most."""
        kind: LatentKind = parts.posterior.latent_kind
        return kind

    @property
    def sizes(self) -> tuple[int, ...]:
        """Dimensions of each latent, lowest first."""
        return (self.latent,)

    @property
    def level_count(self) -> int:
        """Levels of latents, one above the other."""
        return len(self.sizes)

    def build(self, config: Parts, shapes: Shapes) -> LatentModel:
        """The model, initialised from torch's current random state."""
        model = self.assemble(config, shapes)
        if config.draw is not None:
            inputs = math.prod(config.likelihood.input_shape(shapes))
            model.control = config.draw.parameters_for(shapes.latent, inputs)
        model.state_count = self.state_count(config)
        return model

    def reads(self, parts: Parts) -> Callable[[Tensor], Tensor] | None:
        """What brings a value of the latent to the unit in which the decoder takes it; None where it takes no value."""
        convert: Callable[[Tensor], Tensor] | None = None if parts.posterior is None else parts.posterior.as_input
        return convert

    @abstractmethod
    def assemble(self, config: Parts, shapes: Shapes) -> LatentModel:
        """The parts put together."""

    def state_count(self, config: Parts) -> int | None:
        """How many values its latents take together, where all are discrete."""
        count: int | None = None if config.prior is None else config.prior.states(self.latent)
        return count


def likelihood_of(config: Parts, shapes: Shapes) -> LikelihoodModule:
    """The likelihood with a decoder of the shapes it asks for."""
    return likelihood_given(config, shapes, shapes.latent)


def likelihood_given(config: Parts, shapes: Shapes, seen: ContextShape, decoder: Any = None) -> LikelihoodModule:
    """The likelihood with a decoder that sees numbers or a map; a decoder that knows no maps sees the map's numbers."""
    family, decoder = config.likelihood, config.decoder if decoder is None else decoder
    out, condition = family.out_shape(shapes), shapes.condition
    reads = config.model.reads(config)
    if isinstance(decoder, AutoregressiveSettings):
        network = decoder.build(seen, out, condition, family.symbols(shapes))
        return AutoregressiveLikelihoodModule(family, network, shapes, reads)
    seen = seen if isinstance(decoder, ConvDecoder) else context_size(seen)
    return LikelihoodModule(family, decoder.build(seen, out, condition), shapes, reads)


def posterior_of(config: Parts, shapes: Shapes) -> nn.Module:
    """The amortised posterior behind its corruption."""
    encoder = config.encoder.build(config.likelihood.input_shape(shapes), shapes.condition)
    posterior: nn.Module = AmortisedPosteriorModule(config.posterior, encoder, shapes.latent)
    return posterior if config.corruption is None else config.corruption.wrap(posterior)


class VectorLevels(Structure):
    """Settings of a structure of several levels, each a vector."""

    upper_latents: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of all levels, lowest first."""
        return (self.latent, *self.upper_latents)

    def conflicts(self, parts: Parts) -> Conflict | None:
        """A lower level is generated by a density."""
        if parts.posterior.normalised:
            return None
        why = "p of a lower level would be a point, without a density; use model=vae"
        return Conflict(("model", "posterior"), why)

    def states(self, config: Parts) -> list[int]:
        """Number of values of each level, where they are discrete."""
        return [s for s in map(config.prior.states, self.sizes) if s is not None]

    def state_count(self, config: Parts) -> int | None:
        """The product over levels."""
        states = self.states(config)
        return math.prod(states) if len(states) == len(self.sizes) else None
