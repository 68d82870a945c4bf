"""The ledger: shapes that would broadcast are refused, levels without weights say so, terms are computed once."""

import math

import pytest
import torch

from lambent.distributions import (
    Bernoulli,
    CholeskyNormal,
    Delta,
    Flat,
    Normal,
    NormalMixture,
    OneHotCategorical,
    StandardNormal,
)
from lambent.draws import Enumerate, Pathwise
from lambent.errors import CombinationError, ShapeError
from lambent.objectives import ELBO, IWAE
from lambent.trace import Latent, Trace

ZERO = torch.zeros(())


def normal(*shape, event_dims=1):
    return Normal(torch.zeros(shape), ZERO, event_dims)


def latent(value=None, p=None, q=None, **settings):
    value = torch.zeros(3, 5, 2) if value is None else value
    return Latent("z", value, StandardNormal((2,)) if p is None else p, normal(5, 2) if q is None else q, **settings)


@pytest.mark.parametrize("x", [(5, 1, 4), (1, 4), (4,), (3, 5, 4), (5, 5), (4, 5)])
def test_x_that_would_be_broadcast_is_refused(x):
    with pytest.raises(ShapeError, match=r"x has shape .* expected \(5, 4\)"):
        Trace(normal(3, 5, 4)).log_px(torch.zeros(x))


def test_the_classic_five_by_five():
    """(1, 5) was due, (5, 5) would have come."""
    px = normal(5, 1, 1)  # batch (5, 1) where (1, 5) was meant
    assert px.log_prob(torch.zeros(5, 1)).shape == (5, 5)
    with pytest.raises(ShapeError, match=r"x has shape \(5, 1\), expected \(1, 1\)"):
        Trace(px).log_px(torch.zeros(5, 1))


@pytest.mark.parametrize(
    "px", [normal(3, 5, 5, event_dims=0), normal(5, 5), torch.distributions.Normal(torch.zeros(3, 5, 5), 1.0)]
)
def test_a_likelihood_that_does_not_say_what_one_example_is(px):
    with pytest.raises(ShapeError, match="declare the dimensions of one example as event"):
        Trace(px).log_px(torch.zeros(5, 5))


class Summed(Bernoulli):
    def log_prob(self, value):
        return super().log_prob(value).sum()


def test_a_likelihood_that_sums_over_examples_is_refused():
    with pytest.raises(ShapeError, match=r"log p\(x\|z\) has shape \(\), expected \(3, 5\)"):
        Trace(Summed(torch.zeros(3, 5, 4))).log_px(torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("p", "q", "which"), [(normal(7, 2), None, "p"), (None, normal(7, 2), "q"), (None, normal(3, 7, 2), "q")]
)
def test_log_densities_that_would_be_broadcast_are_refused(p, q, which):
    level = latent(torch.zeros(3, 1, 2), p, q)
    with pytest.raises((ShapeError, RuntimeError), match=f"log {which}\\(z\\) has shape|must match"):
        _ = getattr(level, f"log_{which}")


def test_rate_is_closed_form_where_there_is_one_and_an_estimate_where_there_is_not():
    q = Normal(torch.full((5, 2), 0.5), ZERO)
    value = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    closed = latent(value, q=q)
    torch.testing.assert_close(closed.rate, torch.full((3, 5), 0.25))
    estimated = latent(value, q=q, analytic=False)
    torch.testing.assert_close(estimated.rate, q.log_prob(value) - StandardNormal((2,)).log_prob(value))
    assert estimated.rate_elements is None
    mixture = NormalMixture(torch.zeros(2), torch.zeros(2, 2), ZERO)
    assert latent(value, mixture, q).kl is None
    torch.testing.assert_close(latent(value, mixture, q).rate, estimated.rate)
    tril = CholeskyNormal(torch.full((5, 2), 0.5), torch.eye(2))
    torch.testing.assert_close(latent(value, q=tril).rate, torch.full((3, 5), 0.25))


def test_what_the_draw_knows_is_not_computed_again():
    known = {"log_p": torch.ones(3, 5), "log_q": torch.full((3, 5), 2.0), "kl": torch.full((3, 5), 3.0)}
    level = latent(known=known)
    assert all(getattr(level, name) is value for name, value in known.items())
    assert level.rate is known["kl"]


def test_log_weight_never_uses_the_closed_form_rate():
    q, x = Normal(torch.ones(5, 2), ZERO), torch.zeros(5, 4)
    trace = Trace(normal(3, 5, 4), (latent(q=q),))
    expected = trace.log_px(x) + StandardNormal((2,)).log_prob(torch.zeros(3, 5, 2)) - q.log_prob(torch.zeros(3, 5, 2))
    torch.testing.assert_close(trace.log_weight(x), expected)
    assert not torch.allclose(trace.log_weight(x), trace.log_px(x) - trace.rate)


def rate_only(*shape):
    return Latent("level 7", None, known={"kl": torch.full(shape, 2.0)})


def test_a_level_that_knows_only_its_rate_has_a_bound_and_no_weight():
    x, trace = torch.zeros(5, 4), Trace(normal(3, 5, 4), (latent(), rate_only(3, 5)))
    elbo = ELBO()(trace, x)
    torch.testing.assert_close(elbo.value, torch.full((5,), -2 * math.log(2 * math.pi) - 2.0))
    assert elbo.kind == "lower bound"
    assert not trace.weighted
    for use in (trace.log_weight, trace.log_mean_weight, lambda x: IWAE()(trace, x)):
        with pytest.raises(CombinationError, match=r"latent 'level 7' only reports a rate.*use objective=elbo"):
            use(x)
    for term in ("log_p", "log_q"):
        with pytest.raises(CombinationError, match="latent 'level 7' only reports a rate"):
            _ = getattr(trace.latents[1], term)


@pytest.mark.parametrize(("p", "q"), [(Flat((2,)), None), (None, Delta(torch.zeros(5, 2)))])
def test_a_level_without_a_density_has_no_weight_and_no_bound(p, q):
    x, trace = torch.zeros(5, 4), Trace(normal(3, 5, 4), (latent(p=p, q=q),))
    assert (trace.normalised, trace.weighted, trace.elbo_kind, trace.evidence_kind) == (
        False,
        False,
        *["not a bound"] * 2,
    )
    with pytest.raises(CombinationError, match=r"flat prior or a point posterior.*use objective=elbo"):
        trace.log_weight(x)


def test_rates_of_several_levels_add_up():
    levels = (latent(q=Normal(torch.ones(5, 2), ZERO)), rate_only(3, 5))
    trace, x = Trace(normal(3, 5, 4), levels), torch.zeros(5, 4)
    torch.testing.assert_close(trace.rate, torch.full((3, 5), 3.0))
    torch.testing.assert_close(trace.distortion(x), -trace.log_px(x))


def test_no_latents_is_exact():
    trace, x = Trace(normal(1, 5, 4)), torch.ones(5, 4)
    for estimate in (ELBO()(trace, x), IWAE()(trace, x)):
        assert estimate.kind == "exact"
        torch.testing.assert_close(estimate.value, torch.full((5,), -2 * math.log(2 * math.pi) - 2))


def coins():
    q = Bernoulli(torch.tensor([[0.3, -1.0], [2.0, 0.0]]))
    z = Enumerate()("coins", Bernoulli(torch.zeros(2)), q)
    return z, q


def test_enumerated_coins_give_the_exact_evidence_and_averages_under_q():
    """Two coins, four states: p(x) by hand; the ELBO at any q is log p - KL(q||p(z|x)) and below it."""
    z, q = coins()
    px = Normal(z.value.sum(-1, keepdim=True), ZERO)
    x, trace = torch.tensor([[1.0], [0.5]]), Trace(px, (z,))
    joint = torch.stack(
        [0.25 * torch.exp(torch.distributions.Normal(float(s), 1.0).log_prob(x[:, 0])) for s in (0, 1, 1, 2)]
    )
    estimate = IWAE()(trace, x)
    torch.testing.assert_close(estimate.value, joint.sum(0).log())
    assert estimate.kind == "exact"
    posterior, mass = joint / joint.sum(0), q.log_prob(z.value).exp()
    expected = joint.sum(0).log() - (mass * (mass / posterior).log()).sum(0)
    torch.testing.assert_close(ELBO()(trace, x).value, expected)
    assert ELBO()(trace, x).kind == "lower bound"


def test_one_level_enumerated_and_one_drawn_by_hand():
    """Each state of y three times, z drawn anew: averages are under q(y), the evidence is the mean of w over both."""
    y_q, scores = OneHotCategorical(torch.tensor([[0.0, 1.0]])), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    y = Enumerate(drawn=3)("y", OneHotCategorical(torch.zeros(2)), y_q)
    z = Pathwise()("z", StandardNormal((1,)), Normal(scores.view(6, 1, 1), ZERO))
    trace, x = Trace(Normal(y.value[..., :1] + z.value, ZERO), (y, z)), torch.zeros(1, 1)
    mass = torch.tensor([1.0, math.e]) / (1 + math.e)
    torch.testing.assert_close(trace.average(scores.view(6, 1)), (mass * torch.tensor([2.0, 5.0])).sum(0, keepdim=True))
    log_ratio = trace.log_px(x) + z.log_p - z.log_q
    expected = (log_ratio.exp().view(2, 3).mean(1) * 0.5).sum().log()
    torch.testing.assert_close(IWAE()(trace, x).value, expected.unsqueeze(0))
    assert IWAE()(trace, x).kind == "lower bound"


def test_a_value_that_is_not_a_number_shows_in_the_average():
    mass = torch.tensor([[0.0, math.nan], [-math.inf, math.nan]])
    trace = Trace(normal(2, 2, 1), (latent(torch.zeros(2, 2, 2), log_mass=mass),))
    average = trace.average(torch.tensor([[3.0, 1.0], [-math.inf, 1.0]]))
    assert average[0] == 3.0  # an impossible state counts for nothing
    assert math.isnan(average[1])
