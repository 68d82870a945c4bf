"""What every objective is: a pure function of a trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor

from lambent.draws import Draw
from lambent.errors import CombinationError
from lambent.models import LatentModel
from lambent.objectives.rates import RateFunction, SumOfRates
from lambent.objectives.score_function import Losses
from lambent.settings import Part
from lambent.trace import Estimate, Trace


class Objective(Part, ABC):
    """``objective(trace, x) -> Estimate``; frozen, without state.

    Attributes:
        needs_weights: It uses log w, so every level needs a proper prior and posterior.
        multi_sample: It is a bound of several samples together, not a mean of bounds of one.
        gradients: The kinds of draws (`Draw.learning`) it can learn from.
        without_data: It is judged on samples of the model alone, not on data.
        bias: Why its own gradient is biased, whatever the draw; empty if it is not.
    """

    needs_weights: ClassVar[bool] = False
    multi_sample: ClassVar[bool] = False
    gradients: ClassVar[tuple[str, ...]] = ("path",)
    bias: ClassVar[str] = ""
    without_data: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, trace: Trace, x: Tensor) -> Estimate:
        """The bound and the losses that raise it."""

    def observe(
        self, model: LatentModel, x: Tensor, draw: Draw, condition: Tensor | None = None
    ) -> tuple[Trace, Tensor]:
        """The trace to be judged and the x it is judged on: the model run on the batch.

        An objective on samples of the model (the sleep phase) runs the model on what it generates itself.
        """
        return model(x, draw, condition), x

    def with_rate(self, rate: RateFunction) -> Self:
        """The same objective of modified rates; refused where only the plain sum has a meaning."""
        if isinstance(rate, SumOfRates):
            return self
        name = type(self).__name__
        raise CombinationError(f"objective {name} has no rate to modify; use objective=elbo, or rate=sum")

    def at(self, step: int) -> Self:
        """The objective in force at training step ``step`` (warm-up, annealed capacity)."""
        return self

    def sized(self, n: int) -> Self:
        """The objective that knows the training set to have ``n`` examples (estimates of q(z) need it)."""
        return self


def penalised(losses: Losses, trace: Trace) -> Losses:
    """The losses with the trace's penalties (which may concern p or q), and those of the penalties' critics."""
    if not trace.penalties:
        return {**losses, **critic_losses(trace)}
    penalty = total_penalty(trace)
    found = {group: loss if group == "control" else loss + penalty for group, loss in losses.items()}
    return {**found, **critic_losses(trace)}


def total_penalty(trace: Trace) -> Tensor | float:
    """Sum of the penalties' means, over draws as the trace averages them, and over examples."""
    return sum((_mean(trace, penalty) for penalty in trace.penalties.values()), 0.0)


def _mean(trace: Trace, penalty: Tensor) -> Tensor:
    return trace.average(penalty).mean() if penalty.dim() == 2 else penalty.mean()


def critic_losses(trace: Trace) -> dict[str, Tensor]:
    """The loss of group "critic", where a penalty has one to train; every objective adds it to its own losses."""
    return {"critic": torch.stack(list(trace.critics.values())).sum()} if trace.critics else {}


def detach(value: Tensor) -> Tensor:
    """``value`` outside the graph, in at least float32."""
    return value.detach() if value.dtype == torch.float64 else value.detach().float()
