"""Rows of a table or vectors beside the model's own: drawn from the prior, or reconstructed where it is flat."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.report.examples import Examples

MOST = 5000


def model_rows(held: Examples) -> Tensor:
    """Rows of the model in the data's own unit, (N, D): `MOST`, or one for each example it depends on."""
    run, n = held.run, min(MOST, len(held.view))
    if not run.config.samplable:
        return run.transform.invert(held.decode(held.z[:n], torch.arange(n)))
    condition = held.condition
    if condition is None:
        return run.transform.invert(run.sample(MOST, seed=0))
    return run.transform.invert(run.sample(n, seed=0, condition=condition[:n]))


def data_rows(held: Examples) -> Tensor:
    """The examples in their own unit, (N, D)."""
    return held.run.transform.invert(held.x[:MOST])


def what(held: Examples) -> str:
    """What the model's rows are."""
    return "samples" if held.run.config.samplable else "reconstructions"


def lead(held: Examples) -> str:
    """What is compared, in a sentence."""
    n, sampled = min(MOST, len(held.view)), held.run.config.samplable
    drawn = MOST if sampled and not held.run.shapes.condition else n
    made = f"{drawn:,} {'draws from the model' if sampled else 'reconstructions'}"
    why = "" if held.run.config.samplable else " (the prior is flat, so that there is nothing to sample from)"
    given = "; conditions are those of the examples" if held.run.shapes.condition else ""
    return f"{n:,} examples of {held.dataset.name} against {made}{why}{given}, in the data's own unit."


def bins(n: int) -> int:
    """Bars of a histogram of ``n`` values: fewer where few would leave them ragged."""
    return int(min(50, max(8, 1.6 * n**0.5)))


def trimmed(values: Tensor) -> tuple[float, float]:
    """Limits that hold all but the outer thousandth on either side."""
    low, high = torch.quantile(values.double()[:100_000], torch.tensor([0.001, 0.999], dtype=torch.float64)).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)
