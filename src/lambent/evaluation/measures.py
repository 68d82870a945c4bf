"""Measurements beside `evaluate`: other estimates of log p(x), the rate taken apart, and the quality of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lambent.data import View
from lambent.draws import Draw
from lambent.errors import CombinationError, ConfigError
from lambent.evaluation.aggregated import Term, surgery
from lambent.evaluation.ais import annealed_importance_sampling
from lambent.evaluation.estimates import EvidenceEstimate, importance_sampling, prior_sampling
from lambent.evaluation.evaluate import first_trace
from lambent.evaluation.sample_quality import Principal, frechet_distance, precision_recall
from lambent.models import LatentModel

ESTIMATES = {"importance": 100, "prior": 1000, "ais": 10}
"""Estimates of log p(x), and how many samples of each example they take by default."""
METHODS = (*ESTIMATES, "surgery", "sample-quality")
SURGERY_DRAWS = 10
COMPONENTS = 50
"""Most principal components in which samples are compared with data."""


@dataclass(frozen=True)
class Quantity:
    """A number with its error and what it is.

    Attributes:
        value: The number.
        se: Its standard error; None where it isn't known.
        unit: "nats", "samples", "share", or "squared units of the data".
        kind: "exact", "lower bound" (of log p(x), on average), "estimate", or "not a bound".
    """

    value: float
    se: float | None
    unit: str
    kind: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON wants it; numbers that are not finite are text."""
        se = None if self.se is None or math.isnan(self.se) else self.se
        value = self.value if math.isfinite(self.value) else repr(self.value)
        return {"value": value, "se": se, "unit": self.unit, "kind": self.kind}


@dataclass(frozen=True)
class Measurement:
    """What one method measured of a model on a data set; printed, it is a table.

    Attributes:
        method: The method's name.
        data: The data set's name.
        n: Number of examples.
        samples: Samples of each example; for sample quality, the samples drawn from the model.
        seed: Seed of the noise.
        quantities: The numbers, by name.
        note: What else must be known to read them.
    """

    method: str
    data: str
    n: int
    samples: int
    seed: int
    quantities: Mapping[str, Quantity]
    note: str = ""

    def __str__(self) -> str:
        head = f"{self.data}: {self.n} examples, method {self.method}, {self.samples} samples"
        rows = [f"  {name.replace('_', ' '):<24} {_shown(q)}  ({q.kind})" for name, q in self.quantities.items()]
        return "\n".join([head, *rows, *([f"  {self.note}"] if self.note else [])])

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lambent evaluate --method METHOD --json`` prints."""
        numbers = {name: quantity.to_dict() for name, quantity in self.quantities.items()}
        plain = {"method": self.method, "data": self.data, "n": self.n, "samples": self.samples, "seed": self.seed}
        return {**plain, **numbers, **({"note": self.note} if self.note else {})}


def _shown(quantity: Quantity) -> str:
    error = "" if quantity.se is None or math.isnan(quantity.se) else f" ± {quantity.se:.4f}"
    return f"{quantity.value:.4f}{error} {quantity.unit}"


def estimate_log_prob(
    model: LatentModel,
    view: View,
    method: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    draw: Draw | None = None,
    temperatures: int = 100,
) -> Measurement:
    """The mean of log p(x) by one of three estimates, each the log of an unbiased estimate of p(x).

    Args:
        model: The model.
        view: The examples as the likelihood scores them.
        method: "importance" (from q, as IWAE-K), "prior" (from p(z)) or "ais" (annealed from q to the posterior).
        samples: Samples, or chains, of each example; by default 100, 1000 and 10.
        seed: Seed of the noise.
        draw: How importance sampling draws latents.
        temperatures: Steps of annealing.

    Raises:
        ConfigError: a method of no such name, or fewer than one sample.
        CombinationError: a model without latents, or without importance weights.
    """
    if method not in ESTIMATES:
        raise ConfigError(f"method={method}: expected one of {', '.join(ESTIMATES)}")
    count = ESTIMATES[method] if samples is None else samples
    if count < 1 or temperatures < 1:
        raise ConfigError(f"samples={count}, temperatures={temperatures}: expected at least 1 of each")
    _require_latents(model, view, method)
    n, device = len(view), view.device
    if method == "importance":
        found = importance_sampling(model, view.slice, n, samples=count, seed=seed, draw=draw, device=device)
    elif method == "prior":
        found = prior_sampling(model, view.slice, n, samples=count, seed=seed, device=device)
    else:
        found = annealed_importance_sampling(
            model, view.slice, n, samples=count, temperatures=temperatures, seed=seed, device=device
        )
    note = f"{temperatures} temperatures" if method == "ais" else ""
    return Measurement(method, view.dataset.name, n, count, seed, _quantities(found), note)


def _quantities(found: EvidenceEstimate) -> dict[str, Quantity]:
    value, n = found.log_p.mean().item(), len(found.log_p)
    se = found.log_p.std().item() / math.sqrt(n) if n > 1 else None
    summed = bool(found.effective.isnan().all())  # over every value of the latents
    log_p = Quantity(value, se, "nats", "exact" if summed else "lower bound")
    if summed:
        return {"log_likelihood": log_p}
    return {
        "log_likelihood": log_p,
        "error_of_an_example": Quantity(found.se.mean().item(), None, "nats", "estimate"),
        "effective_samples": Quantity(found.effective.mean().item(), None, "samples", "estimate"),
    }


def take_rate_apart(model: LatentModel, view: View, *, samples: int | None = None, seed: int = 0) -> Measurement:
    """ELBO surgery: the mean rate as mutual information and marginal KL (Hoffman & Johnson 2016), exactly in q(z).

    The cost is the square of the number of examples.

    Args:
        model: A model of one level of latents with densities.
        view: The examples.
        samples: Draws of each example, at least 2; by default 10.
        seed: Seed of the noise.

    Raises:
        CombinationError: no latents, several levels, or no densities.
        ConfigError: fewer than 2 draws.
    """
    _require_latents(model, view, "surgery")
    count = SURGERY_DRAWS if samples is None else samples
    parts = surgery(model, view.slice, len(view), samples=count, seed=seed)
    named: dict[str, Term | None] = {
        "rate": parts.rate,
        "mutual_information": parts.mutual_information,
        "marginal_kl": parts.marginal_kl,
        "total_correlation": parts.total_correlation,
        "dimension_wise_kl": parts.dimension_wise_kl,
    }
    known = {name: Quantity(t.value, t.se, "nats", "estimate") for name, t in named.items() if t is not None}
    note = "rate = mutual information + marginal KL; marginal KL = total correlation + dimension-wise KL"
    return Measurement("surgery", view.dataset.name, len(view), count, seed, known, note)


def compare_samples(real: Tensor, made: Tensor, *, name: str, seed: int = 0) -> Measurement:
    """Fréchet distance, precision and recall of samples, in the principal components of the data.

    The numbers depend on the feature map and on the number of samples: compare only numbers of the same two.

    Args:
        real: Data (N, *event).
        made: Samples of the model (N, *event).
        name: The data set's name.
        seed: Seed that the samples were drawn with.

    Raises:
        ShapeError: too few examples.
    """
    components = Principal.of(real, min(COMPONENTS, real[0].numel()))
    features = components(real), components(made)
    precision, recall = precision_recall(*features)
    quantities = {
        "frechet_distance": Quantity(frechet_distance(*features), None, "squared units of the data", "estimate"),
        "precision": Quantity(precision, None, "share", "estimate"),
        "recall": Quantity(recall, None, "share", "estimate"),
    }
    note = f"in {components.axes.shape[1]} principal components of the data; 3 nearest neighbours"
    return Measurement("sample-quality", name, len(real), len(made), seed, quantities, note)


def _require_latents(model: LatentModel, view: View, method: str) -> None:
    if not first_trace(model, view).latents:
        raise CombinationError(
            f"method={method} is of models with latents, and this one has none: its log p(x) is exact; use method=iwae"
        )
