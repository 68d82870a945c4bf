"""Posterior families as their heads parametrise them, against torch's distributions."""

import math

import pytest
import torch
from torch import distributions as td, nn

from lambent.posteriors import AmortisedPosteriorModule, FullCovariancePosterior, LowRankPosterior, NormalPosterior
from lambent.settings import registry
from support.networks import WithoutCondition

LATENT = 3
HEADS = torch.Generator().manual_seed(0)
Z = torch.randn(6, 5, LATENT, generator=HEADS, dtype=torch.float64)


def head(family):
    return torch.randn(5, family.width(LATENT), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def own(family):
    size = family.shared_size(LATENT)
    return torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64) if size else None


def scales(raw):
    """The bounded parametrisation: between e^-7 and e^5, the exponential near 0."""
    return torch.exp(12 * torch.sigmoid(raw * 12 / 35 + math.log(7 / 5)) - 7)


def test_diagonal():
    h = head(NormalPosterior())
    truth = td.Independent(td.Normal(h[:, :LATENT], scales(h[:, LATENT:])), 1)
    torch.testing.assert_close(NormalPosterior().distribution(h, LATENT).log_prob(Z), truth.log_prob(Z))


def test_diagonal_of_fixed_scale():
    family = NormalPosterior(scale=0.3)
    h = head(family)
    assert h.shape == (5, LATENT)
    truth = td.Independent(td.Normal(h, 0.3), 1)
    torch.testing.assert_close(family.distribution(h, LATENT).log_prob(Z), truth.log_prob(Z))


@pytest.mark.parametrize("shared", [False, True])
def test_full_covariance(shared):
    family = FullCovariancePosterior(shared=shared)
    h, o = head(family), own(family)
    triangle = o.expand(5, -1) if shared else h[:, LATENT:]
    scale, below = scales(triangle[:, :LATENT]), triangle[:, LATENT:]
    tril = torch.zeros(5, LATENT, LATENT, dtype=torch.float64)
    for b in range(5):
        for i in range(LATENT):
            tril[b, i, i] = scale[b, i]
            for j in range(i):
                tril[b, i, j] = scale[b, i] * below[b, i * (i - 1) // 2 + j]
    truth = td.MultivariateNormal(h[:, :LATENT], scale_tril=tril)
    torch.testing.assert_close(family.distribution(h, LATENT, o).log_prob(Z), truth.log_prob(Z))


def test_full_covariance_starts_diagonal():
    layer = nn.Linear(4, FullCovariancePosterior().width(LATENT))
    FullCovariancePosterior().initialise(layer, LATENT)
    q = FullCovariancePosterior().distribution(layer(torch.randn(5, 4)), LATENT)
    assert torch.equal(q.tril, torch.diag_embed(q.tril.diagonal(dim1=-2, dim2=-1)))
    layer(torch.randn(5, 4)).sum().backward()  # and can leave it
    assert bool(layer.weight.grad[2 * LATENT :].abs().sum() > 0)


@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank(rank):
    family = LowRankPosterior(rank=rank)
    h = head(family)
    factor = h[:, 2 * LATENT :].reshape(5, LATENT, rank)
    covariance = factor @ factor.mT + torch.diag_embed(scales(h[:, LATENT : 2 * LATENT]).square())
    truth = td.MultivariateNormal(h[:, :LATENT], covariance)
    torch.testing.assert_close(family.distribution(h, LATENT).log_prob(Z), truth.log_prob(Z))


def test_delta_is_a_point_whose_gradient_flows():
    family = registry.find("posterior", "delta")()
    h = head(family).requires_grad_()
    q = family.distribution(h, LATENT)
    torch.autograd.backward(q.rsample().sum())
    assert torch.equal(q.mode, h)
    assert torch.equal(h.grad, torch.ones_like(h))
    assert q.normalised is False


AMORTISED = [n for n in registry.names("posterior") if n != "noising"]
HEADED = [n for n in AMORTISED if registry.find("posterior", n).latent_kind != "codes"]
"""A model of codes has a head for every position, and tests of its own."""


@pytest.mark.parametrize("name", HEADED)
def test_every_number_of_the_head_is_used_and_every_item_stands_alone(name):
    torch.manual_seed(0)
    settings = registry.find("posterior", name)()
    encoder = nn.Linear(4, 6)
    encoder.features = 6
    module = AmortisedPosteriorModule(settings, WithoutCondition(encoder), LATENT)
    x = torch.randn(5, 4)
    q = module(x)
    assert q.batch_shape == (5,)
    assert q.event_shape == (LATENT,)
    assert settings.normalised == q.normalised
    value = q.rsample() if q.has_rsample else q.sample()
    (value.square().sum() + q.log_prob(value.detach() if q.has_rsample else value).sum()).backward()
    assert bool((module.head.weight.grad.abs().sum(1) > 0).all())
    alone = torch.cat([module(x[i : i + 1]).log_prob(value[i].detach()) for i in range(5)])
    torch.testing.assert_close(q.log_prob(value).detach(), alone.detach())
