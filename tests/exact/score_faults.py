"""Faults of discrete draws, their baselines and their objectives, and the check that must catch each."""

import dataclasses

import torch

import lambent.distributions.relaxed as relaxed
import lambent.draws.controlled as controlled
import lambent.objectives.elbo as elbo
import lambent.objectives.score_function as credit
from exact import control_checks, score_checks as checks
from exact.coins import COIN
from exact.faults import replaced
from lambent.distributions import Bernoulli, OneHotCategorical
from lambent.draws import LearnedBaseline, RunningMean
from lambent.models import MarkovChain
from lambent.objectives import ReweightedWakeSleep
from lambent.objectives.score_function import LogMean, Mean
from lambent.trace import Estimate, Trace


def running_mean():
    checks.score_with_tuples("running-mean", "elbo")


def two_levels():
    checks.chain_with_scores("running-mean", "elbo")


def learned():
    checks.score_with_tuples("learned", "iwae")


def leave_one_out():
    checks.score_with_tuples("leave-one-out", "elbo")


def vimco():
    checks.score_with_tuples("leave-one-out", "iwae")


def plain_elbo():
    checks.score_with_tuples("none", "elbo")


def plain_score():
    checks.score_with_tuples("none", "iwae")


def groups():
    checks.score_with_tuples("leave-one-out", "miwae", (COIN,), 4)


def blended():
    checks.score_with_tuples("none", "ciwae")


def _after_this_batch(real):
    def forward(self, x, credit, prediction):
        real(self, x, credit, prediction)
        return credit - self.mean / self.weight, None

    return forward


def _looks_at_the_sample(real):
    def forward(self, x, credit, prediction):
        remainder, loss = real(self, x, credit, prediction)
        return remainder - 0.2 * remainder, loss

    return forward


replaced("a running mean that holds this batch", running_mean, RunningMean, "forward", _after_this_batch)
replaced("a learned baseline that sees the sample", learned, LearnedBaseline, "forward", _looks_at_the_sample)


def _asked_by_every_level(real):
    def judged(baselines, signal, reduction):
        real(baselines, signal, reduction)
        return real(baselines, signal, reduction)

    return judged


replaced("a running mean moved between two levels", two_levels, credit, "_judged", _asked_by_every_level)
replaced(
    "leave-one-out without leaving one out",
    leave_one_out,
    Mean,
    "prediction",
    lambda real: lambda self, terms: (terms.mean(0) / len(terms)).expand_as(terms),
)
replaced(
    "VIMCO's own weight not replaced",
    vimco,
    LogMean,
    "prediction",
    lambda real: lambda self, terms: self.credit(terms),
)
replaced(
    "VIMCO's own weight in the geometric mean",
    vimco,
    credit,
    "_mean_of_others",
    lambda real: lambda terms: terms.mean(0).expand_as(terms),
)
replaced(
    "the ELBO's credit not divided by K",
    leave_one_out,
    Mean,
    "credit",
    lambda real: lambda self, terms: terms,
)
replaced(
    "each sample credited with its own weight only",
    plain_score,
    LogMean,
    "credit",
    lambda real: lambda self, terms: terms / len(terms),
)
replaced(
    "groups credited with one another's bound",
    groups,
    LogMean,
    "credit",
    lambda real: lambda self, terms: real(self, terms).roll(1, 0),
)
replaced(
    "the prediction for another sample of the group",
    groups,
    LogMean,
    "prediction",
    lambda real: lambda self, terms: real(self, terms).roll(1, 0),
)
replaced(
    "groups' bounds added up",
    groups,
    LogMean,
    "value",
    lambda real: lambda self, terms: self.groups * real(self, terms),
)
replaced(
    "softmax-weighted log weights of a group as its bound",
    groups,
    LogMean,
    "_bounds",
    lambda real: lambda self, terms: (self._split(terms).softmax(1) * self._split(terms)).sum(1),
)
replaced(
    "a blend by the wrong share",
    blended,
    credit.Blend,
    "_blend",
    lambda real: lambda self, first, second: real(self, second, first),
)


def _signal_in_the_graph(real):
    def losses(trace, terms, reduction, constant=0.0):
        (latent,) = trace.latents
        signal = reduction.credit(terms + constant)
        return {"all": -(reduction.value(terms) + (signal * latent.score).sum(0)).mean()}

    return losses


replaced("the score's signal not detached", plain_elbo, elbo, "losses", _signal_in_the_graph)
replaced(
    "the score's gradient lost",
    plain_elbo,
    elbo,
    "losses",
    lambda real: lambda trace, terms, reduction, constant=0.0: {"all": -reduction.value(terms).mean()},
)

# Reweighted wake-sleep


def _normalised(over):
    """RWS with its weights normalised over other dimensions."""

    def make(real):
        def call(self, trace, x):
            (z,) = trace.latents
            log_p = trace.log_px(x) + z.log_p
            weights = over((log_p - z.log_q).detach())
            generative, inference = (-(weights * t).sum(0).mean() for t in (log_p, z.log_q))
            losses = {"generative": generative, "inference": inference}
            return Estimate(trace.log_mean_weight(x).detach(), losses, trace.evidence_kind)

        return call

    return make


for name, over in {
    "weights normalised over the batch": lambda w: w.softmax(1),
    "weights normalised over the minibatch": lambda w: w.flatten().softmax(0).view_as(w) * w.shape[1],
    "weights not normalised": lambda w: w.exp() / len(w),
    "weights shared by the minibatch": lambda w: w.mean(1, keepdim=True).softmax(0).expand_as(w),
}.items():
    replaced(f"reweighted wake-sleep: {name}", checks.reweighted, ReweightedWakeSleep, "__call__", _normalised(over))
replaced(
    "reweighted wake-sleep: the joint's weights without q",
    checks.reweighted,
    Trace,
    "log_terms",
    lambda real: lambda self, log_px: log_px + sum(z.log_p for z in self.latents),
)

# Several levels


def _all_analytic(real):
    return lambda self, *a: dataclasses.replace(real(self, *a), analytic=True)


replaced("closed-form KL of a chain's lower level", checks.chain_enumerated, MarkovChain, "_scored", _all_analytic)
replaced(
    "a level's own posterior as its prior",
    checks.chain_enumerated,
    MarkovChain,
    "_scored",
    lambda real: lambda self, level, latents, c: latents[level],
)
replaced(
    "both levels enumerated in step",
    checks.chain_enumerated,
    MarkovChain,
    "_placed",
    lambda real: lambda self, draw: dataclasses.replace(draw, places=dict.fromkeys(self.names, (1, 2))),
)

# Control variates and the noise behind them


def rebar():
    control_checks.unbiased("rebar", "coin", "elbo", 1)


def rebar_of_several():
    control_checks.unbiased("rebar", "coin", "iwae", 5)


def noise_of_coins():
    control_checks.outcomes_agree(Bernoulli(torch.tensor([-1.0, 2.0], dtype=torch.float64)), 100_000)


def noise_of_categories():
    control_checks.outcomes_agree(OneHotCategorical(torch.tensor([0.3, -1.0, 1.5], dtype=torch.float64)), 100_000)


def moment():
    control_checks.second_moment("rebar", "coin", "elbo")


replaced(
    "noise redrawn without the outcome",  # unbiased still, but of no use
    control_checks.quieter_than_plain_scores,
    controlled,
    "conditional",
    lambda real: lambda q, outcome, g: controlled.noisy(q, outcome.shape[:1], g),
)
replaced(
    "the noise itself for the noise given the outcome",
    rebar_of_several,
    controlled,
    "conditional",
    lambda real: lambda q, outcome, g: q.logits + torch.zeros_like(outcome),
)


def _other_way_round(real):
    def draw(self, *a):
        z = real(self, *a)
        hard, relaxed, again = z.value.chunk(3)
        return dataclasses.replace(z, value=torch.cat([hard, again, relaxed]))

    return draw


replaced("the two relaxations exchanged", rebar, controlled._Controlled, "draw", _other_way_round)
replaced(
    "the control variate in the signal of one sample only",
    rebar_of_several,
    LogMean,
    "credit",
    lambda real: lambda self, terms: torch.cat([real(self, terms)[:1], terms[1:]]),
)
replaced(
    "the control's noise outside the graph",
    rebar,
    controlled,
    "conditional",
    lambda real: lambda *a: real(*a).detach(),
)
replaced(
    "noise of a coin as if it were fair",
    noise_of_coins,
    relaxed,
    "_binary_given",
    lambda real: lambda q, outcome, u: real(Bernoulli(0 * q.logits), outcome, u),
)
replaced(
    "the largest noise of a group as if it were any",
    noise_of_categories,
    relaxed,
    "_category_given",
    lambda real: lambda q, outcome, u: real(q, outcome, u) + outcome * q.log_probs,
)
replaced(
    "half the second moment as the control's loss",
    moment,
    elbo,
    "losses",
    lambda real: lambda *a: {name: loss / 2 if name == "control" else loss for name, loss in real(*a).items()},
)
