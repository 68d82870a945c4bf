"""`fit`: from a recipe and data to a trained, measured run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lambent.config import Config, biases, check, completed, layer_of_file
from lambent.data import Batches, Dataset, Transform, View, split_off, training_sets
from lambent.data.sources import ARRAYS, Source, dataset_of
from lambent.errors import ConfigError, RenamedSetting
from lambent.evaluation.bounds import bounds
from lambent.evaluation.summary import level_estimates, mean_estimate
from lambent.models import LatentModel
from lambent.networks import UserDecoder, UserEncoder
from lambent.recipes import configure
from lambent.runs.initialise import build_model, initialise, initialise_prior
from lambent.runs.monitors import collapse_monitor, information_of
from lambent.runs.run import Run, check_support, load, with_modules
from lambent.runs.stages import stages_of
from lambent.seeds import mix
from lambent.storage import checkpoint
from lambent.storage.files import probe_writable
from lambent.storage.metrics import LogWriter, MetricsWriter
from lambent.storage.run_folder import FIRST_STAGE, RunFolder, environment, require_same
from lambent.training.console import Console
from lambent.training.engine import Engine, choose_threads, start_engine
from lambent.training.freeze import AUTOENCODER
from lambent.training.loop import Trainer
from lambent.training.optimizer_state import restore_optimizer
from lambent.training.progress import Progress, Validation
from lambent.training.recorder import Recorder, stopped_by_signals
from lambent.training.schedule import GENERATIVE, INFERENCE
from lambent.training.transfer import require_same_side, take_weights

MAY_CHANGE = ("train.threads", "train.device")
"""What may differ on resuming: it is recorded, but the run's meaning doesn't hang on it."""


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
    console = Console(quiet=quiet)
    with _threads(resolved.train.threads) as threads:
        engine = start_engine(resolved.train.device)
        try:
            return _train_stages(
                [_prepare(stage, data, valid, engine) for stage in stages],
                out,
                console,
                threads,
                resume=resume,
            )
        finally:
            engine.stop()


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


@dataclass(frozen=True, eq=False)
class Job:
    """All that a training needs, checked."""

    config: Config
    engine: Engine
    run: Run
    train: View
    valid: View

    fingerprint: str

    @property
    def values(self) -> dict[str, Any]:
        """What ``recipe.toml`` holds."""
        return {
            **self.config.values(),
            "transform": self.run.transform.to_dict(),
            "training_data": {"n": len(self.train), "fingerprint": self.fingerprint},
        }


def _prepare(config: Config, data: Source | None, valid: Source | None, engine: Engine) -> Job:
    train, held_out = _data(config, config.data.source if data is None else data, valid)
    transform = Transform.fit(train, config.data)
    model = build_model(config, transform.shapes(config.model.latent))
    view = transform.view(train, fixed=False, device=engine.device)
    check_support(model, view)
    initialise(model, view, config.train.seed)
    model.to(engine.device)
    kept = train if held_out is None else held_out
    in_memory = kept if config.data.source == ARRAYS else None
    run = Run(config, model, transform, engine.device, validation=in_memory)
    return Job(config, engine, run, view, run.prepare(kept), train.fingerprint())


def _data(config: Config, data: Source, valid: Source | None) -> tuple[Dataset, Dataset | None]:
    """The training set, and the validation set: as given, as the source has it, or held out."""
    if valid is not None:
        return dataset_of(data, config.data, "train"), dataset_of(valid, config.data, "test")
    if isinstance(data, str | Path):
        return training_sets(str(data), options=config.data)
    return split_off(dataset_of(data, config.data, "train"), config.data.valid_fraction, config.data.split_seed)


class TrainingData:
    """Batches of the training set on the engine's device: a function of (seed, step, rank) alone."""

    def __init__(self, job: Job) -> None:
        options, engine = job.config.train, job.engine
        self.view = job.train
        self.order = Batches(job.train, options.batch_size, options.seed, rank=engine.rank, world=engine.world)
        self.steps_per_epoch = len(self.order)

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's part of the batch of ``step``; where it is empty, one example that counts for nothing."""
        place = divmod(step, self.steps_per_epoch)
        share = self.order.share(*place)
        indices = share.indices if len(share.indices) else self.order.indices(*place)[:1]
        return self.view.batch(indices), self.view.condition(indices)

    def fraction(self, step: int) -> float:
        """What this process's part is of the whole batch."""
        return self.order.share(*divmod(step, self.steps_per_epoch)).weight / self.order.world

    def global_size(self, step: int) -> int:
        """Examples in that batch over all processes."""
        return len(self.order.indices(*divmod(step, self.steps_per_epoch)))


def _train_stages(jobs: Sequence[Job], out: str | Path | None, console: Console, threads: int, *, resume: bool) -> Run:
    """Trains each job from the weights of the one before; the last one's folder holds the first one's."""
    start: Run | None = None
    if out is not None and jobs[0].engine.leader:
        RunFolder(out).require_free(resume=resume)  # before the first stage, not after it
    if resume and out is not None and checkpoint.steps(Path(out)):
        jobs = jobs[-1:]
    for job, inner in zip(jobs, [FIRST_STAGE, ""][-len(jobs) :], strict=True):
        if len(jobs) > 1 and job.engine.leader:
            console.say(f"stage {1 if start is None else 2} of 2: {'the autoencoder' if inner else 'the prior'}")
        folder = None if out is None else RunFolder(Path(out) / inner)
        start = _train(job, folder, console, threads, start, resume=resume)
    assert start is not None
    return start


def _train(
    job: Job, folder: RunFolder | None, console: Console, threads: int, start: Run | None, *, resume: bool
) -> Run:
    if not (resume and folder is not None and checkpoint.steps(folder.path)):
        _start_from_init(job, console, start)
        initialise_prior(job.run.model, job.train, job.config.train.seed)
    recorder = Recorder(job.engine, job.config.train.keep_checkpoints, folder if job.engine.leader else None, console)
    trainer = Trainer(
        job.run.model,
        job.config.objective.sized(len(job.train)),
        job.config.drawing,
        TrainingData(job),
        job.config.train,
        job.engine,
        _validation(job),
        recorder,
        job.config.schedule,
        information_of(job.config, job.run.model, job.valid, job.engine.device),
    )
    recorder.trainer = trainer
    say = console.say if job.engine.leader else lambda text: None
    trainer.watch = collapse_monitor(job.config, job.run.model, job.valid, trainer.total, job.engine.device, say)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            _open(job, folder, recorder, stack, threads, resume=resume)
        _announce(job, trainer, console, threads)
        stack.enter_context(stopped_by_signals(recorder))
        if job.engine.leader:
            console.start(trainer.progress.step, trainer.total)
        try:
            trainer.run()
        finally:
            if job.engine.leader:
                console.stop(trainer.progress.step)
        if folder is not None and trainer.progress.step == 0:
            trainer.save()
    return _result(job, recorder, folder)


def _start_from_init(job: Job, console: Console, start: Run | None) -> None:
    """Takes the weights of the stage before, or of ``train.init``; a frozen generator must come from somewhere."""
    train, decoder = job.config.train, job.config.decoder
    if start is not None:
        said = take_weights(job.run.model, start.model.state_dict(), "all", train.freeze, "first stage")
        if job.engine.leader:
            console.say(said)
    elif train.init:
        folder = RunFolder(train.init)
        require_same_side(_recorded(folder), _stored(job.values), train.freeze, f"train.init={train.init}")
        found = checkpoint.best(folder.path)
        tensors = found.tensors.get("ema") or found.tensors["model"]
        where = f"train.init={train.init} (step {found.step})"
        said = take_weights(job.run.model, tensors, train.init_side, train.freeze, where)
        if job.engine.leader:
            console.say(said)
    elif train.freeze == GENERATIVE and not isinstance(decoder, UserDecoder):
        raise ConfigError(
            "train.freeze=generative would hold a generator of random weights; give train.init=RUN, a trained run, "
            "or, in Python, decoder=MODULE, a generator of yours"
        )
    elif train.freeze == AUTOENCODER:
        raise ConfigError(
            "train.freeze=autoencoder would hold an autoencoder of random weights; give train.init=RUN, a trained run, "
            "or schedule=two-stage, which trains it first"
        )
    elif train.freeze == INFERENCE and job.engine.leader:
        own = isinstance(job.config.encoder, UserEncoder)
        console.say(f"train.freeze=inference: {'the head on your encoder' if own else 'the encoder'} stays as drawn")


def _open(
    job: Job, folder: RunFolder, recorder: Recorder, stack: contextlib.ExitStack, threads: int, *, resume: bool
) -> None:
    """Claims the folder and puts the trainer where the last checkpoint left it."""
    if job.engine.leader:
        stack.enter_context(folder)
        going_on = folder.claim(resume=resume)
        probe_writable(folder.path, _bytes_needed(job))
        if going_on:
            require_same(_recorded(folder), _stored(job.values), "recipe.toml", allowed=MAY_CHANGE)
        else:
            folder.write_recipe(job.values)
            folder.write_json(folder.environment, environment(str(job.engine.device), threads))
    job.engine.barrier()
    if resume:
        _restore(job, folder, recorder)
    if job.engine.leader:
        assert recorder.trainer is not None
        offset = recorder.trainer.progress.offset
        recorder.metrics = stack.enter_context(MetricsWriter(folder.metrics, offset=offset))
        log = stack.enter_context(LogWriter(folder.log))
        recorder.console.log = log.write
        log.write(f"step {recorder.trainer.progress.step}: training on {job.engine.device}, {threads} threads")


def _recorded(folder: RunFolder) -> dict[str, Any]:
    """A run's ``recipe.toml``; what is a setting only since then has its default."""
    return _stored(completed(folder.read_recipe()))


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    """As reading back ``recipe.toml`` would give it."""
    import tomllib

    from lambent.storage.toml import to_toml

    return tomllib.loads(to_toml(values))


def _bytes_needed(job: Job) -> int:
    weights = sum(p.numel() * p.element_size() for p in job.run.model.parameters())
    return 4 * weights * (job.config.train.keep_checkpoints + 2)


def _restore(job: Job, folder: RunFolder, recorder: Recorder) -> None:
    trainer = recorder.trainer
    assert trainer is not None
    if not checkpoint.steps(folder.path):
        return
    found = checkpoint.newest(folder.path)
    for line in found.skipped if job.engine.leader else ():
        recorder.console.say(f"skipped: {line}")
    checkpoint.apply(trainer.model, found.tensors["model"])
    restore_optimizer(trainer.optimizer, trainer.model.named_parameters(), found.tensors["optimizer"])
    if trainer.average is not None:
        checkpoint.apply(trainer.average.model, found.tensors["ema"])
    trainer.resume(Progress.from_state(found.state["progress"]))


def _validation(job: Job) -> Any:
    """Bound on the validation set, its noise the same every time."""
    options, engine = job.config.train, job.engine
    weighted = job.config.objective.multi_sample
    samples = max(options.valid_samples, job.config.drawing.samples if weighted else 1)

    def validate(model: LatentModel) -> Validation:
        found = bounds(
            model,
            job.valid.slice,
            len(job.valid),
            samples=samples,
            seed=mix(options.seed, 6),
            draw=job.run.draw,
            device=engine.device,
            threads=torch.get_num_threads() if engine.device.type == "cpu" else 1,
            share=(engine.rank, engine.world),
        ).summed(engine.sum)
        values, kind = found.elbo, found.elbo_kind
        if weighted and found.iwae is not None:  # of one sample without weights, the bound is an ELBO
            values, kind = found.iwae, found.iwae_kind
        bound, rate, distortion = (mean_estimate(v, kind) for v in (values, found.rate, found.distortion))
        rates = {name: level.value for name, level in level_estimates(found).items()}
        return Validation(bound.value, bound.se, kind, rate.value, distortion.value, len(job.valid), rates)

    return validate


def _announce(job: Job, trainer: Trainer, console: Console, threads: int) -> None:
    if not job.engine.leader:
        return
    parameters = sum(p.numel() for p in job.run.model.parameters())
    where = f"{job.engine.device}" + (f", {threads} threads" if job.engine.device.type == "cpu" else "")
    processes = f", {job.engine.world} processes" if job.engine.world > 1 else ""
    console.say(
        f"{job.config.recipe}: {parameters:,} parameters on {len(job.train):,} examples of {job.run.shapes.event} "
        f"({job.train.dataset.name}), validated on {len(job.valid):,}; {where}{processes}; {trainer.total:,} steps"
    )
    if trainer.compiled is not None:
        console.say("train.compile=true: the first step compiles, for up to a minute")
    for note in [*biases(job.config), *job.train.dataset.notes]:
        console.say(note)


def _result(job: Job, recorder: Recorder, folder: RunFolder | None) -> Run:
    """The run with its best weights."""
    if folder is not None:
        job.engine.barrier()
        opened = load(
            folder.path,
            device=str(job.engine.device),
            encoder=_module(job.config.encoder),
            decoder=_module(job.config.decoder),
        )
        return replace(opened, validation=job.run.validation)
    if recorder.best is not None:
        job.run.model.load_state_dict(recorder.best)
    job.run.model.eval()
    return replace(job.run, history=tuple(recorder.rows), step=recorder.best_step)


def _module(network: Any) -> nn.Module | None:
    """The user's module that a network is, or that is behind its settings; None for a network of ours."""
    if isinstance(network, UserEncoder | UserDecoder):
        return network.module
    return network if isinstance(network, nn.Module) else None
