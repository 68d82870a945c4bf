"""Gradient estimators as a picture: variance against cost, biased ones marked."""

from __future__ import annotations

from pathlib import Path

from lambent.errors import ConfigError
from lambent.evaluation.gradients import Comparison, Row
from lambent.report.drawing import BLUE, INK, LINE, ORANGE, SOFT, Axes, number, require_matplotlib, write_figure

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
    painters = [lambda axes, side=side: _paint(axes, found, side) for side in sides]
    write_figure(painters, path, title=_title(found), size=(4.9 * len(sides) + 0.2, 4.2))


def _title(found: Comparison) -> str:
    return f"{found.title}: batch of {found.examples}, K = {found.samples}"


def _paint(axes: Axes, found: Comparison, side: str) -> None:
    rows = [row for row in found.side(side) if row.variance > 0]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for row in rows:
        _point(axes, row)
    _frame(axes, rows)
    _same_work(axes)
    _names(axes, rows)
    axes.set_xlabel("ms a gradient")
    axes.set_ylabel("variance, summed over parameters")
    axes.set_title(f"{side}, {found.parameters[side]:,} parameters", loc="left", color=INK)


def _biased(row: Row) -> bool:
    return row.bias is not None and row.bias.z > CLEAR


def _point(axes: Axes, row: Row) -> None:
    biased = _biased(row)
    style = {"marker": "X", "color": ORANGE, "markersize": 7} if biased else {"marker": "o", "color": BLUE, "markersize": 6}
    axes.plot([row.ms], [row.variance], linestyle="none", markeredgecolor="white", markeredgewidth=0.6, **style)


def _label(row: Row) -> str:
    """The estimator, and a bias that was seen in per cent of the gradient."""
    name = row.name.replace(" baseline=", ", ").replace(" discrete=", ", ")
    return f"{name} (bias {number(100 * row.bias.relative, 1)} %)" if row.bias and _biased(row) else name
