"""Faults seen in the wild or easily made, each planted into the real code, and the check that must catch it."""

import dataclasses
import math
from collections.abc import Callable

import torch

import lambent.distributions.discrete as discrete
import lambent.distributions.normal as normal
import lambent.draws as draws
import lambent.draws.pathwise as pathwise
import lambent.evaluation.active_units as units
import lambent.evaluation.bounds as evaluator
import lambent.evaluation.exact as exact
import lambent.evaluation.summary as summary
import lambent.objectives.base as base
import lambent.trace as ledger
from exact import checks
from lambent.data import Transform
from lambent.distributions import DiscretisedLogistic, Normal, OneHotCategorical, StandardNormal
from lambent.evaluation.result import Evaluation, MeanEstimate
from lambent.objectives import ELBO, IWAE, Capacity, FreeBits
from lambent.trace import Estimate, Latent, Trace


@dataclasses.dataclass(frozen=True)
class Fault:
    """``plant`` puts it into the code through a MonkeyPatch; ``check`` must fail then, and pass without it."""

    name: str
    check: Callable[[], None]
    plant: Callable[..., None]

    def __str__(self):
        return self.name


FAULTS: list[Fault] = []


def fault(name, check):
    def add(plant):
        FAULTS.append(Fault(name, check, plant))
        return plant

    return add


def replaced(name, check, owner, attribute, make):
    """A fault that is one attribute made of the real one."""
    fault(name, check)(lambda patch: patch.setattr(owner, attribute, make(getattr(owner, attribute))))


def changed(name, check, owner, attribute, make):
    """The same for a property."""
    real = getattr(owner, attribute)
    get = real.fget
    fault(name, check)(lambda patch: patch.setattr(owner, attribute, property(make(get))))


C3 = "C3"


def closed_rate():
    checks.elbo_with_closed_rate(C3)


def one_weight():
    checks.single_weights(C3)


def two_weights():
    checks.pairs_of_weights(C3)


def drawn_bound():
    checks.sampled_bound(C3, 10, 40_000, delta=3e-3)


def dreg_gradient():
    checks.unbiased_gradient("dreg", "iwae", 5, "C2")


def plain_gradient():
    checks.unbiased_gradient("pathwise", "iwae", 5, "C2")


# The densities and the draws

replaced("missing half log 2 pi", checks.constant_weights, normal, "HALF_LOG_TWO_PI", lambda real: 0.0)
replaced(
    "variance for deviation in the density",
    checks.constant_weights,
    Normal,
    "log_prob",
    lambda real: lambda self, value: real(Normal(self.loc, 0.5 * self.log_scale, self.event_dims), value),
)
replaced(
    "variance for deviation in the draw",
    drawn_bound,
    Normal,
    "_sample",
    lambda real: lambda self, *a: real(Normal(self.loc, 2 * self.log_scale, self.event_dims), *a),
)
replaced(
    "posterior deviation x 0.9",
    drawn_bound,
    Normal,
    "_sample",
    lambda real: lambda self, *a: self.loc + 0.9 * (real(self, *a) - self.loc),
)
replaced(
    "prior variance 1.01",
    one_weight,
    StandardNormal,
    "log_prob",
    lambda real: lambda self, z: real(self, z / math.sqrt(1.01)) - 0.5 * z.shape[-1] * math.log(1.01),
)
replaced(
    "noise shared by the examples",
    checks.noise_is_fresh,
    normal,
    "standard_noise",
    lambda real: lambda shape, like, g: real((shape[0], 1, *shape[2:]), like, g).expand(shape),
)
replaced(
    "the path's gradient cut",
    plain_gradient,
    Normal,
    "rsample",
    lambda real: lambda self, *a: real(self, *a).detach(),
)
replaced(
    "log q not detached in sticking the landing",
    checks.no_variance_at_the_posterior,
    pathwise,
    "detached",
    lambda real: lambda q: q,
)


def _without_tails(real):
    def log_prob(self, value):
        upper = torch.sigmoid((self._edge(value + 1) - self.loc) / self.log_scale.exp())
        lower = torch.sigmoid((self._edge(value) - self.loc) / self.log_scale.exp())
        return (upper - lower).log().sum(-1)

    return log_prob


replaced("dropped edge bins", checks.levels_sum_to_one, DiscretisedLogistic, "log_prob", _without_tails)
replaced(
    "per pixel for per image",
    checks.uniform_levels,
    discrete,
    "event_sum",
    lambda real: lambda terms, shape: real(terms, shape) / shape.numel(),
)
changed("missing scale Jacobian", checks.density_in_its_unit, Transform, "log_jacobian", lambda real: lambda self: 0.0)
replaced(
    "variance for deviation in the exact evidence",
    checks.exact_ppca,
    exact,
    "linear_gaussian_log_prob",
    lambda real: lambda x, w, b, log_scale: real(x, w, b, 2 * log_scale),
)

# The ledger

replaced("KL's sign", closed_rate, ledger, "closed_kl", lambda real: lambda q, p: -real(q, p))
replaced("KL of p from q", closed_rate, ledger, "closed_kl", lambda real: lambda q, p: real(p, q))
changed("KL counted twice", closed_rate, Latent, "rate", lambda real: lambda self: 2 * real(self))
replaced(
    "likelihood's sign in the weight",
    one_weight,
    Trace,
    "log_weight",
    lambda real: lambda self, x: real(self, x) - 2 * self.log_px(x),
)
replaced(
    "closed-form KL inside the weight",
    two_weights,
    Trace,
    "log_weight",
    lambda real: lambda self, x: self.log_px(x) - self.rate,
)


def _bound_of(make):
    return lambda real: lambda self, x: make(self.log_weight(x))


def _softmax_weighted(log_weight):
    return (log_weight.softmax(0) * log_weight).sum(0)


def _mean_of_logs(log_weight):
    return log_weight.mean(0)


def _one_sample_more(log_weight):
    return torch.logsumexp(log_weight, 0) - math.log(len(log_weight) + 1)


def _not_divided(log_weight):
    return torch.logsumexp(log_weight, 0)


replaced("K off by one", checks.constant_weights, Trace, "log_mean_weight", _bound_of(_one_sample_more))
replaced("sum for mean of weights", checks.constant_weights, Trace, "log_mean_weight", _bound_of(_not_divided))
replaced("mean of logs for log of mean", two_weights, Trace, "log_mean_weight", _bound_of(_mean_of_logs))
replaced(
    "softmax-weighted log weights as the bound", two_weights, Trace, "log_mean_weight", _bound_of(_softmax_weighted)
)
replaced(
    "plain mean over enumerated states",
    checks.exact_mixture,
    Trace,
    "average",
    lambda real: lambda self, values: values.mean(0),
)
replaced(
    "mixture without its prior",
    checks.exact_mixture,
    OneHotCategorical,
    "log_prob",
    lambda real: lambda self, value: real(self, value) * 0,
)
replaced(
    "x broadcast against the likelihood",
    checks.refuses_broadcasting,
    Trace,
    "log_px",
    lambda real: lambda self, x: self.px.log_prob(x),
)

# The objectives


def _reports_its_loss(real):
    def call(self, trace, x):
        found = real(self, trace, x)
        return Estimate(trace.average(trace.log_px(x) - self.rate(trace)).detach(), found.losses, found.kind)

    return call


replaced("the modified bound reported", checks.reports_the_plain_bound, ELBO, "__call__", _reports_its_loss)
replaced(
    "free bits per example",
    checks.free_bits_by_hand,
    FreeBits,
    "_charge",
    lambda real: lambda self, trace, z: z.rate_elements.clamp_min(self.nats).sum(-1).mean(),
)


def _doubly(weigh, *, generative=False):
    def make(real):
        def call(self, trace, x):
            log_weight = trace.log_weight(x)
            inference = -(weigh(log_weight) * log_weight).sum(0).mean()
            bound = torch.logsumexp(log_weight, 0) - math.log(len(log_weight))
            losses = {"generative": inference if generative else -bound.mean(), "inference": inference}
            return Estimate(base.detach(bound), losses, "lower bound")

        return call

    return make


for name, make in {
    "doubly reparameterised weights not squared": _doubly(lambda w: w.detach().softmax(0)),
    "doubly reparameterised weights over the batch": _doubly(lambda w: w.detach().softmax(1).square()),
    "doubly reparameterised weights not detached": _doubly(lambda w: w.softmax(0).square()),
    "squared weights for the generative parameters": _doubly(lambda w: w.detach().softmax(0).square(), generative=True),
}.items():
    replaced(name, dreg_gradient, IWAE, "__call__", make)

# The evaluator


def _without_remainder(real):
    return lambda *given: [block for block in real(*given) if block[2] - block[1] == 32]


replaced("dropped last batch", checks.every_example_once, evaluator, "blocks_of", _without_remainder)
replaced(
    "training mode at evaluation",
    checks.evaluation_mode,
    evaluator.evaluating,
    "__enter__",
    lambda real: lambda self: None,
)
replaced(
    "frozen parts thawed by evaluation",
    checks.evaluation_mode,
    evaluator.evaluating,
    "__exit__",
    lambda real: lambda self, *a: self.model.train(),
)


def _mean_of_chunks(real):
    def add(self, log_weight, correction):
        real(self, log_weight, correction)
        self.bounds = [*getattr(self, "bounds", []), torch.logsumexp(log_weight, 0) - math.log(len(log_weight))]
        self.log_corrected = torch.stack(self.bounds).mean(0) + math.log(self.count)

    return add


replaced(
    "mean of the chunks' bounds", checks.streams_like_one_piece, evaluator._Stream, "_add_weights", _mean_of_chunks
)
replaced(
    "the same noise in every chunk",
    checks.streams_like_one_piece,
    draws.Draw,
    "using",
    lambda real: lambda self, g: real(self, torch.Generator().manual_seed(g.initial_seed())),
)
replaced("the same noise in every block", checks.noise_is_fresh, evaluator, "derive", lambda real: lambda *numbers: 7)
replaced(
    "bits for nats in the means",
    checks.uniform_levels,
    summary,
    "mean_estimate",
    lambda real: lambda v, k: real(v / math.log(2), k),
)
changed(
    "nats for bits a dimension",
    checks.uniform_levels,
    Evaluation,
    "bits_per_dim",
    lambda real: lambda self: real(self) * math.log(2),
)


def _mean_of_batches(real):
    return lambda values, kind: real(torch.stack([part.mean() for part in values.split(32)]), kind)


replaced("mean over batches, the last one short", checks.every_example_once, summary, "mean_estimate", _mean_of_batches)
replaced(
    "standard deviation for standard error",
    checks.every_example_once,
    summary,
    "mean_estimate",
    lambda real: lambda v, k: MeanEstimate(real(v, k).value, v.std().item(), k),
)
replaced(
    "non-finite examples dropped",
    checks.non_finite_examples_count,
    summary,
    "mean_estimate",
    lambda real: lambda v, k: real(v[torch.isfinite(v)], k),
)
replaced(
    "deviation against the threshold of active units",
    checks.units_by_variance,
    checks,
    "active_units",
    lambda real: lambda means: int((means.std(0) > units.THRESHOLD).sum()),
)
replaced(
    "the capacity's distance reported",
    checks.reports_the_plain_bound,
    Capacity,
    "__call__",
    lambda real: lambda self, trace: trace.latents[0]._found.update(kl=real(self, trace)) or real(self, trace),
)
