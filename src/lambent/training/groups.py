"""Which parameters a training updates, by group."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lambent.errors import CombinationError, ConfigError
from lambent.models import LatentModel
from lambent.settings import registry
from lambent.training.freeze import frozen_parameters
from lambent.training.schedule import SIDES, UpdateSchedule

Groups = Mapping[str, list[nn.Parameter]]
"""Parameters by group; "all" holds those of every group."""


def trained_groups(model: LatentModel, freeze: str, schedule: UpdateSchedule) -> Groups:
    """The parameters that are trained at all, by group.

    Raises:
        ConfigError: nothing is left to train.
        CombinationError: ``schedule`` alternates between two sides, and one has no parameters.
    """
    held = {id(p) for p in frozen_parameters(model, freeze)}
    groups = {name: [p for p in params if id(p) not in held] for name, params in model.groups().items()}
    free = {name: [p for p in params if p.requires_grad] for name, params in groups.items() if params}
    if not any(free.values()):
        raise ConfigError(f"nothing is left to train with train.freeze={freeze}; use train.freeze=none")
    for side in SIDES if schedule.two_sided else ():
        if not free.get(side):
            name = registry.name_of("schedule", schedule)
            raise CombinationError(
                f"schedule={name} takes turns, and the {side} side has nothing to train; use schedule=joint"
            )
    return _with_all(free)


def active_groups(groups: Groups) -> dict[str | None, Groups]:
    """The parameters that a step updates, by the side that is frozen at it; None where none is."""
    parts = {name: params for name, params in groups.items() if name != "all"}
    without: dict[str | None, Groups] = {
        side: _with_all({name: params for name, params in parts.items() if name != side}) for side in SIDES
    }
    return without | {None: groups}


def _with_all(groups: Groups) -> Groups:
    return {**groups, "all": [p for params in groups.values() for p in params]}
