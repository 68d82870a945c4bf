"""What a training loop takes beside its model and data: what it measures, and who is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from lambent.models import LatentModel
from lambent.training.collapse_monitor import CollapseMonitor
from lambent.training.progress import Progress, Validation


class TrainingBatches(Protocol):
    """What the loop asks of the data."""

    steps_per_epoch: int

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """This process's part of the batch of ``step``, and its conditions."""

    def fraction(self, step: int) -> float:
        """What this process's part is of the whole batch; 0 where it only fills a place."""

    def global_size(self, step: int) -> int:
        """Examples in that batch over all processes."""


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What a training measures beside its loss.

    Attributes:
        validate: The bound on validation data.
        information: I_q(x;z) on validation data, nats, for schedules that ask for it.
        collapse: Measures and warnings of posterior collapse.
    """

    validate: Callable[[LatentModel], Validation]
    information: Callable[[LatentModel], float] | None = None
    collapse: CollapseMonitor = field(default_factory=CollapseMonitor)


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a checkpoint holds of a training.

    Attributes:
        progress: Steps, best validation, and everything else that isn't a tensor.
        tensors: Tensors by name, of the "model", the "optimizer" and, where weights are averaged, the "ema".
    """

    progress: Progress
    tensors: Mapping[str, Mapping[str, Tensor]]


class Listener:
    """What a training loop calls as it goes; by default nothing is kept, said or stopped."""

    def record(self, row: Mapping[str, Any]) -> int:
        """Takes a line of metrics; returns the length of their file after it."""
        return 0

    def improved(self, step: int, model: LatentModel) -> None:
        """Sees the model that validated best so far, at ``step``; called before the validation is recorded."""

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint of the training's state."""

    def warn(self, text: str) -> None:
        """Passes on a warning."""

    def interrupted(self) -> int:
        """The signal that asked for a stop; 0 if none did."""
        return 0
