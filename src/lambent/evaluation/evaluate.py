"""What an evaluation says of a run beside its bounds."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lambent.data import View
from lambent.evaluation.active_units import level_sizes
from lambent.evaluation.codebook_usage import code_usage
from lambent.evaluation.exact import exact_log_prob
from lambent.evaluation.mutual_information import EXAMPLES, Information, information
from lambent.evaluation.summary import DataFacts, LatentFacts
from lambent.likelihoods import Family
from lambent.models import LatentModel
from lambent.seeds import mix

if TYPE_CHECKING:
    from lambent.runs.run import Run


def data_facts(run: Run, prepared: View) -> DataFacts:
    """Of the examples, as this run scores them."""
    return DataFacts(
        prepared.dataset.name,
        prod(run.shapes.event),
        bool(getattr(getattr(run.model.likelihood, "family", None), "discrete", False)),
        run.transform.log_jacobian,
        _counts(run, prepared),
        prepared.dataset.fingerprint(),
    )


def latent_facts(run: Run, prepared: View, seed: int) -> LatentFacts:
    """Of the latents, over these examples."""
    means, glimpse = run.posterior_means(prepared), run.glimpse(prepared)
    return LatentFacts(
        means,
        level_sizes(glimpse),
        run.unit_rates(prepared, seed),
        code_usage(run.model, means),
        _information(run, prepared, seed),
        estimated=any(getattr(z.p, "estimated", False) for z in glimpse.latents),
    )


@torch.inference_mode()
def exact(model: LatentModel, prepared: View) -> Tensor | None:
    """Log p(x) of every example, (N,) float64 nats, where the model has it."""
    log_prob = exact_log_prob(model)
    if log_prob is None:
        return None
    return torch.cat([log_prob(x, c).double().cpu() for x, c in prepared.batches()])


def _counts(run: Run, prepared: View) -> Tensor | None:
    """Symbols that are scored of each text; None for all other data."""
    family = getattr(run.model.likelihood, "family", None)
    if not isinstance(family, Family):
        return None
    found = [family.scored(x, run.shapes) for x, _ in prepared.batches()]
    counts = [part.cpu() for part in found if part is not None]
    return torch.cat(counts) if counts else None


def _information(run: Run, prepared: View, seed: int) -> Information | None:
    """I_q(x;z); with a condition it would be of the two together, which no rate is above."""
    if not run.config.model.latents or run.shapes.condition or run.config.posterior.deterministic:
        return None
    batch = prepared.spread(EXAMPLES)
    return information(run.model, batch, min(len(prepared), EXAMPLES), seed=mix(seed, 7), device=run.device)
