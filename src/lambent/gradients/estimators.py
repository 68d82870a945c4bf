"""Which gradient estimators a configuration can be trained with, and which of them says what the gradient is."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from lambent.config.config import Config
from lambent.config.rules import check
from lambent.draws import Draw, Enumerate
from lambent.errors import CombinationError
from lambent.gradients.measure import Estimator
from lambent.objectives import ELBO, IWAE
from lambent.objectives.base import Objective
from lambent.seeds import derive
from lambent.settings import options_of, registry
from lambent.shapes import Shapes

MOST_ROWS = 2**20
"""States times examples that are summed for an exact reference."""
OTHER_BOUND = "objective={}: with every state summed it is log p(x), not the bound of K samples; use objective=elbo"


def estimators(
    config: Config, shapes: Shapes, *, samples: int, step: int = 0, control: Any = None, n: int = 1
) -> tuple[list[Estimator], dict[str, str]]:
    """Every registered draw, each choice of its settings, that ``config`` may have; and why not the others.

    Args:
        config: What the model was built from.
        shapes: Its sizes.
        samples: K (enumeration takes every state once).
        step: The training step whose temperatures and rates are in force.
        control: What the model's own draw has learnt, to go on from.
        n: Examples in the training set, which some rates ask for.
    """
    found, refused = [], {}
    for name, draw in _variants(config, samples):
        changed = replace(config, draw=draw)
        try:
            check(changed)
        except CombinationError as error:
            refused[name] = str(error)
            continue
        found.append(_estimator(name, changed, shapes, step, control if draw == config.draw else None, n))
    if config.objective.multi_sample and len(found) > 1 and any(e.name == "enumerate" for e in found):
        found = [e for e in found if e.name != "enumerate"]
        refused["enumerate"] = OTHER_BOUND.format(registry.name_of("objective", config.objective))
    return found, refused


def _variants(config: Config, samples: int) -> Iterator[tuple[str, Draw]]:
    """Each registered draw by each of its choices; the configuration's own settings where it is its own draw."""
    for name in registry.names("draw"):
        cls: Any = registry.find("draw", name)
        base: Any = config.draw if type(config.draw) is cls else cls()
        base = replace(base, samples=1 if cls is Enumerate else samples)
        choices = {k: field.metadata["choices"] for k, field in options_of(cls).items() if field.metadata["choices"]}
        for values in itertools.product(*choices.values()):
            chosen = dict(zip(choices, values, strict=True))
            yield " ".join([name, *(f"{k}={v}" for k, v in chosen.items())]), replace(base, **chosen)


def _estimator(name: str, config: Config, shapes: Shapes, step: int, control: Any, n: int) -> Estimator:
    objective = config.objective.sized(n).at(step)
    several = objective.multi_sample and config.drawing.samples > 1
    states = "; ".join(line for line in (config.drawing.bias(multi_sample=several), objective.bias) if line)
    own = copy.deepcopy(control) if control is not None else _fresh_control(config, shapes)
    return Estimator(name, config.drawing.at(step), objective, states, own)


def _fresh_control(config: Config, shapes: Shapes) -> Any:
    """As the model would be given it, from ``train.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.train.seed, "control variate"))
        return config.drawing.parameters_for(shapes.latent, math.prod(config.likelihood.input_shape(shapes)))


def target(config: Config, samples: int) -> Objective:
    """The bound whose gradient every estimator is after: the objective, but the ELBO where K = 1 makes it that.

    An objective that follows no bound's gradient itself (wake-sleep) is held to the bound that it reports.
    """
    own = config.objective
    if own.multi_sample and samples == 1:
        return ELBO()
    if own.bias:
        return IWAE() if own.multi_sample else ELBO()
    return own


def trusted(
    found: list[Estimator], config: Config, shapes: Shapes, *, samples: int, examples: int, step: int = 0, n: int = 1
) -> list[Estimator]:
    """What the gradient may be measured by: all states summed where they are few, else the unbiased estimators.

    Args:
        found: What `estimators` found for ``config``; reused where they are after the same bound.
        config: What the model was built from.
        shapes: Its sizes.
        samples: K.
        examples: Size of the batch.
        step: The training step.
        n: Examples in the training set.

    Raises:
        CombinationError: no unbiased estimator goes with this configuration.
    """
    bound, states = target(config, samples), config.model.state_count(config)
    if bound != config.objective:
        aimed = replace(config, objective=bound, rate=registry.find("rate", "sum")())
        found, _ = estimators(aimed, shapes, samples=samples, step=step, n=n)
    few = states is not None and states * examples <= MOST_ROWS
    unbiased = [e for e in found if not e.states and (few or not isinstance(e.draw, Enumerate))]
    if not unbiased and config.latent_kind == "codes":
        raise CombinationError(
            "model=quantised: the gradient past its codes is straight-through, which is biased, and no other exists to "
            "compare it with; use a recipe such as st-vae"
        )
    if not unbiased:
        raise CombinationError(
            f"objective={registry.name_of('objective', config.objective)}: no unbiased gradient estimator goes with "
            "this model, so that bias can't be estimated; use objective=elbo"
        )
    return [e for e in unbiased if isinstance(e.draw, Enumerate)] or unbiased
