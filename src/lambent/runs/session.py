"""A session: everything that a training needs, checked, before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lambent.config import Config
from lambent.data import Batches, Dataset, Transform, View, split_off, training_sets
from lambent.data.sources import ARRAYS, Source, dataset_of
from lambent.evaluation.bounds import bounds
from lambent.evaluation.result import mean_estimate
from lambent.evaluation.summary import level_estimates
from lambent.models import LatentModel
from lambent.runs.initialise import build_model, initialise
from lambent.runs.monitors import collapse_monitor, information_of
from lambent.runs.run import Run, check_support
from lambent.seeds import derive
from lambent.training.engine import Engine
from lambent.training.listener import Diagnostics
from lambent.training.loop import Trainer
from lambent.training.progress import Validation


@dataclass(frozen=True, eq=False)
class Session:
    """A training that is ready to start.

    Attributes:
        config: Every setting in force.
        model: The model, initialised from the data.
        transform: What is done to data before it is scored.
        train: The training set as the model scores it.
        valid: The validation set as the model scores it.
        validation: The validation set itself where the run was given arrays, and no source can give it again.
        engine: This process among the others, and its device.
        threads: CPU threads.
        fingerprint: Of the training set as it was read.
    """

    config: Config
    model: LatentModel
    transform: Transform
    train: View
    valid: View
    validation: Dataset | None
    engine: Engine
    threads: int
    fingerprint: str

    @property
    def recipe(self) -> dict[str, Any]:
        """Every value that ``recipe.toml`` records, by section."""
        return {
            **self.config.values(),
            "transform": self.transform.to_dict(),
            "training_data": {"n": len(self.train), "fingerprint": self.fingerprint},
        }

    def run(self) -> Run:
        """The model as a run in memory."""
        return Run(self.config, self.model, self.transform, self.engine.device, validation=self.validation)

    def trainer(self) -> Trainer:
        """The training loop over this model and these data."""
        return Trainer(
            self.model,
            self.config.objective.sized(len(self.train)),
            self.config.drawing,
            TrainingData(self),
            self.config.train,
            self.engine,
            self.diagnostics(),
            self.config.schedule,
        )

    def diagnostics(self) -> Diagnostics:
        """What is measured on the validation set."""
        config, model, valid, device = self.config, self.model, self.valid, self.engine.device
        return Diagnostics(
            self.validate,
            information_of(config, model, valid, device),
            collapse_monitor(
                config, model, valid, config.train.total_steps(TrainingData(self).steps_per_epoch), device
            ),
        )

    def validate(self, model: LatentModel) -> Validation:
        """The bound on the validation set, its noise the same every time."""
        config, engine = self.config, self.engine
        weighted = config.objective.multi_sample
        terms = bounds(
            model,
            self.valid.slice,
            len(self.valid),
            samples=max(config.train.valid_samples, config.drawing.samples if weighted else 1),
            seed=derive(config.train.seed, "validation"),
            draw=config.drawing.evaluating(),
            device=engine.device,
            threads=torch.get_num_threads() if engine.device.type == "cpu" else 1,
            share=(engine.rank, engine.world),
        ).summed(engine.sum)
        values, kind = terms.elbo, terms.elbo_kind
        if weighted and terms.iwae is not None:  # of one sample without weights, the bound is an ELBO
            values, kind = terms.iwae, terms.iwae_kind
        bound, rate, distortion = (mean_estimate(v, kind) for v in (values, terms.rate, terms.distortion))
        rates = {name: level.value for name, level in level_estimates(terms).items()}
        return Validation(bound.value, bound.se, kind, rate.value, distortion.value, len(self.valid), rates)


def open_session(config: Config, data: Source | None, valid: Source | None, engine: Engine, threads: int) -> Session:
    """Opens the data, and builds and initialises the model.

    Raises:
        ConfigError: a setting that doesn't fit the data.
        DataError: data that can't be read, or that the likelihood doesn't score.
    """
    train, held_out = _data(config, config.data.source if data is None else data, valid)
    transform = Transform.fit(train, config.data)
    model = build_model(config, transform.shapes(config.model.latent))
    view = transform.view(train, fixed=False, device=engine.device)
    check_support(model, view)
    initialise(model, view, config.train.seed)
    model.to(engine.device)
    validation = train if held_out is None else held_out
    in_memory = validation if config.data.source == ARRAYS else None
    valid_view = transform.view(validation, fixed=True, device=engine.device)
    check_support(model, valid_view)
    return Session(config, model, transform, view, valid_view, in_memory, engine, threads, train.fingerprint())


def _data(config: Config, data: Source, valid: Source | None) -> tuple[Dataset, Dataset | None]:
    """The training set, and the validation set: as given, as the source has it, or held out."""
    if valid is not None:
        return dataset_of(data, config.data, "train"), dataset_of(valid, config.data, "test")
    if isinstance(data, str | Path):
        return training_sets(str(data), options=config.data)
    return split_off(dataset_of(data, config.data, "train"), config.data.valid_fraction, config.data.split_seed)


class TrainingData:
    """Batches of the training set on the engine's device, a function of (seed, step, rank) alone."""

    def __init__(self, session: Session) -> None:
        options, engine = session.config.train, session.engine
        self.view = session.train
        self.order = Batches(session.train, options.batch_size, options.seed, rank=engine.rank, world=engine.world)
        self.steps_per_epoch = len(self.order)

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's part of the batch of ``step``; where it is empty, one example that counts for nothing."""
        place = divmod(step, self.steps_per_epoch)
        share = self.order.share(*place)
        indices = share.indices if len(share.indices) else self.order.indices(*place)[:1]
        return self.view.batch(indices), self.view.condition(indices)

    def fraction(self, step: int) -> float:
        """The weight of this process's part in the whole batch."""
        return self.order.share(*divmod(step, self.steps_per_epoch)).weight / self.order.world

    def global_size(self, step: int) -> int:
        """Examples in that batch over all processes."""
        return len(self.order.indices(*divmod(step, self.steps_per_epoch)))
