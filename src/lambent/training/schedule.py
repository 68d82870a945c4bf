"""Who is updated when: at each training step one side of the model may be frozen.

The critic and control parameters ("critic", "control") are updated at every step, with whatever is. What a schedule
must remember between steps is a `Phase`, which goes into the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lambent.settings import Part, option, part

GENERATIVE, INFERENCE = "generative", "inference"
SIDES = (GENERATIVE, INFERENCE)

Measured = Callable[[], tuple[float, int]]
"""The sum of a step's bounds over its examples (nats), and their number, over all processes."""


@dataclass(frozen=True)
class Phase:
    """Where a schedule that looks at the training's own numbers stands.

    Attributes:
        leading: The encoder is still trained first.
        inner: Encoder steps since the last generative step.
        total: Sum of the bounds in the unfinished window, nats.
        examples: Examples in it.
        last: Mean bound of the window before, nats (of `ClosedFormEM`: of the step before).
        ready: The encoder has caught up: the next step is the generative side's.
        outer: Generative steps done while leading.
        information: The largest mutual information measured, nats.
    """

    leading: bool = True
    inner: int = 0
    total: float = 0.0
    examples: int = 0
    last: float | None = None
    ready: bool = False
    outer: int = 0
    information: float | None = None


class UpdateSchedule(Part):
    """Settings of a schedule; pure functions of the step and the `Phase`."""

    closed_form: ClassVar[bool] = False
    """Steps are solved, not descended: no gradients, and the whole training set a batch."""
    two_sided: ClassVar[bool] = False
    """It needs an encoder with parameters, and both sides to be free."""
    informed: ClassVar[bool] = False
    """It asks for the mutual information I_q(x;z)."""
    staged: ClassVar[bool] = False
    """It trains twice: the autoencoder under a simple prior, then the prior."""

    def frozen_group(self, step: int, phase: Phase) -> str | None:
        """The parameter group that is not updated at ``step``; None where all are."""
        return None

    def after(self, phase: Phase, measured: Measured) -> Phase:
        """The phase after a step that was taken; ``measured`` costs a reduction, so only who needs it calls it."""
        return phase

    def due(self, phase: Phase, epoch: int) -> bool:
        """Whether the mutual information is to be measured after this step; ``epoch`` is its number of steps."""
        return False

    def with_information(self, phase: Phase, information: float) -> Phase:
        """The phase after ``information`` nats were measured."""
        return phase

    def report(self, phase: Phase) -> dict[str, Any]:
        """What a line of metrics adds."""
        return {}


@part("schedule", "joint")
@dataclass(frozen=True)
class JointUpdates(UpdateSchedule):
    """Every group at every step."""


@part("schedule", "alternating")
@dataclass(frozen=True)
class AlternatingUpdates(UpdateSchedule):
    """Some steps of the generative side, then some of the inference side, and again.

    With an ELBO this is EM by gradients (Neal & Hinton 1998, eq. 11: M step, E step); with wake-sleep it is wake and
    sleep in turn.

    >>> [AlternatingUpdates(generative=2).frozen_group(step, Phase()) for step in range(4)]
    ['inference', 'inference', 'generative', 'inference']
    """

    two_sided: ClassVar[bool] = True
    generative: int = option(1, "consecutive training steps of the generative side", minimum=1)
    inference: int = option(1, "consecutive training steps of the inference side", minimum=1)

    def frozen_group(self, step: int, phase: Phase) -> str:
        """The other side than the one whose turn it is."""
        return INFERENCE if step % (self.generative + self.inference) < self.generative else GENERATIVE


@part("schedule", "aggressive-encoder")
@dataclass(frozen=True)
class AggressiveEncoder(UpdateSchedule):
    """The encoder alone until the bound stops rising, then one generative step (He et al. 2019, ICLR, algorithm 1).

    The bound is averaged over windows of encoder steps; one that is not above the window before ends the inner loop.
    Once the mutual information I_q(x;z) on validation data has stopped rising, both sides are updated together for
    good. Every encoder step is a training step, so that ``train.epochs`` counts the passes of both loops.
    """

    two_sided: ClassVar[bool] = True
    informed: ClassVar[bool] = True
    window: int = option(10, "encoder steps over which the bound is averaged", minimum=1)
    inner_steps: int = option(100, "at most this many encoder steps before each generative step", minimum=1)
    measure_every: int | None = option(
        None, "generative steps between estimates of the mutual information; none: one epoch of them", minimum=1
    )

    def frozen_group(self, step: int, phase: Phase) -> str | None:
        """The generative side while the encoder catches up, then the inference side for one step."""
        if not phase.leading:
            return None
        return INFERENCE if phase.ready else GENERATIVE

    def after(self, phase: Phase, measured: Measured) -> Phase:
        """Counts the step, and closes the window where it is full."""
        if not phase.leading:
            return phase
        if phase.ready:
            return Phase(outer=phase.outer + 1, information=phase.information)
        total, examples = measured()
        counted = replace(phase, inner=phase.inner + 1, total=phase.total + total, examples=phase.examples + examples)
        closed = self._closed(counted) if counted.inner % self.window == 0 else counted
        return replace(closed, ready=True) if closed.inner >= self.inner_steps else closed

    @staticmethod
    def _closed(phase: Phase) -> Phase:
        mean = phase.total / phase.examples if phase.examples else float("-inf")
        stopped = phase.last is not None and not mean > phase.last
        return replace(phase, total=0.0, examples=0, last=mean, ready=stopped)

    def due(self, phase: Phase, epoch: int) -> bool:
        """After the last generative step of each ``measure_every``."""
        fresh = phase.leading and phase.inner == 0 and phase.outer > 0
        return fresh and phase.outer % (self.measure_every or epoch) == 0

    def with_information(self, phase: Phase, information: float) -> Phase:
        """Leads on only as long as the mutual information rises."""
        risen = phase.information is None or information > phase.information
        best = information if risen else phase.information
        return replace(phase, leading=risen, information=best)

    def report(self, phase: Phase) -> dict[str, Any]:
        """Whether the encoder leads, its generative steps so far, and the mutual information measured last."""
        measured = {} if phase.information is None else {"information": phase.information}
        return {"schedule": {"leading": phase.leading, "generative": phase.outer, **measured}}


@part("schedule", "em")
@dataclass(frozen=True)
class ClosedFormEM(UpdateSchedule):
    """One EM iteration on the whole training set a step, both sides in closed form: no gradients, no optimiser.

    The mean log p(x) of the training set is held to its theorem: a step that lowers it is an error.
    """

    closed_form: ClassVar[bool] = True


@part("schedule", "two-stage")
@dataclass(frozen=True)
class TwoStage(UpdateSchedule):
    """The autoencoder first, under a simple prior; then the prior on draws of q(z|x), the autoencoder frozen.

    The first stage is a run of its own, in the folder ``autoencoder`` of the run, and is trained as the second is but
    for ``autoencoder_epochs``. The second maximises the ELBO itself, whatever the rate function. A prior that has
    nothing to learn, or is the first stage's, makes one stage.
    """

    staged: ClassVar[bool] = True
    autoencoder_epochs: int | None = option(
        None, "passes over the training set in the first stage; none: as many as in the second", minimum=1
    )
    autoencoder_prior: str | None = option(
        None, "prior of the first stage, with default settings; none: normal, or uniform over codes"
    )
