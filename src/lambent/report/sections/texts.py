"""Texts that the model writes, as text: samples, reconstructions, what lies between two encodings."""

from __future__ import annotations

import torch
from torch import Tensor

from lambent.data import Alphabet
from lambent.likelihoods import AutoregressiveLikelihoodModule
from lambent.report.drawing import number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel, Section
from lambent.runs.run import Run
from lambent.storage.text_lines import escaped

SAMPLES = 20
PAIRS = 10
COMPARED = 1000
LINES, STEPS = 3, 5
SEED = 0


def sections(run: Run, held: Examples | None) -> list[Section]:
    """Samples, and for models with latents reconstructions and walks."""
    found = [Section("Samples", [samples(run, held)])] if run.config.samplable else []
    if held is None or not run.config.has_latents:
        return found
    found.append(Section("Reconstructions", [reconstructions(held)]))
    walks = run.config.continuous and run.config.amortised and len(held.view) > 1
    return [*found, Section("Latent interpolations", [interpolations(held)])] if walks else found


def samples(run: Run, held: Examples | None) -> Panel:
    """Draws of the model."""
    drawn = run.sample(SAMPLES, seed=SEED, condition=_conditions(run, held))
    own = "" if held is None else f"; the examples {number(_length(held.x, run))}"
    given = f"; the classes {', '.join(run.classes)} in turn" if run.transform.condition == "labels" else ""
    return Panel(
        "Samples: x drawn from p(x|z), z from the prior" if run.config.has_latents else "Samples: x drawn from p(x)",
        f"{SAMPLES} draws, one a line{given}. They have {number(_length(drawn, run))} symbols on average{own}.",
        texts=_read(run, drawn),
        wide=True,
    )


def _conditions(run: Run, held: Examples | None) -> Tensor | None:
    """Vectors of the first examples, for a model conditioned on such; None lets classes take turns."""
    if run.transform.condition in ("none", "labels"):
        return None
    if held is None or held.condition is None:
        return torch.zeros(SAMPLES, run.shapes.condition)
    return held.condition[torch.arange(SAMPLES) % len(held.condition)]


def reconstructions(held: Examples) -> Panel:
    """Examples, each above what is decoded from its encoding."""
    rows = torch.arange(min(COMPARED, len(held.view)))
    x, repaired = held.x[rows], held.decode(held.z[rows], rows).to(held.x.dtype)
    pairs = zip(_read(held.run, x[:PAIRS]), _read(held.run, repaired[:PAIRS]), strict=True)
    return Panel(
        f"Reconstructions: each example above {_decoded(held.run)}",
        f"Of the symbols of the first {len(rows):,} examples {percent(_kept(x, repaired, held.run))} come back at "
        "their own place.",
        texts=[text for pair in pairs for text in (*pair, "")][:-1],
        wide=True,
    )


def _decoded(run: Run) -> str:
    drawn = isinstance(run.model.likelihood, AutoregressiveLikelihoodModule)
    return "a draw of p(x|z) at its encoding" if drawn else "the most probable symbols at its encoding"


def _kept(x: Tensor, repaired: Tensor, run: Run) -> float:
    """Share of scored symbols that are the same."""
    scored = torch.arange(x.shape[1]) < _counts(x, run).unsqueeze(1)
    return float((x == repaired)[scored].double().mean())


def interpolations(held: Examples) -> Panel:
    """What is decoded on lines between the encodings of pairs of examples."""
    n = min(LINES, len(held.view) // 2)
    first, second = (held.z[torch.arange(n) * 2 + i] for i in range(2))
    at = torch.linspace(0, 1, STEPS).view(1, -1, 1)
    z = first.unsqueeze(1) * (1 - at) + second.unsqueeze(1) * at
    between = held.decode(z.flatten(0, 1), (torch.arange(n) * 2).repeat_interleave(STEPS)).unflatten(0, (n, STEPS))
    ends = held.x[: 2 * n].unflatten(0, (n, 2)).to(between.dtype)
    texts = [text for e, b in zip(ends, between, strict=True) for text in (*_read(held.run, _line(e, b)), "")]
    lengths = (first - second).double().norm(dim=1)
    return Panel(
        f"Interpolations: {_decoded(held.run).replace('its encoding', 'points between two encodings')}",
        f"The first and last line of each block are data, the {STEPS} between them decoded. The lines are "
        f"{number(float(lengths.min()))} to {number(float(lengths.max()))} long in the latent space.",
        texts=texts[:-1],
        wide=True,
    )


def _line(ends: Tensor, between: Tensor) -> Tensor:
    return torch.cat([ends[:1], between, ends[1:]])


def _alphabet(run: Run) -> Alphabet:
    assert run.transform.alphabet is not None
    return run.transform.alphabet


def _read(run: Run, x: Tensor) -> list[str]:
    return [escaped(text) for text in _alphabet(run).decode(x)]


def _counts(x: Tensor, run: Run) -> Tensor:
    """Symbols up to and with END, (N,)."""
    found = run.config.likelihood.scored(x, run.shapes)
    return torch.full((len(x),), x.shape[1]) if found is None else found


def _length(x: Tensor, run: Run) -> float:
    return float(_counts(x, run).double().mean())
