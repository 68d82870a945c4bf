"""EM as a training step: what it needs, and that it keeps its promise."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lambent.errors import ConfigError
from lambent.models import LatentModel
from lambent.training.maximise import maximise, maximiser, require_ascent, rounding
from lambent.training.updates import Phase


def require_closed_form(model: LatentModel, steps_per_epoch: int, processes: int) -> None:
    """Refuses what EM can't do, before the first step.

    Raises:
        CombinationError: no closed-form M step exists for this model; says what would do.
        ConfigError: a batch smaller than the training set, or several processes.
    """
    maximiser(model)
    if steps_per_epoch != 1:
        raise ConfigError(
            f"updates=em: an epoch has {steps_per_epoch} batches, expected 1, as an EM step takes the whole training "
            "set; set train.batch_size to its size or more"
        )
    if processes != 1:
        raise ConfigError(f"updates=em: found {processes} processes, expected 1; start it without torchrun")


def em_step(model: LatentModel, x: Tensor, condition: Tensor | None, phase: Phase) -> tuple[Tensor, Phase]:
    """One EM iteration; log p(x) of each example before it, (B,), nats, and the phase that remembers its mean.

    Raises:
        NumericsError: the mean fell by more than rounding explains.
    """
    slack = rounding(model, x)
    log_p = maximise(model, x, condition)
    mean = float(log_p.mean())
    require_ascent(phase.last, mean, slack)
    return log_p, replace(phase, last=mean)
