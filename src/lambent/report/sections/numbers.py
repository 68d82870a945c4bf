"""The page's head and the numbers of an evaluation, each with its error and what it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from math import log, prod
from typing import Any

from lambent.config import resolve
from lambent.config.layers import ONE_OF_A_KIND, RECORDED, SECTIONS, USER
from lambent.evaluation.active_units import COUNTED
from lambent.recipes.named import RECIPES
from lambent.report.drawing import number, with_error
from lambent.report.examples import Examples
from lambent.report.html import Section, details, table
from lambent.report.sections import codes
from lambent.report.sections.timesteps import is_diffusion
from lambent.runs.run import Run
from lambent.storage.json import from_json
from lambent.storage.run_folder import difference

UNREMARKABLE = {
    "data.source",
    *(f"train.{key}" for key in ("threads", "device", "validate_every", "log_every", "keep_checkpoints")),
}
MOST_LEVELS = 8
MEANINGS = {"levels": "what taking the noise away costs, level by level", "end": "KL(q(z|x)‖p(z)) where noise ends"}
BUDGET = 20_000
"""Samples in all that a report spends on bounds of its own."""


def facts(run: Run, held: Examples | None) -> str:
    """The table under the title."""
    recipe, values, shapes = RECIPES[run.config.recipe], run.config.values(), run.shapes
    parts = "; ".join(f"{s} {run.config.name_of(s)}" for s in _shown(run))
    networks = ", ".join(f"{side} {values[side]['name']}" for side in ("encoder", "decoder") if side in values)
    sizes = f"{_event(shapes.event)}, {_latent(run)}; {_parameters(run)}"
    rows = [
        ("Recipe", f"{recipe.name} ({recipe.title})"),
        ("Source", recipe.source),
        *([("Published", recipe.expected)] if recipe.expected and not _other_parts(run) else []),
        *([("Changed", "; ".join(changes))] if (changes := changed(run)) else []),
        ("Data", _data(run, held)),
        ("Parts", f"{parts}; {networks}"),
        ("Sizes", sizes),
        ("Weights", f"step {run.step:,}" + (", averaged" if run.config.train.ema else "") + f"; {_machine(run)}"),
    ]
    return table(rows)


def _shown(run: Run) -> tuple[str, ...]:
    """The parts named at the head of the page: those that there are."""
    named = ("prior", "posterior", "likelihood", "objective")
    return tuple(section for section in named if getattr(run.config, section) is not None)


def headline(run: Run, found: Mapping[str, Any] | None) -> str:
    """The run in a sentence."""
    title = _title(run)
    if found is None:
        return f"{title}."
    name, value, _, meaning = _bounds(found)[-1]
    units = f"; {found['active_units']} of {found['latent']} latent dimensions active"
    units = f"; {codes.in_use(found)}" if found.get("codes") else "" if _exact(found) or not found["latent"] else units
    return f"{title}: {name} {value} nats ({meaning}) on {found['data']}{units}."


def _title(run: Run) -> str:
    """The recipe's title, unless parts were exchanged that it may speak of."""
    other = _other_parts(run)
    if other:
        return f"Recipe {run.config.recipe} with {', '.join(other)}"
    title = RECIPES[run.config.recipe].title
    return title[0].upper() + title[1:]


def _other_parts(run: Run) -> list[str]:
    """The parts that differ from the recipe's, by name."""
    own, now = resolve(run.config.recipe, RECIPES[run.config.recipe].settings), run.config
    chosen = [section for section in SECTIONS if section not in ONE_OF_A_KIND]
    return [f"{s} {now.name_of(s)}" for s in chosen if own.name_of(s) != now.name_of(s)]


def changed(run: Run) -> list[str]:
    """Settings that differ from the recipe's own (from the defaults, for parts that are not its own)."""
    other = _other_parts(run)
    parts = {
        part.partition(" ")[0]: {"name": part.partition(" ")[2]} for part in other if not part.endswith(f" {USER}")
    }
    own = resolve(run.config.recipe, RECIPES[run.config.recipe].settings, parts)
    found = []
    for line in difference(own.values(), run.config.values()):
        name, _, values = line.partition(": ")
        if name not in UNREMARKABLE and not name.endswith(".name") and values.split(" -> ")[-1] != "absent":
            found.append(f"{name} = {values.split(' -> ')[-1].strip(chr(39))}")
    return [*other, *found]


def _exact(found: Mapping[str, Any]) -> bool:
    """Whether nothing was drawn: there are no latents, or all of their states were summed."""
    return not _latents(found) or _enumerated(found)


def _latents(found: Mapping[str, Any]) -> bool:
    """Whether there are any, with values or (the levels of a diffusion) without."""
    return bool(found["latent"] or found.get("rates"))


def _enumerated(found: Mapping[str, Any]) -> bool:
    """Whether K ran over all states of a discrete latent."""
    return bool(found.get(f"iwae_{found['samples']}", {}).get("kind") == "exact")


def _event(event: tuple[int, ...]) -> str:
    return f"examples of {' × '.join(map(str, event))}"


def _latent(run: Run) -> str:
    if not run.config.has_latents:
        return "no latents"
    if run.config.latent_kind == "codes":
        return codes.sizes(run)
    if is_diffusion(run):
        return f"{prod(run.shapes.event):,} latent dimensions on each noise level"
    if run.config.model.level_count > 1:
        return f"{run.config.model.level_count} levels of latents"
    what = "states" if not run.config.amortised else "latent dimensions"
    return f"{run.shapes.latent} {what}"


def _parameters(run: Run) -> str:
    groups = {name: sum(p.numel() for p in ps) for name, ps in run.model.groups().items()}
    split = ", ".join(f"{count:,} {name}" for name, count in groups.items() if count)
    return f"{sum(groups.values()):,} parameters ({split})"


def _data(run: Run, held: Examples | None) -> str:
    options = run.config.data
    how = [f"{options.binarize} binarisation"] if options.binarize != "none" else []
    how += [f"scaled ({options.scale})"] if run.transform.divisor else []
    how += [f"conditioned on {options.condition}"] if options.condition != "none" else []
    trained = run.folder.read_recipe().get("training_data", {}).get("n") if run.folder else None
    size = [] if trained is None else [f"trained on {trained:,} examples"]
    shown = "" if held is None else f". Shown here: {held.about}"
    return f"{options.source}: {', '.join([*size, *how]) or 'as it is'}{shown}"


def _machine(run: Run) -> str:
    if run.folder is None or not run.folder.environment.is_file():
        return f"on {run.device}"
    found = run.folder.read_json(run.folder.environment)
    count = found.get("threads")
    threads = f", {count} thread{'' if count == 1 else 's'}" if found.get("device") == "cpu" else ""
    return f"trained with lambent {found.get('lambent')}, torch {found.get('torch')} on {found.get('device')}{threads}"


def evaluation(run: Run, held: Examples | None) -> dict[str, Any] | None:
    """The run's own evaluation where there is one newer than the training, else one made here with few samples."""
    stored = _stored(run)
    if stored is not None or held is None:
        return stored
    samples = max(1, min(50, BUDGET // len(held.dataset)))
    return dict(from_json(run.evaluate(held.dataset, samples=samples).to_dict()))


def _stored(run: Run) -> dict[str, Any] | None:
    if run.folder is None or not run.folder.evaluation.is_file():
        return None
    if run.folder.evaluation.stat().st_mtime < run.folder.metrics.stat().st_mtime:
        return None
    found = run.folder.read_json(run.folder.evaluation)
    return found if {"data", "n", "samples", "elbo", "rate", "distortion", "active_units"} <= found.keys() else None


def measured(found: Mapping[str, Any], held: Examples | None) -> Section:
    """The table of an evaluation, and what it says."""
    rows = [(name, f"{value} {unit}".strip(), what) for name, value, unit, what in _rows(found)]
    raw = table(rows, ("quantity", "mean over examples", "meaning"), numbers=(1,))
    seen = " The model was trained on these examples." if held is not None and _seen(found, held) else ""
    drawn = f", K = {found['samples']:,} draws of the posterior for each" if _latents(found) else ""
    drawn = ", one pass each, as the posterior is a point" if found.get("codes") else drawn
    lead = f"{found['data']}: all {found['n']:,} examples{drawn}."
    lost = (
        f" {found['non_finite']} examples have no finite bound; they make the means −∞." if found["non_finite"] else ""
    )
    return Section("Evaluation", text=f"{lead} ± is one standard error over examples.{lost}{seen}", raw=raw)


def _seen(found: Mapping[str, Any], held: Examples) -> bool:
    """Whether the numbers are of examples that training learnt from: an evaluation may be of others than figures."""
    return held.seen and found.get("fingerprint") in (None, "", held.dataset.fingerprint())


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value with error, unit and meaning of each number."""
    return [*_bounds(found), *_terms(found), *_others(found)]


def _bounds(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    proper = found["elbo"]["kind"] != "not a bound"
    named = [
        *(
            []
            if not _latents(found)
            else [("elbo", "ELBO" if proper else "log p(x|z) − rate" if found["rate"] else "log p(x|z)")]
        ),
        *(
            []
            if _enumerated(found) or found.get("codes")
            else [(f"iwae_{found['samples']}", f"IWAE-{found['samples']}")]
        ),
        ("log_likelihood", "log p(x)"),
    ]
    meaning = {"lower bound": "lower bound on log p(x)", "exact": "exact", "not a bound": "not a bound on log p(x)"}
    return [
        (name, with_error(found[key]["value"], found[key]["se"]), "nats", meaning[found[key]["kind"]])
        for key, name in named
        if key in found
    ]


def _terms(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    proper = found["elbo"]["kind"] != "not a bound"
    if not _latents(found) or (not proper and not found["rate"]):
        return []
    rate = "KL(q‖p)" if proper else "log q, without a prior to set against it"
    rate = "upper bound on KL(q‖p), as log p(z) is a lower bound" if found.get("rate_kind") == "upper bound" else rate
    return [
        ("rate", with_error(found["rate"], found["rate_se"]), "nats", rate),
        *_levels(found.get("rates", {})),
        ("distortion", with_error(found["distortion"], found["distortion_se"]), "nats", "−E log p(x|z)"),
    ]


def _levels(rates: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rate of each of a few levels; of many the bars tell."""

    def units(level: Mapping[str, Any]) -> str:
        return f"; {level['active_units']} of {level['latent']} units active" if "latent" in level else ""

    def meaning(name: str, level: Mapping[str, Any]) -> str:
        return MEANINGS.get(name) or f"its part of the rate{units(level)}"

    return [
        (f"rate of {name}", with_error(level["value"], level["se"]), "nats", meaning(name, level))
        for name, level in (rates.items() if len(rates) <= MOST_LEVELS else ())
    ]


def _others(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    if found["bits_per_dim"] is not None:
        symbols = found.get("symbols")
        by = f"{found['dims']:,}" if symbols is None else f"{symbols:,.4g} symbols scored an example ·"
        named = found["bits_per_dim_from"].replace("_", "-").replace("iwae", "IWAE").replace("elbo", "ELBO")
        bound = "ELBO" if found.get("codes") else named
        what = f"−{bound} / ({by} ln 2)"
        rows.append(
            (
                "bits/dim" if symbols is None else "bits/symbol",
                with_error(found["bits_per_dim"], found["bits_per_dim_se"], 4),
                "bits",
                what,
            )
        )
    if found["log_jacobian"]:
        what = "to be added to log p(x) for densities in the data's own unit"
        rows.append(("scaling", number(found["log_jacobian"]), "nats", what))
    if _exact(found):
        return rows
    if found["effective_samples"] is not None and found["samples"] > 1:
        effective = f"{number(found['effective_samples'], 1)} of {found['samples']:,}"
        rough = f", computed in {found['precision']}" if "precision" in found else ""
        rows.append(("effective K", effective, "", f"effective sample size of the importance weights{rough}"))
    if found.get("codes"):
        return [*rows, ("codes", codes.in_use(found), "", "share of the codes that occur; exp of their entropy")]
    rows += _information(found)
    if not found["latent"]:
        return rows
    active = f"{found['active_units']} of {found['latent']}"
    return [*rows, ("active units", active, "", f"latent dimensions {_counted(found)}")]


def _counted(found: Mapping[str, Any]) -> str:
    """Which of them are active; evaluations of old say no such thing, and counted by means."""
    return COUNTED[found.get("active_units_by", "mean")].format(over="")


def _information(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """I_q(x;z) with what bounds it, where the evaluation has it."""
    known = found.get("mutual_information")
    if not known:
        return []
    what = f"lower bound on I(x;z), of {known['n']:,} examples: at most log {known['n']:,} = {number(log(known['n']))}"
    return [("mutual information", with_error(known["value"], known["se"]), "nats", what)]


def settings(run: Run) -> Section:
    """Every setting in force, folded away."""
    rows = []
    for section, values in run.config.values().items():
        if section in RECORDED:
            continue
        name = "" if section in ONE_OF_A_KIND else str(values.get("name"))
        inside = ", ".join(f"{k} = {_plain(v)}" for k, v in values.items() if k != "name")
        rows.append((section, name, inside or "no settings"))
    raw = details("Show every setting in force", table(rows, ("section", "part", "settings")))
    return Section("Settings", text=f"As in recipe.toml; lambent show {run.config.recipe} explains each.", raw=raw)


def _plain(value: Any) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def foot() -> str:
    """The page's last line: version and units."""
    return (
        f"Written by lambent {version('lambent')}. All logarithms are natural: bounds, rates and distortions are nats, "
        "summed over an example's dimensions and averaged over examples."
    )
