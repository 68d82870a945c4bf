"""`fit`: from a recipe and data to a trained, measured run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lambent.config import Config, check, layer_of_file
from lambent.data.sources import ARRAYS, Source
from lambent.errors import ConfigError, RenamedSetting
from lambent.recipes import configure
from lambent.runs.run import Run, with_modules
from lambent.runs.session import Session, open_session
from lambent.runs.stages import stages_of
from lambent.runs.train import train
from lambent.storage import checkpoint
from lambent.storage.run_folder import FIRST_STAGE, RunFolder
from lambent.training.console import Console
from lambent.training.engine import choose_threads, running_engine


def fit(
    recipe: str = "vae",
    data: Source | None = None,
    *,
    out: str | Path | None = None,
    valid: Source | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Trains a recipe on data.

    Args:
        recipe: Name of a recipe (`lambent.recipe_names()`).
        data: A source's name, an array (N, *event), or a `Dataset`; by default the recipe's own.
        out: Folder of the run; None keeps the run in memory.
        valid: Validation data; by default what the source has, else a part of the training set.
        config: TOML file of settings, laid over the recipe's.
        resume: Continue the run in ``out``, to the bytes of an unbroken one.
        quiet: Print nothing; by default progress goes to standard error.
        **settings: Laid over that: parts by section, as an object (``prior=MixturePrior(components=3)``) or by name
            (``prior="mixture"``); settings by bare name (``latent=2``, ``grad_clip=None``) or, with two underscores
            for the dot, by section (``prior__components=20``); and modules of yours, ``encoder`` from x (N, *event)
            to features, ``decoder`` from z (N, latent) to the likelihood's parameters.

    Returns:
        The run, its model at the best validation bound.

    Raises:
        ConfigError: a setting or combination that can't be used.
        DataError: data that can't be used, before the first step.
        NumericsError: too many non-finite steps.

    >>> run = fit("ppca", latent=2, epochs=1, quiet=True)
    >>> run.encode("digits").shape
    torch.Size([360, 2])
    """
    return fit_settings(recipe, settings, data, out=out, valid=valid, config=config, resume=resume, quiet=quiet)


def fit_settings(
    recipe: str,
    settings: Mapping[str, Any],
    data: Source | None = None,
    *,
    out: str | Path | None = None,
    valid: Source | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """As `fit`, with the settings as a mapping."""
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", RenamedSetting)
        resolved = _resolved(recipe, settings, data, valid, config)
    stages = stages_of(resolved)
    for stage in stages:
        check(stage)
    with _threads(resolved.train.threads) as threads, running_engine(resolved.train.device) as engine:
        sessions = [open_session(stage, data, valid, engine, threads) for stage in stages]
        return _train_stages(sessions, out, Console(quiet=quiet), resume=resume)


def _train_stages(sessions: Sequence[Session], out: str | Path | None, console: Console, *, resume: bool) -> Run:
    """Trains each session from the weights of the one before; the first one's folder lies in the last one's."""
    leader = sessions[0].engine.leader
    if out is not None and leader:
        RunFolder(out).require_free(resume=resume)  # before the first stage, not after it
    if resume and out is not None and checkpoint.steps(Path(out)):
        sessions = sessions[-1:]
    if len(sessions) == 1:
        return train(sessions[0], None if out is None else RunFolder(out), console, resume=resume)
    if leader:
        console.say("stage 1 of 2: the autoencoder")
    inner = None if out is None else RunFolder(Path(out) / FIRST_STAGE)
    first = train(sessions[0], inner, console, resume=resume)
    if leader:
        console.say("stage 2 of 2: the prior")
    folder = None if out is None else RunFolder(out)
    return train(sessions[1], folder, console, first_stage=first, resume=resume)


def _resolved(
    recipe: str, settings: Mapping[str, Any], data: Source | None, valid: Source | None, file: str | Path | None
) -> Config:
    """The checked configuration, with the data's source and a user's own modules."""
    modules = {key: value for key, value in settings.items() if isinstance(value, nn.Module)}
    plain = {key: value for key, value in settings.items() if key not in modules}
    layers = () if file is None else (layer_of_file(Path(file)),)
    resolved = configure(recipe, *layers, settings=plain)
    if data is not None:
        source = str(data) if isinstance(data, str | Path) else ARRAYS
        resolved = replace(resolved, data=replace(resolved.data, source=source))
    if valid is not None:  # nothing is held out of the training source, and evaluation must not pretend so
        resolved = replace(resolved, data=replace(resolved.data, valid_fraction=0.0))
    for key in modules.keys() - {"encoder", "decoder"}:
        raise ConfigError(
            f"{key} is a module, expected a name or settings; modules of yours go in as encoder or decoder"
        )
    resolved = with_modules(resolved, modules.get("encoder"), modules.get("decoder"))
    check(resolved)
    return resolved


@contextlib.contextmanager
def _threads(asked: int | None) -> Iterator[int]:
    before, chosen = torch.get_num_threads(), choose_threads(asked)
    torch.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)
