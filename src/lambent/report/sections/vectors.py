"""Vectors: the data's distribution and the model's on one line, in the plane, or on the data's principal axes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lambent.evaluation.exact import exact_log_prob
from lambent.report.drawing import BLUE, GREY, INK, ORANGE, Axes, Paint, draw, number, percent
from lambent.report.examples import Examples
from lambent.report.html import Panel
from lambent.report.sections.data_and_model import bins, data_rows, lead, model_rows, trimmed, what
from lambent.report.sections.generated import reconstruction_words, score_noise
from lambent.report.sections.latents import VECTOR_POINTS

MESH = 120
ARROWS = 22

__all__ = ["lead", "panels"]


def panels(held: Examples) -> list[Panel]:
    """What one dimension, two, or more of them allow to be seen."""
    dims = held.x[0].numel()
    if dims == 1:
        return [_line(held)]
    if dims == 2:
        found = [_planes(held), _density(held), _arrows(held)]
        return [panel for panel in found if panel is not None]
    return [_principal(held), *([_explained(held)] if held.run.config.has_latents else [])]


def _line(held: Examples) -> Panel:
    data, model, made = data_rows(held).flatten(), model_rows(held).flatten(), what(held)
    low, high = trimmed(torch.cat([data, model]))
    edges = np.linspace(low, high, bins(len(data)) + 1)
    curve = _log_density(held, torch.linspace(low, high, 400).unsqueeze(1))

    def paint(axes: Axes) -> None:
        axes.hist(data.numpy(), edges, density=True, color=GREY, alpha=0.55, label="data")
        axes.hist(model.numpy(), edges, density=True, histtype="step", color=BLUE, linewidth=1.4, label=made)
        if curve is not None:
            axes.plot(np.linspace(low, high, 400), curve.exp().numpy(), color=ORANGE, label="exact p(x)")
        axes.set_xlabel("x")
        axes.set_ylabel("density")
        axes.legend(loc="best", labelcolor=INK)

    means, spreads = ([number(float(f(v))) for v in (data, model)] for f in (torch.mean, torch.std))
    words = f"Mean {means[0]} in the data, {means[1]} in the {made}; standard deviation {spreads[0]} and {spreads[1]}."
    return Panel("Distribution", words, svg=draw(paint, "Histograms of data and model"))


@torch.inference_mode()
def _log_density(held: Examples, x: Tensor) -> Tensor | None:
    """Exact log p(x) in the data's unit of points in that unit, for models that have it and no condition."""
    run = held.run
    log_prob = exact_log_prob(run.model)
    if log_prob is None or run.shapes.condition:
        return None
    scored = run.transform.scaled(x).to(run.device)
    return log_prob(scored, None).double().cpu() + run.transform.log_jacobian


def _planes(held: Examples) -> Panel:
    data, model, made = data_rows(held), model_rows(held), what(held)
    moments = [[number(float(v)) for v in (*m.double().mean(0), *m.double().std(0), _rho(m))] for m in (data, model)]
    words = " ".join(
        f"{name}: means ({m[0]}, {m[1]}), standard deviations ({m[2]}, {m[3]}), correlation {m[4]}."
        for name, m in zip(("Data", made.capitalize()), moments, strict=True)
    )
    return Panel(
        f"Data and {made}", words, svg=draw(_cloud(data, model, made, ("x₁", "x₂")), f"Data and {made} in the plane")
    )


def _rho(x: Tensor) -> float:
    return float(torch.corrcoef(x.double().T)[0, 1].nan_to_num())


def _cloud(data: Tensor, model: Tensor, made: str, names: tuple[str, str]) -> Paint:
    def paint(axes: Axes) -> None:
        style = {"s": 5, "linewidths": 0, "alpha": 0.6, "rasterized": len(data) > VECTOR_POINTS}
        axes.scatter(*data.T.numpy(), color=GREY, label="data", **style)
        axes.scatter(*model[: len(data)].T.numpy(), color=BLUE, label=made, **style)
        _natural_aspect(axes)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.legend(loc="best", markerscale=2.5, labelcolor=INK, handletextpad=0.1)

    return paint


def _natural_aspect(axes: Axes) -> None:
    """One unit as long across as up, unless that would flatten the figure."""
    across, up = (abs(high - low) for low, high in (axes.get_xlim(), axes.get_ylim()))
    if 1 / 3 < across / max(up, 1e-30) < 3:
        axes.set_aspect("equal", adjustable="datalim")


def _density(held: Examples) -> Panel | None:
    data = data_rows(held)
    limits = [trimmed(data[:, i]) for i in range(2)]
    limits = [(low - 0.15 * (high - low), high + 0.15 * (high - low)) for low, high in limits]
    across, up = (torch.linspace(*limit, MESH) for limit in limits)
    mesh = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)
    found = _log_density(held, mesh.reshape(-1, 2))
    if found is None:
        return None
    field = found.reshape(MESH, MESH).exp().numpy()
    cell = float((across[1] - across[0]) * (up[1] - up[0]))

    def paint(axes: Axes) -> None:
        image = axes.contourf(across.numpy(), up.numpy(), field, 14, cmap="Blues")
        axes.scatter(*data[:1000].T.numpy(), s=3, color=INK, alpha=0.35, linewidths=0)
        axes.set_aspect("equal" if 1 / 3 < (across[-1] - across[0]) / (up[-1] - up[0]) < 3 else "auto")
        axes.set_xlabel("x₁")
        axes.set_ylabel("x₂")
        axes.figure.colorbar(image, ax=axes, label="p(x)").outline.set_visible(False)

    words = (
        f"Exact p(x) of the model, with the data's first {min(1000, len(data)):,} points; the frame holds "
        f"{percent(float(field.sum()) * cell)} of the model's mass."
    )
    return Panel("The model's density", words, svg=draw(paint, "Contours of the exact density with the data on it"))


@torch.inference_mode()
def _arrows(held: Examples) -> Panel | None:
    """The score field of a denoising autoencoder in the plane."""
    noise = score_noise(held.run)
    if noise is None or held.run.shapes.condition:
        return None
    from lambent.draws import Mode

    data = held.x
    limits = [trimmed(data[:, i]) for i in range(2)]
    across, up = (torch.linspace(*limit, ARROWS) for limit in limits)
    at = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1).reshape(-1, 2)
    repaired = held.run.model(at.to(held.run.device), Mode(), None).px.mean[0].cpu()
    field = (repaired - at) / noise**2
    lengths = field.double().norm(dim=1)

    def paint(axes: Axes) -> None:
        axes.scatter(*data[:1000].T.numpy(), s=4, color=GREY, alpha=0.6, linewidths=0)
        axes.quiver(*at.T.numpy(), *field.T.numpy(), color=BLUE, width=0.004, pivot="tail")
        _natural_aspect(axes)
        axes.set_xlabel("x₁")
        axes.set_ylabel("x₂")

    words = (
        f"(r(x) − x)/noise² on a grid, noise {number(noise)}: lengths from {number(float(lengths.min()))} to "
        f"{number(float(lengths.max()))}, median {number(float(lengths.median()))}, in the unit the likelihood scores."
    )
    return Panel("Score field of the denoising autoencoder", words, svg=draw(paint, "Arrows towards likely data"))


def _principal(held: Examples) -> Panel:
    data, model, made = data_rows(held).flatten(1), model_rows(held).flatten(1), what(held)
    mean = data.double().mean(0)
    axes = torch.linalg.svd(data.double() - mean, full_matrices=False)
    basis, share = axes.Vh[:2].T, axes.S.square() / axes.S.square().sum()
    on = [(v.double() - mean) @ basis for v in (data, model)]
    spread = [number(float(v.var(0).sum())) for v in on]
    held_by = [percent(float(part)) for part in share[:2]]
    words = (
        f"The data's two leading principal axes hold {held_by[0]} and {held_by[1]} of its variance. In this plane the "
        f"data have a variance of {spread[0]}, the {made} {spread[1]}."
    )
    painter = _cloud(on[0], on[1], made, ("first principal axis", "second principal axis"))
    return Panel(f"Data and {made}", words, svg=draw(painter, f"Data and {made} on the data's principal axes"))


def _explained(held: Examples) -> Panel:
    x = held.x.flatten(1).double()
    repaired = held.decode(held.z, torch.arange(len(held.z))).flatten(1).double()
    total = (x - x.mean(0)).square().sum(0)
    share = 1 - (x - repaired).square().sum(0) / total.clamp_min(1e-30)
    order = share.argsort(descending=True)

    def paint(axes: Axes) -> None:
        axes.bar(np.arange(1, len(order) + 1), share[order].clamp_min(0).numpy(), color=BLUE, width=0.85)
        axes.set_xlabel("dimension, best first")
        axes.set_ylabel("fraction of variance reconstructed")
        axes.set_ylim(0, 1)

    least, most = percent(float(share.min())), percent(float(share.max()))
    words = f"{reconstruction_words(held)} Per dimension from {least} to {most}."
    return Panel("Reconstruction of each dimension", words, svg=draw(paint, "Explained variance of each dimension"))
