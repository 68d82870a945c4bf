"""Levels of latents one by one: their values, and what a model makes of some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lambent.distributions import point_estimate
from lambent.draws import Ancestral, Held, Mode
from lambent.errors import ConfigError, ShapeError
from lambent.models import LatentModel


def level_names(model: LatentModel) -> tuple[str, ...]:
    """Of the levels that can be held one by one, lowest first; none of a model with fewer than two."""
    names = tuple(model.names)
    return names if len(names) > 1 else ()


def infer(model: LatentModel, x: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
    """The posterior's mode on each level, (B, *latent) by name, lowest first.

    A level is inferred from the modes of those that its posterior looks at.

    Raises:
        ConfigError: the model has fewer than two levels.
    """
    require_levels(model)
    values = {z.name: z.value for z in model(x, Mode(), condition).latents}
    return {name: value[0] for name, value in values.items() if value is not None}


def reconstruct(
    model: LatentModel,
    x: Tensor,
    top: int,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean of p(x|z) with the ``top`` highest levels at the posterior's modes, (B, *event).

    The levels below are at the modes of their priors given those above, or draws of them if there is a ``generator``;
    where a prior's mode isn't known, the same draws every time.

    Raises:
        ConfigError: the model has fewer than two levels, or fewer than ``top``.
    """
    names = require_levels(model)
    if not 1 <= top <= len(names):
        raise ConfigError(f"top={top}: expected 1 to {len(names)}, the levels of this model ({', '.join(names)})")
    values = infer(model, x, condition)
    return complete(model, {name: values[name] for name in names[len(names) - top :]}, condition, generator=generator)


def complete(
    model: LatentModel,
    values: Mapping[str, Tensor],
    condition: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean of p(x|z) with some levels at ``values`` (B, *latent) and the others below as `reconstruct` has them."""
    held = {name: value.unsqueeze(0) for name, value in values.items()}
    draw = Held(values=held, mode=generator is None, generator=generator)
    try:
        px = model(None, draw, condition).px
    except NotImplementedError:
        if generator is not None:
            raise
        device = next(iter(values.values())).device
        px = model(None, Held(values=held, generator=torch.Generator(device).manual_seed(0)), condition).px
    return point_estimate(px)[0]


def generate(
    model: LatentModel, n: int, condition: Tensor | None = None, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """``n`` draws of all levels from the prior, (n, *latent) by name."""
    latents = model(None, Ancestral(batch=n, generator=generator), condition).latents
    return {z.name: z.value[0] for z in latents if z.value is not None}


def require_levels(model: LatentModel) -> tuple[str, ...]:
    """The names of the levels.

    Raises:
        ConfigError: there are fewer than two.
    """
    names = level_names(model)
    if not names:
        raise ConfigError("this model has no levels of latents to hold; train a chain or a ladder, e.g. iwae-2layer")
    return names


def held_values(model: LatentModel, values: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """``values`` (n, *latent) by level as a `Held` draw wants them, on the model's device.

    Raises:
        ConfigError: a level that doesn't exist.
        ShapeError: not ``n`` of them.
    """
    names = require_levels(model)
    _require_known(names, list(values))
    for name, value in values.items():
        if len(value) != n:
            raise ShapeError(f"held[{name!r}] has {len(value)} rows, expected {n}, one a sample")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return {name: torch.as_tensor(value).to(device).unsqueeze(0) for name, value in values.items()}


def _require_known(names: Sequence[str], asked: Sequence[str]) -> None:
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ConfigError(f"held: no level {', '.join(unknown)}; this model has {', '.join(names)}")
