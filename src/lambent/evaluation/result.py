"""An evaluation: every number with its error, its unit and what it is, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lambent.evaluation.active_units import counted_by
from lambent.evaluation.mutual_information import Information
from lambent.storage.json import to_json
from lambent.trace import Kind

MOST_PARTS = 4
UNITS_BY = {
    "mean": "",
    "rate": "  (rate above 0.01 nats)",
    "rate or mean": "  (rate above 0.01 nats; where it isn't known by latent, variance of the mean above 0.01)",
}
"""How active units are counted, where not by the variance of the posterior's mean."""


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over examples, in nats.

    Attributes:
        value: The mean; -inf if any example's number is not finite.
        se: Its standard error over examples (which holds the noise of the estimate too).
        kind: What it is of log p(x): "exact", "lower bound" or "not a bound" (as a rate or a distortion is not).
    """

    value: float
    se: float
    kind: Kind

    def to_dict(self) -> dict[str, Any]:
        """As JSON wants it; numbers that are not finite are text."""
        values = {"value": self.value, "se": self.se, "unit": "nats", "kind": self.kind}
        return dict(to_json(values, "estimate"))


def mean_estimate(values: Tensor, kind: Kind) -> MeanEstimate:
    """The mean of per-example values (N,) with its standard error; nothing is dropped.

    >>> mean_estimate(torch.tensor([-1.0, -3.0]), "exact")
    MeanEstimate(value=-2.0, se=1.0, kind='exact')
    """
    if not bool(torch.isfinite(values).all()):
        return MeanEstimate(-math.inf, math.nan, kind)
    n = len(values)
    spread = values.double().std().item() / math.sqrt(n) if n > 1 else math.nan
    return MeanEstimate(values.double().mean().item(), spread, kind)


@dataclass(frozen=True)
class Scored:
    """How many symbols texts of different lengths have.

    Attributes:
        mean: Of an example, END included, padding not.
        bits_se: Standard error over examples of the bits per symbol, a ratio of two means.
    """

    mean: float
    bits_se: float


def scored(values: Tensor, counts: Tensor) -> Scored:
    """Of log probabilities (N,), nats, of examples that have ``counts`` (N,) symbols.

    The error is that of a ratio to first order: the deviation of -log2 p(x_i) - b n_i, over sqrt(N) and the mean n.

    >>> scored(torch.tensor([-2.0, -4.0]), torch.tensor([2, 2])).mean
    2.0
    """
    bits, counts = values.double().cpu() / -math.log(2), counts.double().cpu()
    mean = counts.mean().item()
    off = bits - bits.mean() / mean * counts
    return Scored(mean, off.std().item() / math.sqrt(len(off)) / mean if len(off) > 1 else math.nan)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What is known of a model on a data set; printed, it is the table of `lambent evaluate`.

    Attributes:
        data: The data set's name.
        n: Examples, all of them counted.
        samples: Importance samples K per example.
        elbo: E log p(x|z) - KL.
        iwae: log mean weight of K samples; None where no importance weight exists.
        log_likelihood: Exact log p(x); None where the model doesn't have it.
        rate: KL(q||p), of all levels together.
        distortion: -E log p(x|z).
        effective: Mean effective sample size of the K weights.
        active_units: Latent dimensions whose posterior mean varies (variance > 0.01); on the levels ``rated`` those
            whose rate is above 0.01 nats.
        latent: Latent dimensions.
        dims: Numbers in an example.
        discrete: Whether the likelihood is a probability, so that bits/dim mean something.
        non_finite: Examples any of whose bounds is not finite.
        information: I_q(x;z) of some of the examples; None where it isn't known.
        seed: Of the noise.
        fingerprint: Of the data as they were read; empty where it wasn't taken.
        log_jacobian: What to add to a density to have it in the data's own unit, nats per example (0 if unscaled).
        codes: Share of each level's codes in use and their perplexity; None without codes.
        symbols: How many symbols texts have: bits are per symbol then; None for all other data.
        rates: E_q[log q - log p] of each level, whose sum is ``rate``; None with fewer than two.
        units: Active units of each level that has values, and its latents; None with fewer than two levels.
        rated: The levels whose active units are counted by their rates.
        estimated: Whether log p(z) is a bound itself, so that ``rate`` is an upper bound on KL(q||p).
        precision: What p(x|z) of most samples was computed in; "effective" is of their weights as they were then.
        log_px_error_sd: Standard deviation over samples of the error of log p(x|z) in that arithmetic, nats.
        each: Every example's numbers, (N,) float64 nats in the order of the data: "elbo", "rate", "distortion", and
            where they exist "iwae_K" and "log_likelihood".
    """

    data: str
    n: int
    samples: int
    elbo: MeanEstimate
    iwae: MeanEstimate | None
    log_likelihood: MeanEstimate | None
    rate: MeanEstimate
    distortion: MeanEstimate
    effective: float | None
    active_units: int
    latent: int
    dims: int
    discrete: bool
    non_finite: int
    log_jacobian: float = 0.0
    information: Information | None = None
    seed: int = 0
    fingerprint: str = ""
    codes: Mapping[str, Mapping[str, float]] | None = None
    symbols: Scored | None = None
    rates: Mapping[str, MeanEstimate] | None = None
    units: Mapping[str, tuple[int, int]] | None = None
    rated: tuple[str, ...] = ()
    estimated: bool = False
    precision: str = "float32"
    log_px_error_sd: float = 0.0
    each: Mapping[str, Tensor] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return evaluation_text(self)

    def __repr__(self) -> str:
        name, estimate = self.best
        return f"<Evaluation of {self.data}: {self.n} examples, {name} {estimate.value:.4f} nats ({estimate.kind})>"

    @property
    def units_by(self) -> str:
        """What active units are counted by: "mean" (its variance over the data), "rate", or "rate or mean"."""
        return counted_by(dict(self.units or {}), dict.fromkeys(self.rated))

    @property
    def best(self) -> tuple[str, MeanEstimate]:
        """The tightest number there is, and its name."""
        if self.log_likelihood is not None:
            return "log_likelihood", self.log_likelihood
        return ("elbo", self.elbo) if self.iwae is None else (f"iwae_{self.samples}", self.iwae)

    @property
    def bits_per_dim(self) -> float | None:
        """-best / (dims ln 2), of text by symbols scored; None unless the support is discrete, the number a bound."""
        name_and_figure = self.best
        if not self.discrete or name_and_figure[1].kind == "not a bound":
            return None
        return -name_and_figure[1].value * self._bits

    @property
    def bits_name(self) -> str:
        """What `bits_per_dim` is called: "bits/symbol" of a text, where padding doesn't count, else "bits/dim"."""
        return "bits/dim" if self.symbols is None else "bits/symbol"

    @property
    def _bits(self) -> float:
        """Bits per dimension, or symbol, in a nat per example."""
        return 1 / ((self.dims if self.symbols is None else self.symbols.mean) * math.log(2))

    @property
    def parts_in_bits(self) -> dict[str, float] | None:
        """Each level's rate and the distortion in bits, as parts of `bits_per_dim`; None unless it is of the ELBO."""
        if self.rates is None or self.bits_per_dim is None or self.best[0] != "elbo":
            return None
        return {name: part.value * self._bits for name, part in {**self.rates, "distortion": self.distortion}.items()}

    @property
    def bits_se(self) -> float:
        """Standard error of ``bits_per_dim``."""
        return self.best[1].se * self._bits if self.symbols is None else self.symbols.bits_se

    def to_dict(self) -> dict[str, Any]:
        """The object that ``lambent evaluate --json`` prints."""
        bits = self.bits_per_dim
        values = {
            "data": self.data,
            "n": self.n,
            "samples": self.samples,
            "seed": self.seed,
            **(
                {}
                if self.precision == "float32"
                else {"precision": self.precision, "log_px_error_sd": self.log_px_error_sd}
            ),
            "fingerprint": self.fingerprint,
            "elbo": self.elbo.to_dict(),
            **({} if self.iwae is None else {f"iwae_{self.samples}": self.iwae.to_dict()}),
            **({} if self.log_likelihood is None else {"log_likelihood": self.log_likelihood.to_dict()}),
            "bits_per_dim": bits,
            "bits_per_dim_se": None if bits is None else self.bits_se,
            "bits_per_dim_from": None if bits is None else self.best[0],
            **({} if self.parts_in_bits is None else {"bits_per_dim_parts": self.parts_in_bits}),
            "rate": self.rate.value,
            "rate_se": self.rate.se,
            **({"rate_kind": "upper bound"} if self.estimated else {}),
            **self._levels(),
            "distortion": self.distortion.value,
            "distortion_se": self.distortion.se,
            "effective_samples": self.effective,
            "mutual_information": None if self.information is None else self.information.to_dict(),
            "active_units": self.active_units,
            "active_units_by": self.units_by,
            **({} if self.codes is None else {"codes": {name: dict(found) for name, found in self.codes.items()}}),
            "latent": self.latent,
            "dims": self.dims,
            "symbols": None if self.symbols is None else self.symbols.mean,
            "non_finite": self.non_finite,
            "log_jacobian": self.log_jacobian,
        }
        return dict(to_json(values, "evaluation"))

    def _levels(self) -> dict[str, Any]:
        """Rate, active units and latents of each level, where there are several."""
        if self.rates is None:
            return {}
        units = {
            name: {"active_units": n, "active_units_by": "rate" if name in self.rated else "mean", "latent": size}
            for name, (n, size) in (self.units or {}).items()
        }
        return {"rates": {name: value.to_dict() | units.get(name, {}) for name, value in self.rates.items()}}


def evaluation_text(found: Evaluation) -> str:
    """An evaluation for people: each number with its error and what it is."""
    weighted = None if found.codes else found.iwae  # of a point among codes one weight says all: it is the ELBO
    plain = found.log_likelihood is not None and not (found.latent or found.rates)  # no latents: one number says all
    bounds = [] if plain else [("ELBO", found.elbo), (f"IWAE-{found.samples}", weighted)]
    rows = [*bounds, ("log-likelihood", found.log_likelihood)]
    drawn = f", K = {found.samples}" if found.latent or found.rates else ""
    error = f"error of log p(x|z): sd {found.log_px_error_sd:.2g} nats"
    arithmetic = f", in {found.precision} ({error}), corrected by samples in float32"
    arithmetic = "" if found.precision == "float32" else arithmetic
    lines = [f"{found.data}: {found.n} examples{drawn}{arithmetic}"]
    lines += [f"  {name:<16} {_figure(value)}  ({value.kind})" for name, value in rows if value is not None]
    if found.iwae is None and found.log_likelihood is None and found.elbo.kind == "lower bound":
        lines.append(f"  {'IWAE':<16} none: part of the bound is an estimate, which has no importance weights")
    above = "  (upper bound on KL(q||p): log p(z) is a lower bound)" if found.estimated else ""
    if not plain:
        lines += [f"  {'rate':<16} {_figure(found.rate)}{above}", *_levels(found)]
        lines += [f"  {'distortion':<16} {_figure(found.distortion)}"]
    if found.bits_per_dim is not None:
        parts = " + ".join(f"{name} {bits:.5f}" for name, bits in (found.parts_in_bits or {}).items())
        source = "from " + ("elbo" if found.codes else found.best[0])
        source += f": {parts}" if parts and len(found.rates or {}) <= MOST_PARTS else ""
        lines.append(f"  {found.bits_name:<16} {found.bits_per_dim:.5f} ± {found.bits_se:.5f}  ({source})")
    if found.log_jacobian:
        lines.append(
            f"  {'unit':<16} scaled data; add {found.log_jacobian:.4f} nats for densities in the original unit"
        )
    if found.effective is not None and found.samples > 1:
        lines.append(f"  {'effective K':<16} {found.effective:.1f} of {found.samples}")
    if found.information is not None:
        lines.append(f"  {'I(x;z)':<16} {information_text(found.information)}")
    if found.latent and not found.codes:
        lines.append(f"  {'active units':<16} {found.active_units} of {found.latent}{UNITS_BY[found.units_by]}")
    for name, used in (found.codes or {}).items():
        lines.append(f"  {f'codes {name}':<16} {used['usage']:.1%} used, perplexity {used['perplexity']:.1f}")
    if found.non_finite:
        lines.append(f"  {'not finite':<16} {found.non_finite} examples: they make the means -inf")
    return "\n".join(lines)


def _levels(found: Evaluation) -> list[str]:
    """A line a level, where there are several."""
    units = {name: f"  ({active} of {size} units active)" for name, (active, size) in (found.units or {}).items()}
    rates = found.rates or {}
    return [f"    {f'rate {name}':<14} {_figure(value)}{units.get(name, '')}" for name, value in rates.items()]


def information_text(found: Information) -> str:
    """The mutual information with what bounds it."""
    return f"{found.value:.4f} ± {found.se:.4f} nats  (lower bound, from {found.n} examples: at most {found.most:.2f})"


def _figure(value: MeanEstimate) -> str:
    return f"{value.value:.4f} ± {value.se:.4f} nats"
