"""The one table of small distributions: every property test runs over it, so a new family adds one row here.

Each row has an oracle that shares no code with the library: scipy's densities, or mpmath with 50 digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
import scipy.special as sp
import scipy.stats as st
import torch
from torch import Tensor

from lambent.distributions import (
    AR1,
    AutoregressiveBernoulli,
    Bernoulli,
    Categorical,
    CholeskyNormal,
    Delta,
    DiscretisedLogistic,
    Distribution,
    Flat,
    Flow,
    LogisticMixture,
    LowRankNormal,
    NegativeBinomial,
    Normal,
    NormalMixture,
    OneHotCategorical,
    Poisson,
    Product,
    SphereUniform,
    StandardNormal,
    VonMisesFisher,
)
from lambent.networks.flows import AutoregressiveTransforms
from support.random_numbers import numbers

Oracle = Callable[[Distribution, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A small instance in float64.

    ``cells`` are all values of a discrete family that have mass (None for a continuous one); ``edges`` are values at
    the rim of the support, (N, *event). ``smooth`` says whether a draw is a smooth function of the parameters once the
    noise is fixed (draws by rejection aren't).
    """

    name: str
    distribution: Distribution
    oracle: Oracle
    edges: Tensor
    cells: Tensor | None = None
    has_mode: bool = True
    has_moments: bool = True
    smooth: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def parameters(self) -> list[Tensor]:
        """The defining tensors, as the family itself lists them."""
        found: list[Tensor] = []
        self.distribution.map_parameters(lambda t: (found.append(t), t)[1])
        return found

    def rebuilt(self, parameters: list[Tensor]) -> Distribution:
        """The family at other parameters."""
        rest = iter(parameters)
        return self.distribution.map_parameters(lambda _: next(rest))


def grid(*counts: int) -> Tensor:
    """All integer vectors below ``counts``, (prod, len), float64."""
    axes = torch.meshgrid(*[torch.arange(float(n), dtype=torch.float64) for n in counts], indexing="ij")
    return torch.stack(axes, -1).reshape(-1, len(counts))


def _np(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _event(terms: np.ndarray, dims: int) -> np.ndarray:
    return terms.sum(tuple(range(-dims, 0))) if dims else terms


def normal_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return _event(st.norm(_np(d.loc), np.exp(_np(d.log_scale))).logpdf(x), len(d.event_shape))


def standard_normal_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return _event(st.norm.logpdf(x), len(d.event_shape))


def joint_normal_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Any covariance, by scipy, one batch element after another."""
    loc = np.broadcast_to(_np(d.loc), d.batch_shape + d.event_shape)
    out = np.empty(x.shape[:-1])
    for index in np.ndindex(*d.batch_shape):
        covariance = _np(d.covariance_matrix)[index]
        where = (..., *index)
        out[where] = st.multivariate_normal(loc[index], covariance).logpdf(x[(*where, slice(None))])
    return out


def mixture_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    each = st.norm(_np(d.loc), np.exp(_np(d.log_scale))).logpdf(x[..., None, :]).sum(-1)
    return sp.logsumexp(sp.log_softmax(_np(d.logits), -1) + each, -1)


def path_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """The dense Normal of covariance a^|s - t|."""
    alpha, lag = _np(d.alpha), np.abs(np.subtract.outer(np.arange(d.steps), np.arange(d.steps)))
    path = x.reshape(*x.shape[:-1], d.steps, len(alpha))
    return sum(st.multivariate_normal(None, a**lag).logpdf(path[..., i]) for i, a in enumerate(alpha))


def sphere_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return np.full(x.shape[:-1], sp.gammaln(x.shape[-1] / 2) - math.log(2) - x.shape[-1] / 2 * math.log(math.pi))


def direction_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    loc, kappa, order = _np(d.loc), _np(d.concentration), x.shape[-1] / 2 - 1
    loc, x = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (loc, x))
    log_z = (order + 1) * math.log(2 * math.pi) + np.log(sp.ive(order, kappa)) + kappa - order * np.log(kappa)
    return kappa * (loc * x).sum(-1) - log_z


def flow_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Masked affine maps, layer by layer."""
    weights = {name.removeprefix("transform.transforms."): _np(t) for name, t in d.parameters.items()}
    log_det = np.zeros(x.shape[:-1])
    for i in range(2):
        hidden = np.maximum(x @ (weights[f"{i}.hyper.0.weight"] * _mask(d, i, 0)).T + weights[f"{i}.hyper.0.bias"], 0)
        out = hidden @ (weights[f"{i}.hyper.2.weight"] * _mask(d, i, 2)).T + weights[f"{i}.hyper.2.bias"]
        shift, raw = out[..., 0::2], out[..., 1::2]
        log_scale = raw / (1 + np.abs(raw / math.log(1e-3)))
        x, log_det = x * np.exp(log_scale) + shift, log_det + log_scale.sum(-1)
    return st.norm.logpdf(x).sum(-1) + log_det


def _mask(d: Distribution, transform: int, layer: int) -> np.ndarray:
    return _np(d.net.transform.transforms[transform].hyper[layer].mask)


def one_hot_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    log_p = np.broadcast_to(sp.log_softmax(_np(d.logits), -1), x.shape)
    return np.take_along_axis(log_p, x.argmax(-1)[..., None], -1)[..., 0]


def bernoulli_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return _event(sp.log_expit(np.where(x == 1, 1, -1) * _np(d.logits)), len(d.event_shape))


def grouped_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Variables of ``classes`` states side by side, one after another."""
    logits = np.broadcast_to(_np(d.logits), x.shape)
    blocks = [np.s_[..., i : i + d.classes] for i in range(0, x.shape[-1], d.classes)]
    return sum((x[b] * sp.log_softmax(logits[b], -1)).sum(-1) for b in blocks)


def ordered_coins_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """The chain rule, coin by coin."""
    logits, weight = _np(d.logits), _np(d.weight)
    terms = [logits[..., i] + x[..., :i] @ weight[i, :i] for i in range(x.shape[-1])]
    return sum(sp.log_expit(np.where(x[..., i] == 1, 1, -1) * term) for i, term in enumerate(terms))


def levels_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    log_p = np.broadcast_to(sp.log_softmax(_np(d.logits), -1), (*x.shape, d.logits.shape[-1]))
    return _event(np.take_along_axis(log_p, x.astype(int)[..., None], -1)[..., 0], len(d.event_shape))


def logistic_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Differences of the logistic CDF with 50 digits, the first and last bin open."""
    shape = np.broadcast_shapes(x.shape, d.loc.shape)
    loc, log_scale = (np.broadcast_to(_np(t), shape) for t in (d.loc, d.log_scale))
    flat = zip(np.broadcast_to(x, shape).flat, loc.flat, log_scale.flat, strict=True)
    terms = np.array([_logistic_mass(*number, d.levels) for number in flat]).reshape(shape)
    return _event(terms, len(d.event_shape))


def logistic_mixture_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    """Masses of each component with 50 digits, weighted by their shares."""
    shares = sp.softmax(_np(d.logits), -2)
    values, total = np.broadcast_to(x, (*x.shape[:-2], *shares.shape[:-2], x.shape[-1])), 0.0
    for c in range(d.components):
        loc, log_scale = (np.broadcast_to(_np(t), shares.shape)[..., c, :] for t in (d.parts.loc, d.parts.log_scale))
        full = [np.broadcast_to(part, values.shape).flat for part in (values, loc, log_scale)]
        masses = np.exp([_logistic_mass(*number, d.levels) for number in zip(*full, strict=True)])
        total = total + shares[..., c, :] * masses.reshape(values.shape)
    return _event(np.log(total), 1)


def _logistic_mass(level: float, loc: float, log_scale: float, levels: int) -> float:
    with mpmath.workdps(50):
        scale, last = mpmath.exp(mpmath.mpf(float(log_scale))), levels - 1
        edges = [mpmath.mpf(2 * int(level) - 1 + 2 * side) / last - 1 for side in (0, 1)]
        low, high = ((edge - mpmath.mpf(float(loc))) / scale for edge in edges)
        below = mpmath.mpf("-inf") if level == 0 else low
        above = mpmath.mpf("inf") if level == last else high
        if below > 0:  # by the tail that is small, whose digits 50 are enough for
            below, above = -above, -below
        return float(mpmath.log(1 / (1 + mpmath.exp(-above)) - 1 / (1 + mpmath.exp(-below))))


def poisson_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return _event(st.poisson(np.exp(_np(d.log_rate))).logpmf(x), len(d.event_shape))


def negative_binomial_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    r, mean = np.exp(_np(d.log_dispersion)), np.exp(_np(d.log_mean))
    return _event(st.nbinom(r, r / (r + mean)).logpmf(x), len(d.event_shape))


def table_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    oracles = (normal_oracle, poisson_oracle, levels_oracle)
    blocks = zip(oracles, d.parts, d.slices, strict=True)
    return sum(oracle(part, x[..., block]) for oracle, part, block in blocks)


def zero_oracle(d: Distribution, x: np.ndarray) -> np.ndarray:
    return np.zeros(x.shape[: x.ndim - len(d.event_shape)])


def _tril(seed: int) -> Tensor:
    below = 0.6 * numbers(seed, 2, 2, 2).tril(-1)
    return below + torch.diag_embed((0.4 * numbers(seed + 1, 2, 2)).exp())


FAR = torch.tensor([[0.0, 0.0], [30.0, -30.0]], dtype=torch.float64)
_TWO_OF_THREE = torch.cat([torch.eye(3).repeat_interleave(3, 0), torch.eye(3).repeat(3, 1)], 1).double()
_TABLE = Product(
    (
        Normal(numbers(1, 2, 2), numbers(2, 2)),
        Poisson(numbers(3, 2, 1)),
        Categorical(numbers(4, 2, 1, 3)),
    ),
    (slice(0, 2), slice(3, 4), slice(2, 3)),
)


def _flow() -> Flow:
    net = AutoregressiveTransforms(2, 2, (3,)).double()
    seeds = iter(range(50, 100))
    return Flow(net, 2, {name: 0.7 * numbers(next(seeds), *p.shape) for name, p in net.named_parameters()})


CASES = [
    Case("normal", Normal(numbers(5, 2, 2), 0.5 * numbers(6, 2, 2)), normal_oracle, FAR),
    Case("normal, one scale", Normal(numbers(7, 2, 2), torch.tensor(-1.0).double()), normal_oracle, FAR),
    Case("normal, scale per dimension", Normal(numbers(8, 2, 2), numbers(9, 2)), normal_oracle, FAR),
    Case("normal, image", Normal(numbers(10, 2, 1, 2), numbers(11, 1, 2), 2), normal_oracle, FAR.unsqueeze(1)),
    Case("standard normal", StandardNormal((2,), (2,), dtype=torch.float64), standard_normal_oracle, FAR),
    Case("cholesky normal", CholeskyNormal(numbers(12, 2, 2), _tril(13)), joint_normal_oracle, FAR),
    Case(
        "low-rank normal",
        LowRankNormal(numbers(14, 2, 2), numbers(15, 2, 2, 1), 0.5 * numbers(16, 2, 2)),
        joint_normal_oracle,
        FAR,
    ),
    Case(
        "normal mixture",
        NormalMixture(numbers(17, 3), 2 * numbers(18, 3, 2), 0.4 * numbers(19, 3, 2)),
        mixture_oracle,
        FAR,
    ),
    Case(
        "normal mixture, batch",
        NormalMixture(numbers(20, 2, 3), numbers(21, 2, 3, 2), 0.4 * numbers(22, 3, 1)),
        mixture_oracle,
        FAR,
    ),
    Case("one-hot", OneHotCategorical(numbers(23, 2, 4)), one_hot_oracle, torch.eye(4).double(), torch.eye(4).double()),
    Case(
        "one-hot, two of three",
        OneHotCategorical(numbers(32, 2, 6), 3),
        grouped_oracle,
        _TWO_OF_THREE,
        _TWO_OF_THREE,
    ),
    Case(
        "ordered coins",
        AutoregressiveBernoulli(numbers(33, 2, 3), 2 * numbers(34, 3, 3)),
        ordered_coins_oracle,
        grid(2, 2, 2),
        grid(2, 2, 2),
        has_moments=False,
    ),
    Case("bernoulli", Bernoulli(4 * numbers(24, 2, 3)), bernoulli_oracle, grid(2, 2, 2), grid(2, 2, 2)),
    Case("levels", Categorical(numbers(25, 2, 2, 5)), levels_oracle, grid(5, 5), grid(5, 5)),
    Case(
        "discretised logistic",
        DiscretisedLogistic(0.8 * numbers(26, 2, 2), numbers(27, 2) - 1, 8),
        logistic_oracle,
        7 * grid(2, 2),
        grid(8, 8),
    ),
    Case(
        "logistic mixture",
        LogisticMixture(numbers(36, 2, 3, 2), 0.8 * numbers(37, 2, 3, 2), numbers(38, 3, 2) - 1, 8),
        logistic_mixture_oracle,
        7 * grid(2, 2),
        grid(8, 8),
    ),
    Case("poisson", Poisson(numbers(28, 2, 2)), poisson_oracle, 50 * grid(2, 2), grid(40, 40)),
    Case(
        "negative binomial",
        NegativeBinomial(numbers(29, 2, 2), numbers(30, 2) + 1),
        negative_binomial_oracle,
        50 * grid(2, 2),
        grid(400, 400),
    ),
    Case("table", _TABLE, table_oracle, torch.tensor([[0.0, 0.0, 2.0, 0.0]]).double()),
    Case("ar1", AR1(torch.tensor([0.9, -0.4]).double(), 3), path_oracle, 10 * numbers(35, 2, 6)),
    Case("sphere", SphereUniform(3, dtype=torch.float64), sphere_oracle, torch.eye(3).double(), has_mode=False),
    Case(
        "von mises-fisher",
        VonMisesFisher(numbers(36, 2, 3), torch.tensor([0.8, 12.0]).double()),
        direction_oracle,
        torch.cat([torch.eye(3), -torch.eye(3)]).double(),
        smooth=False,
    ),
    Case("flow", _flow(), flow_oracle, FAR, has_mode=False, has_moments=False),
    Case("delta", Delta(numbers(31, 2, 2)), zero_oracle, FAR),
    Case("flat", Flat((2,)), zero_oracle, FAR, has_mode=False),
]

DENSITIES = [case for case in CASES if case.distribution.normalised]
