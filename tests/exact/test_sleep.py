"""The sleep phase against closed forms: z ~ N(0, 1), x|z ~ N(z, 1), so that E[z|x] = x / 2 with variance 1 / 2."""

import math

import pytest
import torch
from torch import nn

import lambent.objectives.sleep as module
from exact.tiny import TinyLikelihood, ones
from exact.truths import assert_mean
from lambent.distributions import Normal
from lambent.draws import Given, Pathwise
from lambent.models import VAE, LatentModel
from lambent.objectives import Sleep
from lambent.priors import NormalPriorModule
from lambent.trace import Trace

N = 40_000
CASES = [("sample", 0.5, -0.5 * math.log(2)), ("sample", 0.3, 0.0), ("mean", 0.3, -0.2)]


class Linear(nn.Module):
    """q(z|x) = N(slope x, exp(log_scale)^2), with a slope and a scale per example."""

    def __init__(self, slope, log_scale, n=N):
        super().__init__()
        self.slope = nn.Parameter(torch.full((n, 1), slope, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.full((n, 1), log_scale, dtype=torch.float64))

    def forward(self, x, condition=None):
        return Normal(self.slope * x, self.log_scale)


def truth(dream, slope, log_scale):
    """E[log q], and its derivatives: x has variance v, and covariance 1 with z."""
    v, s2 = (2.0 if dream == "sample" else 1.0), math.exp(2 * log_scale)
    error = 1 - 2 * slope + slope**2 * v
    value = -0.5 * math.log(2 * math.pi) - log_scale - error / (2 * s2)
    return value, (1 - slope * v) / s2, error / s2 - 1


def slept(dream, slope, log_scale):
    model = VAE(NormalPriorModule(1).double(), Linear(slope, log_scale), TinyLikelihood(N))
    draw = Pathwise(generator=torch.Generator().manual_seed(0))
    objective = Sleep(dream)
    return model, objective(*objective.observe(model, ones(N), draw))


def agrees(dream, slope, log_scale):
    model, estimate = slept(dream, slope, log_scale)
    value, by_slope, by_scale = truth(dream, slope, log_scale)
    assert_mean(estimate.value, value, 0.1)
    assert set(estimate.losses) == {"inference"}
    gradients = torch.autograd.grad(
        N * estimate.losses["inference"], [model.posterior.slope, model.posterior.log_scale]
    )
    for found, expected in zip(gradients, (-by_slope, -by_scale), strict=True):
        assert_mean(found.flatten(), expected, 0.2)
    return estimate


@pytest.mark.parametrize(("dream", "slope", "log_scale"), CASES)
def test_value_and_gradients_are_those_of_the_closed_form(dream, slope, log_scale):
    assert agrees(dream, slope, log_scale).kind == "not a bound"


def test_at_the_true_posterior_the_gradient_vanishes_and_the_value_is_minus_its_entropy():
    value, by_slope, by_scale = truth("sample", 0.5, -0.5 * math.log(2))
    assert (by_slope, by_scale) == (0.0, pytest.approx(0.0, abs=1e-12))
    assert value == pytest.approx(-0.5 * math.log(2 * math.pi * math.e * 0.5), abs=1e-12)


def test_the_generator_gets_no_gradient():
    model, estimate = slept("sample", 0.3, 0.0)
    shift = model.likelihood.shift
    assert torch.autograd.grad(estimate.losses["inference"], shift, allow_unused=True) == (None,)


def awake(patch):
    """The encoder sees the data, not the dream."""
    patch.setattr(Sleep, "observe", lambda self, model, x, draw, condition=None: (model(x, draw), x))


def unpaired(patch):
    """The latents are not those that the dream was made of."""
    patch.setattr(module, "Given", lambda values: Given(values={k: v.flip(1) for k, v in values.items()}))


def halved(patch):
    """The loss is a sum over half of the examples."""
    real = Sleep.__call__

    def half(self, trace, x):
        estimate = real(self, trace, x)
        return module.Estimate(estimate.value, {"inference": 0.5 * estimate.losses["inference"]}, estimate.kind)

    patch.setattr(Sleep, "__call__", half)


@pytest.mark.parametrize("plant", [awake, unpaired, halved])
def test_planted_faults_are_caught(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        agrees("sample", 0.3, 0.0)


class TwoLevels(LatentModel):
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1); q's that look at x alone."""

    def __init__(self):
        super().__init__()
        self.likelihood = TinyLikelihood(N)

    def forward(self, x, draw, condition=None):
        one = torch.ones((), dtype=torch.float64)
        q = (None, None) if x is None else (Normal(x, 0 * one), Normal(0.5 * x, one))
        above = draw("z2", Normal(torch.zeros(1, dtype=torch.float64), 0 * one), q[0])
        z = draw("z1", Normal(above.value, 0 * one), q[1])
        return Trace(self.likelihood(z.value), (z, above))

    def groups(self):
        return {"generative": list(self.parameters()), "inference": []}


def test_levels_add():
    """E log q2 = -(log 2 pi + E(z2 - x)^2) / 2 with E = 2; E(z1 - x/2)^2 = 3/4, at variance e^2."""
    objective, model = Sleep(), TwoLevels()
    estimate = objective(*objective.observe(model, ones(N), Pathwise(generator=torch.Generator().manual_seed(3))))
    first = -0.5 * math.log(2 * math.pi) - 1
    second = -0.5 * math.log(2 * math.pi) - 1 - 0.75 / (2 * math.e**2)
    assert_mean(estimate.value, first + second, 0.1)
