"""Whether the latents are in use: what validations look at beside the bound, and when they say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lambent.draws import Mode
from lambent.evaluation.active_units import active_by_level, counted_by, level_sizes, posterior_means, rated, unit_rates
from lambent.evaluation.blocks import Batch, evaluating
from lambent.evaluation.mutual_information import of_trace
from lambent.models import LatentModel, MarkovChain
from lambent.trace import Trace
from lambent.training.progress import Progress, Validation


def look(
    model: LatentModel,
    batch: Batch,
    n: int,
    *,
    seed: int,
    device: torch.device,
    informed: bool = True,
    known: float | None = None,
) -> dict[str, Any]:
    """How much the latents are used on n examples; what can't be computed for the model is left out.

    Active units are counted by the means of q(z|x) on all levels (Burda et al. 2016, section 5.2), in a ladder by their
    rates. The mutual information I_q(x;z), nats, is of one draw an example, with the same noise every time.

    Args:
        model: In evaluation mode for the time of the call.
        batch: Gives examples by position.
        n: How many.
        seed: Of the noise.
        device: Where the noise is made.
        informed: Whether the mutual information is asked for.
        known: The mutual information of these examples where it has just been measured.
    """
    with torch.inference_mode(), evaluating(model):
        x, condition = batch(0, n)
        trace = model(x, Mode(), condition)
        if not trace.latents:
            return {}
        units = _units(model, trace, x, condition, torch.Generator(device).manual_seed(seed))
        if informed and known is None:
            found = of_trace(model, trace, seed=seed, device=device)
            known = None if found is None else found.value
    return ({"mutual_information": known} if informed and known is not None else {}) | units | {"examples": n}


def _units(
    model: LatentModel, trace: Trace, x: Tensor, condition: Tensor | None, generator: torch.Generator
) -> dict[str, Any]:
    """The active units of the examples in a trace, how they are counted where not by means, and the latents."""
    means, sizes = posterior_means(trace), level_sizes(trace)
    rates = unit_rates(model, [(x, condition)], generator) if rated(trace) else {}
    active = sum(n for n, _ in active_by_level(means, sizes, rates).values()) if sizes else 0
    by = {"active_units_by": counted_by(sizes, rates)} if rates else {}
    return {"active_units": active, **by, "latent": means.shape[1]}


@dataclass(frozen=True, eq=False)
class CollapseAlarm:
    """Warns of a posterior that has become the prior, on all levels together or on one of several.

    Attributes:
        under: Nats of validation rate.
        settled: Whether the loss charges for the rate in full at a step (a warm-up is over).
        advice: Settings that may help.
        level_advice: Those against a single idle level.
        judged: The levels that may be called idle (`judged_levels`); none: all.
    """

    under: float
    settled: Callable[[int], bool]
    advice: Callable[[], Sequence[str]]
    level_advice: Callable[[], Sequence[str]] = tuple
    judged: tuple[str, ...] | None = None

    def on_validation(self, progress: Progress, found: Validation, *, early: bool) -> str:
        """The warning, where a validation's rate fell under `under` since the one before; "" where not.

        A level whose own rate is under it while the whole rate is not is warned of once.

        Args:
            progress: Remembers whether the rate was low, and counts.
            found: The validation.
            early: It is the first of several: too soon to tell.
        """
        low = math.isfinite(found.rate) and found.rate < self.under and self.settled(progress.step) and not early
        fell, progress.low = low and not progress.low, low
        progress.alarms += fell
        if fell:
            return self._text(progress.step, found.rate)
        tell = self.settled(progress.step) and not early and not low
        return self._idle(progress, found) if tell else ""

    def _text(self, step: int, rate: float) -> str:
        return (
            f"warning: step {step:,}: the posterior has collapsed: the validation rate is {rate:.2g} nats, under "
            f"train.collapse_threshold={self.under:g}, so that p(x|z) hardly uses z{_help(self.advice())}"
        )

    def _idle(self, progress: Progress, found: Validation) -> str:
        """The warning of levels that fell idle and were not warned of before."""
        low = idle_levels(found.rates, self.under, self.judged)
        fresh = [name for name in low if name not in progress.idle]
        progress.idle += fresh
        if not fresh:
            return ""
        each = ", ".join(f"{name} {found.rates[name]:.2g}" for name in fresh)
        return (
            f"warning: step {progress.step:,}: levels carry almost no information beyond those above them: of "
            f"{found.rate:.4g} nats of validation rate {each}, under train.collapse_threshold={self.under:g}"
            f"{_help(self.level_advice())}"
        )


def idle_levels(rates: Mapping[str, float], under: float, judged: Sequence[str] | None = None) -> list[str]:
    """The levels whose rate is under a threshold in nats, of all or of those ``judged``.

    >>> idle_levels({"z1": 3.0, "z2": 0.01}, 0.1)
    ['z2']
    """
    named = rates if judged is None else judged
    return [name for name, rate in rates.items() if name in named and math.isfinite(rate) and rate < under]


def judged_levels(model: LatentModel) -> tuple[str, ...] | None:
    """The levels whose rate bounds what they tell beyond those above; None: all. Of a chain inferred upwards the top.

    A lower level of a chain costs I(x;z) - I(z;above) + KL(q(z|above)||p(z|above)), which may be 0, and less, though it
    alone says about x: p is given what q of the level above has inferred.
    """
    return tuple(model.names[-1:]) if isinstance(model, MarkovChain) else None


def _help(advice: Sequence[str]) -> str:
    return f"; what may help, each by itself in a new run: {'; '.join(advice)}" if advice else ""


@dataclass(frozen=True, eq=False)
class CollapseMonitor:
    """The panel and the alarm of a training, each where the model has a meaning for it.

    Attributes:
        look: The model, and the mutual information if it has just been measured, to entries of a validation's row.
        alarm: When to warn.
    """

    look: Callable[[LatentModel, float | None], dict[str, Any]] | None = None
    alarm: CollapseAlarm | None = None

    def entries(self, model: LatentModel, known: float | None) -> dict[str, Any]:
        """What the panel adds to a validation."""
        return {} if self.look is None else self.look(model, known)

    def on_validation(self, progress: Progress, found: Validation, *, early: bool) -> str:
        """The warning that a validation calls for, if any."""
        return "" if self.alarm is None else self.alarm.on_validation(progress, found, early=early)

    def counts(self, progress: Progress) -> dict[str, int]:
        """The number of warnings so far, for the row; nothing where none can be."""
        return {} if self.alarm is None else {"alarms": progress.alarms}
