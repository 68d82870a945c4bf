"""What each level of a model of several levels does: rates, partial reconstructions, samples with some levels held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lambent.data.pictures import GAP, is_picture, raw_to_bytes, sheet, to_bytes
from lambent.report.drawing import CLASSES, INK, Axes, Paint, draw, listed, number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel, Section
from lambent.report.sections.generated import decoded, has_mean, unit_scored
from lambent.runs import hierarchy as levels
from lambent.runs.run import Run
from lambent.training.collapse_monitor import idle_levels, judged_levels

EXAMPLES = 8
COLUMNS = 11
MOST_SHOWN = 8
"""Levels, or cuts between levels, that pictures show of more."""
MEASURED = 200
PAIRS = 60
SEED = 0


def section(run: Run, held: Examples | None, found: Mapping[str, Any] | None) -> Section | None:
    """The panels of a model with two levels or more; None of any other.

    Args:
        run: The run.
        held: Examples.
        found: An evaluation, as JSON has it.
    """
    names = levels.level_names(run.model)
    if not names:
        return None
    panels = [] if found is None or "rates" not in found else [rates(run, found)]
    panels += [course] if (course := rates_over_training(run)) is not None else []
    if is_picture(run.transform):
        panels += [] if held is None else [reconstructions(held, names)]
        panels += samples(run, held, names) if run.config.samplable else []
    text = f"{len(names)} levels of latents, {names[0]} the lowest, next to x, and {names[-1]} the top."
    return Section("Levels", panels, text=text)


def chosen(count: int, most: int = MOST_SHOWN) -> list[int]:
    """At most ``most`` of 1 to ``count``, evenly spread, both ends among them.

    >>> chosen(3), chosen(30, 4)
    ([1, 2, 3], [1, 11, 20, 30])
    """
    if count <= most:
        return list(range(1, count + 1))
    return [round(1 + i * (count - 1) / (most - 1)) for i in range(most)]


def rates(run: Run, found: Mapping[str, Any]) -> Panel:
    """Bars of each level's rate, lowest level first, with its share of all."""
    by_level = {name: float(level["value"]) for name, level in found["rates"].items()}
    total, under = sum(by_level.values()), run.config.train.collapse_threshold
    below = " By itself a level's rate may be below 0 in a chain inferred upwards: the sum may not."
    words = (
        f"{number(total)} nats per example in all: {_most_and_least(by_level, total)}. "
        f"{_idle(idle_levels(by_level, under, judged_levels(run.model)), len(by_level), under)}"
        f"{below if min(by_level.values()) < 0 else ''}"
    )
    return Panel("Rate of each level", words.strip(), svg=draw(_bars(by_level, total), "Rate of each level, nats"))


def _most_and_least(by_level: Mapping[str, float], total: float) -> str:
    def share(name: str) -> str:
        of_all = "" if below_zero else f" ({_share(by_level[name], total)})"
        return f"{name} {verb} {number(by_level[name])}{of_all}"

    below_zero, verb = min(by_level.values()) < 0, "carries" if len(by_level) <= 4 else "with"
    if len(by_level) <= 4:
        return ", ".join(map(share, by_level))
    ordered = sorted(by_level, key=lambda name: by_level[name])
    return f"from {share(ordered[-1])} down to {share(ordered[0])}"


def _share(rate: float, total: float) -> str:
    share = rate / total if total > 0 else 0.0
    return "under 0.1%" if 0 < share < 0.001 else percent(share)


def _percent(rate: float, total: float) -> str:
    """A share in as few signs as ten bars have room for."""
    share = rate / total if total > 0 else 0.0
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _idle(names: Sequence[str], count: int, under: float) -> str:
    if not names or not under:
        return ""
    which = f"{len(names)} of {count} levels carry" if len(names) > 4 else f"{listed(names)} carr"
    which += "" if len(names) > 4 else "y" if len(names) > 1 else "ies"
    return f"{which} less than {number(under)} nats: almost no information about x beyond that of the levels above."


def _bars(by_level: Mapping[str, float], total: float) -> Paint:
    heights = list(by_level.values())
    few, short = len(heights) <= 10, _share if len(heights) <= 4 else _percent

    def paint(axes: Axes) -> None:
        at = np.arange(1, len(heights) + 1)
        axes.bar(at, heights, color=shades(len(heights)), width=0.8 if len(heights) > 3 else 0.45)
        if few:
            for place, height in zip(at, heights, strict=True):
                top = (place, max(height, 0.0))
                label = number(height) if min(heights) < 0 else short(height, total)
                axes.annotate(label, top, (0, 2), textcoords="offset points", ha="center", color=INK)
            axes.set_xticks(at, list(by_level))
        axes.set_xlabel("level, the lowest first")
        axes.set_ylabel("rate, nats per example")
        axes.set_xlim(0.2, len(heights) + 0.8)
        axes.margins(y=0.1)
        axes.set_ylim(bottom=min(0.0, *heights, 0.0))
        axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)

    return paint


def shades(count: int) -> list[Any]:
    """A colour a level: classes' own for a few, a scale from dark to light for many."""
    if count <= len(CLASSES):
        return list(CLASSES[:count])
    from matplotlib import colormaps

    return [colormaps["viridis"](0.92 * i / (count - 1)) for i in range(count)]


def rates_over_training(run: Run) -> Panel | None:
    """Each level's rate on the validation set against the step; None without three validations."""
    rows = [row for row in run.history if row.get("valid", {}).get("rates")]
    if len(rows) < 3:
        return None
    names = list(rows[0]["valid"]["rates"])
    table = np.array([[float(row["valid"]["rates"][name]) for name in names] for row in rows])
    steps = np.array([row["step"] for row in rows])
    in_use = int(np.argmin(np.abs(steps - run.step)))
    parts = _most_and_least(dict(zip(names, table[in_use], strict=True)), float(table[in_use].sum()))
    words = f"On validation data at step {steps[in_use]:,}: {parts}."
    return Panel(
        "Rate of each level in the course of the training",
        words,
        svg=draw(_curves(names, steps, table), "Rate of each level against the training step"),
    )


def _curves(names: Sequence[str], steps: np.ndarray, table: np.ndarray) -> Paint:
    named = set(chosen(len(names), len(CLASSES)))

    def paint(axes: Axes) -> None:
        for i, (name, shade) in enumerate(zip(names, shades(len(names)), strict=True), 1):
            axes.plot(steps, table[:, i - 1], color=shade, label=name if i in named else None, linewidth=1.3)
        axes.set_xlabel("training step")
        axes.set_ylabel("rate, nats per example")
        axes.set_xlim(left=0)
        axes.grid(visible=True, axis="y", color="#e8ebed", linewidth=0.6)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), labelcolor=INK)
        axes.locator_params(axis="x", nbins=5)  # the legend beside it takes room
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return paint


def reconstructions(held: Examples, names: Sequence[str]) -> Panel:
    """Examples beside what is made of their top levels alone: one, two, and so on."""
    run, rows = held.run, held.first_of_each(EXAMPLES)
    tops = chosen(len(names))
    made = [_from_top(held, rows, top) for top in tops]
    binarised = run.transform.binarize != "none"
    layers = [raw_to_bytes(held.raw(rows), run.transform)] if binarised else []
    layers += [to_bytes(part, run.transform) for part in (held.x[rows], *made)]
    first = "data, the same binarised" if binarised else "data"
    count = listed([str(top) for top in tops])
    the = "the " if has_mean(run) else ""
    return Panel(
        "Reconstructions from the top levels",
        f"Columns: {first}, then {the}{decoded(run)} with the top {count} levels at the posterior's modes; the "
        f"levels below them are what the model expects given those (the modes of their priors). {_errors(held, tops)}",
        picture=beside(_columns(layers[: -len(made)]), _columns(layers[-len(made) :])),
        alt=f"{len(rows)} rows of images: an example, and its reconstructions from ever more levels",
    )


def _columns(layers: Sequence[np.ndarray]) -> np.ndarray:
    return sheet(np.stack(layers, 1).reshape(-1, *layers[0].shape[1:]), len(layers))


def beside(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two sheets of the same height, a gap between them."""
    return np.concatenate([first, np.full((len(first), 3 * GAP, 3), 255, np.uint8), second], 1)


def _errors(held: Examples, tops: Sequence[int]) -> str:
    rows = torch.arange(min(MEASURED, len(held.view)))
    found = [float((_from_top(held, rows, top) - held.x[rows]).double().square().mean().sqrt()) for top in tops]
    shown = ", ".join(number(value, 3) for value in found)
    return f"Root mean square error over {len(rows)} examples: {shown}{unit_scored(held.run)}."


@torch.inference_mode()
def _from_top(held: Examples, rows: Tensor, top: int) -> Tensor:
    device, condition = held.run.device, held.condition
    part = None if condition is None else condition[rows].to(device)
    return levels.reconstruct(held.run.model, held.x[rows].to(device), top, part).cpu()


@dataclass(frozen=True, eq=False)
class _Bases:
    """Samples with the levels they came from, of which some are then held.

    Attributes:
        run: The run.
        values: Of each level, (n, *latent).
        condition: (n, c), or None.
        means: The mean of p(x|z), (n, *event).
    """

    run: Run
    values: Mapping[str, Tensor]
    condition: Tensor | None
    means: Tensor

    @classmethod
    @torch.inference_mode()
    def draw(cls, run: Run, n: int, condition: Tensor | None) -> _Bases:
        given = None if condition is None else condition.to(run.device)
        noise = torch.Generator(run.device).manual_seed(SEED)
        values = levels.generate(run.model, n, given, generator=noise)
        return cls(run, values, given, levels.complete(run.model, values, given, generator=noise).cpu())

    @torch.inference_mode()
    def redrawn(self, held: Sequence[str], rows: Tensor) -> Tensor:
        """The mean of p(x|z) with the levels in ``held`` as they are in ``rows`` and the others drawn anew."""
        values = {name: self.values[name][rows] for name in held}
        given = None if self.condition is None else self.condition[rows]
        noise = torch.Generator(self.run.device).manual_seed(SEED + 1)
        return levels.complete(self.run.model, values, given, generator=noise).cpu()

    def left(self, held: Sequence[str]) -> float:
        """The share of a pixel's variance that stays with ``held`` as it is: half the mean square of differences."""
        again = self.redrawn(held, torch.arange(len(self.means))).double()
        total = float(self.means.double().var(0).sum())
        return min(1.0, float((again - self.means).square().mean(0).sum()) / 2 / total) if total else 0.0


def samples(run: Run, held: Examples | None, names: Sequence[str]) -> list[Panel]:
    """Samples with the top levels held, and with the lowest ones held where that leaves anything open."""
    bases = _Bases.draw(run, PAIRS, conditions(run, held, PAIRS))
    if not bool((bases.redrawn(names[:1], torch.arange(PAIRS)) - bases.means).abs().max() > 1e-6 * _size(bases)):
        only = f" p(x|z) sees {names[0]} alone: with {names[0]} held, whatever the levels above are, x stays the same."
        return [_top_held(bases, names, only)]
    return [_top_held(bases, names, ""), _low_held(bases, names)]


def _size(bases: _Bases) -> float:
    return float(bases.means.abs().max())


def _top_held(bases: _Bases, names: Sequence[str], also: str) -> Panel:
    cuts = chosen(len(names) - 1, 5)
    sets = [names[len(names) - cut :] for cut in cuts]
    which = _counted("top", cuts)
    return Panel(
        "Samples with the top levels held: what the levels below decide",
        f"Left: draws of all levels. To its right in each row {which} of that draw and the levels below drawn "
        f"anew{_blocks(cuts)}. {_left(bases, sets)}{also}",
        picture=_picture(bases, sets),
        alt=f"{len(cuts)} blocks of rows of generated images that share their upper levels",
        wide=True,
    )


def _low_held(bases: _Bases, names: Sequence[str]) -> Panel:
    cuts = chosen(len(names) - 1, 5)
    sets = [names[:cut] for cut in cuts]
    which = _counted("lowest", cuts)
    return Panel(
        "Samples with the lowest levels held: what the levels above decide",
        f"Left: the same draws. To its right in each row {which} of that draw, under levels above drawn "
        f"anew{_blocks(cuts)}; the held values were drawn under other levels above, so that not every pair need be a "
        f"likely one. {_left(bases, sets)}",
        picture=_picture(bases, sets),
        alt=f"{len(cuts)} blocks of rows of generated images that share their lower levels",
        wide=True,
    )


def _left(bases: _Bases, sets: Sequence[Sequence[str]]) -> str:
    shares = [f"{bases.left(kept):.0%} once {_range(kept)} {'is' if len(kept) == 1 else 'are'} known" for kept in sets]
    if not has_mean(bases.run):  # drawn again with the same random numbers
        return (
            f"Of a pixel's variance over samples there stays {listed(shares)}, with the noise of the elements, which "
            f"are drawn one by one, held too (by {PAIRS} pairs of samples)."
        )
    return f"Of the variance of a pixel's mean over samples there stays {listed(shares)} (by {PAIRS} pairs of samples)."


def _counted(side: str, cuts: Sequence[int]) -> str:
    if cuts == [1]:
        return f"the {side} level is"
    return f"the {side} {listed([str(cut) for cut in cuts])} levels are"


def _blocks(cuts: Sequence[int]) -> str:
    return f" ({len(cuts)} blocks of rows, from above, of the same draws)" if len(cuts) > 1 else ""


def _range(names: Sequence[str]) -> str:
    return listed(names) if len(names) < 3 else f"{names[0]} to {names[-1]}"


def _picture(bases: _Bases, sets: Sequence[Sequence[str]]) -> np.ndarray:
    """A block of rows for each set of held levels: a sample, and its redrawings."""
    lines = 6 if len(sets) == 1 else 3 if len(sets) < 4 else 2
    rows = torch.arange(lines).repeat_interleave(COLUMNS - 1)
    made = to_bytes(torch.cat([bases.redrawn(held, rows) for held in sets]), bases.run.transform)
    own = to_bytes(bases.means[:lines].repeat(len(sets), *[1] * (bases.means.dim() - 1)), bases.run.transform)
    return beside(sheet(own, 1, group=lines), sheet(made, COLUMNS - 1, group=lines))


def conditions(run: Run, held: Examples | None, n: int) -> Tensor | None:
    """Classes in turn, or those of examples."""
    if not run.shapes.condition:
        return None
    if run.transform.condition == "labels":
        return run.conditions(n)
    if held is None or held.condition is None:
        return torch.zeros(n, run.shapes.condition)
    return held.condition[torch.arange(n) % len(held.condition)]
