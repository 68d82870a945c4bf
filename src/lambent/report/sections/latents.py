"""The latent space: the plane or its principal components, and what each dimension carries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lambent.draws import Detached
from lambent.evaluation.active_units import LEAST_RATE, THRESHOLD, counted_by, in_use, level_sizes
from lambent.evaluation.evaluate import first_trace, unit_rates_of_all
from lambent.networks.base import optional_hook
from lambent.priors import NormalPriorModule
from lambent.report.drawing import BLUE, INK, LINE, Axes, Paint, colours, draw, number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel, Section
from lambent.trace import Latent

NEIGHBOURS = 5
MOST_NAMED = 20
MOST_IN_VOTE = 4000
SEED = 0
VECTOR_POINTS = 1500
"""More points than this are drawn as pixels."""


def latent_space(held: Examples) -> Section:
    """The plane and the dimensions of a continuous latent; the states of a discrete one."""
    if not held.run.config.amortised:
        return Section("Latent states", states(held))
    return Section(
        "Latent space", [plane(held), units(held)], text=f"Encodings (the posterior's modes) of {held.about}."
    )


def principal(z: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates (N, count) on the leading principal axes, and the fraction of the variance on each axis.

    >>> _, share = principal(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    >>> share.tolist()
    [1.0, 0.0]
    """
    centred = z.double() - z.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    variance = values.square()
    share = variance / variance.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return (left * values)[:, :count], share


def vote(points: Tensor, labels: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Fraction of points whose label their nearest neighbours (themselves left out) agree on by majority."""
    distances = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf)
    nearest = labels[distances.topk(min(neighbours, len(points) - 1), largest=False).indices]
    return float((nearest.mode(1).values == labels).double().mean())


def plane(held: Examples) -> Panel:
    """Encodings in the plane, or on their two leading principal axes, coloured by label."""
    z = held.z
    if z.shape[1] == 1:
        return _line(held)
    flat = z.shape[1] == 2
    points, share = (z.double(), torch.ones(2)) if flat else principal(z)
    words = _spread(z) if flat else _shares(share)
    words += _agreement(held, points)
    rings = flat and isinstance(optional_hook(held.run.model, "prior"), NormalPriorModule)
    words += " The circles are 1, 2 and 3 standard deviations of the prior N(0, I)." if rings else ""
    names = ("z₁", "z₂") if flat else ("first principal axis", "second principal axis")
    title = "Latent plane" if flat else f"Latent space, {z.shape[1]} dimensions by PCA"
    painter = _scatter(points.numpy(), held, names, rings=rings)
    return Panel(title, words, svg=draw(painter, f"{title}: one point an example", (4.6, 4.3)))


def _agreement(held: Examples, points: Tensor) -> str:
    """How well labels can be read off the plane."""
    if held.labels is None or len(points) <= NEIGHBOURS:
        return ""
    agreed = percent(vote(points[:MOST_IN_VOTE], held.labels[:MOST_IN_VOTE]))
    of = f"the first {MOST_IN_VOTE:,} examples" if len(points) > MOST_IN_VOTE else "the examples"
    why = (
        "the model is given the label, so that the code need not hold it"
        if held.run.shapes.condition
        else "the model never saw a label"
    )
    return f" For {agreed} of {of} the {NEIGHBOURS} nearest neighbours in this plane vote for the right label; {why}."


def _shares(share: Tensor) -> str:
    parts = [percent(float(part)) for part in share[:2]]
    return f"The two leading principal axes hold {parts[0]} and {parts[1]} of the variance of the encodings."


def _spread(z: Tensor) -> str:
    mean, deviation = z.double().mean(0).tolist(), z.double().std(0).tolist()
    return (
        f"Means ({number(mean[0])}, {number(mean[1])}), standard deviations "
        f"({number(deviation[0])}, {number(deviation[1])})."
    )


def _scatter(points: np.ndarray, held: Examples, names: tuple[str, str], *, rings: bool) -> Paint:
    def paint(axes: Axes) -> None:
        from matplotlib.patches import Circle

        for radius in (1, 2, 3) if rings else ():
            axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=LINE, linewidth=0.7, zorder=0))
        style = {
            "s": 7 if len(points) < VECTOR_POINTS else 3,
            "linewidths": 0,
            "rasterized": len(points) > VECTOR_POINTS,
        }
        if held.labels is None or len(held.classes) > MOST_NAMED:
            axes.scatter(*points.T, color=BLUE, alpha=0.6, **style)
        else:
            _by_class(axes, points, held, style)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.set_aspect("equal", adjustable="datalim")
        axes.autoscale_view()

    return paint


def _by_class(axes: Axes, points: np.ndarray, held: Examples, style: dict[str, Any]) -> None:
    from matplotlib.patheffects import withStroke

    assert held.labels is not None
    codes = held.labels.numpy()
    halo = [withStroke(linewidth=2.6, foreground="white")]
    for code, (name, (colour, marker)) in enumerate(zip(held.classes, colours(held.classes), strict=True)):
        own = points[codes == code]
        if not len(own):
            continue
        axes.scatter(*own.T, color=colour, marker=marker, alpha=0.75, label=_short(name), **style)
        at = np.median(own, 0)
        axes.text(*at, _short(name), color=INK, weight="bold", size=10, ha="center", va="center", path_effects=halo)
    handles = axes.legend(
        loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.1, borderaxespad=0.2, labelcolor=INK, markerscale=2
    )
    for handle in handles.legend_handles:
        handle.set_alpha(1)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _line(held: Examples) -> Panel:
    z = held.z[:, 0].double().numpy()

    def paint(axes: Axes) -> None:
        groups = [("all", z, BLUE)]
        if held.labels is not None and len(held.classes) <= MOST_NAMED:
            codes, shades = held.labels.numpy(), colours(held.classes)
            groups = [
                (_short(n), z[codes == i], shades[i][0]) for i, n in enumerate(held.classes) if (codes == i).any()
            ]
        axes.hist([g[1] for g in groups], 40, stacked=True, color=[g[2] for g in groups], label=[g[0] for g in groups])
        axes.set_xlabel("z")
        axes.set_ylabel("examples")
        if len(groups) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    words = f"Mean {number(float(z.mean()))}, standard deviation {number(float(z.std(ddof=1)))}."
    return Panel("The latent dimension", words, svg=draw(paint, "Histogram of the encodings"))


@torch.inference_mode()
def dimension_rates(held: Examples) -> Tensor | None:
    """Mean closed-form KL(q‖p) of each dimension, all levels concatenated, (latents,) nats; None where one has none.

    Given one draw an example of the levels above, not their modes: these lie where hardly any draw does.
    """
    total: Tensor | None = None
    draw = Detached(generator=torch.Generator(held.run.device).manual_seed(0))
    for x, condition in held.view.batches():
        rates = [_elements(latent, len(x)) for latent in held.run.model(x, draw, condition).latents]
        known = [rate for rate in rates if rate is not None]
        if len(known) < len(rates):
            return None
        found = torch.cat(known)
        total = found if total is None else total + found
    return None if total is None else total / len(held.view)


def _elements(latent: Latent, examples: int) -> Tensor | None:
    """The rate of each dimension, summed over the examples, (D,)."""
    elements = latent.rate_elements if latent.normalised else None
    if elements is None:
        return None
    return elements.double().expand(1, examples, elements.shape[-1]).sum((0, 1)).cpu()


def units(held: Examples) -> Panel:
    """Bars of each dimension's rate, or of the variance of its mean where there is no rate."""
    rates, variances = dimension_rates(held), held.means.double().var(0)
    heights = variances if rates is None else rates
    active, how = _active(held)
    count = f"{int(active.sum())} of {len(active)} dimensions are active ({how})"
    ordered = heights.sort(descending=True)
    if rates is None:
        title, label = "Variance of each latent dimension", "variance of the posterior mean"
        words = (
            f"{count}. Variances from {number(float(ordered.values[0]))} down to {number(float(ordered.values[-1]))}."
        )
    else:
        title, label = "Rate of each latent dimension", "KL(q‖p), nats per example"
        words = f"{count}. The dimensions carry {number(float(rates.sum()))} nats in all, {_most(ordered.values)}."
    painter = bars(heights.numpy(), active.numpy(), label)
    return Panel(title, words, svg=draw(painter, f"{title}, largest first where they are many", (4.6, 4.3)))


def _active(held: Examples) -> tuple[Tensor, str]:
    """Which dimensions are active, (latents,), and by what."""
    sizes, rates = level_sizes(first_trace(held.run.model, held.view)), unit_rates_of_all(held.run.model, held.view)
    by_mean, by_rate = f"variance of the posterior mean > {THRESHOLD}", f"rate > {LEAST_RATE} nats"
    how = {"mean": by_mean, "rate": by_rate, "rate or mean": f"{by_rate}, or where it has no dimensions {by_mean}"}
    return torch.cat(list(in_use(held.means, sizes, rates).values())), how[counted_by(sizes, rates)]


def _most(values: Tensor) -> str:
    if len(values) == 1:
        return "all in the one there is"
    return f"from {number(float(values[-1]))} to {number(float(values[0]))} each"


def bars(
    heights: np.ndarray, active: np.ndarray, label: str, what: str = "latent dimension", idle: str = "not active"
) -> Paint:
    """Bars, largest first where they are many; those not ``active`` stay pale."""
    many = len(heights) > 20
    order = np.argsort(-heights, kind="stable") if many else np.arange(len(heights))

    def paint(axes: Axes) -> None:
        shades = [BLUE if active[i] else LINE for i in order]
        axes.bar(np.arange(1, len(order) + 1), heights[order], color=shades, width=0.8 if len(order) > 3 else 0.45)
        axes.set_xlabel(f"{what}, largest first" if many else what)
        axes.set_ylabel(label)
        axes.set_xlim(0.2, len(order) + 0.8)
        axes.set_ylim(bottom=0)
        if len(order) <= 20:
            axes.set_xticks(range(1, len(order) + 1))
        axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)
        if (heights[~active] > 0).any():
            axes.bar([0], [0], color=LINE, label=idle)
            axes.legend(loc="upper right")

    return paint


def states(held: Examples) -> list[Panel]:
    """How often each state is the most probable one, and which labels it takes."""
    shares = held.z.double().mean(0)
    used = int((shares > 0).sum())
    words = (
        f"{used} of {len(shares)} states are the most probable one for some example; the fullest takes "
        f"{percent(float(shares.max()))} of them, the emptiest {percent(float(shares.min()))}."
    )
    painter = bars(shares.numpy(), (shares > 0).numpy(), "fraction of examples", "state", "unused")
    panels = [Panel("Examples of each state", words, svg=draw(painter, "Fraction of the examples in each state"))]
    return panels if held.labels is None else [*panels, _confusion(held, held.labels)]


def _confusion(held: Examples, labels: Tensor) -> Panel:
    codes = held.z.argmax(1)
    table = torch.zeros(held.z.shape[1], len(held.classes))
    table.index_put_((codes, labels), torch.ones(len(codes)), accumulate=True)
    purity = float(table.max(1).values.sum() / table.sum())

    def paint(axes: Axes) -> None:
        image = axes.imshow(table.T.numpy(), cmap="Blues", interpolation="none", aspect="auto")
        axes.set_xlabel("state")
        axes.set_ylabel("label")
        axes.set_xticks(range(len(table)), [str(i + 1) for i in range(len(table))])
        axes.set_yticks(range(len(held.classes)), [_short(c) for c in held.classes])
        axes.figure.colorbar(image, ax=axes, label="examples").outline.set_visible(False)

    words = (
        f"If each state names the label it takes most often, {percent(purity)} of the examples get their own label "
        "(purity); the model never saw a label."
    )
    return Panel("States against labels", words, svg=draw(paint, "Counts of examples by state and label"))
