"""`compare_gradients`: the gradient estimators that a run or a recipe may use, compared on its own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lambent.config import Config, check, layer_of_settings, layer_of_values
from lambent.data import View
from lambent.data.sources import ARRAYS, Source
from lambent.errors import ConfigError
from lambent.gradients.estimators import estimators, trusted
from lambent.gradients.measure import Batches, Comparison, Examples, compare
from lambent.runs.fit import fit_settings
from lambent.runs.run import Run, load
from lambent.seeds import derive

OF_THE_GRADIENT = ("draw", "objective", "rate")
"""Sections that may change without another model."""


def compare_gradients(
    source: str | Path | Run,
    data: Source | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    repetitions: int = 500,
    warm_up: int = 500,
    epochs: int = 0,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Bias, variance and cost of every gradient estimator that the model can be trained with.

    All of them see one model, one batch of training data and the same objective; baselines and control variates are
    fitted first, on other batches, the model held.

    Args:
        source: A run, its folder, or a recipe's name: a fresh model of that, on its own data.
        data: Whose training split to take the batch from; by default what the model was or would be trained on.
        settings: Settings by name as in `lambent.fit`: any of a recipe, and of a run those of draw, objective and rate.
        samples: K; by default the draw's own.
        batch_size: Examples in the batch; by default as in training.
        repetitions: Gradients of each estimator.
        warm_up: Steps to fit what estimators learn for themselves.
        epochs: Passes over the training set that a recipe is trained for before.
        seed: Of the batch and the noise.
        say: Told of the progress.

    Raises:
        ConfigError: a setting that can't be used, or no estimator to trust.
        DataError: data that can't be used.

    >>> found = compare_gradients("toy-gradients", repetitions=40, warm_up=0)
    >>> {row.name for row in found.rows} >= {"pathwise", "score baseline=none"}
    True
    """
    settings = settings or {}
    run = _run(source, data, settings, epochs, seed)
    config = run.config
    if samples is not None and samples < 1:
        raise ConfigError(f"samples={samples}: expected at least 1")
    samples = config.drawing.samples if samples is None else samples
    view = run.prepare(data if data is not None or config.data.source == ARRAYS else config.data.source, "train")
    batches = _batches(view, config.train.batch_size if batch_size is None else batch_size, seed)
    n = len(view)
    known = {"samples": samples, "step": run.step, "n": n}
    found, refused = estimators(config, run.shapes, control=run.model.control, **known)
    known_unbiased = trusted(found, config, run.shapes, examples=len(batches(0)[0]), **known)
    for estimator in (*found, *known_unbiased):
        if estimator.control is not None:
            estimator.control.to(run.device)
    result = compare(
        run.model,
        found,
        known_unbiased,
        batches,
        repetitions=repetitions,
        warm_up=warm_up,
        lr=config.train.lr,
        seed=derive(seed, "gradient comparison"),
        say=say,
    )
    return replace(result, title=_title(run, source, settings, view), refused=refused)


def _run(source: str | Path | Run, data: Source | None, settings: Mapping[str, Any], epochs: int, seed: int) -> Run:
    opened = source if isinstance(source, Run) else load(source) if Path(source).is_dir() else None
    if opened is None:
        length = {"train.epochs": epochs, "train.steps": None} if epochs else {"train.steps": 0}
        return fit_settings(str(source), {**settings, **length, "train.seed": seed}, data, quiet=True)
    if epochs:
        raise ConfigError(f"epochs={epochs}: a run is compared as it was trained; give a recipe to train one first")
    return replace(opened, config=_changed(opened.config, settings)) if settings else opened


def _changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """A run's configuration with another draw, objective or rate."""
    layer = layer_of_settings(settings, [layer_of_values(config.values())])
    fixed = [section for section in layer if section not in OF_THE_GRADIENT]
    if fixed:
        allowed = ", ".join(OF_THE_GRADIENT)
        raise ConfigError(f"{fixed[0]} is fixed by the run; of a run only {allowed} can be set, or give a recipe")
    changed = config.with_(**settings)
    check(changed)
    return changed


def _batches(view: View, size: int, seed: int) -> Batches:
    """Examples at random, a function of (seed, number)."""
    if size < 1:
        raise ConfigError(f"batch_size={size}: expected at least 1")
    return partial(_batch, view, min(size, len(view)), seed)


def _batch(view: View, size: int, seed: int, number: int) -> Examples:
    generator = torch.Generator().manual_seed(derive(seed, "gradient batch", number))
    indices = torch.randperm(len(view), generator=generator)[:size]
    return view.batch(indices), view.condition(indices)


def _shown(settings: Mapping[str, Any]) -> list[str]:
    """The settings as the command line takes them."""
    return [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]


def _title(run: Run, source: str | Path | Run, settings: Mapping[str, Any], view: View) -> str:
    name = " ".join([run.config.recipe if isinstance(source, Run) else str(source), *_shown(settings)])
    trained = f"step {run.step:,}" if run.step else "as initialised"
    return f"{name} ({trained}) on {view.dataset.name}"
