"""Normals relative to a level's prior: NVAE's rate by its formula and by simulation, LVAE's product of densities."""

import math

import pytest
import torch

from lambent.distributions import Normal, bounded_log_scale, closed_kl
from lambent.distributions.kl import closed_kl_elements
from lambent.posteriors import MergedNormalPosterior, ResidualNormalPosterior

DOUBLE = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def case(family, scale=1.0):
    """A head (B, 2 D), a prior (K, B, D) and q around it."""
    prior = Normal(3 * random(4, 5, 3, seed=1), random(4, 5, 3, seed=2) - 1)
    head = scale * random(4, 5, 6)
    return head, prior, family.around(head, prior, 3)


def nvae_rate(head, prior):
    """1/2 sum (d^2 / s_p^2 + r^2 - log r^2 - 1), r = e^(5 tanh(raw / 5)) (Vahdat & Kautz 2020, eq. 2)."""
    shift, raw = head.chunk(2, -1)
    log_ratio = 5 * torch.tanh(raw / 5)
    squares = shift**2 / prior.scale**2 + torch.exp(2 * log_ratio)
    return 0.5 * (squares - 2 * log_ratio - 1)


def test_the_residual_rate_is_the_plain_one():
    head, prior, q = case(ResidualNormalPosterior())
    torch.testing.assert_close(closed_kl_elements(q, prior), nvae_rate(head, prior), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(closed_kl(q, prior), nvae_rate(head, prior).sum(-1), rtol=1e-12, atol=1e-12)
    zero = ResidualNormalPosterior().around(torch.zeros_like(head), prior, 3)
    assert closed_kl(zero, prior).abs().max() == 0, "no residual, no rate"


def test_the_residual_rate_is_what_simulation_finds():
    head, prior, q = case(ResidualNormalPosterior(), scale=0.5)
    z = q.rsample((20_000,), torch.Generator().manual_seed(3))
    ratio = q.log_prob(z) - prior.log_prob(z)
    apart = ratio.mean(0) - nvae_rate(head, prior).sum(-1)
    assert float((apart / (ratio.std(0) / len(z) ** 0.5)).abs().max()) < 5


def without_mean(head, prior):
    shift, raw = head.chunk(2, -1)
    return Normal(shift, prior.log_scale + 5 * torch.tanh(raw / 5))


def without_scale(head, prior):
    shift, raw = head.chunk(2, -1)
    return Normal(prior.loc + shift, 5 * torch.tanh(raw / 5))


@pytest.mark.parametrize("fault", [without_mean, without_scale])
def test_a_forgotten_prior_changes_the_rate(fault):
    head, prior, _ = case(ResidualNormalPosterior())
    assert (closed_kl_elements(fault(head, prior), prior) - nvae_rate(head, prior)).abs().max() > 0.1


def test_the_residual_ratio_is_bounded_smoothly():
    prior = Normal(torch.zeros(1, 1, 1), torch.full((1, 1, 1), -2.0))
    ratio = [
        ResidualNormalPosterior().around(torch.tensor([[[0.0, raw]]]), prior, 1).log_scale.item() + 2
        for raw in (-1e6, -1e-3, 0.0, 1e-3, 1e6)
    ]
    assert ratio == pytest.approx([-5, -1e-3, 0, 1e-3, 5], abs=1e-6)


def product_is_constant(around):
    """log N(z; m, s) + log p(z) - log q(z) is the same for all z; returns how much it varies."""
    head, prior, _ = case(MergedNormalPosterior())
    loc, raw = head.chunk(2, -1)
    seen = Normal(loc, bounded_log_scale(raw))
    q = around(head, prior, 3)
    values = 2 * random(9, 4, 5, 3, seed=4)
    rest = seen.log_prob(values) + prior.log_prob(values) - q.log_prob(values)
    return (rest - rest.mean(0)).abs().max().item()


def test_the_merged_normal_is_the_product_of_densities():
    assert product_is_constant(MergedNormalPosterior().around) < 1e-10
    assert product_is_constant(lambda head, prior, d: MergedNormalPosterior().distribution(head, d)) > 1


def test_the_merged_normal_adds_precisions():
    head, prior, q = case(MergedNormalPosterior())
    loc, raw = head.chunk(2, -1)
    precision = torch.exp(-2 * bounded_log_scale(raw)), prior.scale**-2
    torch.testing.assert_close(q.scale**-2, sum(precision), rtol=1e-12, atol=0)
    mean = (loc * precision[0] + prior.loc * precision[1]) / sum(precision)
    torch.testing.assert_close(q.loc, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("log_scale", "expected"), [(-60.0, 3.0), (60.0, 1.0)])
def test_the_surer_side_wins_without_overflow(log_scale, expected):
    prior = Normal(torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), log_scale))
    head = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    q = MergedNormalPosterior().around(head, prior, 1)
    assert q.loc.item() == pytest.approx(expected)
    assert q.log_scale.item() == pytest.approx(min(log_scale, 0.0))
    (q.loc + q.log_scale).sum().backward()
    assert bool(torch.isfinite(head.grad).all())


@pytest.mark.parametrize("family", [ResidualNormalPosterior(), MergedNormalPosterior()])
def test_the_top_is_an_ordinary_normal(family):
    q = family.distribution(torch.tensor([[1.0, 2.0, 0.5, -0.5]]), 2)
    assert q.loc.tolist() == [[1.0, 2.0]]
    torch.testing.assert_close(q.log_scale, bounded_log_scale(torch.tensor([[0.5, -0.5]])))
    assert math.isfinite(closed_kl(q, Normal(torch.zeros(2), torch.zeros(2))).item())


@pytest.mark.parametrize("family", [ResidualNormalPosterior(), MergedNormalPosterior()], ids=repr)
def test_a_head_of_16_bits_is_taken_in_32(family):
    """A network's numbers under autocast: the same q, to the last bit, as of these numbers in float32."""
    head, prior, _ = case(family)
    low, prior = head.bfloat16(), prior.map_parameters(lambda t: t.float())
    q, exact = family.around(low, prior, 3), family.around(low.float(), prior, 3)
    assert q.loc.dtype == q.log_scale.dtype == torch.float32
    assert torch.equal(q.loc, exact.loc)
    assert torch.equal(q.log_scale, exact.log_scale)
