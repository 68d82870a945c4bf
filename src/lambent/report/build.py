"""The page's sections in order, each left out where the model or the data don't have it."""

from __future__ import annotations

from dataclasses import replace

from lambent.data.pictures import is_picture
from lambent.data.sources import Source
from lambent.errors import ConfigError, DataError
from lambent.report.examples import Examples, gather
from lambent.report.html import Panel, Section, page
from lambent.report.sections import (
    codes,
    collapse,
    columns,
    curves,
    generated,
    latents,
    levels,
    numbers,
    texts,
    timesteps,
    vectors,
)
from lambent.runs.run import Run


def build(run: Run, data: Source | None = None) -> str:
    """The report as HTML."""
    held, problem = _gather(run, data)
    found = numbers.evaluation(run, held)
    sections = [
        *([Section("Data", text=problem)] if problem else []),
        *([] if found is None else [numbers.measured(found, held)]),
        curves.training(run),
        *([] if (used := collapse.section(run)) is None else [used]),
        *_made(run, held),
        *([] if (noisy := timesteps.section(run, held)) is None else [noisy]),
        *([] if (several := levels.section(run, held, found)) is None else [several]),
        *([] if held is None or not _has_code(run) else [_latent_space(held)]),
        *(_walks(run, held) if _has_code(run) else []),
        numbers.settings(run),
    ]
    title = run.folder.path.resolve().name if run.folder is not None else run.config.recipe
    return page(title, numbers.headline(run, found), numbers.facts(run, held), sections, numbers.foot())


def _gather(run: Run, data: Source | None) -> tuple[Examples | None, str]:
    if data is not None:
        return gather(run, data), ""
    try:
        return gather(run), ""
    except (ConfigError, DataError) as error:
        return None, f"Figures of examples are left out: {error}."


def _has_code(run: Run) -> bool:
    """Whether encodings are there to be shown: those of a diffusion are noise, and expensive to compute."""
    return run.config.has_latents and not timesteps.is_diffusion(run)


def _made(run: Run, held: Examples | None) -> list[Section]:
    """Samples and reconstructions, as the kind of data wants to be seen."""
    if run.transform.alphabet is not None:
        return texts.sections(run, held)
    sampled = run.config.samplable
    if is_picture(run.transform):
        if timesteps.is_diffusion(run):  # shown by number of steps
            return []
        panels = generated.samples(run, held) if sampled else []
        made = [Section("Samples", panels)] if panels else [_no_samples()]
        return (
            made
            if held is None or not run.config.has_latents
            else [*made, Section("Reconstructions", [generated.reconstructions(held)])]
        )
    if held is None:
        return []
    if run.transform.kind == "table":
        return [Section("Columns", columns.columns(held), text=columns.lead(held))]
    return [Section("Data and model", vectors.panels(held), text=vectors.lead(held))]


def _latent_space(held: Examples) -> Section:
    if held.run.config.latent_kind == "codes":
        return codes.section(held)
    found = latents.latent_space(held)
    if held.run.config.amortised or not is_picture(held.run.transform):
        return found
    return replace(found, panels=[generated.state_means(held.run), *found.panels])


def _no_samples() -> Section:
    return Section("Samples", text="The flat prior is improper and can't be sampled from; see the reconstructions.")


def _walks(run: Run, held: Examples | None) -> list[Section]:
    """Interpolations in the latent space, as pictures."""
    if not is_picture(run.transform):
        return []
    walks: list[Panel | None] = [generated.manifold(run, held)]
    if held is not None:
        walks += [generated.interpolations(held), generated.score(held)]
    panels = [panel for panel in walks if panel is not None]
    return [Section("Latent interpolations", panels)] if panels else []
