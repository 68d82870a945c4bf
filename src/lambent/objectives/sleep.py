"""The sleep phase: the encoder learns to invert the generator on what the generator dreams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lambent.distributions import sample
from lambent.draws import Ancestral, Draw, Given
from lambent.models import LatentModel
from lambent.objectives.base import Objective, detach
from lambent.settings import Conflict, option, part
from lambent.trace import Estimate, Trace


@part("objective", "sleep")
@dataclass(frozen=True)
class Sleep(Objective):
    """E_{p(z)p(x|z)}[log q(z|x)], a loss of the encoder alone (Hinton et al. 1995, Science 268).

    Maximising it minimises E_{p(x)} KL(p(z|x) || q(z|x)). The batch gives only the number of dreams, and their
    conditions. The reported value, nats, is log q(z|x) of each dream: no bound on log p(x).
    """

    needs_weights: ClassVar[bool] = True
    without_data: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("none", "path", "sum")
    sleep_x: str = option(
        "sample", "x of a model sample (sleep phase): a draw of p(x|z), or its mean", choices=("sample", "mean")
    )

    def conflicts(self, parts: Any) -> Conflict | None:
        """The encoder learns a density, from one model sample for each example."""
        if parts.drawing.samples != 1:
            said = f"draw.samples={parts.drawing.samples} with objective=sleep"
            return Conflict((), f"{said}: one sample of the model is drawn for each example; leave draw.samples at 1")
        return None

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """Value: log q(z|x) summed over the levels, (B,); the loss is minus its mean, for group "inference"."""
        log_q = trace.average(sum((z.log_q for z in trace.latents[1:]), trace.latents[0].log_q))
        return Estimate(detach(log_q), {"inference": -log_q.mean()}, "not a bound")

    def observe(
        self, model: LatentModel, x: Tensor, draw: Draw, condition: Tensor | None = None
    ) -> tuple[Trace, Tensor]:
        """The model run on dreams, as many as ``x`` has examples, with the dreamt latents given."""
        with torch.no_grad():
            dreamt = model(None, Ancestral(batch=len(x), generator=draw.generator), condition)
            px = dreamt.px
            dream = (px.mean if self.sleep_x == "mean" else sample(px, (), draw.generator))[0]
        values = {z.name: z.value for z in dreamt.latents if z.value is not None}
        return model(dream, Given(values=values), condition), dream
