"""Both phases of wake-sleep and of its reweighted form, exact: every sample and every dream with its probability."""

import itertools
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from exact.checks import assert_close
from lambent.distributions import Bernoulli
from lambent.draws import Detached
from lambent.models import VAE
from lambent.objectives import ReweightedWakeSleep, Sleep, WakeSleep, wake_sleep

DOUBLE = torch.float64
Q, P, A = (0.3, -1.2), (-0.7,), (-0.4, 1.9)  # q(z|x): c + d x; p(z): a logit; p(x|z): b + a z
X = 1.0


class Coin(nn.Module):
    """A coin of logit numbers[0] + numbers[1] * input, or numbers[0] alone; numbers per example, (B, 1 or 2)."""

    def __init__(self, numbers, n):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers, dtype=DOUBLE).repeat(n, 1))

    def forward(self, given=None, condition=None):
        bias, *slope = self.numbers.split(1, -1)
        return Bernoulli(bias + slope[0] * given.to(DOUBLE) if slope else bias)


def coin(logit, value):
    return logsigmoid((2 * value - 1) * logit)


def log_q(q, z, x):
    return coin(q[0] + q[1] * x, z)


def log_joint(p, a, z, x):
    return coin(p[0], z) + coin(a[0] + a[1] * z, x)


def every_run(objective, samples):
    """Expected slopes by (q, p, a), lambent run on every K-tuple, dreamt z and dreamt x in one batch."""
    runs = torch.tensor(list(itertools.product((0.0, 1.0), repeat=samples + 2)), dtype=DOUBLE)
    awake, dreamt_z, dreamt_x = runs[:, :samples], runs[:, samples], runs[:, samples + 1]
    q, p, a = (torch.tensor(t, dtype=DOUBLE) for t in (Q, P, A))
    mass = log_q(q, awake, X).sum(1) + log_joint(p, a, dreamt_z, dreamt_x)
    model = VAE(Coin(P, len(runs)), Coin(Q, len(runs)), Coin(A, len(runs)))
    x = torch.full((len(runs), 1), X, dtype=DOUBLE)
    with (
        mock.patch("lambent.draws.discrete.sample", return_value=awake.T.unsqueeze(-1)),
        mock.patch("lambent.draws.generation.sample", return_value=dreamt_z.view(1, -1, 1)),
        mock.patch("lambent.objectives.sleep.sample", return_value=dreamt_x.view(1, -1, 1)),
    ):
        trace, seen = objective.observe(model, x, Detached(samples))
        losses = objective(trace, seen).losses
    for_q = torch.autograd.grad(losses["inference"], model.posterior.numbers, retain_graph=True)
    for_p = torch.autograd.grad(losses["generative"], [model.prior.numbers, model.likelihood.numbers])
    return [-(len(runs) * mass.exp().unsqueeze(1) * g).sum(0) for g in (*for_q, *for_p)]


def phases(samples):
    """By sums: (sleep's slope of q, wake's of q with normalised weights, wake's of p and a)."""
    q, p, a = (torch.tensor(t, dtype=DOUBLE, requires_grad=True) for t in (Q, P, A))
    bits = torch.tensor([0.0, 1.0], dtype=DOUBLE)
    dreams = sum(log_joint(p, a, bits, x).exp().detach() @ log_q(q, bits, x) for x in (0.0, 1.0))
    q_table, joint = log_q(q, bits, X), log_joint(p, a, bits, X)
    shares = torch.zeros(2, dtype=DOUBLE)
    for row in itertools.product((0, 1), repeat=samples):
        weights = (joint - q_table)[list(row)].detach().softmax(0)
        for state, weight in zip(row, weights, strict=True):
            shares[state] += q_table[list(row)].sum().exp().detach() * weight
    (sleep,) = torch.autograd.grad(dreams, q)
    (wake,) = torch.autograd.grad(shares @ q_table, q)
    return sleep, wake, torch.autograd.grad(shares @ joint, [p, a])


def plain_wake():
    """E_q of the gradient of log p(x, z): one sample's weight is 1."""
    return phases(1)[2]


def agree(objective, samples, share):
    sleep, wake, generative = phases(samples)
    for found, slope in zip(
        every_run(objective, samples), (share * sleep + (1 - share) * wake, *generative), strict=True
    ):
        assert_close(found, slope, 1e-12)


def wake_sleep_agrees(samples=2):
    sleep, _, _ = phases(samples)
    for found, slope in zip(every_run(WakeSleep(), samples), (sleep, *plain_wake()), strict=True):
        assert_close(found, slope, 1e-12)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_wake_sleep(samples):
    wake_sleep_agrees(samples)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_reweighted_with_sleep(samples, share):
    agree(ReweightedWakeSleep(sleep_weight=share), samples, share)


def test_dreams_never_reach_the_generator():
    model = VAE(Coin(P, 4), Coin(Q, 4), Coin(A, 4))
    x = torch.full((4, 1), X, dtype=DOUBLE)
    objective = WakeSleep()
    trace, seen = objective.observe(model, x, Detached(2))
    loss = objective(trace, seen).losses["inference"]
    groups = model.groups()
    assert torch.autograd.grad(loss, groups["generative"], allow_unused=True) == (None, None)


def _faults():
    real = Sleep.observe

    def dreams_of_the_posterior(self, model, x, draw, condition=None):
        return model(x, draw, condition), x

    def dreams_in_both_losses(trace):
        return trace

    def mean_for_sample(self, *a):
        return real(Sleep(sleep_x="mean"), *a)

    return {
        "dreams charged to both groups": (wake_sleep, "_awake", dreams_in_both_losses),
        "the data for dreams": (Sleep, "observe", dreams_of_the_posterior),
        "the mean of x for a dream": (Sleep, "observe", mean_for_sample),
    }


@pytest.mark.parametrize("fault", _faults())
def test_a_planted_fault_is_caught(fault, monkeypatch):
    monkeypatch.setattr(*_faults()[fault])
    with pytest.raises(AssertionError):
        wake_sleep_agrees()
