"""A table, column by column: the data's histogram and the model's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lambent.report.drawing import BLUE, GREY, INK, Axes, Paint, draw, number, percent, short
from lambent.report.examples import Examples
from lambent.report.html import Panel
from lambent.report.sections.data_and_model import bins, data_rows, lead, model_rows, trimmed, what
from lambent.shapes import Column

MOST_COLUMNS = 24
MOST_BARS = 12

__all__ = ["columns", "lead"]


def columns(held: Examples) -> list[Panel]:
    """A panel a column, and one for how the columns hang together."""
    data, model = data_rows(held), model_rows(held)
    transform, made = held.run.transform, what(held)
    shown = list(enumerate(transform.columns))[:MOST_COLUMNS]
    panels = [
        _categorical(column, transform.categories[i], data[:, i], model[:, i], made)
        if column.kind == "categorical"
        else _numeric(column, data[:, i], model[:, i], made)
        for i, column in shown
    ]
    numeric = [i for i, column in enumerate(transform.columns) if column.kind != "categorical"]
    together = [_correlations(transform.columns, numeric, data, model, made)] if len(numeric) > 2 else []
    return [*together, *panels]


def _numeric(column: Column, data: Tensor, model: Tensor, made: str) -> Panel:
    low, high = trimmed(torch.cat([data, model]))
    whole = column.kind == "count" and high - low <= 60
    edges = np.arange(np.floor(low) - 0.5, high + 1.5) if whole else np.linspace(low, high, bins(len(data)) + 1)
    heights = [_histogram(v, edges) for v in (data, model)]
    words = (
        f"Mean {short(float(data.mean()))} in the data, {short(float(model.mean()))} in the {made}; standard deviation "
        f"{short(float(data.double().std()))} and {short(float(model.double().std()))}."
    )
    return Panel(
        column.name, words, svg=draw(_outlines(edges, heights, column.name, made), f"Histograms of {column.name}")
    )


def _histogram(values: Tensor, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(values.numpy(), edges)[0]
    return counts / max(1, len(values))


def _outlines(edges: np.ndarray, heights: list[np.ndarray], name: str, made: str) -> Paint:
    def paint(axes: Axes) -> None:
        axes.stairs(heights[0], edges, fill=True, color=GREY, alpha=0.55, label="data")
        axes.stairs(heights[1], edges, color=BLUE, linewidth=1.6, label=made)
        axes.set_xlabel(name)
        axes.set_ylabel("fraction of rows")
        _legend(axes)

    return paint


def _categorical(column: Column, names: tuple[str, ...], data: Tensor, model: Tensor, made: str) -> Panel:
    codes = [v.round().long().clamp(0, len(names) - 1) for v in (data, model)]
    shares = [torch.bincount(c, minlength=len(names)).double() / len(c) for c in codes]
    order = shares[0].argsort(descending=True, stable=True)[:MOST_BARS]
    distance = 0.5 * float((shares[0] - shares[1]).abs().sum())
    rest = f" The {MOST_BARS} most frequent of {len(names)} categories are shown." if len(names) > MOST_BARS else ""
    top, first = names[int(order[0])], [percent(float(share[order[0]])) for share in shares]
    apart = f"total variation distance {number(distance, 3)}"
    words = f"{top!r} has {first[0]} of the data and {first[1]} of the {made}; {apart}.{rest}"
    painter = _bars([names[int(i)] for i in order], [s[order].numpy() for s in shares], made)
    return Panel(column.name, words, svg=draw(painter, f"Frequencies of the categories of {column.name}"))


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, labelcolor=INK, borderaxespad=0.1)


def _bars(names: list[str], shares: list[np.ndarray], made: str) -> Paint:
    def paint(axes: Axes) -> None:
        at = np.arange(len(names))
        axes.barh(at - 0.2, shares[0], 0.4, color=GREY, alpha=0.75, label="data")
        axes.barh(at + 0.2, shares[1], 0.4, color=BLUE, label=made)
        axes.set_yticks(at, [n if len(n) <= 18 else n[:17] + "…" for n in names])
        axes.invert_yaxis()
        axes.set_xlabel("fraction of rows")
        _legend(axes)

    return paint


def _correlations(columns: tuple[Column, ...], numeric: list[int], data: Tensor, model: Tensor, made: str) -> Panel:
    """Correlation of every pair of numeric columns, in the data against the model."""
    pairs = [(i, j) for a, i in enumerate(numeric) for j in numeric[a + 1 :]]
    found = np.array([[_correlation(v[:, i], v[:, j]) for i, j in pairs] for v in (data, model)])
    apart = np.abs(found[0] - found[1])
    worst = pairs[int(apart.argmax())]

    def paint(axes: Axes) -> None:
        axes.plot([-1, 1], [-1, 1], color=GREY, linewidth=0.8)
        axes.scatter(*found, s=16, color=BLUE, alpha=0.8, linewidths=0)
        axes.set_xlabel("correlation in the data")
        axes.set_ylabel(f"correlation in the {made}")
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(-1.05, 1.05)
        axes.set_aspect("equal")

    words = (
        f"{len(pairs)} pairs of columns; the correlations differ by {number(float(apart.mean()))} on average and by "
        f"{number(float(apart.max()))} at most, for {columns[worst[0]].name} and {columns[worst[1]].name}."
    )
    return Panel(
        "Correlations between columns", words, svg=draw(paint, "Correlations of pairs of columns, data against model")
    )


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale else 0.0
