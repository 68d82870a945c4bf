"""Gradient estimators as a picture: variance against cost, biased ones marked."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from lambent.errors import ConfigError
from lambent.gradients.measure import Comparison, Row
from lambent.report.drawing import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    Axes,
    name_beside,
    percent,
    require_matplotlib,
    spread,
    write_figure,
)

CLEAR = 5.0
"""From this z on a bias counts as seen."""
FORMATS = (".svg", ".png")


def check_picture(path: Path) -> None:
    """Refuses what no picture can be written to, before anything is measured.

    Raises:
        ConfigError: another suffix, or matplotlib is missing.
    """
    if path.suffix.lower() not in FORMATS or path.is_dir():
        raise ConfigError(f"{path}: the picture is a file; give a name that ends in {' or '.join(FORMATS)}")
    require_matplotlib()


def write_picture(found: Comparison, path: Path) -> None:
    """Variance against cost on logarithmic axes, a panel a side; on a grey line equal time buys equal variance.

    Raises:
        ConfigError: as `check_picture`.
        StorageError: it can't be written.
    """
    check_picture(path)
    sides = [side for side in found.parameters if any(row.variance for row in found.side(side))]
    if not sides:
        raise ConfigError(f"{path}: every gradient is exact, so that there is no variance to draw; leave out --out")
    painters = [partial(_paint, found=found, side=side) for side in sides]
    write_figure(painters, path, title=_title(found), note=_note(found), size=(5.6 * len(sides), 4.1))


def _title(found: Comparison) -> str:
    return f"{found.title}: batch of {found.examples}, K = {found.samples}"


def _note(found: Comparison) -> str:
    exact = [f"{row.name} ({row.ms:.1f} ms)" for row in found.side("inference") if not row.variance]
    missing = f" Without variance, so not shown: {', '.join(exact)}." if exact else ""
    return (
        f"Along a grey line equal time gives equal variance. Orange: a bias seen at z > {CLEAR:g}, as a share of the\n"
        f"gradient's length, {found.repetitions:,} gradients each.{missing}"
    )


def _paint(axes: Axes, found: Comparison, side: str) -> None:
    rows = sorted((row for row in found.side(side) if row.variance > 0), key=lambda row: row.variance)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for row in rows:
        _point(axes, row)
    _frame(axes, rows)
    _equal_work(axes)
    _names(axes, rows)
    axes.set_xlabel("ms a gradient")
    axes.set_ylabel("variance, summed over parameters")
    axes.set_title(f"{side}, {found.parameters[side]:,} parameters", loc="left", color=INK)


def _biased(row: Row) -> bool:
    return row.bias is not None and row.bias.z > CLEAR


def _point(axes: Axes, row: Row) -> None:
    shape = {"marker": "X", "color": ORANGE, "markersize": 8} if _biased(row) else {"marker": "o", "color": BLUE}
    axes.plot([row.ms], [row.variance], linestyle="none", markeredgecolor="white", markeredgewidth=0.6, **shape)


def _frame(axes: Axes, rows: list[Row]) -> None:
    """Room around the points, and ticks that read as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    times, variances = [row.ms for row in rows], [row.variance for row in rows]
    axes.set_xlim(min(times) / 1.5, max(times) * 1.5)
    axes.set_ylim(min(variances) / 3, max(variances) * 3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}" if value >= 1e-4 else f"{value:.0e}"))
        axis.set_minor_formatter(NullFormatter())


def _equal_work(axes: Axes) -> None:
    """Lines of equal variance x time, a decade or more apart: as many gradients as fit in a time average alike."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    first, last = math.floor(math.log10(left * low)), math.ceil(math.log10(right * high))
    for power in range(first, last + 1, max(1, round((last - first) / 7))):
        axes.plot([left, right], [10.0**power / left, 10.0**power / right], color=LINE, linewidth=0.6, zorder=0)


def _names(axes: Axes, rows: list[Row]) -> None:
    """Beside the frame in the order of the points' heights, a thin line to each."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    heights = spread([(math.log(row.variance) - low) / (high - low) for row in rows])
    for row, height in zip(rows, heights, strict=True):
        name_beside(axes, _label(row), (row.ms, row.variance), height, ORANGE if _biased(row) else INK)


def _label(row: Row) -> str:
    """The estimator, and a bias that was seen in per cent of the gradient."""
    name = row.name.replace("=", " ")
    return f"{name}: bias {percent(row.bias.relative)}" if row.bias and _biased(row) else name
