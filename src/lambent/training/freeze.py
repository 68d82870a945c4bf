"""One side of a model held as it is while the other is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from lambent.models import LatentModel


@contextlib.contextmanager
def frozen(model: LatentModel, group: str) -> Iterator[None]:
    """For the time of the block: no gradient for that group's parameters, and its modules in evaluation mode.

    A module belongs to the group if it has parameters and all of them do, so that batch norm keeps its statistics and
    dropout is off. ``group`` "none" freezes nothing.
    """
    parameters = model.groups().get(group, [])
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
