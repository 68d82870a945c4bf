"""Estimates of q(z) from a batch against the data set's own, over all batches there are; the faults they must show."""

import itertools
import math

import pytest
import torch

import lambent.objectives.tc as aggregated
from lambent.distributions import Bernoulli, CholeskyNormal, Delta, LowRankNormal, Normal, StandardNormal
from lambent.draws import Pathwise
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.aggregated import AggregatedPosterior
from lambent.objectives import ELBO, TotalCorrelationRate
from lambent.objectives.tc import log_mixtures, stratified_log_weights, weighted_log_weights
from lambent.trace import Latent, Trace
from support.random_numbers import generator

N, DIMS = 7, 2


def posteriors(n=N, dims=DIMS):
    loc = 2 * torch.randn(n, dims, generator=generator(), dtype=torch.float64)
    return Normal(loc, -0.5 + 0.3 * torch.randn(n, dims, generator=generator(), dtype=torch.float64))


def chosen(q, indices):
    return q.map_parameters(lambda t: t[list(indices)])


def expected_ratio(weigh, batch, dims=DIMS):
    """E[estimate of q(z_i)] / q(z_i) for a draw of each example: the mean over all batches with the example in them."""
    q = posteriors(dims=dims)
    z = q.sample((1,), generator())
    truth = AggregatedPosterior((q,)).log_prob(z[0])
    ratios = torch.zeros(N, dtype=torch.float64)
    for i in range(N):
        others = [j for j in range(N) if j != i]
        batches = [tuple(sorted((i, *rest))) for rest in itertools.combinations(others, batch - 1)]
        for members in batches:
            joint, product = log_mixtures(chosen(q, members), z[:, list(members)], weigh(batch, N))
            found = joint if dims > 1 else product
            ratios[i] += (found[0, members.index(i)] - truth[i]).exp() / len(batches)
    return ratios


def unbiased(weigh=None):
    for batch, dims in ((2, 2), (3, 2), (6, 2), (7, 2), (3, 1)):
        ratios = expected_ratio(weigh or aggregated.stratified_log_weights, batch, dims)
        torch.testing.assert_close(ratios, torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-6)


def test_stratified_sampling_is_unbiased_over_all_batches():
    unbiased()


def _wrong_columns(batch, n):
    """The weights of a widespread implementation: those of the draw's own example in column 0, not on the diagonal."""
    others, last = batch - 1, (n - batch + 1) / (n * (batch - 1))
    weights = torch.full((batch, batch), 1 / others)
    weights.view(-1)[::batch] = 1 / n
    weights.view(-1)[1::batch] = last
    weights[others - 1, 0] = last
    return weights.log()


FAULTS = {
    "own weights in the wrong column": _wrong_columns,
    "plain mean over the batch": lambda batch, n: torch.full((batch, batch), -math.log(batch)),
    "weighted for stratified": weighted_log_weights,
    "own example left out": lambda batch, n: stratified_log_weights(batch, n).fill_diagonal_(-math.inf),
    "weights of the batch for those of the data set": lambda batch, n: stratified_log_weights(batch, batch),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_weights_are_caught(fault):
    with pytest.raises(AssertionError):
        unbiased(FAULTS[fault])


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_weighted_sampling_has_the_bias_that_its_weights_give(batch):
    """E = (q(z|x_i) + (B - 1)/(N - 1) sum_{j != i} q(z|x_j)) / (N B): far below q(z), the own example overweighted."""
    q = posteriors()
    z = q.sample((1,), generator())[0]
    each = q.log_prob(z.unsqueeze(1)).exp()
    own, total = each.diagonal(), each.sum(1)
    expected = (own + (batch - 1) / (N - 1) * (total - own)) / (N * batch)
    ratios = expected_ratio(weighted_log_weights, batch)
    torch.testing.assert_close(ratios, expected / (total / N), rtol=1e-6, atol=0)
    assert bool((ratios < 0.6).all())


def trace_of(q, z, prior=None):
    latent = Latent("z", z, prior or StandardNormal(q.event_shape, dtype=torch.float64), q)
    return Trace(Normal(torch.zeros(len(z), z.shape[1], 1), torch.zeros(())), (latent,))


def exact_terms(q, z):
    """MI, total correlation and dimension-wise KL of each draw by loops over examples and dimensions, (K, B)."""
    log_p = StandardNormal(q.event_shape, dtype=torch.float64).log_prob(z)
    dims = [torch.distributions.Normal(q.loc[:, d], q.log_scale[:, d].exp()) for d in range(q.loc.shape[1])]
    pairs = [dist.log_prob(z[..., d].unsqueeze(-1)) for d, dist in enumerate(dims)]
    joint = sum(pairs).exp().mean(-1).log()
    product = sum(pair.exp().mean(-1).log() for pair in pairs)
    return q.log_prob(z) - joint, joint - product, product - log_p


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(1, 6, 1), (0, 1, 0), (2, 0.5, 3), (0, 0, 1)])
def test_the_charge_of_the_whole_data_set_is_the_sum_of_its_terms(alpha, beta, gamma):
    q = posteriors()
    z = q.sample((3,), generator())
    kl = Latent("z", z, StandardNormal((DIMS,), dtype=torch.float64), q).kl
    information, correlation, dimensions = exact_terms(q, z)
    information = kl - correlation - dimensions  # the closed form stands for log q(z|x) - log p(z) of the draw
    expected = alpha * information + beta * correlation + gamma * dimensions
    for rate in (TotalCorrelationRate(alpha, beta, gamma), TotalCorrelationRate(alpha, beta, gamma).sized(N)):
        torch.testing.assert_close(rate(trace_of(q, z)), expected, rtol=0, atol=1e-6)


def test_equal_factors_charge_the_rate_itself():
    q = posteriors()
    trace = trace_of(q, q.sample((2,), generator()))
    assert torch.equal(TotalCorrelationRate(2.0, 2.0, 2.0)(trace), 2 * trace.rate)
    assert TotalCorrelationRate(1.0, 1.0, 1.0).is_bound
    assert not TotalCorrelationRate(1.0, 6.0, 1.0).is_bound
    assert not TotalCorrelationRate(0.5, 0.5, 0.5).is_bound


def test_the_training_set_reaches_the_rate_through_the_objective():
    assert ELBO(TotalCorrelationRate()).sized(50).rate.n == 50
    assert ELBO().sized(50) == ELBO()
    q = posteriors(1)
    assert torch.isfinite(
        TotalCorrelationRate().sized(5)(trace_of(q, q.sample((2,), generator())))
    ).all()  # a last batch of one


def test_correlated_posteriors_are_split_by_their_marginals():
    """One example: q(z) = q(z|x), so the total correlation is the Normal's own, -1/2 log det of its correlation."""
    loc = torch.zeros(1, 2, dtype=torch.float64)
    tril = torch.tensor([[[2.0, 0.0], [1.0, 0.5]]], dtype=torch.float64)
    covariance = tril[0] @ tril[0].T
    truth = -0.5 * torch.log(torch.linalg.det(covariance) / covariance.diagonal().prod())
    full = CholeskyNormal(loc, tril)
    factor = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)
    low = LowRankNormal(loc, factor, torch.zeros(1, 2, dtype=torch.float64))
    within = factor[0] @ factor[0].T + torch.eye(2, dtype=torch.float64)
    for q, expected in ((full, truth), (low, -0.5 * torch.log(torch.linalg.det(within) / within.diagonal().prod()))):
        joint, product = log_mixtures(q, q.sample((40_000,), generator()), torch.zeros(1, 1))
        draws = (joint - product).flatten()
        assert abs(draws.mean() - expected) < 5 * draws.std() / math.sqrt(len(draws))


def test_gradients_move_the_total_correlation():
    """Descending the charge of beta alone makes the aggregated posterior's dimensions independent."""
    loc = torch.tensor([[1.2, 1.2], [-1.2, -1.2], [1.1, 1.3], [-1.3, -1.1]], requires_grad=True)
    log_scale = torch.zeros(4, 2)
    optimizer = torch.optim.Adam([loc], lr=0.1)
    before = after = None
    for step in range(150):
        z = Pathwise(20, torch.Generator().manual_seed(step))("z", StandardNormal((2,)), Normal(loc, log_scale))
        trace = Trace(Normal(torch.zeros(20, 4, 1), torch.zeros(())), (z,))
        charge = TotalCorrelationRate(0.0, 1.0, 0.0)(trace).mean()
        before, after = charge.item() if before is None else before, charge.item()
        optimizer.zero_grad()
        charge.backward()
        optimizer.step()
    assert before > 0.1
    assert after < 0.2 * before


def test_what_it_cannot_split_is_refused_by_name():
    q = Delta(torch.zeros(3, 2))
    with pytest.raises(CombinationError, match="Delta has none known; use posterior=normal"):
        TotalCorrelationRate()(trace_of(q, torch.zeros(1, 3, 2), StandardNormal((2,))))
    below = Latent("z1", torch.zeros(2, 3, 2), StandardNormal((2,)), Normal(torch.zeros(2, 3, 2), torch.zeros(())))
    px = Normal(torch.zeros(2, 3, 1), torch.zeros(()))
    for latents in ((below,), (below, below), ()):
        with pytest.raises(CombinationError, match="one level of latents"):
            TotalCorrelationRate()(Trace(px, latents))
    coins = Bernoulli(torch.zeros(3, 2))
    with pytest.raises(ConfigError, match="a batch of 3 examples, expected at most N = 2"):
        TotalCorrelationRate().sized(2)(trace_of(coins, torch.zeros(1, 3, 2), Bernoulli(torch.zeros(2))))
