"""A discrete latent beside a continuous one: evidence, bounds and their gradients against sums of quadratures."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from exact.checks import assert_close
from exact.truths import gauss_hermite
from lambent.distributions import Normal
from lambent.draws import Enumerate, Mixed, Score
from lambent.models import Joint
from lambent.objectives import ELBO, IWAE
from lambent.posteriors import NormalPosterior
from lambent.priors import CategoricalPriorModule, NormalPriorModule
from support.random_numbers import generator

DOUBLE = torch.float64
X = 0.75
LOG_TWO_PI = math.log(2 * math.pi)


class Seen(nn.Module):
    """x itself."""

    features = 1

    def forward(self, x, condition=None):
        return x


class Lines(nn.Module):
    """p(x | z, y) = N(m_y + a_y z, 1)."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([-0.8, 1.4], dtype=DOUBLE))
        self.slope = nn.Parameter(torch.tensor([1.1, -0.6], dtype=DOUBLE))

    def forward(self, code, condition=None):
        z, y = code[..., :1], code[..., 1:]
        return Normal((y @ self.mean + (y @ self.slope) * z[..., 0]).unsqueeze(-1), torch.zeros((), dtype=DOUBLE))


def joint_model():
    model = Joint(
        CategoricalPriorModule(2), NormalPriorModule(1), Seen(), NormalPosterior(), Lines(), latent=1
    ).double()
    with torch.no_grad():
        model.discrete.logits.copy_(torch.tensor([0.3, -0.5]))
        for i, part in enumerate((model.state_head, model.head)):
            part.weight.copy_(0.4 * torch.randn(part.weight.shape, generator=generator(i)))
            part.bias.copy_(torch.tensor([0.6, -0.4]))
    return model


def tables(model):
    """(log q(y), log p(y), and by state and node log w(z|y) = log p(z) p(x|y,z) / q(z|y), the nodes' mass)."""
    nodes, mass = gauss_hermite(40)
    x = torch.full((1, 1), X, dtype=DOUBLE)
    log_qy, log_py = model.state_head(x)[0].log_softmax(0), model.discrete.logits.log_softmax(0)
    log_w = []
    for state in range(2):
        one_hot = torch.eye(2, dtype=DOUBLE)[state : state + 1]
        q = model.family.distribution(model.head(torch.cat([x, one_hot], -1)), 1)
        loc, log_scale = q.loc[0, 0], q.log_scale.expand(1, 1)[0, 0]
        z = loc + log_scale.exp() * nodes
        mean = model.likelihood.mean[state] + model.likelihood.slope[state] * z
        log_joint = -0.5 * (X - mean) ** 2 - 0.5 * z**2 - LOG_TWO_PI
        log_w.append(log_joint + 0.5 * nodes**2 + log_scale + 0.5 * LOG_TWO_PI)
    return log_qy, log_py, torch.stack(log_w), mass


def elbo(model):
    log_qy, log_py, log_w, mass = tables(model)
    return (log_qy.exp() * (log_py - log_qy + log_w @ mass)).sum()


def summed_bound(model):
    """E log sum_y p(y) w(z_y | y), a z for each state."""
    _, log_py, log_w, mass = tables(model)
    inner = torch.logaddexp((log_py[0] + log_w[0]).unsqueeze(1), log_py[1] + log_w[1])
    return (mass.outer(mass) * inner).sum()


def drawn_bound(model):
    """L_2 of pairs (y, z), both drawn."""
    log_qy, log_py, log_w, mass = tables(model)
    weights = (log_w + (log_py - log_qy).unsqueeze(1)).flatten()
    probability = (log_qy.exp().unsqueeze(1) * mass).flatten()
    pairs = torch.logaddexp(weights.unsqueeze(1), weights) - math.log(2)
    return (probability.outer(probability) * pairs).sum()


def log_p(model):
    """log sum_y p(y) N(x; m_y, 1 + a_y^2)."""
    log_py, seen = model.discrete.logits.log_softmax(0), model.likelihood
    variance = 1 + seen.slope**2
    return torch.logsumexp(log_py - 0.5 * (X - seen.mean) ** 2 / variance - 0.5 * (variance.log() + LOG_TWO_PI), 0)


ENUMERATED = {samples: Mixed(samples, discrete="enumerate") for samples in (1, 3)}
CASES = {
    "enumerated, elbo": (ENUMERATED[1], ELBO(), elbo),
    "enumerated thrice, elbo": (ENUMERATED[3], ELBO(), elbo),
    "enumerated, iwae": (ENUMERATED[1], IWAE(), summed_bound),
    "scored, elbo": (Mixed(1, discrete="score"), ELBO(), elbo),
    "leave-one-out, elbo": (Mixed(3, other=Score(baseline="leave-one-out"), discrete="score"), ELBO(), elbo),
    "leave-one-out, iwae": (Mixed(2, other=Score(baseline="leave-one-out"), discrete="score"), IWAE(), drawn_bound),
}


def agrees(case, copies=500, repeats=200):
    """Value and gradient by every parameter, each the mean over replicates, within 5 standard errors."""
    draw, objective, exact = CASES[case]
    model = joint_model()
    parameters = [*model.parameters()]
    truth = exact(model)
    slopes = torch.autograd.grad(truth, parameters, allow_unused=True, materialize_grads=True)
    expected = torch.cat([truth.detach().view(1), *(s.flatten() for s in slopes)])
    draw, x = draw.using(generator(8)), torch.full((copies, 1), X, dtype=DOUBLE)
    rows = []
    for _ in range(repeats):
        estimate = objective(model(x, draw), x)
        found = torch.autograd.grad(-estimate.losses["all"], parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([estimate.value.mean().view(1), *(s.flatten() for s in found)]))
    values = torch.stack(rows)
    se = values.std(0) / math.sqrt(repeats)
    difference = (values.mean(0) - expected).abs()
    assert bool((difference <= 5 * se + 1e-12).all()), f"z = {(difference / se).max():.1f}"
    assert se.max() < 0.01, f"standard error {se.max():.2g}"


@pytest.mark.parametrize("case", CASES)
def test_bounds_and_gradients(case):
    agrees(case)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("discrete", ["enumerate", "score"])
@torch.no_grad()
def test_mean_weight_is_the_evidence(discrete, samples):
    model, x = joint_model(), torch.full((60_000, 1), X, dtype=DOUBLE)
    trace = model(x, Mixed(samples, generator(5), discrete=discrete))
    assert trace.evidence_kind == "lower bound"
    ratio = (trace.log_mean_weight(x) - log_p(model)).exp()
    z = (ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio)))
    assert abs(z) <= 5, f"z = {z:.1f}"


def test_the_closed_evidence_is_the_quadratures():
    model = joint_model()
    _, log_py, log_w, mass = tables(model)
    assert_close(log_p(model).item(), torch.logsumexp(log_py + (log_w.exp() @ mass).log(), 0).item(), 1e-6)


def _planted():
    real, scored = Enumerate.draw, Score.draw

    def not_divided(self, *a):
        latent = real(self, *a)
        return dataclasses.replace(latent, log_mass=latent.log_q, repeats=1)

    def mass_not_divided(self, *a):
        latent = real(self, *a)
        return dataclasses.replace(latent, log_mass=latent.log_q)

    return {
        "repeats not divided": (Enumerate, "draw", not_divided, "enumerated thrice, elbo"),
        "repeats of the mass not divided": (Enumerate, "draw", mass_not_divided, "enumerated thrice, elbo"),
        "the discrete latent without a signal": (
            Score,
            "draw",
            lambda self, *a: dataclasses.replace(scored(self, *a), score=None),
            "scored, elbo",
        ),
    }


FAULTS = _planted()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault, monkeypatch):
    *planted, case = FAULTS[fault]
    monkeypatch.setattr(*planted)
    with pytest.raises(AssertionError):
        agrees(case)


def test_repeats_not_divided_in_the_evidence_are_caught(monkeypatch):
    monkeypatch.setattr(*FAULTS["repeats not divided"][:3])
    with pytest.raises(AssertionError, match="z ="):
        test_mean_weight_is_the_evidence("enumerate", 3)
