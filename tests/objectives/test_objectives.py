"""Rate functions, penalties and effective samples against values by hand; what is reported is never modified."""

import math

import pytest
import torch
from torch import nn

from lambent.distributions import Normal, OneHotCategorical, StandardNormal
from lambent.draws import Enumerate, Given, Pathwise
from lambent.errors import CombinationError
from lambent.models import VAE
from lambent.objectives import (
    ELBO,
    IWAE,
    Beta,
    Capacity,
    FreeBits,
    L1Penalty,
    L2Penalty,
    SumOfRates,
    WarmUp,
    effective_samples,
)
from lambent.priors import FlatPriorModule
from lambent.settings import registry
from lambent.trace import Latent, Trace

ZERO = torch.zeros(())
X = torch.zeros(2, 1)
LOG_PX = -0.5 * math.log(2 * math.pi)
MEANS = torch.tensor([[0.0, 2.0], [1.0, 0.0]])  # rates (0, 2) and (.5, 0): 2 and .5 an example, 1.25 in the mean


def trace_of(samples=3, **settings):
    z = Latent("z", torch.zeros(samples, 2, 2), StandardNormal((2,)), Normal(MEANS, ZERO), **settings)
    return Trace(Normal(torch.zeros(samples, 2, 1), ZERO), (z,))


@pytest.mark.parametrize(
    ("rate", "charged"),
    [
        (SumOfRates(), 1.25),
        (Beta(4.0), 5.0),
        (Beta(0.0), 0.0),
        (WarmUp(steps=10, start=0.2, factor=0.6), 0.75),
        (FreeBits(0.0), 1.25),
        (FreeBits(0.5), 0.5 + 1.0),  # means over the batch are .25 and 1 a dimension
        (FreeBits(3.0), 6.0),
        (Capacity(gamma=10.0, capacity=1.0), 2.5),
        (Capacity(gamma=10.0, capacity=2.0), 7.5),
    ],
    ids=str,
)
def test_what_each_rate_function_charges(rate, charged):
    estimate = ELBO(rate)(trace_of(), X)
    assert estimate.losses["all"].item() == pytest.approx(charged - LOG_PX, abs=1e-6)
    torch.testing.assert_close(estimate.value, LOG_PX - torch.tensor([2.0, 0.5]))
    assert estimate.kind == "lower bound"


def test_schedules_of_rates():
    warm = WarmUp(steps=10, start=0.2)
    assert [warm.at(step).factor for step in (0, 5, 10, 1000)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    assert [warm.at(step).is_bound for step in (0, 9, 10)] == [False, False, True]
    capacity = Capacity(maximum=8.0, steps=4)
    assert [capacity.at(step).capacity for step in (0, 1, 4, 9)] == pytest.approx([0.0, 2.0, 8.0, 8.0])
    assert ELBO(warm).at(5).rate.factor == pytest.approx(0.6)
    plain = ELBO()
    assert plain.at(5) is plain
    assert IWAE().at(5) == IWAE()


@pytest.mark.parametrize("name", [n for n in registry.names("rate") if not registry.find("rate", n).reserved])
def test_a_loss_said_to_be_a_bound_is_one_and_the_others_are_not(name):
    """Minus the loss is never above the batch's mean ELBO, whatever the rates, exactly where ``is_bound`` says so."""
    above, noise, x = set(), torch.Generator().manual_seed(0), torch.zeros(4, 2)
    for step in range(0, 10_001, 50):
        q = Normal(10 * torch.rand(1, generator=noise) * torch.randn(4, 2, generator=noise), ZERO)
        z = Pathwise(1, noise)("z", StandardNormal((2,)), q)
        rate = registry.find("rate", name)().over(1).at(step)
        estimate = ELBO(rate)(Trace(Normal(z.value, ZERO), (z,)), x)
        if -estimate.losses["all"] > estimate.value.mean() * (1 - 1e-5):
            above.add(rate.is_bound)
    from_the_start = registry.find("rate", name)().over(1).at(0).is_bound
    assert above == (set() if from_the_start else {False})


def test_free_bits_are_counted_per_level_where_the_rate_does_not_split():
    assert FreeBits(0.5)(trace_of(analytic=False, known={"kl": torch.full((3, 2), 0.1)})).mean() == 0.5
    rate_only = Latent("t", None, known={"kl": torch.full((3, 2), 2.0)})
    trace = Trace(trace_of().px, (*trace_of().latents, rate_only))
    assert FreeBits(0.5)(trace).mean() == pytest.approx(1.5 + 2.0)
    assert ELBO(FreeBits(0.5))(Trace(trace_of(1).px), X).losses["all"].item() == pytest.approx(-LOG_PX)


@pytest.mark.parametrize(("rate", "charged"), [(FreeBits(0.0), 1.0), (Capacity(gamma=1.0, capacity=0.0), 1.0)], ids=str)
def test_rates_of_enumerated_states_are_charged_by_their_mass(rate, charged):
    """log q - log p, per state, is not its own mean: q says how often each state is met."""
    q = OneHotCategorical(torch.tensor([[0.0, 2.0, -1.0]]))
    z = Enumerate()("c", OneHotCategorical(torch.zeros(3)), q)
    sampled = Latent("c", z.value, z.p, z.q, {"log_q": z.log_q}, analytic=False, log_mass=z.log_mass)
    kl = (q.mean * (q.log_probs + math.log(3))).sum()
    trace = Trace(Normal(torch.zeros(3, 1, 1), ZERO), (sampled,))
    assert rate(trace).mean().item() == pytest.approx(charged * kl.item(), abs=1e-6)


def test_only_the_elbo_takes_a_rate_function():
    assert IWAE().with_rate(SumOfRates()) == IWAE()
    assert ELBO().with_rate(Beta(2.0)).rate == Beta(2.0)
    with pytest.raises(CombinationError, match="objective IWAE has no rate to modify; use objective=elbo, or rate=sum"):
        IWAE().with_rate(Beta(2.0))


def test_penalties_by_hand():
    value = torch.tensor([[[1.0, -2.0], [0.5, 0.0]]])
    z = Latent("z", value, StandardNormal((2,)), Normal(MEANS, ZERO))
    torch.testing.assert_close(L1Penalty(0.1)(z), torch.tensor([[0.3, 0.05]]))
    torch.testing.assert_close(L2Penalty(0.5)(z), torch.tensor([2.0, 0.5]))  # the mean's norm, not the draw's
    below = Latent("z1", value, StandardNormal((2,)), Normal(torch.stack([MEANS, 2 * MEANS]), ZERO))
    torch.testing.assert_close(L2Penalty(0.5)(below), torch.tensor([[2.0, 0.5], [8.0, 2.0]]))


def test_a_code_that_no_posterior_gave_pays_no_penalty_on_its_mean():
    """Decoding a regularised autoencoder's codes must not ask its flat prior for a mean."""
    model = VAE(FlatPriorModule(2), nn.Identity(), DecoderModule(), {"l2": L2Penalty(0.5)})
    trace = model(None, Given(values={"z": torch.ones(1, 4, 2)}))
    assert trace.px.batch_shape == (1, 4)
    assert not trace.penalties


class DecoderModule(nn.Module):
    def forward(self, z, condition=None):
        return Normal(z, ZERO)


@pytest.mark.parametrize("objective", [ELBO(), IWAE()])
def test_a_penalty_enters_the_loss_once_and_the_value_not_at_all(objective):
    plain = trace_of()
    penalised = Trace(plain.px, plain.latents, {"a": torch.full((3, 2), 0.25), "b": torch.tensor(2.0)})
    one, other = objective(plain, X), objective(penalised, X)
    assert (other.losses["all"] - one.losses["all"]).item() == pytest.approx(2.25)
    assert torch.equal(one.value, other.value)
    assert one.kind == other.kind


def test_values_are_detached_and_no_narrower_than_float32():
    mean = torch.zeros(2, 2, dtype=torch.bfloat16, requires_grad=True)
    z = Pathwise(2)("z", StandardNormal((2,)), Normal(mean, ZERO))
    for objective in (ELBO(), IWAE()):
        value = objective(Trace(Normal(z.value, ZERO), (z,)), torch.zeros(2, 2)).value
        assert value.dtype == torch.float32
        assert not value.requires_grad


def test_effective_samples_by_hand():
    log_weight = torch.tensor([[0.0, 0.0, -5.0], [0.0, -math.inf, 0.0], [0.0, -math.inf, math.log(2.0)]])
    small = math.exp(-5)
    expected = torch.tensor([3.0, 1.0, (3 + small) ** 2 / (5 + small**2)])
    torch.testing.assert_close(effective_samples(log_weight), expected)
    torch.testing.assert_close(effective_samples(log_weight.double() - 1000), expected.double())
