"""What every family promises, over the one table: density, shapes, sampling, moments, gradients, precision."""

import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from torch import Tensor

from lambent.distributions import (
    Bernoulli,
    Categorical,
    CholeskyNormal,
    Delta,
    DiscretisedLogistic,
    Distribution,
    Flat,
    LogisticMixture,
    LowRankNormal,
    Normal,
    NormalMixture,
    OneHotCategorical,
    Poisson,
    Product,
    StandardNormal,
)
from lambent.errors import ConfigError
from support.distribution_cases import CASES, DENSITIES, Case
from support.distribution_checks import MAX_Z, check_log_prob
from support.random_numbers import generator, numbers

SAMPLED = [case for case in CASES if not isinstance(case.distribution, Flat)]
REPARAMETERISED = [case for case in SAMPLED if case.distribution.has_rsample and case.parameters and case.smooth]
LEARNED = [case for case in CASES if case.parameters]


def values(case: Case, seed: int = 0) -> Tensor:
    """A few draws, (K, *batch, *event), or the edges where there are none."""
    d = case.distribution
    if isinstance(d, Flat):
        return case.edges
    return d.sample((6,), generator(seed))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_prob_agrees_with_the_oracle(case: Case):
    d = case.distribution
    edges = case.edges.reshape(len(case.edges), *[1] * len(d.batch_shape), *d.event_shape)
    for value in (values(case), edges, edges[0, 0] if d.batch_shape else edges[0]):
        check_log_prob(d, case.oracle, value)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_agrees_with_the_oracle(case: Case):
    d = case.distribution.map_parameters(lambda t: t.float())
    tolerance = 1e-4 if isinstance(d, DiscretisedLogistic) else 2e-6
    check_log_prob(d, case.oracle, values(case).float(), tolerance)


@pytest.mark.parametrize("case", LEARNED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(case: Case, dtype: torch.dtype):
    """N7: the same number as float32 gives for the rounded parameters."""
    half = case.distribution.map_parameters(lambda t: t.to(dtype))
    rounded = case.rebuilt([p.to(dtype).float() for p in case.parameters])
    value = values(case).float()
    assert half.log_prob(value).dtype == torch.float32
    torch.testing.assert_close(half.log_prob(value), rounded.log_prob(value), rtol=0, atol=0)


@pytest.mark.parametrize("case", LEARNED, ids=str)
def test_autocast_changes_nothing(case: Case):
    """N7: mixed precision is for networks; a 16-bit matrix product in a density would cost whole nats."""
    d, value = case.distribution.map_parameters(lambda t: t.float()), values(case).float()
    outside = d.log_prob(value)
    draws = d.sample((3,), generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(d.log_prob(value), outside)
        assert torch.equal(d.sample((3,), generator(0)), draws)


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_draws_have_the_shape_and_the_seed(case: Case):
    d = case.distribution
    a, b = (d.sample((3, 4), generator(1)) for _ in range(2))
    assert a.shape == (3, 4, *d.batch_shape, *d.event_shape)
    assert torch.equal(a, b)
    assert d.log_prob(a).shape == (3, 4, *d.batch_shape)
    if not isinstance(d, Delta):
        assert not torch.equal(a, d.sample((3, 4), generator(2)))


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_a_generator_leaves_the_global_one_alone(case: Case):
    before = torch.get_rng_state()
    case.distribution.sample((3,), generator(0))
    if case.distribution.has_rsample:
        case.distribution.rsample((3,), generator(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("case", [case for case in SAMPLED if case.has_moments], ids=str)
def test_mean_and_variance_agree_with_draws(case: Case):
    d = case.distribution
    draws = d.sample((40_000,), generator(3))
    mean, variance = draws.mean(0), draws.var(0)
    assert d.mean.shape == d.variance.shape == d.batch_shape + d.event_shape
    error = (variance / len(draws)).sqrt() + 1e-12
    assert ((d.mean - mean) / error).abs().max() <= MAX_Z
    fourth = (draws - mean).pow(4).mean(0) - variance.square()
    assert ((d.variance - variance) / ((fourth / len(draws)).sqrt() + 1e-12)).abs().max() <= MAX_Z


@pytest.mark.parametrize("case", [case for case in DENSITIES if case.has_mode], ids=str)
def test_no_draw_beats_the_mode(case: Case):
    d = case.distribution
    best = d.log_prob(d.mode)
    assert (d.log_prob(d.sample((20_000,), generator(4))) <= best + 1e-9).all()
    near = d.log_prob(
        d.mode + (1e-4 * numbers(5, 200, *d.mode.shape) if case.cells is None and case.name != "table" else 0)
    )
    assert (near <= best + 1e-9).all()


@pytest.mark.parametrize("case", LEARNED, ids=str)
def test_gradients_of_log_prob_agree_with_finite_differences(case: Case):
    """First and second order, in every parameter."""
    value = values(case)
    parameters = [p.clone().requires_grad_() for p in case.parameters]

    def score(*tensors: Tensor) -> Tensor:
        return case.rebuilt(list(tensors)).log_prob(value)

    if case.distribution.normalised:
        assert torch.autograd.gradcheck(score, parameters)
        assert torch.autograd.gradgradcheck(score, parameters)


@pytest.mark.parametrize("case", REPARAMETERISED, ids=str)
def test_reparameterised_draws_agree_with_finite_differences(case: Case):
    parameters = [p.clone().requires_grad_() for p in case.parameters]

    def draw(*tensors: Tensor) -> Tensor:
        return case.rebuilt(list(tensors)).rsample((2,), generator(5))

    assert torch.autograd.gradcheck(draw, parameters)


@pytest.mark.parametrize("case", [case for case in SAMPLED if not case.distribution.has_rsample], ids=str)
def test_others_refuse_to_be_reparameterised(case: Case):
    with pytest.raises(NotImplementedError, match="no rsample"):
        case.distribution.rsample()


@pytest.mark.parametrize("case", LEARNED, ids=str)
def test_detached_scores_alike_outside_the_graph(case: Case):
    live = case.rebuilt([p.clone().requires_grad_() for p in case.parameters])
    value, cut = values(case), live.detach()
    torch.testing.assert_close(cut.log_prob(value), live.log_prob(value), rtol=0, atol=0)
    assert not cut.log_prob(value).requires_grad
    assert live.log_prob(value).requires_grad == live.normalised


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_fused_draw_is_scored_by_log_prob(case: Case):
    d = case.distribution
    if d.has_rsample:
        value, log_prob = d.rsample_and_log_prob((2,), generator(6))
        torch.testing.assert_close(log_prob, d.log_prob(value), rtol=0, atol=0)


@pytest.mark.parametrize("case", [case for case in CASES if case.distribution.has_enumerate_support], ids=str)
def test_the_enumerated_support_holds_all_mass(case: Case):
    d = case.distribution
    support = d.enumerate_support()
    assert support.shape == (len(case.cells), *d.batch_shape, *d.event_shape)
    torch.testing.assert_close(d.log_prob(support).exp().sum(0), torch.ones(d.batch_shape).double(), rtol=1e-14, atol=0)
    assert len(torch.unique(support[:, 0], dim=0)) == len(case.cells)
    compact = d.enumerate_support(expand=False)
    assert torch.equal(compact.expand_as(support), support)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.distribution.has_enumerate_support and case.has_moments], ids=str
)
def test_entropy_is_the_enumerated_one(case: Case):
    log_p = case.distribution.log_prob(case.distribution.enumerate_support())
    torch.testing.assert_close(case.distribution.entropy(), -(log_p.exp() * log_p).sum(0), rtol=1e-13, atol=0)


def test_entropy_of_normals_is_scipys():
    for case in CASES:
        d = case.distribution
        if isinstance(d, Normal | StandardNormal):
            truth = st.norm(0, d.variance.sqrt().numpy()).entropy().reshape(*d.batch_shape, -1).sum(-1)
        elif isinstance(d, CholeskyNormal | LowRankNormal):
            truth = [st.multivariate_normal(None, c).entropy() for c in d.covariance_matrix.numpy()]
        else:
            continue
        np.testing.assert_allclose(d.entropy().numpy(), truth, rtol=1e-12)


def test_broadcast_over_samples_and_batch():
    """Parameters (B, D) and a scale (D,) against values (K, B, D), and x (B, D) against parameters (K, B, D)."""
    loc, log_scale, x = numbers(0, 4, 3), numbers(1, 3), numbers(2, 5, 4, 3)
    by_hand = torch.stack([Normal(loc, log_scale.expand(4, 3)).log_prob(v) for v in x])
    torch.testing.assert_close(Normal(loc, log_scale).log_prob(x), by_hand)
    torch.testing.assert_close(Normal(x, log_scale).log_prob(loc), by_hand)
    levels, logits = x.clamp(0, 2).round(), numbers(3, 4, 3, 3)
    by_hand = torch.stack([Categorical(logits).log_prob(v) for v in levels])
    torch.testing.assert_close(Categorical(logits).log_prob(levels), by_hand)
    torch.testing.assert_close(Categorical(logits.expand(5, 4, 3, 3)).log_prob(levels[0])[2], by_hand[0])


def test_matrix_families_over_samples_do_as_one_by_one():
    x = numbers(0, 5, 6, 4, 3)
    full = CholeskyNormal(numbers(1, 4, 3), torch.eye(3).double() + numbers(2, 4, 3, 3).tril(-1))
    low = LowRankNormal(numbers(3, 4, 3), numbers(4, 4, 3, 2), numbers(5, 3))
    shared = CholeskyNormal(numbers(6, 3), torch.eye(3).double() + numbers(7, 3, 3).tril(-1))
    for d in (full, low, shared):
        one = torch.stack([torch.stack([d.log_prob(v) for v in row]) for row in x])
        torch.testing.assert_close(d.log_prob(x), one, rtol=1e-13, atol=1e-13)
        assert d.rsample((5, 6)).shape == (5, 6, *d.batch_shape, 3)


@pytest.mark.parametrize("number", [torch.uint8, torch.int64, torch.float32, torch.bool])
def test_data_of_any_number_type_scores_alike(number: torch.dtype):
    x = torch.tensor([[0, 1], [1, 1]])
    logits = numbers(0, 2, 2).float()
    for d in (
        Bernoulli(logits),
        Categorical(numbers(1, 2, 2, 3).float()),
        DiscretisedLogistic(logits, torch.zeros(()), 256),
        Poisson(logits),
    ):
        torch.testing.assert_close(d.log_prob(x.to(number)), d.log_prob(x.float()), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bernoulli_is_exact_at_extreme_logits(dtype: torch.dtype):
    """N4: probabilities clamped before the log give -100 where the truth is -16.7."""
    logits = torch.tensor([20.0, 16.7, 1e4, -1e4, -1e4, 1e4], dtype=dtype).unsqueeze(-1)
    x = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0], dtype=dtype).unsqueeze(-1)
    truth = [-20.000000002061153, -16.700000055932595, -1e4, -1e4, 0.0, 0.0]
    found = Bernoulli(logits).log_prob(x)
    torch.testing.assert_close(found.double(), torch.tensor(truth).double(), rtol=1e-7, atol=1e-6)


def test_bernoulli_does_not_cancel_over_an_image():
    """784 confident and right pixels cost nothing; two large sums would differ by rounding."""
    x = (numbers(0, 784) > 0).float()
    logits = 1e4 * (2 * x - 1) * (1 + numbers(1, 784).abs().float())
    assert Bernoulli(logits).log_prob(x).item() == 0
    two_sums = x @ logits - torch.nn.functional.softplus(logits).sum()
    assert two_sums.item() != 0


def test_sampling_the_flat_prior_is_refused():
    with pytest.raises(ConfigError, match="use prior=normal"):
        Flat((2,)).sample((3,))


def test_misfitting_products_are_refused():
    two = Normal(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ConfigError, match="start at 2"):
        Product((two, two), (slice(0, 2), slice(3, 5)))
    with pytest.raises(ConfigError, match="as wide as"):
        Product((two,), (slice(0, 3),))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Normal(torch.zeros(()), torch.zeros(()), 1), "at least 1 event"),
        (lambda: Bernoulli(torch.zeros(2), 2), "at least 2 event"),
        (lambda: DiscretisedLogistic(torch.zeros(1), torch.zeros(1), 1), "2 or more"),
        (lambda: Bernoulli(torch.zeros(21)).enumerate_support(), "too many"),
    ],
)
def test_bad_arguments_name_what_is_expected(make, text: str):
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("heavy", [0, 1])
def test_mode_of_a_logistic_mixture_is_that_of_all_levels(heavy: int):
    """Two peaks of one width of which the weights, and then the widths, tell the higher one."""
    levels, at = 32, torch.linspace(-1, 1, 32, dtype=torch.float64)[[5, 24]].view(1, 2, 1)
    logits = torch.tensor([0.8, 0.0], dtype=torch.float64).roll(heavy).view(1, 2, 1)
    for narrow in ([0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]):
        scale = torch.tensor(narrow, dtype=torch.float64).view(1, 2, 1) - 3
        edges = np.concatenate([[-np.inf], (2 * np.arange(1, levels) - levels) / (levels - 1), [np.inf]])
        cdf = st.logistic(at[0].numpy(), scale[0].exp().numpy()).cdf(edges)
        masses = (logits[0].softmax(0).numpy() * np.diff(cdf)).sum(0)
        assert LogisticMixture(logits, at, scale, levels).mode.item() == masses.argmax()


def test_mode_of_a_mixture_is_not_its_mean():
    mixture = NormalMixture(torch.tensor([0.1, 0.0]), torch.tensor([[-4.0], [4.0]]), torch.zeros(2, 1))
    torch.testing.assert_close(mixture.mode, torch.tensor([-4.0]), rtol=0, atol=1e-4)


def test_mode_of_levels_counts_the_tails():
    d = DiscretisedLogistic(torch.tensor([[-0.9], [0.1], [0.999]]), torch.tensor(0.0), 16)
    brute = d.log_prob(torch.arange(16.0).reshape(16, 1, 1)).argmax(0)
    assert torch.equal(d.mode.squeeze(-1).long(), brute)


def test_one_hot_relaxed_values_and_impossible_states():
    d = OneHotCategorical(torch.tensor([0.0, 0.0, -math.inf]))
    torch.testing.assert_close(d.log_prob(torch.tensor([1.0, 0.0, 0.0])), torch.tensor(-math.log(2)))
    assert d.log_prob(torch.tensor([0.0, 0.0, 1.0])).item() == -math.inf
    torch.testing.assert_close(d.entropy(), torch.tensor(math.log(2)))
    relaxed = torch.tensor([0.3, 0.7, 0.0], requires_grad=True)
    d.log_prob(relaxed).backward()
    torch.testing.assert_close(relaxed.grad[:2], torch.full((2,), -math.log(2)))


def _half_log_two_pi(d: Normal, value: Tensor) -> Tensor:
    return Normal.log_prob(d, value) + 0.5 * math.log(2 * math.pi)


def _bits(d: Normal, value: Tensor) -> Tensor:
    return Normal.log_prob(d, value) / math.log(2)


def _variance_for_deviation(d: Normal, value: Tensor) -> Tensor:
    return Normal(d.loc, 0.5 * d.log_scale).log_prob(value)


def _per_element(d: Normal, value: Tensor) -> Tensor:
    return Normal.log_prob(d, value) / d.event_shape.numel()


def _scale_not_counted_per_dimension(d: Normal, value: Tensor) -> Tensor:
    return Normal.log_prob(d, value) + d.log_scale.sum() / 2


@pytest.mark.parametrize(
    "fault", [_half_log_two_pi, _bits, _variance_for_deviation, _per_element, _scale_not_counted_per_dimension]
)
def test_planted_faults_are_caught(fault):
    class Faulty(Normal):
        def log_prob(self, value: Tensor) -> Tensor:
            return fault(self, value)

    case = CASES[0]
    d = Faulty(*case.parameters)
    with pytest.raises(AssertionError, match="off by"):
        check_log_prob(d, case.oracle, values(case))


def test_a_softplus_that_switches_at_20_is_caught():
    """torch's softplus is the identity above 20: off by 2e-9, which float64 must not be."""

    class Switched(Bernoulli):
        def log_prob(self, value: Tensor) -> Tensor:
            return (value * self.logits - torch.nn.functional.softplus(self.logits)).sum(-1)

    case = next(case for case in CASES if case.name == "bernoulli")
    logits = torch.full((2, 3), 20.001).double()
    check_log_prob(Bernoulli(logits), case.oracle, torch.zeros(3).double())
    with pytest.raises(AssertionError, match="off by"):
        check_log_prob(Switched(logits), case.oracle, torch.ones(3).double())


def test_repr_names_family_and_shapes():
    assert repr(Bernoulli(torch.zeros(3, 2))) == "Bernoulli(batch_shape=(3,), event_shape=(2,))"


@pytest.mark.parametrize(
    "case", [c for c in LEARNED if c.name in ("normal", "bernoulli", "discretised logistic")], ids=str
)
def test_log_prob_traces_in_one_graph(case: Case):
    value = values(case)

    def score(*parameters: Tensor) -> Tensor:
        return _rebuild(case.distribution, parameters).log_prob(value)

    compiled = torch.compile(score, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*case.parameters), case.distribution.log_prob(value))


def _rebuild(d: Distribution, parameters: tuple[Tensor, ...]) -> Distribution:
    if isinstance(d, DiscretisedLogistic):
        return DiscretisedLogistic(*parameters, d.levels)
    return type(d)(*parameters)


@pytest.mark.parametrize("shared", [False, True])
def test_densities_of_all_pairs_are_those_one_by_one(shared: bool):
    """By matrix products, for scales from exp(-7) to exp(5) and means far from the values."""
    loc = 5 * numbers(0, 40, 6).float()
    log_scale = torch.tensor(-7.0) if shared else torch.linspace(-7, 5, 40 * 6).reshape(40, 6)
    q, value = Normal(loc, log_scale), 3 * numbers(1, 30, 6).float()
    truth = q.map_parameters(Tensor.double).log_prob(value.double().unsqueeze(1))
    found = q.log_prob_pairs(value)
    assert found.shape == (30, 40)
    torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-9)
    own = Normal(loc, log_scale).log_prob_pairs(loc).diagonal()  # every value at its own mean, where squares cancel
    torch.testing.assert_close(own, q.map_parameters(Tensor.double).log_prob(loc.double()), rtol=0, atol=1e-6)
