"""Bounds, predictions, levels and samples of diffusions against Gaussian algebra, and planted faults caught."""

import functools
import itertools
import math

import pytest
import torch
from torch.distributions import kl_divergence

import lambent.distributions.gaussian_diffusion as diffusion
from lambent.distributions.gaussian_diffusion import GaussianDiffusion
from lambent.distributions.timesteps import spread, stratified
from lambent.models.diffusion.timestep_losses import BINS, TimestepLosses
from lambent.networks.diffusion.schedules import SCHEDULES, schedule
from support import diffusion_truths as truth

Y = torch.tensor([[0.4, -0.2, 1.0]], dtype=torch.float64)
DATA = truth.MEAN + truth.corners(truth.COVARIANCE)
NOISE = truth.corners(truth.EYE)


def expected_term(chain, y, positions, weights):
    """The sum over levels of items y (N, 3), its expectation over the noise taken exactly, (N,)."""
    rows = [y.repeat_interleave(len(NOISE), 0) for _ in positions]
    noise = NOISE.repeat(len(y), 1)
    found = [chain.term(r, at.expand(len(r)), noise) for r, at in zip(rows, positions, strict=True)]
    return (torch.stack(found).view(len(positions), len(y), -1).mean(-1) * weights.unsqueeze(1)).sum(0)


def every_level(steps):
    return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps, torch.full(
        (steps,), 1 / steps, dtype=torch.float64
    )


def bound(chain, y, positions, weights):
    terms = expected_term(chain, y, positions, weights) + chain.end_kl(y)
    return terms + chain.first_entropy(y[0])


def check_discrete():
    """The bound of T levels is the sum of the levels' KLs, each of two Gaussians."""
    for steps in (1, 3, 10):
        chain = truth.chain("linear", steps)
        gamma = truth.gammas(chain, steps)
        levels = sum(truth.level_kl(s, t, Y[0]) for s, t in itertools.pairwise(gamma))
        expected = levels + truth.end_kl(gamma[-1], Y[0]) + truth.reconstruction(gamma[0])
        assert bound(chain, Y, *every_level(steps)).item() == pytest.approx(expected, rel=1e-9)


def check_continuous():
    """The bound of infinitely many levels is the entropy and what the two ends lose."""
    chain = truth.chain("cosine", low=-6.0, high=4.0)
    found = bound(chain, DATA, *truth.nodes(200)).mean().item()
    assert found == pytest.approx(truth.limit(-6.0, 4.0), rel=1e-8)


def check_weights():
    """Positions drawn in proportion to the loss, weighted by one over their density, have the mean of uniform ones."""
    losses = planted_losses()
    for steps in (None, 7, 120):
        uniform = stratified(20_000, 1, 0, 20_000, torch.Generator().manual_seed(0), torch.device("cpu")).flatten()
        position, weight = losses.placed(uniform, steps)
        values = weight * curve(position, steps)
        cells = curve((torch.arange(60_000, dtype=torch.float64) + 0.5) / 60_000, steps)
        assert abs(values.mean() - cells.mean()) < 5e-3 * cells.mean()


def curve(position, steps):
    """A loss of 0..1 that rises steeply, constant within each of ``steps`` parts."""
    at = position if steps is None else ((position * steps).floor() + 0.5) / steps
    return (3 * at).exp()


def planted_losses():
    losses = TimestepLosses()
    at = (torch.arange(BINS) + 0.5) / BINS
    losses.squares.copy_((6 * at).exp())
    losses.seen.fill_(1)
    return losses


@pytest.mark.parametrize("check", [check_discrete, check_continuous, check_weights])
def test_check_holds(check):
    check()


@pytest.mark.parametrize("steps", [2, 4])
def test_bound_is_the_kl_of_the_whole_chain(steps):
    """KL(q(z_0..z_1|y)||p(z_0..z_1)), both Gaussians of all levels together, plus the reconstruction."""
    chain = truth.chain("linear", steps)
    gamma = truth.gammas(chain, steps)
    whole = kl_divergence(truth.joint(gamma, Y[0]), truth.joint(gamma)).item()
    found = bound(chain, Y, *every_level(steps)).item()
    assert found == pytest.approx(whole + truth.reconstruction(gamma[0]), rel=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_bound_falls_to_the_entropy(name):
    found = []
    for steps in (10, 100, 1000):
        chain = truth.chain(name, steps, low=-10.0, high=9.0)
        gamma = truth.gammas(chain, steps)
        factors = [0.5 * math.expm1(t - s) for s, t in itertools.pairwise(gamma)]
        levels = sum(f * truth.error(t, DATA) for f, t in zip(factors, gamma[1:], strict=True))
        ends = sum(truth.end_kl(gamma[-1], y) for y in DATA) / len(DATA) + truth.reconstruction(gamma[0])
        found.append(bound(chain, DATA, *every_level(steps)).mean().item())
        assert found[-1] == pytest.approx(levels + ends, rel=1e-8)
    low, high = gamma[0], gamma[-1]
    most = truth.limit(low, high)
    gaps = [value - most for value in found]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] > 0  # first order in 1/T
    assert gaps[2] < 0.025 * gaps[0]
    assert 0 < most - truth.entropy() < 1e-3
    at, weight = truth.nodes(400)
    assert bound(truth.chain(name, None, low=-10.0, high=9.0), DATA, at, weight).mean().item() == pytest.approx(
        most, rel=1e-6 if name == "ddpm" else 1e-8
    )


@pytest.mark.parametrize("steps", [10, 100, None])
def test_estimate_has_the_expectation_of_the_bound(steps):
    """Random noise and random levels, float32 as in use, against the exact expectation."""
    chain = truth.chain("linear", steps)
    n, noise = 40_000, torch.Generator().manual_seed(1)
    position = torch.rand(n, generator=noise, dtype=torch.float64)
    values = chain.term(Y.float().expand(n, -1), position, torch.randn(n, 3, generator=noise)).double()
    exact = expected_term(chain, Y, *(truth.nodes(200) if steps is None else every_level(steps))).item()
    assert abs(values.mean() - exact) < 5 * values.std() / math.sqrt(n)


@pytest.mark.parametrize("predict", ["x", "v"])
@pytest.mark.parametrize("steps", [20, None])
def test_predictions_are_equivalent(predict, steps):
    eps, other = truth.chain("cosine", steps), truth.chain("cosine", steps, predict)
    noise = torch.Generator().manual_seed(2)
    y, e = (torch.randn(50, 3, generator=noise, dtype=torch.float64) for _ in range(2))
    position = torch.rand(50, generator=noise, dtype=torch.float64)
    torch.testing.assert_close(eps.term(y, position, e), other.term(y, position, e), rtol=1e-9, atol=1e-12)
    gamma = eps.schedule(position)[0]
    for ours, theirs in zip(eps.split(y, gamma), other.split(y, gamma), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    down = [c.generate(y, steps=20, generator=torch.Generator().manual_seed(0)) for c in (eps, other)]
    torch.testing.assert_close(*down, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("predict", ["eps", "x", "v"])
@pytest.mark.parametrize("gamma", [-20.0, -13.3, 0.0, 13.3])
def test_terms_keep_their_digits_in_float32(predict, gamma):
    """Ends of the chain where a or s is tiny: the squared error against float64."""
    noise = torch.Generator().manual_seed(3)
    y, e, output = (torch.randn(20, 3, generator=noise, dtype=torch.float64) for _ in range(3))
    position = torch.full((20,), 0.5, dtype=torch.float64)

    def terms(dtype):
        chain = GaussianDiffusion(
            schedule("linear", gamma - 1e-3, gamma + 1e-3), lambda *_: output.to(dtype), predict, 1000
        )
        return chain.term(y.to(dtype), position, e.to(dtype)).double()

    torch.testing.assert_close(terms(torch.float32), terms(torch.float64), rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_rises_between_its_ends_by_its_slope(name):
    curve = schedule(name, -13.3, 5.0, 16)
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    gamma, slope = curve(t)
    torch.testing.assert_close(gamma[[0, -1]].double(), torch.tensor([-13.3, 5.0]).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(gamma.sum(), t)[0], slope, rtol=1e-9, atol=0)
    assert (slope > 0).all()


def test_fixed_schedules_are_the_published_curves():
    """Signal powers of Ho et al. (1,000 betas from 1e-4 to .02) and of Nichol & Dhariwal, at their own ends."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    power = torch.cumprod(1 - betas, 0)
    gamma = torch.log((1 - power) / power)
    curve = schedule("ddpm", gamma[0].item(), gamma[-1].item())
    torch.testing.assert_close(curve(torch.linspace(0, 1, 1000, dtype=torch.float64))[0], gamma, rtol=0, atol=0.05)
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    power = torch.cos((u + 0.008) / 1.008 * math.pi / 2).square() / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    gamma = torch.log((1 - power) / power)
    curve = schedule("cosine", gamma[0].item(), gamma[-1].item())
    torch.testing.assert_close(curve((u - u[0]) / (u[-1] - u[0]))[0], gamma, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_levels_are_all_taken_equally_often(steps):
    """In any number of parts, for each example, of a number of samples that is a multiple of T."""
    noise, total, batch = torch.Generator().manual_seed(4), 3 * steps, 5
    cuts = [0, total // 2, total - 1, total]
    found = [stratified(b - a, batch, a, total, noise, torch.device("cpu")) for a, b in itertools.pairwise(cuts)]
    level = (torch.cat(found) * steps).floor().long()
    assert (torch.stack([torch.bincount(row, minlength=steps) for row in level.T]) == 3).all()


def test_positions_of_a_batch_are_evenly_spread():
    found = spread(4, 6, torch.Generator().manual_seed(0), torch.device("cpu"))
    for positions in (found.flatten(), *found.T):
        gaps = positions.sort().values.diff()
        torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / len(positions)))


def test_importance_lowers_the_variance():
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    position, weight = planted_losses().placed(uniform, None)
    assert (weight * curve(position, None)).var() < 0.05 * curve(uniform, None).var()
    assert weight.max() <= 10


def test_unseen_levels_are_not_left_out():
    losses = TimestepLosses()
    position = torch.full((8,), 0.05, dtype=torch.float64)
    losses.update_buffers(position, torch.full((8,), 3.0), torch.ones(8), lambda x: x)
    torch.testing.assert_close(losses.probabilities(), torch.full((BINS,), 1 / BINS, dtype=torch.float64))


@functools.cache
def learned():
    torch.manual_seed(3)
    return schedule("learned", -8.0, 4.0, 8).double()


@pytest.mark.parametrize("weighted", [False, True])
def test_interior_learns_from_the_variance(weighted):
    """The gradient of the sum of L is that of the sum of L^2 for the interior, its own for the ends."""
    curve, noise = learned(), torch.Generator().manual_seed(6)
    position = torch.rand(30, generator=noise, dtype=torch.float64)
    weight = 1 + torch.rand(30, generator=noise, dtype=torch.float64) if weighted else torch.ones_like(position)
    y, e = (torch.randn(30, 3, generator=noise, dtype=torch.float64) for _ in range(2))
    denoise = lambda z, gamma, _: torch.tanh(z * gamma.unsqueeze(-1) / 5)  # noqa: E731
    interior = [curve.straight, curve.steepness, curve.shift, curve.height]

    def losses():
        return GaussianDiffusion(curve, denoise).weighted_term(y, position, e, weight)[0]

    steered = torch.autograd.grad(losses().sum(), [*interior, curve.start, curve.log_span])
    curve.learned = False
    squared = torch.autograd.grad(losses().square().sum(), interior)
    plain = torch.autograd.grad(losses().sum(), [curve.start, curve.log_span])
    curve.learned = True
    torch.testing.assert_close(steered, (*squared, *plain), rtol=1e-9, atol=1e-9)


def test_interior_learns_from_the_bound_of_finitely_many_levels():
    curve, position = learned(), torch.rand(30, dtype=torch.float64)
    y, e = torch.randn(30, 3, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    step = 1e-6

    def total():
        return (
            GaussianDiffusion(curve, lambda z, gamma, _: torch.tanh(z * gamma.unsqueeze(-1) / 5), steps=5)
            .term(y, position, e)
            .sum()
        )

    slope = torch.autograd.grad(total(), curve.straight)[0].item()
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            curve.straight += sign * step
            ends.append(total().item())
            curve.straight -= sign * step
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_ends_learn_from_the_bound():
    """With the best denoiser, d bound/d ends is that of the limit in closed form, untouched by the interior's rule."""
    curve = learned()
    chain = GaussianDiffusion(curve, truth.best("eps"))
    ends = [curve.start, curve.log_span]
    slopes = torch.autograd.grad(bound(chain, DATA, *truth.nodes(200)).mean(), ends)

    def limit(start, log_span):
        return truth.limit(start, start + math.exp(log_span))

    start, log_span = (p.item() for p in ends)
    along = (limit(start + 1e-4, log_span) - limit(start - 1e-4, log_span)) / 2e-4
    apart = (limit(start, log_span + 1e-4) - limit(start, log_span - 1e-4)) / 2e-4
    assert [s.item() for s in slopes] == pytest.approx([along, apart], rel=1e-5)


def moments_agree(z, mean, covariance):
    """Z-scores of the sample's mean and covariance, all within 5."""
    n = len(z)
    centred = z - mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    assert (z.mean(0) - mean).abs().max() < 5 * (covariance.diagonal() / n).sqrt().max()
    assert ((products.mean(0) - covariance) / (products.std(0) / math.sqrt(n))).abs().max() < 5


def generated(name, steps, n, predict="eps", **how):
    chain, noise = truth.chain(name, predict=predict, low=-6.0, high=9.0), torch.Generator().manual_seed(7)
    z = torch.randn(n, 3, generator=noise, dtype=torch.float64)
    return chain, chain.generate(z, steps=steps, generator=noise, **how)


@pytest.mark.parametrize("steps", [1, 4])
def test_ancestral_sampling_is_the_chain(steps):
    """Few levels, where the chain's own marginals are far from the data's: those of p(z_0..z_1) all the same."""
    chain, z = generated("linear", steps, 100_000)
    whole = truth.joint(truth.gammas(chain, steps))
    moments_agree(z, whole.mean[:3], whole.covariance_matrix[:3, :3])


@pytest.mark.parametrize("predict", ["eps", "x", "v"])
def test_ancestral_sampling_by_many_levels_gives_the_data(predict):
    chain, z = generated("cosine", 500, 2_000, predict)
    y = chain.emit(z, torch.randn(z.shape, generator=torch.Generator().manual_seed(8), dtype=z.dtype))
    moments_agree(y, truth.MEAN, truth.COVARIANCE + 2 * math.exp(-6.0) * truth.EYE)


@pytest.mark.parametrize("stochasticity", [0.0, 0.5])
def test_ddim_maps_noise_to_the_data(stochasticity):
    """At any noise the marginals are those of q; without any, z_0 is an affine map of z_1, seen through its corners."""
    chain, z = generated("cosine", 500, 2_000, stochasticity=stochasticity)
    moments_agree(z, truth.marginal(-6.0).mean, truth.marginal(-6.0).covariance_matrix)
    if stochasticity:
        return
    off = []
    for steps in (200, 400):
        ends = chain.generate(NOISE, steps=steps, stochasticity=0.0)
        found = (ends - ends.mean(0)).T @ (ends - ends.mean(0)) / len(ends)
        off.append((found - truth.marginal(-6.0).covariance_matrix).abs().max().item())
    assert off[1] < 0.05
    assert off[0] / off[1] == pytest.approx(2, rel=0.1)  # Euler's method


def test_inversion_comes_back():
    chain, off = truth.chain("cosine", low=-6.0, high=5.0), []
    z = chain.first(DATA, torch.zeros_like(DATA))
    for steps in (250, 500):
        back = chain.generate(chain.invert(z, steps=steps), steps=steps, stochasticity=0.0)
        off.append((back - z).abs().max().item())
    assert off[1] < 0.04
    assert off[0] / off[1] == pytest.approx(2, rel=0.2)


def test_few_levels_are_those_of_the_chain():
    chain = truth.chain(steps=1000)
    assert set((chain.visited(7) * 1000).round().tolist()) <= set(range(1001))
    assert chain.visited(1000).diff().min() > 0
    with pytest.raises(ValueError, match="use at most 1000"):
        chain.visited(1001)


def off(change):
    """A fault in the level's gamma and factor."""
    real = GaussianDiffusion._at

    def wrong(self, position, steer):
        return change(self, position, *real(self, position, steer))

    return lambda patch: patch.setattr(GaussianDiffusion, "_at", wrong)


def swapped(self, position, gamma, factor):
    """The noise of level s, the factor of level t."""
    return (gamma if self.steps is None else self.schedule((position * self.steps).floor() / self.steps)[0]), factor


FAULTS = {
    "factor 1/2 missing": (off(lambda self, at, gamma, factor: (gamma, 2 * factor)), check_discrete),
    "factor 1/2 missing, continuous": (off(lambda self, at, gamma, factor: (gamma, 2 * factor)), check_continuous),
    "exp for expm1": (off(lambda self, at, g, f: (g, f + 0.5 * (self.steps or 0))), check_discrete),
    "s and t swapped": (off(swapped), check_discrete),
    "gamma' missing": (off(lambda self, at, g, f: (g, torch.full_like(f, 0.5))), check_continuous),
    "T missing": (off(lambda self, at, g, f: (g, f / (self.steps or 1))), check_discrete),
    "end KL dropped": (
        lambda p: p.setattr(GaussianDiffusion, "end_kl", lambda self, y: torch.zeros(len(y))),
        check_discrete,
    ),
    "weights dropped": (
        lambda p: p.setattr(
            TimestepLosses,
            "placed",
            lambda self, u, steps, real=TimestepLosses.placed: (real(self, u, steps)[0], torch.ones_like(u)),
        ),
        check_weights,
    ),
    "signal and noise exchanged": (
        lambda p: p.setattr(diffusion, "scales", lambda gamma: (gamma.sigmoid().sqrt(), gamma.neg().sigmoid().sqrt())),
        check_continuous,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(name, monkeypatch):
    plant, check = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
