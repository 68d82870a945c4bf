"""Draws that autograd can't follow: scored by an objective's signal, summed out, or left alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn
from torch.distributions import Distribution

from lambent.distributions.codes import CodeAssignment
from lambent.distributions.sampling import sample
from lambent.draws.base import Draw
from lambent.draws.baselines import LearnedBaseline, RunningMean, leave_one_out
from lambent.errors import CombinationError
from lambent.settings import Conflict, option, part
from lambent.trace import Latent


@part("draw", "detached")
@dataclass(frozen=True)
class Detached(Draw):
    """z ~ q without any gradient to q through it: for objectives that learn q otherwise (wake-sleep), and for use."""

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "sphere", "one-hot", "binary", "mixed")

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The draw, outside the graph."""
        assert posterior is not None
        value = sample(posterior, self.lead(posterior), self.generator)
        known = posterior.scores(prior, value) if isinstance(posterior, CodeAssignment) else {}
        return Latent(name, value, prior, posterior, known)


@part("draw", "score")
@dataclass(frozen=True)
class Score(Draw):
    """The score function estimator, REINFORCE (Williams 1992): unbiased for any q, discrete or not.

    The objective's signal, less a baseline, multiplies the gradient of log q (Mnih & Gregor 2014, section 2). Under a
    bound of several samples "leave-one-out" is VIMCO (Mnih & Rezende 2016, section 2.5): the bound with one weight
    replaced by the geometric mean of the others. All levels of a chain share one signal and one baseline: unbiased,
    with more noise than a signal for each level has.
    """

    kinds: ClassVar[tuple[str, ...]] = ("continuous", "sphere", "one-hot", "binary", "mixed")
    gradient: ClassVar[str] = "score"
    baseline: str = option(
        "learned",
        "baseline subtracted from the learning signal; leave-one-out needs samples >= 2",
        choices=("none", "running-mean", "leave-one-out", "learned"),
    )

    def conflicts(self, parts: Any) -> Conflict | None:
        """Leaving one sample out needs others."""
        if self.baseline != "leave-one-out" or self.samples >= 2:
            return None
        return Conflict((), "draw.baseline=leave-one-out needs draw.samples >= 2; use draw.baseline=learned")

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """The draw outside the graph, and its log density as score."""
        assert posterior is not None
        value = sample(posterior, self.lead(posterior), self.generator)
        log_q = posterior.log_prob(value)
        if self.baseline == "leave-one-out" and len(value) < 2:
            raise CombinationError(f"latent {name!r}: baseline=leave-one-out needs samples >= 2; use baseline=learned")
        advantage = {"none": None, "leave-one-out": leave_one_out}.get(self.baseline, self.control)
        return Latent(name, value, prior, posterior, {"log_q": log_q}, score=log_q, advantage=advantage)

    def parameters_for(self, latent: int, inputs: int) -> nn.Module | None:
        """The baseline, where it has a memory or parameters."""
        modules = {"running-mean": lambda: RunningMean(), "learned": lambda: LearnedBaseline(inputs)}
        return modules[self.baseline]() if self.baseline in modules else None

    def evaluating(self) -> Draw:
        """Draws without a gradient estimator."""
        return Detached(generator=self.generator)


@part("draw", "enumerate")
@dataclass(frozen=True)
class Enumerate(Draw):
    """Every value of a small discrete latent: K runs over the values, and averages over K are exact sums under q.

    Of several enumerated levels each takes its place in a mixed-radix count; ``places`` says how often a level's values
    repeat (each one in a row, all of them in turn), which the model fills in.
    """

    kinds: ClassVar[tuple[str, ...]] = ("one-hot", "binary")
    gradient: ClassVar[str] = "sum"
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    drawn: int = 1
    """How often each joint state occurs, so that other levels are drawn that often."""

    def conflicts(self, parts: Any) -> Conflict | None:
        """There is nothing to draw more than once."""
        if self.samples == 1:
            return None
        return Conflict((), "draw=enumerate takes every state once; leave draw.samples at 1")

    def draw(self, name: str, prior: Distribution, posterior: Distribution | None) -> Latent:
        """All values of the latent's support, each with its probability under q."""
        assert posterior is not None
        if not posterior.has_enumerate_support:
            raise CombinationError(
                f"latent {name!r}: {type(posterior).__name__} can't be enumerated; use draw=pathwise, stl or dreg"
            )
        if len(posterior.batch_shape) == 2 and name not in self.places:
            raise CombinationError(
                f"latent {name!r}: enumerated given another level, but its place among the states is unknown; give the "
                "model the states of every level, or use draw=score"
            )
        row, turns = self.places.get(name, (1, 1))
        repeats = self.drawn if name == next(iter(self.places), name) else 1
        values = posterior.enumerate_support(expand=False).repeat_interleave(row * self.drawn, 0)
        value = values.repeat(turns, *[1] * (values.dim() - 1))
        batch = posterior.batch_shape[-1]
        value = value.reshape(len(value), 1, *posterior.event_shape).expand(-1, batch, *posterior.event_shape)
        mass = posterior.log_prob(value)
        return Latent(
            name, value, prior, posterior, {"log_q": mass}, log_mass=mass - math.log(repeats), repeats=repeats
        )
