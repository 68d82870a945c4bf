"""N1, N5, N8: values and gradients stay finite, over extreme outputs of networks, in three precisions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lambent.distributions import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Distribution,
    LogisticMixture,
    LowRankNormal,
    NegativeBinomial,
    Normal,
    NormalMixture,
    OneHotCategorical,
    Poisson,
    StandardNormal,
    bounded_log_scale,
    closed_kl,
    unbounded_log_scale,
)
from lambent.distributions.numerics import joint_shape
from lambent.errors import ConfigError
from support.distribution_cases import CASES, Case, logistic_oracle
from support.distribution_checks import check_log_prob
from support.random_numbers import numbers

RAW = torch.tensor([-1e4, -100.0, -10.0, -1.0, 0.0, 1.0, 10.0, 100.0, 1e4])
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
Make = Callable[[Tensor, Tensor], Distribution]

FAMILIES: dict[str, tuple[Make, Tensor]] = {
    "normal": (lambda a, b: Normal(a, bounded_log_scale(b)), torch.tensor([-3.0, 0.0, 3.0])),
    "mixture": (lambda a, b: NormalMixture(a[0], torch.stack([a, b], -2), bounded_log_scale(b)), torch.tensor([0.0])),
    "low-rank": (
        lambda a, b: LowRankNormal(a, torch.ones_like(a).unsqueeze(-1), bounded_log_scale(b)),
        torch.tensor([-3.0, 3.0]),
    ),
    "low-rank, factor": (
        lambda a, b: LowRankNormal(torch.zeros_like(a), a.unsqueeze(-1), bounded_log_scale(b)),
        torch.tensor([-3.0, 3.0]),
    ),
    "bernoulli": (lambda a, b: Bernoulli(a), torch.tensor([0.0, 1.0])),
    "one-hot": (lambda a, b: OneHotCategorical(a), torch.tensor([])),
    "levels": (lambda a, b: Categorical(torch.stack([a, b, 0 * a], -1)), torch.tensor([0.0, 2.0])),
    "logistic": (
        lambda a, b: DiscretisedLogistic(a, bounded_log_scale(b), 256),
        torch.tensor([0.0, 1.0, 128.0, 255.0]),
    ),
    "logistic mixture": (
        lambda a, b: LogisticMixture(a[:, None], torch.stack([a, b], 1), bounded_log_scale(b)[:, None], 256),
        torch.tensor([0.0, 1.0, 128.0, 255.0]),
    ),
    "logistic, 2 levels": (lambda a, b: DiscretisedLogistic(a, bounded_log_scale(b), 2), torch.tensor([0.0, 1.0])),
    "poisson": (lambda a, b: Poisson(bounded_log_scale(a, -15, 15)), torch.tensor([0.0, 1.0, 1e4])),
    "negative binomial": (
        lambda a, b: NegativeBinomial(bounded_log_scale(a, -15, 15), bounded_log_scale(b, -7, 15)),
        torch.tensor([0.0, 1.0, 1e4]),
    ),
}


def check_finite(make: Make, edges: Tensor, dtype: torch.dtype) -> None:
    """Log probabilities and gradients are finite for all pairs of raw outputs, at all edges.

    A gradient that the type can't hold is let off: that of a scale in float16 may truly be 10^14.
    """
    points = edges if len(edges) else torch.eye(len(RAW) ** 2)[[0, 40]]
    for point in points:
        total, grads = _score(make, point, dtype)
        assert total.isfinite(), f"log p({point}) is {total}"
        _, truths = _score(make, point, torch.float64)
        for grad, truth in zip(grads, truths, strict=True):
            representable = truth.abs() < 0.9 * torch.finfo(dtype).max
            assert grad[representable].isfinite().all(), f"gradient at {point}: {grad}"
            assert not grad.isnan().any(), f"gradient at {point}: {grad}"


def _score(make: Make, point: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    a, b = (t.to(dtype).requires_grad_() for t in torch.cartesian_prod(RAW, RAW).unbind(-1))
    d = make(a, b)
    total = d.log_prob(point.expand(d.event_shape)).sum()
    return total, list(torch.autograd.grad(total, [a, b], allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_outputs(family: str, dtype: torch.dtype):
    check_finite(*FAMILIES[family], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_of_extreme_outputs(dtype: torch.dtype):
    loc, raw = (t.to(dtype).requires_grad_() for t in torch.cartesian_prod(RAW, RAW).unbind(-1))
    kl = closed_kl(Normal(loc, bounded_log_scale(raw)), StandardNormal(loc.shape))
    assert kl.isfinite()
    assert kl.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for grad in torch.autograd.grad(kl, [loc, raw]):
        assert grad.isfinite().all()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 100.0])
def test_low_rank_with_parallel_columns(size: float):
    """Columns equal to seven digits, and small ones: the same density and KL as in float64, never negative."""
    column = size * numbers(0, 6, 1)
    factor = torch.cat([column, column * (1 + 1e-7)], -1)
    loc, log_scale, x = numbers(1, 6).float(), torch.tensor([-7.0, -3.0, 0.0, 0.0, 1.0, 5.0]), numbers(2, 50, 6).float()
    single = LowRankNormal(loc, factor.float(), log_scale)
    wide = single.map_parameters(torch.Tensor.double)
    torch.testing.assert_close(single.log_prob(x).double(), wide.log_prob(x.double()), rtol=1e-6, atol=1e-5)
    for scale in (log_scale, torch.zeros(6)):
        p = Normal(loc, scale)
        kl = closed_kl(single, p)
        torch.testing.assert_close(
            kl.double(), closed_kl(wide, p.map_parameters(torch.Tensor.double)), rtol=1e-6, atol=0
        )
        assert kl >= 0


def test_an_unbounded_scale_is_caught():
    def unbounded(a: Tensor, b: Tensor) -> Distribution:
        return Normal(a, b)

    with pytest.raises(AssertionError, match="log p"):
        check_finite(unbounded, torch.tensor([0.0]), torch.float32)


def test_the_naive_difference_of_sigmoids_is_caught():
    class Naive(DiscretisedLogistic):
        def log_prob(self, value: Tensor) -> Tensor:
            inverse = torch.exp(-self.log_scale)
            upper = torch.sigmoid((self._edge(value + 1) - self.loc) * inverse)
            lower = torch.sigmoid((self._edge(value) - self.loc) * inverse)
            return (upper - lower).log().sum(-1)

    with pytest.raises(AssertionError, match="log p"):
        check_finite(lambda a, b: Naive(a, bounded_log_scale(b), 256), torch.tensor([128.0]), torch.float32)


def test_an_unguarded_where_is_caught():
    """N8: the branch not taken still sends a NaN back."""

    class Unguarded(Poisson):
        def log_prob(self, value: Tensor) -> Tensor:
            rate = self.log_rate.exp()
            bd0 = torch.where(value > 0, value * (value / rate).log(), torch.zeros(()))
            return -(bd0 + rate - torch.where(rate < 1e3, (rate - 1e3).log(), rate)).sum(-1)

    with pytest.raises(AssertionError):
        check_finite(lambda a, b: Unguarded(bounded_log_scale(a, -15, 15)), torch.tensor([0.0]), torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(-7.0, 5.0), (-15.0, 15.0), (-3.0, 0.5)])
def test_bounds_of_log_scales(dtype: torch.dtype, low: float, high: float):
    raw = RAW.to(dtype).requires_grad_()
    bounded = bounded_log_scale(raw, low, high)
    assert bounded.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert ((bounded >= low - 1e-5) & (bounded <= high + 1e-5)).all()
    assert (bounded.diff() >= 0).all()
    (grad,) = torch.autograd.grad(bounded.sum(), raw)
    assert grad.isfinite().all()
    assert abs(bounded[4].item()) < 2e-6
    assert abs(grad[4].item() - 1) < 1e-5


def test_bounded_log_scale_is_smooth():
    raw = torch.linspace(-40, 40, 33, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bounded_log_scale, raw)
    assert torch.autograd.gradgradcheck(bounded_log_scale, raw)


def test_unbounded_is_the_inverse():
    log_scale = torch.linspace(-6.9, 4.9, 50, dtype=torch.float64)
    torch.testing.assert_close(bounded_log_scale(unbounded_log_scale(log_scale)), log_scale, rtol=1e-12, atol=1e-12)


def test_bounds_that_exclude_zero_are_refused():
    with pytest.raises(ConfigError, match="low < 0 < high"):
        bounded_log_scale(torch.zeros(1), 1.0, 5.0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_far_tails_of_the_logistic_against_50_digits(bits: int):
    """N5: the density form is 2 nats wrong at log s = -7, far from the location."""
    levels = 2**bits
    level = torch.tensor([0, 1, levels // 2, levels - 2, levels - 1]).clamp(0, levels - 1).double()
    loc = torch.tensor([-1e3, -2.0, -1.0, 0.013, 1.0, 2.0, 1e3]).double().reshape(-1, 1)
    for log_scale in (-7.0, -3.0, 0.0, 5.0):
        d = DiscretisedLogistic(loc.expand(7, 5), torch.tensor(log_scale).double(), levels)
        check_log_prob(d, logistic_oracle, level, 1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case.name == "discretised logistic"], ids=str)
def test_the_density_form_is_caught_in_the_tail(case: Case):
    class Density(DiscretisedLogistic):
        def log_prob(self, value: Tensor) -> Tensor:
            x = (2 * value / (self.levels - 1) - 1 - self.loc) * torch.exp(-self.log_scale)
            softplus = torch.nn.functional.softplus(-x)
            return (-x - 2 * softplus - self.log_scale + torch.tensor(2 / (self.levels - 1)).log()).sum(-1)

    d = Density(torch.zeros(1, 1).double(), torch.tensor(-7.0).double(), 256)
    with pytest.raises(AssertionError, match="off by"):
        check_log_prob(d, logistic_oracle, torch.tensor([200.0]).double(), 1e-3)


def test_large_counts_keep_their_digits_in_float32():
    """In float32 arithmetic log Gamma of 10^6 is off by whole nats."""
    log_rate = torch.tensor([[13.8]])
    x = torch.tensor([1_000_000.0])
    exact = Poisson(log_rate.double()).log_prob(x.double())
    torch.testing.assert_close(Poisson(log_rate).log_prob(x).double(), exact, rtol=1e-6, atol=0)
    single = (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).sum(-1).double()
    assert (single - exact).abs() > 0.1


def test_negative_binomial_tends_to_poisson():
    log_mean, x = numbers(0, 5, 3), torch.arange(3.0).double()
    nearly = NegativeBinomial(log_mean, torch.tensor(15.0).double()).log_prob(x)
    torch.testing.assert_close(nearly, Poisson(log_mean).log_prob(x), rtol=0, atol=1e-5)


SHAPES = [(), (1,), (3,), (2, 3), (2, 1), (1, 3), (4, 2, 3), (4, 1, 1), (1, 2, 3), (0, 3), (5,)]


@pytest.mark.parametrize("first", SHAPES)
@pytest.mark.parametrize("second", SHAPES)
def test_the_joint_shape_is_torchs(first, second):
    pair = torch.zeros(first), torch.zeros(second)
    try:
        expected = torch.broadcast_shapes(first, second)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="hape"):
            joint_shape(*pair)
    else:
        assert joint_shape(*pair) == expected
