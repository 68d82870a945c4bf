"""Trainings of two stages: an autoencoder, then a prior over its codes."""

from __future__ import annotations

from dataclasses import replace

from lambent.priors.uniform import UniformPriorSettings
from lambent.recipes import Config
from lambent.training.freeze import AUTOENCODER
from lambent.training.updates import Stages, Together


def stages_of(config: Config) -> tuple[Config, ...]:
    """The configurations to be trained one after the other, each from the weights of the one before.

    One, unless the schedule is `Stages` and the prior learns; weights that are given stand for the first stage.
    """
    if not isinstance(config.updates, Stages) or isinstance(config.prior, UniformPriorSettings):
        return (config,)
    second = replace(config, train=replace(config.train, freeze=AUTOENCODER))
    if config.train.init:
        return (second,)
    epochs = config.updates.autoencoder_epochs or config.train.epochs
    train = replace(config.train, epochs=epochs)
    return replace(config, prior=UniformPriorSettings(), updates=Together(), train=train), second
