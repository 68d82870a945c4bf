"""Checks of a distribution against truths it shares no code with; each raises AssertionError.

The planted faults go through these same functions.
"""

from collections.abc import Callable

import numpy as np
import scipy.stats as st
import torch
from torch import Tensor

from lambent.distributions import Distribution, closed_kl
from support.distribution_cases import Oracle
from support.random_numbers import generator

MAX_Z = 5.0
MIN_P = 1e-6


def check_log_prob(distribution: Distribution, oracle: Oracle, value: Tensor, tolerance: float = 1e-12) -> None:
    """log_prob agrees with the oracle, relative to 1 + |truth|."""
    lead = np.broadcast_shapes(
        value.shape[: value.dim() - len(distribution.event_shape)], tuple(distribution.batch_shape)
    )
    found = distribution.log_prob(value).double().numpy()
    truth = oracle(distribution, np.broadcast_to(value.double().numpy(), (*lead, *distribution.event_shape)))
    assert found.shape == lead
    error = np.abs(found - truth) / (1 + np.abs(truth))
    assert error.max() <= tolerance, f"off by {error.max():.2e} of 1 + |truth|"


def check_sums_to_one(distribution: Distribution, cells: Tensor, tolerance: float) -> None:
    """The masses of all cells add up to 1."""
    lead = (len(cells), *[1] * len(distribution.batch_shape), *distribution.event_shape)
    total = distribution.log_prob(cells.reshape(lead)).double().exp().sum(0)
    error = (total - 1).abs().max().item()
    assert error <= tolerance, f"sums to 1 {error:+.2e}"


def check_integrates_to_one(
    log_density: Callable[[Tensor], Tensor], nodes: Tensor, cell: float, tolerance: float
) -> None:
    """Trapezoidal sum over equally spaced nodes that reach into the tails: spectrally accurate for Normals."""
    total = log_density(nodes).double().exp().sum(0) * cell
    error = (total - 1).abs().max().item()
    assert error <= tolerance, f"integrates to 1 {error:+.2e}"


def check_kl(q: Distribution, p: Distribution, draws: int = 1_000_000, formula: Callable = closed_kl) -> None:
    """The closed form is within 5 standard errors of Monte Carlo, and not negative."""
    value = q.sample((draws,), generator(0))
    ratio = q.log_prob(value) - p.log_prob(value)
    kl = formula(q, p)
    assert kl.shape == torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    z = (kl - ratio.mean(0)) / (ratio.std(0) / draws**0.5)
    assert z.abs().max() <= MAX_Z, f"z = {z.tolist()}"
    assert kl.min() >= 0, f"negative: {kl.tolist()}"


def check_uniform(u: np.ndarray, bins: int = 50) -> None:
    """Numbers that should be uniform on 0..1, by chi-square over equal-mass bins."""
    check_counts(np.bincount((u * bins).astype(int).clip(0, bins - 1), minlength=bins), np.full(bins, 1 / bins))


def check_counts(counts: np.ndarray, mass: np.ndarray) -> None:
    """Counts per cell against the cells' masses, by chi-square; cells with fewer than 5 expected are pooled."""
    expected = mass * counts.sum()
    rare = expected < 5
    counts, expected = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
    if expected[-1] < 1e-3:
        assert counts[-1] == 0, f"{counts[-1]} draws where none are expected"
        counts, expected = counts[:-1], expected[:-1]
    if len(counts) == 1:
        return  # all mass in one cell, and every draw there
    p = st.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue
    assert p > MIN_P, f"p = {p:.2e}"


def check_discrete_sampler(distribution: Distribution, cells: Tensor, draws: int = 20_000) -> None:
    """Draws fall into the cells as often as log_prob says, for each batch element."""
    sample = distribution.sample((draws,), generator(1)).double()
    lead = (len(cells), *[1] * len(distribution.batch_shape), *distribution.event_shape)
    mass = distribution.log_prob(cells.reshape(lead)).double().exp()
    place = {tuple(cell): i for i, cell in enumerate(cells.reshape(len(cells), -1).tolist())}
    for index in np.ndindex(*distribution.batch_shape):
        rows = sample[(slice(None), *index)].reshape(draws, -1).tolist()
        counts = np.bincount([place[tuple(row)] for row in rows], minlength=len(cells))
        check_counts(counts, mass[(slice(None), *index)].numpy())
