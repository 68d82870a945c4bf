"""C11: the mean gradient of every estimator is the derivative of the bound it claims to raise; the biased one fails."""

import pytest
import torch

from exact import checks
from exact.tiny import Nodes, ones, quadratic_nodes, tiny
from exact.truths import CASES, gradient
from lambent.objectives import ELBO, Beta

BIASED = {("stl", "iwae")}
EVERY = [
    (draw, objective, samples)
    for draw in checks.DRAWS
    for objective in checks.OBJECTIVES
    for samples in checks.SIZES
    if (draw, objective) not in BIASED or samples == 1
]


@pytest.mark.parametrize("case", ["C2", "C3"])
@pytest.mark.parametrize(("draw", "objective", "samples"), EVERY)
def test_mean_gradient_is_the_bounds_derivative(draw, objective, samples, case):
    checks.unbiased_gradient(draw, objective, samples, case)


@pytest.mark.parametrize("case", ["C2", "C3"])
@pytest.mark.parametrize("samples", [5, 50])
def test_sticking_the_landing_is_biased_for_iwae_and_this_test_sees_it(samples, case):
    with pytest.raises(AssertionError, match=r"z = -?[1-9][0-9]{2,}"):
        checks.unbiased_gradient("stl", "iwae", samples, case)


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
@pytest.mark.parametrize("draw", ["stl", "dreg"])
def test_no_variance_at_the_true_posterior(draw, objective):
    checks.no_variance_at_the_posterior(draw, objective)


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_plain_pathwise_has_variance_there(objective):
    with pytest.raises(AssertionError, match="off by"):
        checks.no_variance_at_the_posterior("pathwise", objective)


@pytest.mark.parametrize(
    ("point", "samples", "times"), [((0.52, -0.33), 50, 1000), ((0.52, -0.33), 5, 100), ("C2", 50, 50)]
)
def test_doubly_reparameterised_gradients_vary_less_near_the_optimum(point, samples, times):
    """At K = 1 they are sticking the landing; the figures hold at these points only, all within 0.5 of the optimum."""
    plain, doubly = (
        checks.gradients_per_example(d, "iwae", samples, point, 4000)[:2].std(1) for d in ("pathwise", "dreg")
    )
    assert bool((plain > times * doubly).all())


def test_one_sample_doubly_reparameterised_is_sticking_the_landing():
    stl, dreg = (checks.gradients_per_example(d, "iwae", 1, "C2", 100) for d in ("stl", "dreg"))
    assert torch.equal(stl, dreg)


def test_enumeration_gives_the_exact_gradient():
    checks.exact_mixture_gradient()


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_a_modified_rate_changes_the_gradient_and_nothing_else(beta):
    """The loss is E[-log p(x|z)] + beta KL, whose derivative at C3 is written out; the value stays the ELBO."""
    model, x = tiny("C3"), ones(1)
    estimate = ELBO(Beta(beta))(model(x, Nodes(nodes=quadratic_nodes(1))), x)
    mean, scale = CASES["C3"][0], 0.8
    q = model.posterior
    found = torch.autograd.grad(estimate.losses["all"], [q.mean, q.log_scale])
    checks.assert_close(found[0], -(1 - mean) + beta * mean, 1e-12)
    checks.assert_close(found[1], scale**2 + beta * (scale**2 - 1), 1e-12)
    checks.assert_close(estimate.value, ELBO()(model(x, Nodes(nodes=quadratic_nodes(1))), x).value, 0.0)
    if beta == 1:
        checks.assert_close(
            torch.cat(found).flatten(), -torch.tensor(gradient(1, *CASES["C3"])[:2], dtype=torch.float64), 1e-10
        )


def test_a_penalty_reaches_both_groups_of_a_doubly_reparameterised_loss():
    """Whatever parameters a penalty concerns, its gradient arrives once."""
    from lambent.draws import DoublyReparameterised, StickingTheLanding
    from lambent.models import VAE
    from lambent.objectives import IWAE

    parts, x = tiny("C2"), ones(1)
    shift = parts.likelihood.shift
    penalty = {"both": lambda latent: latent.value.square().sum((0, 2)) + shift.square().sum() + 3 * shift.sum()}
    model = VAE(parts.prior, parts.posterior, parts.likelihood, penalty)

    def slopes(penalised):
        run = model if penalised else parts
        losses = IWAE()(run(x, DoublyReparameterised(5, checks.generator(0))), x).losses
        of_q, of_p = (losses.get(group, losses.get("all")) for group in ("inference", "generative"))
        assert ("all" in losses) is not penalised
        q = torch.autograd.grad(of_q, parts.posterior.mean, retain_graph=True)[0]
        return q, torch.autograd.grad(of_p, shift)[0]

    z = parts(x, StickingTheLanding(5, checks.generator(0))).latents[0].value
    (with_q, with_p), (without_q, without_p) = slopes(True), slopes(False)
    checks.assert_close(with_q - without_q, 2 * z.sum(), 1e-12)
    checks.assert_close(with_p - without_p, 3.0, 1e-12)


def check_one_pass(samples: int) -> None:
    """One pass back gives p the bound's gradient, and q that of its own loss, as a penalty of 0 has them made apart."""
    from lambent.draws import DoublyReparameterised
    from lambent.models import VAE
    from lambent.objectives import IWAE

    parts, x = tiny("C3"), ones(1)
    apart = VAE(parts.prior, parts.posterior, parts.likelihood, {"none": lambda latent: latent.value.new_zeros(())})
    q, p = list(parts.posterior.parameters()), list(parts.likelihood.parameters())
    draw = DoublyReparameterised(samples)
    once = IWAE()(parts(x, draw.using(checks.generator(0))), x).losses
    twice = IWAE()(apart(x, draw.using(checks.generator(0))), x).losses
    assert (set(once), set(twice)) == ({"all"}, {"generative", "inference"})
    found = torch.autograd.grad(once["all"], [*q, *p])
    truth = [
        *torch.autograd.grad(twice["inference"], q, retain_graph=True),
        *torch.autograd.grad(twice["generative"], p),
    ]
    for a, b in zip(found, truth, strict=True):
        checks.assert_close(a, b, 1e-12)


@pytest.mark.parametrize("samples", [1, 5, 50])
def test_one_pass_serves_both_sides_of_a_doubly_reparameterised_bound(samples):
    check_one_pass(samples)


@pytest.mark.parametrize("fault", ["left out", "twice", "of another sample"])
def test_path_weights_that_are_wrong_are_caught(monkeypatch, fault):
    from lambent.trace import PathWeights

    right = PathWeights.on
    wrong = {
        "left out": lambda self, value: value,
        "twice": lambda self, value: right(self, right(self, value)),
        "of another sample": lambda self, value: right(Turned(self), value),
    }

    class Turned:
        def __init__(self, weights):
            self.weights = weights

        @property
        def factors(self):
            return None if self.weights.factors is None else self.weights.factors.roll(1, 0)

    monkeypatch.setattr(PathWeights, "on", wrong[fault])
    with pytest.raises(AssertionError):
        check_one_pass(5)


def test_judging_a_trace_again_changes_nothing():
    """The objective sets the weights of a path; it doesn't add to them."""
    from lambent.draws import DoublyReparameterised
    from lambent.objectives import IWAE

    model, x = tiny("C3"), ones(1)
    trace = model(x, DoublyReparameterised(5, checks.generator(0)))
    first, second = (
        torch.autograd.grad(IWAE()(trace, x).losses["all"], model.posterior.mean, retain_graph=True)[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)
