"""Chains and ladders of 2, 5 and 50 linear Normal levels: bounds, rates and gradients against Gaussian algebra."""

import dataclasses
import math

import pytest
import torch

import lambent.evaluation.bounds as evaluator
from exact import chain_checks as checks, linear_chains as truth
from exact.checks import assert_close
from lambent.distributions import CholeskyNormal, Normal
from lambent.models import MarkovChain
from lambent.models.ladder import Ladder
from lambent.posteriors import AmortisedPosteriorModule, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.trace import Latent, Trace

DEPTHS = (2, 5, 50)
KINDS = tuple(checks.KINDS)
every = pytest.mark.parametrize(("kind", "levels"), [(kind, n) for kind in KINDS for n in DEPTHS])


@pytest.mark.parametrize("levels", DEPTHS)
def test_the_truths_agree_with_each_other(levels):
    """Bayes' rule level by level, upwards and downwards, is the joint conditioned at once; and the bound is log p."""
    chain = truth.chain_of(levels)
    x = chain.observations(3)
    mean, covariance = chain.posterior(x)
    for q in (truth.exact_upwards(chain), truth.exact_downwards(chain)):
        means, factors = q.moments(x)
        factor = torch.cat(factors)
        assert_close(torch.cat(means, 1), mean, 1e-11)
        assert_close(factor @ factor.T, covariance, 1e-12)
        assert_close(truth.elbo(chain, q, x), chain.log_p(x), 1e-10)
        assert_close(truth.chi_square(chain, q, x), 0.0, 1e-8)
    q, gap = truth.mean_field(chain, x[:1])
    assert_close(truth.elbo(chain, q, x[:1]), chain.log_p(x[:1]) - gap, 1e-10)
    assert gap > 0.1


@every
def test_weights_at_the_true_posterior_are_the_evidence(kind, levels):
    checks.constant_weights(kind, levels)


@every
@pytest.mark.parametrize("q", ["exact", "wrong"])
def test_the_bound_and_every_levels_rate(kind, levels, q):
    checks.closed_terms(kind, levels, q)


@pytest.mark.parametrize("levels", DEPTHS)
def test_the_best_mean_field(levels):
    checks.closed_terms("chain", levels, "mean-field")


@every
def test_gradients_of_the_bound(kind, levels):
    checks.gradients(kind, levels)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_drawing(kind):
    checks.sampled_gradients(kind, 3)


@every
def test_bounds_and_rates_through_the_evaluator(kind, levels):
    checks.evaluated(kind, levels)


@every
def test_the_mean_weight_is_the_evidence_and_its_variance_the_gap(kind, levels):
    checks.weights_of_mean_one(kind, levels)


@every
def test_more_samples_raise_the_bound_towards_the_evidence(kind, levels):
    checks.ordered(kind, levels)


def forgotten(patch, levels):
    """One level's log p, in the middle."""
    real = Latent.log_p.fget
    name = f"z{max(1, levels // 2)}"
    patch.setattr(Latent, "log_p", property(lambda z: real(z) * (0.0 if z.name == name else 1.0)))


def swapped(model):
    def plant(patch, levels):
        real = model.forward

        def forward(self, *args):
            trace = real(self, *args)
            return dataclasses.replace(trace, latents=trace.latents[::-1])

        patch.setattr(model, "forward", forward)

    return plant


def misplaced(patch, levels):
    """Two conditionals of a chain change places; they speak of as many dimensions."""
    real = MarkovChain._scored

    def scored(self, level, latents, condition):
        if level not in (0, 3):
            return real(self, level, latents, condition)
        p = self.conditionals[3 - level].given(latents[level + 1].value, condition)
        return dataclasses.replace(latents[level], p=p, analytic=False)

    patch.setattr(MarkovChain, "_scored", scored)


def doubled(patch, levels):
    """The lowest level's rate counts twice."""
    real = Latent.rate.fget
    patch.setattr(Latent, "rate", property(lambda z: real(z) * (2 if z.name == "z1" else 1)))


def one_more(patch, levels):
    patch.setattr(
        Trace,
        "log_mean_weight",
        lambda self, x: torch.logsumexp(self.log_weight(x), 0) - math.log(self.samples + 1),
    )


def one_more_in_the_evaluator(patch, levels):
    real = evaluator._Stream.add

    def add(self, trace, x, count, noise):
        real(self, trace, x, count, noise)
        if self.count == count:
            self.log_corrected = self.log_corrected - math.log1p(1 / count)

    patch.setattr(evaluator._Stream, "add", add)


def wide_prior(patch, levels):
    """Variance 1.01."""
    half = torch.tensor(0.5 * math.log(1.01)).double()
    patch.setattr(NormalPriorModule, "forward", lambda self, c=None: Normal(torch.zeros(self.latent).double(), half))


def variance_for_scale(patch, levels):
    real = NormalPosterior.distribution

    def distribution(self, *args):
        p = real(self, *args)
        return Normal(p.loc, 2 * p.log_scale)

    patch.setattr(NormalPosterior, "distribution", distribution)


def wide_draws(patch, levels):
    real = CholeskyNormal._sample
    patch.setattr(CholeskyNormal, "_sample", lambda self, *a: self.loc + 1.5 * (real(self, *a) - self.loc))


def cut_path(patch, levels):
    """No gradient goes from a chain's level to the one it was inferred from."""
    real = AmortisedPosteriorModule.given
    patch.setattr(AmortisedPosteriorModule, "given", lambda self, z, c=None: real(self, z.detach(), c))


def cut_state(patch, levels):
    """The same of a ladder."""
    real = Ladder._next
    patch.setattr(Ladder, "_next", lambda self, level, s, z, c: real(self, level, s, z.detach(), c))


def wrong_terms(kind, levels):
    checks.closed_terms(kind, levels, "wrong")


BOTH = {
    "a level's log p forgotten": (forgotten, checks.constant_weights),
    "a rate counted twice": (doubled, wrong_terms),
    "a rate counted twice, as the evaluator sees it": (doubled, checks.evaluated),
    "K off by one": (one_more, checks.constant_weights),
    "K off by one in the evaluator": (one_more_in_the_evaluator, checks.constant_weights),
    "prior variance 1.01 in the weights": (wide_prior, checks.constant_weights),
    "prior variance 1.01 in the bound": (wide_prior, wrong_terms),
    "prior variance 1.01, as the evaluator sees it": (wide_prior, checks.evaluated),
    "variance for a conditional's scale": (variance_for_scale, wrong_terms),
}
FAULTS = [(kind, name, *found) for kind in KINDS for name, found in BOTH.items()] + [
    ("chain", "levels in the wrong order", swapped(MarkovChain), wrong_terms),
    ("ladder", "levels in the wrong order", swapped(Ladder), wrong_terms),
    ("chain", "draws of 1.5 times the scale", wide_draws, checks.evaluated),
    ("chain", "two conditionals exchanged", misplaced, wrong_terms),
    ("chain", "the path between levels cut", cut_path, checks.gradients),
    ("ladder", "the path between levels cut", cut_state, checks.gradients),
]


CASES = [
    pytest.param(kind, plant, check, levels, id=f"{kind} of {levels}: {name}")
    for kind, name, plant, check in FAULTS
    for levels in DEPTHS
    if plant is not misplaced or levels > 2
]


@pytest.mark.parametrize(("kind", "plant", "check", "levels"), CASES)
def test_a_planted_fault_is_caught(kind, plant, check, levels, monkeypatch):
    """Each check passes without it: see the tests above."""
    plant(monkeypatch, levels)
    with pytest.raises(AssertionError) as caught:
        check(kind, levels)
    print(f"caught: {kind} of {levels}:", *str(caught.value).splitlines()[:1])
