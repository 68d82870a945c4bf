"""Normals rounded to bytes: masses against scipy's and mpmath's, gradients by value, draws; points and their path."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats as st
import torch

from lambent.distributions import RoundedNormal, RoundedPoint, rounded as module
from lambent.draws import Ancestral, Detached, Given, Mode, Pathwise, StraightThrough
from lambent.errors import CombinationError, ConfigError
from support.distribution_checks import check_counts, check_sums_to_one

MEANS = (-300.0, -5.0, -0.5, 0.0, 0.25, 17.0, 100.5, 127.375, 254.5, 255.0, 256.0, 400.0)
LOG_SCALES = (-7.0, -5.0, -3.0, -1.0, 0.0, 1.0, 3.0, 5.0)
BYTES = torch.arange(256.0).double()
POINTS = [  # (byte, mean, scale)
    (0, 0.2, 0.3),
    (0, 1e6, 1e-3),
    (0, -1e6, 1e-3),
    (255, 1e6, 1e3),
    (255, 250.0, 2.0),
    (7, 1e6, 1e-3),
    (7, -1e6, 1e3),
    (7, 7.0, 1e-3),
    (7, 7.0, 1e3),
    (100, 99.4, 0.02),
    (100, 103.0, 5.0),
    (100, 180.0, 1.0),
]


def families(dtype=torch.float64):
    """Means and log scales as a batch, events of one byte."""
    means, scales = torch.meshgrid(torch.tensor(MEANS).double(), torch.tensor(LOG_SCALES).double(), indexing="ij")
    return RoundedNormal(means.to(dtype).unsqueeze(-1), scales.to(dtype).unsqueeze(-1))


def masses_are_differences_of_scipys_cdf():
    found = families().log_prob(BYTES.view(-1, 1, 1, 1)).exp().numpy()
    mean, scale = np.array(MEANS)[:, None], np.exp(np.array(LOG_SCALES))
    edges = np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])[:, None, None]
    expected = np.diff(st.norm(mean, scale).cdf(edges), axis=0)
    assert np.abs(found - expected).max() < 1e-14


def masses_sum_to_one():
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        check_sums_to_one(families(dtype), BYTES, tolerance)


def by_mpmath(byte, mean, scale):
    """Log mass and its derivatives by value, mean and log scale, with 50 digits beyond those that cancel."""
    with mpmath.workdps(60):
        mean, scale = mpmath.mpf(mean), mpmath.mpf(scale)
        edges = [(byte + sign * mpmath.mpf(0.5) - mean) / scale for sign in (-1, 1)]
        flip = -1 if edges[0] > 0 else 1  # the tail that is small, so that the difference has its digits
        tails = [mpmath.erfc(-flip * e / mpmath.sqrt(2)) / 2 for e in edges]
        density = [mpmath.npdf(e) for e in edges]
        if byte == 0:
            tails[0], density[0] = mpmath.mpf(0 if flip == 1 else 1), mpmath.mpf(0)
        if byte == 255:
            tails[1], density[1] = mpmath.mpf(1 if flip == 1 else 0), mpmath.mpf(0)
        mass = flip * (tails[1] - tails[0])
        by_value = (density[1] - density[0]) / mass / scale
        by_log_scale = -(edges[1] * density[1] - edges[0] * density[0]) / mass
        return [float(v) for v in (mpmath.log(mass), by_value, -by_value, by_log_scale)]


def log_masses_and_gradients_are_mpmaths():
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        for point in POINTS:
            byte, mean, scale = (torch.tensor([v], dtype=dtype, requires_grad=True) for v in point)
            log_scale = scale.detach().log().requires_grad_()
            log_p = RoundedNormal(mean, log_scale).log_prob(byte)
            found = [log_p, *torch.autograd.grad(log_p, [byte, mean, log_scale])]
            exact = by_mpmath(point[0], mean.double().item(), math.exp(log_scale.double().item()))
            for value, expected in zip(found, exact, strict=True):
                assert value.dtype == dtype
                assert abs(value.item() - expected) <= tolerance * (1e-4 + abs(expected)), (point, value, expected)


def the_points_gradient_is_the_positions():
    position = torch.tensor([[0.2, 37.6, 254.9]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([3.0, -2.0, 0.5]).double()
    z = StraightThrough(samples=2)("z", RoundedPoint(position), RoundedPoint(position))
    assert torch.equal(z.value, torch.tensor([[[0.0, 38.0, 255.0]]]).double().expand(2, 1, 3))
    (gradient,) = torch.autograd.grad((z.value * weight).sum(), position)
    assert torch.equal(gradient[0], 2 * weight)
    assert torch.equal(z.log_q, torch.zeros(2, 1).double())


CHECKS = (
    masses_are_differences_of_scipys_cdf,
    masses_sum_to_one,
    log_masses_and_gradients_are_mpmaths,
    the_points_gradient_is_the_positions,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_rounded(check):
    check()


def test_gradients_are_those_of_finite_differences():
    noise = torch.Generator().manual_seed(0)
    value = torch.tensor([[3.0, 127.0, 128.0, -0.5, 255.5, 90.0]]).double().requires_grad_()  # ends: where it is smooth
    mean = (value.detach() + 5 * torch.randn(4, 6, generator=noise).double()).requires_grad_()
    log_scale = torch.randn(4, 1, generator=noise).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda k, m, s: RoundedNormal(m, s).log_prob(k), (value, mean, log_scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_however_far_the_mean(dtype):
    for mean in (1e15, -1e15):
        for scale in (1e-3, 1.0, 1e3):
            at = torch.tensor([mean, math.log(scale)], dtype=dtype, requires_grad=True)
            log_p = RoundedNormal(at[:1], at[1:]).log_prob(BYTES.to(dtype).unsqueeze(-1))
            (gradient,) = torch.autograd.grad(log_p.sum(), at)
            assert bool(torch.isfinite(log_p).all())
            assert bool(torch.isfinite(gradient).all())


def test_draws_have_the_masses_and_the_moments_are_theirs():
    p = RoundedNormal(torch.tensor([3.0, 252.0, 100.0]).double(), torch.tensor([2.0, 1.0, 0.5]).double(), event_dims=0)
    mass = p.log_prob(BYTES.unsqueeze(-1)).exp()
    draws = p.sample((20_000,), torch.Generator().manual_seed(1)).long()
    for i in range(3):
        check_counts(np.bincount(draws[:, i].numpy(), minlength=256), mass[:, i].numpy())
    mean = (mass * BYTES.unsqueeze(-1)).sum(0)
    assert torch.allclose(p.mean, mean, atol=1e-10)
    assert torch.allclose(p.variance, (mass * (BYTES.unsqueeze(-1) - mean).square()).sum(0), atol=1e-8)
    assert torch.equal(p.mode, BYTES[mass.argmax(0)])
    assert RoundedNormal(torch.tensor([10.0]), torch.tensor([6.0])).mode.item() in (0.0, 255.0)


def test_a_point_is_a_distribution_on_a_countable_set():
    q = RoundedPoint(torch.tensor([[1.4, 0.0], [2.6, 3.0]]), levels=4)
    cells = q.enumerate_support()
    assert cells.shape == (16, 2, 2)
    assert torch.equal(q.log_prob(cells).exp().sum(0), torch.ones(2))
    assert torch.equal(q.log_prob(q.sample((3,))), torch.zeros(3, 2))
    assert q.log_prob(torch.tensor([1.0, 1.0])).tolist() == [-math.inf, -math.inf]
    with pytest.raises(ConfigError, match="too many to enumerate"):
        RoundedPoint(torch.zeros(3)).enumerate_support()
    with pytest.raises(ConfigError, match="expected 2 or more"):
        RoundedNormal(torch.zeros(1), torch.zeros(1), levels=1)


def test_other_draws_take_a_point_as_it_is_and_an_unbiased_one_refuses_it():
    position = torch.tensor([[7.3, 8.8]], requires_grad=True)
    q, p = RoundedPoint(position), RoundedNormal(torch.zeros(2), torch.ones(2))
    for draw in (Detached(samples=2), Mode(samples=2), Given(values={"z": torch.tensor([[[7.0, 9.0]]] * 2)})):
        z = draw("z", p, q)
        assert z.value.tolist() == [[[7.0, 9.0]]] * 2
        assert not z.value.requires_grad
        assert torch.equal(z.log_q, torch.zeros(2, 1))
        assert z.normalised
    assert Ancestral(batch=3)("z", p).value.shape == (1, 3, 2)
    with pytest.raises(CombinationError, match="RoundedPoint is biased; use draw=straight-through"):
        Pathwise()("z", p, q)


def _without_tails(real):
    def forward(ctx, value, loc, log_scale, levels):
        return real(ctx, value.clamp(1e-9, levels - 1 - 1e-9), loc, log_scale, levels)

    return forward


def _narrow_bins(real):
    def forward(ctx, value, loc, log_scale, levels):
        wide = real(ctx, 2 * value - 2 * loc, 0 * loc, log_scale + math.log(2), levels)
        return torch.where((value > 0) & (value < levels - 1), wide, real(ctx, value, loc, log_scale, levels))

    return forward


def _shifted(real):
    return lambda ctx, value, loc, log_scale, levels: real(ctx, value, loc + 0.5, log_scale, levels)


def _cut(real):
    return lambda self, shape, generator: real(self, shape, generator).detach()


FAULTS = {
    "the ends' bins without their tails": (module._LogMass, "forward", lambda r: staticmethod(_without_tails(r))),
    "bins of half the width": (module._LogMass, "forward", lambda r: staticmethod(_narrow_bins(r))),
    "bins from k to k + 1": (module._LogMass, "forward", lambda r: staticmethod(_shifted(r))),
    "hazard by the density alone": (module, "_hazard", lambda r: lambda x: torch.exp(-x * x / 2) / 2.5066282746310002),
    "no gradient through the rounding": (RoundedPoint, "_sample", _cut),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name, monkeypatch):
    owner, attribute, make = FAULTS[name]
    monkeypatch.setattr(owner, attribute, make(getattr(owner, attribute)))
    failed = []
    for check in CHECKS:
        try:
            check()
        except (AssertionError, RuntimeError):
            failed.append(check.__name__)
    assert failed
