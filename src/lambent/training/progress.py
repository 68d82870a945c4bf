"""Where a training stands, and what its validation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lambent.training.schedule import Phase


@dataclass(frozen=True)
class Validation:
    """A bound on held-out data: mean over examples, nats; and the rate of each level where there are several."""

    bound: float
    se: float
    kind: str
    rate: float
    distortion: float
    n: int
    rates: Mapping[str, float] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """For a line of metrics."""
        found = asdict(self)
        if not self.rates:
            del found["rates"]
        return found


@dataclass
class Progress:
    """Where a training stands; all of it goes into the checkpoint.

    Attributes:
        outliers: Steps left out because their gradient was far longer than the median of those before them.
        norms: The latest gradient norms, oldest first, by the side that rested.
        low: The last validation's rate was under the alarm's.
        alarms: How often it fell under it.
        idle: Levels of several whose own rate fell under it, each warned of once.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    bound_sum: float = 0.0
    examples: int = 0
    best: float | None = None
    best_step: int = -1
    since_best: int = 0
    stopped: str = ""
    offset: int = 0
    low: bool = False
    alarms: int = 0
    idle: list[str] = field(default_factory=list)
    outliers: int = 0
    norms: dict[str, list[float]] = field(default_factory=dict)
    phase: Phase = field(default_factory=Phase)

    def to_state(self) -> dict[str, Any]:
        """The progress as plain values, as a checkpoint stores them."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """The progress that `to_state` wrote."""
        return cls(**{**state, "phase": Phase(**state.get("phase", {}))})
