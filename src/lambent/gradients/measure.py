"""Gradient estimators compared on one batch: bias, variance and cost.

Each estimator's gradient is taken many times on the same examples with fresh noise. Nothing is trained but what an
estimator learns for itself (a baseline, a control variate), and that first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lambent.draws import Draw
from lambent.errors import ConfigError
from lambent.gradients.moments import Bias, MeanVector, Moments
from lambent.models import LatentModel
from lambent.objectives import Objective
from lambent.seeds import derive
from lambent.storage.json import to_json

Examples = tuple[Tensor, Tensor | None]
Batches = Callable[[int], Examples]
"""Examples and their conditions: number 0 is measured, the others fit what estimators learn for themselves."""
SIDES = ("inference", "generative")
LEAST = 8
"""Repetitions that every figure needs."""


@dataclass(frozen=True, eq=False)
class Estimator:
    """One way to a gradient.

    Attributes:
        name: In the table.
        draw: How the latents are drawn.
        objective: What makes losses of the trace.
        states: Why it is biased, as it says itself; empty if it claims not to be.
        control: What it learns for itself; None if nothing.
    """

    name: str
    draw: Draw
    objective: Objective
    states: str = ""
    control: nn.Module | None = None


@dataclass(frozen=True)
class Row:
    """One estimator's gradient of one side's parameters.

    Attributes:
        name: The estimator.
        side: "inference" (q's parameters) or "generative" (p's).
        stated: Why it says it is biased; empty if it claims not to be.
        variance: Sum over parameters of the gradient's variance, (nats per parameter's unit)^2.
        log_variance: Logarithm of the mean variance of a parameter, as Tucker et al. 2017 and Grathwohl et al. 2018
            plot; -inf for an exact gradient.
        bias: Against the reference; None for the reference itself where it is exact.
        ms: Time of a gradient of all parameters, milliseconds: the fastest of 20, so that other work counts least.
    """

    name: str
    side: str
    stated: str
    variance: float
    log_variance: float
    bias: Bias | None
    ms: float


@dataclass(frozen=True)
class Comparison:
    """Rows, and what they were measured on.

    Attributes:
        rows: One an estimator and side.
        reference: The estimator that bias is measured against.
        exact: Whether its gradient has no noise; else the reference is the mean of ``reference_repetitions``.
        reference_repetitions: 1 if exact.
        reference_error: By side, the standard error of the reference relative to its length.
        parameters: By side, how many.
        examples: Size of the batch.
        samples: K.
        repetitions: Gradients of each estimator.
        warm_up: Steps that baselines and control variates were fitted for.
        title: Model and data in words.
        refused: Why the other draws don't go with this model, by name.
    """

    rows: tuple[Row, ...]
    reference: str
    exact: bool
    reference_repetitions: int
    reference_error: Mapping[str, float]
    parameters: Mapping[str, int]
    examples: int
    samples: int
    repetitions: int
    warm_up: int
    title: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    def side(self, name: str) -> list[Row]:
        """The rows of one side."""
        return [row for row in self.rows if row.side == name]

    def to_dict(self) -> dict[str, Any]:
        """As JSON wants it: what is not finite is text."""
        return dict(to_json(asdict(self), "comparison"))


def gradient(model: LatentModel, estimator: Estimator, x: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
    """One noisy gradient of the mean loss over the batch, flat, by parameter group; noise from torch's global state.

    The model must have the estimator's ``control``; `controlled` sees to that.
    """
    trace, seen = estimator.objective.observe(model, x, estimator.draw, condition)
    losses = list(estimator.objective(trace, seen).losses.items())
    groups = {name: [p for p in params if p.requires_grad] for name, params in model.groups().items()}
    found: dict[nn.Parameter, Tensor | None] = {}
    for i, (name, loss) in enumerate(losses):
        params = [p for group in groups.values() for p in group] if name == "all" else groups.get(name, [])
        if params and loss.requires_grad:
            kept = i + 1 < len(losses)
            grads = torch.autograd.grad(loss, params, retain_graph=kept, allow_unused=True)
            found.update(zip(params, grads, strict=True))
    return {name: _flat(params, found) for name, params in groups.items() if params}


def _flat(params: list[nn.Parameter], found: Mapping[nn.Parameter, Tensor | None]) -> Tensor:
    grads = [found.get(p) for p in params]
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
    return torch.cat([part.flatten() for part in parts])


@contextlib.contextmanager
def controlled(model: LatentModel, control: nn.Module | None) -> Iterator[None]:
    """The model, in training mode, with another draw's own parameters for the time of a block."""
    before, was = model.control, [(module, module.training) for module in model.modules()]
    model.train()
    model.control = control
    try:
        yield
    finally:
        model.control = before
        for module, training in was:
            module.training = training


def fit_control(model: LatentModel, estimator: Estimator, batches: Batches, *, steps: int, lr: float) -> None:
    """Fits what the estimator learns for itself by Adam on batches 1, 2, ..., the model held; then holds that too."""
    control = estimator.control
    if control is None:
        return
    params = list(control.parameters())
    optimizer = torch.optim.Adam(params, lr=lr) if params else None
    control.train()
    for step in range(steps):
        x, condition = batches(step + 1)
        trace, seen = estimator.objective.observe(model, x, estimator.draw, condition)
        losses = estimator.objective(trace, seen).losses
        if optimizer is not None:
            loss = losses["control"] if "control" in losses else losses["all"]
            grads = torch.autograd.grad(loss, params, allow_unused=True)
            for parameter, grad in zip(params, grads, strict=True):
                parameter.grad = grad
            optimizer.step()
    control.eval()  # a running mean would go on learning, and repetitions must be independent


def compare(
    model: LatentModel,
    estimators: Sequence[Estimator],
    trusted: Sequence[Estimator],
    batches: Batches,
    *,
    repetitions: int = 500,
    warm_up: int = 500,
    lr: float = 1e-3,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Bias, variance and cost of the estimators' gradients on ``batches(0)``.

    Their means are compared with that of the ``trusted`` estimator of least variance in a short trial: with its one
    gradient where that has no noise (enumeration), else with the mean of 4 times as many as of the others.

    Args:
        model: Left as it was.
        estimators: What to compare.
        trusted: Unbiased estimators; those that are in ``estimators`` too are fitted once.
        batches: Examples by number.
        repetitions: Gradients of each, at least 8.
        warm_up: Steps to fit baselines and control variates, at learning rate ``lr``.
        lr: Of that.
        seed: Of the noise.
        say: Told of each estimator that is done.

    Raises:
        ConfigError: too few repetitions.
    """
    if repetitions < LEAST:
        raise ConfigError(f"repetitions={repetitions}: variances need at least {LEAST}; use {LEAST} or more")
    examples = batches(0)
    device = examples[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for i, estimator in enumerate({id(e): e for e in (*trusted, *estimators)}.values()):
            torch.manual_seed(derive(seed, "gradient warm-up", i))
            with controlled(model, estimator.control):
                fit_control(model, estimator, batches, steps=warm_up, lr=lr)
        torch.manual_seed(derive(seed, "gradient reference"))
        name, means, count = _reference(model, trusted, examples, 4 * repetitions)
        say(f"reference: {name}, {count:,} {'gradient' if count == 1 else 'gradients'}")
        times = cost(model, estimators, *examples)
        rows: list[Row] = []
        for i, estimator in enumerate(estimators):
            torch.manual_seed(derive(seed, "gradient repetitions", i))
            moments = _moments(model, estimator, examples, repetitions, means)
            rows += _rows(estimator, moments, means, times[i], torch.finfo(_dtype(model)).eps)
            say(f"{i + 1} of {len(estimators)}: {estimator.name}")
    return Comparison(
        tuple(sorted(rows, key=lambda row: SIDES.index(row.side))),
        name,
        exact=count == 1,
        reference_repetitions=count,
        reference_error={side: _ratio(math.sqrt(mean.error), mean.length) for side, mean in means.items()},
        parameters={side: mean.value.numel() for side, mean in means.items()},
        examples=len(examples[0]),
        samples=max(estimator.draw.samples for estimator in estimators),
        repetitions=repetitions,
        warm_up=warm_up,
    )


def _ratio(error: float, length: float) -> float:
    return error / length if length else math.nan


def _dtype(model: LatentModel) -> torch.dtype:
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _sides(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {side: found[side] for side in SIDES if side in found}


def _reference(
    model: LatentModel, trusted: Sequence[Estimator], examples: Examples, repetitions: int
) -> tuple[str, dict[str, MeanVector], int]:
    """Who gave it, the mean gradient by side, and of how many: one, where a second is the same."""
    trials = [(_moments(model, e, examples, LEAST, {}), e) for e in trusted]
    moments, best = min(trials, key=lambda trial: float(next(iter(trial[0].values())).variance.sum()))
    if all(not bool(found.variance.any()) for found in moments.values()):
        return best.name, {side: MeanVector(found.mean) for side, found in moments.items()}, 1
    moments = _moments(model, best, examples, repetitions, {})
    return best.name, {side: found.average for side, found in moments.items()}, repetitions


def _moments(
    model: LatentModel,
    estimator: Estimator,
    examples: Examples,
    repetitions: int,
    references: Mapping[str, MeanVector],
) -> dict[str, Moments]:
    """Of the estimator's gradient, by side; the second half watches the distance that the first half found."""
    found = {side: Moments() for side in SIDES}
    with controlled(model, estimator.control):
        for i in range(repetitions):
            if i == repetitions // 2:
                for side, mean in references.items():
                    found[side].look_along(mean)
            for side, vector in _sides(gradient(model, estimator, *examples)).items():
                found[side].add(vector)
    return {side: moments for side, moments in found.items() if moments.count}


def _rows(
    estimator: Estimator, moments: Mapping[str, Moments], references: Mapping[str, MeanVector], ms: float, eps: float
) -> list[Row]:
    rows = []
    for side, found in moments.items():
        variance = float(found.variance.sum())
        mean = variance / found.mean.numel()
        log_variance = math.log(mean) if mean > 0 else -math.inf
        bias = Bias.of(found, references[side], eps)
        rows.append(Row(estimator.name, side, estimator.states, variance, log_variance, bias, ms))
    return rows


def cost(
    model: LatentModel, estimators: Sequence[Estimator], x: Tensor, condition: Tensor | None, *, rounds: int = 20
) -> list[float]:
    """Milliseconds of a gradient of all parameters: the fastest of ``rounds``, in which the estimators take turns."""
    times: list[list[float]] = [[] for _ in estimators]
    for _ in range(rounds + 1):
        for estimator, own in zip(estimators, times, strict=True):
            with controlled(model, estimator.control):
                own.append(_seconds(partial(gradient, model, estimator, x, condition), x.device))
    return [1000 * min(own[1:]) for own in times]


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start
