"""Trainings of two stages: an autoencoder under a simple prior, then the prior."""

from __future__ import annotations

from dataclasses import replace

from lambent.config import Config
from lambent.priors import PriorSettings
from lambent.priors.base import PRIOR_FOR
from lambent.settings import registry
from lambent.training.freeze import AUTOENCODER
from lambent.training.options import TrainOptions
from lambent.training.schedule import JointUpdates, TwoStage


def stages_of(config: Config) -> tuple[Config, ...]:
    """The configurations to be trained one after the other, each from the weights of the one before.

    One, unless the schedule is `TwoStage` and the prior learns and is another than the first stage's; weights that are
    given stand for the first stage. What the second stage records (``train.freeze=autoencoder``) gives the same two
    stages again.

    Raises:
        ConfigError: the schedule names a first prior that there isn't.
    """
    if not isinstance(config.schedule, TwoStage) or config.prior is None or not config.prior.learns:
        return (config,)
    second = replace(config, train=replace(config.train, freeze=AUTOENCODER))
    if config.train.init:
        return (second,)
    prior = _first_prior(config, config.schedule)
    if type(prior) is type(config.prior):
        return (config,)
    return replace(config, prior=prior, schedule=JointUpdates(), train=_first(config.train, config.schedule)), second


def _first_prior(config: Config, schedule: TwoStage) -> PriorSettings:
    """The prior of the autoencoder's training."""
    name = schedule.autoencoder_prior or PRIOR_FOR.get(config.latent_kind, "normal")
    prior: PriorSettings = registry.find("prior", name)()
    return prior


def _first(train: TrainOptions, schedule: TwoStage) -> TrainOptions:
    """The options of the autoencoder's training."""
    free = replace(train, freeze="none") if train.freeze == AUTOENCODER else train
    epochs = schedule.autoencoder_epochs
    return free if epochs is None else replace(free, epochs=epochs, steps=None)
