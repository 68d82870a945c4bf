"""The delta-VAE's promise: no head output gives a rate under delta, and one gives delta itself."""

import math

import mpmath
import pytest
import scipy.stats as st
import torch
from torch import distributions as td

from lambent.distributions import AR1, Normal, StandardNormal, ar1 as process, closed_kl
from lambent.errors import CombinationError, ConfigError
from lambent.posteriors import BoundedNormalPosterior, bounded
from lambent.priors import AR1Prior
from lambent.recipes import configure
from lambent.shapes import Shapes
from support.distribution_checks import check_uniform
from support.random_numbers import generator, numbers

SETTINGS = [(1, (0.9,)), (2, (0.5,)), (4, (0.9, 0.0, 0.3)), (6, (0.99, 0.7)), (12, (0.9999,))]
LATENT = 12


def settings(steps, alpha):
    return {"sequence_length": steps, "alpha": alpha if len(alpha) == LATENT // steps else alpha[:1]}


def prior(steps, alpha):
    return AR1Prior(**settings(steps, alpha)).process(LATENT)


def dense(p):
    """The joint Normal of the path: covariance a_i^|s - t| within a dimension, none between them."""
    d, lag = len(p.alpha), (torch.arange(p.steps).unsqueeze(1) - torch.arange(p.steps)).abs()
    covariance = torch.zeros(p.steps, d, p.steps, d, dtype=torch.float64)
    for i, a in enumerate(p.alpha.tolist()):
        covariance[:, i, :, i] = torch.tensor(a, dtype=torch.float64) ** lag
    covariance = covariance.reshape(p.steps * d, p.steps * d)
    return td.MultivariateNormal(torch.zeros(p.steps * d, dtype=torch.float64), covariance)


def dense_kl(loc, log_scale, p):
    q = td.MultivariateNormal(loc, scale_tril=torch.diag_embed(log_scale.exp()))
    return td.kl_divergence(q, dense(p))


def check_density_and_kl(p):
    z = 2 * numbers(0, 7, 3, *p.event_shape)
    torch.testing.assert_close(p.log_prob(z), dense(p).log_prob(z), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.entropy(), dense(p).entropy(), rtol=1e-9, atol=1e-9)
    loc, log_scale = numbers(1, 5, *p.event_shape), 0.5 * numbers(2, 5, *p.event_shape) - 1
    torch.testing.assert_close(
        closed_kl(Normal(loc, log_scale), p), dense_kl(loc, log_scale, p), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(("steps", "alpha"), SETTINGS[:-1])
def test_density_and_kl_are_the_dense_normals(steps, alpha):
    check_density_and_kl(prior(steps, alpha))


def test_near_one_the_dense_formula_loses_digits_and_ours_does_not():
    p = AR1(torch.tensor([0.9999], dtype=torch.float64), 3)
    loc, log_scale = numbers(0, 3), numbers(1, 3) - 2
    with_50_digits = _kl_in_50_digits(loc.tolist(), log_scale.tolist(), 0.9999)
    assert closed_kl(Normal(loc, log_scale), p).item() == pytest.approx(with_50_digits, rel=1e-11)


def _kl_in_50_digits(loc, log_scale, alpha):
    with mpmath.workdps(50):
        a = mpmath.mpf(alpha)
        covariance = mpmath.matrix(3, 3)
        for s in range(3):
            for t in range(3):
                covariance[s, t] = a ** abs(s - t)
        inverse, m = covariance**-1, mpmath.matrix(loc)
        variances = [mpmath.exp(2 * mpmath.mpf(x)) for x in log_scale]
        trace = sum(inverse[i, i] * v for i, v in enumerate(variances))
        log_det = mpmath.log(mpmath.det(covariance)) - sum(mpmath.log(v) for v in variances)
        return float((trace + (m.T * inverse * m)[0] - 3 + log_det) / 2)


@pytest.mark.parametrize(("steps", "alpha"), SETTINGS[:-1])
def test_draws_follow_the_density(steps, alpha):
    p = prior(steps, alpha)
    white = torch.linalg.solve_triangular(dense(p).scale_tril, p.sample((5000,), generator(0)).mT, upper=False)
    check_uniform(st.norm.cdf(white.flatten().numpy()))
    neighbours = (white[1:] * white[:-1]).mean(1) * 5000**0.5
    assert neighbours.abs().max() < 5


@pytest.mark.parametrize(("steps", "alpha"), SETTINGS)
def test_the_least_rate_is_the_minimum_over_factorised_normals(steps, alpha):
    p = prior(steps, alpha)
    # convex in (m, s^2): Newton on the stationary point of the dense formula
    best = -0.5 * torch.linalg.inv(dense(p).covariance_matrix).diagonal().log()
    found = dense_kl(torch.zeros(LATENT, dtype=torch.float64), best, p)
    assert p.least_rate().item() == pytest.approx(found.item(), rel=1e-6, abs=1e-9)
    for seed in range(20):
        moved = dense_kl(1e-3 * numbers(seed, LATENT), best + 0.1 * numbers(seed + 20, LATENT), p)
        assert moved > found


HEADS = [0.0, 1.0, 10.0, 1e4]


def check_promise(rate, steps, alpha, dtype=torch.float64):
    family, p = BoundedNormalPosterior(rate=rate, **settings(steps, alpha)), prior(steps, alpha)
    p = p.map_parameters(lambda t: t.to(dtype))
    delta = family.committed_rate(LATENT)
    assert delta == pytest.approx(max(rate, p.least_rate().item()), rel=1e-5)
    slack = (1e-10 if dtype == torch.float64 else 1e-5) * (1 + delta)
    for spread in HEADS:
        head = (spread * numbers(3, 2000, 2 * LATENT)).to(dtype)
        head[:500, :LATENT] = 0
        head[:1, LATENT:] = 1e4
        found = closed_kl(family.distribution(head, LATENT), p)
        assert found.dtype == dtype
        assert found.min().item() >= delta - slack, "a head falls under delta"
        assert found[0].item() == pytest.approx(delta, rel=slack, abs=slack), "delta is not attained"


@pytest.mark.parametrize("rate", [0.0, 0.5, 5.0, 40.0, 2000.0])
@pytest.mark.parametrize(("steps", "alpha"), SETTINGS)
def test_no_head_falls_under_delta_and_one_attains_it(rate, steps, alpha):
    check_promise(rate, steps, alpha)


@pytest.mark.parametrize("rate", [0.0, 0.5, 40.0])
def test_nor_in_float32(rate):
    check_promise(rate, 4, (0.9, 0.0, 0.3), torch.float32)


def test_descent_on_the_rate_ends_at_delta():
    family, p = BoundedNormalPosterior(rate=8.0, sequence_length=4, alpha=(0.9,)), prior(4, (0.9,))
    head = numbers(0, 1, 2 * LATENT).requires_grad_()
    optimizer = torch.optim.Adam([head], lr=0.3)
    for _ in range(150):
        loss = closed_kl(family.distribution(head, LATENT), p).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() >= 8 - 1e-9
    assert loss.item() == pytest.approx(8, abs=0.1)


def test_without_correlation_it_is_a_standard_normal():
    p = AR1(torch.zeros(3).double(), 4)
    z, q = numbers(0, 5, 12), Normal(numbers(1, 5, 12), 0.3 * numbers(2, 12))
    torch.testing.assert_close(p.log_prob(z), StandardNormal((12,), dtype=torch.float64).log_prob(z))
    torch.testing.assert_close(closed_kl(q, p), closed_kl(q, StandardNormal((12,), dtype=torch.float64)))
    assert p.least_rate().item() == 0


def _squared_less(cost):
    return 2 * bounded_shrinkage(cost)


def _half_delta(cost):
    return bounded_shrinkage(cost / 2)


bounded_shrinkage = bounded.log_shrinkage


@pytest.mark.parametrize("fault", [_squared_less, _half_delta])
def test_a_bound_off_by_two_is_caught(fault, monkeypatch):
    monkeypatch.setattr(bounded, "log_shrinkage", fault)
    with pytest.raises(AssertionError, match=r"under delta|not attained"):
        check_promise(40.0, 4, (0.9, 0.0, 0.3))


def test_alpha_for_the_innovation_is_caught(monkeypatch):
    monkeypatch.setattr(process.AR1, "innovation", property(lambda p: 1 - p.alpha))
    with pytest.raises(AssertionError):
        check_density_and_kl(prior(4, (0.9, 0.0, 0.3)))


def test_a_least_rate_of_twice_as_many_steps_is_caught(monkeypatch):
    right = AR1.least_rate
    monkeypatch.setattr(process.AR1, "least_rate", lambda p: 2 * right(p))
    with pytest.raises(AssertionError):
        check_density_and_kl(prior(4, (0.9, 0.0, 0.3)))


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("posterior=bounded-normal",), "prior=normal with posterior=bounded-normal: .*; use prior=ar1"),
        (
            ("prior=ar1", "posterior=bounded-normal", "prior.sequence_length=5"),
            "sequence_length 5 against None.*; use the same for both",
        ),
        (("prior=ar1", "posterior=bounded-normal", "posterior.alpha=0.5"), "alpha .0.9,. against .0.5,."),
    ],
)
def test_it_is_committed_against_its_own_prior_only(tokens, said):
    with pytest.raises(CombinationError, match=said):
        configure("vae", tokens=tokens)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sequence_length": 5}, "sequence_length=5 does not divide latent=12; use a divisor"),
        ({"sequence_length": 4, "alpha": (0.1, 0.2)}, "2 values of alpha for 3 dimensions a step; use 1 or 3"),
    ],
)
def test_steps_that_do_not_fit_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        AR1Prior(**given).build(Shapes((4,), LATENT))


def test_the_papers_formula():
    """Razavi et al. 2019: 1/2 sum_k ((n - 2) ln(1 + a_k^2) - ln(1 - a_k^2))."""
    p = AR1(torch.tensor([0.9, 0.5], dtype=torch.float64), 7)
    assert p.least_rate().item() == pytest.approx(
        0.5 * sum(5 * math.log(1 + a * a) - math.log(1 - a * a) for a in (0.9, 0.5)), rel=1e-14
    )
