"""What a step's trace tells the metrics: rate, distortion, and the rate of each level where there are several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lambent.evaluation.bounds import level_rates
from lambent.trace import Trace


def levels(trace: Trace) -> tuple[str, ...]:
    """The names of the levels, where there are several."""
    return tuple(z.name for z in trace.latents) if len(trace.latents) > 1 else ()


@torch.no_grad()
def sums(trace: Trace, x: Tensor) -> Tensor:
    """Sums over examples of rate and distortion, nats, the number of examples, and the rates of several levels.

    Of shape (3,), or (3 + L,) with L levels; float64.
    """
    distortion = trace.average(trace.distortion(x)).sum(dtype=torch.float64)
    rates = level_rates(trace).sum(1).to(distortion.device)
    each = rates if levels(trace) else rates[:0]
    return torch.cat([torch.stack([rates.sum(), distortion, distortion.new_tensor(float(len(x)))]), each])


def means(found: Sequence[float], names: Sequence[str]) -> dict[str, Any]:
    """The entries of a line of metrics, nats an example, from `sums` over all processes.

    >>> means([6.0, 20.0, 2.0, 4.0, 2.0], ("z1", "z2"))
    {'rate': 3.0, 'distortion': 10.0, 'rates': {'z1': 2.0, 'z2': 1.0}}
    """
    rate, distortion, n, *rates = found
    each = {"rates": {name: value / n for name, value in zip(names, rates, strict=True)}} if names else {}
    return {"rate": rate / n, "distortion": distortion / n, **each}
