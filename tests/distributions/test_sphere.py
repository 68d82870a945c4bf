"""The von Mises-Fisher distribution: normaliser, density, draws and their gradients, against quadrature and scipy."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch
from scipy.optimize import brentq

from lambent.distributions import SphereUniform, VonMisesFisher, closed_kl, sphere as module
from lambent.distributions.bessel import log_mean_exp, mean_cosine
from lambent.distributions.sphere import angle_slope, log_area
from lambent.draws import Pathwise
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.ais import annealed_importance_sampling
from lambent.models import VAE
from lambent.posteriors import VonMisesFisherPosterior
from lambent.priors import SpherePrior, SpherePriorModule
from lambent.recipes import configure
from lambent.shapes import Shapes
from support.distribution_checks import MAX_Z, check_counts, check_uniform
from support.random_numbers import generator, numbers

DIMENSIONS = (2, 3, 4, 7, 10, 33, 34, 35, 50, 101, 200)
CONCENTRATIONS = (0.0, 1e-3, 0.3, 1.0, 7.0, 30.0, 100.0, 1e3, 1e4)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def panels(low, high, count=12):
    """Gauss-Legendre nodes and weights of ``count`` intervals."""
    edges = np.linspace(low, high, count + 1)
    half, middle = np.diff(edges) / 2, (edges[1:] + edges[:-1]) / 2
    return (middle[:, None] + half[:, None] * NODES).ravel(), (half[:, None] * WEIGHTS).ravel()


def log_h(t, kappa, d):
    with np.errstate(divide="ignore"):
        return kappa * (np.cos(t) - 1) + ((d - 2) * np.log(np.sin(t)) if d > 2 else 0)


def quadrature(kappa, d):
    """log E[exp(k w)] - k and E[w], 1 - E[w] under the distribution of the cosine w, by integrals over the angle."""
    t, weight = panels(0, math.pi)
    terms = np.log(weight) + log_h(t, kappa, d)
    uniform = sp.logsumexp(np.log(weight) + log_h(t, 0, d))
    total = sp.logsumexp(terms)
    return total - uniform, np.exp(terms - total) @ (2 * np.sin(t / 2) ** 2)


def check_normaliser(kappa, d, tolerance=1e-10):
    k = torch.tensor(kappa, dtype=torch.float64)
    below, less = quadrature(kappa, d)
    found, cosine = log_mean_exp(k, d).item(), mean_cosine(k, d).item()
    assert found - kappa == pytest.approx(below, rel=tolerance, abs=1e-13)
    assert 1 - cosine == pytest.approx(less, rel=tolerance)
    order, scaled = d / 2 - 1, [sp.ive(d / 2 - 1 + i, kappa) for i in (0, 1)]
    if kappa and scaled[1] > 1e-290:
        truth = sp.gammaln(order + 1) + order * math.log(2 / kappa) + np.log(scaled[0])
        assert found - kappa == pytest.approx(truth, rel=tolerance, abs=1e-10)
        assert cosine == pytest.approx(scaled[1] / scaled[0], rel=tolerance)


@pytest.mark.parametrize("d", DIMENSIONS)
def test_normaliser_and_mean_agree_with_quadrature_and_scipy(d):
    for kappa in CONCENTRATIONS:
        check_normaliser(kappa, d)


@pytest.mark.parametrize("d", [2, 3, 10, 35, 200])
def test_small_concentrations_keep_their_digits(d):
    """L ~ k^2/(2d) (1 - k^2/(2d(d+2))) and A ~ k/d near 0."""
    k = torch.tensor([1e-8, 1e-5, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(k, d), k**2 / (2 * d) * (1 - k**2 / (2 * d * (d + 2))), rtol=1e-12, atol=0)
    torch.testing.assert_close(mean_cosine(k, d), k / d * (1 - k**2 / (d * (d + 2))), rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [2, 3, 50])
def test_their_derivatives(d):
    for kappa in (0.5, 20.0, 1e3):
        k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
        (a,) = torch.autograd.grad(log_mean_exp(k, d), k, create_graph=True)
        (slope,) = torch.autograd.grad(a, k)
        t, weight = panels(0, math.pi)
        p = np.exp(np.log(weight) + log_h(t, kappa, d))
        p, less = p / p.sum(), 1 - np.cos(t)
        assert slope.item() == pytest.approx(p @ (less - p @ less) ** 2, rel=1e-8)


def test_an_order_too_low_is_caught(monkeypatch):
    right = log_mean_exp
    monkeypatch.setitem(globals(), "log_mean_exp", lambda k, d: right(k, d + 1))
    with pytest.raises(AssertionError):
        check_normaliser(3.0, 4)


def circle(n=4000):
    t = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([t.cos(), t.sin()], -1), torch.full((n,), 2 * math.pi / n, dtype=torch.float64)


def globe(n=200):
    """Points of S^2 and their shares of its surface."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(n))
    points, each = circle(n)
    z = nodes.view(-1, 1, 1).expand(-1, n, 1)
    z = torch.cat([(1 - nodes**2).sqrt().view(-1, 1, 1) * points, z], -1)
    return z.reshape(-1, 3), (weights[:, None] * each).flatten()


SURFACES = {2: circle(), 3: globe()}


def check_density(d):
    points, area = SURFACES[d]
    for kappa in (0.0, 1.0, 60.0):
        q = VonMisesFisher(numbers(d, d), torch.tensor(kappa).double())
        assert (q.log_prob(points).exp() @ area).item() == pytest.approx(1, abs=1e-10)
        mean = (q.log_prob(points).exp() * area) @ points
        torch.testing.assert_close(mean, q.mean, rtol=0, atol=1e-10)
    assert (SphereUniform(d).log_prob(points).exp() @ area).item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("d", SURFACES)
def test_it_integrates_to_one_over_the_surface(d):
    check_density(d)


def _no_area(d):
    return 0.0


def _area_of_the_ball(d):
    return log_area(d + 1)


@pytest.mark.parametrize("fault", [_no_area, _area_of_the_ball])
@pytest.mark.parametrize("d", SURFACES)
def test_a_wrong_surface_is_caught(fault, d, monkeypatch):
    monkeypatch.setattr(module, "log_area", fault)
    with pytest.raises(AssertionError):
        check_density(d)


def test_a_wrong_dimension_of_the_bessel_function_is_caught(monkeypatch):
    monkeypatch.setattr(module, "log_mean_exp", lambda k, d: log_mean_exp(k, d - 1))
    with pytest.raises(AssertionError):
        check_density(3)


@pytest.mark.parametrize("d", [2, 10, 200])
@pytest.mark.parametrize("kappa", [0.0, 1.0, 1e4])
def test_float32_keeps_the_density(d, kappa):
    """Rounding a point to float32 moves m.z by 1e-7, which times 10^4 is 1e-3 nats: |z - m|^2 loses none of it."""
    q = VonMisesFisher(numbers(0, d).float(), torch.tensor(kappa))
    z = q.sample((1000,), generator(1))
    assert z.dtype == torch.float32
    wide = q.map_parameters(lambda t: t.double())
    on_sphere = z.double() / z.double().norm(dim=-1, keepdim=True)
    truth = wide.log_prob(on_sphere)
    assert ((q.log_prob(z) - truth).abs() / (1 + truth.abs())).max() < 2e-5
    assert ((closed_kl(q, SphereUniform(d)) - closed_kl(wide, SphereUniform(d))).abs()).max() < 1e-4


def cumulative(angles, kappa, d):
    """F(angle), by a fine cumulative sum over where the mass is."""
    high = min(math.pi, 40 * math.sqrt((d + 1) / max(kappa, 1e-9)))
    t, weight = panels(0, high, 40)
    mass = weight * np.exp(log_h(t, kappa, d) - log_h(t, kappa, d).max())
    return np.interp(angles, t, np.cumsum(mass) - mass / 2) / mass.sum()


def angles_of(q, z):
    along = (z * q.direction).sum(-1)
    across = (z - along.unsqueeze(-1) * q.direction).norm(dim=-1)
    return torch.atan2(across, along)


def check_sampler(d, kappa, draws=20_000):
    q = VonMisesFisher(numbers(d, d), torch.tensor(kappa).double())
    z = q.sample((draws,), generator(3))
    assert (z.norm(dim=-1) - 1).abs().max() < 1e-14
    check_uniform(cumulative(angles_of(q, z).numpy(), kappa, d))
    frame = torch.linalg.qr(torch.cat([q.direction.unsqueeze(1), numbers(9, d, min(d - 1, 2))], 1))[0][:, 1:]
    across = z @ frame
    if d == 2:
        check_counts(np.bincount((across[:, 0] > 0).long().numpy(), minlength=2), np.array([0.5, 0.5]))
    else:
        check_uniform((torch.atan2(across[:, 1], across[:, 0]) / (2 * math.pi) + 0.5).numpy())


@pytest.mark.parametrize("d", [2, 3, 10, 200])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 20.0, 1e4])
def test_draws_follow_the_density(d, kappa):
    check_sampler(d, kappa)


def test_accepting_every_proposal_is_caught(monkeypatch):
    def careless(kappa, d, generator):
        angle, refused = proposed(kappa, d, generator)
        return angle, torch.zeros_like(refused)

    proposed = module._proposed
    monkeypatch.setattr(module, "_proposed", careless)
    for d in (2, 10):
        with pytest.raises(AssertionError, match="p ="):
            check_sampler(d, 20.0)


def test_a_beta_of_the_wrong_dimension_is_caught(monkeypatch):
    beta = module._symmetric_beta
    monkeypatch.setattr(module, "_symmetric_beta", lambda shape, like, g: beta(shape + 0.5, like, g))
    for d in (2, 3):
        with pytest.raises(AssertionError, match="p ="):
            check_sampler(d, 20.0)


def test_uniform_draws_are():
    z = SphereUniform(3, dtype=torch.float64).sample((20_000,), generator(0))
    check_uniform(((z[:, 2] + 1) / 2).numpy())  # Archimedes
    check_uniform((torch.atan2(z[:, 1], z[:, 0]) / (2 * math.pi) + 0.5).numpy())


@pytest.mark.parametrize("d", [2, 3, 10, 200])
@pytest.mark.parametrize("kappa", [0.01, 5.0, 300.0])
def test_the_angle_moves_as_its_quantile_does(d, kappa):
    """Against the quantile function itself, by root finding on the cumulative integral at two concentrations."""

    def mass(t, k):
        lower, upper = (panels(*ends) for ends in ((0, t), (t, math.pi)))
        below, above = (w @ np.exp(log_h(x, k, d) - log_h(_mode(k, d), k, d)) for x, w in (lower, upper))
        return below / (below + above)

    q = VonMisesFisher(torch.eye(d, dtype=torch.float64)[0], torch.tensor(kappa).double())
    for angle in angles_of(q, q.sample((3,), generator(2))).tolist():
        level, step = mass(angle, kappa), 1e-4 * kappa
        ends = [_solved(lambda t, k=k, level=level: mass(t, k) - level) for k in (kappa - step, kappa + step)]
        found = angle_slope(torch.tensor([angle]).double(), torch.tensor([kappa]).double(), d).item()
        assert found == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-5)


def _solved(function):
    return brentq(function, 1e-9, math.pi - 1e-9, xtol=1e-15, rtol=1e-14)


def _mode(kappa, d):
    t, _ = panels(0, math.pi)
    return t[log_h(t, kappa, d).argmax()]


def cost(z):
    return (0.7 * z[..., 0] - 1.3 * z[..., 1]).exp() + z[..., -1].square()


def check_gradients(d, kappa, draws=20_000):
    """d E[cost] / d (loc, k), a draw at a time, against autograd through the density on the whole surface."""
    loc, k = numbers(d, d).requires_grad_(), torch.tensor(kappa).double().requires_grad_()
    points, area = SURFACES[d]
    expected = (VonMisesFisher(loc, k).log_prob(points).exp() * area) @ cost(points)
    truth = torch.cat([g.flatten() for g in torch.autograd.grad(expected, (loc, k))])
    each = [t.detach().expand(draws, *t.shape).clone().requires_grad_() for t in (loc, k)]
    cost(VonMisesFisher(*each).rsample((), generator(4))).sum().backward()
    slope = torch.zeros(draws).double() if each[1].grad is None else each[1].grad
    found = torch.cat([each[0].grad, slope.unsqueeze(1)], 1)
    z = (found.mean(0) - truth) / (found.std(0) / draws**0.5 + 1e-12)
    assert z.abs().max() <= MAX_Z, f"z = {z.tolist()}"


@pytest.mark.parametrize("d", SURFACES)
@pytest.mark.parametrize("kappa", [0.2, 3.0, 50.0])
def test_pathwise_gradients_are_those_of_the_expectation(d, kappa):
    check_gradients(d, kappa)


def _through_the_proposal(kappa, d, generator):
    """The accepted proposal followed as if nothing had been rejected."""
    angle = module._rejected(kappa.detach().flatten(), d, generator).view(kappa.shape)
    k = kappa.detach().clone().requires_grad_()
    b = (d - 1) / (2 * k + torch.hypot(2 * k, torch.full_like(k, d - 1)))
    e = 1 / (1 + b.detach() * (1 + angle.cos()) / (1 - angle.cos()))
    scale = 1 - (1 - b) * e
    moved = 2 * torch.atan2((2 * b * e / scale).sqrt(), (2 * (1 - e) / scale).sqrt())
    (slope,) = torch.autograd.grad(moved.sum(), k)
    return angle + (kappa - kappa.detach()) * slope


def _not_at_all(kappa, d, generator):
    return module._rejected(kappa.detach().flatten(), d, generator).view(kappa.shape)


@pytest.mark.parametrize("fault", [_through_the_proposal, _not_at_all])
def test_gradients_without_the_acceptance_are_caught(fault, monkeypatch):
    monkeypatch.setattr(module, "_angle", fault)
    with pytest.raises(AssertionError, match="z ="):
        check_gradients(3, 3.0, 100_000)


def test_gradients_are_finite_at_the_rim():
    k = torch.tensor([0.0, 1e-6, 1e4, 1e6]).unsqueeze(1).expand(4, 2000).clone().requires_grad_()
    for d in (2, 3, 200):
        loc = numbers(d, 4, 2000, d).float().requires_grad_()
        q = VonMisesFisher(loc, k)
        z = q.rsample((), generator(0))
        gradients = torch.autograd.grad((z.sum(-1) + q.log_prob(z) + closed_kl(q, SphereUniform(d))).sum(), (loc, k))
        assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_without_a_direction_it_points_along_the_first_axis():
    loc = torch.zeros(2, 3, requires_grad=True)
    q = VonMisesFisher(loc, torch.tensor(5.0))
    assert torch.equal(q.mode, torch.eye(3)[[0, 0]])
    q.rsample((), generator(0)).sum().backward()
    assert torch.equal(loc.grad, torch.zeros(2, 3))


def test_a_concentration_that_is_no_number_ends_in_one():
    q = VonMisesFisher(torch.ones(2, 3), torch.tensor([math.nan, 1.0]))
    z = q.rsample((), generator(0))
    assert bool(torch.isnan(z[0]).all())
    assert bool(torch.isfinite(z[1]).all())


def test_a_fixed_concentration_makes_one_rate():
    """Xu & Durrett 2018: nothing in q can lower it."""
    head = numbers(0, 6, 5).float().requires_grad_()
    q = VonMisesFisherPosterior(concentration=40.0).distribution(head, 5)
    rate = closed_kl(q, SphereUniform(5))
    assert torch.equal(rate, rate[:1].expand(6))
    assert not rate.requires_grad
    below, less = quadrature(40.0, 5)
    assert rate[0].item() == pytest.approx(-40 * less - below, rel=1e-6)


def test_a_learned_concentration_starts_where_it_is_set_and_moves():
    family = VonMisesFisherPosterior(concentration=40.0, learned=True)
    head = torch.zeros(3, 6, requires_grad=True)
    assert family.width(5) == 6
    q = family.distribution(head, 5)
    torch.testing.assert_close(q.concentration, torch.full((3,), 40.0))
    closed_kl(q, SphereUniform(5)).sum().backward()
    assert bool((head.grad[:, 5] > 0).all())


def test_a_line_is_no_sphere():
    with pytest.raises(ConfigError, match=r"prior=sphere: 1 dimensions.*latent=2"):
        SpherePrior().build(Shapes((4,), 1))


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("posterior=von-mises-fisher",), "prior=normal with posterior=von-mises-fisher: .*; use prior=sphere"),
        (("prior=sphere",), "prior=sphere with posterior=normal: .*; use prior=normal"),
        (("prior=sphere", "posterior=von-mises-fisher", "penalty=l2"), "penalty=l2 with posterior=von-mises-fisher"),
    ],
)
def test_a_sphere_goes_with_a_sphere(tokens, said):
    with pytest.raises(CombinationError, match=said):
        configure("vae", tokens=tokens)


class _Wave(torch.nn.Module):
    def forward(self, z, condition=None):
        loc = torch.stack([3 * z[..., 0], (4 * z[..., 1]).sin()], -1)
        return torch.distributions.Independent(torch.distributions.Normal(loc, 0.4, validate_args=False), 1)


class _Encoder(torch.nn.Module):
    def forward(self, x, condition=None):
        return VonMisesFisher(x, torch.tensor(4.0).double())


def test_annealed_chains_stay_on_the_sphere_and_are_unbiased():
    """E[w] = p(x), whose truth is a sum over the circle."""
    model = VAE(SpherePriorModule(2).double(), _Encoder(), _Wave())
    x = torch.tensor([[2.5, 0.6], [-1.0, -0.9], [0.3, 0.2]], dtype=torch.float64)
    points, area = SURFACES[2]
    truth = (_Wave()(points.unsqueeze(1)).log_prob(x) + area.log().unsqueeze(1)).logsumexp(0) - math.log(2 * math.pi)
    for temperatures in (1, 8):
        samples = 20_000
        found = annealed_importance_sampling(
            model, lambda a, b: (x[a:b], None), 3, samples=samples, temperatures=temperatures
        )
        relative = (found.log_p - truth).exp() - 1
        assert (relative.abs() <= MAX_Z * found.se + 1e-12).all()


def test_it_is_drawn_pathwise():
    q = VonMisesFisher(numbers(0, 4, 3), torch.tensor(5.0).double())
    latent = Pathwise(samples=6)("z", SphereUniform(3, dtype=torch.float64), q)
    assert latent.value.shape == (6, 4, 3)
    torch.testing.assert_close(latent.rate, closed_kl(q, SphereUniform(3)).expand(6, 4))


def test_a_density_after_a_draw_still_has_its_gradient():
    """What a draw computes outside the graph must not be what the density is computed from."""
    loc = torch.tensor([[0.3, -0.4, 1.0]], dtype=torch.float64, requires_grad=True)
    q = VonMisesFisher(loc, torch.tensor(5.0, dtype=torch.float64))
    value = q.sample((), torch.Generator().manual_seed(0))
    (after,) = torch.autograd.grad(q.log_prob(value).sum(), loc)
    (fresh,) = torch.autograd.grad(VonMisesFisher(loc, torch.tensor(5.0).double()).log_prob(value).sum(), loc)
    assert torch.equal(after, fresh)
    assert after.abs().max() > 0.1
