"""Steps left out because of their gradient's length: only those, never for long, and the same after a resume."""

import json
import math
import statistics

import pytest
import torch

import lambent
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.models import VAE
from lambent.networks import MLPDecoder, MLPEncoder
from lambent.objectives import ELBO
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes
from lambent.training import gradients, loop
from lambent.training.gradients import FEWEST, WINDOW, outlying
from lambent.training.progress import Progress
from lambent.training.schedule import AlternatingUpdates
from support.batches import Rows
from support.injected_faults import Faulty, trainer_of

STEPS = 240


def model():
    torch.manual_seed(0)
    posterior = AmortisedPosteriorModule(NormalPosterior(), MLPEncoder((5,)).build((6,)), 2)
    return VAE(
        NormalPriorModule(2),
        posterior,
        LikelihoodModule(NormalLikelihood(), MLPDecoder((5,)).build(2, (1, 6)), Shapes((6,), 2)),
    )


def rows():
    return Rows(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), 4)


def trained(objective, **options):
    run = trainer_of(model(), objective, rows(), **{"steps": STEPS, "lr": 1e-3, "log_every": 10, **options})
    run.run()
    return run


def left_out(run):
    """Steps that moved no weight."""
    return [step for step, moved in enumerate(run.listener.moved) if moved == 0]


def check_spikes():
    run = trained(Faulty(gradients={5: 1e6, 60: 1e6, 130: 1e6, 131: 100.0}), grad_spike_factor=10.0)
    assert left_out(run) == [60, 130, 131]  # step 5 is among the first, of which none is left out
    assert (run.progress.outliers, run.progress.skipped) == (3, 0)
    assert run.listener.rows[-2]["outliers"] == 3
    assert len(run.progress.norms[""]) == WINDOW


def check_jump(jump=100):
    """The gradient is 1000 times as long from a step on: it goes on when half of the norms are of the new scale."""
    run = trained(Faulty(always=1000.0, since=jump), grad_spike_factor=10.0)
    waiting = range(max(jump, FEWEST), jump + min(jump, WINDOW // 2))
    assert left_out(run) == list(waiting)
    assert run.progress.outliers == len(waiting)


def test_a_spike_is_left_out_and_counted():
    check_spikes()


@pytest.mark.parametrize("jump", [0, 10, 19, 20, 33, 60, 100, 170])
def test_a_jump_for_good_does_not_freeze_the_training(jump):
    check_jump(jump)


def _fixed_threshold(norm, recent, above):
    """The rule of a widespread implementation: a norm that once was large."""
    recent.append(norm)
    return norm > 400.0


def _only_taken(norm, recent, above):
    median = statistics.median_high(recent) if len(recent) >= FEWEST else math.inf
    if norm <= above * median:
        recent.append(norm)
        del recent[:-WINDOW]
    return norm > above * median


def _never(norm, recent, above):
    recent.append(norm)
    del recent[:-WINDOW]
    return False


def _mean_for_median(norm, recent, above):
    mean = statistics.fmean(recent) if len(recent) >= FEWEST else math.inf
    recent.append(norm)
    del recent[:-WINDOW]
    return norm > above * mean


FAULTS = {
    "a fixed threshold": (_fixed_threshold, check_jump),
    "only norms of steps taken": (_only_taken, check_jump),
    "none is left out": (_never, check_spikes),
    "the mean, which a spike moves": (_mean_for_median, check_spikes),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault, monkeypatch):
    rule, check = FAULTS[fault]
    monkeypatch.setattr(loop, "outlying", rule)
    with pytest.raises(AssertionError):
        check()


def test_a_fixed_threshold_freezes_for_ever(monkeypatch):
    monkeypatch.setattr(loop, "outlying", _fixed_threshold)
    run = trained(Faulty(always=1000.0, since=100), grad_spike_factor=10.0)
    assert left_out(run) == list(range(100, STEPS))


@pytest.mark.parametrize("seed", range(5))
def test_no_step_of_an_unchanging_scale_waits_longer_than_half_a_window(seed):
    """From any past, also of zeros, once norms stay within the factor of each other."""
    noise = torch.Generator().manual_seed(seed)
    past = (10 ** (6 * torch.randn(int(200 * torch.rand(1, generator=noise)), generator=noise))).tolist()
    recent = []
    for norm in [*past, *[0.0] * seed]:
        outlying(norm, recent, 10.0)
    new = (1e3 * (1 + 8 * torch.rand(200, generator=noise))).tolist()
    found = [outlying(norm, recent, 10.0) for norm in new]
    assert not any(found[WINDOW // 2 :])


def test_steps_that_are_not_finite_are_counted_apart_and_leave_no_norm():
    bad = {60: math.nan, 61: math.inf, 90: math.nan}
    run = trained(Faulty(gradients=bad), grad_spike_factor=10.0, steps=95)
    assert left_out(run) == [60, 61, 90]
    assert (run.progress.skipped, run.progress.outliers) == (3, 0)
    assert len(run.progress.norms[""]) == 92
    assert all(map(math.isfinite, run.progress.norms[""]))
    lost = trained(Faulty(losses={50: math.inf}), grad_spike_factor=10.0, steps=60)
    assert (left_out(lost), lost.progress.skipped) == ([50], 1)


def test_the_norm_is_that_before_clipping_and_of_all_groups():
    """Clipping hides a spike from Adam, not from the rule."""
    run = trained(Faulty(gradients={60: 1e6}), grad_spike_factor=10.0, grad_clip=0.1)
    assert left_out(run) == [60]
    plain = trained(ELBO(), grad_spike_factor=1e9, steps=30, log_every=1)
    logged = [row["grad_norm"] for row in plain.listener.rows if "grad_norm" in row]
    assert plain.progress.norms[""] == logged


def test_sides_that_take_turns_are_judged_each_by_its_own():
    """The generative side's gradient 1000 times as long as the other's, one step in four: no step is left out."""
    turns = AlternatingUpdates(generative=1, inference=3)
    own = dict.fromkeys(range(0, STEPS, 4), 1000.0)
    run = trainer_of(model(), Faulty(gradients=own), rows(), steps=STEPS, lr=1e-3, grad_spike_factor=10.0)
    run.trainer.schedule = turns
    run.run()
    assert left_out(run) == []
    assert {side: len(norms) for side, norms in run.progress.norms.items()} == {"inference": 60, "generative": 100}


def test_off_it_remembers_nothing_and_says_nothing():
    run = trained(Faulty(gradients={60: 1e6}))
    assert left_out(run) == []
    assert run.progress.norms == {}
    assert not any("outliers" in row for row in run.listener.rows)


def test_without_an_outlier_the_weights_are_those_without_the_rule():
    one, other = (trained(ELBO(), **options).listener.before for options in ({}, {"grad_spike_factor": 1e9}))
    assert torch.equal(one, other)


def test_what_it_remembers_is_in_the_state_to_the_last_digit():
    run = trained(ELBO(), grad_spike_factor=10.0)
    state = json.loads(json.dumps(run.progress.to_state()))
    assert Progress.from_state(state) == run.progress
    old = {key: value for key, value in state.items() if key not in ("norms", "outliers")}
    assert Progress.from_state(old).norms == {}


def test_a_run_resumed_within_a_jump_leaves_out_the_same_steps(tmp_path, monkeypatch):
    """Checkpoints every 10 steps, broken off at 75 in the middle of the waiting; to the same bytes."""
    right = gradients.norm_of

    def fit(folder, **options):
        settings = {
            "latent": 2,
            "hidden": (8,),
            "log_every": 5,
            "grad_spike_factor": 3.0,
            "checkpoint_every": 10,
            "threads": 1,
        }
        return lambent.fit("vae", "digits", out=folder, quiet=True, batch_size=200, **settings, **options)

    def jumping(stop):
        steps = iter(range(10_000))

        def norm_of(parameters):
            step = next(steps)
            if step == stop:
                raise KeyboardInterrupt
            return right(parameters) * (1000.0 if step + norm_of.first >= 60 else 1.0)

        norm_of.first = 0
        return norm_of

    monkeypatch.setattr(loop, "norm_of", jumping(None))
    whole = fit(tmp_path / "whole", steps=130)
    monkeypatch.setattr(loop, "norm_of", jumping(75))
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", steps=130)
    going_on = jumping(None)
    going_on.first = 70
    monkeypatch.setattr(loop, "norm_of", going_on)
    resumed = fit(tmp_path / "broken", steps=130, resume=True)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]
    assert [row["outliers"] for row in whole.history if "outliers" in row][-1] == 50
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])
