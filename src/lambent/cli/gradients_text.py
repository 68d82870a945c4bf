"""A comparison of gradient estimators as text."""

from __future__ import annotations

import math

from lambent.gradients.measure import Comparison, Row

CLEAR = 5.0
"""From this z on a bias counts as seen."""


def comparison_text(found: Comparison) -> str:
    """A table a side of the model, and what the numbers mean."""
    lines = [f"{found.title}: batch of {found.examples}, K = {found.samples}, {found.repetitions} gradients each"]
    for side in found.parameters:
        lines += ["", *_table(found, side)]
    return "\n".join([*lines, "", *_notes(found)])


def _table(found: Comparison, side: str) -> list[str]:
    rows = found.side(side)
    width = max(len(row.name) for row in rows)
    head = f"{side}, {found.parameters[side]:,} parameters"
    columns = f"{'variance':>10} {'log mean':>9} {'bias / |g|':>14} {'z':>7}  {'stated':<8} {'ms':>8} {'var x ms':>10}"
    return [head, f"  {'':<{width}} {columns}", *(_row(row, width) for row in rows)]


def _row(row: Row, width: int) -> str:
    log = "-" if math.isinf(row.log_variance) else f"{row.log_variance:.2f}"
    states = "biased" if row.stated else "unbiased"
    z = "-" if row.bias is None or not row.variance else f"{row.bias.z:.1f}"
    flag = "  <- bias seen" if contradicts(row) else ""
    work = f"{row.variance * row.ms:.4g}"
    line = f"{row.variance:>10.4g} {log:>9} {bias_text(row):>14} {z:>7}  {states:<8} {row.ms:>8.2f} {work:>10}"
    return f"  {row.name:<{width}} {line}{flag}"


def contradicts(row: Row) -> bool:
    """Whether a row claims to be unbiased, and isn't seen to be."""
    return row.side == "inference" and not row.stated and row.bias is not None and row.bias.z > CLEAR


def bias_text(row: Row) -> str:
    """The bias relative to the gradient's length, or below what it is where none was seen."""
    if row.bias is None or math.isnan(row.bias.relative):
        return "-"
    if not row.variance and row.bias.z < CLEAR:
        return "exact"
    if row.bias.z > CLEAR:
        return f"{row.bias.relative:.3g} ± {row.bias.relative_se:.1g}"
    return f"< {row.bias.relative_se:.2g}"


def _notes(found: Comparison) -> list[str]:
    long_run = f"the mean of {found.reference_repetitions:,} gradients by {found.reference}"
    errors = ", ".join(f"{error:.2g} of |g| for {side}" for side, error in found.reference_error.items())
    against = f"the exact gradient ({found.reference})" if found.exact else f"{long_run}, standard error {errors}"
    return [
        f"bias is measured against {against}",
        f"where z does not show it (z <= {CLEAR:g}) it is below the value given; what is stated concerns q's gradient",
        "variance is the sum over parameters, log mean the logarithm of its mean; var x ms compares at equal time",
        f"baselines and control variates were fitted for {found.warm_up} steps first, the model held",
        *sorted({f"{row.name} is biased: {row.stated}" for row in found.rows if row.stated}),
    ]
