"""Whether the latents were in use as the training went on: rate, mutual information, active units, the alarm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lambent.config.remedies import level_remedies
from lambent.evaluation.active_units import COUNTED
from lambent.report.drawing import BLUE, GREY, INK, ORANGE, Axes, Paint, draw, listed, number
from lambent.report.html import Panel, Section
from lambent.report.sections.curves import Curve
from lambent.runs.run import Run
from lambent.training.collapse_monitor import idle_levels, judged_levels

Row = dict[str, Any]


def section(run: Run) -> Section | None:
    """The panel of a training whose validations looked at the latents; None of any other."""
    rows = [row for row in run.history if "active_units" in row.get("valid", {})]
    if not rows:
        return None
    panels = [_nats(run, rows), _units(run, rows)] if len(rows) > 1 else []
    alone = "" if panels else f" {_nats_words(run, rows)} {_units_words(run, rows)}"
    return Section("Collapse", panels, text=f"{_alarm(run, rows)}{_idle(run, rows)}{alone}".strip())


def _idle(run: Run, rows: Sequence[Row]) -> str:
    """The levels of several that carry next to nothing, and what may help them."""
    row, under = _in_use(run, rows), run.config.train.collapse_threshold
    rates = row["valid"].get("rates", {})
    names = idle_levels(rates, under, judged_levels(run.model))
    if not names or len(names) == len(rates):
        return ""
    advice = "; ".join(" ".join(remedy.tokens) for remedy in level_remedies(run.config, run.history[-1]["step"]))
    what = "Level" if len(names) == 1 else "Levels"
    help_ = f" What may help in a new run, each by itself: {advice}." if advice else ""
    return (
        f" {what} {listed(names)} of {len(rates)} {'carries' if len(names) == 1 else 'carry'} under {number(under)} "
        f"nats at step {row['step']:,}.{help_}"
    )


def raised(rows: Sequence[Row]) -> list[int]:
    """The steps at which the alarm was raised."""
    counts = [0, *(row.get("alarms", 0) for row in rows)]
    return [row["step"] for row, (a, b) in zip(rows, itertools.pairwise(counts), strict=True) if b > a]


def _alarm(run: Run, rows: Sequence[Row]) -> str:
    under = run.config.train.collapse_threshold
    if not under or not any("alarms" in row for row in rows):
        return "No collapse warning was set."
    steps = raised(rows)
    if not steps:
        return f"The collapse warning, given when the validation rate is under {number(under)} nats, never occurred."
    where = ", ".join(f"{step:,}" for step in steps)
    times = "once" if len(steps) == 1 else f"{len(steps)} times"
    return (
        f"The collapse warning occurred {times}: the validation rate fell under {number(under)} nats at step {where}."
    )


def _in_use(run: Run, rows: Sequence[Row]) -> Row:
    """The validation of the weights in use, else the last."""
    return next((row for row in rows if row["step"] == run.step), rows[-1])


def _nats(run: Run, rows: Sequence[Row]) -> Panel:
    known = "mutual_information" in rows[-1]["valid"]
    title = "Rate and mutual information" if known else "Rate on validation data"
    svg = draw(_nats_painter(run, rows), f"{title} against the training step")
    return Panel(title, _nats_words(run, rows), svg=svg)


def _nats_words(run: Run, rows: Sequence[Row]) -> str:
    row = _in_use(run, rows)
    valid, words = row["valid"], f"Step {row['step']:,}: rate {number(row['valid']['rate'])} nats"
    if "mutual_information" not in valid:
        return f"{words}."
    n, information = valid["examples"], valid["mutual_information"]
    noise = ", and above the rate by the noise of its one draw an example" if information > valid["rate"] else ""
    return (
        f"{words}, mutual information I(x;z) {number(information)} nats, from {n:,} examples, so that it is at most "
        f"log {n:,} = {number(math.log(n))}{noise}."
    )


def _nats_painter(run: Run, rows: Sequence[Row]) -> Paint:
    rate, information = (Curve.of(tuple(rows), key).valid for key in ("rate", "mutual_information"))
    under, alarms = run.config.train.collapse_threshold, raised(rows)

    def paint(axes: Axes) -> None:
        axes.plot(*rate.T, color=BLUE, label="rate", marker="o", markersize=2.4)
        if len(information):
            axes.plot(*information.T, color=ORANGE, label="I(x;z)", marker="s", markersize=2.4)
        if alarms:
            axes.axhline(under, color=GREY, linewidth=0.8, linestyle="--", label=f"warning threshold, {number(under)}")
            at = [float(rate[rate[:, 0] == step][0, 1]) for step in alarms]
            axes.plot(alarms, at, "X", color=INK, markersize=7, linestyle="none", label="warning", zorder=5)
        _frame(axes, "nats")

    return paint


def _units(run: Run, rows: Sequence[Row]) -> Panel:
    curve = Curve.of(tuple(rows), "active_units").valid
    most = rows[-1]["valid"]["latent"]

    def paint(axes: Axes) -> None:
        axes.axhline(most, color=GREY, linewidth=0.8, linestyle="--", label=f"all {most:,}")
        axes.plot(*curve.T, color=BLUE, marker="o", markersize=2.4, drawstyle="steps-post", label="active")
        _frame(axes, "latent dimensions")
        axes.set_ylim(-0.04 * most, 1.08 * most)

    return Panel("Active units", _units_words(run, rows), svg=draw(paint, "Active units against the training step"))


def _units_words(run: Run, rows: Sequence[Row]) -> str:
    row, counts = _in_use(run, rows), [row["valid"]["active_units"] for row in rows]
    valid = row["valid"]
    counted, over = COUNTED[valid.get("active_units_by", "mean")], f" over {valid['examples']:,} examples"
    return (
        f"Step {row['step']:,}: {valid['active_units']} of {valid['latent']} latent dimensions are active, "
        f"those {counted.format(over=over)}; from {np.min(counts)} to {np.max(counts)} in the course of the training."
    )


def _frame(axes: Axes, label: str) -> None:
    axes.set_xlabel("training step")
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)
    axes.legend(loc="best", labelcolor=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
