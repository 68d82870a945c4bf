"""C11 for control variates and relaxations: the unbiased agree with exact gradients, the biased fail and say so."""

import pytest
import torch

from exact import control_checks
from exact.coins import DOUBLE, TOYS
from exact.control_checks import DRAWS
from lambent.distributions import Bernoulli, OneHotCategorical
from lambent.distributions.relaxed import conditional, harden, noisy, soften
from lambent.draws import Detached, DoublyReparameterised, Enumerate, Mixed, Pathwise, StickingTheLanding
from lambent.objectives import ELBO, IWAE, PIWAE, ReweightedWakeSleep, WakeSleep
from support.random_numbers import generator

UNBIASED = ("rebar", "relax", "score")
BIASED = ("gumbel", "st-gumbel", "straight-through")
EVERY = [
    (draw, toy, objective, samples)
    for draw in UNBIASED
    for toy in TOYS
    for objective in ("elbo", "iwae")
    for samples in (1, 5, 50)
    if samples < 50 or toy == "coin"
]


@pytest.mark.parametrize(("draw", "toy", "objective", "samples"), EVERY)
def test_mean_gradient_is_the_bounds_derivative(draw, toy, objective, samples):
    control_checks.unbiased(draw, toy, objective, samples)


@pytest.mark.parametrize("case", ["C2", "C3"])
@pytest.mark.parametrize("objective", ["elbo", "iwae"])
@pytest.mark.parametrize(
    ("baseline", "samples"), [("running-mean", 1), ("learned", 1), ("leave-one-out", 5), ("leave-one-out", 50)]
)
def test_the_score_function_of_continuous_latents(baseline, samples, objective, case):
    control_checks.score_on_a_line(baseline, objective, samples, case)


@pytest.mark.parametrize("objective", ["miwae", "ciwae"])
@pytest.mark.parametrize("draw", ["rebar", "relax"])
def test_bounds_of_groups(draw, objective):
    control_checks.unbiased(draw, "coin", objective, 4, delta=0.1, n=40_000)


@pytest.mark.parametrize("toy", ["coin", "category"])
@pytest.mark.parametrize("objective", ["elbo", "iwae"])
@pytest.mark.parametrize("samples", [1, 5, 50])
@pytest.mark.parametrize("draw", BIASED)
def test_the_biased_ones_fail_by_far(draw, objective, samples, toy):
    with pytest.raises(AssertionError, match=r"z = -?[1-9][0-9]"):
        control_checks.unbiased(draw, toy, objective, samples, n=8_000 if samples > 1 else 40_000, delta=1.0)


@pytest.mark.parametrize("multi_sample", [False, True])
def test_each_says_whether_it_is_biased(multi_sample):
    unbiased = (DRAWS["rebar"], DRAWS["relax"], DRAWS["score"], Enumerate, Detached, Pathwise, DoublyReparameterised)
    assert all(draw().bias(multi_sample=multi_sample) == "" for draw in unbiased)
    assert all(DRAWS[name]().bias(multi_sample=multi_sample) for name in BIASED)
    assert bool(StickingTheLanding().bias(multi_sample=multi_sample)) is multi_sample
    for name in ("enumerate", "score", *BIASED):
        assert bool(Mixed(discrete=name).bias(multi_sample=multi_sample)) is (name in BIASED)
    assert all(objective.bias for objective in (WakeSleep, ReweightedWakeSleep))
    assert not any(objective.bias for objective in (ELBO, IWAE, PIWAE))


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
@pytest.mark.parametrize("toy", ["coin", "category", "pair"])
@pytest.mark.parametrize("draw", ["rebar", "relax"])
def test_the_controls_loss_is_the_gradients_second_moment(draw, toy, objective):
    control_checks.second_moment(draw, toy, objective)


@pytest.mark.parametrize("toy", ["coin", "pair", "category"])
@pytest.mark.parametrize("draw", ["rebar", "relax"])
def test_the_control_lowers_the_variance(draw, toy):
    before, after = control_checks.control_learns(draw, toy)
    assert after < 0.8 * before


@pytest.mark.parametrize(
    "q",
    [
        Bernoulli(torch.tensor([-8.0, -1.0, 0.0, 2.0, 8.0], dtype=DOUBLE)),
        OneHotCategorical(torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=DOUBLE)),
        OneHotCategorical(torch.tensor([8.0, 0.0, -8.0, 0.5, 0.0, 1.0], dtype=DOUBLE), 3),
        OneHotCategorical(torch.tensor([1.0, -1.0, -3.0, 0.0, 6.0, 0.0], dtype=DOUBLE), 2),
    ],
    ids=["coins", "category", "two of three", "three of two"],
)
def test_noise_given_the_outcome_has_the_law_of_the_noise(q):
    control_checks.outcomes_agree(q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", [Bernoulli, OneHotCategorical])
def test_extreme_logits_keep_outcomes_values_and_gradients(family, dtype):
    """Whatever the outcome, however improbable: it hardens to itself, lies in the simplex, and nothing overflows."""
    numbers = torch.tensor([60.0, -60.0, 0.0, 20.0, -16.0, 88.0], dtype=dtype, requires_grad=True)
    q = family(numbers) if family is Bernoulli else family(numbers, 3)
    every = q.enumerate_support()
    outcome = every.repeat(2000, 1)
    z = conditional(q, outcome, generator(0))
    assert torch.equal(harden(q, z), outcome)
    for temperature in (0.1, 1.0, 10.0):
        for noise in (z, noisy(q, (5000,), generator(1))):
            soft = soften(q, noise, temperature)
            assert bool(((soft >= 0) & (soft <= 1)).all())
            if family is OneHotCategorical:
                sums = q.grouped(soft).sum(-1)
                torch.testing.assert_close(sums, torch.ones_like(sums))
            (slope,) = torch.autograd.grad((soft * soft.detach()).sum(), numbers, retain_graph=True)
            assert bool(torch.isfinite(slope).all())
            assert bool(torch.isfinite(noise).all())
