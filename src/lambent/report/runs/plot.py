"""Runs as a picture: rate against distortion with lines of equal ELBO, and what of the rate says something of x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from lambent.report.drawing import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    SOFT,
    Axes,
    Paint,
    colours,
    name_beside,
    number,
    spread,
)
from lambent.runs.compare import Row, RunTable

LINES = 10
"""Lines of equal ELBO, about."""


def painters(found: RunTable) -> list[Paint]:
    """Of the plane of rate and distortion, and of the bars; the plane only if a run has a place in it."""
    plane = [partial(_plane, rows=shown(found), all_rows=found.rows)] if shown(found) else []
    bars = [partial(_bars, rows=used(found))] if used(found) else []
    return [*plane, *bars]


def shown(found: RunTable) -> list[Row]:
    """The runs whose rate and distortion make a bound."""
    return [row for row in found.rows if row.bound and all(map(math.isfinite, _place(row)))]


def used(found: RunTable) -> list[Row]:
    """The runs that have latents whose use can be told."""
    return [row for row in shown(found) if row.found["latent"]]


def note(found: RunTable) -> str:
    """What the marks and lines mean, and which runs have no mark."""
    missing = [row.name for row in found.rows if row not in shown(found)]
    gone = f"\nNot shown, because rate and distortion make no bound there: {', '.join(missing)}." if missing else ""
    counts = sorted({row.found["mutual_information"]["n"] for row in used(found) if row.found["mutual_information"]})
    most = "; ".join(f"from {n:,} examples, at most log {n:,} = {number(math.log(n))}" for n in counts)
    information = f" I(x;z) is a lower bound {most}." if counts else ""
    return f"On a grey line the ELBO is the same; below and to the left it is higher.{information}{gone}"


def title(found: RunTable) -> str:
    """How many runs, and on what."""
    runs = "1 run" if len(found.rows) == 1 else f"{len(found.rows)} runs"
    return f"{runs} on {found.data}, {found.n:,} examples"


def height(found: RunTable) -> float:
    """Of the picture, in inches: a line for each run."""
    return max(4.2, 0.3 * len(found.rows) + 1.4)


def _place(row: Row) -> tuple[float, float]:
    return row.found["rate"], row.found["distortion"]


def _plane(axes: Axes, rows: Sequence[Row], all_rows: Sequence[Row]) -> None:
    looks = dict(zip([row.name for row in all_rows], colours(row.name for row in all_rows), strict=True))
    _frame(axes, rows)
    _equal_elbo(axes)
    for row in rows:
        colour, marker = looks[row.name]
        style = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.7, "linestyle": "none"}
        axes.plot(*([value] for value in _place(row)), marker, color=colour, zorder=4, gid=f"run {row.name}", **style)
    _names(axes, rows)
    axes.set_xlabel("rate, nats")
    axes.set_ylabel("distortion, nats")
    axes.set_title("Rate against distortion", loc="left", color=INK, pad=18)


def _frame(axes: Axes, rows: Sequence[Row]) -> None:
    rates, distortions = ([_place(row)[i] for row in rows] for i in range(2))
    across, up = (max(values) - min(values) for values in (rates, distortions))
    margin = [0.12 * (across or up or 1.0), 0.12 * (up or across or 1.0)]
    axes.set_xlim(max(min(rates) - margin[0], -0.3 * margin[0]), max(rates) + margin[0])  # no rate is below 0
    axes.set_ylim(min(distortions) - margin[1], max(distortions) + margin[1])


def _equal_elbo(axes: Axes) -> None:
    """Lines rate + distortion = -ELBO at round values, each named where it enters the frame."""
    from matplotlib.ticker import MaxNLocator

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ticks = MaxNLocator(LINES, steps=[1, 2, 5, 10]).tick_values(left + low, right + high)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))  # enough for 1, 2 or 5 times a power of 10
    for total in ticks:
        if not left + low < total < right + high:
            continue
        axes.plot([left, right], [total - left, total - right], color=LINE, linewidth=0.7, zorder=0)
        x, y = (left, total - left) if total - left < high else (total - high, high)
        at_left = x == left
        axes.annotate(
            f"ELBO {number(-total, digits)}",
            (x, y),
            (4, 3) if at_left else (3, -3),
            textcoords="offset points",
            va="bottom" if at_left else "top",
            fontsize=7.5,
            color=SOFT,
            zorder=1,
            annotation_clip=True,
        )


def _names(axes: Axes, rows: Sequence[Row]) -> None:
    """Beside the frame in the order of the marks' heights, a thin line to each."""
    low, high = axes.get_ylim()
    ordered = sorted(rows, key=lambda row: row.found["distortion"])
    heights = spread([(row.found["distortion"] - low) / (high - low) for row in ordered], min(0.07, 1 / len(rows)))
    for row, height in zip(ordered, heights, strict=True):
        name_beside(axes, row.name, _place(row), height)


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    """A run's rate, within it what the latents say of x, and beside it its active units and its ELBO."""
    at = range(len(rows))
    axes.barh(at, [row.found["rate"] for row in rows], 0.62, color=BLUE, alpha=0.35, label="rate")
    known = [(i, row.found["mutual_information"]) for i, row in enumerate(rows) if row.found["mutual_information"]]
    if known:
        values, errors = [m["value"] for _, m in known], [m["se"] for _, m in known]
        places = [i for i, _ in known]
        style = {"error_kw": {"elinewidth": 0.8, "ecolor": INK}}
        axes.barh(places, values, 0.3, color=ORANGE, label="I(x;z)", xerr=errors, **style)
    for i, row in enumerate(rows):
        text = f"{row.found['active_units']} of {row.found['latent']}"
        elbo = f"{number(row.found['elbo']['value'])} ± {number(row.found['elbo']['se'])}"
        axes.text(1.02, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)
        axes.text(1.2, i, elbo, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=INK)
    axes.text(1.02, -0.75, "active", transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=SOFT)
    axes.text(1.2, -0.75, "ELBO", transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=SOFT)
    axes.set_yticks(list(at), [row.name if len(row.name) <= 28 else row.name[:27] + "…" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -1.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("nats")
    axes.set_title("Use of the latents", loc="left", color=INK, pad=18)
    axes.legend(loc="upper left", ncols=2, labelcolor=INK, borderaxespad=0.1)
