"""Prior and importance sampling against exact evidence, the bound's quadrature, and the weights' own variance."""

import math

import pytest
import torch

import lambent.evaluation.estimates as module
from exact.checks import assert_close
from exact.tiny import batch_of, mixture, mixture_x, ones, tiny
from exact.truths import CASES, LOG_P, MIXTURE, assert_mean, bound
from lambent.draws import Ancestral, Pathwise
from lambent.errors import CombinationError
from lambent.evaluation.estimates import importance_sampling, prior_sampling
from lambent.recipes import configure
from lambent.shapes import Shapes

N = 20_000
P = math.exp(LOG_P)
SPREAD = (math.exp(-1 / 3) / (2 * math.pi * math.sqrt(3))) / P**2 - 1
"""Var(w) / p(x)^2 for w = N(1; z, 1), z ~ N(0, 1): the integral of N(1; z, 1)^2 N(z; 0, 1) by completing the square."""


def prior_sampling_is_unbiased():
    """E mean_k p(x|z_k) = p(x), and E log of it is L_K of the proposal N(0, 1)."""
    found = prior_sampling(tiny("C1", N), batch_of(ones(N)), N, samples=10)
    assert_mean(found.log_p.exp(), P, 5e-3)
    assert_mean(found.log_p, bound(10, *CASES["C2"]).item(), 0.03)


def chunks_are_one_piece():
    """K = 1500 goes in several chunks, 48 examples at a time."""
    n = 480
    found = prior_sampling(tiny("C1", n), batch_of(ones(n)), n, samples=1500)
    assert_mean(found.log_p.exp(), P, 5e-3)
    assert_mean(found.effective, 1500 / (1 + SPREAD), 20)


def claimed_errors_are_true():
    """The mean of the squared standard errors is the variance of the estimates, (E w^2 / p^2 - 1) / K."""
    n, samples = 4000, 500
    found = prior_sampling(tiny("C1", n), batch_of(ones(n)), n, samples=samples, seed=1)
    assert_mean(samples * found.se.square(), SPREAD, 0.02)
    assert_mean(samples * (found.log_p - LOG_P).square(), SPREAD, 0.2)


def states_of_a_mixture():
    """Ancestral states of C6: unbiased too."""
    found = prior_sampling(mixture(), batch_of(mixture_x(N)), N, samples=20)
    assert_mean(found.log_p.exp(), math.exp(MIXTURE.log_p()), 5e-3)


CHECKS = [prior_sampling_is_unbiased, chunks_are_one_piece, claimed_errors_are_true, states_of_a_mixture]


@pytest.mark.parametrize("check", CHECKS)
def test_prior_sampling(check):
    check()


def test_importance_sampling_from_the_posterior_is_the_evidence():
    found = importance_sampling(tiny("C1", 5), batch_of(ones(5)), 5, samples=7)
    assert_close(found.log_p, LOG_P, 1e-12)
    assert_close(found.effective, 7.0, 1e-9)
    assert_close(found.se, 0.0, 1e-6)


def test_importance_sampling_is_unbiased():
    found = importance_sampling(tiny("C3", N), batch_of(ones(N)), N, samples=10)
    assert_mean(found.log_p.exp(), P, 5e-3)
    assert_mean(found.log_p, bound(10, *CASES["C3"]).item(), 0.03)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    model, batch = tiny("C1", 40), batch_of(ones(40))
    first, again, other = (prior_sampling(model, batch, 40, samples=30, seed=seed).log_p for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first != other).all()
    assert len(first.unique()) == 40


def test_no_weight_at_all_is_no_effective_sample():
    found = prior_sampling(tiny("C1", 2), batch_of(1e200 * ones(2)), 2, samples=5)
    assert found.log_p.tolist() == [-math.inf] * 2
    assert found.effective.tolist() == [0.0] * 2


def test_a_model_without_weights_is_refused():
    config = configure("ae", tokens=("latent=2",))
    model = config.model.build(config, Shapes((3,), 2))
    with pytest.raises(CombinationError, match="prior=normal posterior=normal"):
        importance_sampling(model, batch_of(torch.zeros(4, 3)), 4, samples=5)


def from_the_posterior(patch):
    """Draws of q without the ratio p / q, that is exp E_q log-like scores of what fits."""

    def wrong(model, x, condition, samples, noise):
        log_px = model(x, Pathwise(samples=samples, generator=noise), condition).log_px(x).double()
        return torch.stack([log_px.logsumexp(0), (2 * log_px).logsumexp(0)])

    patch.setattr(module, "_from_prior", wrong)


def mean_of_logs(patch):
    def wrong(model, x, condition, samples, noise):
        log_px = model(None, Ancestral(samples=samples, generator=noise, batch=len(x)), condition).log_px(x).double()
        return torch.stack([log_px.mean(0) + math.log(samples), (2 * log_px).logsumexp(0)])

    patch.setattr(module, "_from_prior", wrong)


def last_chunk_only(patch):
    patch.setattr(module.torch, "logaddexp", lambda before, now: now)


def same_noise_in_every_chunk(patch):
    real = module.Ancestral

    def wrong(samples=1, generator=None, batch=1):
        return real(samples=samples, generator=torch.Generator().manual_seed(0), batch=batch)

    patch.setattr(module, "Ancestral", wrong)


def squares_not_squared(patch):
    real = module._from_prior
    patch.setattr(module, "_from_prior", lambda *a: (lambda rows: torch.stack([rows[0], rows[0]]))(real(*a)))


FAULTS = [
    (from_the_posterior, prior_sampling_is_unbiased),
    (mean_of_logs, prior_sampling_is_unbiased),
    (last_chunk_only, chunks_are_one_piece),
    (same_noise_in_every_chunk, prior_sampling_is_unbiased),
    (squares_not_squared, claimed_errors_are_true),
    (squares_not_squared, chunks_are_one_piece),
]


@pytest.mark.parametrize(("plant", "check"), FAULTS)
def test_a_planted_fault_is_caught(plant, check, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError) as caught:
        check()
    print(f"caught: {plant.__name__}:", *str(caught.value).splitlines()[:1])
