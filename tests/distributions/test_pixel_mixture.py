"""Mixtures over colour pixels: against sums by hand, normalised, sampled as scored, and the faults these must show."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from lambent.distributions import LogisticMixture, PixelMixture
from lambent.errors import ConfigError
from lambent.likelihoods import PixelMixtureLikelihood
from lambent.shapes import Shapes
from support.random_numbers import numbers

LEVELS, CHANNELS, COMPONENTS = 4, 3, 2


def mixture(height=1, width=1, batch=(), components=COMPONENTS, channels=CHANNELS, levels=LEVELS):
    place, event = (*batch, components), (height, width)
    return PixelMixture(
        numbers(1, *place, *event),
        0.8 * numbers(2, *place, channels, *event),
        0.5 * numbers(3, *place, channels, *event) - 1,
        2 * numbers(4, *place, channels, channels, *event),
        levels,
    )


def all_pixels(levels=LEVELS, channels=CHANNELS):
    return torch.tensor(list(itertools.product(range(levels), repeat=channels)), dtype=torch.float64)[..., None, None]


def by_hand(p, pixel, i=0, j=0):
    """The definition, with a loop over components and channels and a CDF of its own."""
    logits, loc, scale, a = (t[..., i, j].numpy() for t in (p.logits, p.loc, p.log_scale.exp(), p.coupling))
    weights = np.exp(logits) / np.exp(logits).sum()
    unit = [2 * x / (p.levels - 1) - 1 for x in pixel]

    def mass(level, at, s):
        """Of a logistic between the level's edges, from the side on which nothing cancels."""
        low, high = (-math.inf if k <= 0 else math.inf if k >= p.levels else edge(k, at, s) for k in (level, level + 1))
        return (
            stats.logistic.cdf(high) - stats.logistic.cdf(low)
            if high < 0
            else stats.logistic.sf(low) - stats.logistic.sf(high)
        )

    def edge(k, at, s):
        return ((2 * k - 1) / (p.levels - 1) - 1 - at) / s

    total = 0.0
    for m, weight in enumerate(weights):
        for c, x in enumerate(pixel):
            at = loc[m, c] + sum(a[m, c, k] * unit[k] for k in range(c))
            weight *= mass(x, at, scale[m, c])
        total += weight
    return math.log(total)


def check_values():
    p = mixture(2, 3)
    x = torch.randint(0, LEVELS, (CHANNELS, 2, 3), generator=torch.Generator().manual_seed(5))
    expected = sum(by_hand(p, x[:, i, j].tolist(), i, j) for i in range(2) for j in range(3))
    assert p.log_prob(x).item() == pytest.approx(expected, abs=1e-10)


def check_sum():
    assert mixture().log_prob(all_pixels()).exp().sum().item() == pytest.approx(1, abs=1e-12)


def check_samples():
    """Chi squared of 40,000 pixels in 64 cells, as a z-score; both pixels of two examples."""
    n = 40_000
    p = mixture(1, 2, batch=(2,))
    drawn = p.sample((n,), torch.Generator().manual_seed(6))
    for b, w in itertools.product(range(2), range(2)):
        part = PixelMixture(*(t[b, ..., w : w + 1] for t in (p.logits, p.loc, p.log_scale, p.coupling)), LEVELS)
        expected = n * part.log_prob(all_pixels()).exp()
        cell = (drawn[:, b, :, 0, w] * torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64)).sum(1).long()
        counts = torch.bincount(cell, minlength=64).double()
        kept = expected >= 5
        chi = ((counts - expected).square() / expected)[kept].sum()
        assert abs((chi - kept.sum() + 1) / math.sqrt(2 * kept.sum())) < 5


CHECKS = (check_values, check_sum, check_samples)


@pytest.mark.parametrize("check", CHECKS)
def test_it_is_what_it_says(check):
    check()


def test_of_one_channel_it_is_a_mixture_of_logistics():
    p = mixture(2, 2, channels=1, levels=256)
    same = LogisticMixture(p.logits.unsqueeze(1), p.loc, p.log_scale, 256, 3)
    x = torch.randint(0, 256, (5, 1, 2, 2), generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(p.log_prob(x), same.log_prob(x), atol=1e-12, rtol=0)
    assert torch.equal(p.greedy, same.mean.round())


def test_greedy_takes_the_expected_level_of_each_channel_given_those_before():
    p, levels = mixture(), torch.arange(LEVELS).double()
    masses = p.log_prob(all_pixels()).exp().view(LEVELS, LEVELS, LEVELS)

    def expected(weights):
        return int((weights / weights.sum() @ levels).round())

    first = expected(masses.sum((1, 2)))
    second = expected(masses[first].sum(1))
    assert p.greedy.flatten().tolist() == [first, second, expected(masses[first, second])]


def test_batches_broadcast_and_gradients_are_finite_at_the_edges():
    p = mixture(2, 2, batch=(3, 1), levels=256)
    x = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, CHANNELS, 2, 2)
    assert p.log_prob(x).shape == (3, 2)
    parts = [t.clone().requires_grad_() for t in (p.logits, p.loc, p.log_scale, p.coupling)]
    PixelMixture(*parts, 256).log_prob(x).sum().backward()
    assert all(bool(torch.isfinite(t.grad).all()) for t in parts)


def family(channels=3, **options):
    return PixelMixtureLikelihood(bits=2, components=2, **options), Shapes((channels, 2, 2), 1, levels=4)


def test_the_decoders_numbers_are_weights_locations_scales_and_couplings():
    """Moving the number of channel c for channel j moves P(x_c | x_j), and nothing where j is not before c."""
    settings, shapes = family()
    zeros = torch.zeros(1, 1, *settings.out_shape(shapes), dtype=torch.float64)
    x = torch.randint(0, 4, (1, *shapes.event), generator=torch.Generator().manual_seed(8))
    for c, j in itertools.product(range(3), range(3)):
        moved = zeros.clone()
        moved[..., 6 + j, c, 0, 0] = 1.0  # of the first component
        p, still = (settings.distribution(t, None, shapes) for t in (moved, zeros))
        assert p.coupling[0, 0, 0, c, j, 0, 0] == pytest.approx(math.tanh(1))
        assert (p.log_prob(x) != still.log_prob(x)).item() == (j < c)


def test_colours_that_go_together_are_cheaper_than_channel_by_channel():
    """Three equal channels, uniform levels: log 4 nats a pixel are enough, log 64 are what independence costs."""
    settings, shapes = family()
    x = torch.arange(4).view(4, 1, 1, 1).expand(4, *shapes.event)
    bias = settings.initial_bias(x, shapes).double().requires_grad_()
    optimizer = torch.optim.Adam([bias], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -settings.distribution(bias[None, None], None, shapes).log_prob(x).mean() / 4
        loss.backward()
        optimizer.step()
    assert math.log(4) <= loss.item() < 0.6 * math.log(64)


def test_what_is_no_image_is_refused():
    with pytest.raises(ConfigError, match="likelihood=pixel-mixture: found examples of shape"):
        PixelMixtureLikelihood().out_shape(Shapes((4,), 1, levels=4))


def swapped(self, before):
    self.coupling, kept = self.coupling.transpose(-4, -3), self.coupling
    found = given(self, before)
    self.coupling = kept
    return found


def raw_levels(self, before):
    return given(self, (before + 1) * (self.levels - 1) / 2)


def one_weight(self, lead, generator):
    flat = self.map_parameters(lambda t: t)
    flat.logits = torch.zeros_like(flat.logits)
    return picked(flat, lead, generator)


given, picked = PixelMixture._given, PixelMixture._picked
FAULTS = {
    "couplings transposed": ("_given", swapped, check_values),
    "levels taken for numbers on -1..1": ("_given", raw_levels, check_values),
    "weights ignored in sampling": ("_picked", one_weight, check_samples),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault, monkeypatch):
    name, planted, check = FAULTS[fault]
    monkeypatch.setattr(PixelMixture, name, planted)
    with pytest.raises(AssertionError):
        check()
