"""Factors of single levels against weights by hand, on known traces; schedules; and the faults that these must show."""

import pytest
import torch

import lambent.objectives.rates_by_level as by_level
from lambent.distributions import Bernoulli, Normal, OneHotCategorical, StandardNormal
from lambent.draws import Enumerate, Score
from lambent.errors import CombinationError
from lambent.objectives import ELBO, FreeBits, KLBalancing, LevelWarmUp, SumOfRates
from lambent.recipes import configure
from lambent.trace import Latent, Trace

ZERO = torch.zeros(())
X = torch.zeros(2, 1)
LOG_PX = Normal(torch.zeros(1), ZERO).log_prob(torch.zeros(1)).item()
KLS = (torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]))
"""Of each level and example: means 0.25, 1.5 and 4."""
DIMS = (4, 2, 1)
"""s_l E[rate_l] is 1, 3 and 4: gamma is 3/8, 9/8 and 12/8."""
GAMMA = (0.375, 1.125, 1.5)


def level(name, kl, dims):
    return Latent(name, None if dims is None else torch.zeros(1, 2, dims), known={"kl": kl})


def trace_of(kls=KLS, dims=DIMS, samples=1):
    latents = [level(f"z{i + 1}", kl.expand(samples, 2), d) for i, (kl, d) in enumerate(zip(kls, dims, strict=True))]
    return Trace(Normal(torch.zeros(samples, 2, 1), ZERO), tuple(latents))


def charged_by(factors, kls=KLS):
    return sum(w * kl for w, kl in zip(factors, kls, strict=True))


WARM = LevelWarmUp(steps=10, stagger=4, start=0.2)
TABLE = {
    "bottom-first": {0: (0.2, 0.2, 0.2), 5: (0.6, 0.28, 0.2), 12: (1, 0.84, 0.52), 17: (1, 1, 0.92), 18: (1, 1, 1)},
    "top-first": {0: (0.2, 0.2, 0.2), 5: (0.2, 0.28, 0.6), 12: (0.52, 0.84, 1), 17: (0.92, 1, 1), 18: (1, 1, 1)},
}


def check_warm_up():
    for order, rows in TABLE.items():
        rate = LevelWarmUp(10, 4, order, 0.2).over(3)
        for step, expected in rows.items():
            torch.testing.assert_close(rate.at(step)(trace_of()), charged_by(expected), msg=f"{order} at {step}")
            assert rate.at(step).is_bound == rate.at(step).settled == (step >= 18), f"{order} at {step}"


def check_balance():
    trace = trace_of()
    assert by_level.balance(trace).tolist() == pytest.approx(GAMMA)
    for start, factor in ((0.0, 0.5), (0.4, 0.7), (1.0, 1.0)):
        rate = KLBalancing(steps=10, start=start).at(5)
        torch.testing.assert_close(rate(trace), factor * charged_by(GAMMA))
        assert not rate.is_bound
        assert not rate.settled
    for step in (10, 10_000):
        settled = KLBalancing(steps=10, start=0.4).at(step)
        assert settled.is_bound
        assert torch.equal(settled(trace), trace.rate)


def test_each_level_is_warmed_up_at_its_own_time():
    check_warm_up()


def test_levels_are_balanced_in_proportion_to_rate_times_size_until_the_end():
    check_balance()


FAULTS = {
    "levels from the other end": (
        LevelWarmUp,
        "factors_of",
        lambda right: lambda rate, n: right(rate, n).flip(0),
        check_warm_up,
    ),
    "no stagger": (
        LevelWarmUp,
        "factors_of",
        lambda right: lambda rate, n: right(rate, 1).expand(n),
        check_warm_up,
    ),
    "settled with the first level": (
        LevelWarmUp,
        "settled",
        lambda right: property(lambda rate: rate.step >= rate.steps),
        check_warm_up,
    ),
    "size left out": (by_level, "_size", lambda right: lambda latent: 1, check_balance),
    "weights that rise where the rate is small": (
        by_level,
        "balance",
        lambda right: lambda trace: 1 / right(trace),
        check_balance,
    ),
    "weights that sum to 1": (by_level, "balance", lambda right: lambda trace: right(trace) / 3, check_balance),
    "balanced for ever": (KLBalancing, "settled", lambda right: property(lambda rate: False), check_balance),
    "no warm-up of the whole": (
        KLBalancing,
        "factors",
        lambda right: lambda rate, trace: by_level.balance(trace),
        check_balance,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault, monkeypatch):
    where, name, plant, check = FAULTS[fault]
    monkeypatch.setattr(where, name, plant(getattr(where, name)))
    with pytest.raises(AssertionError):
        check()


def test_the_number_of_levels_decides_when_a_warm_up_is_over():
    assert not WARM.at(10_000).is_bound  # nobody said how many
    assert [WARM.over(1).at(step).is_bound for step in (9, 10)] == [False, True]
    assert [WARM.over(40).at(step).is_bound for step in (165, 166)] == [False, True]
    config = configure("iwae-2layer", tokens=("objective=elbo", "rate=level-warm-up", "upper_latents=[6,5,4]"))
    rate = config.charged
    assert rate.levels == 4
    assert [rate.at(step).settled for step in (12_999, 13_000)] == [False, True]
    assert config.objective.rate == rate


@pytest.mark.parametrize("rate", [LevelWarmUp(steps=10, stagger=0).over(3).at(5), KLBalancing(steps=10).at(5)], ids=str)
def test_what_is_reported_is_the_plain_bound(rate):
    estimate, plain = ELBO(rate)(trace_of(), X), ELBO()(trace_of(), X)
    assert torch.equal(estimate.value, plain.value)
    assert estimate.kind == "lower bound"
    assert estimate.losses["all"].item() < plain.losses["all"].item()


@pytest.mark.parametrize("rate", [LevelWarmUp(steps=10).over(1).at(5), KLBalancing(steps=10).at(5)], ids=str)
def test_one_level_is_warmed_up_as_usual_and_none_costs_nothing(rate):
    for dims in (None, 3):
        trace = trace_of(KLS[1:2], (dims,))
        torch.testing.assert_close(rate(trace), 0.5 * KLS[1])
    assert rate(Trace(trace_of().px)).item() == 0


def test_levels_without_values_are_charged_too():
    trace = trace_of(dims=(None, 2, None))
    assert by_level.balance(trace).tolist() == pytest.approx([3 * 0.25 / 7.25, 3 * 3 / 7.25, 3 * 4 / 7.25])
    rate = LevelWarmUp(steps=10, stagger=4).over(3).at(12)
    torch.testing.assert_close(rate(trace), charged_by((1, 0.8, 0.4)))
    assert FreeBits(2.0, "level")(trace).tolist() == [[2 + 2 + 4] * 2]


def test_rates_of_no_nats_and_estimates_below_none_leave_finite_weights():
    nothing = trace_of((torch.zeros(1, 2),) * 3)
    assert by_level.balance(nothing).tolist() == [1, 1, 1]
    below = trace_of((torch.tensor([[-1.0, -2.0]]), *KLS[1:]))
    assert by_level.balance(below).tolist() == pytest.approx([0, 3 * 3 / 7, 3 * 4 / 7])


def test_weights_take_no_gradient_of_their_own():
    """d/dx of gamma x at gamma(x) held fixed: with the weights in the graph it would be another number."""
    x = torch.tensor(2.0, requires_grad=True)
    trace = trace_of((x * KLS[0], KLS[1], x * KLS[2]))
    gamma = by_level.balance(trace)
    (found,) = torch.autograd.grad(KLBalancing(start=1.0)(trace).mean(), x)
    assert found.item() == pytest.approx((gamma[0] * 0.25 + gamma[2] * 4).item())


def coins(logits, draw, name):
    return draw(name, Bernoulli(torch.zeros(2)), Bernoulli(logits))


@pytest.mark.parametrize("rate", [LevelWarmUp(steps=10, stagger=4).over(2).at(7), KLBalancing(steps=10).at(7)], ids=str)
def test_scores_credit_each_draw_with_its_part_of_the_charge(rate):
    """E[grad] by many draws is the derivative of the expected charge at fixed weights, summed over all states."""
    logits, below = torch.tensor([[0.5, -1.0]], requires_grad=True), torch.tensor([1.5, -0.5])
    states = Enumerate()("z2", OneHotCategorical(torch.zeros(4)), OneHotCategorical(torch.zeros(1, 4))).value
    values = (states.squeeze(1) @ torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).unsqueeze(1)

    def charge(upper, k):
        z2 = Latent("z2", upper.value, upper.p, upper.q, analytic=False, score=upper.score)
        lower = Latent("z1", torch.zeros(k, 1, 2), known={"kl": (upper.value * below).sum(-1).square()})
        return Trace(Normal(torch.zeros(k, 1, 1), ZERO), (lower, z2))

    drawn = charge(coins(logits, Score(20_000, torch.Generator().manual_seed(0)), "z2"), 20_000)
    factors = rate.factors(drawn)
    loss = ELBO(rate)(drawn, torch.zeros(1, 1)).losses["all"]
    (found,) = torch.autograd.grad(loss, logits)
    q = Bernoulli(logits)
    log_q = q.log_prob(values).squeeze(1)
    kl = log_q - Bernoulli(torch.zeros(2)).log_prob(values).squeeze(1)
    cost = factors[0] * (values.squeeze(1) * below).sum(-1).square() + factors[1] * kl
    (expected,) = torch.autograd.grad((log_q.exp() * cost).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    assert expected.abs().max() > 0.1


def test_free_bits_by_level_by_hand():
    """Means over the batch are 0.25 and 1 in the two dimensions, 1.25 in the level."""
    means = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    z = Latent("z", torch.zeros(3, 2, 2), StandardNormal((2,)), Normal(means, ZERO))
    trace = Trace(Normal(torch.zeros(3, 2, 1), ZERO), (z,))
    found = {nats: FreeBits(nats, "level")(trace) for nats in (0.5, 1.0, 3.0)}
    assert {nats: value.mean().item() for nats, value in found.items()} == {0.5: 1.25, 1.0: 1.25, 3.0: 3.0}
    assert FreeBits(1.0)(trace).mean() == 2.0  # per dimension
    scored = Trace(trace.px, (Latent("z", z.value, z.p, z.q, score=torch.zeros(3, 2)),))
    torch.testing.assert_close(FreeBits(0.5, "level")(scored), torch.tensor([2.0, 0.5]).expand(3, 2))
    assert (FreeBits(3.0, "level")(scored) == 3.0).all()
    assert FreeBits(0.5, "level").is_bound


def test_each_level_has_its_own_floor():
    assert FreeBits(1.0, "level")(trace_of()).tolist() == [[1 + 1.5 + 4] * 2]


@pytest.mark.parametrize("rate", ["level-warm-up", "kl-balancing"])
def test_models_without_levels_refuse_them_by_name(rate):
    for recipe in ("vae", "vq-vae"):
        with pytest.raises(CombinationError, match=f"rate={rate} with model=.*; use rate=warm-up"):
            configure(recipe, tokens=(f"rate={rate}",))
    with pytest.raises(CombinationError, match=f"rate={rate} with model=chain: .*; use rate=warm-up"):
        configure("iwae-2layer", tokens=("objective=elbo", f"rate={rate}", "upper_latents=[]"))
    assert configure("vq-vae-2", tokens=(f"rate={rate}",)).rate.by_level
    assert not SumOfRates.by_level
