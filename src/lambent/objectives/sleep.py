"""The sleep phase: the encoder learns to invert the generator on samples of the model."""

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

    Maximising it minimises E_{p(x)} KL(p(z|x) || q(z|x)). The batch gives only the number of samples, and their
    conditions. The reported value, nats, is log q(z|x) of each sample: no bound on log p(x).
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
        """The model run on samples of its own, as many as ``x`` has examples, with their latents given."""
        with torch.no_grad():
            generated = model(None, Ancestral(batch=len(x), generator=draw.generator), condition)
            px = generated.px
            sampled = (px.mean if self.sleep_x == "mean" else sample(px, (), draw.generator))[0]
        values = {z.name: z.value for z in generated.latents if z.value is not None}
        return model(sampled, Given(values=values), condition), sampled
