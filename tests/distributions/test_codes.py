"""Codes as latents: probabilities over all codes sum to one, draws score what they drew, gradients pass straight."""

import itertools
import math

import pytest
import torch

from lambent.distributions import Categorical, CodeAssignment, EmbeddedCodes, Normal
from lambent.distributions.sampling import detached
from lambent.draws import Ancestral, Detached, Given, Mode, Pathwise, StraightThrough
from lambent.errors import CombinationError, ShapeError
from lambent.networks import Codebook, FiniteScalar, Learning
from lambent.trace import Trace
from support.distribution_checks import check_sums_to_one

POSITIONS, SIZE, DIM = 4, 3, 2


def quantiser(kind="codebook"):
    torch.manual_seed(0)
    if kind == "grid":
        return FiniteScalar((SIZE,)), 1
    made = Codebook(SIZE, DIM, Learning(start="random")).double()
    made.codes.normal_()
    return made, DIM


def parts(kind="codebook", batch=5, grid=(2, 2)):
    """A posterior, and a prior that treats every position differently."""
    made, dim = quantiser(kind)
    encoded = torch.randn(batch, POSITIONS, dim, dtype=torch.double, requires_grad=True)
    logits = torch.randn(*grid, SIZE, dtype=torch.double)
    return CodeAssignment(encoded, made), EmbeddedCodes(Categorical(logits, len(grid)), made)


def everything(made):
    """All grids of codes, (S^P, P), and their values, (S^P, P d)."""
    grids = torch.tensor(list(itertools.product(range(SIZE), repeat=POSITIONS)))
    return grids, torch.stack([torch.cat([made.lookup(i) for i in grid]) for grid in grids])


def check_prior():
    for kind in ("codebook", "grid"):
        _, p = parts(kind)
        grids, values = everything(p.quantiser)
        check_sums_to_one(p, values, 1e-12)
        log_p = p.over.logits.log_softmax(-1)
        expected = [sum(log_p[n // 2, n % 2, i] for n, i in enumerate(grid)) for grid in grids.tolist()]
        torch.testing.assert_close(p.log_prob(values), torch.stack(expected), rtol=1e-12, atol=0)


def check_posterior():
    for kind in ("codebook", "grid"):
        q, _ = parts(kind)
        grids, values = everything(q.quantiser)
        check_sums_to_one(q, values.to(q.embedding.dtype), 0)
        best = q.log_prob(values.to(q.embedding.dtype).unsqueeze(1)).argmax(0)
        assert torch.equal(grids[best], q.indices)
        assert torch.equal(q.mean.view(5, POSITIONS, -1).to(values), q.quantiser.lookup(q.indices).to(values))


def check_gradient():
    q, p = parts()
    z = StraightThrough(samples=3)("z", p, q)
    slope = torch.randn(3, 5, POSITIONS * DIM, dtype=torch.double)
    z.value.backward(slope)
    assert torch.equal(z.value[1], q.quantiser.codes[q.indices].flatten(1))
    torch.testing.assert_close(q.encoded.grad.flatten(1), slope.sum(0), rtol=1e-12, atol=1e-14)


def check_draws():
    """What a draw says of its log densities is what they are, and the bound is log p(x, z) of the codes."""
    q, p = parts()
    x = torch.randn(5, POSITIONS * DIM, dtype=torch.double)
    grids, values = everything(q.quantiser)
    for draw in (StraightThrough(samples=2), StraightThrough().evaluating(), Detached(samples=2), Mode()):
        z = draw("z", p, q)
        assert torch.equal(z.log_q, z.q.log_prob(z.value))
        torch.testing.assert_close(z.log_p, z.p.log_prob(z.value), rtol=1e-12, atol=0)
        scale = torch.zeros((), dtype=torch.double)
        bound = Trace(Normal(z.value, scale), (z,)).log_weight(x)
        for b in range(5):
            match = int((grids == q.indices[b]).all(1).nonzero())
            joint = p.log_prob(values[match]) + Normal(values[match], scale).log_prob(x[b])
            torch.testing.assert_close(bound[:, b], joint.expand(len(bound)), rtol=1e-12, atol=0)
            every = p.log_prob(values) + Normal(values, scale).log_prob(x[b])
            assert (bound[:, b] <= every.logsumexp(0)).all()


CHECKS = [check_prior, check_posterior, check_gradient, check_draws]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_codes(check):
    check()


def planted_order(self, indices):
    return self.over.log_prob(indices.unflatten(-1, self.over.event_shape).transpose(-1, -2))


FAULTS = {
    "grid transposed": (check_prior, EmbeddedCodes, "log_prob_of", planted_order),
    "log q of a code counted": (check_draws, CodeAssignment, "scores", lambda q, p, z: {"log_q": z.sum(-1)}),
    "log p averaged over positions": (
        check_draws,
        CodeAssignment,
        "scores",
        lambda q, p, z: {"log_p": p.log_prob(z) / POSITIONS},
    ),
    "all values possible": (
        check_posterior,
        CodeAssignment,
        "log_prob",
        lambda q, z: z.new_zeros(z.shape[:-1]) + q.entropy(),
    ),
    "no gradient": (
        check_gradient,
        CodeAssignment,
        "_sample",
        lambda q, shape, generator: q.embedding.detach().expand(shape),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, monkeypatch):
    check, owner, attribute, fault = FAULTS[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pytest.raises((AssertionError, RuntimeError)):
        check()


def test_draws_of_the_prior_follow_its_probabilities():
    _, p = parts()
    draws = 20_000
    generator = torch.Generator().manual_seed(1)
    value = p.sample((draws,), generator)
    grids, values = everything(p.quantiser)
    found = p.quantiser.indices_of(value.view(draws, POSITIONS, DIM))
    counts = torch.bincount((found * SIZE ** torch.arange(POSITIONS - 1, -1, -1)).sum(1), minlength=len(grids))
    expected = draws * p.log_prob(values).exp()
    z = (counts - expected) / (expected * (1 - expected / draws)).sqrt()
    assert z.abs().max() < 5
    assert torch.equal(value, p.sample((draws,), generator.manual_seed(1)))
    most = p.log_prob(values).max()
    torch.testing.assert_close(p.log_prob(p.mode), most, rtol=1e-12, atol=0)


def test_generated_and_given_codes():
    _, p = parts()
    z = Ancestral(samples=2, batch=7)("z", p)
    assert z.value.shape == (2, 7, POSITIONS * DIM)
    torch.testing.assert_close(z.log_p, p.log_prob(z.value), rtol=0, atol=0)
    q, _ = parts()
    other = Given(values={"z": z.value[:1, :5]})("z", p, q)
    assert (other.log_q == torch.where((other.value == q.embedding).all(-1), 0.0, -math.inf)).all()
    assert (other.log_q == -math.inf).any()


def test_codes_given_a_level_above():
    """Batches of (K, B) on both sides, and a prior that differs between them."""
    made, _ = quantiser()
    encoded = torch.randn(3, 5, POSITIONS, DIM, dtype=torch.double)
    logits = torch.randn(3, 5, POSITIONS, SIZE, dtype=torch.double)
    q, p = CodeAssignment(encoded, made), EmbeddedCodes(Categorical(logits), made)
    z = StraightThrough(samples=3)("z", p, q)
    taken = logits.log_softmax(-1).gather(-1, q.indices.unsqueeze(-1)).squeeze(-1).sum(-1)
    torch.testing.assert_close(z.log_p, taken, rtol=1e-12, atol=0)
    torch.testing.assert_close(z.rate, -taken, rtol=1e-12, atol=0)


def test_codes_of_another_quantiser_are_searched_for():
    q, p = parts()
    elsewhere = EmbeddedCodes(p.over, quantiser()[0])
    elsewhere.quantiser.codes.copy_(q.quantiser.codes.flip(0))
    z = StraightThrough()("z", elsewhere, q)
    flipped = (SIZE - 1 - q.indices).unflatten(-1, (2, 2))
    torch.testing.assert_close(z.log_p[0], p.over.log_prob(flipped), rtol=1e-12, atol=0)


def test_outside_the_graph():
    q, _ = parts()
    fixed = detached(q)
    assert torch.equal(fixed.mean, q.mean)
    assert not fixed.rsample().requires_grad
    assert not Detached()("z", parts()[1], q).value.requires_grad


def test_what_codes_refuse():
    q, p = parts()
    with pytest.raises(CombinationError, match="straight-through"):
        Pathwise()("z", p, q)
    with pytest.raises(ShapeError, match="expected codes of size 2"):
        CodeAssignment(torch.zeros(1, POSITIONS, 3), q.quantiser)
