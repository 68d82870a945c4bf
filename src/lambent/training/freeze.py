"""Part of a model held as it is while the rest is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn

from lambent.models import LatentModel

AUTOENCODER = "autoencoder"
FROZEN: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "generative": ("generative",),
    "inference": ("inference",),
    AUTOENCODER: ("generative", "inference"),
}
"""What can be frozen: the groups of parameters that each name stands for."""


def frozen_parameters(model: LatentModel, what: str) -> list[nn.Parameter]:
    """The parameters that ``what`` (a key of `FROZEN`) stands for; a prior is no part of an autoencoder."""
    groups = model.groups()
    spared = {id(parameter) for parameter in model.prior_parameters()} if what == AUTOENCODER else set()
    named = [parameter for group in FROZEN.get(what, ()) for parameter in groups.get(group, [])]
    return [parameter for parameter in named if id(parameter) not in spared]


@contextlib.contextmanager
def frozen(model: LatentModel, what: str) -> Iterator[None]:
    """For the time of the block: no gradient for the parameters of ``what``, and its modules in evaluation mode.

    A module belongs to it if it has parameters and all of them do, so that batch norm keeps its statistics and dropout
    is off. "none" freezes nothing.
    """
    parameters = frozen_parameters(model, what)
    before = [parameter.requires_grad for parameter in parameters]
    modules = modules_of(model, parameters)
    modes = [module.training for module in modules]
    try:
        for parameter in parameters:
            parameter.requires_grad = False
        for module in modules:
            module.training = False
        yield
    finally:
        for parameter, asked in zip(parameters, before, strict=True):
            parameter.requires_grad = asked
        for module, training in zip(modules, modes, strict=True):
            module.training = training


def modules_of(model: LatentModel, parameters: list[nn.Parameter]) -> list[nn.Module]:
    """The modules whose parameters are all among ``parameters``, with all that is inside them."""
    held = {id(parameter) for parameter in parameters}
    whole = [m for m in model.modules() if (own := [*m.parameters()]) and all(id(p) in held for p in own)]
    return list(dict.fromkeys(inner for module in whole for inner in module.modules()))
