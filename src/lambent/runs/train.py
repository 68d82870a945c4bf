"""`train`: from a session to a trained run, in memory or in a folder."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from lambent.config import biases, completed
from lambent.errors import ConfigError
from lambent.networks import UserDecoder, UserEncoder
from lambent.runs.initialise import initialise_prior
from lambent.runs.run import Run, load
from lambent.runs.session import Session
from lambent.storage import checkpoint
from lambent.storage.files import probe_writable
from lambent.storage.metrics import LogWriter, MetricsWriter
from lambent.storage.run_folder import RunFolder, environment, require_same
from lambent.storage.toml import to_toml
from lambent.training.console import Console
from lambent.training.freeze import AUTOENCODER
from lambent.training.listener import TrainingState
from lambent.training.loop import Trainer
from lambent.training.progress import Progress
from lambent.training.recorder import Recorder, RunFiles, stopped_by_signals
from lambent.training.schedule import GENERATIVE, INFERENCE
from lambent.training.transfer import require_same_side, take_weights

MAY_CHANGE = ("train.threads", "train.device")
"""Settings that may differ on resuming: they are recorded, but the meaning of the run doesn't depend on them."""


def train(
    session: Session,
    folder: RunFolder | None,
    console: Console,
    *,
    first_stage: Run | None = None,
    resume: bool = False,
) -> Run:
    """Trains a session's model.

    Args:
        session: What to train.
        folder: The run's folder; None keeps the run in memory.
        console: Where progress goes.
        first_stage: The run whose weights to start from.
        resume: Continue from the folder's newest checkpoint, if it has one.

    Returns:
        The run, its model at the best validation bound.
    """
    if not (resume and folder is not None and checkpoint.steps(folder.path)):
        note = take_initial_weights(session, first_stage)
        if note and session.engine.leader:
            console.say(note)
        initialise_prior(session.model, session.train, session.config.train.seed)
    trainer = session.trainer()
    with _recording(session, trainer, folder, console, resume=resume) as recorder:
        _announce(session, trainer, recorder)
        with stopped_by_signals(recorder), _shown(trainer, recorder):
            trainer.run(recorder)
        if trainer.progress.step == 0:
            recorder.save(trainer.state())
    return _result(session, recorder, folder)


def take_initial_weights(session: Session, first_stage: Run | None) -> str:
    """Takes the weights of the first stage, or of ``train.init``; returns what to say of the weights, or "".

    Raises:
        ConfigError: a side that is frozen at random weights.
        CheckpointError: no weights that fit.
    """
    options = session.config.train
    if first_stage is not None:
        return take_weights(session.model, first_stage.model.state_dict(), "all", options.freeze, "first stage")
    if options.init:
        folder = RunFolder(options.init)
        require_same_side(_recorded(folder), _stored(session.recipe), options.freeze, f"train.init={options.init}")
        found = checkpoint.best(folder.path)
        tensors = found.tensors.get("ema") or found.tensors["model"]
        where = f"train.init={options.init} (step {found.step})"
        return take_weights(session.model, tensors, options.init_side, options.freeze, where)
    if options.freeze == GENERATIVE and not isinstance(session.config.decoder, UserDecoder):
        raise ConfigError(
            "train.freeze=generative would hold a generator of random weights; give train.init=RUN, a trained run, "
            "or, in Python, decoder=MODULE, a generator of yours"
        )
    if options.freeze == AUTOENCODER:
        raise ConfigError(
            "train.freeze=autoencoder would hold an autoencoder of random weights; give train.init=RUN, a trained run, "
            "or schedule=two-stage, which trains it first"
        )
    if options.freeze == INFERENCE:
        own = isinstance(session.config.encoder, UserEncoder)
        return (
            f"train.freeze=inference: {'the head on your encoder' if own else 'the encoder'} stays randomly initialised"
        )
    return ""


@contextlib.contextmanager
def _recording(
    session: Session, trainer: Trainer, folder: RunFolder | None, console: Console, *, resume: bool
) -> Iterator[Recorder]:
    """The recorder of a run: claims the folder, brings the trainer to its newest checkpoint, and opens the files."""
    leader = session.engine.leader
    if folder is None:
        yield Recorder(console, leader)
        return
    with contextlib.ExitStack() as stack:
        if leader:
            stack.enter_context(folder)
            _claim(session, folder, resume=resume)
        session.engine.barrier()
        if resume and checkpoint.steps(folder.path):
            found = checkpoint.newest(folder.path)
            for line in found.skipped if leader else ():
                console.say(f"skipped: {line}")
            trainer.load_state(TrainingState(Progress.from_state(found.state["progress"]), found.tensors))
        if not leader:
            yield Recorder(console, leader, in_memory=False)
            return
        metrics = stack.enter_context(MetricsWriter(folder.metrics, offset=trainer.progress.offset))
        log = stack.enter_context(LogWriter(folder.log))
        log.write(f"step {trainer.progress.step}: training on {session.engine.device}, {session.threads} threads")
        files = RunFiles(folder, metrics, log, session.config.train.keep_checkpoints)
        yield Recorder(console, leader, files, in_memory=False)


def _claim(session: Session, folder: RunFolder, *, resume: bool) -> None:
    """Locks the folder, and writes its recipe or compares it with the one that is there."""
    going_on = folder.claim(resume=resume)
    weights = sum(p.numel() * p.element_size() for p in session.model.parameters())
    probe_writable(folder.path, 4 * weights * (session.config.train.keep_checkpoints + 2))
    if going_on:
        require_same(_recorded(folder), _stored(session.recipe), "recipe.toml", allowed=MAY_CHANGE)
    else:
        folder.write_recipe(session.recipe)
        folder.write_json(folder.environment, environment(str(session.engine.device), session.threads))


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """A run's ``recipe.toml``; settings that did not exist then have their defaults."""
    return _stored(completed(folder.read_recipe()))


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    """Values as reading back ``recipe.toml`` gives them."""
    return tomllib.loads(to_toml(values))


def _announce(session: Session, trainer: Trainer, recorder: Recorder) -> None:
    """Says what is trained, on what, and what is biased about it."""
    parameters = sum(p.numel() for p in session.model.parameters())
    device, world = session.engine.device, session.engine.world
    where = f"{device}" + (f", {session.threads} threads" if device.type == "cpu" else "")
    processes = f", {world} processes" if world > 1 else ""
    recorder.say(
        f"{session.config.recipe}: {parameters:,} parameters on {len(session.train):,} examples of "
        f"{session.transform.event} ({session.train.dataset.name}), validated on {len(session.valid):,}; "
        f"{where}{processes}; {trainer.total:,} steps"
    )
    if trainer.compiled is not None:
        recorder.say("train.compile=true: the first step compiles, for up to a minute")
    for note in [*biases(session.config), *session.train.dataset.notes]:
        recorder.say(note)


@contextlib.contextmanager
def _shown(trainer: Trainer, recorder: Recorder) -> Iterator[None]:
    """The progress bar, and the time that the training took."""
    if not recorder.leader:
        yield
        return
    recorder.console.start(trainer.progress.step, trainer.total)
    try:
        yield
    finally:
        took = recorder.console.stop(trainer.progress.step)
        if took:
            recorder.say(took)


def _result(session: Session, recorder: Recorder, folder: RunFolder | None) -> Run:
    """The run with its best weights."""
    if folder is not None:
        session.engine.barrier()
        encoder, decoder = (module_of(part) for part in (session.config.encoder, session.config.decoder))
        opened = load(folder.path, device=str(session.engine.device), encoder=encoder, decoder=decoder)
        return replace(opened, validation=session.validation)
    if recorder.best is not None:
        session.model.load_state_dict(recorder.best)
    session.model.eval()
    return replace(session.run(), history=tuple(recorder.rows), step=recorder.best_step)


def module_of(network: Any) -> nn.Module | None:
    """The user's module that a network is, or that is behind its settings; None for a network of ours."""
    if isinstance(network, UserEncoder | UserDecoder):
        return network.module
    return network if isinstance(network, nn.Module) else None
