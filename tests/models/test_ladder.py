"""Ladders: exact where all is linear and Gaussian, with every family of q; and refused what they can't do."""

import dataclasses
import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from lambent.distributions import Normal, unbounded_log_scale
from lambent.draws import Ancestral, Enumerate, Given, Mode, Pathwise, Score
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation import active_units as units
from lambent.evaluation.active_units import active_units, level_sizes, posterior_means, rated, unit_rates
from lambent.evaluation.bounds import bounds
from lambent.models import Ladder, LadderLevel, ladder as ladder_module
from lambent.objectives import ELBO, IWAE
from lambent.posteriors import MergedNormalPosterior, NormalPosterior, ResidualNormalPosterior
from lambent.priors import NormalPriorModule
from lambent.recipes import configure
from lambent.shapes import Shapes
from support.random_numbers import generator

DOUBLE = torch.float64
SEEN = 3
NOISE = 0.6
"""Numbers of x, and their deviation given z."""


def raw(log_scale):
    return unbounded_log_scale(torch.as_tensor(log_scale, dtype=DOUBLE))


class Truth:
    """A linear-Gaussian ladder with one number a level, by NumPy: z_i = a_i . (levels above) + b_i + s_i noise.

    Levels are counted from the top here, and x comes last: ``mean`` and ``covariance`` are those of all of them.
    """

    def __init__(self, levels, seed=0, *, silent=False):
        random = np.random.default_rng(seed)
        self.levels = levels
        scale = 0.8 / math.sqrt(levels)
        self.rows = [random.normal(0, scale, i) for i in range(levels)]
        self.bias = [0.0, *random.normal(0, 1, levels - 1)]
        self.scale = [1.0, *random.uniform(0.3, 1.2, levels - 1)]
        self.out, self.shift = random.normal(0, scale, (SEEN, levels)), random.normal(0, 1, SEEN)
        self.out[:, -1] *= not silent  # the lowest level
        size = levels + SEEN
        weights, shifts, scales = np.zeros((size, size)), np.zeros(size), np.full(size, NOISE)
        for i, row in enumerate(self.rows):
            weights[i, :i] = row
        weights[levels:, :levels] = self.out
        shifts[:levels], shifts[levels:], scales[:levels] = self.bias, self.shift, self.scale
        inverse = np.linalg.inv(np.eye(size) - weights)
        self.mean, self.covariance = inverse @ shifts, inverse * scales**2 @ inverse.T

    @property
    def known(self):
        return list(range(self.levels, self.levels + SEEN))

    def given(self, i, known):
        """(weights of the known, shift, deviation) of number ``i`` in their light."""
        c = self.covariance
        weights = np.linalg.solve(c[np.ix_(known, known)], c[known, i])
        return weights, self.mean[i] - weights @ self.mean[known], math.sqrt(c[i, i] - weights @ c[known, i])

    def evidence(self, x):
        mean, c = self.mean[self.levels :], self.covariance[self.levels :, self.levels :]
        return torch.distributions.MultivariateNormal(torch.tensor(mean), torch.tensor(c)).log_prob(x)

    def rates(self, x):
        """E over q of KL(q_i||p_i), (levels, B), top first, where q is the exact posterior."""
        found = []
        for i in range(self.levels):
            weights, shift, deviation = self.given(i, [*range(i), *self.known])
            lean = weights[:i] - self.rows[i]  # m_q - m_p = lean . z + the rest
            c = self.covariance
            gain = np.linalg.solve(c[np.ix_(self.known, self.known)], c[np.ix_(self.known, range(i))])
            mean = self.mean[:i] + (x.numpy() - self.mean[self.known]) @ gain
            spread = c[:i, :i] - c[np.ix_(range(i), self.known)] @ gain
            apart = mean @ lean + x.numpy() @ weights[i:] + shift - self.bias[i]
            ratio = (deviation / self.scale[i]) ** 2
            found.append(0.5 * (ratio - 1 - math.log(ratio) + (apart**2 + lean @ spread @ lean) / self.scale[i] ** 2))
        return torch.tensor(np.array(found))


class LinearLevel(LadderLevel):
    """p by the truth's own numbers, q by conditioning; the state is all levels above."""

    def __init__(self, truth, i, family, *, off=0.0):
        super().__init__(1, 2, 2)
        self.register_buffer("row", torch.tensor(truth.rows[i]))
        weights, self.shift, deviation = truth.given(i, [*range(i), *truth.known])
        self.register_buffer("weights", torch.tensor(weights))
        self.bias, self.own, self.off = truth.bias[i], truth.scale[i], off
        self.family = family if i else NormalPosterior()
        wider = 0.0 if isinstance(family, MergedNormalPosterior) else off  # a product is never wider than its factors
        self.deviation = deviation * math.exp(wider)

    def prior_numbers(self, state, condition):
        mean = state @ self.row + self.bias
        return torch.stack([mean, raw(math.log(self.own)).expand_as(mean)], 1)

    def posterior_params(self, seen, state, condition):
        known = seen if state is None else torch.cat([state, seen], 1)
        mean = known @ self.weights + self.shift + self.off
        if isinstance(self.family, ResidualNormalPosterior):
            ratio = torch.tensor(math.log(self.deviation / self.own), dtype=DOUBLE)
            return torch.stack([mean - self._p(state), 5 * torch.atanh(ratio / 5).expand_as(mean)], 1)
        if isinstance(self.family, MergedNormalPosterior):
            precision = self.deviation**-2 - self.own**-2
            seen_mean = (mean * self.deviation**-2 - self._p(state) * self.own**-2) / precision
            return torch.stack([seen_mean, raw(-0.5 * math.log(precision)).expand_as(mean)], 1)
        return torch.stack([mean, raw(math.log(self.deviation)).expand_as(mean)], 1)

    def _p(self, state):
        return state @ self.row + self.bias

    def next(self, state, z, condition):
        return z if state is None else torch.cat([state, z], 1)

    @property
    def inference(self):
        return ()


class LinearLikelihood(nn.Module):
    def __init__(self, truth):
        super().__init__()
        self.out, self.shift = torch.tensor(truth.out), torch.tensor(truth.shift)

    def forward(self, z, condition=None):
        return Normal(z @ self.out.mT + self.shift, torch.tensor(math.log(NOISE), dtype=DOUBLE))

    def as_input(self, x):
        return x


class Everywhere(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x, condition=None):
        return [x] * self.levels


FAMILIES = {
    "normal": NormalPosterior(),
    "residual-normal": ResidualNormalPosterior(),
    "merged-normal": MergedNormalPosterior(),
}


def ladder(levels, name="residual-normal", off=0.0):
    """The linear-Gaussian ladder whose q is the exact posterior, or ``off`` it; and its truth."""
    truth, family = Truth(levels), FAMILIES[name]
    nets = [LinearLevel(truth, i, family, off=off) for i in reversed(range(levels))]
    return Ladder(NormalPriorModule(1).double(), family, Everywhere(levels), nets, LinearLikelihood(truth)), truth


def examples(n=5, seed=1):
    return torch.randn(n, SEEN, dtype=DOUBLE, generator=generator(seed)) + 0.5


def exact_weights(levels, name):
    """Every weight of an exact q is p(x): no variance at all."""
    model, truth = ladder(levels, name)
    trace = model(examples(), Pathwise(7, generator()))
    expected = truth.evidence(examples()).expand(7, -1)
    torch.testing.assert_close(trace.log_weight(examples()), expected, rtol=0, atol=1e-9)


def exact_rates(levels, name, samples=4000):
    """Closed-form KLs: their means at every level are the exact rates, and with the distortion they make log p(x)."""
    model, truth = ladder(levels, name)
    x = examples()
    trace = model(x, Pathwise(samples, generator()))
    assert len(trace.latents) == levels
    rates = torch.stack([latent.kl for latent in reversed(trace.latents)])
    apart = rates.mean(1) - truth.rates(x)
    se = rates.std(1) / samples**0.5
    assert bool((apart.abs() <= 5 * se + 1e-10).all())
    values = trace.log_px(x) - trace.rate
    assert bool(((values.mean(0) - truth.evidence(x)).abs() <= 5 * values.std(0) / samples**0.5).all())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("levels", [1, 2, 5, 50])
def test_an_exact_posterior_makes_every_weight_the_evidence(levels, name):
    exact_weights(levels, name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("levels", [2, 5])
def test_rates_in_closed_form_are_those_of_linear_algebra(levels, name):
    exact_rates(levels, name)


def rates_by_unit(name):
    """One draw an example, on many copies of a few: within 5 standard errors of linear algebra, at every level."""
    model, truth = ladder(3, name)
    x = examples().repeat(4000, 1)
    found = unit_rates(model, [(part, None) for part in x.split(7000)], generator(3))
    assert list(found) == ["z1", "z2", "z3"]
    spread = torch.stack([z.kl.std() for z in reversed(model(x, Pathwise(1, generator(4))).latents)])
    apart = torch.cat([found[n] for n in ("z3", "z2", "z1")]) - truth.rates(examples()).mean(1)
    assert bool((apart.abs() <= 5 * spread / len(x) ** 0.5 + 1e-10).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_rates_of_units_are_those_of_linear_algebra(name):
    rates_by_unit(name)


def test_rates_of_units_at_modes_are_caught(monkeypatch):
    """Given the modes of the levels above, where the exact rates have the spread of these levels in them."""
    monkeypatch.setattr(units, "Detached", lambda generator: Mode())
    with pytest.raises(AssertionError):
        rates_by_unit("residual-normal")


def test_a_level_that_tells_nothing_has_no_active_unit_though_its_mean_moves():
    """x hangs on the upper two levels alone: q of z1 is p(z1|z2, z3), which moves with them over the data."""
    truth = Truth(3, silent=True)
    nets = [LinearLevel(truth, i, ResidualNormalPosterior()) for i in (2, 1, 0)]
    model = Ladder(
        NormalPriorModule(1).double(), ResidualNormalPosterior(), Everywhere(3), nets, LinearLikelihood(truth)
    )
    x = examples(500)
    trace = model(x, Mode())
    means, sizes = posterior_means(trace), level_sizes(trace)
    assert rated(trace) == ("z1", "z2", "z3")
    assert active_units(means[:, :1]) == 1
    rates = unit_rates(model, [(x, None)], generator())
    assert rates["z1"].abs().max() < 1e-12
    assert units.active_by_level(means, sizes, rates) == {"z1": (0, 1), "z2": (1, 1), "z3": (1, 1)}


def test_rates_of_fifty_levels():
    exact_rates(50, "residual-normal", samples=400)


def without_prior_mean(self, head, prior, latent):
    shift, log_ratio = head.chunk(2, -1)
    return Normal(shift, prior.log_scale + 5 * torch.tanh(log_ratio / 5))


def without_prior_scale(self, head, prior, latent):
    shift, log_ratio = head.chunk(2, -1)
    return Normal(prior.loc + shift, 5 * torch.tanh(log_ratio / 5))


def without_merging(self, head, prior, latent):
    return NormalPosterior().distribution(head, latent)


def means_alike(self, head, prior, latent):
    q = NormalPosterior().distribution(head, latent)
    return Normal((q.loc + prior.loc) / 2, -0.5 * torch.logaddexp(-2 * q.log_scale, -2 * prior.log_scale))


REAL_PRIOR, REAL_POSTERIOR, REAL_FORWARD = Ladder._prior, Ladder._posterior, Ladder.forward


def stale(state):
    """The state before the last level was drawn: its place is empty."""
    return None if state is None else torch.cat([state[..., :-1], torch.zeros_like(state[..., -1:])], -1)


def wrong_levels(self, x, draw, condition=None):
    """Scores each level under the p of the level beside it."""
    trace = REAL_FORWARD(self, x, draw, condition)
    ps = [latent.p for latent in trace.latents]
    moved = [dataclasses.replace(z, p=p) for z, p in zip(trace.latents, [*ps[1:], ps[0]], strict=True)]
    return dataclasses.replace(trace, latents=tuple(moved))


def one_level_short(self, x, draw, condition=None):
    trace = REAL_FORWARD(self, x, draw, condition)
    return dataclasses.replace(trace, latents=trace.latents[:-1])


def mixed_up(net, drawn, shared):
    """K samples of one example after the other, where K of all examples belong."""
    samples = drawn[0].shape[0]
    rows = [None if s is None else s.repeat_interleave(samples, 0) for s in shared]
    return net(*(z.flatten(0, 1) for z in drawn), *rows).unflatten(0, drawn[0].shape[:2])


FAULTS = {
    "p's mean forgotten": (ResidualNormalPosterior, "around", without_prior_mean, "residual-normal"),
    "p's scale forgotten": (ResidualNormalPosterior, "around", without_prior_scale, "residual-normal"),
    "nothing merged": (MergedNormalPosterior, "around", without_merging, "merged-normal"),
    "means merged alike": (MergedNormalPosterior, "around", means_alike, "merged-normal"),
    "p of a stale state": (Ladder, "_prior", lambda m, v, s, c: REAL_PRIOR(m, v, stale(s), c), "normal"),
    "q of a stale state": (
        Ladder,
        "_posterior",
        lambda m, v, x, s, p, c: REAL_POSTERIOR(m, v, x, stale(s), p, c),
        "normal",
    ),
    "rates of wrong levels": (Ladder, "forward", wrong_levels, "normal"),
    "a level forgotten": (Ladder, "forward", one_level_short, "normal"),
    "samples mixed up": (ladder_module, "fold_together", mixed_up, "normal"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("check", [exact_weights, exact_rates])
def test_planted_faults_are_caught(fault, check, monkeypatch):
    where, what, wrong, name = FAULTS[fault]
    monkeypatch.setattr(where, what, wrong)
    with pytest.raises(AssertionError):
        check(3, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_bounds_are_ordered_below_the_evidence(name):
    model, truth = ladder(3, name, off=0.6)
    x = examples(4000)
    found = bounds(model, lambda a, b: (x[a:b], None), 4000, samples=50)
    exact = truth.evidence(x)
    for lower, higher in itertools.pairwise([found.elbo, found.iwae, exact]):
        apart = higher - lower
        assert apart.mean() > 5 * apart.std() / 4000**0.5 > 0


def test_what_is_generated_has_the_moments_of_the_joint():
    model, truth = ladder(5)
    n = 40_000
    trace = model(None, Ancestral(batch=n, generator=generator()))
    x = trace.px.mean[0] + NOISE * torch.randn(n, SEEN, dtype=DOUBLE, generator=generator(1))
    drawn = torch.cat([*(latent.value[0] for latent in reversed(trace.latents)), x], 1)
    centred = drawn - torch.tensor(truth.mean)
    variance = torch.tensor(truth.covariance).diagonal()
    assert float((centred.mean(0) / (variance / n).sqrt()).abs().max()) < 5
    products = centred[:, :, None] * centred[:, None]
    apart = products.mean(0) - torch.tensor(truth.covariance)
    assert float((apart / (products.std(0) / n**0.5)).abs().max()) < 5
    assert apart.abs().max() < 0.1 < (torch.tensor(truth.covariance) - torch.eye(8)).abs().max()


def built(*tokens, condition=0):
    torch.manual_seed(0)
    small = {"model": "ladder", "latent": "3", "upper_latents": "[2, 2]", "hidden": "[8]"}
    chosen = {**small, **dict(token.split("=") for token in tokens)}
    config = configure("vae", tokens=[f"{key}={value}" for key, value in chosen.items()])
    return config.model.build(config, Shapes((1, 4, 4), 3, condition))


def images(n=6):
    return (torch.rand(n, 1, 4, 4, generator=generator()) < 0.4).float()


NETWORKS = {
    "skip": ("posterior=residual-normal",),
    "several layers": ("layers=2", "between_hidden=[6, 5]"),
    "published": ("posterior=merged-normal", "skip=false", "layers=2"),
}


@pytest.mark.parametrize("tokens", NETWORKS.values(), ids=NETWORKS)
def test_a_code_decodes_as_it_was_reconstructed_and_values_can_be_set(tokens):
    model, x = built(*tokens), images()
    trace = model(x, Pathwise(3, generator()))
    code = model.code(trace)
    assert code.shape == (3, 6, 7)
    torch.testing.assert_close(model.decode(code).logits, trace.px.logits)
    again = model(x, Given(values={z.name: z.value for z in trace.latents}))
    torch.testing.assert_close(again.log_weight(x), trace.log_weight(x))
    for place in (0, 3, 5) if "skip=false" not in tokens else (0,):  # of z1, z2 and z3: each is looked at
        moved = code.clone()
        moved[..., place] += 3
        assert (model.decode(moved).logits - trace.px.logits).abs().max() > 1e-3


@pytest.mark.parametrize("tokens", NETWORKS.values(), ids=NETWORKS)
def test_sides_share_nothing_and_miss_nothing_and_only_p_generates(tokens):
    model = built(*tokens)
    groups = model.groups()
    assert set(groups) == {"generative", "inference"}
    listed = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    trace = model(None, Ancestral(batch=4, generator=generator()))
    made = trace.px.logits.sum() + sum(z.log_p.sum() for z in trace.latents)
    reached = torch.autograd.grad(made, groups["generative"], allow_unused=True)
    assert all(g is not None for g in reached)
    assert not any(
        g is not None
        for g in torch.autograd.grad(
            made + 0 * groups["inference"][0].sum(), groups["inference"][1:], allow_unused=True
        )
    )


@pytest.mark.parametrize("tokens", NETWORKS.values(), ids=NETWORKS)
def test_conditions_reach_every_level_and_belong_to_their_examples(tokens):
    model, x, c = built(*tokens, condition=3), images(), torch.eye(3)[torch.arange(6) % 3]
    trace = model(x, Pathwise(4, generator()), c)
    values = Given(values={z.name: z.value for z in trace.latents})
    other = model(x, values, c.roll(1, 0))
    for z, moved in zip(trace.latents, other.latents, strict=True):
        assert not torch.allclose(z.q.mean, moved.q.mean)
        assert z.name == "z3" or not torch.allclose(z.p.mean, moved.p.mean)
    assert not torch.allclose(trace.px.logits, other.px.logits)
    together = model(x, values, c).log_weight(x)
    for i in range(6):
        own = Given(values={z.name: z.value[:, i : i + 1] for z in trace.latents})
        alone = model(x[i : i + 1], own, c[i : i + 1]).log_weight(x[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=1e-5, atol=1e-5)


def test_evaluation_computes_what_training_did():
    model, x = built(), images()
    trained, tested = (m(x, Pathwise(2, generator())).log_weight(x) for m in (model.train(), model.eval()))
    assert torch.equal(trained, tested)


class Punished(LinearLevel):
    def penalties(self):
        return {"size": torch.tensor(float(self.own))}


def test_penalties_of_levels_are_added_by_name_while_training():
    model, truth = ladder(3)
    model.levels = nn.ModuleList(Punished(truth, i, ResidualNormalPosterior()) for i in (2, 1, 0))
    assert model.train()(examples(), Pathwise()).penalties["size"] == pytest.approx(sum(truth.scale))
    assert model(None, Ancestral()).penalties == {}
    assert model.eval()(examples(), Pathwise()).penalties == {}


COINS = ("prior=bernoulli", "posterior=bernoulli", "latent=2", "upper_latents=[1, 2]")


def test_a_ladder_of_coins_is_summed_exactly():
    """All states of all levels, once each: log p(x), the ELBO and its gradient by hand."""
    model, x = built(*COINS, "draw=enumerate").double(), images(3)
    evidence = IWAE()(model(x, Enumerate()), x).value
    states = list(itertools.product([0.0, 1.0], repeat=5))
    codes = torch.tensor(states, dtype=DOUBLE).unsqueeze(1).expand(-1, 3, -1)
    values = dict(zip(["z1", "z2", "z3"], codes.split([2, 1, 2], -1), strict=True))
    trace = model(x, Given(values=values))
    log_q = sum(z.log_q for z in trace.latents)
    joint = trace.log_px(x) + sum(z.log_p for z in trace.latents)
    torch.testing.assert_close(evidence, joint.logsumexp(0))
    torch.testing.assert_close(log_q.logsumexp(0), torch.zeros(3, dtype=DOUBLE), atol=1e-12, rtol=0)
    elbo = (log_q.exp() * (joint - log_q)).sum(0)
    torch.testing.assert_close(ELBO()(model(x, Enumerate()), x).value, elbo)
    assert bool((elbo < evidence - 1e-3).all())


def test_the_scores_of_a_ladder_of_coins_are_unbiased():
    """The expectation of the estimated gradient over all draws is the gradient of the exact ELBO."""
    model, x = built(*COINS, "draw=score", "draw.baseline=none").double(), images(1)
    expected = torch.autograd.grad(
        ELBO()(model(x, Enumerate()), x).losses["all"], list(model.parameters()), allow_unused=True
    )
    found = [torch.zeros_like(p) for p in model.parameters()]
    for state in itertools.product([0.0, 1.0], repeat=5):
        parts = torch.tensor(state, dtype=DOUBLE).view(1, 1, 5).split([2, 1, 2], -1)
        with mock.patch("lambent.draws.discrete.sample", side_effect=list(reversed(parts))):
            trace = model(x, Score(baseline="none"))
        mass = sum(z.log_q for z in trace.latents).exp().item()
        loss = ELBO()(trace, x).losses["all"]
        gradient = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for total, own in zip(found, gradient, strict=True):
            total += 0 if own is None else mass * own
    assert max(g.abs().max() for g in expected if g is not None) > 0.01
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, torch.zeros_like(own) if other is None else other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ("model=vae with posterior=residual-normal", ("model=vae",)),
        ("model=chain with posterior=residual-normal", ("model=chain",)),
        ("draw=dreg with model=ladder", ("draw=dreg", "objective=iwae")),
        ("draw=enumerate with posterior=residual-normal", ("draw=enumerate",)),
        ("model=ladder with penalty=l1", ("penalty=l1",)),
    ],
)
def test_what_a_ladder_refuses(said, tokens):
    base = () if any(t.startswith("model=") for t in tokens) else ("model=ladder",)
    with pytest.raises(CombinationError, match=said):
        configure("vae", tokens=(*base, "posterior=residual-normal", *tokens))


def test_what_levels_can_not_share_is_refused():
    with pytest.raises(CombinationError, match="model=ladder with posterior=full-cov"):
        configure("vae", tokens=("model=ladder", "posterior=full-cov", "shared=true"))
    with pytest.raises(CombinationError, match="draw=rebar with model=ladder"):
        configure("vae", tokens=("model=ladder", "prior=bernoulli", "posterior=bernoulli", "draw=rebar"))
    with pytest.raises(ConfigError, match="2 numbers for 1 levels"):
        built("upper_latents=[2]", "between_hidden=[4, 4]")
