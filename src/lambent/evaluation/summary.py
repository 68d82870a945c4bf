"""An evaluation from the terms of every example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lambent.evaluation.active_units import active_by_level, active_units
from lambent.evaluation.bounds import Bounds
from lambent.evaluation.mutual_information import Information
from lambent.evaluation.per_example import each_of
from lambent.evaluation.result import Evaluation, MeanEstimate, mean_estimate, scored


@dataclass(frozen=True, eq=False)
class DataFacts:
    """What is known of the examples that were scored.

    Attributes:
        name: The data set's name.
        dims: Numbers in an example.
        discrete: Whether the likelihood is a probability.
        log_jacobian: What to add to a density to have it in the data's own unit, nats.
        counts: The symbols of texts, (N,).
        fingerprint: Of the data as they were read.
    """

    name: str
    dims: int
    discrete: bool
    log_jacobian: float = 0.0
    counts: Tensor | None = None
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class LatentFacts:
    """What is known of the latents beside their bounds.

    Attributes:
        means: E_q[z] of every example, (N, latents).
        sizes: Of each level that has values, its latents: what ``means`` is made of.
        rates: Of the levels whose active units are counted by them, each latent's mean rate.
        codes: Of each level, how much of its codebook is in use.
        information: I_q(x;z).
        estimated: Whether log p(z) is a bound itself.
    """

    means: Tensor
    sizes: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Tensor] = field(default_factory=dict)
    codes: Mapping[str, Mapping[str, float]] | None = None
    information: Information | None = None
    estimated: bool = False

    @property
    def units(self) -> dict[str, tuple[int, int]]:
        """Active units of each level, and its latents; of none where they are codes."""
        return active_by_level(self.means, self.sizes, self.rates) if self.sizes and self.codes is None else {}


def summarise(
    found: Bounds, data: DataFacts, latents: LatentFacts, exact: Tensor | None = None, seed: int = 0
) -> Evaluation:
    """The evaluation of per-example bounds, and of log p(x) of every example, (N,), where it is known."""
    units, several = latents.units, len(found.names) > 1
    best = next(values for values in (exact, found.iwae, found.elbo) if values is not None)
    return Evaluation(
        data=data.name,
        n=len(found.elbo),
        samples=found.samples,
        elbo=mean_estimate(found.elbo, found.elbo_kind),
        iwae=None if found.iwae is None else mean_estimate(found.iwae, found.iwae_kind),
        log_likelihood=None if exact is None else mean_estimate(exact, "exact"),
        rate=mean_estimate(found.rate, "not a bound"),
        distortion=mean_estimate(found.distortion, "not a bound"),
        effective=_effective(found.effective),
        active_units=sum(active for active, _ in units.values()) if units else active_units(latents.means),
        codes=latents.codes,
        latent=latents.means.shape[1],
        dims=data.dims,
        discrete=data.discrete,
        non_finite=_non_finite(found.elbo, found.iwae, exact),
        log_jacobian=data.log_jacobian,
        information=latents.information,
        seed=seed,
        fingerprint=data.fingerprint,
        symbols=None if data.counts is None else scored(best, data.counts),
        rates=level_estimates(found) or None,
        units=units if units and several else None,
        rated=tuple(latents.rates) if units else (),
        estimated=latents.estimated,
        precision=found.precision,
        log_px_error_sd=0.0 if found.log_px_error_var is None else found.log_px_error_var.mean().sqrt().item(),
        each=each_of(found, exact),
    )


def level_estimates(found: Bounds) -> dict[str, MeanEstimate]:
    """The rate of each level, where there are several."""
    if len(found.names) < 2:
        return {}
    return {name: mean_estimate(values, "not a bound") for name, values in zip(found.names, found.rates, strict=True)}


def _effective(values: Tensor | None) -> float | None:
    """The mean over examples; None without weights, and where values are summed and not drawn (NaN then)."""
    mean = math.nan if values is None else values.mean().item()
    return None if math.isnan(mean) else mean


def _non_finite(*numbers: Tensor | None) -> int:
    bad = [~torch.isfinite(row).cpu() for row in numbers if row is not None]
    return int(torch.stack(bad).any(0).sum())
