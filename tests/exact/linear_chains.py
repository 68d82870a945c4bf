"""Chains of linear Normals, by Gaussian algebra written without lambent.

z_N ~ N(0, I), z_i = A_i z_{i+1} + a_i + s_i e for i < N, and z_0 = x. Whatever q is, as long as each of its levels is a
linear Normal too, the joint of all levels given x is one Normal: its mean and a factor of its covariance come from a
recursion over the levels, and every expected log density is a quadratic in them. All of it is differentiable.
"""

import dataclasses
import itertools
import math

import torch

from support.random_numbers import numbers

LOG_TWO_PI = math.log(2 * math.pi)
CYCLE = (2, 3, 1)
"""Dimensions of the levels from x upwards, over and over."""


def log_normal(x, mean, covariance):
    """log N(x; mean, covariance), (B,), by the inverse and the determinant."""
    d = x - mean
    quadratic = torch.einsum("bi,ij,bj->b", d, torch.linalg.inv(covariance), d)
    return -0.5 * (quadratic + torch.linalg.slogdet(covariance)[1] + d.shape[1] * LOG_TWO_PI)


@dataclasses.dataclass(frozen=True)
class Chain:
    """p of N levels: entry i of each list makes z_i of z_{i+1}; ``top`` is the variance of z_N."""

    weights: list
    shifts: list
    scales: list
    top: float = 1.0

    @property
    def dims(self):
        """Of x, z_1, ..., z_N."""
        return [len(w) for w in self.weights] + [self.weights[-1].shape[1]]

    @property
    def levels(self):
        return len(self.weights)

    def marginals(self):
        """Mean and covariance of each of z_0 .. z_N by itself."""
        last = self.dims[-1]
        found = [(torch.zeros(last).double(), self.top * torch.eye(last).double())]
        for w, a, s in zip(self.weights[::-1], self.shifts[::-1], self.scales[::-1], strict=True):
            mean, covariance = found[0]
            found.insert(0, (w @ mean + a, w @ covariance @ w.T + torch.diag(s**2)))
        return found

    def log_p(self, x):
        """log p(x), (B,)."""
        return log_normal(x, *self.marginals()[0])

    def observations(self, n, seed=1, far=60.0):
        """``n`` examples of z_N = (far, ..., far): there even a prior variance of 1.01 makes a difference of nats."""
        z = torch.full((n, self.dims[-1]), far).double()
        for i in reversed(range(self.levels)):
            z = z @ self.weights[i].T + self.shifts[i] + self.scales[i] * numbers(seed + i, n, self.dims[i])
        return z

    def joint(self):
        """Mean and covariance of (z_0, z_1, ..., z_N) side by side: one matrix, from one factor of all noise."""
        total = sum(self.dims)
        starts = [sum(self.dims[:i]) for i in range(len(self.dims) + 1)]
        mean, factor = torch.zeros(self.dims[-1]).double(), torch.zeros(self.dims[-1], total).double()
        factor[:, starts[-2] :] = math.sqrt(self.top) * torch.eye(self.dims[-1])
        means, factors = [mean], [factor]
        for i in reversed(range(self.levels)):
            mean, factor = self.weights[i] @ mean + self.shifts[i], self.weights[i] @ factor
            factor[:, starts[i] : starts[i + 1]] += torch.diag(self.scales[i])
            means.insert(0, mean)
            factors.insert(0, factor)
        mean, factor = torch.cat(means), torch.cat(factors)
        return mean, factor @ factor.T

    def posterior(self, x):
        """Mean (B, D) and covariance (D, D) of (z_1, ..., z_N) given x, by conditioning the joint."""
        mean, covariance = self.joint()
        d = self.dims[0]
        gain = torch.linalg.solve(covariance[:d, :d], covariance[:d, d:]).T
        return mean[d:] + (x - mean[:d]) @ gain.T, covariance[d:, d:] - gain @ covariance[:d, d:]


def chain_of(levels, seed=0):
    """A chain that hands one direction of each level on at full length, so that x says something of the highest one."""
    dims = [CYCLE[i % 3] for i in range(levels + 1)]
    units = [torch.nn.functional.normalize(numbers(seed + 100 * i, d), dim=0) for i, d in enumerate(dims)]
    weights, shifts, scales = [], [], []
    for i, (u, v) in enumerate(itertools.pairwise(units)):
        rest = numbers(seed + 100 * i + 1, dims[i], dims[i + 1])
        rest = 0.4 * (rest - torch.outer(u, u) @ rest) @ (torch.eye(len(v)) - torch.outer(v, v))
        weights.append(torch.outer(u, v) + rest)
        shifts.append(0.3 * numbers(seed + 100 * i + 2, dims[i]))
        scales.append(0.1 + 0.05 * torch.rand(dims[i], generator=torch.Generator().manual_seed(i)).double())
    return Chain(weights, shifts, scales)


@dataclasses.dataclass(frozen=True)
class Inference:
    """q: level i is N(parent W^T + x V^T + b, L L^T), its parent the level below (upwards) or above (downwards).

    Entry i of each list is of z_{i+1}; the first level to be drawn has no parent (W is None), upwards it looks at x
    by V.
    """

    weights: list
    seen: list
    shifts: list
    factors: list
    upwards: bool = True

    @property
    def order(self):
        n = len(self.shifts)
        return range(n) if self.upwards else range(n - 1, -1, -1)

    def moments(self, x):
        """Means (B, d) and factors (d, all noise) of z_1 .. z_N given x."""
        dims = [len(b) for b in self.shifts]
        means, factors, previous = {}, {}, None
        for i in self.order:
            mean, start = self.shifts[i].expand(len(x), -1), sum(dims[:i])
            if self.seen[i] is not None:
                mean = mean + x @ self.seen[i].T
            own = torch.zeros(dims[i], sum(dims)).double()
            own[:, start : start + dims[i]] = 1.0
            factor = own * torch.nn.functional.pad(self.factors[i], (start, sum(dims) - start - dims[i]))
            if previous is not None:
                mean = mean + means[previous] @ self.weights[i].T
                factor = factor + self.weights[i] @ factors[previous]
            means[i], factors[i], previous = mean, factor, i
        return [means[i] for i in range(len(dims))], [factors[i] for i in range(len(dims))]

    def entropy(self, i):
        """Of level i given its parent, whatever that is."""
        return self.factors[i].diagonal().abs().log().sum() + 0.5 * len(self.shifts[i]) * (LOG_TWO_PI + 1)


def expected_log_p(chain, q, x):
    """E_q of log p(x|z_1), log p(z_1|z_2), ..., log p(z_N): N + 1 rows of (B,)."""
    means, factors = q.moments(x)
    means, factors = [x, *means], [torch.zeros(x.shape[1], factors[0].shape[1]).double(), *factors]
    rows = []
    for i in range(chain.levels):
        away = means[i] - means[i + 1] @ chain.weights[i].T - chain.shifts[i]
        spread = (factors[i] - chain.weights[i] @ factors[i + 1]).square().sum(1)
        rows.append(
            -0.5 * ((away**2 + spread) / chain.scales[i] ** 2 + LOG_TWO_PI).sum(1) - chain.scales[i].log().sum()
        )
    squares = means[-1] ** 2 + factors[-1].square().sum(1)
    rows.append(-0.5 * (squares / chain.top + LOG_TWO_PI + math.log(chain.top)).sum(1))
    return torch.stack(rows)


def rates(chain, q, x):
    """E_q of log q(z_i|parent) - log p(z_i|z_{i+1}), lowest level first, (N, B)."""
    negative = [-q.entropy(i) for i in range(chain.levels)]
    return torch.stack(negative).unsqueeze(1) - expected_log_p(chain, q, x)[1:]


def elbo(chain, q, x):
    """The bound, (B,)."""
    return expected_log_p(chain, q, x)[0] - rates(chain, q, x).sum(0)


def chi_square(chain, q, x):
    """Var(w)/p(x)^2, (B,), w = p(x, z)/q(z|x): of two Normals of z, finite where 2P - Q is a precision."""
    mean_p, covariance = chain.posterior(x)
    means, factors = q.moments(x)
    mean_q, factor = torch.cat(means, 1), torch.cat(factors)
    P, Q = torch.linalg.inv(covariance), torch.linalg.inv(factor @ factor.T)
    R = 2 * P - Q
    torch.linalg.cholesky(R)
    logdet = torch.linalg.slogdet(P)[1] - 0.5 * torch.linalg.slogdet(Q)[1] - 0.5 * torch.linalg.slogdet(R)[1]
    h = 2 * mean_p @ P - mean_q @ Q
    quadratic = (h @ torch.linalg.inv(R) * h).sum(1) - 2 * (mean_p @ P * mean_p).sum(1) + (mean_q @ Q * mean_q).sum(1)
    return torch.expm1(logdet + 0.5 * quadratic)


def exact_upwards(chain):
    """q(z_1|x) q(z_2|z_1) ...: Bayes' rule of each level with its own marginal, which is exact for a chain."""
    marginals = chain.marginals()
    weights, shifts, factors = [], [], []
    for i in range(chain.levels):
        (below, spread), (mean, covariance) = marginals[i], marginals[i + 1]
        gain = covariance @ chain.weights[i].T @ torch.linalg.inv(spread)
        weights.append(gain)
        shifts.append(mean - gain @ below)
        factors.append(torch.linalg.cholesky(covariance - gain @ chain.weights[i] @ covariance))
    return Inference([None, *weights[1:]], [weights[0], *[None] * (chain.levels - 1)], shifts, factors)


def exact_downwards(chain):
    """q(z_N|x) q(z_{N-1}|z_N, x) ...: each level given x and the level above, cut out of the joint."""
    mean, covariance = chain.joint()
    dims, d = chain.dims, chain.dims[0]
    starts = [sum(dims[:i]) for i in range(len(dims) + 1)]
    weights, seen, shifts, factors = [], [], [], []
    for i in range(1, len(dims)):
        own = torch.arange(starts[i], starts[i + 1])
        above = torch.arange(starts[i + 1], starts[i + 2]) if i + 1 < len(dims) else torch.arange(0)
        given = torch.cat([torch.arange(d), above])
        gain = torch.linalg.solve(covariance[given][:, given], covariance[given][:, own]).T
        left = covariance[own][:, own] - gain @ covariance[given][:, own]
        seen.append(gain[:, :d])
        weights.append(gain[:, d:] if len(above) else None)
        shifts.append(mean[own] - gain @ mean[given])
        factors.append(torch.linalg.cholesky(left))
    return Inference(weights, seen, shifts, factors, upwards=False)


def disturbed(q, size=0.2, seed=7):
    """A wrong q nearby: maps, shifts and factors moved, the more per level the fewer there are."""
    size = size / math.sqrt(len(q.shifts))

    def moved(tensors, offset, by):
        return [
            None if t is None else t + by * numbers(seed + 10 * i + offset, *t.shape) for i, t in enumerate(tensors)
        ]

    scales = [f.diagonal() for f in q.factors]
    weights = moved(q.weights, 0, 0.003 * size)
    seen = [
        None if v is None else v + 0.001 * size * numbers(seed + 10 * i + 1, *v.shape) for i, v in enumerate(q.seen)
    ]
    shifts = [
        b + size * s * numbers(seed + 10 * i + 2, len(b)) for i, (b, s) in enumerate(zip(q.shifts, scales, strict=True))
    ]
    factors = [
        f
        @ (torch.eye(len(f)) * (1 + size * (0.5 + i % 2)) + 0.5 * size * numbers(seed + 10 * i + 3, *f.shape).tril(-1))
        for i, f in enumerate(q.factors)
    ]
    return Inference(weights, seen, shifts, factors, q.upwards)


def mean_field(chain, x):
    """The best q of independent dimensions for one x, and by how much its ELBO is below log p(x).

    Its means are the posterior's, its precisions the diagonal of the posterior's; the gap is half the log of the ratio
    of the determinants.
    """
    mean, covariance = chain.posterior(x)
    precision = torch.linalg.inv(covariance)
    dims = chain.dims[1:]
    means, variances = mean[0].split(dims), (1 / precision.diagonal()).split(dims)
    below = [chain.dims[0], *dims[:-1]]
    maps = [torch.zeros(d, b).double() for d, b in zip(dims, below, strict=True)]
    factors = [torch.diag(v.sqrt()) for v in variances]
    q = Inference([None, *maps[1:]], [maps[0], *[None] * (len(dims) - 1)], list(means), factors)
    return q, 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision)[1])
