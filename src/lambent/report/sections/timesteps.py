"""What each noise level of a diffusion does: its part of the bound, samples of few steps, the way from noise to x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lambent.data.pictures import is_picture, sheet, to_bytes
from lambent.distributions import point_estimate
from lambent.draws import Ancestral
from lambent.models.diffusion.model import Diffusion
from lambent.report.drawing import BLUE, GREY, INK, ORANGE, Axes, Paint, draw, listed, number, percent, short
from lambent.report.examples import Examples
from lambent.report.html import Panel, Section
from lambent.report.sections.levels import beside, conditions
from lambent.runs.run import Run

COLUMNS = 10
STEPS = (5, 10, 50)
"""Levels visited by samples, as far as the model has them."""
MOST_STEPS = 1000
PATHS, STATIONS = 3, 10
EXAMPLES = 6
GAMMAS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0)
"""Log noise-to-signal ratios from which examples are taken back, and from the end of the chain."""
NAMED = ((4.0, "23456789"), (100.0, "25"))
"""First digits that an axis names between powers of ten, below a ratio of its ends: it may have one power or none."""
SEED = 0


def is_diffusion(run: Run) -> bool:
    """Whether the run's latents are levels of noise."""
    return isinstance(run.model, Diffusion)


def section(run: Run, held: Examples | None) -> Section | None:
    """The panels of a diffusion; None of any other model."""
    if not isinstance(run.model, Diffusion):
        return None
    panels = losses(run)
    if is_picture(run.transform):
        panels += [few_steps(run, held), path(run, held)]
        panels += [] if held is None else [from_levels(held)]
    count = run.model.levels.steps
    levels = "infinitely many" if count is None else f"{count:,}"
    return Section("Noise levels", panels, text=f"{levels.capitalize()} levels, from 0 (next to x) to 1 (noise).")


def losses(run: Run) -> list[Panel]:
    """What each part of the levels cost in training, and how well the noise was told there."""
    rows = [(row["step"], row["valid"]["noise_levels"]) for row in run.history if _reported(row)]
    if not rows:
        return []
    step, last = next((row for row in rows if row[0] == run.step), rows[-1])
    first = rows[0] if len(rows) > 1 else None
    since = max((row[0] for row in rows if row[0] < step), default=0) + 1
    nats, edges = _numbers(last["nats"]), [float(edge) for edge in last["gamma"]]
    total, most = float(np.nansum(nats)), int(np.nanargmax(nats))
    words = (
        f"Over the training batches of steps {since:,} to {step:,}: {number(total)} nats in all, "
        f"{percent(nats[most] / total)} of them between the levels {most / len(nats):g} and "
        f"{(most + 1) / len(nats):g}. Each bar is a tenth of the levels; log σ²/α², the noise against the signal, goes "
        f"from {number(edges[0])} to {number(edges[-1])}."
    )
    error = _numbers(last["error"])
    told = (
        f"Mean squared error of the predicted noise per number: {number(float(np.nanmax(error)), 3)} at worst, "
        f"{short(float(np.nanmin(error)))} at best. To predict none at all costs 1."
    )
    return [
        Panel(
            "Loss of each noise level", words, svg=draw(_bars(edges, nats, first), "Nats of each part of the levels")
        ),
        Panel(
            "Error of the predicted noise",
            told,
            svg=draw(_errors(edges, error, first), "Squared error of the noise against the level"),
        ),
    ]


def _reported(row: Mapping[str, Any]) -> bool:
    found = row.get("valid", {}).get("noise_levels")
    return bool(found) and any(value is not None for value in found["nats"])


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


First = tuple[int, Mapping[str, Any]]


def _bars(edges: Sequence[float], nats: np.ndarray, first: First | None) -> Paint:
    def paint(axes: Axes) -> None:
        axes.stairs(np.nan_to_num(nats), edges, fill=True, color=BLUE, label="at the end" if first else None)
        if first:
            axes.stairs(_numbers(first[1]["nats"]), first[1]["gamma"], color=GREY, label=f"up to step {first[0]:,}")
            axes.legend(loc="best", labelcolor=INK)
        _frame(axes, "nats per example")

    return paint


def _errors(edges: Sequence[float], error: np.ndarray, first: First | None) -> Paint:
    def paint(axes: Axes) -> None:
        middles = np.convolve(edges, [0.5, 0.5], "valid")
        if first:
            early = np.convolve(first[1]["gamma"], [0.5, 0.5], "valid")
            label = f"up to step {first[0]:,}"
            axes.plot(early, _numbers(first[1]["error"]), color=GREY, marker="o", markersize=2.4, label=label)
        axes.plot(middles, error, color=BLUE, marker="o", markersize=3, label="at the end")
        axes.axhline(1, color=ORANGE, linewidth=0.8, linestyle="--", label="noise not predicted")
        axes.legend(loc="best", labelcolor=INK)
        _frame(axes, "squared error per number")

    return paint


def _frame(axes: Axes, label: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axes.get_ylim()
    named = next((digits for ratio, digits in NAMED if high / low < ratio), "")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in named else "")
    axes.set_ylabel(label)
    axes.set_xlabel("level: log σ²/α² (little noise on the left)")
    axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)


def few_steps(run: Run, held: Examples | None) -> Panel:
    """The same noise taken back in fewer or more steps, by DDIM and by the chain itself."""
    levels, condition = _visits(run), conditions(run, held, COLUMNS)
    made = [
        run.sample(COLUMNS, seed=SEED, condition=condition, steps=steps, noise=noise, mean=True)
        for noise in (0.0, 1.0)
        for steps in levels
    ]
    shown = listed([f"{steps:,}" for steps in levels])
    return Panel(
        "Samples in few steps and in many",
        f"Columns start from the same noise. Rows visit {shown} levels: above by DDIM, which adds no noise on the way, "
        "so that a column is one image ever better resolved; below by the chain itself, which adds noise at each.",
        picture=sheet(to_bytes(torch.cat(made), run.transform), COLUMNS, group=len(levels)),
        alt=f"Two blocks of {len(levels)} rows of generated images",
        wide=True,
    )


def _visits(run: Run) -> list[int]:
    assert isinstance(run.model, Diffusion)
    most = run.model.levels.steps or MOST_STEPS
    own = min(run.model.levels.sampling, most)
    return sorted({steps for steps in STEPS if steps < own} | {own})


@torch.inference_mode()
def path(run: Run, held: Examples | None) -> Panel:
    """A few samples on their way from noise, and what the denoiser takes them for."""
    model = run.model
    assert isinstance(model, Diffusion)
    condition = conditions(run, held, PATHS)
    noise = torch.Generator(run.device).manual_seed(SEED)
    end = torch.randn(PATHS, *model.event, generator=noise, device=run.device)
    given = None if condition is None else condition.to(run.device)
    visits = _visits(run)[-1]
    way = [(end, None), *model.chain.path(end, steps=visits, condition=given, generator=noise)]
    stations = [round(1 + i * (visits - 1) / (STATIONS - 1)) for i in range(STATIONS)]
    rows = [
        torch.stack([part for station in stations for part in [_seen(model, way[station][which])]]) for which in (0, 1)
    ]
    cells = torch.stack(rows, 2).transpose(0, 1).transpose(1, 2).flatten(0, 2)
    return Panel(
        "The way of a sample",
        f"{PATHS} samples of {visits:,} steps by the chain itself; each has two rows: above z as it is after step "
        f"{listed([str(s) for s in stations])}, below what the denoiser takes it to be a noisy copy of.",
        picture=sheet(to_bytes(cells, run.transform), STATIONS, group=2),
        alt="Pairs of rows of images that change from noise to a sample",
        wide=True,
    )


def _seen(model: Diffusion, value: Tensor | None) -> Tensor:
    """What p(x|.) shows for a clean value (B, *event), as pictures (B, *event)."""
    assert value is not None
    start, _ = model.schedule.ends(value.new_zeros(()))
    return point_estimate(model.likelihood.through(value.unsqueeze(0), 0.5 * start))[0].cpu()


@torch.inference_mode()
def from_levels(held: Examples) -> Panel:
    """Examples given the noise of a level, and taken back from there: what the levels above it hold."""
    run, rows = held.run, held.first_of_each(EXAMPLES)
    model = run.model
    assert isinstance(model, Diffusion)
    x = held.x[rows].to(run.device)
    given = None if held.condition is None else held.condition[rows].to(run.device)
    made, levels = [], _levels_at(model)
    for level in levels:
        draw_ = Ancestral(generator=torch.Generator(run.device).manual_seed(SEED))
        made.append(point_estimate(model.from_level(x, level, draw_, given))[0].cpu())
    cells = to_bytes(torch.stack(made, 1).flatten(0, 1), run.transform)
    left = [float((part - held.x[rows]).double().square().mean().sqrt()) for part in made]
    return Panel(
        "Examples taken back from a noise level",
        f"Left: data. To its right the example with the noise of level {listed([f'{at:.3g}' for at in levels])}, "
        f"denoised by the chain from there: what has changed was not known at that level. Root mean square difference "
        f"to the example: {listed([number(value, 3) for value in left])}.",
        picture=beside(sheet(to_bytes(held.x[rows], run.transform), 1), sheet(cells, len(levels))),
        alt=f"{len(rows)} rows of images: an example, and what is made of ever noisier copies of it",
    )


def _levels_at(model: Diffusion) -> list[float]:
    """The levels of `GAMMAS`, as far as the schedule has them, and the last."""
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    gammas = model.schedule(grid.to(next(model.parameters()).device))[0].cpu()
    inside = [gamma for gamma in GAMMAS if float(gammas[0]) < gamma < float(gammas[-1])]
    return [*grid[torch.searchsorted(gammas, torch.tensor(inside, dtype=gammas.dtype))].tolist(), 1.0]
