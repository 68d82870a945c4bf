"""The variational Rényi bound (Li & Turner 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lambent import Estimate, Objective, Trace
from lambent.objectives.base import penalised
from lambent.settings import option, part


@part("objective", "renyi")
@dataclass(frozen=True)
class Renyi(Objective):
    """1/(1 - α) log (1/K) sum_k w_k^(1 - α), a lower bound on log p(x) for 0 <= α < 1 (Li & Turner 2016, eq. 15).

    α = 0 is the IWAE bound; the ELBO is the limit α → 1.
    """

    alpha: float = option(0.5, "order α of the divergence", minimum=0, maximum=0.999)
    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("path",)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: the bound of each example, (B,), nats."""
        log_w = trace.log_weight(x)  # (K, B)
        power = 1 - self.alpha
        bound = (torch.logsumexp(power * log_w, 0) - math.log(len(log_w))) / power
        losses = penalised({"all": -bound.mean()}, trace)
        return Estimate(bound.detach(), losses, trace.evidence_kind)
