"""Wake-sleep and its reweighted form: p learns from inferred latents, q from weighted ones or model samples."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from lambent.draws import Draw
from lambent.models import LatentModel
from lambent.objectives.base import Objective, detach, penalised
from lambent.objectives.sleep import Sleep
from lambent.settings import Conflict, option, part
from lambent.trace import Estimate, Trace

SLEEP = "sleep"
"""The trace's penalty that holds -log q(z|x) of the model's samples; it is the encoder's loss alone."""


def _with_sleep(
    trace: Trace, sleep: Sleep, model: LatentModel, x: Tensor, draw: Draw, condition: Tensor | None
) -> Trace:
    generated, sampled = sleep.observe(model, x, draw, condition)
    loss = sleep(generated, sampled).losses["inference"]
    return dataclasses.replace(trace, penalties={**trace.penalties, SLEEP: loss})


def _awake(trace: Trace) -> Trace:
    """The trace without the sleep phase's penalty."""
    others = {name: penalty for name, penalty in trace.penalties.items() if name != SLEEP}
    return dataclasses.replace(trace, penalties=others)


@part("objective", "wake-sleep")
@dataclass(frozen=True)
class WakeSleep(Objective):
    """Wake: p maximises E_q[log p(x,z)]; sleep: q maximises E_p[log q(z|x)] (Hinton et al. 1995, Science 268).

    Both phases in one step, on as many samples of the model as examples. The reported value is the ELBO, which
    neither phase maximises as a whole.
    """

    needs_weights: ClassVar[bool] = True
    bias: ClassVar[str] = "wake-sleep trains q on samples of the model, so that p and q follow no common objective"
    gradients: ClassVar[tuple[str, ...]] = ("none",)
    sleep: Sleep = field(default_factory=Sleep)

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: the ELBO, (B,)."""
        log_px = trace.log_px(x)
        bound = trace.average(log_px - trace.rate)
        joint = trace.average(log_px + sum(z.log_p for z in trace.latents))
        losses = {"generative": -joint.mean(), "inference": trace.penalties[SLEEP]}
        return Estimate(detach(bound), penalised(losses, _awake(trace)), trace.elbo_kind)

    def observe(
        self, model: LatentModel, x: Tensor, draw: Draw, condition: Tensor | None = None
    ) -> tuple[Trace, Tensor]:
        """The model run on the batch, and on samples of its own."""
        return _with_sleep(model(x, draw, condition), self.sleep, model, x, draw, condition), x


@part("objective", "rws")
@dataclass(frozen=True)
class ReweightedWakeSleep(Objective):
    """Wake-sleep with importance weights (Bornschein & Bengio 2015, section 2), normalised over each example's K.

    p follows sum_k w_k grad log p(x, z_k); q follows sum_k w_k grad log q(z_k|x) (wake phase), samples of the
    model (sleep phase), or both, weighted by ``sleep_weight``. Biased at finite K, consistent as K grows. The reported
    value is the IWAE bound of the K samples.
    """

    needs_weights: ClassVar[bool] = True
    multi_sample: ClassVar[bool] = True
    bias: ClassVar[str] = "rws is biased at finite K (self-normalised weights); the bias falls as 1/K"
    gradients: ClassVar[tuple[str, ...]] = ("none",)
    sleep_weight: float = option(
        0.5, "weight of the sleep phase in the loss of q, from 0 to 1; 0: the wake phase alone", minimum=0, maximum=1
    )
    sleep: Sleep = field(default_factory=Sleep)

    def conflicts(self, parts: Any) -> Conflict | None:
        """The wake phase learns from the differences between weights."""
        if parts.drawing.samples != 1 or self.sleep_weight:
            return None
        said = "objective.sleep_weight=0 with draw.samples=1"
        return Conflict((), f"{said}: a single weight is 1, which teaches q nothing; use draw.samples=5")

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: log mean weight, (B,)."""
        log_px = trace.log_px(x)
        log_p = log_px + sum(z.log_p for z in trace.latents)
        log_q = sum((z.log_q for z in trace.latents[1:]), trace.latents[0].log_q)
        terms = trace.log_terms(log_px).detach()
        weights = terms.softmax(0)
        wake = -(weights * log_q).sum(0).mean()
        inference = (
            wake
            if not self.sleep_weight
            else (1 - self.sleep_weight) * wake + self.sleep_weight * trace.penalties[SLEEP]
        )
        losses = {"generative": -(weights * log_p).sum(0).mean(), "inference": inference}
        bound = terms.logsumexp(0) - (0.0 if trace.enumerated else math.log(len(terms)))
        return Estimate(detach(bound), penalised(losses, _awake(trace)), trace.evidence_kind)

    def observe(
        self, model: LatentModel, x: Tensor, draw: Draw, condition: Tensor | None = None
    ) -> tuple[Trace, Tensor]:
        """The model run on the batch, and on samples of its own if they have a weight."""
        trace = model(x, draw, condition)
        return (_with_sleep(trace, self.sleep, model, x, draw, condition) if self.sleep_weight else trace), x
