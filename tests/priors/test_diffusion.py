"""A diffusion over latents: its bound and its samples against Gaussian algebra, with planted faults."""

import dataclasses
import itertools
import math

import pytest
import torch

from lambent.distributions import Normal, diffusion_density as diffused
from lambent.distributions.diffusion_density import DiffusionDensity, Visits
from lambent.distributions.gaussian_diffusion import GaussianDiffusion, scales
from lambent.draws import Ancestral, Pathwise
from lambent.errors import ConfigError
from lambent.evaluation.bounds import bounds
from lambent.networks.diffusion.schedules import SCHEDULES, schedule
from lambent.priors.diffusion import LatentDiffusionPrior
from lambent.recipes import configure
from lambent.shapes import Shapes
from support.statistics import z_score

D, N = 3, 20_000
CENTRE = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
SPREAD = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
LOC = torch.tensor([0.2, 0.0, 1.0], dtype=torch.float64)
LOG_SCALE = torch.tensor([-0.7, 0.3, 1.1], dtype=torch.float64)
"""z ~ N(CENTRE, SPREAD^2), standardised not quite by its own moments."""
ENDS = (-3.0, 1.0)
"""So little room for noise that every term of the bound weighs tenths of a nat."""


def mean_and_variance():
    """Of u = (z - LOC) / scale."""
    scale = LOG_SCALE.exp()
    return (CENTRE - LOC) / scale, (SPREAD / scale).square()


def optimal(z, gamma, condition=None):
    """v = a eps - s y at the posterior means of y and eps given z, for the Gaussian u."""
    mean, variance = mean_and_variance()
    signal, noise = (scale.unsqueeze(-1) for scale in scales(gamma))
    precision = 1 / variance + (signal / noise).square()
    clean = (mean / variance + signal * z / noise.square()) / precision
    return signal * (z - signal * clean) / noise - noise * clean


def prior_of(denoiser=optimal, name="linear", ends=ENDS, levels=1, **visits):
    chain = GaussianDiffusion(schedule(name, *ends), denoiser, "v")
    return DiffusionDensity(chain, LOC, LOG_SCALE, visits=Visits(levels, **visits))


def latents(n=N, seed=0):
    noise = torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return CENTRE + SPREAD * noise


def expected_bound(ends=ENDS):
    """E_z of the bound where the denoiser is optimal: -H(z) less the KLs between Gaussians that the two ends cost.

    The optimal reverse of infinitely many levels is exact, so that the joint of p and q over u_0..u_1 differ only in
    u_1 ~ N(0, I), and p(u|u_0) from the posterior of u.
    """
    mean, variance = mean_and_variance()
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
    (signal, noise), (last, blurred) = scales(low), scales(high)
    at_end = last.square() * variance + blurred.square()
    end = 0.5 * (at_end + (last * mean).square() - 1 - at_end.log())
    given = noise.square() / signal.square()
    posterior = 1 / (1 / variance + 1 / given)
    missed = (posterior / variance).square() * (variance + given)
    start = 0.5 * ((posterior + missed) / given - 1 - (posterior / given).log())
    entropy = 0.5 * (2 * math.pi * math.e * SPREAD.square()).log()
    return -(entropy + end + start).sum().item()


def assert_closed_form(**settings):
    prior = prior_of(**settings).estimating(torch.Generator().manual_seed(1))
    found = prior.log_prob(latents().unsqueeze(0))[0]
    assert abs(z_score(found, expected_bound())) < 5
    return found


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "learned"])
@pytest.mark.parametrize("levels", [1, 3])
def test_the_bound_of_gaussian_latents_is_the_closed_form(name, levels):
    found = assert_closed_form(name=name, levels=levels)
    z = latents()
    exact = torch.distributions.Normal(CENTRE, SPREAD).log_prob(z).sum(-1)
    assert (exact - found).mean() > 0.05, "no bound would be as tight as that here"


def test_with_room_for_noise_the_bound_is_the_exact_density():
    z = latents(2000)
    exact = torch.distributions.Normal(CENTRE, SPREAD).log_prob(z).sum(-1)
    prior = prior_of(ends=(-14.0, 8.0), levels=8).estimating(torch.Generator().manual_seed(1))
    gap = exact - prior.log_prob(z)
    assert gap.mean().item() == pytest.approx(0.0, abs=5 * gap.std().item() / math.sqrt(2000))


FAULTS = {
    "jacobian dropped": ("log_prob", lambda found, self: found + self.log_scale.sum()),
    "p(u|u_0) dropped": ("reference", lambda found, self: found - self.chain.first_entropy(self.loc)),
    "end dropped": ("reference", lambda found, self: found - self.chain.end_kl(self.loc.unsqueeze(0))),
    "levels weighed by 1/T": ("correction", lambda found, self: found / 4),
    "levels not averaged": ("correction", lambda found, self: found * 4),
    "control variate not given back": ("expected_loss", lambda found, self: found * 0),
    "control variate of half the levels": ("expected_loss", lambda found, self: found / 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, monkeypatch):
    name, change = FAULTS[fault]
    right = getattr(DiffusionDensity, name)
    monkeypatch.setattr(DiffusionDensity, name, lambda self, *args: change(right(self, *args), self))
    with pytest.raises(AssertionError):
        assert_closed_form(levels=4)


def test_the_control_variate_changes_the_noise_of_the_estimate_and_not_its_mean():
    """Against the three terms as they are written, for any denoiser, at one z."""
    torch.manual_seed(0)
    net = torch.nn.Linear(D, D).double()

    def any_denoiser(z, gamma, condition=None):
        return 0.3 * net(z) * torch.sigmoid(gamma).unsqueeze(-1)

    prior = prior_of(any_denoiser)
    z = CENTRE + SPREAD
    unit = ((z - LOC) / LOG_SCALE.exp()).expand(N, D)
    generator = torch.Generator().manual_seed(2)
    at = torch.rand(N, generator=generator, dtype=torch.float64)
    first, second = (torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        emitted = torch.distributions.Normal(prior.chain.emit(prior.chain.first(unit, first), 0 * unit), math.exp(-1.5))
        plain = -prior.chain.end_kl(unit) - prior.chain.term(unit, at, second) + emitted.log_prob(unit).sum(-1)
        found = prior.estimating(generator).log_prob(z.expand(N, D))
    expected = plain - LOG_SCALE.sum()
    difference = found.mean() - expected.mean()
    se = math.sqrt((found.var() + expected.var()).item() / N)
    assert abs(difference.item()) < 5 * se
    assert found.std() < 0.6 * expected.std()


def test_an_untrained_prior_is_the_standard_normal_of_its_moments_without_any_noise():
    prior = LatentDiffusionPrior(hidden_dim=8, blocks=1).build(Shapes((4,), D)).double()
    z = latents(500)
    prior.initialise(z)
    exact = torch.distributions.Normal(z.mean(0), z.std(0, unbiased=False)).log_prob(z).sum(-1)
    assert torch.allclose(prior().log_prob(z), exact, atol=2e-3)


def test_running_moments_follow_batches_and_are_of_all_of_the_first_ones():
    prior = LatentDiffusionPrior(hidden_dim=8, blocks=1).build(Shapes((4,), D))
    for part in latents(4000).split(1000):
        prior.update_buffers(part, lambda sums: sums)
    p = prior()
    assert torch.allclose(p.loc.double(), latents(4000).mean(0), atol=1e-5)
    assert torch.allclose(p.log_scale.double(), latents(4000).std(0, unbiased=False).log(), atol=1e-5)
    whole = [latents(10, seed).add(5) for seed in range(600)]
    for part in whole:
        prior.update_buffers(part, lambda sums: sums)
    assert (prior().loc.double() - CENTRE - 5).abs().max() < 0.5


def test_samples_have_the_moments_of_their_finite_chain_and_of_the_latents():
    steps = 12
    prior = prior_of(ends=(-8.0, 6.0), steps=steps)
    mean, variance = torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64)
    target, spread = mean_and_variance()
    gammas = torch.linspace(6.0, -8.0, steps + 1, dtype=torch.float64)
    for t, s in itertools.pairwise(gammas):
        (a, b), (lower, noise) = scales(t), scales(s)
        gain = a * spread / (a.square() * spread + b.square())
        fresh = -torch.expm1(s - t)
        slope = lower * gain + noise * (1 - fresh).sqrt() * (1 - a * gain) / b
        shift = (target - gain * a * target) * (lower - noise * (1 - fresh).sqrt() * a / b)
        mean, variance = slope * mean + shift, slope.square() * variance + noise.square() * fresh
    signal, noise = scales(gammas[-1])
    mean, variance = mean / signal, (variance + noise.square()) / signal.square()
    z = prior.sample((N,), torch.Generator().manual_seed(3))
    unit = (z - LOC) / LOG_SCALE.exp()
    for d in range(D):
        assert abs(z_score(unit[:, d], mean[d])) < 5
        assert abs(z_score((unit[:, d] - mean[d]).square(), variance[d])) < 5
    many = prior.visiting(1000, 1.0).sample((4000,), torch.Generator().manual_seed(3))
    assert abs(z_score(many[:, 1], CENTRE[1])) < 5
    assert torch.allclose(many.std(0), SPREAD, rtol=0.06)
    assert not torch.allclose(z.std(0), SPREAD, rtol=0.06), "12 levels are too few, and this would see it"


def test_samples_follow_the_condition_and_the_steps_that_are_asked_for():
    def towards(z, gamma, condition):
        """As `optimal` for u ~ N(condition, 0.1^2)."""
        signal, noise = (scale.unsqueeze(-1) for scale in scales(gamma))
        precision = 100 + (signal / noise).square()
        clean = (100 * condition + signal * z / noise.square()) / precision
        return signal * (z - signal * clean) / noise - noise * clean

    condition = torch.tensor([[-3.0, 0.0, 3.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    p = DiffusionDensity(
        GaussianDiffusion(schedule("linear", -10.0, 5.0), towards, "v"), LOC, LOG_SCALE, condition, Visits(4)
    )
    drawn = Ancestral(samples=300, batch=2, steps=50, generator=torch.Generator().manual_seed(0))("z", p).value
    assert torch.allclose(drawn.mean(0), LOC + LOG_SCALE.exp() * condition, atol=0.1)
    there, exchanged = p.log_prob(drawn), p.log_prob(drawn.flip(1))
    assert (there.mean(0) > exchanged.mean(0) + 100).all()
    repeated = [Ancestral(samples=1, batch=2, noise=0.0, generator=torch.Generator().manual_seed(0))("z", p).value] * 2
    assert torch.equal(*repeated)


def model_of(latent=2, **settings):
    tokens = [f"prior.{key}={value}" for key, value in {"hidden_dim": 8, "blocks": 1, **settings}.items()]
    config = configure("vae", tokens=("prior=latent-diffusion", f"latent={latent}", "hidden=[4]", *tokens))
    torch.manual_seed(0)
    model = config.model.build(config, Shapes((4,), latent))
    for parameter in model.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_an_evaluation_is_the_same_on_any_number_of_threads_and_has_no_weights():
    x = (torch.rand(40, 4, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    found = [bounds(model_of(), lambda a, b: (x[a:b], None), 40, samples=30, threads=n) for n in (1, 2)]
    assert torch.equal(found[0].elbo, found[1].elbo)
    assert (found[0].iwae, found[0].elbo_kind) == (None, "lower bound")
    other = bounds(model_of(), lambda a, b: (x[a:b], None), 40, samples=30, seed=1)
    assert not torch.equal(found[0].elbo, other.elbo)


def test_a_long_evaluation_spreads_its_levels_evenly_over_all_samples(monkeypatch):
    seen, right = [], GaussianDiffusion.term

    def watched(self, y, position, *rest):
        seen.append(position)
        return right(self, y, position, *rest)

    monkeypatch.setattr(GaussianDiffusion, "term", watched)
    p = model_of(eval_timesteps=12).prior(None)
    for start in (0, 2):  # samples 0, 1 and 2, 3 of 6: two levels each
        draw = Pathwise(samples=2, start=start, total=6)
        assert draw("z", p, Normal(torch.zeros(5, 2), torch.zeros(5, 2))).log_p.shape == (2, 5)
    positions = torch.cat([at.view(-1, 5) for at in seen[::2]])
    assert torch.equal((positions * 12).long(), torch.arange(8).unsqueeze(1).expand(8, 5))


def test_the_estimate_has_gradients_for_the_latents_too():
    """Of its mean over levels, by finite differences at the same noise."""
    z = latents(4).requires_grad_()

    def value(at):
        return prior_of(levels=64).estimating(torch.Generator().manual_seed(5)).log_prob(at).sum()

    (gradient,) = torch.autograd.grad(value(z), z)
    step = 1e-5 * torch.randn(4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    change = value(z.detach() + step) - value(z.detach() - step)
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-5)


def test_memory_is_bounded_by_parts_and_these_change_nothing(monkeypatch):
    z = latents(50)
    with torch.no_grad():
        whole = prior_of(levels=4).estimating(torch.Generator().manual_seed(0)).log_prob(z)
        monkeypatch.setattr(diffused, "ROWS", 7)
        parts = prior_of(levels=4).estimating(torch.Generator().manual_seed(0)).log_prob(z)
    assert torch.allclose(whole, parts, rtol=1e-12)


def test_what_nobody_knows_is_refused():
    for name in ("mean", "mode"):
        with pytest.raises(ConfigError, match=f"the {name} of a diffusion has no closed form"):
            getattr(prior_of(), name)
    with pytest.raises(ConfigError, match=r"prior\.gamma_min=2 is not below prior\.gamma_max=1"):
        dataclasses.replace(LatentDiffusionPrior(), gamma_min=2.0, gamma_max=1.0).build(Shapes((4,), 2))
