"""C11 for score functions, enumeration and reweighted wake-sleep, exact: every possible sample with its probability."""

import pytest

from exact import score_checks
from exact.coins import CATEGORY, COIN, OTHER, PAIR, TOYS
from exact.score_checks import BASELINES, OBJECTIVES
from lambent.draws import Enumerate, Score
from lambent.errors import CombinationError

EVERY = [
    (toy, baseline, objective, samples)
    for toy in TOYS
    for baseline in BASELINES
    for objective in ("elbo", "iwae", "ciwae")
    for samples in (1, 5, 50)
    if (baseline != "leave-one-out" or samples > 1) and (toy != "pair" or samples < 50)
]


@pytest.mark.parametrize(("toy", "baseline", "objective", "samples"), EVERY)
def test_expected_gradient_of_the_score_function(toy, baseline, objective, samples):
    score_checks.score_with_counts(toy, baseline, objective, samples)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_a_batch_of_different_examples(baseline, objective):
    score_checks.score_with_tuples(baseline, objective)


@pytest.mark.parametrize("objective", ["miwae", "piwae"])
@pytest.mark.parametrize("baseline", BASELINES)
def test_groups_of_two(baseline, objective):
    score_checks.score_with_tuples(baseline, objective, (COIN,), samples=4)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("objective", ["elbo", "iwae", "ciwae"])
def test_two_levels_that_share_a_baseline(baseline, objective):
    score_checks.chain_with_scores(baseline, objective)


def test_enumeration():
    score_checks.enumerated_toys()
    score_checks.chain_enumerated()


@pytest.mark.parametrize(("toys", "samples"), [((COIN, OTHER), 2), ((COIN, OTHER), 3), ((CATEGORY,), 3), ((PAIR,), 2)])
def test_reweighted_wake_sleep_at_finite_k(toys, samples):
    score_checks.reweighted(toys, samples)


@pytest.mark.parametrize("samples", [2, 5])
def test_reweighted_wake_sleep_is_biased_at_finite_k(samples):
    """Its p-gradient is not that of L_K, and comes closer as K grows (to that of log p): it says so."""
    gap = [
        max(
            (found - slope).abs().max().item()
            for found, slope in zip(
                score_checks.reweighted_truth(COIN, k)[1][1:], score_checks.exact_evidence(COIN)[1:], strict=True
            )
        )
        for k in (samples, 2 * samples)
    ]
    assert gap[0] > 1.5 * gap[1] > 1e-3
    assert score_checks.ReweightedWakeSleep.bias


def test_no_baseline_means_none_even_where_the_model_has_one():
    model, x = score_checks.toy_model([COIN], score_checks.baseline("running-mean")), score_checks.toy_x([COIN])
    assert model(x, Score(2, baseline="none")).latents[0].advantage is None


def test_leave_one_out_needs_two_samples():
    model, x = score_checks.toy_model([COIN]), score_checks.toy_x([COIN])
    with pytest.raises(CombinationError, match="baseline=leave-one-out needs samples >= 2"):
        model(x, Score(1, baseline="leave-one-out"))


@pytest.mark.parametrize("objective", ["miwae", "ciwae", "piwae"])
def test_groups_of_enumerated_states_are_refused(objective):
    model, x = score_checks.toy_model([COIN]), score_checks.toy_x([COIN])
    with pytest.raises(CombinationError, match="no bound of groups of draws exists; use objective=iwae"):
        OBJECTIVES[objective][0](model(x, Enumerate()), x)


def test_a_level_enumerated_without_a_place_is_refused():
    model = score_checks.two_coins_in_a_chain()
    model.states = ()
    with pytest.raises(CombinationError, match="latent 'z2': enumerated given another level, but its place"):
        model(score_checks.torch.zeros(1, 1), Enumerate())
