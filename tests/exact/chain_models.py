"""The chains of `linear_chains` as lambent's models, in float64, made of lambent's own parts."""

import dataclasses
import math

import torch
from torch import nn

from exact.linear_chains import Inference
from lambent.distributions import Normal
from lambent.draws import Draw
from lambent.likelihoods import LikelihoodModule, NormalLikelihood
from lambent.models import MarkovChain
from lambent.models.ladder import Ladder, LadderLevel
from lambent.networks import LinearDecoder, LinearEncoder
from lambent.posteriors import AmortisedPosteriorModule, FullCovariancePosterior, NormalPosterior
from lambent.priors import NormalPriorModule
from lambent.shapes import Shapes
from lambent.trace import Latent

SLOPE, OFFSET = 12 / 35, math.log(7 / 5)
"""Of the sigmoid between -7 and 5 with value 0 and slope 1 at 0, which bounds log scales."""


def log_scale(raw):
    return 12 * torch.sigmoid(SLOPE * raw + OFFSET) - 7


def raw_scale(scale):
    return (torch.logit((scale.log() + 7) / 12) - OFFSET) / SLOPE


def factor(own, dims):
    """The Cholesky factor that a family of full covariances makes of its numbers."""
    scale = log_scale(own[:dims]).exp()
    rows, columns = torch.tril_indices(dims, dims, -1)
    below = torch.zeros(dims, dims).double().index_put((rows, columns), own[dims:])
    return scale.unsqueeze(1) * (torch.eye(dims) + below)


def own_numbers(tril):
    rows, columns = torch.tril_indices(len(tril), len(tril), -1)
    scale = tril.diagonal()
    return torch.cat([raw_scale(scale), tril[rows, columns] / scale[rows]])


def likelihood_of(chain):
    """p(x|z_1), with a scale for each dimension."""
    shapes = Shapes((chain.dims[0],), chain.dims[1])
    found = LikelihoodModule(
        NormalLikelihood(scale="dimension"), LinearDecoder().build(chain.dims[1], (1, chain.dims[0])), shapes
    )
    found.double()
    with torch.no_grad():
        found.decoder.output.weight.copy_(chain.weights[0])
        found.decoder.output.bias.copy_(chain.shifts[0])
        found.own.copy_(raw_scale(chain.scales[0]))
    return found


def _linear(family, weight, bias, own=None):
    module = AmortisedPosteriorModule(
        family, LinearEncoder().build((weight.shape[1],)), own_dims(family, bias)
    ).double()
    with torch.no_grad():
        module.head.weight.copy_(weight)
        module.head.bias.copy_(bias)
        if own is not None:
            module.own.copy_(own)
    return module


def own_dims(family, bias):
    return len(bias) // (2 if isinstance(family, NormalPosterior) else 1)


def chain_model(chain, q):
    """The `MarkovChain` of p and of an upward q."""
    posteriors = []
    for w, v, b, tril in zip(q.weights, q.seen, q.shifts, q.factors, strict=True):
        posteriors.append(_linear(FullCovariancePosterior(shared=True), v if w is None else w, b, own_numbers(tril)))
    conditionals = []
    for w, a, s in list(zip(chain.weights, chain.shifts, chain.scales, strict=True))[1:]:
        head = torch.cat([w, torch.zeros_like(w)])
        conditionals.append(_linear(NormalPosterior(), head, torch.cat([a, raw_scale(s)])))
    return MarkovChain(NormalPriorModule(chain.dims[-1]).double(), posteriors, conditionals, likelihood_of(chain))


def chain_parameters(model):
    """Of q, level by level."""
    return [[m.head.weight, m.head.bias, m.own] for m in model.posteriors]


def chain_inference(parameters):
    """The q that such numbers stand for."""
    (first, *_), *_ = parameters
    n = len(parameters)
    weights, shifts, owns = zip(*parameters, strict=True)
    factors = [factor(own, len(b)) for own, b in zip(owns, shifts, strict=True)]
    return Inference([None, *weights[1:]], [first, *[None] * (n - 1)], list(shifts), factors)


class DiagonalBelow(FullCovariancePosterior):
    """q of full covariance over p of a diagonal one."""

    def conditional(self):
        return NormalPosterior()


class LinearLevel(LadderLevel):
    """p and q of one level, each linear in the level above (the state) and q in x too."""

    def __init__(self, prior, posterior):
        w, v, b, tril = posterior
        dims = len(b)
        super().__init__(dims, 2 * dims, dims + dims * (dims + 1) // 2)
        self.prior = nn.ParameterList([] if prior is None else prior)
        self.weight = None if w is None else nn.Parameter(w.clone())
        self.seen, self.shift, self.own = (nn.Parameter(t.clone()) for t in (v, b, own_numbers(tril)))

    def prior_numbers(self, state, condition):
        w, a, s = self.prior
        return torch.cat([state @ w.T + a, raw_scale(s).expand(len(state), -1)], 1)

    def posterior_params(self, seen, state, condition):
        mean = seen @ self.seen.T + self.shift
        mean = mean if state is None else mean + state @ self.weight.T
        return torch.cat([mean, self.own.expand(len(mean), -1)], 1)

    def next(self, state, z, condition):
        return z

    @property
    def inference(self):
        return ()


class SameForAll(nn.Module):
    """Every level sees x itself."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x, condition):
        return [x] * self.levels


def ladder_model(chain, q):
    """The `Ladder` of p and of a downward q."""
    priors = [*zip(chain.weights[1:], chain.shifts[1:], chain.scales[1:], strict=True), None]
    levels = [
        LinearLevel(prior, posterior)
        for prior, posterior in zip(priors, zip(q.weights, q.seen, q.shifts, q.factors, strict=True), strict=True)
    ]
    prior = NormalPriorModule(chain.dims[-1]).double()
    return Ladder(prior, DiagonalBelow(), SameForAll(len(levels)), levels, likelihood_of(chain))


def ladder_parameters(model):
    """Of q, level by level."""
    return [[p for p in (m.weight, m.seen, m.shift, m.own) if p is not None] for m in model.levels]


def ladder_inference(parameters):
    """The q that such numbers stand for."""
    levels = [[None, *level] if len(level) == 3 else level for level in parameters]
    weights, seen, shifts, owns = map(list, zip(*levels, strict=True))
    factors = [factor(own, len(b)) for own, b in zip(owns, shifts, strict=True)]
    return Inference(weights, seen, shifts, factors, upwards=False)


@dataclasses.dataclass(frozen=True)
class ChainNodes(Draw):
    """z = mean + L node for fixed nodes of every level: pathwise without chance.

    All levels' nodes together have the mean and covariance of N(0, I), so that expectations of quadratics are exact.
    """

    nodes: dict | None = None

    def draw(self, name, prior, posterior):
        if isinstance(posterior, Normal):
            away = posterior.scale * self.nodes[name]
        else:
            away = (posterior.tril @ self.nodes[name].unsqueeze(-1)).squeeze(-1)
        return Latent(name, posterior.loc + away, prior, posterior)


def chain_nodes(dims):
    """2 D points of equal weight for levels of ``dims`` dimensions, D together."""
    total = sum(dims)
    points = math.sqrt(total) * torch.cat([torch.eye(total), -torch.eye(total)]).double().unsqueeze(1)
    return ChainNodes(nodes={f"z{i + 1}": part for i, part in enumerate(points.split(dims, -1))})
