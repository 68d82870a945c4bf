"""What chains and ladders of linear Normals must pass and planted faults must fail; each raises AssertionError."""

import itertools
import math

import torch

from exact import linear_chains as truth
from exact.chain_models import (
    chain_inference,
    chain_model,
    chain_nodes,
    chain_parameters,
    ladder_inference,
    ladder_model,
    ladder_parameters,
)
from exact.checks import assert_close
from exact.tiny import batch_of
from exact.truths import assert_mean
from lambent.draws import Given, Pathwise
from lambent.evaluation.bounds import bounds
from lambent.objectives import ELBO, IWAE
from support.random_numbers import generator

KINDS = {
    "chain": (truth.exact_upwards, chain_model, chain_parameters, chain_inference),
    "ladder": (truth.exact_downwards, ladder_model, ladder_parameters, ladder_inference),
}
TOLERANCE = 1e-9


def case(kind, levels, n=5, q="wrong"):
    """The chain, a q, lambent's model of both, and ``n`` examples, which float32 holds exactly."""
    exact, model, _, _ = KINDS[kind]
    chain = truth.chain_of(levels)
    x = chain.observations(n).float().double()
    found = exact(chain)
    if q == "wrong":
        found = truth.disturbed(found)
    if q == "mean-field":
        found, _ = truth.mean_field(chain, x[:1])
    return chain, found, model(chain, found), x


def constant_weights(kind, levels):
    """At the true posterior every weight is p(x): of every draw, so that every bound is log p(x)."""
    chain, _, model, x = case(kind, levels, q="exact")
    log_p = chain.log_p(x)
    trace = model(x, Pathwise(7, generator(0)))
    assert_close(trace.log_weight(x), log_p.expand(7, -1), TOLERANCE)
    assert trace.log_weight(x).var(0).max() <= TOLERANCE**2
    assert_close(IWAE()(trace, x).value, log_p, TOLERANCE)
    found = bounds(model, batch_of(x), len(x), samples=30)
    assert_close(found.iwae, log_p, TOLERANCE)
    assert_close(found.effective, 30.0, 1e-6)


def closed_terms(kind, levels, q):
    """ELBO, distortion and the rate of every level are what Gaussian algebra says, to float64's last digits."""
    chain, found, model, x = case(kind, levels, q=q, n=1 if q == "mean-field" else 5)
    trace = model(x, chain_nodes(chain.dims[1:]))
    assert [z.name for z in trace.latents] == [f"z{i + 1}" for i in range(levels)]
    for z, rate in zip(trace.latents, truth.rates(chain, found, x), strict=True):
        assert_close(trace.average(z.rate), rate, TOLERANCE)
    assert_close(trace.average(trace.distortion(x)), -truth.expected_log_p(chain, found, x)[0], TOLERANCE)
    assert_close(ELBO()(trace, x).value, truth.elbo(chain, found, x), TOLERANCE)
    if q == "exact":
        assert_close(ELBO()(trace, x).value, chain.log_p(x), TOLERANCE)
    if q == "mean-field":
        assert_close(ELBO()(trace, x).value, chain.log_p(x) - truth.mean_field(chain, x)[1], TOLERANCE)


def gradients(kind, levels):
    """d ELBO / d q's maps, shifts and covariances is the closed form's derivative."""
    chain, _, model, x = case(kind, levels)
    _, _, parameters_of, inference_of = KINDS[kind]
    own = [p for level in parameters_of(model) for p in level]
    found = torch.autograd.grad(ELBO()(model(x, chain_nodes(chain.dims[1:])), x).losses["all"], own)
    leaves = [[p.detach().clone().requires_grad_() for p in level] for level in parameters_of(model)]
    bound = truth.elbo(chain, inference_of(leaves), x).mean()
    expected = torch.autograd.grad(-bound, [p for level in leaves for p in level])
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-8 * (1 + other.abs().max().item()))


def sampled_gradients(kind, levels, repeats=30, samples=50):
    """The same of the pathwise draw, by its mean over batches of noise."""
    chain, _, model, x = case(kind, levels)
    _, _, parameters_of, inference_of = KINDS[kind]
    own, noise = [p for level in parameters_of(model) for p in level], generator(5)
    rows = []
    for _ in range(repeats):
        loss = ELBO()(model(x, Pathwise(samples, noise)), x).losses["all"]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)]))
    leaves = [[p.detach().clone().requires_grad_() for p in level] for level in parameters_of(model)]
    bound = truth.elbo(chain, inference_of(leaves), x).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-bound, [p for v in leaves for p in v])])
    found, se = torch.stack(rows).mean(0), torch.stack(rows).std(0) / math.sqrt(repeats)
    z = (found - expected) / (se + 1e-9)
    assert z.abs().max() <= 6, f"z = {z.abs().max().item():.1f} of {len(z)} parameters"  # t of 29 degrees


def evaluated(kind, levels, n=120, samples=50):
    """ELBO and each level's rate through the evaluator; a prior's variance of 1.01 would be seen."""
    chain, q, model, x = case(kind, levels, n=n)
    found = bounds(model, batch_of(x), n, samples=samples, seed=3)
    assert_mean(found.elbo - truth.elbo(chain, q, x), 0.0, smallest_fault(chain, q, x))
    assert found.names == tuple(f"z{i + 1}" for i in range(levels))
    for own, rate in zip(found.rates, truth.rates(chain, q, x), strict=True):
        if (own - rate).abs().max() > TOLERANCE:  # a ladder's highest rate is the same for all draws
            assert_mean(own - rate, 0.0, rate.mean().abs().item())
    assert_close(found.elbo, -(found.rates.sum(0) + found.distortion), 1e-10)


def smallest_fault(chain, q, x):
    """What a prior of variance 1.01 does to the bound."""
    other = truth.Chain(chain.weights, chain.shifts, chain.scales, top=1.01)
    return (truth.elbo(other, q, x) - truth.elbo(chain, q, x)).mean().abs().item()


def weights_of_mean_one(kind, levels, n=64, samples=100):
    """E of the mean weight is p(x), and the bound of K weights is short of log p(x) by Var(w)/(2 K p(x)^2).

    log r - (r - 1), with r the mean weight over p(x), has the expectation of log r and a tenth of its spread.
    """
    chain, q, model, x = case(kind, levels, n=n)
    found = bounds(model, batch_of(x), n, samples=samples, seed=4).iwae - chain.log_p(x)
    gap = truth.chi_square(chain, q, x).mean().item() / (2 * samples)
    assert_mean(torch.exp(found) - 1, 0.0, 0.12)
    short = torch.expm1(found) - found
    se = short.std().item() / math.sqrt(n)
    assert abs(short.mean().item() - gap) <= 5 * se + 0.05 * gap, f"{short.mean().item():.5f} against {gap:.5f}"


@torch.no_grad()
def ordered(kind, levels, counts=(1, 4, 16, 64), n=40):
    """L_1 <= L_4 <= ... <= log p(x), of the same draws."""
    chain, _, model, x = case(kind, levels, n=n)
    values = {z.name: z.value for z in model(x, Pathwise(counts[-1], generator(2))).latents}
    rows = [_in_blocks(model, x, values, count) - chain.log_p(x) for count in counts]
    for lower, higher in itertools.pairwise(rows):
        difference = higher - lower
        assert difference.mean() > 5 * difference.std() / math.sqrt(n), "a bound of more samples is not higher"
    for row in rows:
        assert row.mean() <= 5 * row.std() / math.sqrt(n), "a bound is above the evidence"
    assert rows[-1].mean() > -0.03, "the bound of most samples is far from the evidence"


def _in_blocks(model, x, values, count):
    most, n = len(next(iter(values.values()))), len(x)
    blocks = {
        name: v.reshape(most // count, count, n, -1).transpose(0, 1).reshape(count, -1, v.shape[-1])
        for name, v in values.items()
    }
    many = x.repeat(most // count, 1)
    return IWAE()(model(many, Given(values=blocks)), many).value.view(-1, n).mean(0)
