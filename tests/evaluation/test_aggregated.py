"""The exact aggregated posterior and the parts of the rate, against quadrature, enumeration and loops."""

import math

import pytest
import torch
from torch import nn

import lambent.evaluation.aggregated as aggregated
from lambent.distributions import (
    Bernoulli,
    Categorical,
    CholeskyNormal,
    Delta,
    LowRankNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    StandardNormal,
    log_marginals,
)
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.aggregated import AggregatedPosterior, mutual_information, surgery
from lambent.models import VAE

LOC = torch.tensor([[1.5, 1.0], [-1.0, -1.5], [0.2, 0.4]], dtype=torch.float64)
LOG_SCALE = torch.tensor([[-0.5, 0.0], [0.1, -0.3], [-0.2, -0.2]], dtype=torch.float64)
GRID = torch.linspace(-9, 9, 901, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


class Table(nn.Module):
    """Example x, a position, has its own posterior; the model has no more to it than that."""

    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, x, condition=None):
        return self.q.map_parameters(lambda t: t[x.long().flatten()])


class Fixed(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, condition=None):
        return self.p


class DecoderModule(nn.Module):
    def forward(self, z, condition=None):
        return Normal(z[..., :1], torch.zeros(()))


def model_of(q, p):
    return VAE(Fixed(p), Table(q), DecoderModule())


def batch(start, stop):
    return torch.arange(start, stop).unsqueeze(1), None


def expectation(density, log_ratio):
    """E[log_ratio] under a density on the grid, by trapezia (which converge geometrically here)."""
    return float((density * torch.where(density > 1e-300, log_ratio, torch.zeros(()))).sum() * STEP**2)


def normal_truth():
    """MI, KL(q||p), TC, dimension-wise KL on a grid in two dimensions, by densities alone."""
    dims = [
        torch.distributions.Normal(LOC[:, d], LOG_SCALE[:, d].exp()).log_prob(GRID.unsqueeze(1)).exp() for d in (0, 1)
    ]
    each = dims[0].unsqueeze(1) * dims[1].unsqueeze(0)  # (G, G, N)
    joint = each.mean(-1)
    product = dims[0].mean(-1).unsqueeze(1) * dims[1].mean(-1).unsqueeze(0)
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0).log_prob(GRID)
    log_p = standard.unsqueeze(1) + standard
    information = sum(expectation(each[..., n], (each[..., n] / joint).log()) for n in range(3)) / 3
    return (
        information,
        expectation(joint, joint.log() - log_p),
        expectation(joint, (joint / product).log()),
        expectation(joint, product.log() - log_p),
    )


def terms(found):
    return found.mutual_information, found.marginal_kl, found.total_correlation, found.dimension_wise_kl


def assert_surgery(samples=4000):
    q = Normal(LOC, LOG_SCALE)
    found = surgery(model_of(q, StandardNormal((2,), dtype=torch.float64)), batch, 3, samples=samples, seed=1)
    for term, truth in zip(terms(found), normal_truth(), strict=True):
        assert term.se < 0.02
        assert abs(term.value - truth) < 5 * term.se, (term, truth)
    assert found.rate.value == pytest.approx(
        torch.distributions.kl_divergence(
            torch.distributions.Normal(LOC, LOG_SCALE.exp()), torch.distributions.Normal(0.0, 1.0)
        )
        .sum(-1)
        .mean()
        .item(),
        abs=1e-9,
    )
    assert found.rate.value == pytest.approx(found.mutual_information.value + found.marginal_kl.value, abs=1e-9)


def test_the_parts_of_the_rate_are_those_of_quadrature():
    assert_surgery()


FAULTS = {
    "sum for mean over examples": (
        "_mean_of_rows",
        lambda real: lambda self, z, s: real(self, z, s) + math.log(self.n),
    ),
    "the first block alone": (
        "_mean_of_rows",
        lambda real: lambda self, z, s: real(AggregatedPosterior(self.blocks[:1]), z, s),
    ),
    "mean of logs": (
        "_mean_of_rows",
        lambda real: lambda self, z, s: torch.cat([s(q, z.unsqueeze(1)) for q in self.blocks], 1).mean(1),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_mixture_are_caught(fault, monkeypatch):
    name, make = FAULTS[fault]
    monkeypatch.setattr(aggregated, "EXAMPLES", 2)
    monkeypatch.setattr(AggregatedPosterior, name, make(getattr(AggregatedPosterior, name)))
    with pytest.raises(AssertionError):
        assert_surgery(1000)


def test_coins_are_split_as_enumeration_splits_them():
    logits = torch.tensor([[2.0, 1.5, 0.0], [-2.0, -1.0, 0.3]], dtype=torch.float64)
    q, p = Bernoulli(logits), Bernoulli(torch.zeros(3, dtype=torch.float64))
    values = q.enumerate_support(expand=False)
    each = (logits.sigmoid() * values + (1 - logits.sigmoid()) * (1 - values)).prod(-1)  # (8, 2)
    joint, heads = each.mean(1), logits.sigmoid().mean(0)
    product = (heads * values[:, 0] + (1 - heads) * (1 - values[:, 0])).prod(-1)
    truth = (
        float((each * (each / joint.unsqueeze(1)).log()).sum(0).mean()),
        float((joint * (joint * 8).log()).sum()),
        float((joint * (joint / product).log()).sum()),
        float((joint * (product * 8).log()).sum()),
    )
    found = surgery(model_of(q, p), batch, 2, samples=20_000)
    for term, expected in zip(terms(found), truth, strict=True):
        assert term.se < 0.01
        assert abs(term.value - expected) < 5 * term.se


def test_blocks_and_rows_in_any_size_give_the_same_numbers(monkeypatch):
    q = Normal(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(50, 3).double())
    z = q.sample((2,), torch.Generator().manual_seed(1)).flatten(0, 1)
    whole = AggregatedPosterior((q,))
    parts = [q.map_parameters(lambda t, at=at: t[at : at + 7]) for at in range(0, 50, 7)]
    monkeypatch.setattr(aggregated, "NUMBERS", 100)
    split = AggregatedPosterior(parts)
    torch.testing.assert_close(split.log_prob(z), whole.log_prob(z), rtol=0, atol=1e-12)
    torch.testing.assert_close(split.log_marginals(z), whole.log_marginals(z), rtol=0, atol=1e-12)
    by_hand = torch.stack([q.log_prob(row).exp().mean().log() for row in z])
    torch.testing.assert_close(whole.log_prob(z), by_hand, rtol=0, atol=1e-12)


def test_mutual_information_of_a_batch():
    """Unbiased against quadrature; at most log B, and all of it where the posteriors don't meet."""
    draws = [mutual_information(Normal(LOC, LOG_SCALE), 20, torch.Generator().manual_seed(s)) for s in range(200)]
    values = torch.stack(draws)
    assert abs(values.mean() - normal_truth()[0]) < 5 * values.std() / math.sqrt(len(values))
    far = Normal(1000 * torch.arange(5.0).unsqueeze(1), torch.zeros(()))
    assert mutual_information(far).item() == pytest.approx(math.log(5))
    same = Normal(torch.zeros(5, 2), torch.zeros(()))
    assert mutual_information(same).item() == pytest.approx(0, abs=1e-6)
    states = OneHotCategorical(torch.tensor([[50.0, 0, 0], [0, 50.0, 0]]))
    assert mutual_information(states).item() == pytest.approx(math.log(2), abs=1e-6)


def test_standard_errors_cover_the_truth():
    """The z-scores of many seeds have about unit variance: the error is neither forgotten nor padded."""
    q, truth = Normal(LOC, LOG_SCALE), normal_truth()
    model = model_of(q, StandardNormal((2,), dtype=torch.float64))
    found = [terms(surgery(model, batch, 3, samples=50, seed=seed)) for seed in range(200)]
    scores = torch.tensor([[(t.value - x) / t.se for t, x in zip(each, truth, strict=True)] for each in found])
    assert bool((scores.mean(0).abs() < 5 / math.sqrt(200)).all())
    assert bool(((scores.std(0) > 0.8) & (scores.std(0) < 1.25)).all())


def _grid_marginals(q):
    """log of the integral over the other dimension of a two-dimensional density, at three points of each dimension."""
    at = torch.tensor([-0.8, 0.1, 1.3], dtype=torch.float64)
    first = torch.stack(torch.meshgrid(at, GRID, indexing="ij"), -1)
    second = torch.stack(torch.meshgrid(GRID, at, indexing="ij"), -1)
    over = [q.log_prob(first).exp().sum(1) * STEP, q.log_prob(second).exp().sum(0) * STEP]
    return torch.stack(over, -1).log(), torch.stack([at, at], -1)


@pytest.mark.parametrize(
    "q",
    [
        Normal(LOC[0], LOG_SCALE[0]),
        Normal(LOC[0], torch.tensor(0.3, dtype=torch.float64)),
        StandardNormal((2,), dtype=torch.float64),
        CholeskyNormal(LOC[0], torch.tensor([[1.2, 0.0], [-0.7, 0.6]], dtype=torch.float64)),
        LowRankNormal(LOC[0], torch.tensor([[1.0], [-0.9]], dtype=torch.float64), LOG_SCALE[0]),
        torch.distributions.Independent(torch.distributions.Normal(LOC[0], LOG_SCALE[0].exp()), 1),
    ],
    ids=lambda q: type(q).__name__,
)
def test_marginal_densities_are_the_joint_one_integrated(q):
    truth, values = _grid_marginals(q)
    torch.testing.assert_close(log_marginals(q, values), truth, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("q", "dims"),
    [
        (Bernoulli(torch.tensor([[0.3, -1.0], [2.0, 0.0]])), 2),
        (OneHotCategorical(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), 3), 2),
        (OneHotCategorical(torch.randn(3, 4, generator=torch.Generator().manual_seed(0))), 1),
        (Categorical(torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))), 2),
        (Poisson(torch.tensor([[0.3, -1.0], [2.0, 0.0]])), 2),
    ],
    ids=lambda q: type(q).__name__,
)
def test_marginals_of_independent_dimensions_add_up_to_the_joint(q, dims):
    value = q.sample((4,), torch.Generator().manual_seed(1))
    marginals = log_marginals(q, value)
    assert marginals.shape == (4, *q.batch_shape, dims)
    torch.testing.assert_close(marginals.sum(-1), q.log_prob(value))


def test_families_without_marginals_and_models_without_densities():
    assert log_marginals(Delta(torch.zeros(3, 2)), torch.zeros(3, 2)) is None
    assert AggregatedPosterior((Delta(torch.zeros(3, 2)),)).log_marginals(torch.zeros(1, 2)) is None
    normal = StandardNormal((2,))
    with pytest.raises(CombinationError, match="no density"):
        surgery(model_of(Delta(torch.zeros(3, 2)), normal), batch, 3)
    with pytest.raises(ConfigError, match="samples=1: a standard error needs at least 2 draws"):
        surgery(model_of(Normal(LOC, LOG_SCALE), normal), batch, 3, samples=1)
