"""Weights of one run taken over by another, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lambent.errors import CheckpointError, ConfigError
from lambent.models import LatentModel
from lambent.training.freeze import AUTOENCODER, FROZEN, frozen_parameters, modules_of

PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "generative": {"model": ("name",), "likelihood": (), "prior": (), "decoder": (), "data": ("scale", "levels")},
    "inference": {"model": ("name",), "posterior": (), "encoder": (), "data": ("scale", "levels")},
    AUTOENCODER: {
        "model": (),
        "likelihood": (),
        "decoder": (),
        "posterior": (),
        "encoder": (),
        "data": ("scale", "levels"),
    },
}
"""The settings that give a side's weights their meaning; () is all of a section."""
SHOWN = 5
"""Tensors that a message names."""


def take_weights(model: LatentModel, tensors: Mapping[str, Tensor], side: str, whole: str, where: str) -> str:
    """Copies into ``model`` the tensors whose name, shape and type agree; what was taken and what not, in one line.

    Args:
        model: Receives them in place.
        tensors: By the names of ``model.state_dict()``.
        side: The group to take; "all" takes whatever agrees.
        whole: A group of which every tensor must be taken ("none": nothing need be).
        where: What messages call the source.

    Raises:
        CheckpointError: nothing agrees, or something of the group ``whole`` doesn't; nothing was copied.
    """
    own = model.state_dict()
    wanted = list(own) if side == "all" else names_of(model, side)
    taken = [name for name in wanted if name in tensors and _alike(tensors[name], own[name])]
    left = [name for name in wanted if name not in taken]
    missing = [name for name in names_of(model, whole) if name not in taken]
    if missing:
        raise CheckpointError(
            f"{where}: found no {', '.join(_described(n, own, tensors) for n in missing)}, expected all of the frozen "
            f"{whole} side; use a run of the same networks"
        )
    if not taken:
        raise CheckpointError(f"{where}: found no tensor that fits this model; use a run of the same networks")
    with torch.no_grad():
        for name in taken:
            own[name].copy_(tensors[name])
    if side == "all" and whole == AUTOENCODER:
        return f"{where}: took the autoencoder, {len(taken)} of {len(own)} tensors{_fresh(left)}"
    rest = f"; not taken: {', '.join(_described(n, own, tensors) for n in left[:SHOWN])}" if left else ""
    rest += f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"{where}: took {len(taken)} of {len(own)} tensors, asked for {side}{rest}"


def _fresh(left: Sequence[str]) -> str:
    """What is said of a prior that learns from its own start."""
    return f"; the other {len(left)} are the prior's, which is randomly initialised" if left else ""


def names_of(model: LatentModel, group: str) -> list[str]:
    """Names in ``model.state_dict()`` of a side's parameters, its own buffers, and those of modules all its own."""
    parameters = frozen_parameters(model, group)
    buffers = [buffer for module in modules_of(model, parameters) for buffer in module.buffers(recurse=False)]
    learned = model.group_buffers()
    buffers += [buffer for side in FROZEN.get(group, ()) for buffer in learned.get(side, [])]
    held = {id(tensor) for tensor in (*parameters, *buffers)}
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in held]


def _alike(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and found.dtype == expected.dtype


def _described(name: str, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    there = f", there {list(tensors[name].shape)}" if name in tensors else ""
    return f"{name} {list(own[name].shape)}{there}"


def require_same_side(there: Mapping[str, Any], here: Mapping[str, Any], side: str, where: str) -> None:
    """Refuses to hold a side frozen whose parts mean something else than in the run that its weights come from.

    Args:
        there: That run's ``recipe.toml``.
        here: This run's.
        side: "generative", "inference", or "none" for weights that will be trained on.
        where: What messages call that run.

    Raises:
        ConfigError: the first setting that differs.
    """
    for section, keys in PARTS.get(side, {}).items():
        first, second = there.get(section, {}), here.get(section, {})
        for key in keys or sorted({*first, *second}):
            if first.get(key) != second.get(key):
                raise ConfigError(
                    f"{where}: {section}.{key} is {first.get(key)!r} there, found {second.get(key)!r} here with "
                    f"train.freeze={side}; set {section}.{key} as there"
                )
