"""What a model starts from before its first step: seeded weights, the data's means, the prior's place."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.config import Config
from lambent.data import View
from lambent.evaluation.blocks import evaluating
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.shapes import Shapes

LATENTS = 1000
"""Most examples whose latents a prior starts from."""


def build_model(config: Config, shapes: Shapes) -> LatentModel:
    """The model of a configuration, its weights from ``train.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.train.seed, "weights"))
        return config.model.build(config, shapes)


def initialise(model: LatentModel, view: View, seed: int, most: int = 10_000) -> None:
    """Lets the model, on the CPU, start from the data's own means, as far as its parts can."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "initialisation"))
        x, condition = _some(view, derive(seed, "initial examples"), most)
        model.initialise(x.cpu(), None if condition is None else condition.cpu())


def initialise_prior(model: LatentModel, view: View, seed: int) -> None:
    """Lets the prior start from draws of the posterior that the training begins with."""
    with torch.random.fork_rng(devices=[]), evaluating(model):
        torch.manual_seed(derive(seed, "prior initialisation"))
        x, condition = _some(view, derive(seed, "initial examples"), LATENTS)
        model.initialise_prior(
            x, condition, torch.Generator(x.device).manual_seed(derive(seed, "prior initial latents"))
        )


def _some(view: View, seed: int, most: int) -> tuple[Tensor, Tensor | None]:
    """So many examples by chance, and their conditions."""
    order = torch.randperm(len(view), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    return view.batch(order), view.condition(order)
