"""Rows of a table or vectors beside the model's own: drawn from the prior, or reconstructed where it is flat."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.report.material import Held

MOST = 5000


def model_rows(held: Held) -> Tensor:
    """As many rows of the model as there are examples (at most `MOST`), in the data's own unit, (N, D)."""
    run, n = held.run, min(MOST, len(held.view))
    if not run.config.prior.normalised:
        return run.transform.invert(held.decode(held.z[:n], torch.arange(n)))
    condition = held.condition
    return run.transform.invert(run.sample(n, seed=0, condition=None if condition is None else condition[:n]))


def data_rows(held: Held) -> Tensor:
    """The examples in their own unit, (N, D)."""
    return held.run.transform.invert(held.x[:MOST])


def what(held: Held) -> str:
    """What the model's rows are."""
    return "samples" if held.run.config.prior.normalised else "reconstructions"


def lead(held: Held) -> str:
    """What is compared, in a sentence."""
    n = min(MOST, len(held.view))
    made = f"{n:,} {'draws from the model' if held.run.config.prior.normalised else 'reconstructions'}"
    why = "" if held.run.config.prior.normalised else " (the prior is flat, so that there is nothing to sample from)"
    given = "; conditions are those of the examples" if held.run.shapes.condition else ""
    return f"{n:,} examples of {held.dataset.name} against {made}{why}{given}, in the data's own unit."


def trimmed(values: Tensor) -> tuple[float, float]:
    """Limits that hold all but the outer thousandth on either side."""
    low, high = torch.quantile(values.double()[:100_000], torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)
