"""C7: 20 sigmoid belief nets of 2^10 states: enumeration, IWAE, AIS, the score function and VIMCO by brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from exact import belief_nets
from exact.belief_nets import belief_net, pixels, two_layers
from exact.checks import assert_close
from lambent.draws import Detached, Enumerate, RunningMean, Score
from lambent.evaluation.exact import exact_log_prob
from lambent.objectives import ELBO, IWAE, LogLikelihood
from support.random_numbers import generator

SEEDS = range(0, 400, 20)
MODELS = {"one layer": belief_net, "two layers": two_layers}


def truth(model, x):
    """(log p(x), ELBO), (B,) each, in float64 from long double sums."""
    log_q, log_joint = belief_nets.tables(model, x)
    elbo = (np.exp(log_q) * (log_joint - log_q)).sum(0)
    top = log_joint.max(0)
    return [torch.tensor(t.astype(float)) for t in (top + np.log(np.exp(log_joint - top).sum(0)), elbo)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_enumeration_is_brute_force(name, seed):
    model, x = MODELS[name](seed), pixels(seed)
    log_p, elbo = truth(model, x)
    trace = model(x, Enumerate())
    assert_close(trace.average(torch.ones_like(trace.log_px(x))), 1.0, 1e-12)
    assert_close(ELBO()(trace, x).value, elbo, 1e-10)
    for objective in (IWAE(), LogLikelihood()):
        estimate = objective(trace, x)
        assert estimate.kind == "exact"
        assert_close(estimate.value, log_p, 1e-10)
    assert_close(exact_log_prob(model)(x, None), log_p, 1e-10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_importance_weights_are_unbiased_and_bounds_below(name, seed):
    model, x = MODELS[name](seed), pixels(seed)
    log_p, elbo = truth(model, x)
    trace = model(x, Detached(40_000, generator(seed)))
    log_weight = trace.log_weight(x)
    relative = (log_weight - log_p).exp()
    _within_five(relative, torch.ones(len(x)))
    _within_five(log_weight, elbo)
    blocks = log_weight.unflatten(0, (-1, 20)).logsumexp(1) - math.log(20)
    se = blocks.std(0) / math.sqrt(len(blocks))
    assert bool((blocks.mean(0) - log_p <= 5 * se).all())
    assert bool((blocks.mean(0) > elbo).all())


def _within_five(values, expected):
    z = (values.mean(0) - expected) / (values.std(0) / math.sqrt(len(values)))
    assert z.abs().max() <= 5, f"z = {z.tolist()}"


def _projected(model, loss, directions):
    """The gradient along a few fixed random directions of all parameters."""
    grads = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True, materialize_grads=True)
    return directions @ torch.cat([g.flatten() for g in grads])


def _directions(model, count=3):
    size = sum(p.numel() for p in model.parameters())
    return torch.randn(count, size, generator=generator(7), dtype=torch.float64)


def _mean_gradient(model, x, draw, objective, directions, repeats=150, copies=100):
    """Replicates of the gradient, each the mean over copies of the batch."""
    many = x.repeat(copies, 1)
    return torch.stack(
        [-_projected(model, objective(model(many, draw), many).losses["all"], directions) for _ in range(repeats)]
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_mean_gradient_of_the_score_function_is_the_elbos(name, seed):
    """Along random directions, against the gradient of the enumerated ELBO; one sample, a running mean."""
    model, x = MODELS[name](seed), pixels(seed)
    directions = _directions(model)
    exact = -_projected(model, ELBO()(model(x, Enumerate()), x).losses["all"], directions)
    model.control = RunningMean()
    found = _mean_gradient(model, x, Score(1, generator(seed), baseline="running-mean"), ELBO(), directions)
    _within_five(found, exact)
    assert found.std(0).max() / math.sqrt(len(found)) <= 0.1  # of gradients of norm 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", MODELS)
def test_mean_gradient_of_vimco_is_that_of_two_samples(name, seed):
    """L_2 and its gradient are sums over pairs of states, from the tables that enumeration gives."""
    model, x = MODELS[name](seed), pixels(seed)
    directions = _directions(model)
    trace = model(x, Enumerate())
    log_q = sum(z.log_q for z in trace.latents)
    log_w = trace.log_weight(x)
    pairs = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    bound = ((log_q.unsqueeze(0) + log_q.unsqueeze(1)).exp() * pairs).sum((0, 1))
    exact = -_projected(model, -bound.mean(), directions)
    found = _mean_gradient(model, x, Score(2, generator(seed), baseline="leave-one-out"), IWAE(), directions)
    _within_five(found, exact)
    assert found.std(0).max() / math.sqrt(len(found)) <= 0.1  # of gradients of norm 2


def test_a_reversed_state_order_would_be_seen():
    """The check itself: a level's mass under another state is off by far."""
    model, x = two_layers(0), pixels(0)
    trace = model(x, Enumerate())
    log_p, _ = truth(model, x)
    wrong = trace.log_px(x).flip(0) + sum(z.log_p for z in trace.latents)
    assert (torch.from_numpy(logsumexp(wrong.detach().numpy(), 0)) - log_p).abs().max() > 1e-3
