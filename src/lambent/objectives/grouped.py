"""Bounds between the ELBO and the IWAE: several samples, several groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lambent.errors import CombinationError, ConfigError
from lambent.objectives.base import Objective, detach, penalised
from lambent.objectives.score_function import Blend, LogMean, Mean, Reduction, losses
from lambent.settings import Conflict, option, part
from lambent.trace import Estimate, Trace


def _estimate(trace: Trace, x: Tensor, reduction: Reduction) -> Estimate:
    terms = _log_weight(trace, x)
    found = penalised(losses(trace, terms, reduction), trace)
    return Estimate(detach(reduction.value(trace.drawn(terms))), found, trace.evidence_kind)


def _log_weight(trace: Trace, x: Tensor) -> Tensor:
    if trace.enumerated:
        raise CombinationError(
            "the samples run over the states of a latent, so that no bound of groups of draws exists; "
            "use objective=iwae, which is exact then, or draw=score"
        )
    return trace.log_weight(x)


def _uneven(groups: int, samples: int) -> Conflict | None:
    """Why groups of equal size can't be made of the samples."""
    if samples % groups == 0:
        return None
    return Conflict((), f"objective.groups={groups} does not divide draw.samples={samples}; give a divisor")


def _require_groups(trace: Trace, groups: int) -> None:
    if trace.samples % groups:
        raise ConfigError(f"objective.groups={groups} does not divide draw.samples={trace.samples}; give a divisor")


@part("objective", "miwae")
@dataclass(frozen=True)
class MIWAE(Objective):
    """The mean of M IWAE bounds of K / M samples each (Rainforth et al. 2018): less noise, a looser bound."""

    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("path", "score", "control")
    groups: int = option(1, "M: groups that the draw's samples are split into", minimum=1)

    def conflicts(self, parts: Any) -> Conflict | None:
        """The groups are of equal size."""
        return _uneven(self.groups, parts.drawing.samples)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: the mean over groups of the log mean weight, (B,)."""
        _require_groups(trace, self.groups)
        return _estimate(trace, x, LogMean(self.groups))


@part("objective", "ciwae")
@dataclass(frozen=True)
class CIWAE(Objective):
    """share * ELBO + (1 - share) * IWAE (Rainforth et al. 2018), a bound between the two."""

    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("path", "score", "control")
    beta: float = option(0.05, "fraction of the ELBO in the loss (beta in the paper)", minimum=0, maximum=1)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: the blend of both bounds, (B,)."""
        return _estimate(trace, x, Blend(self.beta, Mean(), LogMean()))


@part("objective", "piwae")
@dataclass(frozen=True)
class PIWAE(Objective):
    """IWAE of all samples for p, MIWAE of M groups for q (Rainforth et al. 2018)."""

    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("path", "score")
    groups: int = option(1, "M: groups that the draw's samples are split into for q", minimum=1)

    def conflicts(self, parts: Any) -> Conflict | None:
        """The groups are of equal size."""
        return _uneven(self.groups, parts.drawing.samples)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: the IWAE bound of all samples, (B,)."""
        _require_groups(trace, self.groups)
        terms = _log_weight(trace, x)
        bound = LogMean().value(terms)
        # a later group's loss takes the place of "all" for its parameters
        found = {"all": losses(trace, terms, LogMean(self.groups))["all"], "generative": -bound.mean()}
        return Estimate(detach(bound), penalised(found, trace), trace.evidence_kind)
