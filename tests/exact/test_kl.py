"""C9: every closed-form KL against Monte Carlo, its sign, its zero, and its digits near zero."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lambent.distributions import (
    AR1,
    AutoregressiveBernoulli,
    Bernoulli,
    Categorical,
    CholeskyNormal,
    Distribution,
    Flat,
    LowRankNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    SphereUniform,
    StandardNormal,
    VonMisesFisher,
    closed_kl,
    closed_kl_elements,
)
from lambent.distributions.kl import _ELEMENTS, _SUMMED
from lambent.distributions.numerics import expm1_less
from support.distribution_cases import CASES, Case
from support.distribution_checks import check_kl
from support.random_numbers import numbers

Q_NORMAL = Normal(numbers(0, 2, 2), 0.3 * numbers(1, 2, 2))
P_NORMAL = Normal(numbers(2, 2), 0.3 * numbers(3, 2))
STANDARD = StandardNormal((2,), dtype=torch.float64)
CHOLESKY = CholeskyNormal(numbers(4, 2, 2), torch.tensor([[0.8, 0.0], [-0.5, 0.6]]).double())
LOW_RANK = LowRankNormal(numbers(5, 2, 2), 0.7 * numbers(6, 2, 2, 1), 0.3 * numbers(7, 2))
ONE_SCALE = Normal(numbers(8, 2, 2), torch.tensor(-0.5).double())
PAIRS = [
    (Q_NORMAL, STANDARD),
    (Q_NORMAL, P_NORMAL),
    (ONE_SCALE, STANDARD),
    (ONE_SCALE, P_NORMAL),
    (Q_NORMAL, ONE_SCALE),
    (STANDARD, P_NORMAL),
    (STANDARD, STANDARD),
    (CHOLESKY, STANDARD),
    (CHOLESKY, P_NORMAL),
    (CHOLESKY, ONE_SCALE),
    (LOW_RANK, STANDARD),
    (LOW_RANK, P_NORMAL),
    (LOW_RANK, ONE_SCALE),
    (OneHotCategorical(numbers(9, 2, 4)), OneHotCategorical(numbers(10, 4))),
    (OneHotCategorical(numbers(17, 2, 6), 3), OneHotCategorical(numbers(18, 6), 3)),
    (Categorical(numbers(11, 2, 2, 4)), Categorical(numbers(12, 2, 4))),
    (Bernoulli(numbers(13, 2, 3)), Bernoulli(numbers(14, 3))),
    (Poisson(numbers(15, 2, 2)), Poisson(numbers(16, 2))),
    (Normal(numbers(19, 2, 6), 0.3 * numbers(20, 2, 6) - 1), AR1(torch.tensor([0.9, -0.3]).double(), 3)),
    (VonMisesFisher(numbers(21, 2, 3), torch.tensor([0.7, 15.0]).double()), SphereUniform(3, dtype=torch.float64)),
]


def _name(pair: tuple[Distribution, Distribution]) -> str:
    return "-".join(type(d).__name__ for d in pair)


@pytest.mark.parametrize("pair", PAIRS, ids=_name)
def test_agrees_with_monte_carlo(pair: tuple[Distribution, Distribution]):
    draws = 300_000 if isinstance(pair[0], Categorical | OneHotCategorical) else 1_000_000
    if pair == (STANDARD, STANDARD):
        assert closed_kl(*pair).item() == 0
    else:
        check_kl(*pair, draws)


def test_every_formula_in_the_table_is_tested():
    assert {(type(q), type(p)) for q, p in PAIRS} == set(_SUMMED) | set(_ELEMENTS)


@pytest.mark.parametrize("pair", PAIRS, ids=_name)
def test_gradients_agree_with_finite_differences(pair: tuple[Distribution, Distribution]):
    tensors: list[Tensor] = []
    for d in pair:
        d.map_parameters(lambda t: (tensors.append(t.clone().requires_grad_()), t)[1])

    def total(*parameters: Tensor) -> Tensor:
        rest = iter(parameters)
        q, p = (d.map_parameters(lambda _: next(rest)) for d in pair)
        return closed_kl(q, p)

    if tensors:
        assert torch.autograd.gradcheck(total, tensors)
        assert torch.autograd.gradgradcheck(total, tensors)


@pytest.mark.parametrize("pair", PAIRS, ids=_name)
def test_elements_sum_to_the_whole(pair: tuple[Distribution, Distribution]):
    elements = closed_kl_elements(*pair)
    if elements is None:
        joint = (CholeskyNormal, LowRankNormal, OneHotCategorical, VonMisesFisher)
        assert isinstance(pair[0], joint) or isinstance(pair[1], AR1)
        return
    joint = torch.broadcast_shapes(*(d.batch_shape for d in pair))
    assert elements.shape == joint + pair[0].event_shape
    assert (elements >= 0).all()
    torch.testing.assert_close(elements.sum(-1), closed_kl(*pair), rtol=1e-13, atol=1e-15)


SELF = [q for q, p in PAIRS if type(q) is type(p)]


@pytest.mark.parametrize("q", SELF, ids=lambda q: type(q).__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_of_itself(q: Distribution, dtype: torch.dtype):
    q = q.map_parameters(lambda t: t.to(dtype))
    assert (closed_kl(q, q) == 0).all()


def test_full_covariance_at_the_prior_is_zero():
    assert closed_kl(CholeskyNormal(torch.zeros(3), torch.eye(3)), StandardNormal((3,))).item() == 0
    flat = LowRankNormal(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3))
    assert closed_kl(flat, StandardNormal((3,))).item() == 0


def test_diagonal_full_and_low_rank_agree():
    diagonal = torch.diag_embed(Q_NORMAL.scale)
    as_full = CholeskyNormal(Q_NORMAL.loc, diagonal)
    as_low_rank = LowRankNormal(Q_NORMAL.loc, torch.zeros(2, 2, 1).double(), Q_NORMAL.log_scale)
    for p in (STANDARD, P_NORMAL):
        for same in (as_full, as_low_rank):
            torch.testing.assert_close(closed_kl(same, p), closed_kl(Q_NORMAL, p), rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_covariances_agree_with_torchs_dense_formula(seed: int, spread: float):
    """Over scales of q far below and above those of p."""
    q = LowRankNormal(numbers(seed, 3, 4), numbers(seed + 10, 3, 4, 2), spread * numbers(seed + 20, 3, 4))
    p = Normal(numbers(seed + 30, 4), spread * numbers(seed + 40, 4))
    full = CholeskyNormal(q.loc, torch.linalg.cholesky(q.covariance_matrix))
    dense_q = torch.distributions.MultivariateNormal(q.loc, scale_tril=full.tril)
    dense_p = torch.distributions.MultivariateNormal(p.loc, scale_tril=torch.diag_embed(p.scale))
    truth = torch.distributions.kl_divergence(dense_q, dense_p)
    torch.testing.assert_close(closed_kl(q, p), truth, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(closed_kl(full, p), truth, rtol=1e-11, atol=1e-11)


def test_no_formula_is_none():
    assert closed_kl(Q_NORMAL, Flat((2,))) is None
    assert closed_kl(torch.distributions.Normal(0.0, 1.0), STANDARD) is None
    assert closed_kl_elements(CHOLESKY, STANDARD) is None


@pytest.mark.parametrize("case", [case for case in CASES if case.distribution.normalised], ids=str)
def test_every_family_against_itself_is_zero_or_has_no_formula(case: Case):
    kl = closed_kl(case.distribution, case.distribution)
    assert kl is None or (kl == 0).all()


def naive(q: Normal, p: StandardNormal) -> Tensor:
    v = 2 * q.log_scale
    return -0.5 * (1 + v - q.loc.square() - v.exp()).sum(-1)


def check_small(formula) -> None:
    """Never negative, and right to 1e-5 of itself, in float32 for log variances 1e-8..80 and their negatives."""
    grid = np.concatenate([np.logspace(-8, math.log10(80), 400), [0.0099, 0.01, 0.0101, 1.0]])
    v = np.concatenate([grid, -grid]).astype(np.float32)
    zero = torch.zeros(len(v), 1)
    found = formula(Normal(zero, torch.from_numpy(v / 2).unsqueeze(-1)), StandardNormal((1,)))
    wide = v.astype(np.float64)
    series = wide**2 / 4 * (1 + wide / 3 + wide**2 / 12 + wide**3 / 60 + wide**4 / 360)
    truth = np.where(np.abs(wide) < 1e-2, series, 0.5 * (np.expm1(wide) - wide))
    assert (np.abs(found.double().numpy() - truth) <= 1e-5 * truth).all()
    many = 1e-3 * torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    assert formula(Normal(torch.zeros(100_000, 1), many / 2), StandardNormal((1,))).min() >= 0


def test_digits_near_zero():
    check_small(closed_kl)


def test_the_naive_form_is_caught():
    with pytest.raises(AssertionError):
        check_small(naive)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_expm1_less_and_its_derivatives(dtype: torch.dtype):
    v = torch.tensor([-50.0, -1.0, -0.011, -0.0099, -1e-5, 0.0, 1e-8, 0.0099, 0.011, 3.0], dtype=dtype).requires_grad_()
    (slope,) = torch.autograd.grad(expm1_less(v).sum(), v, create_graph=True)
    torch.testing.assert_close(slope, v.expm1(), rtol=1e-6, atol=0)
    (curvature,) = torch.autograd.grad(slope.sum(), v)
    torch.testing.assert_close(curvature, v.exp(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_categories_with_extreme_logits(scale: float):
    """Finite where the truth is, never negative, and equal to float64's."""
    for family, shape in ((OneHotCategorical, (50, 6)), (Bernoulli, (50, 6)), (Categorical, (50, 2, 6))):
        logits = [scale * numbers(s, *shape) for s in (0, 1)]
        wide = closed_kl(*(family(t) for t in logits))
        single = closed_kl(*(family(t.float()) for t in logits))
        assert (single >= 0).all()
        torch.testing.assert_close(single.double(), wide, rtol=2e-5, atol=1e-5)


def test_a_state_that_q_never_takes_costs_nothing():
    impossible = torch.tensor([0.0, 0.0, -math.inf])
    kl = closed_kl(OneHotCategorical(impossible), OneHotCategorical(torch.zeros(3)))
    torch.testing.assert_close(kl, torch.tensor(math.log(1.5)))
    assert closed_kl(OneHotCategorical(torch.zeros(3)), OneHotCategorical(impossible)).item() == math.inf


def _wrong_sign(q: Distribution, p: Distribution) -> Tensor:
    return -closed_kl(q, p)


def _swapped(q: Distribution, p: Distribution) -> Tensor:
    return closed_kl(p, q)


def _prior_variance(q: Normal, p: Distribution) -> Tensor:
    return closed_kl(q, Normal(torch.zeros(2).double(), torch.tensor(0.5 * math.log(1.01)).double()))


def _variance_for_deviation(q: Normal, p: Distribution) -> Tensor:
    return closed_kl(Normal(q.loc, 2 * q.log_scale), p)


def _missing_dimension(q: Normal, p: Distribution) -> Tensor:
    return closed_kl_elements(q, p)[..., :-1].sum(-1)


@pytest.mark.parametrize("fault", [_wrong_sign, _swapped, _prior_variance, _variance_for_deviation, _missing_dimension])
def test_planted_faults_are_caught(fault):
    with pytest.raises(AssertionError):
        check_kl(Q_NORMAL, STANDARD, formula=fault)


def test_traces_in_one_graph():
    """torch's own dispatcher breaks the graph; this table doesn't."""

    def rate(loc: Tensor, log_scale: Tensor) -> Tensor:
        return closed_kl(Normal(loc, log_scale), StandardNormal((2,)))

    compiled = torch.compile(rate, backend="eager", fullgraph=True)
    loc, log_scale = torch.ones(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    torch.testing.assert_close(compiled(loc, log_scale), rate(loc, log_scale))
    compiled(loc, log_scale).sum().backward()
    torch.testing.assert_close(loc.grad, torch.ones(3, 2))


def test_coins_in_order_have_no_closed_form():
    """A wrong one would enter every ELBO of a DARN: the rate must fall back on log q - log p."""
    q = AutoregressiveBernoulli(numbers(0, 3), numbers(1, 3, 3))
    assert closed_kl(q, AutoregressiveBernoulli(numbers(2, 3), numbers(3, 3, 3))) is None
    assert closed_kl(q, Bernoulli(numbers(4, 3))) is None
    assert closed_kl(Bernoulli(numbers(4, 3)), q) is None
