"""Penalties that look across the batch, against quadrature, loops and closed forms; the faults they must show."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lambent.objectives.penalties.critics as critics
import lambent.objectives.penalties.dip as covariance
import lambent.objectives.penalties.mmd as discrepancy
from lambent.distributions import CholeskyNormal, Normal, OneHotCategorical, StandardNormal
from lambent.draws import Enumerate, Given, Pathwise
from lambent.errors import CombinationError
from lambent.models import VAE
from lambent.objectives import ELBO, IWAE, AdversarialPenalty, DIPPenalty, FactorPenalty, L1Penalty, MMDPenalty
from lambent.objectives.base import total_penalty
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes
from lambent.trace import Latent, Trace

ZERO = torch.zeros(())
SHAPES = Shapes((3,), 2)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def latent_of(loc, scale, samples=1):
    q = Normal(loc, torch.as_tensor(math.log(scale)))
    return Pathwise(samples)("z", StandardNormal(loc.shape[1:]), q)


# The discrepancy: in one dimension every expectation of a kernel is an integral over a Normal difference


def expected_kernel(kernel, mean, variance, width):
    difference = np.linspace(mean - 12 * math.sqrt(variance), mean + 12 * math.sqrt(variance), 20_001)
    density = np.exp(-0.5 * (difference - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
    values = kernel(torch.tensor(difference**2), width).numpy()
    return float(np.trapezoid(values * density, difference))


def true_mmd(kernel, mean, scale):
    """MMD^2 of N(mean, scale^2) and N(0, 1), width 2 D sigma^2 = 2."""
    within = expected_kernel(kernel, 0, 2 * scale**2, 2.0) + expected_kernel(kernel, 0, 2.0, 2.0)
    return within - 2 * expected_kernel(kernel, mean, 1 + scale**2, 2.0)


KERNELS = {"imq": discrepancy.inverse_multiquadratic, "rbf": discrepancy.gaussian}


def unbiased_mmd(kernel="imq", mean=0.8, scale=0.5, batch=4, repeats=4000):
    penalty = MMDPenalty(weight=2.0, kernel=kernel)
    loc = torch.full((batch, 1), mean)
    found = torch.stack([penalty(latent_of(loc, scale)) for _ in range(repeats)]).double()
    truth = 2 * true_mmd(KERNELS[kernel], mean, scale)
    assert abs(found.mean() - truth) < 5 * found.std() / math.sqrt(repeats)
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_discrepancy_is_unbiased_on_small_batches(kernel):
    unbiased_mmd(kernel)
    assert bool((unbiased_mmd(kernel, 0.0, 1.0) < 0).any())  # 0 in the mean, so that it must be negative sometimes


def _with_diagonal(gram):
    return gram.mean((-2, -1))


MMD_FAULTS = {
    "each draw compared with itself": ("_pairs", lambda real: _with_diagonal),
    "pairs over B^2": ("_pairs", lambda real: lambda gram: real(gram) * (len(gram[0]) - 1) / len(gram[0])),
    "distances for their squares": ("_squares", lambda real: lambda a, b: real(a, b).sqrt()),
    "prior of another scale": ("prior_value", lambda real: lambda latent: 0.5 * real(latent)),
    "one scale only": ("SCALES", lambda real: (1.0,)),
}


@pytest.mark.parametrize("fault", MMD_FAULTS)
def test_faulty_discrepancies_are_caught(fault, monkeypatch):
    name, make = MMD_FAULTS[fault]
    truth = true_mmd(KERNELS["imq"], 0.8, 0.5)
    monkeypatch.setattr(discrepancy, name, make(getattr(discrepancy, name)))
    monkeypatch.setitem(globals(), "true_mmd", lambda *a: truth)
    with pytest.raises(AssertionError):
        unbiased_mmd()


def test_the_discrepancy_over_k_is_the_mean_of_each_sample():
    loc, repeats = torch.full((5, 1), 0.8), 500
    several = torch.stack([MMDPenalty()(latent_of(loc, 0.5, samples=8)) for _ in range(repeats)])
    assert several.dim() == 1
    truth = 10 * true_mmd(KERNELS["imq"], 0.8, 0.5)
    assert abs(several.mean() - truth) < 5 * several.std() / math.sqrt(repeats)
    assert MMDPenalty()(latent_of(loc[:1], 0.5)) == 0  # one example has no pair


# The covariance


def numpy_dip(kind, means, own, od=3.0, d=7.0):
    """By numpy's own covariance, entry by entry."""
    c = np.cov(means.numpy(), rowvar=False) + (own.numpy().mean(0) if kind == "ii" else 0)
    off = sum(c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j)
    return od * off + d * sum((c[i, i] - 1) ** 2 for i in range(len(c)))


def dip_by_hand():
    means = torch.randn(20, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    log_scale = 0.3 * torch.randn(20, 3, dtype=torch.float64)
    tril = torch.randn(20, 3, 3, dtype=torch.float64).tril()
    prior = StandardNormal((3,), dtype=torch.float64)
    for q, own in (
        (Normal(means, log_scale), torch.diag_embed((2 * log_scale).exp())),
        (CholeskyNormal(means, tril), tril @ tril.mT),
    ):
        latent = Pathwise(2)("z", prior, q)
        for kind in ("i", "ii"):
            found = DIPPenalty(kind, lambda_od=3.0, lambda_d=7.0)(latent)
            assert found.item() == pytest.approx(numpy_dip(kind, means, own), abs=1e-9)


def test_covariances_are_those_of_numpy():
    dip_by_hand()


def test_kind_ii_holds_the_covariance_of_draws():
    """E[Sigma] + Cov[mean] is the covariance of z ~ q(z), as a million draws of it have it."""
    q = Normal(torch.tensor([[2.0, 1.0], [-1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([0.2, -0.3]).double())
    z = q.sample((300_000,)).flatten(0, 1)
    means = q.mean - q.mean.mean(0)
    population = means.T @ means / 3 + covariance.own_covariance(q).mean(0)  # the three are all there is: over N
    centred = z - z.mean(0)
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    errors = (products.mean(0) - population).abs() / (products.std(0) / math.sqrt(len(z)))
    assert bool((errors < 5).all())


DIP_FAULTS = {
    "the sign": lambda real: lambda self, latent: -real(self, latent),
    "covariance of draws for means": lambda real: (
        lambda self, latent: real(self, Latent("z", latent.value, latent.p, Normal(latent.value[0], ZERO - 30)))
    ),
    "kinds swapped": lambda real: (
        lambda self, latent: real(DIPPenalty("i" if self.kind == "ii" else "ii", self.lambda_od, self.lambda_d), latent)
    ),
    "factors swapped": lambda real: (
        lambda self, latent: real(DIPPenalty(self.kind, self.lambda_d, self.lambda_od), latent)
    ),
}


@pytest.mark.parametrize("fault", DIP_FAULTS)
def test_faulty_covariances_are_caught(fault, monkeypatch):
    monkeypatch.setattr(DIPPenalty, "__call__", DIP_FAULTS[fault](DIPPenalty.__call__))
    with pytest.raises(AssertionError):
        dip_by_hand()


def test_a_batch_of_one_has_no_covariance():
    assert DIPPenalty()(latent_of(torch.ones(1, 3), 1.0)) == 0


# The critics


class EncoderModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 2)

    def forward(self, x, condition=None):
        return Normal(self.map(x), torch.full((2,), -1.0))


class DecoderModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(2, 3)

    def forward(self, z, condition=None):
        return Normal(self.map(z), ZERO)


def model_with(penalty):
    return VAE(NormalPriorModule(2), EncoderModule(), DecoderModule(), penalty.named(SHAPES))


def losses_stay_apart(penalty, objective=None):
    """The model's loss has no gradient for the critic, the critic's none for the model, and each has its own."""
    model, x = model_with(penalty), torch.randn(10, 3)
    groups = model.groups()
    assert set(groups) == {"generative", "inference", "critic"}
    losses = (objective or ELBO())(model(x, Pathwise(3)), x).losses
    of_model = [*groups["generative"], *groups["inference"]]
    assert set(losses) == {"all", "critic"}
    for loss, other, own in (("all", groups["critic"], of_model), ("critic", of_model, groups["critic"])):
        crossed = torch.autograd.grad(losses[loss], other, retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in crossed)
        assert all(g.any() for g in torch.autograd.grad(losses[loss], own, retain_graph=True))
    plain = ELBO() if objective is None else objective
    without = plain(Trace(*_unpenalised(model, x)), x).losses["all"]
    felt = torch.autograd.grad(without, groups["inference"])
    assert not all(
        torch.equal(a, b) for a, b in zip(felt, torch.autograd.grad(losses["all"], groups["inference"]), strict=True)
    )


def _unpenalised(model, x):
    trace = model.eval()(x, Pathwise(3))
    assert not trace.penalties
    return trace.px, trace.latents


@pytest.mark.parametrize("penalty", [FactorPenalty(), AdversarialPenalty()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("objective", [ELBO(), IWAE()], ids=lambda o: type(o).__name__)
def test_model_and_critic_never_move_each_other(penalty, objective):
    losses_stay_apart(penalty, objective)


@pytest.mark.parametrize("penalty", [FactorPenalty(), AdversarialPenalty()], ids=lambda p: type(p).__name__)
def test_a_critic_moved_by_the_models_loss_is_caught(penalty, monkeypatch):
    monkeypatch.setattr(critics.Critic, "held", critics.Critic.forward)
    with pytest.raises(AssertionError):
        losses_stay_apart(penalty)


@pytest.mark.parametrize("penalty", [FactorPenalty(), AdversarialPenalty()], ids=lambda p: type(p).__name__)
def test_a_model_moved_by_the_critics_loss_is_caught(penalty, monkeypatch):
    class Attached:
        def __init__(self, z):
            self.z = z

        def detach(self):
            return self.z

    monkeypatch.setattr(critics, "drawn_value", lambda latent, who: Attached(latent.value.flatten(2)))
    monkeypatch.setattr(critics.Critic, "held", lambda self, z: self(z.z).detach() + z.z.sum(-1))
    with pytest.raises(AssertionError):
        losses_stay_apart(penalty)


def train_critic(penalty, latents, steps=400):
    optimizer = torch.optim.Adam(penalty.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        penalty.loss(latents()).backward()
        optimizer.step()


def correlated(rho=0.8, n=1000):
    first = torch.randn(1, n, 1)
    second = rho * first + math.sqrt(1 - rho**2) * torch.randn(1, n, 1)
    return Latent("z", torch.cat([first, second], -1), StandardNormal((2,)), None)


def total_correlation_by_ratio():
    """-1/2 log(1 - rho^2) of two standard Normals, to within what such a critic learns in seconds."""
    (penalty,) = FactorPenalty(weight=2.0, critic_hidden=(64, 64)).named(SHAPES).values()
    train_critic(penalty, correlated)
    with torch.no_grad():
        found = torch.cat([penalty(correlated()) for _ in range(20)]).mean() / 2
    assert found.item() == pytest.approx(-0.5 * math.log(1 - 0.8**2), abs=0.08)


def test_the_trained_critic_knows_the_total_correlation():
    total_correlation_by_ratio()


CRITIC_FAULTS = {
    "whole rows permuted": lambda z: z[:, torch.randperm(z.shape[1])],
    "dimensions permuted, not the batch": lambda z: z[..., torch.randperm(z.shape[-1])],
    "the same permutation for every dimension": lambda z: z.gather(
        1, torch.rand_like(z[..., :1]).argsort(1).expand_as(z)
    ),
}


@pytest.mark.parametrize("fault", CRITIC_FAULTS)
def test_a_critic_against_something_else_than_the_product_is_caught(fault, monkeypatch):
    monkeypatch.setattr(critics, "permuted", CRITIC_FAULTS[fault])
    with pytest.raises(AssertionError):
        total_correlation_by_ratio()


def test_permuting_keeps_each_dimension_and_nothing_between_them():
    z = torch.randn(2, 2000, 1).expand(2, 2000, 3)
    found = critics.permuted(z)
    torch.testing.assert_close(found.sort(1).values, z.sort(1).values, rtol=0, atol=0)
    for k in range(2):
        off_diagonal = torch.corrcoef(found[k].T)[~torch.eye(3, dtype=torch.bool)]
        assert bool((off_diagonal.abs() < 5 / math.sqrt(2000)).all())


def test_the_adversary_pulls_codes_to_the_prior():
    shift = nn.Parameter(torch.tensor([2.0, -1.5]))
    (penalty,) = AdversarialPenalty(critic_hidden=(32,)).named(SHAPES).values()
    optimizer = torch.optim.Adam([shift, *penalty.parameters()], lr=5e-3, betas=(0.5, 0.999))
    for _ in range(1500):
        z = Latent("z", torch.randn(1, 200, 2) + shift, StandardNormal((2,)), None)
        optimizer.zero_grad()
        (penalty(z).mean() + penalty.loss(z)).backward()
        optimizer.step()
    assert shift.abs().max() < 0.4


# How they enter a loss


def test_penalties_of_enumerated_states_are_weighed_by_their_mass():
    q = OneHotCategorical(torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]]))
    z = Enumerate()("c", OneHotCategorical(torch.zeros(3)), q)
    cost = torch.tensor([1.0, 5.0, 7.0]).unsqueeze(1).expand(3, 2)
    trace = Trace(Normal(torch.zeros(3, 2, 1), ZERO), (z,), {"cost": cost})
    assert total_penalty(trace).item() == pytest.approx((q.mean * cost[:, 0]).sum(-1).mean().item(), abs=1e-6)
    assert L1Penalty(0.1)(z).shape == (3, 2)
    with pytest.raises(CombinationError, match="penalty=mmd compares draws"):
        MMDPenalty()(z)


def test_penalties_are_terms_of_the_training_loss_alone():
    model, x = model_with(FactorPenalty()), torch.randn(4, 3)
    assert set(model(x, Pathwise()).critics) == {"factor"}
    assert not model.eval()(x, Pathwise()).critics
    assert not model.train()(None, Given(values={"z": torch.zeros(1, 4, 2)})).penalties
    assert any(name.startswith("critics.factor.") for name in model.state_dict())
