"""Drawing from distributions that aren't ours, with our generators; and detaching them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lambent.distributions import Normal, detached, rsample, rsample_and_log_prob, sample
from lambent.errors import ConfigError
from support.random_numbers import generator


class Flow(torch.distributions.Distribution):
    """Stands for another library's: a network inside, a fused draw, the global generator."""

    has_rsample = True

    def __init__(self) -> None:
        self.net = torch.nn.Linear(2, 2)
        self.calls = 0
        super().__init__(torch.Size(), torch.Size((2,)), validate_args=False)

    def rsample(self, sample_shape=()) -> Tensor:
        return self.net(torch.randn(*sample_shape, 2))

    def sample(self, sample_shape=()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample_and_log_prob(self, sample_shape=()) -> tuple[Tensor, Tensor]:
        self.calls += 1
        value = self.rsample(sample_shape)
        return value, value.sum(-1)


FOREIGN = [
    torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1),
    torch.distributions.Gamma(torch.ones(2), torch.ones(2)),
    Flow(),
]


@pytest.mark.parametrize("distribution", FOREIGN, ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("draw", [sample, rsample, lambda *a: rsample_and_log_prob(*a)[0]])
def test_the_generator_decides_and_the_global_one_stays(distribution, draw):
    before = torch.get_rng_state()
    a, b, other = (draw(distribution, (3,), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    assert torch.equal(before, torch.get_rng_state())


def test_successive_draws_of_one_generator_differ():
    g = generator(0)
    assert not torch.equal(sample(FOREIGN[0], (3,), g), sample(FOREIGN[0], (3,), g))


def test_without_a_generator_the_global_one_is_used():
    torch.manual_seed(3)
    a = sample(FOREIGN[0], (3,))
    torch.manual_seed(3)
    assert torch.equal(a, FOREIGN[0].sample((3,)))


def test_threads_draw_what_one_thread_draws():
    alone = [sample(FOREIGN[1], (50,), generator(seed)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: sample(FOREIGN[1], (50,), generator(seed)), range(40)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_fused_draw_is_used_where_there_is_one():
    flow = Flow()
    value, log_prob = rsample_and_log_prob(flow, (4,), generator(0))
    assert flow.calls == 1
    torch.testing.assert_close(log_prob, value.sum(-1))


def test_ours_draw_straight_from_the_generator():
    d = Normal(torch.zeros(2), torch.zeros(2))
    assert torch.equal(sample(d, (3,), generator(0)), torch.randn(3, 2, generator=generator(0)))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: torch.distributions.Normal(t, t.exp()),
        lambda t: torch.distributions.Independent(torch.distributions.Normal(t, t.exp()), 1),
        lambda t: torch.distributions.Gamma(t.exp(), t.exp()),
        lambda t: torch.distributions.MultivariateNormal(t, scale_tril=torch.diag_embed(t.exp())),
        lambda t: torch.distributions.Bernoulli(logits=t),
    ],
)
def test_torchs_own_are_detached_by_a_copy(make):
    parameter = torch.tensor([0.3, -0.2], requires_grad=True)
    live = make(parameter)
    cut = detached(live)
    value = torch.ones(2, requires_grad=True)
    torch.testing.assert_close(cut.log_prob(value), live.log_prob(value))
    cut.log_prob(value).sum().backward()
    assert parameter.grad is None
    assert value.grad is not None
    live.log_prob(value).sum().backward()
    assert parameter.grad is not None


def test_what_holds_a_network_is_refused():
    with pytest.raises(ConfigError, match=r"Flow can't be detached: it holds net, a Linear; .*draw=pathwise"):
        detached(Flow())


def test_a_detach_of_its_own_is_used():
    class Own(Flow):
        def detach(self):
            return FOREIGN[0]

    assert detached(Own()) is FOREIGN[0]
