"""The exact cases as models made of lambent's parts, in float64.

Every parameter has a value per example, so that one backward pass gives a gradient per example.
"""

import dataclasses
import math

import torch
from torch import nn

from exact.truths import CASES, MIXTURE, PPCA, X
from lambent.distributions import Normal
from lambent.draws import Draw
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.models import VAE, Mixture
from lambent.networks import LinearDecoder
from lambent.posteriors import FullCovariancePosterior
from lambent.priors import CategoricalPriorModule, NormalPriorModule
from lambent.shapes import Shapes
from lambent.trace import Latent


class TinyPosterior(nn.Module):
    """q(z|x) = N(mean, exp(log_scale)^2), whatever x."""

    def __init__(self, n, mean, log_scale):
        super().__init__()
        self.mean = nn.Parameter(torch.full((n, 1), mean, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.full((n, 1), log_scale, dtype=torch.float64))

    def forward(self, x, condition=None):
        return Normal(self.mean[: len(x)], self.log_scale[: len(x)])


class TinyLikelihood(nn.Module):
    """p(x|z) = N(z + shift, 1)."""

    def __init__(self, n):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(n, 1, dtype=torch.float64))

    def forward(self, z, condition=None):
        return Normal(z + self.shift[: z.shape[1]], torch.zeros((), dtype=torch.float64))


class TinyPrior(nn.Module):
    """p(z) = N(origin, 1)."""

    def __init__(self, n):
        super().__init__()
        self.origin = nn.Parameter(torch.zeros(n, 1, dtype=torch.float64))

    def forward(self, condition=None):
        return Normal(self.origin, torch.zeros((), dtype=torch.float64))


def tiny(case, n=1, prior=None):
    """The model of C1, C2 or C3 (or of a (mean, log_scale) pair), good for up to ``n`` examples at a time."""
    mean, log_scale = CASES[case] if isinstance(case, str) else case
    return VAE(prior or NormalPriorModule(1).double(), TinyPosterior(n, mean, log_scale), TinyLikelihood(n))


def ones(n):
    """``n`` times the observation x = 1."""
    return torch.full((n, 1), X, dtype=torch.float64)


def batch_of(x):
    """What `bounds` asks examples by."""
    return lambda start, stop: (x[start:stop], None)


class Fixed(nn.Module):
    """A posterior that is always the same distribution."""

    def __init__(self, distribution):
        super().__init__()
        self.q = distribution

    def forward(self, x, condition=None):
        return self.q


def ppca_likelihood():
    """The likelihood of C5: lambent's own linear decoder and Normal family."""
    shapes = Shapes((5,), 2)
    likelihood = LikelihoodModule(
        NormalLikelihood(sigma=math.sqrt(PPCA.variance)), LinearDecoder().build(2, (1, 5)), shapes
    ).double()
    with torch.no_grad():
        likelihood.decoder.output.weight.copy_(torch.tensor(PPCA.W))
        likelihood.decoder.output.bias.copy_(torch.tensor(PPCA.b))
    return likelihood


def ppca(posterior):
    """The model of C5 with the given q."""
    return VAE(NormalPriorModule(2).double(), Fixed(posterior), ppca_likelihood())


def ppca_x(n=1):
    """``n`` times the observation of C5."""
    return torch.tensor(PPCA.x).expand(n, 5)


def mean_field(n=1):
    """The best diagonal Normal for C5."""
    mean = torch.tensor(PPCA.posterior_mean()).expand(n, 2)
    return Normal(mean, -0.5 * torch.tensor(PPCA.precision()).diagonal().log().expand(n, 2))


def full_covariance(n=1):
    """The posterior of C5 by lambent's full-covariance family, from the head that gives it."""
    from lambent.distributions.numerics import unbounded_log_scale

    covariance = torch.linalg.inv(torch.tensor(PPCA.precision()))
    tril = torch.linalg.cholesky(covariance)
    scale = tril.diagonal()
    head = torch.cat(
        [torch.tensor(PPCA.posterior_mean()), unbounded_log_scale(scale.log()), (tril[1, 0] / scale[1])[None]]
    )
    return FullCovariancePosterior().distribution(head.expand(n, 5), 2)


class StateNormals(nn.Module):
    """p(x|z = c) = N(m_c, s_c^2): a likelihood of one-hot z."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(MIXTURE.means, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(MIXTURE.scales, dtype=torch.float64).log())

    def forward(self, z, condition=None):
        return Normal((z @ self.loc).unsqueeze(-1), (z @ self.log_scale).unsqueeze(-1))


def mixture():
    """The model of C6."""
    prior = CategoricalPriorModule(3).double()
    with torch.no_grad():
        prior.logits.copy_(
            torch.tensor(MIXTURE.weights, dtype=torch.float64).log() + 0.7
        )  # weights are what logits are up to a constant
    return Mixture(prior, StateNormals())


def mixture_x(n=1):
    """``n`` times the observation of C6."""
    return torch.full((n, 1), MIXTURE.x, dtype=torch.float64)


@dataclasses.dataclass(frozen=True)
class Nodes(Draw):
    """z = mean + scale * node for fixed nodes of equal weight: pathwise without chance.

    Nodes with the mean and covariance of N(0, I) make expectations of quadratics exact, and their gradients too.
    """

    nodes: torch.Tensor | None = None

    def draw(self, name, prior, posterior):
        return Latent(name, posterior.loc + posterior.log_scale.exp() * self.nodes, prior, posterior)


def quadratic_nodes(dims):
    """2 D points of equal weight with mean 0 and covariance I, (2D, 1, D)."""
    return math.sqrt(dims) * torch.cat([torch.eye(dims), -torch.eye(dims)]).double().unsqueeze(1)
