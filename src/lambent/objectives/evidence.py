"""The evidence itself, where all latents can be summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lambent.objectives.base import Objective, detach, penalised
from lambent.settings import part
from lambent.trace import Estimate, Trace


@part("objective", "log-likelihood")
@dataclass(frozen=True)
class LogLikelihood(Objective):
    """log p(x) = log sum_z p(z) p(x|z) over all values of enumerated latents: exact; q learns nothing from it."""

    needs_weights: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("sum",)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: log p(x), (B,)."""
        found = trace.log_mean_weight(x)
        return Estimate(detach(found), penalised({"all": -found.mean()}, trace), trace.evidence_kind)
