"""Trainings with faults injected at chosen steps, and what is remembered of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lambent.draws import Pathwise
from lambent.models import LatentModel
from lambent.objectives import ELBO
from lambent.objectives.base import Objective
from lambent.trace import Estimate, Trace
from lambent.training.engine import Engine
from lambent.training.listener import Diagnostics, Listener
from lambent.training.loop import Trainer
from lambent.training.options import TrainOptions
from lambent.training.progress import Progress, Validation
from support.batches import Rows
from support.listening import Watched

NAN, INF, SPIKE, HUGE = "NaN in the gradient", "infinite loss", "gradient times 1e6", "huge values"
HUGE_VALUE = 1e4


class Scaled(torch.autograd.Function):
    """The identity, its gradient multiplied: a finite loss whose gradient is not what it should be."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


@dataclass(frozen=True)
class Faulty(Objective):
    """An objective whose loss, or its gradient, is multiplied at some steps."""

    inner: Objective = field(default_factory=ELBO)
    losses: Mapping[int, float] = field(default_factory=dict)
    gradients: Mapping[int, float] = field(default_factory=dict)
    always: float = 1.0
    since: int = 10**9
    step: int = 0

    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        estimate = self.inner(trace, x)
        factor = self.gradients.get(self.step, 1.0) * (self.always if self.step >= self.since else 1.0)
        spoilt = {n: self.losses.get(self.step, 1.0) * Scaled.apply(v, factor) for n, v in estimate.losses.items()}
        return dataclasses.replace(estimate, losses=spoilt)

    def at(self, step: int) -> Faulty:
        return dataclasses.replace(self, inner=self.inner.at(step), step=step)


def faults(kinds: Mapping[int, str], inner: Objective) -> Faulty:
    """The objective with the faults of loss and gradient among ``kinds`` by step."""
    gradients = {step: math.nan if kind == NAN else 1e6 for step, kind in kinds.items() if kind in (NAN, SPIKE)}
    return Faulty(inner, {step: math.inf for step, kind in kinds.items() if kind == INF}, gradients)


class RowsWithHuge(Rows):
    """Whole batches of a fixed set; all values huge at some steps."""

    def __init__(self, x: Tensor, batch: int, huge: frozenset[int]) -> None:
        super().__init__(x[: len(x) // batch * batch], batch)
        self.huge = huge

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        x, condition = super().at(step)
        return (torch.full_like(x, HUGE_VALUE) if step in self.huge else x), condition


class Witness(Listener):
    """Looks at the weights after every so many steps; a weight that isn't finite never heals."""

    def __init__(self, every: int = 1) -> None:
        self.every, self.steps = every, 0
        self.rows: list[dict[str, Any]] = []
        self.moved: list[float] = []
        self.broken: list[int] = []
        self.skipped: list[int] = []
        self.outliers: list[int] = []
        self.progress: Progress | None = None
        self.model: nn.Module | None = None
        self.before = torch.zeros(0)

    def follow(self, model: nn.Module) -> None:
        self.model, self.before = model, self.weights(model)

    @staticmethod
    def weights(model: nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def interrupted(self) -> int:
        if self.progress is not None:
            self.skipped += [self.steps] * (self.progress.skipped - len(self.skipped))
            self.outliers += [self.steps] * (self.progress.outliers - len(self.outliers))
        self.steps += 1
        if self.steps % self.every:
            return 0
        now = self.weights(self.model)
        self.moved.append(float((now - self.before).norm()))
        if not math.isfinite(self.moved[-1]):
            self.broken.append(self.steps)
        self.before = now
        return 0

    def record(self, row: Mapping[str, Any]) -> int:
        self.rows.append(dict(row))
        return 0


def trainer_of(model: LatentModel, objective: Objective, batches: Any, every: int = 1, **options: Any) -> Watched:
    """The real trainer on one process, validated by nothing, its weights looked at after ``every`` steps."""
    witness, train = Witness(every), TrainOptions(**options)
    witness.follow(model)
    validation = Validation(-1.0, 0.1, "lower bound", 0.0, 1.0, 1)
    engine = Engine(torch.device("cpu"))
    trainer = Trainer(model, objective, Pathwise(), batches, train, engine, Diagnostics(lambda m: validation))
    witness.progress = trainer.progress
    return Watched(trainer, witness)
