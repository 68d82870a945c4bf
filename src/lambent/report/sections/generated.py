"""What the model makes, as pictures: samples, reconstructions, the manifold, interpolations, the score field."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lambent.data.pictures import raw_to_bytes, sheet, to_bytes
from lambent.distributions import Normal, StandardNormal
from lambent.draws import Ancestral
from lambent.likelihoods import AutoregressiveLikelihoodModule, LikelihoodSettings, NormalLikelihood
from lambent.networks.base import optional_hook
from lambent.posteriors.corrupted import GaussianCorruption
from lambent.report.drawing import number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel
from lambent.runs.run import Run

SAMPLES, COLUMNS = 100, 10
PAIRS = 20
GRID = 16
STEPS, LINES = 10, 6
SCORED = 8
REDRAWN = 200
"""Examples whose reconstruction is measured where it has to be drawn element by element."""
SEED = 0


def samples(run: Run, held: Examples | None) -> list[Panel]:
    """Draws of z from the prior: means of p(x|z), and x drawn from it."""
    condition, columns, order = _classes_in_columns(run, held)
    n = SAMPLES if condition is None else len(condition)
    if not run.config.has_latents:
        return [_drawn(run, condition, columns, n, order)]
    if not has_mean(run):
        return [_drawn(run, condition, columns, n, order), *_by_latent(run, condition)]
    means = run.sample(n, seed=SEED, condition=condition, mean=True)
    drawn = run.sample(n, seed=SEED, condition=condition)
    values = [run.transform.invert(part.double()) for part in (means, drawn)]
    unit = " grey levels" if run.transform.binarize == "none" and run.transform.levels is not None else ""
    variation = number(float(values[0].var(0).mean().sqrt())) + unit
    within = number(float((values[1] - values[0]).square().mean().sqrt())) + unit
    return [
        Panel(
            f"Samples: the {decoded(run)}",
            f"{n} draws of z from the prior{order}. From one z to another these pixels vary by {variation} "
            "(standard deviation, root mean square over pixels).",
            picture=sheet(to_bytes(means, run.transform), columns),
            alt=f"A grid of {n} generated images",
        ),
        Panel(
            "Samples: x drawn from p(x|z)",
            f"The same {n} z with the likelihood's own noise, by which a pixel moves {within} (root mean square).",
            picture=sheet(to_bytes(drawn, run.transform), columns),
            alt=f"A grid of {n} generated images with the likelihood's noise",
        ),
    ]


def has_mean(run: Run) -> bool:
    """Whether p(x|z) has a mean in closed form; an autoregressive p(x|z) has none."""
    return not isinstance(run.model.likelihood, AutoregressiveLikelihoodModule)


def decoded(run: Run) -> str:
    """What `Run.decode` gives, in words."""
    family = optional_hook(run.model.likelihood, "family")
    return getattr(family, "centre", LikelihoodSettings.centre) if has_mean(run) else "a draw of p(x|z)"


def _drawn(run: Run, condition: Tensor | None, columns: int, n: int, order: str) -> Panel:
    """Draws of a model whose elements are drawn one by one."""
    x = run.sample(n, seed=SEED, condition=condition)
    spread = number(float(x.double().var(0).mean().sqrt())) + unit_scored(run)
    latents = run.config.has_latents
    return Panel(
        "Samples: x drawn from p(x|z), z from the prior" if latents else "Samples: x drawn from p(x)",
        f"{n} draws, element by element{order}. From one to another a pixel varies by {spread} (standard deviation, "
        "root mean square over pixels).",
        picture=sheet(to_bytes(x, run.transform), columns),
        alt=f"A grid of {n} generated images",
    )


@torch.inference_mode()
def _by_latent(run: Run, condition: Tensor | None) -> list[Panel]:
    """Draws of x, a row for each z: what z leaves to the elements themselves."""
    given = None if condition is None else condition[:COLUMNS].to(run.device)
    count = COLUMNS if given is None else len(given)
    noise = torch.Generator(run.device).manual_seed(SEED)
    z = run.model.code(run.model(None, Ancestral(batch=count, generator=noise), given))[0]
    repeated = None if given is None else given.repeat_interleave(COLUMNS, 0)
    x = run.decode(z.repeat_interleave(COLUMNS, 0), repeated, seed=SEED)
    rows = x.double().unflatten(0, (count, COLUMNS))
    within = float(rows.var(1).mean(0).sum())
    between = max(0.0, float(rows.mean(1).var(0).sum()) - within / COLUMNS)
    share = f"Of a pixel's variance {percent(within / (within + between))} is left" if within + between else "No pixel"
    known = "z is" if given is None else "z and the condition are"
    words = f"{share} once {known} known" if within + between else f"{share} varies"
    return [
        Panel(
            "Samples: a row for each z, x drawn from p(x|z)",
            f"{count} draws of z from the prior, and {COLUMNS} of x given each: what a row has in common was decided "
            f"before x was drawn. {words} (by these {count * COLUMNS} draws).",
            picture=sheet(to_bytes(x, run.transform), COLUMNS),
            alt=f"{count} rows of generated images that share their latent",
        )
    ]


def state_means(run: Run) -> Panel:
    """The mean image of each state of a mixture, the heaviest first."""
    weights = run.model.prior(None).mean.detach().cpu()  # type: ignore[operator]
    order = weights.argsort(descending=True, stable=True)[:SAMPLES]
    condition = run.conditions(len(order))
    means = run.decode(torch.eye(len(weights))[order], condition)
    return Panel(
        f"{decoded(run).removeprefix('a ').capitalize()} for each state, the most probable first",
        f"Prior probabilities from {percent(float(weights.max()))} down to {percent(float(weights.min()))}.",
        picture=sheet(to_bytes(means, run.transform), min(COLUMNS, len(order))),
        alt=f"{len(order)} images, one a state",
        wide=True,
    )


def _classes_in_columns(run: Run, held: Examples | None) -> tuple[Tensor | None, int, str]:
    """Conditions of a sheet of samples, its columns, and the order in words."""
    if not run.shapes.condition:
        return None, COLUMNS, ""
    if run.transform.condition == "labels":
        shown = run.classes[:COLUMNS]
        each = torch.eye(len(run.classes))[: len(shown)]
        return each.repeat(SAMPLES // COLUMNS, 1), len(shown), f"; columns are the classes {', '.join(shown)}"
    if held is None or held.condition is None:
        return torch.zeros(SAMPLES, run.shapes.condition), COLUMNS, "; the condition is zero"
    count = min(SAMPLES, len(held.condition))
    return held.condition[:count], COLUMNS, f" under the conditions of the first {count} examples"


def reconstructions(held: Examples) -> Panel:
    """Examples, each above its reconstruction, and above what was made of it where it was binarised."""
    rows, transform = held.first_of_each(PAIRS), held.run.transform
    binarised = transform.binarize != "none"
    layers = [raw_to_bytes(held.raw(rows), transform)] if binarised else []
    layers += [to_bytes(held.x[rows], transform), to_bytes(held.decode(held.z[rows], rows), transform)]
    columns = min(COLUMNS, len(rows))
    full = len(rows) // columns * columns
    cells = [layer[:full].reshape(-1, columns, *layer.shape[1:]) for layer in layers]
    woven = np.stack(cells, 1).reshape(-1, *layers[0].shape[1:])
    order = f"data, the same binarised, {decoded(held.run)}" if binarised else f"data, {decoded(held.run)}"
    return Panel(
        f"Reconstructions; from above: {order} at the encoding",
        reconstruction_words(held),
        picture=sheet(woven, columns, group=len(layers)),
        alt=f"{full} examples, each above its reconstruction",
        wide=True,
    )


def reconstruction_words(held: Examples) -> str:
    """Root mean square error over all examples, and the part of the variance that is explained."""
    z = held.z if has_mean(held.run) else held.z[:REDRAWN]
    mean, error, square = held.x.double().mean(0), 0.0, 0.0
    for start in range(0, len(z), 1000):
        rows = torch.arange(start, min(start + 1000, len(z)))
        x = held.x[rows].double()
        error += float((x - held.decode(z[rows], rows).double()).square().sum())
        square += float((x - mean).square().sum())
    size = max(1, held.x[: len(z)].numel())
    explained = "" if square == 0 else f"; {percent(1 - error / square)} of the data's variance is explained"
    deviation = f"{number(math.sqrt(error / size), 3)}{unit_scored(held.run)}"
    if not has_mean(held.run):
        return f"Over {len(z):,} examples: root mean square error of the draws {deviation}, their own noise included."
    return f"Over {len(z):,} examples: root mean square error {deviation}{explained}."


def unit_scored(run: Run) -> str:
    """The unit of what the likelihood scores, as a suffix."""
    if run.transform.divisor:
        return " in the scaled unit"
    return " grey levels" if run.transform.levels is not None and run.transform.binarize == "none" else ""


def manifold(run: Run, held: Examples | None) -> Panel | None:
    """Decoded points of a 2-D latent on a grid."""
    if not run.config.continuous or run.shapes.latent != 2 or run.config.model.level_count > 1:
        return None
    condition, given = _one_condition(run, held)
    grid = _normal_grid(run, condition)
    how = f"at the prior's quantiles 1/{2 * GRID}, 3/{2 * GRID}, … of each axis, so that each cell holds equal mass"
    if grid is None:
        if held is None:
            return None
        low, high = (torch.quantile(held.z, q, dim=0) for q in (0.02, 0.98))
        grid = _square(low, high)
        how = f"evenly over the middle 96% of the encodings, {_box(low, high)}"
    means = run.decode(grid, None if condition is None else condition.expand(len(grid), -1))
    return Panel(
        f"Manifold: {'the ' if has_mean(run) else ''}{decoded(run)} over the latent plane",
        f"{GRID} × {GRID} points {how}; z₁ runs to the right, z₂ upwards{given}.",
        picture=sheet(to_bytes(means, run.transform), GRID),
        alt="A grid of decoded images over the latent plane",
        wide=True,
    )


def _box(low: Tensor, high: Tensor) -> str:
    return " and ".join(f"z{'₁₂'[i]} from {number(float(low[i]))} to {number(float(high[i]))}" for i in range(2))


def _one_condition(run: Run, held: Examples | None) -> tuple[Tensor | None, str]:
    if not run.shapes.condition:
        return None, ""
    if run.transform.condition == "labels":
        return torch.eye(len(run.classes))[:1], f"; class {run.classes[0]}"
    if held is None or held.condition is None:
        return torch.zeros(1, run.shapes.condition), "; the condition is zero"
    return held.condition[:1], "; the condition of the first example"


@torch.inference_mode()
def _normal_grid(run: Run, condition: Tensor | None) -> Tensor | None:
    """Points at equal steps of the prior's CDF, if it is a diagonal Normal."""
    prior = optional_hook(run.model, "prior")
    p = None if prior is None else prior(None if condition is None else condition.to(run.device))
    if not isinstance(p, Normal | StandardNormal):
        return None
    levels = torch.special.ndtri((torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID).float()
    points = torch.stack(torch.meshgrid(levels, levels.flip(0), indexing="xy"), -1).reshape(-1, 2)
    loc, scale = (m.expand(*p.batch_shape, 2).reshape(-1, 2)[:1].cpu() for m in (p.mean, p.variance.sqrt()))
    return loc + scale * points


def _square(low: Tensor, high: Tensor) -> Tensor:
    across, up = (torch.linspace(float(low[i]), float(high[i]), GRID) for i in range(2))
    return torch.stack(torch.meshgrid(across, up.flip(0), indexing="xy"), -1).reshape(-1, 2)


def interpolations(held: Examples) -> Panel | None:
    """Decoded points on lines between the encodings of pairs of examples, between the examples themselves."""
    rows = held.first_of_each(2 * LINES)
    if len(rows) < 2 or not held.run.config.continuous:
        return None
    first, second = rows[0::2][: len(rows) // 2], rows[1::2]
    at = torch.linspace(0, 1, STEPS).view(1, -1, 1)
    z = held.z[first].unsqueeze(1) * (1 - at) + held.z[second].unsqueeze(1) * at
    between = held.decode(z.flatten(0, 1), first.repeat_interleave(STEPS)).unflatten(0, (len(first), STEPS))
    ends = [raw_to_bytes(held.raw(side), held.run.transform)[:, None] for side in (first, second)]
    middle = to_bytes(between.flatten(0, 1), held.run.transform)
    cells = np.concatenate([ends[0], middle.reshape(len(first), STEPS, *middle.shape[1:]), ends[1]], 1)
    lengths = (held.z[first] - held.z[second]).double().norm(dim=1)
    given = "; the condition stays that of the left example" if held.run.shapes.condition else ""
    return Panel(
        "Interpolations: straight lines between encodings",
        f"The outer columns are data, the {STEPS} between them decoded{'' if has_mean(held.run) else ' by a draw each'}"
        f"{given}. The lines are "
        f"{number(float(lengths.min()))} to {number(float(lengths.max()))} long in the latent space.",
        picture=sheet(cells.reshape(-1, *cells.shape[2:]), STEPS + 2),
        alt=f"{len(first)} rows of images that change step by step from one example to another",
        wide=True,
    )


def score_noise(run: Run) -> float | None:
    """The noise of a denoising autoencoder on real numbers; None for every other model."""
    corruption = run.config.corruption
    real = isinstance(run.config.likelihood, NormalLikelihood)
    return corruption.noise if isinstance(corruption, GaussianCorruption) and real else None


def score(held: Examples) -> Panel | None:
    """(r(x) - x) / noise² of noisy examples: what a denoising autoencoder knows of grad log p (Alain & Bengio 2014)."""
    noise = score_noise(held.run)
    if noise is None:
        return None
    rows = held.first_of_each(SCORED)
    clean = held.x[rows]
    noisy = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(SEED))
    repaired = _repair(held, noisy, rows)
    field = (repaired - noisy) / noise**2
    pictures = [to_bytes(part, held.run.transform) for part in (clean, noisy, repaired)]
    alike = torch.nn.functional.cosine_similarity(field.flatten(1), (clean - noisy).flatten(1)).mean()
    left = (repaired - clean).double().square().mean().sqrt()
    limit = float(field.abs().quantile(0.99))
    return Panel(
        "Score field of the denoising autoencoder",
        f"From above: x; x + noise, of standard deviation {number(noise)}; the reconstruction r of that; the score "
        f"(r − x − noise)/{number(noise)}², blue at −{number(limit, 1)}, white at 0, red at {number(limit, 1)}. "
        f"The error of {number(noise)} a pixel becomes {number(float(left), 3)}; the cosine between the score and the "
        f"way back to x is {number(float(alike))}.",
        picture=sheet(np.concatenate([*map(_coloured, pictures), _diverging(field, limit)]), len(rows)),
        alt="Rows of images: clean, noisy, denoised, and the direction from noisy to denoised",
    )


@torch.inference_mode()
def _repair(held: Examples, noisy: Tensor, rows: Tensor) -> Tensor:
    from lambent.draws import Mode

    device, condition = held.run.device, held.condition
    part = None if condition is None else condition[rows].to(device)
    return held.run.model(noisy.to(device), Mode(), part).px.mean[0].cpu()


def _coloured(cells: np.ndarray) -> np.ndarray:
    return np.repeat(cells, 3, -1) if cells.shape[-1] == 1 else cells


def _diverging(field: Tensor, limit: float) -> np.ndarray:
    """Signed numbers (N, C, H, W), averaged over channels, from blue over white to red."""
    from matplotlib import colormaps

    share = (field.mean(1) / max(limit, 1e-12)).clamp(-1, 1).numpy() / 2 + 0.5
    return np.round(255 * colormaps["RdBu_r"](share)[..., :3]).astype(np.uint8)
