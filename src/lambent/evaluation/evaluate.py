"""`evaluate`: everything that is measured of a model on a data set, from the model and the data alone."""

from __future__ import annotations

from math import prod
from typing import Protocol

import torch
from torch import Tensor

from lambent.data import View
from lambent.distributions.base import Distribution
from lambent.draws import Draw, Mode
from lambent.errors import ConfigError
from lambent.evaluation.active_units import level_sizes, posterior_means, rated, unit_rates
from lambent.evaluation.blocks import evaluating
from lambent.evaluation.bounds import bounds
from lambent.evaluation.codebook_usage import code_usage
from lambent.evaluation.exact import exact_log_prob
from lambent.evaluation.low_precision import in_low_precision, require_tight
from lambent.evaluation.mutual_information import EXAMPLES, Information, information
from lambent.evaluation.result import Evaluation
from lambent.evaluation.summary import DataFacts, LatentFacts, summarise
from lambent.likelihoods import LikelihoodModule
from lambent.models import LatentModel
from lambent.seeds import derive
from lambent.trace import Trace


class Processes(Protocol):
    """The processes that share an evaluation, as `lambent.training.engine.Engine` knows them."""

    @property
    def rank(self) -> int:
        """The number of this process."""

    @property
    def world(self) -> int:
        """How many processes there are."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes."""


def evaluate(
    model: LatentModel,
    view: View,
    *,
    draw: Draw | None = None,
    samples: int = 100,
    seed: int = 0,
    threads: int = 1,
    precision: str = "float32",
    processes: Processes | None = None,
) -> Evaluation:
    """ELBO, IWAE-K, rate, distortion, exact log p(x) where the model has it, and active units of every example once.

    Args:
        model: Evaluated in evaluation mode, on the device of ``view``.
        view: The examples as the likelihood scores them.
        draw: How latents are drawn; by default pathwise.
        samples: K, the importance samples of each example.
        seed: Seed of the noise: the numbers depend on model, data, K and seed alone.
        threads: CPU threads.
        precision: "float32", or "bfloat16" or "int8" for p(x|z) of most samples, corrected by a few in float32.
        processes: The processes that share the work; by default this one does all of it.

    Raises:
        ConfigError: fewer than one sample, or a precision that this model can't be evaluated in.
        NumericsError: a precision in which log p(x|z) is too far off for a tight bound.

    >>> import lambent
    >>> run = lambent.fit("ppca", latent=1, epochs=1, quiet=True)
    >>> evaluation = evaluate(run.model, run.prepare(), samples=5)
    >>> evaluation.elbo.value < evaluation.log_likelihood.value
    True
    """
    if samples < 1:
        raise ConfigError(f"samples={samples}: expected at least 1")
    terms = bounds(
        in_low_precision(model, precision, samples),
        view.slice,
        len(view),
        samples=samples,
        seed=seed,
        draw=draw,
        device=view.device,
        threads=threads,
        share=(0, 1) if processes is None else (processes.rank, processes.world),
    )
    if processes is not None:
        terms = terms.summed(processes.sum)
    with evaluating(model):
        facts = data_facts(model, view), latent_facts(model, view, seed)
        evaluation = summarise(terms, *facts, exact_of_all(model, view), seed)
    require_tight(precision, evaluation.log_px_error_sd)
    return evaluation


def data_facts(model: LatentModel, view: View) -> DataFacts:
    """What is known of the examples as this model scores them."""
    likelihood, transform = model.likelihood, view.transform
    return DataFacts(
        view.dataset.name,
        prod(transform.event),
        isinstance(likelihood, LikelihoodModule) and likelihood.family.discrete,
        transform.log_jacobian,
        _symbol_counts(model, view),
        view.dataset.fingerprint(),
    )


def latent_facts(model: LatentModel, view: View, seed: int) -> LatentFacts:
    """What is known of the latents of these examples; ``model`` is in evaluation mode."""
    means, first = means_of_all(model, view), first_trace(model, view)
    return LatentFacts(
        means,
        level_sizes(first),
        unit_rates_of_all(model, view, seed),
        code_usage(model, means),
        _information(model, view, seed),
        estimated=any(isinstance(z.p, Distribution) and z.p.estimated for z in first.latents),
    )


@torch.inference_mode()
def first_trace(model: LatentModel, view: View) -> Trace:
    """The trace of the first example, its latents at the modes of q."""
    x, condition = view.slice(0, 1)
    trace: Trace = model(x, Mode(), condition)
    return trace


@torch.inference_mode()
def means_of_all(model: LatentModel, view: View) -> Tensor:
    """E_q[z] of all levels side by side, (N, latents); a level is inferred from the mode of the one below."""
    traces = [model(x, Mode(), condition) for x, condition in view.batches()]
    return torch.cat([posterior_means(trace) for trace in traces])


def unit_rates_of_all(model: LatentModel, view: View, seed: int = 0) -> dict[str, Tensor]:
    """Mean rate of each latent, (latents,) nats, on the levels whose active units are counted by their rates."""
    if not rated(first_trace(model, view)):
        return {}
    return unit_rates(model, view.batches(), torch.Generator(view.device).manual_seed(derive(seed, "unit rates")))


@torch.inference_mode()
def exact_of_all(model: LatentModel, view: View) -> Tensor | None:
    """Log p(x) of every example, (N,) float64 nats; None where the model doesn't have it."""
    log_prob = exact_log_prob(model)
    if log_prob is None:
        return None
    return torch.cat([log_prob(x, c).double().cpu() for x, c in view.batches()])


def _symbol_counts(model: LatentModel, view: View) -> Tensor | None:
    """The number of symbols of each text that are scored, (N,); None for all other data."""
    likelihood = model.likelihood
    if not isinstance(likelihood, LikelihoodModule):
        return None
    counts = [likelihood.family.scored(x, likelihood.shapes) for x, _ in view.batches()]
    known = [part.cpu() for part in counts if part is not None]
    return torch.cat(known) if known else None


def _information(model: LatentModel, view: View, seed: int) -> Information | None:
    """I_q(x;z); with a condition it would be of x and the condition together, which is not bounded by the rate."""
    if view.transform.condition_size:
        return None
    n = min(len(view), EXAMPLES)
    return information(model, view.spread(EXAMPLES), n, seed=derive(seed, "mutual information"), device=view.device)
