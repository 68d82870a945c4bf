"""Which parts go together. Everything is legal unless a rule here refuses it, by name and with what would do."""

from __future__ import annotations

from lambent.draws import DoublyReparameterised, Draw, Enumerate, StickingTheLanding
from lambent.errors import CombinationError
from lambent.objectives import NoPenalty
from lambent.objectives.base import Objective
from lambent.posteriors import NoCorruption
from lambent.recipes.config import Config
from lambent.settings import registry


def check(config: Config) -> None:
    """Refuses combinations that have no meaning.

    Raises:
        CombinationError: names the parts in conflict and what would do.
    """
    _latent_kinds(config)
    _weights(config)
    _draws(config)
    try:
        config.objective.with_rate(config.rate)
    except CombinationError as error:
        raise CombinationError(f"{_named(config, 'objective', 'rate')}: {error}") from None


def biases(config: Config) -> list[str]:
    """What is legal but has a biased gradient, one line each."""
    path_only = isinstance(config.draw, StickingTheLanding)
    if path_only and config.objective.needs_weights and config.draw.samples > 1:
        samples = config.draw.samples
        return [f"draw=stl is a biased gradient of an IWAE with K = {samples}; draw=dreg is unbiased"]
    return []


def objective_of(config: Config) -> Objective:
    """The objective with its rate function."""
    return config.objective.with_rate(config.rate)


def _named(config: Config, *sections: str) -> str:
    return " with ".join(f"{s}={registry.name_of(s, getattr(config, s))}" for s in sections)


def _latent_kinds(config: Config) -> None:
    if config.model.amortised != config.posterior.amortised:
        fix = "posterior=exact" if config.posterior.amortised else "model=mixture"
        raise CombinationError(f"{_named(config, 'model', 'posterior')} does not go together; use {fix}")
    if config.prior.latent_kind != config.posterior.latent_kind:
        raise CombinationError(
            f"{_named(config, 'prior', 'posterior')}: {config.prior.latent_kind} against "
            f"{config.posterior.latent_kind} latents; use prior={_prior_for(config.posterior.latent_kind)}"
        )
    for section, nothing in (("corruption", NoCorruption), ("penalty", NoPenalty)):
        if not config.model.amortised and not isinstance(getattr(config, section), nothing):
            raise CombinationError(
                f"{_named(config, 'model', section)}: it concerns an encoder, and there is none; use {section}=none"
            )


def _prior_for(kind: str) -> str:
    return "categorical" if kind == "one-hot" else "normal"


def _weights(config: Config) -> None:
    if not config.objective.needs_weights:
        return
    for section in ("prior", "posterior"):
        if not getattr(config, section).normalised:
            raise CombinationError(
                f"{_named(config, 'objective', section)}: no importance weight exists without a density; "
                f"use {section}=normal, or objective=elbo"
            )


def _draws(config: Config) -> None:
    draw: Draw = config.draw
    if isinstance(draw, DoublyReparameterised) and not config.objective.doubly:
        raise CombinationError(
            f"{_named(config, 'draw', 'objective')}: dreg weights an IWAE gradient; use draw=stl or objective=iwae"
        )
    discrete = config.posterior.latent_kind != "continuous"
    if isinstance(draw, Enumerate) != discrete:
        fix = "draw=enumerate" if discrete else "draw=pathwise"
        raise CombinationError(
            f"{_named(config, 'draw', 'posterior')}: {config.posterior.latent_kind} latents; use {fix}"
        )
    if draw.from_posterior and isinstance(draw, Enumerate) and draw.samples != 1:
        raise CombinationError("draw=enumerate takes every state once; leave draw.samples at 1")
