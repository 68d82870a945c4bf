"""C1 to C6 and C8: the bounds of lambent's traces, objectives and evaluator against closed forms and quadrature."""

import math

import pytest
import torch

from exact import checks
from exact.tiny import batch_of, ones, tiny
from exact.truths import CASES, DESIGN, LOG_P, MIXTURE, PPCA, bound, bound_by_gauss_hermite
from lambent.evaluation.bounds import bounds
from lambent.objectives import ELBO


def test_the_truths_agree_with_each_other_and_with_the_design():
    assert pytest.approx(-1.5155121235, abs=1e-10) == LOG_P
    for (case, samples), (value, se) in DESIGN.items():
        found = bound(samples, *CASES[case]).item()
        assert abs(found - value) <= (5 * se if se else 1e-10)
        if samples <= 2:
            assert found == pytest.approx(bound_by_gauss_hermite(samples, *CASES[case]), abs=1e-10)
    assert PPCA.log_p() == pytest.approx(PPCA.design_log_p, abs=1e-10)
    assert PPCA.log_p() - PPCA.mean_field_gap() == pytest.approx(PPCA.design_mean_field, abs=1e-10)
    assert PPCA.posterior_mean() == pytest.approx(PPCA.design_mean, abs=1e-7)
    assert MIXTURE.log_p() == pytest.approx(MIXTURE.design, abs=1e-10)


def test_weights_at_the_true_posterior_are_the_evidence():
    checks.constant_weights()
    checks.constant_weights(tolerance=1e-5, dtype=torch.float32)


@pytest.mark.parametrize("case", ["C1", "C2", "C3"])
def test_elbo_with_its_rate_in_closed_form(case):
    checks.elbo_with_closed_rate(case)


@pytest.mark.parametrize("case", ["C1", "C2", "C3"])
def test_bounds_of_one_and_two_weights_by_quadrature(case):
    checks.single_weights(case)
    checks.pairs_of_weights(case)


@pytest.mark.parametrize(
    ("case", "samples", "n"), [("C2", 10, 4_400_000), ("C2", 50, 800_000), ("C3", 10, 300_000), ("C3", 50, 60_000)]
)
def test_bounds_of_many_weights_by_drawing(case, samples, n):
    checks.sampled_bound(case, samples, n, delta=1e-3, chunks=n // 5000)


@pytest.mark.parametrize("samples", [1, 5])
def test_elbo_does_not_depend_on_the_number_of_draws(samples):
    checks.sampled_bound("C2", samples, 200_000, delta=0.05, objective=ELBO())


@pytest.mark.parametrize(("case", "samples", "n"), [("C2", 10, 20_000), ("C2", 50, 8000), ("C3", 10, 20_000)])
def test_bounds_through_the_evaluator(case, samples, n):
    checks.evaluated_bounds(case, samples, n, delta=0.03)


def test_the_evaluator_streams_what_one_piece_would_give():
    checks.streams_like_one_piece()


@pytest.mark.parametrize("case", ["C2", "C3"])
def test_more_samples_never_lower_the_bound_and_none_is_above_the_evidence(case):
    checks.ordered_bounds(case)


def test_five_thousand_samples_through_the_evaluator():
    n = 64
    found = bounds(tiny("C2", n), batch_of(ones(n)), n, samples=5000).iwae
    se = found.std().item() / math.sqrt(n)
    assert se <= 2e-3
    assert abs(found.mean().item() - bound(5000, *CASES["C2"]).item()) <= 5 * se


def test_ppca():
    checks.exact_ppca()
    checks.optimal_mean_field()
    checks.sampled_ppca()


def test_mixture_by_enumeration():
    checks.exact_mixture()


def test_uniform_levels_are_eight_bits_a_dimension():
    checks.uniform_levels()
    checks.uniform_levels(dtype=torch.float32, tolerance=1e-7)


def test_a_density_moves_with_the_datas_unit():
    checks.density_in_its_unit()


def test_discretised_levels_sum_to_one_as_the_family_builds_them():
    checks.levels_sum_to_one()
