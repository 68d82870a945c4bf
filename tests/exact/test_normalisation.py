"""C8 and C10: masses sum to 1, densities integrate to 1, over the whole range of parameters."""

import math

import pytest
import torch
from torch import Tensor

from lambent.distributions import (
    AutoregressiveBernoulli,
    Bernoulli,
    Categorical,
    CholeskyNormal,
    DiscretisedLogistic,
    LowRankNormal,
    NegativeBinomial,
    Normal,
    NormalMixture,
    OneHotCategorical,
    Poisson,
    StandardNormal,
)
from support.distribution_cases import CASES, Case, grid
from support.distribution_checks import check_integrates_to_one, check_sums_to_one
from support.random_numbers import numbers

LOG_SCALES = torch.tensor([-7.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 3.0, 5.0]).double().reshape(-1, 1, 1)
MEANS = torch.tensor([-2.0, -1.0, -0.3, 0.0, 0.017, 0.999, 2.0]).double().reshape(-1, 1)
FAR_MEANS = torch.cat([MEANS, torch.tensor([[-1e3], [1e3]]).double()])
PRECISIONS = [(torch.float64, 1e-12), (torch.float32, 1e-5)]
DISCRETE = [case for case in CASES if case.cells is not None]


@pytest.mark.parametrize("case", DISCRETE, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_every_discrete_family_sums_to_one(case: Case, dtype: torch.dtype, tolerance: float):
    check_sums_to_one(case.distribution.map_parameters(lambda t: t.to(dtype)), case.cells, tolerance)


@pytest.mark.parametrize("levels", [2, 3, 4, 8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_discretised_logistic(levels: int, dtype: torch.dtype, tolerance: float):
    distribution = DiscretisedLogistic(FAR_MEANS.to(dtype), LOG_SCALES.to(dtype), levels)
    check_sums_to_one(distribution, grid(levels), tolerance)


def test_a_dropped_edge_bin_is_caught():
    class Dropped(DiscretisedLogistic):
        def log_masses(self, level: Tensor) -> Tensor:
            shifted = DiscretisedLogistic(self.loc, self.log_scale, self.levels + 2)
            return shifted.log_masses(level + 1)

    with pytest.raises(AssertionError, match="sums to"):
        check_sums_to_one(Dropped(MEANS, LOG_SCALES, 16), grid(16), 1e-5)


def test_the_density_form_of_the_far_tail_is_caught():
    """The usual reference form multiplies the density by the width where the mass is below 1e-5."""

    class Switched(DiscretisedLogistic):
        def log_masses(self, level: Tensor) -> Tensor:
            exact = super().log_masses(level)
            x = ((2 * level) / (self.levels - 1) - 1 - self.loc) / self.log_scale.exp()
            density = -x - 2 * torch.nn.functional.softplus(-x) - self.log_scale - math.log((self.levels - 1) / 2)
            inner = (level > 0) & (level < self.levels - 1)
            return torch.where((exact < math.log(1e-5)) & inner, density, exact)

    with pytest.raises(AssertionError, match="sums to"):
        check_sums_to_one(Switched(MEANS, LOG_SCALES, 256), grid(256), 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_categories_and_coins_with_extreme_logits(dtype: torch.dtype, tolerance: float):
    scales = torch.tensor([0.0, 1.0, 30.0, 1e4], dtype=dtype).reshape(-1, 1)
    logits = scales * numbers(0, 256).to(dtype)
    check_sums_to_one(Categorical(logits.unsqueeze(-2)), grid(256), tolerance)
    check_sums_to_one(OneHotCategorical(logits), torch.eye(256).double(), tolerance)
    coins = torch.tensor([-1e4, -20.0, -1.0, 0.0, 3.0, 20.0, 1e4], dtype=dtype).reshape(-1, 1)
    check_sums_to_one(Bernoulli(coins), grid(2), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_counts(dtype: torch.dtype, tolerance: float):
    log_rates = torch.linspace(-7, 5, 13, dtype=dtype).reshape(-1, 1)
    check_sums_to_one(Poisson(log_rates), grid(600), tolerance)
    means = MEANS.to(dtype)
    for log_dispersion in (-7.0, -3.0, 0.0, 2.0, 5.0):
        cells = grid(400_000 if log_dispersion == -7 else 8_000)
        check_sums_to_one(NegativeBinomial(means, torch.tensor(log_dispersion, dtype=dtype)), cells, tolerance)
    nearly_poisson = NegativeBinomial(means, torch.tensor(15.0, dtype=dtype))
    check_sums_to_one(nearly_poisson, grid(200), max(tolerance, 1e-8))  # log gamma of 3e6 has no more digits


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("levels")], ids=str)
def test_a_softmax_that_forgets_a_class_is_caught(case: Case):
    class Short(Categorical):
        def log_prob(self, value: Tensor) -> Tensor:
            lost = self.logits[..., :-1].logsumexp(-1) - self.logits.logsumexp(-1)
            return super().log_prob(value) - lost.sum(-1)

    with pytest.raises(AssertionError, match="sums to"):
        check_sums_to_one(Short(case.distribution.logits), case.cells, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-7)])
def test_uniform_over_256_levels_is_8_bits_per_dim(dtype: torch.dtype, tolerance: float):
    x = torch.arange(256).to(torch.uint8).reshape(64, 2, 2)
    uniform = Categorical(torch.zeros(2, 2, 256, dtype=dtype), 2)
    nats = -uniform.log_prob(x).double()
    torch.testing.assert_close(nats, torch.full_like(nats, 4 * math.log(256)), rtol=tolerance, atol=0)
    bits = nats / (4 * math.log(2))
    torch.testing.assert_close(bits, torch.full_like(bits, 8.0), rtol=tolerance, atol=0)


def line(centre: Tensor, scale: Tensor, nodes: int = 2001) -> Tensor:
    """Equally spaced nodes over 14 scales each side, (nodes, *shape)."""
    steps = torch.linspace(-14, 14, nodes, dtype=torch.float64)
    return centre + scale * steps.reshape(-1, *[1] * scale.dim())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_normal(dtype: torch.dtype, tolerance: float):
    normal = Normal(MEANS.to(dtype), LOG_SCALES.to(dtype))
    scale = LOG_SCALES.exp().expand(*normal.batch_shape, 1)
    width = 28 / 2000 * scale.squeeze(-1)
    nodes = line(normal.loc.double(), scale)
    check_integrates_to_one(lambda x: normal.log_prob(x.to(dtype)) + width.log(), nodes, 1.0, tolerance)


def test_standard_normal():
    nodes = line(torch.zeros(1).double(), torch.ones(1).double())
    check_integrates_to_one(StandardNormal((1,)).log_prob, nodes, 28 / 2000, 1e-12)


def plane(nodes: int, reach: float) -> tuple[Tensor, float]:
    """Nodes of a square around 0, (nodes^2, 2), and the area of a cell."""
    axis = torch.linspace(-reach, reach, nodes, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (2 * reach / (nodes - 1)) ** 2


@pytest.mark.parametrize(
    "case", [case for case in CASES if "cholesky" in case.name or "low-rank" in case.name], ids=str
)
def test_correlated_normals(case: Case):
    distribution = case.distribution
    nodes, cell = plane(901, 45.0)
    check_integrates_to_one(distribution.log_prob, nodes.unsqueeze(1), cell, 1e-8)


@pytest.mark.parametrize("log_scale", [-7.0, -2.0, 5.0])
def test_correlated_normals_of_any_scale(log_scale: float):
    """In units of the scale, where the integral is the same number."""
    scale = math.exp(log_scale)
    tril = scale * torch.tensor([[1.0, 0.0], [-0.7, 0.5]]).double()
    factor = scale * torch.tensor([[1.0], [-0.7]]).double()
    nodes, cell = plane(401, 12.0)
    for distribution in (
        CholeskyNormal(torch.zeros(2).double(), tril),
        LowRankNormal(torch.zeros(2).double(), factor, torch.full((2,), log_scale).double()),
    ):
        check_integrates_to_one(distribution.log_prob, scale * nodes, scale**2 * cell, 1e-8)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 5.0])
def test_mixture(log_scale: float):
    """A component at a time holds the nodes; the integral of a mixture is linear in its components' shares."""
    loc = torch.tensor([[-2.0], [0.0], [2.0]]).double()
    scales = torch.full((3, 1), log_scale).double()
    mixture = NormalMixture(numbers(0, 3), loc, scales)
    reach = 2 + 14 * math.exp(log_scale)
    count = 1 + int(2 * reach / (0.1 * math.exp(log_scale)))
    nodes = torch.linspace(-reach, reach, count, dtype=torch.float64).unsqueeze(-1)
    check_integrates_to_one(mixture.log_prob, nodes, 2 * reach / (count - 1), 1e-10)


def test_a_missing_half_log_two_pi_is_caught():
    class Short(Normal):
        def log_prob(self, value: Tensor) -> Tensor:
            return super().log_prob(value) + 0.5 * math.log(2 * math.pi)

    zero = torch.zeros(1).double()
    with pytest.raises(AssertionError, match="integrates"):
        check_integrates_to_one(Short(zero, zero).log_prob, line(zero, zero.exp()), 28 / 2000, 1e-5)


def test_unnormalised_mixture_weights_are_caught():
    class Unnormalised(NormalMixture):
        @property
        def log_weights(self) -> Tensor:
            return self.logits

    mixture = Unnormalised(0.1 * numbers(0, 1), torch.zeros(1, 1).double(), torch.zeros(1, 1).double())
    with pytest.raises(AssertionError, match="integrates"):
        check_integrates_to_one(
            mixture.log_prob, line(torch.zeros(1).double(), torch.ones(1).double()), 28 / 2000, 1e-5
        )


@pytest.mark.parametrize("coins", [1, 4, 10])
def test_coins_in_order(coins: int):
    """All 2^D masses, with weights strong enough to make most states nearly impossible."""
    distribution = AutoregressiveBernoulli(2 * numbers(0, 2, coins), 5 * numbers(1, coins, coins))
    check_sums_to_one(distribution, distribution.enumerate_support()[:, 0], 1e-12)


def test_a_coin_that_looks_at_itself_is_caught():
    class Seeing(AutoregressiveBernoulli):
        @property
        def below(self) -> Tensor:
            return self.weight.tril(0)

    distribution = Seeing(numbers(0, 2, 3), numbers(1, 3, 3))
    with pytest.raises(AssertionError, match="sums to"):
        check_sums_to_one(distribution, grid(2, 2, 2), 1e-5)
