"""C12: draws against densities, by chi-square over 50 equal-mass bins or the discrete cells."""

import numpy as np
import pytest
import scipy.stats as st
import torch
from torch import Tensor

from lambent.distributions import (
    AutoregressiveBernoulli,
    CholeskyNormal,
    DiscretisedLogistic,
    Distribution,
    LowRankNormal,
    NegativeBinomial,
    Normal,
    NormalMixture,
    Poisson,
    Product,
    StandardNormal,
)
from support.distribution_cases import CASES, Case, grid
from support.distribution_checks import check_discrete_sampler, check_uniform
from support.random_numbers import generator, numbers

DRAWS = 20_000
DISCRETE = [case for case in CASES if case.cells is not None]
NORMALS = [
    case for case in CASES if isinstance(case.distribution, Normal | StandardNormal | CholeskyNormal | LowRankNormal)
]
MIXTURES = [case for case in CASES if isinstance(case.distribution, NormalMixture)]
DIRECTIONS = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])


@pytest.mark.parametrize("case", DISCRETE, ids=str)
def test_discrete(case: Case):
    check_discrete_sampler(case.distribution, case.cells)


def _covariance(d: Distribution) -> np.ndarray:
    flat = d.variance.reshape(*d.batch_shape, -1)
    return getattr(d, "covariance_matrix", torch.diag_embed(flat)).numpy()


def check_normal_sampler(d: Distribution) -> None:
    """Projections on several directions follow the Normal of the covariance's own projection."""
    sample = d.sample((DRAWS,), generator(2)).reshape(DRAWS, *d.batch_shape, -1).numpy()
    mean = d.mean.reshape(*d.batch_shape, -1).numpy()
    for direction in DIRECTIONS:
        deviation = np.sqrt(direction @ _covariance(d) @ direction)
        u = st.norm(mean @ direction, deviation).cdf(sample @ direction)
        for index in np.ndindex(*d.batch_shape):
            check_uniform(u[(slice(None), *index)])


@pytest.mark.parametrize("case", NORMALS, ids=str)
def test_normals(case: Case):
    check_normal_sampler(case.distribution)


def test_covariances_are_what_the_density_says():
    """The covariance that the sampler is held to is the one scipy's density is given in the oracle; here its trace."""
    for case in NORMALS:
        d = case.distribution
        diagonal = np.diagonal(_covariance(d), axis1=-2, axis2=-1)
        np.testing.assert_allclose(diagonal, d.variance.reshape(diagonal.shape).numpy(), rtol=1e-14)


@pytest.mark.parametrize("case", MIXTURES, ids=str)
def test_mixtures(case: Case):
    d = case.distribution
    sample = d.sample((DRAWS,), generator(3)).unsqueeze(-2).numpy()
    each = st.norm(d.loc.numpy(), d.log_scale.exp().numpy()).cdf(sample)
    weights = d.logits.softmax(-1).unsqueeze(-1).numpy()
    u = (weights * each).sum(-2)
    for index in np.ndindex(*d.batch_shape, 2):
        check_uniform(u[(slice(None), *index)])


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 5.0])
def test_discretised_logistic(levels: int, log_scale: float):
    loc = torch.tensor([[-2.0], [0.013], [1.0]]).double()
    check_discrete_sampler(DiscretisedLogistic(loc, torch.tensor(log_scale).double(), levels), grid(levels))


@pytest.mark.parametrize("log_dispersion", [-3.0, 0.0, 4.0, 15.0])
def test_negative_binomial(log_dispersion: float):
    log_mean = torch.tensor([[-2.0], [1.0], [3.0]]).double()
    d = NegativeBinomial(log_mean, torch.tensor(log_dispersion).double())
    check_discrete_sampler(d, grid(20_000 if log_dispersion < 0 else 1_000))


def test_parts_of_a_table_are_drawn_alike():
    table = next(case.distribution for case in CASES if isinstance(case.distribution, Product))
    normal, poisson, levels = table.parts
    sample = table.sample((DRAWS,), generator(4))
    for part, block, cells in ((poisson, table.slices[1], grid(60)), (levels, table.slices[2], grid(3))):
        replay = _Replay(part, sample[..., block])
        check_discrete_sampler(replay, cells, DRAWS)
    u = st.norm(normal.loc.numpy(), normal.scale.numpy()).cdf(sample[..., table.slices[0]].numpy())
    check_uniform(u[:, 0, 0])
    check_uniform(u[:, 1, 1])
    correlation = torch.corrcoef(sample[:, 0].T) - torch.eye(4)
    assert correlation.abs().max() < 5 / DRAWS**0.5


class _Replay(Distribution):
    """The density of one distribution with draws from elsewhere."""

    def __init__(self, density: Distribution, draws: Tensor) -> None:
        self.density, self.draws = density, draws
        super().__init__(density.batch_shape, density.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.density.log_prob(value)

    def sample(self, sample_shape=(), generator=None) -> Tensor:
        return self.draws


def test_variance_for_deviation_is_caught():
    class Wide(Normal):
        def _sample(self, shape, generator):
            return Normal(self.loc, 2 * self.log_scale)._sample(shape, generator)

    with pytest.raises(AssertionError, match="p ="):
        check_normal_sampler(Wide(numbers(0, 2, 2), torch.tensor(0.05).double()))


def test_a_transposed_factor_is_caught():
    class Transposed(CholeskyNormal):
        def _sample(self, shape, generator):
            noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype)
            return self.loc + (noise.unsqueeze(-2) @ self.tril).squeeze(-2)

    tril = torch.tensor([[1.0, 0.0], [0.3, 1.0]]).double().expand(2, 2, 2)
    with pytest.raises(AssertionError, match="p ="):
        check_normal_sampler(Transposed(torch.zeros(2, 2).double(), tril))


def test_a_rate_instead_of_a_scale_is_caught():
    class Rate(NegativeBinomial):
        def _sample(self, shape, generator):
            gamma = torch._standard_gamma(self.log_dispersion.exp().expand(shape).contiguous(), generator=generator)
            return torch.poisson(gamma * torch.exp(self.log_dispersion - self.log_mean), generator=generator)

    with pytest.raises(AssertionError):
        check_discrete_sampler(Rate(torch.ones(1, 1).double(), torch.tensor(1.2).double()), grid(2_000))


def test_levels_rounded_down_are_caught():
    class Floored(DiscretisedLogistic):
        def _nearest(self, position: Tensor) -> Tensor:
            return super()._nearest(position - 1 / (self.levels - 1))

    with pytest.raises(AssertionError):
        check_discrete_sampler(Floored(torch.zeros(1, 1).double(), torch.tensor(-1.0).double(), 8), grid(8))


def test_a_poisson_of_the_wrong_mean_is_caught():
    class Louder(Poisson):
        def _sample(self, shape, generator):
            return torch.poisson(1.05 * self.mean.expand(shape), generator=generator)

    with pytest.raises(AssertionError):
        check_discrete_sampler(Louder(torch.ones(1, 1).double()), grid(100))


def test_coins_that_look_at_the_coins_after_them_are_caught():
    class Backwards(AutoregressiveBernoulli):
        def _sample(self, shape, generator):
            flipped = AutoregressiveBernoulli(self.logits.flip(-1), self.weight.flip(0, 1))
            return flipped._sample(shape, generator).flip(-1)

    with pytest.raises(AssertionError):
        check_discrete_sampler(Backwards(numbers(0, 1, 3), 2 * numbers(1, 3, 3)), grid(2, 2, 2))
