"""Expected gradients of draws that autograd can't follow, exact: lambent run on every possible sample.

Each check raises AssertionError; the planted faults go through them.
"""

import contextlib
import itertools
import math
from unittest import mock

import torch
from torch import nn

from exact.checks import assert_close
from exact.coins import COIN, DOUBLE, OTHER, TOYS, bound, counts_of, log_mass_of, slopes, toy_model, toy_x, truth
from lambent.distributions import Bernoulli, Normal
from lambent.draws import Detached, Enumerate, LearnedBaseline, RunningMean, Score
from lambent.models import MarkovChain
from lambent.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, ReweightedWakeSleep

OBJECTIVES = {
    "elbo": (ELBO(), {}),
    "iwae": (IWAE(), {}),
    "miwae": (MIWAE(groups=2), {"groups": 2}),
    "ciwae": (CIWAE(beta=0.3), {"beta": 0.3}),
    "piwae": (PIWAE(groups=2), {"groups": 2}),
}
BASELINES = ("none", "running-mean", "leave-one-out", "learned")


@contextlib.contextmanager
def sampled(*values):
    """The next draws of discrete latents are ``values``, whatever their distribution."""
    with mock.patch("lambent.draws.discrete.sample", side_effect=values):
        yield


def baseline(name):
    """A fresh baseline that has a past and is nowhere 0."""
    if name == "running-mean":
        found = RunningMean()
    elif name == "learned":
        found = LearnedBaseline(1, units=3)
        with torch.no_grad():
            for i, parameter in enumerate(found.parameters()):
                parameter.fill_(0.4 - 0.3 * i)
    else:
        return None
    memory = found if name == "running-mean" else found.mean
    memory.mean, memory.weight = torch.tensor(-0.3), torch.tensor(0.6)
    return found


def score_with_counts(toy_name, name, objective, samples):
    """C11 for K up to 50, in one batch: each way to draw the states, with its probability."""
    toy, (estimator, settings) = TOYS[toy_name], OBJECTIVES[objective]
    counts, states = counts_of(len(toy.states), samples), torch.tensor(toy.states, dtype=DOUBLE)
    values = torch.stack([states.repeat_interleave(row.long(), 0) for row in counts], 1)
    model = toy_model([toy] * len(counts), baseline(name))
    with sampled(values):
        estimate = estimator(
            model(toy_x([toy] * len(counts)), Score(samples, baseline=name)), toy_x([toy] * len(counts))
        )
    mass = log_mass_of(counts, toy.log_mass(torch.tensor(toy.q, dtype=DOUBLE))).exp().unsqueeze(-1)
    value, expected = truth(toy, objective, samples, **settings)
    assert_close((mass[:, 0] * estimate.value).sum(), value, 1e-10)
    for found, slope in zip(slopes(model, estimate.losses), expected, strict=True):
        assert_close((mass * found).sum(0), slope, 1e-9)


def _tuples(toys, samples):
    """Every K-tuple of states of all toys together: ((K, B, D), probability)."""
    each = [list(itertools.product(range(len(toy.states)), repeat=samples)) for toy in toys]
    log_q = [toy.log_mass(torch.tensor(toy.q, dtype=DOUBLE)) for toy in toys]
    for joint in itertools.product(*each):
        value = torch.stack(
            [torch.tensor([toy.states[i] for i in row], dtype=DOUBLE) for toy, row in zip(toys, joint, strict=True)], 1
        )
        yield value, math.exp(sum(table[i].item() for table, row in zip(log_q, joint, strict=True) for i in row))


def expected_by_tuples(toys, draw, objective, samples, name="none"):
    """(value, gradients), exact: lambent run on every K-tuple of every example, its baseline's past always the same."""
    value, gradients, x = 0.0, [0.0, 0.0, 0.0], toy_x(toys)
    for drawn, mass in _tuples(toys, samples):
        model = toy_model(toys, baseline(name))
        with sampled(drawn):
            estimate = objective(model(x, draw), x)
        value = value + mass * estimate.value
        gradients = [g + mass * s for g, s in zip(gradients, slopes(model, estimate.losses), strict=True)]
    return value, gradients


def score_with_tuples(name, objective, toys=(COIN, OTHER), samples=2):
    """C11 for a batch of two different examples, by every pair of K-tuples: nothing of one reaches the other."""
    estimator, settings = OBJECTIVES[objective]
    found = expected_by_tuples(toys, Score(samples, baseline=name), estimator, samples, name)
    _agree(found, [truth(toy, objective, samples, **settings) for toy in toys])


def _agree(found, truths, tolerance=1e-10):
    value, gradients = found
    assert_close(value, torch.tensor([t[0] for t in truths], dtype=DOUBLE), tolerance)
    for index, gradient in enumerate(gradients):
        assert_close(gradient, torch.stack([t[1][index] for t in truths]), tolerance)


def reweighted_truth(toy, samples):
    """RWS at finite K, by every K-tuple: L_K, and the expected self-normalised gradients by q, p and a."""
    at = toy.parameters()
    log_q, log_joint = toy.log_mass(at[0]), toy.log_joint(*at[1:])
    with torch.no_grad():
        chosen = torch.tensor(list(itertools.product(range(len(toy.states)), repeat=samples)))
        mass = log_q[chosen].sum(1).exp()
        weights = torch.exp(log_joint - log_q)[chosen]
        share = mass.unsqueeze(1) * weights / weights.sum(1, keepdim=True)
        per_state = torch.stack([(share * (chosen == s)).sum() for s in range(len(toy.states))])
    (for_q,) = torch.autograd.grad((per_state * log_q).sum(), at[:1], retain_graph=True)
    return bound(log_q, log_joint, samples).item(), [for_q, *torch.autograd.grad((per_state * log_joint).sum(), at[1:])]


def exact_evidence(toy):
    """The gradient of log p(x) by q, p and a."""
    at = toy.parameters()
    evidence = torch.logsumexp(toy.log_joint(*at[1:]), 0)
    return [torch.zeros_like(at[0]), *torch.autograd.grad(evidence, at[1:])]


def reweighted(toys=(COIN, OTHER), samples=2):
    """RWS without dreams: both gradients are the expectation of self-normalised weights, K being finite."""
    found = expected_by_tuples(toys, Detached(samples), ReweightedWakeSleep(sleep_weight=0.0), samples)
    _agree(found, [reweighted_truth(toy, samples) for toy in toys])


def enumerated_toys():
    """Sums over states: the ELBO's gradient, log p(x) and its gradient; RWS's weights are then the true posterior."""
    for toy in TOYS.values():
        at = toy.parameters()
        log_q, log_joint = toy.log_mass(at[0]), toy.log_joint(*at[1:])
        evidence = torch.logsumexp(log_joint, 0)
        model, x = toy_model([toy]), toy_x([toy])
        estimate = ELBO()(model(x, Enumerate()), x)
        assert_close(estimate.value, truth(toy, "elbo", 1)[0], 1e-12)
        for found, slope in zip(slopes(model, estimate.losses), truth(toy, "elbo", 1)[1], strict=True):
            assert_close(found[0], slope, 1e-12)
        exact = exact_evidence(toy)
        for objective in (IWAE(), ReweightedWakeSleep(sleep_weight=0.0)):
            estimate = objective(model(x, Enumerate()), x)
            assert estimate.kind == "exact"
            assert_close(estimate.value, evidence.item(), 1e-12)
            if isinstance(objective, ReweightedWakeSleep):
                posterior = (log_joint - evidence).exp().detach()
                exact[0] = torch.autograd.grad((posterior * log_q).sum(), at[0])[0]
            for found, slope in zip(slopes(model, estimate.losses), exact, strict=True):
                assert_close(found[0], slope, 1e-12)


class _Level(nn.Module):
    """A coin of logit b + w z (or b alone)."""

    def __init__(self, bias, weight):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([bias, weight], dtype=DOUBLE))

    def forward(self, *context):
        return Bernoulli(self.numbers[:1].expand(len(context[0]), 1))

    def given(self, z, condition=None):
        return Bernoulli(self.numbers[0] + self.numbers[1] * z)


class _Top(_Level):
    def forward(self, condition=None):
        return Bernoulli(self.numbers[:1])


class _Seen(_Level):
    def forward(self, z, condition=None):
        return Normal(self.numbers[0] + self.numbers[1] * z, torch.zeros((), dtype=DOUBLE))


CHAIN_X = 0.9


def two_coins_in_a_chain(control=None):
    """z2 -> z1 -> x, a coin a level."""
    model = MarkovChain(
        _Top(-0.4, 0.0), [_Level(0.6, 0.0), _Level(-0.5, 1.4)], [_Level(0.3, -1.7)], _Seen(-0.2, 1.5), (2, 2)
    )
    model.control = control
    return model


def chain_tables(numbers):
    """log q and log p(x, z) of the four joint states (z1 first), from the parts' numbers, by the formulas."""

    def coin(logit, value):
        return torch.nn.functional.logsigmoid((2 * value - 1) * logit)

    top, first, second, below, seen = numbers
    log_q, log_joint = [], []
    for z1, z2 in itertools.product((0, 1), repeat=2):
        log_q.append(coin(first[0], z1) + coin(second[0] + second[1] * z1, z2))
        log_px = -0.5 * (CHAIN_X - seen[0] - seen[1] * z1) ** 2 - 0.5 * math.log(2 * math.pi)
        log_joint.append(coin(top[0], z2) + coin(below[0] + below[1] * z2, z1) + log_px)
    return torch.stack(log_q), torch.stack(log_joint)


def _chain_numbers(model):
    parts = [model.prior, *model.posteriors, *model.conditionals, model.likelihood]
    return [part.numbers for part in parts]


def _grads(scalar, numbers):
    found = torch.autograd.grad(scalar, numbers, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.stack(list(found))


def chain_with_scores(name, objective, samples=2):
    """C11 for two levels that share one baseline: every K-tuple of joint states."""
    x = torch.full((1, 1), CHAIN_X, dtype=DOUBLE)
    numbers = _chain_numbers(two_coins_in_a_chain())
    log_q, log_joint = chain_tables(numbers)
    share = {"elbo": 1.0, "iwae": 0.0, "ciwae": 0.3}[objective]
    blend = share * bound(log_q, log_joint, 1) + (1 - share) * bound(log_q, log_joint, samples)
    expected = _grads(blend, numbers)
    states, total = list(itertools.product((0, 1), repeat=2)), 0.0
    for row in itertools.product(range(4), repeat=samples):
        model = two_coins_in_a_chain(baseline(name))
        value = torch.tensor([states[i] for i in row], dtype=DOUBLE).view(samples, 1, 2)
        with sampled(value[..., :1], value[..., 1:]):
            estimate = OBJECTIVES[objective][0](model(x, Score(samples, baseline=name)), x)
        total = total - log_q[list(row)].sum().exp() * _grads(estimate.losses["all"], _chain_numbers(model))
    assert_close(total.detach(), expected, 1e-10)


def chain_enumerated():
    """Both levels summed: the ELBO and log p(x), with their gradients."""
    x = torch.full((1, 1), CHAIN_X, dtype=DOUBLE)
    model = two_coins_in_a_chain()
    numbers = _chain_numbers(model)
    log_q, log_joint = chain_tables(numbers)
    elbo, evidence = (log_q.exp() * (log_joint - log_q)).sum(), torch.logsumexp(log_joint, 0)
    for objective, scalar in ((ELBO(), elbo), (IWAE(), evidence)):
        estimate = objective(model(x, Enumerate()), x)
        assert_close(estimate.value, scalar.item(), 1e-12)
        assert_close(-_grads(estimate.losses["all"], numbers), _grads(scalar, numbers), 1e-12)
