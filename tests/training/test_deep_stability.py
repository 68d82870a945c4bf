"""Forty levels train on through faults: no weight ever breaks, no step is lost beyond the faulty ones, none freezes.

Every so many steps a fault is injected: NaN in the gradient, an infinite loss, a batch of huge values, a gradient
1,000,000 times as long as it is.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lambent.config import Config
from lambent.data.readers.digits import load_digits
from lambent.models import LatentModel
from lambent.recipes import configure
from lambent.shapes import Shapes
from lambent.training import loop
from lambent.training.loop import Trainer
from support.injected_faults import HUGE, INF, NAN, SPIKE, RowsWithHuge, faults, trainer_of
from support.listening import Watched

KINDS = (NAN, INF, HUGE, SPIKE)
BATCH = 20
LOOKS = 10
"""Times that weights are looked at, and the bound is logged, between two faults."""


@dataclass(frozen=True)
class Course:
    """A training of so many steps, with a fault in the middle of every ``every`` of them, the kinds in turn."""

    steps: int
    every: int

    @property
    def faults(self) -> dict[int, str]:
        return dict(zip(range(self.every // 2, self.steps, self.every), itertools.cycle(KINDS), strict=False))

    @property
    def stretch(self) -> int:
        return self.every // LOOKS


LONG, SHORT, SHALLOW = Course(20_000, 1000), Course(100, 25), Course(240, 60)


def config_of(model: str, levels: int) -> Config:
    common = ("posterior=residual-normal", "likelihood=normal", "likelihood.scale=model", "binarize=none")
    settings = {
        "ladder": (f"model.upper_latents={[2] * (levels - 1)}", "encoder.hidden=[16]", "decoder.hidden=[16]"),
        "image-ladder": (
            f"model.levels_per_scale=[{levels // 2},{levels - levels // 2}]",
            "encoder=conv",
            "decoder=conv",
            "encoder.channels=[4,4]",
            "decoder.channels=[4]",
            "encoder.smallest=4",
        ),
    }
    return configure("vae", tokens=(f"model={model}", "latent=2", *common, *settings[model]))


def system(model: str, levels: int) -> tuple[Config, LatentModel, Tensor]:
    """The configuration, the model at its start, and digits of unit scale."""
    config, event = config_of(model, levels), (1, 8, 8) if model == "image-ladder" else (64,)
    torch.manual_seed(0)
    x = load_digits("train").head(1400).x.float().view(-1, *event) / 8 - 1
    built = config.model.build(config, Shapes(event, config.model.latent))
    built.initialise(x)
    return config, built, x


def trained(course: Course, model: str, levels: int, kinds: Mapping[int, str], **options: float | None) -> Watched:
    config, built, x = system(model, levels)
    huge = frozenset(step for step, kind in kinds.items() if kind == HUGE)
    settings = {"lr": 1e-3, "grad_clip": 100.0, "grad_spike_factor": 10.0, "log_every": course.stretch, **options}
    objective = faults(kinds, config.objective)
    run = trainer_of(built, objective, RowsWithHuge(x, BATCH, huge), course.stretch, steps=course.steps, **settings)
    run.run()
    return run


def bounds_of(run: Watched, course: Course) -> list[tuple[float, float]]:
    """The bound of training batches from one fault to the next and its error, nats; faulty steps don't count."""
    rows = [row for row in run.listener.rows if "train" in row]
    edges = [0, *course.faults, course.steps]
    between = [[r["train"]["bound"] for r in rows if a < r["step"] <= b] for a, b in itertools.pairwise(edges)]
    return [(statistics.fmean(v), statistics.stdev(v) / math.sqrt(len(v))) for v in between]


def check(run: Watched, course: Course) -> None:
    """What must hold at the end of a training through faults."""
    weights = [*run.model.parameters()]
    moments = [t for p in weights for t in run.trainer.optimizer.state[p].values()]
    assert run.listener.broken == [], "a weight isn't finite"
    assert all(bool(torch.isfinite(t).all()) for t in [*weights, *moments]), "a moment isn't finite"
    assert min(run.listener.moved) > 0.2 * statistics.median(run.listener.moved), "the weights are frozen"
    assert run.listener.skipped == [step for step, kind in course.faults.items() if kind in (NAN, INF)]
    assert {step for step, kind in course.faults.items() if kind in (HUGE, SPIKE)} <= set(run.listener.outliers)
    assert len(run.listener.outliers) <= len(course.faults) / 2 + 0.03 * course.steps, "too many are left out"
    taken = course.steps - run.progress.skipped - run.progress.outliers
    assert {int(run.trainer.optimizer.state[p]["step"]) for p in weights if run.trainer.optimizer.state[p]} == {taken}
    check_rise(bounds_of(run, course))


def check_rise(found: list[tuple[float, float]]) -> None:
    """No stretch is below the one before it by more than chance, and each is above that before the last four faults."""
    steady = all(b >= a - 3 * math.hypot(e, f) for (a, e), (b, f) in itertools.pairwise(found))
    assert steady, f"the bound falls: {found}"
    assert all(b > a for (a, _), (b, _) in zip(found, found[len(KINDS) :], strict=False)), f"it doesn't rise: {found}"


@pytest.mark.parametrize(("model", "levels"), [("ladder", 40), ("image-ladder", 10)])
def test_many_levels_train_on_through_faults(model, levels):
    check(trained(SHORT, model, levels, SHORT.faults), SHORT)


def _always(self, total, norm):
    return True


def _fixed_threshold(norm, recent, above):
    return norm > 1.0


PLANTED = {
    "nothing is skipped that isn't finite": (Trainer, "_finite_and_clipped", _always, "isn't finite"),
    "a fixed threshold": (loop, "outlying", _fixed_threshold, "frozen"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_rules_that_would_break_or_freeze_it_are_caught(fault, monkeypatch):
    where, name, planted, said = PLANTED[fault]
    monkeypatch.setattr(where, name, planted)
    with pytest.raises(AssertionError, match=said):
        check(trained(SHALLOW, "ladder", 3, SHALLOW.faults), SHALLOW)


def test_without_any_rule_one_long_gradient_freezes_it():
    """Adam's mean square is 1e12 times what it was, and forgets half of that in 700 steps."""
    with pytest.raises(AssertionError, match="frozen"):
        check(trained(SHALLOW, "ladder", 3, {100: SPIKE}, grad_spike_factor=None, grad_clip=None), SHALLOW)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("model", ["ladder", "image-ladder"])
def test_forty_levels_train_for_20_000_steps_with_a_fault_every_1000(model):
    run = trained(LONG, model, 40, LONG.faults, lr=1e-4)
    report(run, model)
    check(run, LONG)


def report(run: Watched, model: str) -> None:
    bounds, moved, progress = bounds_of(run, LONG), run.listener.moved, run.progress
    print(f"\n{model}: {sum(p.numel() for p in run.model.parameters())} parameters, 40 levels, {progress.step} steps")
    own = [step for step in run.listener.outliers if step not in LONG.faults]
    print(f"not finite: {progress.skipped} steps, outliers: {progress.outliers}, of which not injected: {own}")
    print(f"movement in {LONG.stretch} steps: least {min(moved):.3f}, median {statistics.median(moved):.3f}")
    print("bound between faults, nats:", ", ".join(f"{value:.2f}" for value, _ in bounds))
