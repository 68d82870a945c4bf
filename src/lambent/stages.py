"""Trainings of two stages: an autoencoder, then a prior over its codes."""

from __future__ import annotations

from dataclasses import replace

from lambent.priors.uniform import UniformPriorSettings
from lambent.recipes import Config
from lambent.training.freeze import AUTOENCODER
from lambent.training.options import TrainOptions
from lambent.training.updates import Stages, Together


def stages_of(config: Config) -> tuple[Config, ...]:
    """The configurations to be trained one after the other, each from the weights of the one before.

    One, unless the schedule is `Stages` and the prior learns; weights that are given stand for the first stage. What
    the second stage records (``train.freeze=autoencoder``) gives the same two stages again.
    """
    if not isinstance(config.updates, Stages) or isinstance(config.prior, UniformPriorSettings):
        return (config,)
    second = replace(config, train=replace(config.train, freeze=AUTOENCODER))
    if config.train.init:
        return (second,)
    train = _first(config.train, config.updates)
    return replace(config, prior=UniformPriorSettings(), updates=Together(), train=train), second


def _first(train: TrainOptions, updates: Stages) -> TrainOptions:
    """The options of the autoencoder's training."""
    free = replace(train, freeze="none") if train.freeze == AUTOENCODER else train
    return free if updates.autoencoder_epochs is None else replace(free, epochs=updates.autoencoder_epochs, steps=None)
