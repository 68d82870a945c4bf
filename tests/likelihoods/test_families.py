"""Likelihood families as a decoder's numbers make them, against scipy; and where training starts."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lambent.distributions import after_eos, bounded_log_scale
from lambent.errors import ConfigError
from lambent.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    LikelihoodModule,
    MixedLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
)
from lambent.likelihoods.scale import SCALES
from lambent.networks import LinearDecoder, MLPDecoder, MLPEncoder
from lambent.settings import registry
from lambent.shapes import Column, Shapes
from support.random_numbers import generator

EVENT = (2, 3)
N = 400
COLUMNS = (
    Column("height", "numeric"),
    Column("weight", "numeric"),
    Column("colour", "categorical", 3),
    Column("visits", "count"),
    Column("size", "categorical", 2),
    Column("age", "numeric"),
)


def parameters(family, shapes, lead=(4, 5)):
    return torch.randn(*lead, *family.out_shape(shapes), generator=generator(), dtype=torch.float64)


def own_of(family, shapes):
    size = family.shared_shape(shapes)
    return None if size is None else torch.randn(size, generator=generator(1), dtype=torch.float64)


def scale_of(raw, sigma):
    """A learned scale: sigma where raw is 0, never outside e^-7..e^5."""
    offset = math.log((math.log(sigma) + 7) / (5 - math.log(sigma)))
    return np.exp(12 / (1 + np.exp(-(np.asarray(raw) * 12 / 35 + offset))) - 7)


def assert_log_prob(px, x, elements):
    """``elements(x)`` are log probabilities of each element, (K, B, *event)."""
    dims = tuple(range(2, 2 + len(EVENT)))
    np.testing.assert_allclose(px.log_prob(x).numpy(), elements(x.numpy()).sum(dims), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0])
def test_normal(scale, sigma):
    family, shapes = NormalLikelihood(scale=scale, sigma=sigma), Shapes(EVENT, 2)
    h, own = parameters(family, shapes), own_of(family, shapes)
    raw = h[:, :, 1] if scale == "element" else own
    s = sigma if scale == "fixed" else scale_of(raw.numpy(), sigma)
    px = family.distribution(h, own, shapes)
    assert_log_prob(
        px,
        torch.randn(5, *EVENT, generator=generator(2), dtype=torch.float64),
        lambda x: stats.norm.logpdf(x, h[:, :, 0], s),
    )


def test_bernoulli():
    family, shapes = BernoulliLikelihood(), Shapes(EVENT, 2)
    h = parameters(family, shapes)
    p = 1 / (1 + np.exp(-h[:, :, 0].numpy()))
    x = (torch.rand(5, *EVENT, generator=generator(2)) < 0.5).double()
    assert_log_prob(family.distribution(h, None, shapes), x, lambda x: stats.bernoulli.logpmf(x, p))


@pytest.mark.parametrize("scale", SCALES)
def test_discretised_logistic(scale):
    family, shapes = DiscretisedLogisticLikelihood(scale=scale, sigma=0.2), Shapes(EVENT, 2, levels=16)
    h, own = parameters(family, shapes), own_of(family, shapes)
    raw = h[:, :, 1] if scale == "element" else own
    s = 0.2 if scale == "fixed" else scale_of(raw.numpy(), 0.2)

    def mass(x):
        law = stats.logistic(h[:, :, 0].numpy(), s)
        low, high = np.where(x == 0, -np.inf, (2 * x - 1) / 15 - 1), np.where(x == 15, np.inf, (2 * x + 1) / 15 - 1)
        # the smaller tail on either side, or the difference would cancel
        return np.log(np.where(low > h[:, :, 0].numpy(), law.sf(low) - law.sf(high), law.cdf(high) - law.cdf(low)))

    x = torch.randint(0, 16, (5, *EVENT), generator=generator(2)).double()
    px = family.distribution(h, own, shapes)
    np.testing.assert_allclose(px.log_prob(x).numpy(), mass(x.numpy()).sum((2, 3)), rtol=1e-6)


def test_categorical():
    family, shapes = CategoricalLikelihood(), Shapes(EVENT, 2, levels=5)
    h = parameters(family, shapes)
    assert h.shape == (4, 5, 8, *EVENT)  # three bits hold five levels
    x = torch.randint(0, 5, (5, *EVENT), generator=generator(2))
    logs = h.numpy() - np.log(np.exp(h.numpy()).sum(2, keepdims=True))
    assert_log_prob(
        family.distribution(h, None, shapes),
        x,
        lambda x: np.take_along_axis(logs, np.broadcast_to(x, (4, 5, *EVENT))[:, :, None], 2)[:, :, 0],
    )


@pytest.mark.parametrize("dispersion", [None, "model", "dimension", "element"])
def test_counts(dispersion):
    family = PoissonLikelihood() if dispersion is None else NegativeBinomialLikelihood(dispersion=dispersion)
    shapes = Shapes(EVENT, 2)
    h, own = parameters(family, shapes), own_of(family, shapes)
    mean = np.exp(30 / (1 + np.exp(-h[:, :, 0].numpy() * 2 / 15)) - 15)
    x = torch.randint(0, 9, (5, *EVENT), generator=generator(2)).double()
    px = family.distribution(h, own, shapes)
    if dispersion is None:
        return assert_log_prob(px, x, lambda x: stats.poisson.logpmf(x, mean))
    raw = h[:, :, 1] if dispersion == "element" else own
    r = bounded_log_scale(raw, -7.0, 15.0).exp().numpy()
    return assert_log_prob(px, x, lambda x: stats.nbinom.logpmf(x, r, r / (r + mean)))


def table(n=N):
    columns = [
        torch.randn(n, generator=generator(1)) * 2 + 5,
        torch.randn(n, generator=generator(2)),
        torch.randint(0, 3, (n,), generator=generator(3)),
        torch.randint(0, 7, (n,), generator=generator(4)),
        torch.randint(0, 2, (n,), generator=generator(5)),
        torch.randn(n, generator=generator(6)) * 0.1,
    ]
    return torch.stack([c.float() for c in columns], 1)


def test_a_tables_columns_are_scored_each_by_its_own_kind():
    family, shapes = MixedLikelihood(sigma=0.5), Shapes((6,), 2, columns=COLUMNS)
    h, own = parameters(family, shapes), own_of(family, shapes)
    assert h.shape == (4, 5, 1, 9)
    x, p, s = table(5).double().numpy(), h[:, :, 0].numpy(), scale_of(own.numpy(), 0.5)

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    rate = np.exp(30 / (1 + np.exp(-p[..., 5] * 2 / 15)) - 15)
    expected = (
        stats.norm.logpdf(x[:, 0], p[..., 0], s[0])
        + stats.norm.logpdf(x[:, 1], p[..., 1], s[1])
        + np.log(softmax(p[..., 2:5])[:, np.arange(5), x[:, 2].astype(int)])
        + stats.poisson.logpmf(x[:, 3], rate)
        + np.log(softmax(p[..., 6:8])[:, np.arange(5), x[:, 4].astype(int)])
        + stats.norm.logpdf(x[:, 5], p[..., 8], s[5])
    )
    found = family.distribution(h, own, shapes).log_prob(torch.tensor(x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_a_table_as_the_encoder_sees_it():
    family, shapes = MixedLikelihood(), Shapes((6,), 2, columns=COLUMNS)
    x = torch.tensor([[5.0, -1.0, 2.0, 3.0, 0.0, 0.5]])
    expected = torch.tensor([[5.0, -1.0, 0.0, 0.0, 1.0, math.log(4.0), 1.0, 0.0, 0.5]])
    torch.testing.assert_close(family.as_input(x, shapes), expected)
    assert family.input_shape(shapes) == (9,)


def test_columns_without_a_table_are_refused():
    with pytest.raises(ConfigError, match=r"likelihood=mixed needs a table \(\.csv or \.parquet\)"):
        MixedLikelihood().out_shape(Shapes((6,), 2))


def example(name):
    """Data the likelihood scores, each element with a distribution of its own."""
    if name == "mixed":
        return table(), Shapes((6,), 2, columns=COLUMNS)
    if name == "text":
        symbols = (5 * torch.rand(N, 6, generator=generator()).square()).floor()
        return symbols.masked_fill(after_eos(symbols, 4), 4), Shapes((6,), 2, levels=5, end=True)
    level = torch.linspace(0.1, 0.9, 6).view(EVENT)
    uniform = torch.rand(N, *EVENT, generator=generator())
    data = {
        "bernoulli": (uniform < level).float(),
        "normal": 3 * level + (0.2 + level) * torch.randn(N, *EVENT, generator=generator()),
        "discretised-logistic": (16 * uniform * level).floor(),
        "logistic-mixture": (16 * uniform * level).floor(),
        "pixel-mixture": (16 * uniform * level).floor(),
        "categorical": (16 * uniform * level).floor(),
    }
    if name == "pixel-mixture":
        return data[name].unsqueeze(-1), Shapes((*EVENT, 1), 2, levels=16)
    return data.get(name, (12 * uniform * level).floor()), Shapes(EVENT, 2, levels=16)


@pytest.mark.parametrize("name", registry.names("likelihood"))
def test_training_starts_from_the_best_fit_without_the_latent(name):
    """With the decoder's weights at 0, no move of the means' bias raises the likelihood of the data by much."""
    x, shapes = example(name)
    family = registry.find("likelihood", name)()
    torch.manual_seed(0)
    decoder = LinearDecoder().build(2, family.out_shape(shapes))
    likelihood = LikelihoodModule(family, decoder, shapes)
    nn.init.zeros_(decoder.output.weight)

    def score():
        return likelihood(torch.zeros(1, N, 2)).log_prob(x).mean()

    before = score().item()
    likelihood.initialise(x)
    slope = torch.autograd.grad(score(), decoder.output.bias)[0].view(family.out_shape(shapes))
    assert score().item() > before
    means = slope if name in ("categorical", "mixed", "text") else slope[0]
    if name != "discretised-logistic":  # the best location is not the mean where levels pile up at an edge
        assert float(means.abs().max()) < 0.05


def test_a_learned_scale_starts_at_the_datas_own():
    x, shapes = example("normal")
    for sigma in (0.1, 1.0):
        family = NormalLikelihood("element", sigma)
        decoder = LinearDecoder().build(2, family.out_shape(shapes))
        likelihood = LikelihoodModule(family, decoder, shapes)
        nn.init.zeros_(decoder.output.weight)
        likelihood.initialise(x)
        px = likelihood(torch.zeros(1, 1, 2))
        torch.testing.assert_close(px.mean[0, 0], x.mean(0))
        torch.testing.assert_close(px.variance[0, 0].sqrt(), x.std(0, correction=0))


@pytest.mark.parametrize("sigma", [1e-6, 0.01, 1.0, 1e4])
@pytest.mark.parametrize("scale", ["model", "dimension", "element"])
def test_a_learned_scale_starts_at_sigma_or_just_inside_its_bounds(scale, sigma):
    shapes = Shapes(EVENT, 2)
    for family in (NormalLikelihood(scale, sigma), DiscretisedLogisticLikelihood(bits=4, scale=scale, sigma=sigma)):
        own = family.shared_shape(shapes)
        px = family.distribution(
            torch.zeros(1, 1, *family.out_shape(shapes)), None if own is None else torch.zeros(own), shapes
        )
        expected = min(max(math.log(sigma), -6.99), 4.99)
        torch.testing.assert_close(px.log_scale, torch.full_like(px.log_scale, expected), rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """A decoder with one bias a channel."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(6))

    def output_bias(self):
        return self.bias


def test_a_bias_shared_by_pixels_takes_their_mean():
    shapes = Shapes((3, 8, 8), 2)
    x = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1) + 0.1 * torch.randn(N, 3, 8, 8, generator=generator())
    family = NormalLikelihood("element", 0.3)
    likelihood = LikelihoodModule(family, Shared(), shapes)
    likelihood.initialise(x)
    bias = likelihood.decoder.bias.detach().view(2, 3, 1, 1).expand(2, 3, 8, 8)
    px = family.distribution(bias.view(1, 1, 2, 3, 8, 8), None, shapes)
    torch.testing.assert_close(px.mean[0, 0, :, 0, 0], torch.tensor([0.2, 0.5, 0.9]), atol=0.01, rtol=0)
    torch.testing.assert_close(px.variance[0, 0].sqrt(), torch.full((3, 8, 8), 0.1), atol=2e-3, rtol=0)


def test_a_decoder_without_a_bias_of_its_own_is_left_as_it_is():
    shapes = Shapes(EVENT, 2)
    likelihood = LikelihoodModule(BernoulliLikelihood(), nn.Identity(), shapes)
    likelihood.initialise(torch.zeros(N, *EVENT))


@pytest.mark.parametrize("name", registry.names("likelihood"))
def test_samples_lie_in_the_support_and_inputs_are_about_one(name):
    x, shapes = example(name)
    family = registry.find("likelihood", name)()
    torch.manual_seed(0)
    likelihood = LikelihoodModule(family, MLPDecoder((4,)).build(2, family.out_shape(shapes)), shapes)
    likelihood.initialise(x)
    likelihood.support.check(x)
    with torch.no_grad():
        likelihood.support.check(likelihood(torch.randn(2, 9, 2)).sample()[0])
    seen = likelihood.as_input(x)
    assert seen.shape[1:] == family.input_shape(shapes)
    assert seen.is_floating_point()
    if name != "mixed":
        assert float(seen.abs().max()) <= 8
    MLPEncoder((4,)).build(family.input_shape(shapes))(seen)


@pytest.mark.parametrize(("levels", "bits"), [(2, 1), (3, 2), (16, 4), (17, 5), (256, 8)])
def test_bits_hold_the_datas_levels(levels, bits):
    family, shapes = CategoricalLikelihood(), Shapes(EVENT, 2, levels=levels)
    assert family.out_shape(shapes)[0] == 2**bits
    with pytest.raises(ConfigError, match=r"likelihood\.bits is not set"):
        family.out_shape(Shapes(EVENT, 2))
