"""Binarisation against its exact probabilities: chi-squared tests, each shown to catch a planted fault."""

import numpy as np
import pytest
import torch
from scipy import stats

from lambent.data import binarize
from support.random_numbers import generator

DRAWS = 40_000


def ones_per_level(draw, levels, draws=DRAWS):
    """How often each grey level gave 1 in ``draws`` draws."""
    grey = torch.arange(levels).to(torch.uint8 if levels <= 256 else torch.float32)
    return draw(grey.expand(draws, levels).contiguous()).double().sum(0).numpy()


def p_value(ones, probabilities, draws=DRAWS):
    """Of the levels strictly between the first and the last, under Binomial(draws, p)."""
    p = probabilities[1:-1]
    z = (ones[1:-1] - draws * p) / np.sqrt(draws * p * (1 - p))
    return stats.chi2.sf((z**2).sum(), len(p))


def dynamic(levels, seed=0):
    return lambda x: binarize.dynamic(x, levels, generator(seed))


def static(levels, seed=0):
    return lambda x: binarize.static(x, levels, seed, torch.arange(len(x)))


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 101, 200, 256])
@pytest.mark.parametrize("draw", [dynamic, static])
def test_probabilities_are_grey_over_top_exactly(draw, levels):
    ones = ones_per_level(draw(levels), levels)
    assert ones[0] == 0
    assert ones[-1] == DRAWS
    if levels > 2:
        assert p_value(ones, np.arange(levels) / (levels - 1)) > 1e-6


@pytest.mark.parametrize("draw", [dynamic, static])
@pytest.mark.parametrize(
    "fault",
    [
        lambda g: g / 256,  # 256 for 255
        lambda g: (g + 0.5) / 256,
        lambda g: np.where(g > 127.5, 1 - 1e-9, 1e-9),  # threshold for a draw
        lambda g: g / 255 + 0.01 * np.sin(g),
    ],
    ids=["256", "half", "threshold", "wave"],
)
def test_other_probabilities_would_be_caught(draw, fault):
    ones = ones_per_level(draw(256), 256)
    wrong = np.clip(fault(np.arange(256.0)), 1e-9, 1 - 1e-9)
    assert p_value(ones, wrong) < 1e-6


@pytest.mark.parametrize("draw", [dynamic, static])
def test_many_levels_and_numbers_in_the_unit_interval(draw):
    levels = torch.tensor([0.0, 1.0, 300.0, 32768.0, 65534.0, 65535.0])
    share = draw(65536)(levels.expand(DRAWS, 6).contiguous()).double().mean(0).numpy()
    unit = draw(None)((levels / 65535).expand(DRAWS, 6).contiguous()).double().mean(0).numpy()
    p = (levels / 65535).double().numpy()
    for found in (share, unit):
        assert found[0] == 0
        assert found[5] == 1
        z = (found - p)[2:4] / np.sqrt(p * (1 - p) / DRAWS)[2:4]
        assert np.abs(z).max() < 5


def test_values_are_zero_and_one_and_the_input_stays_as_it_was():
    x = torch.arange(256, dtype=torch.uint8).reshape(2, 1, 8, 16)
    before = x.clone()
    for y in (
        binarize.dynamic(x, 256, generator()),
        binarize.static(x, 256, 0, torch.arange(2)).float(),
        binarize.threshold(x, 256).float(),
    ):
        assert y.shape == x.shape
        assert set(y.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(x, before)


@pytest.mark.parametrize(("levels", "last_zero", "first_one"), [(256, 127, 128), (17, 8, 9), (2, 0, 1)])
def test_threshold_is_more_than_half_of_the_largest(levels, last_zero, first_one):
    y = binarize.threshold(torch.arange(levels, dtype=torch.uint8), levels)
    assert y[last_zero] == 0
    assert y[first_one] == 1
    assert int(y.sum()) == levels - first_one
    assert binarize.threshold(torch.tensor([0.5, 0.51]), None).tolist() == [0, 1]


def test_dynamic_follows_its_generator_alone():
    x = torch.full((50, 40), 128, dtype=torch.uint8)
    before = torch.get_rng_state()
    first, again = binarize.dynamic(x, 256, generator(3)), binarize.dynamic(x, 256, generator(3))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    g = generator(3)
    binarize.dynamic(x, 256, g)
    assert not torch.equal(first, binarize.dynamic(x, 256, g))


def correlation_z(a, b):
    """z-score of the correlation of two sets of fair coins."""
    return float(((2 * a.double() - 1) * (2 * b.double() - 1)).mean() * a.numel() ** 0.5)


@pytest.mark.parametrize("draw", [dynamic, static])
def test_neighbouring_elements_examples_and_seeds_are_independent(draw):
    x = torch.full((2000, 100), 8, dtype=torch.uint8)  # P = 1/2 with 17 levels
    y, other = draw(17, 0)(x), draw(17, 1)(x)
    for a, b in [(y[:, 1:], y[:, :-1]), (y[1:], y[:-1]), (y, other), (y[:, :-1], other[:, 1:]), (y[:-1], other[1:])]:
        assert abs(correlation_z(a, b)) < 5
    assert correlation_z(y, y) > 5  # the same noise for every example or seed would be caught
    sums = y.double().sum(1)
    assert stats.chi2.sf(float(((sums - 50) ** 2 / 25).sum()), 2000) > 1e-6


def test_static_belongs_to_the_example_whatever_the_batch_and_its_order():
    x = torch.randint(0, 256, (64, 1, 5, 5), dtype=torch.uint8, generator=generator())
    ids = torch.arange(64) * 7 + (1 << 41)
    whole = binarize.static(x, 256, 5, ids)
    order = torch.randperm(64, generator=generator(1))
    assert torch.equal(binarize.static(x[order], 256, 5, ids[order]), whole[order])
    one_by_one = torch.cat([binarize.static(x[i : i + 1], 256, 5, ids[i : i + 1]) for i in range(64)])
    assert torch.equal(one_by_one, whole)
    assert not torch.equal(binarize.static(x, 256, 5, torch.arange(64)), whole)  # positions for ids would be caught


def splitmix64(state):
    """Steele, Lea & Flood 2014, in Python's whole numbers."""
    mask = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


def test_static_is_the_counter_generator_it_says():
    golden = 0x9E3779B97F4A7C15
    assert splitmix64((1234567 + golden) % 2**64) == 6457827717110365317  # the published sequence's first
    x = torch.arange(17, dtype=torch.uint8).repeat(3, 1)
    ids = [0, 5, 1 << 40]
    for row, i in zip(binarize.static(x, 17, 9, torch.tensor(ids)).tolist(), ids, strict=True):
        key = splitmix64(splitmix64((9 + golden) % 2**64) ^ i)
        draws = [(splitmix64((key + (j + 1) * golden) % 2**64) >> 32) * 16 >> 32 for j in range(17)]
        assert row == [int(draw < grey) for draw, grey in zip(draws, range(17), strict=True)]
