"""Discrete diffusion over codes: normalised, its estimate unbiased for all orderings, drawn as it is scored."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

import lambent.distributions.absorbing_diffusion as module
from lambent.config import check, resolve
from lambent.distributions import EmbeddedCodes, MaskedDiffusion
from lambent.errors import CombinationError, ConfigError, ShapeError
from lambent.networks import UnmaskingTransformer
from lambent.objectives import ELBO, IWAE
from lambent.priors import CodeDiffusionPrior
from lambent.trace import Latent, Trace
from support.distribution_checks import check_counts
from support.statistics import fails

S = 3


def prior(grid=(2, 2), orderings=1, steps=None, context=0, condition=0, seed=0):
    """In float64, evaluation mode, with weights large enough for all codes to depend on each other."""
    settings = CodeDiffusionPrior(model_dim=8, layers=2, heads=2, orderings=orderings, sampling_steps=steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = settings.over_codes(S, grid, context, condition).double().eval()
        with torch.no_grad():
            for parameter in found.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(2 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return found


def grids(shape):
    """All S^D of them."""
    axes = [torch.arange(S)] * math.prod(shape)
    return torch.cartesian_prod(*axes).view(-1, *shape).double()


def masses(p, shape=(2, 2)):
    with torch.no_grad():
        return p.log_prob(grids(shape)).exp()


def conditional(found, x, seen, k, context=None):
    """log p(x_k | the codes of x at ``seen``), one item, one call of the network; the rest hold another symbol."""
    masked = torch.tensor([d not in seen for d in range(len(x))])
    other = torch.where(masked, (x + 1) % S, x)
    with torch.no_grad():
        logits = found.net(other.unsqueeze(0), masked.unsqueeze(0), context)[0, k]
    return (logits - torch.logsumexp(logits, 0))[x[k]].item()


def in_order(found, x, order):
    return sum(conditional(found, x, set(order[:t]), k) for t, k in enumerate(order))


def over_all_orderings(found, x):
    orderings = list(itertools.permutations(range(len(x))))
    return sum(in_order(found, x, order) for order in orderings) / len(orderings)


def probabilities_sum_to_one():
    for orderings in (1, 3):
        found = prior(orderings=orderings)
        assert masses(found()).sum().item() == pytest.approx(1, abs=1e-10)
    given = prior(orderings=2, context=(2, 1, 2), condition=1)
    contexts = torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).double()
    first, second = (masses(given(c)) for c in contexts)
    assert first.sum().item() == pytest.approx(1, abs=1e-10)
    assert (first - second).abs().max() > 1e-3, "the context has no effect"


def score_is_the_orderings():
    found, x = prior(orderings=2, seed=1), torch.tensor([2, 0, 1, 1])
    each = [in_order(found, x, order) for order in found.order.tolist()]
    assert abs(each[0] - each[1]) > 1e-3
    expected = np.logaddexp(*each) - math.log(2)
    with torch.no_grad():
        assert found().log_prob(x.view(2, 2)).item() == pytest.approx(expected, abs=1e-10)


def estimate_over_all_masks_is_the_mean_over_orderings():
    found = prior((3,))
    p = found()
    for x in (torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])):
        total = 0.0
        for count in (1, 2, 3):
            sets = list(itertools.combinations(range(3), count))
            for hidden in sets:
                masked = torch.tensor([[d in hidden for d in range(3)]])
                with torch.no_grad():
                    term = p.weighted(x.unsqueeze(0), torch.zeros(1, 0).double(), masked)
                total += term.item() / (3 * len(sets))
        assert total == pytest.approx(over_all_orderings(found, x), abs=1e-10)


def estimate_is_unbiased():
    found, x = prior((3,)), torch.tensor([1, 2, 0])
    p = MaskedDiffusion(found.net, found.order, torch.zeros(0).double(), (3,), estimated=True)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        draws = torch.stack([p.log_prob(x.expand(30, 3)).mean() for _ in range(250)])
    z = (draws.mean().item() - over_all_orderings(found, x)) / (draws.std().item() / math.sqrt(len(draws)))
    assert abs(z) < 5


def counts_are_uniform_and_even():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.stack([module.hidden_counts(10, 4) for _ in range(4000)])
    for item in (0, 7):
        check_counts(np.bincount(drawn[:, item].numpy(), minlength=5)[1:], np.full(4, 0.25))
    for row in drawn[:50]:
        each = torch.bincount(row, minlength=5)[1:]
        assert each.min() >= 2, "10 items on 4 counts, evenly: 2 or 3 each"
        assert each.max() <= 3


def masked_codes_are_not_seen():
    found = prior((2, 2))
    x = torch.tensor([[0, 1, 2, 0]])
    for hidden in range(4):
        masked = torch.arange(4) == hidden
        with torch.no_grad():
            rows = torch.cat([found.net(x + (torch.arange(4) == hidden) * s, masked, None) for s in range(1, 3)])
            base = found.net(x, masked, None)
            other = found.net((x + (torch.arange(4) != hidden)) % S, masked, None)
        assert torch.equal(rows, base.expand(2, -1, -1))
        assert (other - base).abs().max() > 1e-3


def draws_have_the_masses():
    for orderings, context in ((1, 0), (3, 2)):
        found = prior(orderings=orderings, context=context)
        given = torch.tensor([0.3, -1.0]).double() if context else None
        draws = found(given).sample((6_000,), torch.Generator().manual_seed(5))
        counts = Counter(map(tuple, draws.flatten(1).long().tolist()))
        cells = [tuple(cell) for cell in grids((2, 2)).flatten(1).long().tolist()]
        check_counts(np.array([counts[cell] for cell in cells]), masses(found(given)).numpy())


CHECKS = (
    probabilities_sum_to_one,
    score_is_the_orderings,
    estimate_over_all_masks_is_the_mean_over_orderings,
    estimate_is_unbiased,
    counts_are_uniform_and_even,
    masked_codes_are_not_seen,
    draws_have_the_masses,
)


@pytest.mark.parametrize("checked", CHECKS, ids=lambda c: c.__name__)
def test_diffusion(checked):
    checked()


def test_fewer_steps_draw_codes_of_a_step_as_if_independent():
    found = prior((3,), steps=1)
    with torch.no_grad():
        each = found.net(torch.zeros(1, 3).long(), torch.ones(3).bool(), None)[0].softmax(-1)
    expected = torch.einsum("a,b,c->abc", *each).flatten()
    assert (expected - masses(found(), (3,))).abs().max() > 0.01, "the model itself is another"
    draws = found().sample((20_000,), torch.Generator().manual_seed(2)).long()
    counts = torch.bincount(draws @ torch.tensor([9, 3, 1]), minlength=27)
    check_counts(counts.numpy(), expected.numpy())
    assert found().steps == 1
    assert prior((3,), steps=99)().steps == 3


def test_memory_is_bounded_without_changing_a_number(monkeypatch):
    found = prior(orderings=2, context=2)
    context = torch.randn(81, 2, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        whole = found(context).log_prob(grids((2, 2)))
        monkeypatch.setattr(module, "TOKENS", 20)
        assert torch.allclose(found(context).log_prob(grids((2, 2))), whole, atol=1e-12)
        assert found(context).sample((3,)).shape == (3, 81, 2, 2)


def test_samples_of_each_example_have_its_context():
    found = prior(context=2, condition=1)
    context = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    x = grids((2, 2))[:4]
    with torch.no_grad():
        whole = found(context).log_prob(x)
        assert whole.shape == (2, 4)
        for k, b in itertools.product(range(2), range(4)):
            assert whole[k, b].item() == pytest.approx(found(context[k, b]).log_prob(x[b]).item(), abs=1e-12)
    with pytest.raises(ShapeError, match="expected"):
        prior()().log_prob(torch.zeros(5, 4))
    with pytest.raises(ShapeError, match="found none"):
        found().log_prob(x)
    with pytest.raises(ConfigError, match="draw samples instead"):
        _ = prior()().mean
    with pytest.raises(CombinationError, match="use model=quantised"):
        CodeDiffusionPrior().build(None)


def test_training_learns_the_distribution_through_its_estimate():
    """Codes whose sum is 0 modulo 3: 9 of 27, each with probability 1/9."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = CodeDiffusionPrior(model_dim=32, layers=2, heads=2, dropout=0.0).over_codes(S, (3,))
        optimizer = torch.optim.Adam(found.parameters(), lr=3e-3)
        data = grids((3,))[grids((3,)).sum(1) % 3 == 0]
        assert masses(found.eval()(), (3,)).std() < 1e-6, "starts uniform"
        for _ in range(300):
            x = data[torch.randint(9, (64,))]
            loss = -found.train()().log_prob(x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        assert found.eval()().log_prob(data).mean().item() > -math.log(9) - 0.05
        assert found.train()().estimated


def trace_of(p, samples):
    """A latent of given codes under ``p``, with a likelihood of no interest."""
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(samples, 2, 1), 1.0), 1)
    value = torch.zeros(samples, 2, 2, 2)
    return Trace(normal, (Latent("z", value, p, None, {"log_q": torch.zeros(samples, 2)}),))


def test_an_estimate_enters_an_elbo_and_no_weights_of_several_samples():
    found, x = prior().float(), torch.zeros(2, 1)
    for samples, objective in ((1, ELBO()), (3, ELBO()), (1, IWAE())):
        assert objective(trace_of(found.train()(), samples), x).kind == "lower bound"
    with pytest.raises(CombinationError, match="latent 'z': log p is one random term"):
        IWAE()(trace_of(found.train()(), 3), x)
    with pytest.raises(CombinationError, match="one random term"):
        IWAE()(trace_of(EmbeddedCodes(found.train()(), _Table()), 3), x)
    assert IWAE()(trace_of(found.eval()(), 3), x).kind == "lower bound"
    settings = {
        "model": {"name": "quantised"},
        "prior": {"name": "diffusion"},
        "posterior": {"name": "vq"},
        "draw": {"name": "straight-through", "samples": 2},
        "objective": {"name": "iwae"},
    }
    with pytest.raises(CombinationError, match="objective=iwae with prior=diffusion"):
        check(resolve("tested", settings))
    check(resolve("tested", settings, {"draw": {"samples": 1}}))


class _Table:
    dim = 1

    def indices_of(self, value):
        return value.squeeze(-1).long()


def _of(name, make):
    return lambda: (MaskedDiffusion, name, make(getattr(MaskedDiffusion, name)))


def _all_positions(real):
    def weighted(self, x, context, masked):
        log_p = module._taken(self.net(x, masked, module._seen(context)), x)
        return log_p.sum(1) * (self.elements / masked.sum(1))

    return weighted


def _unweighted(real):
    return lambda self, x, context, masked: real(self, x, context, masked) * masked.sum(1) / self.elements


def _off_by_one(real):
    return lambda self, x, c, masked: real(self, x, c, masked) * masked.sum(1) / (masked.sum(1) + 1)


def _late(real):
    return lambda self, x, context, order, place: real(self, x, context, order, place - 1)


def _shifted(real):
    return lambda self, x, context, order, place: real(self, x, context, order.roll(1), place)


def _leak(real):
    return lambda self, x, masked, context, at=None: real(self, x, masked & False, context, at)


def _own_order(real):
    return lambda self, context, order, generator: real(self, context, order.sort()[0], generator)


FAULTS = {
    "the loss of all codes, masked or not": _of("weighted", _all_positions),
    "no weight D/m": _of("weighted", _unweighted),
    "weight D/(m + 1)": _of("weighted", _off_by_one),
    "the code to be scored is seen": _of("_in_steps", _late),
    "scored in an ordering one off": _of("_in_steps", _shifted),
    "masked codes leak": lambda: (UnmaskingTransformer, "forward", _leak(UnmaskingTransformer.forward)),
    "drawn in another order than scored": _of("_in_groups", _own_order),
    "always half of the codes masked": lambda: (
        module,
        "hidden_counts",
        lambda n, d, device=None: torch.full((n,), d // 2, device=device),
    ),
    "mean of logarithms for the mixture": lambda: (
        MaskedDiffusion,
        "_exact",
        lambda self, x, c: torch.stack([self._in_order(x, c, order) for order in self.order]).mean(0),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, monkeypatch):
    monkeypatch.setattr(*FAULTS[name]())
    assert any(fails(checked) for checked in CHECKS)
