"""What a training watches for posterior collapse, from its configuration and its validation data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from lambent.config import Config
from lambent.config.remedies import level_remedies, remedies
from lambent.data import View
from lambent.draws import Mode
from lambent.errors import CombinationError, LambentError
from lambent.evaluation.blocks import Batch, evaluating
from lambent.evaluation.mutual_information import EXAMPLES, information as measured
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.training.collapse_monitor import CollapseAlarm, CollapseMonitor, judged_levels, look


def collapse_monitor(
    config: Config, model: LatentModel, valid: View, steps: int, device: torch.device
) -> CollapseMonitor:
    """The panel and the alarm, each where the model has a meaning for it.

    Args:
        config: The configuration.
        model: The model, tried on two examples to see what is known of it.
        valid: The validation set.
        steps: Of the whole training.
        device: Where noise is made.
    """
    if not config.has_latents:
        return CollapseMonitor()
    return CollapseMonitor(_panel(config, model, valid, device), _alarm(config, model, valid, steps))


def _panel(
    config: Config, model: LatentModel, valid: View, device: torch.device
) -> Callable[[LatentModel, float | None], dict[str, Any]] | None:
    most = config.train.monitor_examples
    most = EXAMPLES if most and config.schedule.informed else most  # so that it is measured once
    n = min(most, len(valid))
    if n < 2 or config.latent_kind == "codes":  # an index's variance means nothing; the share of codes used says it
        return None
    informed = valid.condition(torch.arange(1)) is None  # else of x and the condition, which no rate is above
    measure = partial(look, seed=derive(config.train.seed, "monitor"), device=device, informed=informed)
    try:
        measure(model, valid.spread(2), 2)
    except (LambentError, NotImplementedError):
        return None
    batch = valid.spread(most)
    return lambda measured, known: measure(measured, batch, n, known=known)


def _alarm(config: Config, model: LatentModel, valid: View, steps: int) -> CollapseAlarm | None:
    """None where the rate is none of a density, or its posterior no encoder's."""
    under = config.train.collapse_threshold
    if not under or not config.amortised or not _normalised(model, valid):
        return None

    def advice() -> list[str]:
        return [" ".join(remedy.tokens) for remedy in remedies(config, steps)]

    def level_advice() -> list[str]:
        return [" ".join(remedy.tokens) for remedy in level_remedies(config, steps)]

    rate = config.charged
    return CollapseAlarm(under, lambda step: rate.at(step).settled, advice, level_advice, judged_levels(model))


def _normalised(model: LatentModel, valid: View) -> bool:
    with torch.inference_mode(), evaluating(model):
        x, condition = valid.spread(1)(0, 1)
        return all(latent.normalised for latent in model(x, Mode(), condition).latents)


def information_of(
    config: Config, model: LatentModel, valid: View, device: torch.device
) -> Callable[[LatentModel], float] | None:
    """I_q(x;z) on the validation set for schedules that ask for it; tried once, to refuse models it isn't known of.

    Raises:
        CombinationError: it isn't known of the model.
    """
    if not config.schedule.informed:
        return None
    seed, n = derive(config.train.seed, "monitor"), min(EXAMPLES, len(valid))
    information(model, valid.spread(EXAMPLES), min(2, n), seed=seed, device=device)
    return lambda measured: information(measured, valid.spread(EXAMPLES), n, seed=seed, device=device)


def information(model: LatentModel, batch: Batch, n: int, *, seed: int, device: torch.device) -> float:
    """I_q(x;z) on the first of ``n`` examples (2,000 at most), its noise the same every time.

    Raises:
        CombinationError: the model has several levels, or a posterior without a density.
    """
    found = measured(model, batch, min(n, EXAMPLES), seed=seed, device=device)
    if found is None:
        raise CombinationError(
            "schedule=aggressive-encoder measures I_q(x;z), which is known of one level of latents with a density; "
            "use schedule=joint"
        )
    return found.value
