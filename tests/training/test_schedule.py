"""Who is updated when: exactly which parameters move at which step, and what the schedules decide."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

import lambent
import lambent.training.em.em as closed_form
import lambent.training.freeze as freeze
from lambent.errors import CombinationError, ConfigError, NumericsError
from lambent.models import Mixture
from lambent.storage.metrics import read_metrics
from lambent.training.loop import Trainer
from lambent.training.progress import Progress
from lambent.training.schedule import (
    AggressiveEncoder,
    AlternatingUpdates,
    ClosedFormEM,
    JointUpdates,
    Phase,
    UpdateSchedule,
)
from support.update_checks import X, alternates, encoder_leads, holds, model_of, together_is_plain, trained


class WholeOptimizer(Trainer):
    """A fault: all of the model in the optimiser, with a gradient of 0 where there is none."""

    def __post_init__(self):
        super().__post_init__()
        known = {id(p) for p in self.groups["all"]}
        self.optimizer.param_groups[0]["params"] += [p for p in self.model.parameters() if id(p) not in known]

    def _differentiate(self, *arguments):
        total = super()._differentiate(*arguments)
        for parameter in self.optimizer.param_groups[0]["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return total


def test_together_updates_everything_as_the_plain_loop():
    together_is_plain()


@pytest.mark.parametrize(("generative", "inference"), [(1, 1), (2, 3)])
def test_alternate_takes_turns_to_the_last_bit_of_the_loop_written_out(generative, inference):
    alternates(generative, inference)


def test_the_encoder_leads_until_its_information_stops_rising():
    encoder_leads()


@pytest.mark.parametrize("side", ["generative", "inference"])
def test_a_frozen_side_keeps_its_bits(side):
    holds(side)


@pytest.mark.parametrize(
    "check", [alternates, lambda cls: holds("generative", cls), lambda cls: holds("inference", cls)]
)
def test_weight_decay_on_the_resting_side_would_be_caught(check):
    with pytest.raises(AssertionError):
        check(cls=WholeOptimizer)


def test_an_encoder_first_that_moves_the_decoder_in_inner_steps_would_be_caught():
    class Eager(AggressiveEncoder):
        def frozen_group(self, step, phase):
            return "inference" if phase.leading and phase.ready else None

    with pytest.raises(AssertionError):
        encoder_leads(Eager(window=2, inner_steps=4, measure_every=2))


def test_batch_norm_that_keeps_learning_on_the_frozen_side_would_be_caught(monkeypatch):
    monkeypatch.setattr(freeze, "modules_of", lambda model, parameters: [])
    with pytest.raises(AssertionError, match="running_mean"):
        holds("generative")


def algorithm_1(updates: AggressiveEncoder, bounds, informations, epoch):
    """He et al. 2019, algorithm 1, as nested loops: which side each step trains, "" for both."""
    bounds, informations, best, outer = iter(bounds), iter(informations), None, 0
    try:
        while True:
            inner, last = 0, None
            while inner < updates.inner_steps:
                window = []
                while len(window) < updates.window and inner < updates.inner_steps:
                    window.append(next(bounds))
                    yield "inference"
                    inner += 1
                if len(window) < updates.window:
                    break
                mean = sum(t for t, _ in window) / sum(n for _, n in window)
                if last is not None and mean <= last:
                    break
                last = mean
            next(bounds)
            yield "generative"
            outer += 1
            if outer % (updates.measure_every or epoch) == 0:
                found = next(informations)
                if best is not None and found <= best:
                    break
                best = found
        while True:
            next(bounds)
            yield ""
    except StopIteration:
        return


def played(updates: UpdateSchedule, bounds, informations, epoch):
    """The turns that the schedule takes on the same numbers."""
    phase, told = Phase(), iter(informations)
    for step, bound in enumerate(bounds):
        resting = updates.frozen_group(step, phase)
        yield {"generative": "inference", "inference": "generative", None: ""}[resting]
        phase = updates.after(phase, lambda bound=bound: bound)
        if updates.due(phase, epoch):
            phase = updates.with_information(phase, next(told))


def scripts(seed):
    chance = random.Random(seed)
    updates = AggressiveEncoder(chance.randint(1, 4), chance.randint(1, 12), chance.choice([None, 1, 2, 5]))
    sizes = [chance.choice([12, 7]) for _ in range(400)]
    bounds = [(n * (chance.choice([0.0, 1.0, i / 40]) - 3.0), n) for i, n in enumerate(sizes)]
    informations = [chance.choice([0.2, 0.5]) + i / 5 for i in range(400)]
    return updates, bounds, informations, chance.randint(1, 6)


def test_the_state_machine_is_algorithm_1_on_scripted_bounds():
    seen = set()
    for seed in range(200):
        script = scripts(seed)
        expected, found = list(algorithm_1(*script)), list(played(*script))
        assert found == expected, f"script {seed}: {script[0]}"
        seen.add((len(expected), "" in expected))
    assert {off for _, off in seen} == {True, False}


def test_a_window_that_is_not_averaged_over_examples_would_be_caught(monkeypatch):
    real = AggressiveEncoder.after
    monkeypatch.setattr(
        AggressiveEncoder, "after", lambda self, phase, measured: real(self, phase, lambda: (measured()[0], 1))
    )
    assert any(list(algorithm_1(*script)) != list(played(*script)) for script in map(scripts, range(200)))


def test_what_has_nothing_to_train_is_refused():
    with pytest.raises(CombinationError, match="inference side has nothing to train"):
        trained(AlternatingUpdates(), 1, freeze="inference")
    still = model_of().requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        trained(JointUpdates(), 1, model=still)


def test_em_takes_the_whole_set_only():
    with pytest.raises(CombinationError, match="schedule=em"):
        trained(ClosedFormEM(), 1)


def test_progress_survives_the_checkpoint():
    progress = Progress(step=3, phase=Phase(inner=4, total=-2.5, examples=9, last=-0.1, outer=2, information=0.25))
    assert Progress.from_state(progress.to_state()) == progress
    state = progress.to_state()
    del state["phase"]
    assert Progress.from_state(state) == replace(progress, phase=Phase())


def test_em_never_lowers_the_likelihood_and_a_step_that_does_is_an_error(monkeypatch):
    settings = {"latent": 3, "epochs": 6, "quiet": True, "train__validate_every": 2}
    run = lambent.fit("em-gmm", X.numpy(), **settings)
    values = [row["train"]["bound"] for row in run.history if "train" in row]
    assert len(values) == 6
    assert values == sorted(values)
    assert {row["train"]["kind"] for row in run.history if "train" in row} == {"exact"}
    real = closed_form.maximise

    def worse(model, x, condition):
        found = real(model, x, condition)
        with torch.no_grad():
            model.likelihood.decoder.affine.bias.add_(0.5)
        return found

    monkeypatch.setattr(closed_form, "maximise", worse)
    with pytest.raises(NumericsError, match="EM lowered"):
        lambent.fit("em-gmm", X.numpy(), **settings)
    with pytest.raises(ConfigError, match="batch_size"):
        lambent.fit("em-gmm", X.numpy(), batch_size=10, **settings)


def test_what_em_logs_is_summed_over_stretches_of_the_training_set(monkeypatch, tmp_path):
    """Rate and distortion of all examples, few held at a time."""
    x, found, sizes = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), [], []
    forward = Mixture.forward
    monkeypatch.setattr(Mixture, "forward", lambda self, x, *rest: sizes.append(len(x)) or forward(self, x, *rest))
    for stretch in (1000, 6):
        monkeypatch.setattr("lambent.training.loop.STRETCH", stretch)
        sizes.clear()
        out = tmp_path / str(stretch)
        lambent.fit("em-gmm", x, valid=x[:2], out=out, latent=3, epochs=3, batch_size=20, quiet=True)
        found.append([row["train"] for row in read_metrics(out / "metrics.jsonl") if "train" in row])
    assert max(sizes) == 6
    assert [row["kind"] for row in found[0]] == ["exact"] * 3
    for whole, parts in zip(*found, strict=True):
        for name in ("bound", "rate", "distortion"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-6)
        assert whole["bound"] == pytest.approx(-whole["rate"] - whole["distortion"], rel=1e-5)
