"""Codes in words and bars: which of them the examples use, and how evenly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lambent.evaluation.codebook_usage import code_usage
from lambent.models import CodeLevel, Quantised
from lambent.report.drawing import draw, number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel, Section
from lambent.report.sections.latents import bars
from lambent.runs.run import Run


def section(held: Examples) -> Section:
    """How often each code of each level occurs."""
    model = levels_of(held.run)
    nats = number(sum(level.positions * math.log(level.quantiser.size) for level in model.levels))
    return Section(
        "Codes",
        [_level(*found) for found in _levels(model, held.z)],
        text=f"Codes of {held.about}. If all were as probable, an example's would cost {nats} nats; the rate is what "
        "they cost under the prior.",
    )


def levels_of(run: Run) -> Quantised:
    """The run's model, which is one of codes."""
    assert isinstance(run.model, Quantised)
    return run.model


def sizes(run: Run) -> str:
    """Grids and codebooks, lowest level first: "7 × 7 codes of 512"."""
    levels = levels_of(run).levels
    return " and ".join(f"{' × '.join(map(str, level.grid))} codes of {level.quantiser.size:,}" for level in levels)


def in_use(found: Mapping[str, Any]) -> str:
    """An evaluation's usage and perplexity of each level, in words."""
    each = found["codes"]
    named = [
        f"{percent(used['usage'])} of codes{f' {name}' if len(each) > 1 else ''} used, "
        f"perplexity {number(used['perplexity'], 1)}"
        for name, used in each.items()
    ]
    return "; ".join(named)


def _levels(model: Quantised, z: Tensor) -> list[tuple[str, CodeLevel, Tensor, float]]:
    """Name, level, its indices (N, places) and their perplexity."""
    parts = z.long().split([level.positions for level in model.levels], -1)
    usage = code_usage(model, z) or {}
    return [
        (name, level, part, usage[name]["perplexity"])
        for name, level, part in zip(model.names, model.levels, parts, strict=True)
    ]


def _level(name: str, level: CodeLevel, indices: Tensor, perplexity: float) -> Panel:
    counts = torch.bincount(indices.flatten(), minlength=level.quantiser.size).double()
    shares, title = counts / counts.sum(), f"How often each code of {name} occurs"
    words = (
        f"{int((counts > 0).sum()):,} of {len(counts):,} codes occur at {level.positions:,} positions of "
        f"{len(indices):,} examples; the most frequent takes {percent(float(shares.max()))} of the positions. The "
        f"perplexity is {number(perplexity, 1)}: that many equally frequent codes would have the same entropy."
    )
    painter = bars(shares.numpy(), (counts > 0).numpy(), "fraction of positions", "code", "unused")
    return Panel(title, words, svg=draw(painter, f"{title}, most frequent first where they are many"))
